"""Datasets resolve from roots and without a network, and every problem is said with its place."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evalsuite.benchmark import known_benchmarks, read_benchmark
from evalsuite.data import DatasetSpec, data_roots, go_offline_when_local, load, resolve_all
from evalsuite.errors import DataError
from tests.evalsuite.data.resolving import REPOSITORY, ROWS, refusal, resolve
from tests.hub import write_repo

# --- data roots


def test_roots_come_from_the_options_else_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    assert data_roots([]) == ()
    monkeypatch.setenv("EVALSUITE_DATA_ROOT", f"{a}{os.pathsep}{b}{os.pathsep}")
    assert data_roots([]) == (a, b)
    assert data_roots([str(b)]) == (b,)
    monkeypatch.chdir(tmp_path)
    assert data_roots(["a"]) == (a,)


def test_every_missing_root_is_named_with_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as refused:
        data_roots([str(tmp_path / "no"), str(tmp_path / "file")])
    assert f"--data-root: {tmp_path / 'no'} does not exist, {tmp_path / 'file'} is not a folder" in str(refused.value)
    monkeypatch.setenv("EVALSUITE_DATA_ROOT", str(tmp_path / "no"))
    with pytest.raises(DataError, match=r"^EVALSUITE_DATA_ROOT: "):
        data_roots([])


# --- resolution


def test_a_local_dataset_resolves_with_its_rows_digest_and_no_path_in_its_provenance(
    root: Path, own_cache: Path
) -> None:
    spec = DatasetSpec("some/data", "main", ("test", "train"), ("question",), 4)
    (found,) = resolve(root, spec)
    assert (found.spec, found.origin, found.path, found.rows) == (spec, "local", str(root / "some/data"), 4)
    assert found.cache_dir == str(own_cache / "datasets" / found.digest)
    assert found.dataset_kwargs == {"cache_dir": found.cache_dir}
    assert (found.notes, found.needs_network) == ((), False)
    about = {"origin": "local", "id": "some/data", "config": "main", "split": "test", "rows": 4, "n_expected": 4}
    assert found.provenance == {**about, "digest": found.digest}
    assert str(root) not in json.dumps(found.provenance)


def test_the_first_root_wins_and_the_other_is_recorded(root: Path, tmp_path: Path) -> None:
    write_repo(tmp_path / "second", "some/data", {"main": {"test": ROWS[:2]}})
    spec = DatasetSpec("some/data", "main", ("test",))
    found = resolve_all([spec], (root, tmp_path / "second"), offline=True)[spec]
    assert (found.rows, found.provenance["also_in"]) == (4, ["second"])
    found = resolve_all([spec], (tmp_path / "second", root), offline=True)[spec]
    assert (found.rows, found.provenance["also_in"]) == (2, ["root"])


def test_a_partial_dataset_is_marked(root: Path) -> None:
    spec = DatasetSpec("some/data", "main", ("test",), n_expected=14267)
    assert resolve(root, spec)[0].notes == ("partial dataset 4/14267",)
    longer = DatasetSpec("some/data", "main", ("test",), n_expected=3)
    assert resolve(root, longer)[0].notes == ("more rows than the dataset has: 4/3",)


@pytest.mark.parametrize("aliases", [{"new/name": ["some/data"]}, {"some/data": ["new/name"]}])
def test_an_alias_works_either_way_round_and_is_recorded(root: Path, aliases: dict[str, list[str]]) -> None:
    (found,) = resolve(root, DatasetSpec("new/name", "main", ("test",)), aliases=aliases)
    assert (found.origin, found.path, found.provenance["alias"]) == ("alias", str(root / "some/data"), "some/data")
    assert found.notes == ("alias: some/data stands in for new/name",)


def test_the_exact_id_in_a_later_root_beats_an_alias_in_the_first(root: Path, tmp_path: Path) -> None:
    write_repo(tmp_path / "second", "new/name", {"main": {"test": ROWS[:2]}})
    spec = DatasetSpec("new/name", "main", ("test",))
    found = resolve_all([spec], (root, tmp_path / "second"), offline=True, aliases={"new/name": ["some/data"]})[spec]
    assert (found.origin, found.rows) == ("local", 2)


def test_a_benchmark_of_the_users_own_may_name_a_folder_outright(root: Path) -> None:
    (found,) = resolve(root, DatasetSpec(str(root / "some/data"), "main", ("test",)))
    assert (found.origin, found.rows, found.provenance["id"]) == ("local", 4, "data")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (DatasetSpec("some/data", "mian", ("test",)), "has no config 'mian'; did you mean 'main'?; it has main, other"),
        (DatasetSpec("some/data", None, ("test",)), "several configs and the benchmark names none; it has main, other"),
        (DatasetSpec("some/data", "main", ("tset",)), "no split 'tset'; did you mean 'test'?; it has train, test"),
        (
            DatasetSpec("some/data", "main", ("test",), ("question", "solution")),
            "lacks solution; it has question, answer",
        ),
        (DatasetSpec("json"), "dataset_path 'json' is a file format"),
        (DatasetSpec("../some/data"), "dataset_path '../some/data' is not a dataset id"),
    ],
)
def test_a_folder_that_lacks_what_was_promised_is_an_error_that_says_what_is_there(
    root: Path, spec: DatasetSpec, says: str
) -> None:
    message = refusal(root, spec)
    assert says in message
    assert "evalsuite check --data-root DIR" in message


def test_a_folder_without_the_config_is_not_made_up_for_by_another_root(root: Path, tmp_path: Path) -> None:
    write_repo(tmp_path / "second", "some/data", {"third": {"test": ROWS}})
    with pytest.raises(DataError, match="has no config 'third'"):
        resolve_all([DatasetSpec("some/data", "third", ("test",))], (root, tmp_path / "second"), offline=True)


def test_all_problems_stand_in_one_message_and_one_id_takes_one_line(root: Path) -> None:
    specs = [DatasetSpec("no/bbh", c, ("test",)) for c in "abc"]
    message = refusal(
        root, *specs, DatasetSpec("no/more"), DatasetSpec("some/data", "x"), DatasetSpec("some/data", "main")
    )
    lines = message.splitlines()
    assert lines[0] == "5 of 6 datasets cannot be used: no/bbh, no/more, some/data"
    assert lines[1] == f"  no/bbh (3 configs) is not on this machine; expected {root / 'no/bbh'}"
    assert lines[2] == f"  no/more is not on this machine; expected {root / 'no/more'}"
    assert "has no config 'x'" in lines[3]
    assert "--data-root DIR" in lines[4]
    assert len(lines) == 5


def test_a_root_one_level_too_high_is_recognised(root: Path) -> None:
    assert f"--data-root {root}" in refusal(root.parent, DatasetSpec("some/data", "main")).splitlines()[-1]


def test_the_environment_forbids_the_network_as_the_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"no HF_HUB_OFFLINE"):
        resolve_all([DatasetSpec("no/data")], (), offline=False)


MISSING = """
import sys, time
from evalsuite.data import DatasetSpec, resolve_all
from evalsuite.errors import DataError
start = time.process_time()
try:
    resolve_all([DatasetSpec(f"no/d{i}", "c", ("test",)) for i in range(40)], (), offline=True)
except DataError:
    heavy = {"datasets", "huggingface_hub", "pyarrow", "numpy", "lm_eval", "torch"} & set(sys.modules)
    print(time.process_time() - start, sorted(heavy))
"""


def test_missing_datasets_are_reported_at_once_without_a_heavy_import() -> None:
    run = subprocess.run([sys.executable, "-c", MISSING], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    seconds, heavy = run.stdout.split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert float(seconds) < 0.5


# --- the network


def test_loading_from_a_root_needs_no_socket_and_writes_nothing_outside_the_cache(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    found = resolve(root, DatasetSpec("some/data", "main", ("test",), ("question",)))
    go_offline_when_local(found)
    assert list(load(found[0], "test")) == ROWS
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == before
    assert {p.name for p in tmp_path.iterdir()} == {"root", "cache"}


OFFLINE = """
import os, sys
from evalsuite.data import DatasetSpec, Resolved, go_offline_when_local
def found(origin, **provenance):
    return Resolved(DatasetSpec("a/b"), origin, "a/b", "", provenance=provenance)
go_offline_when_local([found("local"), found("hub")])
print(os.environ.get("HF_HUB_OFFLINE"))
import huggingface_hub.constants
go_offline_when_local([found("local"), found("alias"), found("hub", from_cache=True)])
print(os.environ["HF_HUB_OFFLINE"], huggingface_hub.constants.HF_HUB_OFFLINE)
"""


def test_the_process_goes_offline_exactly_when_no_dataset_needs_the_hub() -> None:
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    run = subprocess.run(
        [sys.executable, "-c", OFFLINE], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["None", "1", "True"]


def test_every_benchmark_resolves_against_a_root_of_synthetic_rows_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = known_benchmarks()
    if not known:
        pytest.skip("no benchmark folders yet")
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was touched"))
    specs = []
    for folder in known.values():
        benchmark = read_benchmark(folder)
        for task in benchmark.tasks:
            if task.dataset:
                config = task.config.get("dataset_name")
                specs.append(DatasetSpec(task.dataset, config, task.splits, benchmark.meta.columns))
    layout: dict[str, dict[str, dict[str, list[dict[str, Any]]]]] = {}
    for spec in specs:
        splits = layout.setdefault(spec.id, {}).setdefault(spec.config or "default", {})
        for split in spec.splits:
            row = splits.setdefault(split, [{}])[0]
            row.update(dict.fromkeys(spec.columns, "synthetic"))
    for dataset, configs in layout.items():
        write_repo(tmp_path / "all", dataset, configs)
    found = resolve_all(specs, (tmp_path / "all",), offline=True)
    assert {r.origin for r in found.values()} == {"local"}
    assert all(r.rows == 1 for spec, r in found.items() if spec.splits)


# --- the real files


COMPLETE = [
    ("cais/mmlu", "all", {"dev": 285, "validation": 1531, "test": 14042}, ("question", "subject", "choices", "answer")),
    ("openai/gsm8k", "main", {"train": 7473, "test": 1319}, ("question", "answer")),
    ("openai/openai_humaneval", None, {"test": 164}, ("task_id", "prompt", "test", "entry_point")),
    ("evalplus/humanevalplus", None, {"test": 164}, ("task_id", "prompt", "test", "entry_point")),
    ("google/IFEval", None, {"train": 541}, ("key", "prompt", "instruction_id_list", "kwargs")),
    ("truthfulqa/truthful_qa", "multiple_choice", {"validation": 817}, ("question", "mc1_targets", "mc2_targets")),
    ("truthfulqa/truthful_qa", "generation", {"validation": 817}, ("question",)),
    ("tatsu-lab/alpaca_eval", "alpaca_eval", {"eval": 805}, ("instruction", "output")),
    ("HuggingFaceH4/MATH-500", None, {"test": 500}, ("problem", "answer")),
    ("lukaemon/bbh", "penguins_in_a_table", {"test": 146}, ("input", "target")),
]


def test_the_complete_real_datasets_have_the_rows_and_columns_that_are_written_down(hub_data: Path) -> None:
    specs = {
        DatasetSpec(i, config, (split, *splits), columns, n): n
        for i, config, splits, columns in COMPLETE
        for split, n in splits.items()
    }
    found = resolve_all(list(specs), (hub_data,), offline=True)
    assert {spec: r.rows for spec, r in found.items()} == specs
    assert all(r.notes == () for r in found.values())


def test_the_tasks_of_bbh_are_complete_and_resolving_the_suite_again_is_cheap(hub_data: Path) -> None:
    tasks = sorted(p.name for p in (hub_data / "lukaemon/bbh").iterdir() if p.is_dir())
    specs = [DatasetSpec("lukaemon/bbh", t, ("test",), ("input", "target")) for t in tasks]
    specs += [DatasetSpec(i, config, tuple(splits), columns) for i, config, splits, columns in COMPLETE]
    found = resolve_all(specs, (hub_data,), offline=True)
    assert (len(tasks), sum(found[s].rows or 0 for s in specs[:27])) == (27, 6511)
    start = time.process_time()
    assert resolve_all(specs, (hub_data,), offline=True) == found
    assert time.process_time() - start < 0.2
