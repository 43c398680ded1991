"""Datasets resolve from roots, content decides what is cached, and every problem is said with its place."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evalsuite.benchmark import known_benchmarks, read_benchmark
from evalsuite.data import (
    DatasetSpec,
    Resolved,
    data_roots,
    go_offline_when_local,
    load,
    resolve_all,
    sample_ids,
    translate,
)
from evalsuite.data.facts import content_digest
from evalsuite.data.folder import read_folder, split_files
from evalsuite.errors import DataError
from tests.hub import write_repo

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = [{"question": f"q{i}", "answer": str(i)} for i in range(4)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVALSUITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_repo(tmp_path / "root", "some/data", {"main": {"train": ROWS[:1], "test": ROWS}, "other": {"test": ROWS}})
    return tmp_path / "root"


def resolve(root: Path, *specs: DatasetSpec, **options: Any) -> list[Resolved]:
    return list(resolve_all(specs, (root,), offline=True, **options).values())


def refusal(root: Path, *specs: DatasetSpec, **options: Any) -> str:
    with pytest.raises(DataError) as refused:
        resolve(root, *specs, **options)
    assert refused.value.exit_code == 2
    return str(refused.value)


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


# --- reading folders


def test_without_a_readme_splits_are_guessed_as_datasets_guesses_them(tmp_path: Path) -> None:
    import datasets

    layouts: list[tuple[str, ...]] = [
        ("test.jsonl", "train.jsonl", "notes.md"),
        ("train/a.jsonl", "train/b.jsonl", "dev/c.jsonl"),
        ("data/train-00000-of-00001.jsonl", "data/odd-00000-of-00001.jsonl", "test.jsonl"),
        ("rows.jsonl", "more.jsonl"),
        ("my-eval-set.jsonl", "my_training_set.jsonl"),
        ("latest.jsonl", "trainer.jsonl"),
    ]
    for number, names in enumerate(layouts):
        folder = tmp_path / str(number)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps({"file": name}) + "\n")
        ours = split_files(read_folder(folder), "default")
        theirs = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "arrow" / str(number)))
        assert {s: sorted(p.relative_to(folder).as_posix() for p in files) for s, files in ours.items()} == {
            s: sorted(rows["file"]) for s, rows in theirs.items()
        }, names


@pytest.mark.parametrize(
    ("matter", "files"),
    [
        ("- config_name: c\n  data_files: a.jsonl\n", {"train": ["a.jsonl"]}),
        ("- config_name: c\n  data_files: ['a.jsonl', 'sub/*.jsonl']\n", {"train": ["a.jsonl", "sub/b.jsonl"]}),
        ("- config_name: c\n  data_dir: sub\n", {"train": ["sub/b.jsonl"]}),
        (
            "- config_name: c\n  data_files:\n  - split: test\n    path: '**/*.jsonl'\n",
            {"test": ["a.jsonl", "sub/b.jsonl"]},
        ),
        (
            "- config_name: c\n  data_files:\n  - split: dev\n    path: [a.jsonl, sub/b.jsonl]\n",
            {"dev": ["a.jsonl", "sub/b.jsonl"]},
        ),
    ],
)
def test_every_form_of_data_files_is_read_as_datasets_reads_it(
    tmp_path: Path, matter: str, files: dict[str, list[str]]
) -> None:
    import datasets

    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jsonl", "sub/b.jsonl"):
        (folder / name).write_text(json.dumps({"file": name}) + "\n")
    (folder / "README.md").write_text(f"---\nconfigs:\n{matter}---\n")
    found = split_files(read_folder(folder), "c")
    assert {s: [p.relative_to(folder).as_posix() for p in paths] for s, paths in found.items()} == files
    theirs = datasets.load_dataset(str(folder), "c", cache_dir=str(tmp_path / "arrow"))
    assert {split: list(rows["file"]) for split, rows in theirs.items()} == files


@pytest.mark.parametrize(
    ("readme", "says"),
    [
        ("---\nconfigs: [\n---\n", "README.md: the front matter is not YAML"),
        ("---\n- a\n- b\n---\n", "README.md: the front matter is a list"),
        ("---\nconfigs: main\n---\n", "README.md: configs is not a list of entries"),
        ("---\nconfigs:\n- config_name: main\n  data_files: 3\n---\n", "README.md: data_files of config 'main'"),
        (
            "---\nconfigs:\n- config_name: main\n  data_files: no.jsonl\n---\n",
            "no.jsonl is missing; the README names it",
        ),
        ("---\nconfigs:\n- config_name: main\n  data_files: 'x/*'\n---\n", "no file matches 'x/*'"),
        ("---\nconfigs:\n- config_name: main\n  data_files: 'https://h/a'\n---\n", "points to 'https://h/a'"),
        ("nothing", "holds no data files; expected <split>.jsonl"),
    ],
)
def test_a_folder_that_cannot_be_used_says_what_is_wrong_with_it(tmp_path: Path, readme: str, says: str) -> None:
    (tmp_path / "some/data").mkdir(parents=True)
    (tmp_path / "some/data/README.md").write_text(readme)
    config = "default" if readme == "nothing" else "main"
    if not readme.startswith("---\nconfigs:\n"):
        config = "default"
    assert says in refusal(tmp_path, DatasetSpec("some/data", None if "---" in readme else config, ("test",)))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([b'{"a": 1}', b'{"a": '], "test.jsonl line 2 is not JSON"),
        ([b'{"a": 1}', b"", b"[1]"], "test.jsonl line 3 holds a list; expected one JSON object per line"),
        ([b'{"a": "\xff"}'], "test.jsonl line 1 is not JSON"),
        ([b'{"a": "\\ud800"}'], "test.jsonl line 1 is not JSON"),
        ([b"[" * 100_000], "test.jsonl line 1 is not JSON"),
        ([b'{"a": 1, "b": 2}', b'{"b": 2}'], "main/test.jsonl line 2 has no 'a'"),
        ([], "split 'test' has no rows"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, lines: list[bytes], says: str) -> None:
    folder = write_repo(tmp_path, "some/data", {"main": {"test": []}})
    (folder / "main/test.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert says in refusal(tmp_path, DatasetSpec("some/data", "main", ("test",), ("a",) if lines else ()))


def test_a_malformed_row_of_a_split_that_is_not_asked_for_counts_too_because_datasets_reads_it(root: Path) -> None:
    (root / "some/data/main/train.jsonl").write_text('{"question": ')
    assert "train.jsonl line 1 is not JSON" in refusal(root, DatasetSpec("some/data", "main", ("test",)))


def test_rows_and_columns_are_counted_in_every_format_that_is_looked_into(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y, z\n"}, {"a": 3, "b": ""}]
    folder = tmp_path / "some/data"
    folder.mkdir(parents=True)
    (folder / "test.json").write_text(json.dumps(rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    text = 'a,b\n1,x\n2,"y, z\n"\n3,\n'
    for name, content in (("t.csv", text), ("t.tsv", text.replace(",", "\t").replace("y\t", "y,"))):
        (tmp_path / "csv" / name).mkdir(parents=True)
        (tmp_path / "csv" / name / name.replace("t.", "test.")).write_text(content)
    (tmp_path / "csv/lines").mkdir()
    (tmp_path / "csv/lines/test.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    cases = [("some/data", "test"), ("some/data", "train"), ("csv/t.csv", "test"), ("csv/t.tsv", "test")]
    for name, split in [*cases, ("csv/lines", "test")]:
        (found,) = resolve(tmp_path, DatasetSpec(name, None, (split,), ("a", "b")))
        assert found.rows == 3, name
        assert "lacks c" in refusal(tmp_path, DatasetSpec(name, None, (split,), ("a", "c")))


def test_a_compressed_file_is_not_looked_into_but_checked_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "some/data").mkdir(parents=True)
    packed = gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode())
    (tmp_path / "some/data/test.jsonl.gz").write_bytes(packed)
    (found,) = resolve(tmp_path, DatasetSpec("some/data", None, ("test",), ("question",)))
    assert found.rows is None
    assert load(found, "test").num_rows == 4
    (found,) = resolve(tmp_path, DatasetSpec("some/data", None, ("test",), ("solution",)))
    with pytest.raises(DataError, match="split 'test' lacks solution; it has question, answer"):
        load(found, "test")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "some/data").mkdir(parents=True)
    (tmp_path / "some/data/test.parquet").write_bytes(b"PAR1 and then nothing")
    assert "test.parquet is not a readable Parquet file" in refusal(tmp_path, DatasetSpec("some/data"))


# --- content


def edit(path: Path, old: str, new: str) -> None:
    """Replaces text of the same length and restores the modification time: only the content tells."""
    assert len(old) == len(new)
    before = path.stat()
    path.write_text(path.read_text().replace(old, new))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


CHILD = """
import json, sys
from pathlib import Path
from evalsuite.data import DatasetSpec, load, resolve_all
spec = DatasetSpec("o/x", "main", ("test",))
for root in sys.argv[1:]:
    print(json.dumps(load(resolve_all([spec], (Path(root),), offline=True)[spec], "test")["a"][:]))
"""


def questions(root: Path) -> list[str]:
    spec = DatasetSpec("o/x", "main", ("test",))
    return list(load(resolve(root, spec)[0], "test")["a"])


def three_states(tmp_path: Path, read: Any) -> list[list[str]]:
    """What `read` finds in root A, in A after an edit that keeps size and time, and in root B with the same id."""
    one = write_repo(tmp_path / "A", "o/x", {"main": {"test": [{"a": "first"}, {"a": "row 2"}]}})
    write_repo(tmp_path / "B", "o/x", {"main": {"test": [{"a": "other"}, {"a": "row 2"}]}})
    seen = [read(tmp_path / "A")]
    edit(one / "main/test.jsonl", "first", "fresh")
    return [*seen, read(tmp_path / "A"), read(tmp_path / "B")]


def test_plain_load_dataset_serves_stale_rows_which_is_why_we_have_our_own_cache_key(tmp_path: Path) -> None:
    import datasets

    def plain(root: Path) -> list[str]:
        shared = str(tmp_path / "shared-arrow-cache")
        return list(datasets.load_dataset(str(root / "o/x"), "main", split="test", cache_dir=shared)["a"])

    assert three_states(tmp_path, plain) == [["first", "row 2"]] * 3


def test_our_loading_sees_an_edit_and_another_root_in_this_process_and_in_the_next(tmp_path: Path) -> None:
    assert three_states(tmp_path, questions) == [["first", "row 2"], ["fresh", "row 2"], ["other", "row 2"]]
    edit(tmp_path / "A/o/x/main/test.jsonl", "fresh", "third")
    roots = [str(tmp_path / "A"), str(tmp_path / "B")]
    run = subprocess.run(
        [sys.executable, "-c", CHILD, *roots], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert [json.loads(line) for line in run.stdout.splitlines()] == [["third", "row 2"], ["other", "row 2"]]


def test_the_digest_depends_on_content_names_and_the_readme_and_on_nothing_else(tmp_path: Path) -> None:
    def digest(root: str, rows: Sequence[dict[str, Any]] = ROWS, split: str = "test", config: str = "main") -> str:
        folder = write_repo(tmp_path / root, "o/x", {config: {split: list(rows)}})
        (found,) = resolve(tmp_path / root, DatasetSpec("o/x", config))
        assert Path(found.path) == folder
        return found.digest

    first = digest("a")
    os.utime(tmp_path / "a/o/x/main/test.jsonl", (1, 1))
    (tmp_path / "a/o/x/stray.txt").write_text("not data of the config")
    assert digest("deep/er/b") == first
    assert resolve(tmp_path / "a", DatasetSpec("o/x", "main"))[0].digest == first
    others = {digest("c", ROWS[::-1]), digest("d", split="dev"), digest("e", config="m"), digest("f", ROWS[:3])}
    assert len(others | {first}) == 5


def test_the_hash_of_a_large_file_is_remembered_until_its_time_or_size_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    monkeypatch.setattr("evalsuite.data.facts.LARGE", 3)
    file = tmp_path / "large.bin"
    file.write_bytes(b"12345")
    content_digest(tmp_path, [file], b"")
    assert not (own_cache / "digests").exists()  # just written: it may change again within one tick of its clock
    os.utime(file, ns=(1, 1))
    first = content_digest(tmp_path, [file], b"")
    (memory,) = (own_cache / "digests").iterdir()
    assert json.loads(memory.read_text())["sha256"] == hashlib.sha256(b"12345").hexdigest()
    file.write_bytes(b"54321")
    os.utime(file, ns=(2, 2))
    assert content_digest(tmp_path, [file], b"") != first


def test_facts_are_worked_out_once_per_content_and_a_torn_memory_is_no_harm(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DatasetSpec("some/data", "main", ("test",), ("question",))
    (found,) = resolve(root, spec)
    (memory,) = Path(str(found.cache_dir)).glob("evalsuite-facts.json")
    memory.write_text(memory.read_text()[:20])
    assert resolve(root, spec) == [found]
    monkeypatch.setattr("evalsuite.data.facts._scan", None)  # would raise if it were called again
    assert resolve(root, spec) == [found]


def test_an_unwritable_cache_costs_no_resolution_and_is_said_when_loading_needs_it(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blocked").write_text("a file where the cache should be")
    monkeypatch.setenv("EVALSUITE_CACHE", str(tmp_path / "blocked"))
    (found,) = resolve(root, DatasetSpec("some/data", "main", ("test",)))
    with pytest.raises(DataError, match="EVALSUITE_CACHE"):
        load(found, "test")


def test_an_error_that_is_not_about_data_is_left_to_whoever_caused_it() -> None:
    spec = DatasetSpec("some/data")
    assert translate(TypeError("doc_to_text() takes 1 argument"), spec) is None
    full = OSError(errno.ENOSPC, "No space left on device")
    said = translate(full, spec)
    assert said is not None
    assert "the disk is full" in str(said)
    assert translate(said, spec) is said


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


# --- sample ids


def test_ids_do_not_change_when_rows_are_reordered_or_left_out() -> None:
    docs = [{"question": f"q{i}", "kwargs": [{"n": i, "absent": None}], "rest": random.random()} for i in range(50)]
    ids = dict(zip([d["question"] for d in docs], sample_ids(docs, ["question", "kwargs"]), strict=True))
    assert len(set(ids.values())) == 50
    assert all(len(i) == 16 and set(i) <= set("0123456789abcdef") for i in ids.values())
    part = docs[::-3]
    assert sample_ids(part, ["question", "kwargs"]) == [ids[d["question"]] for d in part]


def test_the_id_of_a_row_is_the_hash_of_its_fields_and_nothing_else() -> None:
    canonical = b'{"answer":"\\u00e4","question":"q"}'
    expected = hashlib.sha256(canonical).hexdigest()[:16]
    assert sample_ids([{"question": "q", "answer": "ä", "other": 1}], ["question", "answer"]) == [expected]
    assert sample_ids([{"question": "q", "answer": "ä"}], ("answer", "question")) == [expected]


def test_ragged_and_null_filled_rows_have_the_same_id() -> None:
    ragged = [{"kwargs": [{}, {"n": 0, "s": ""}]}]
    filled = [{"kwargs": [{"n": None, "s": None}, {"n": 0, "s": ""}]}]
    assert sample_ids(ragged, ["kwargs"]) == sample_ids(filled, ["kwargs"])
    assert sample_ids(ragged, ["kwargs"]) != sample_ids([{"kwargs": [{}, {"n": 0}]}], ["kwargs"])


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (["a", "b", "a", "a"], ["a", "b", "a#1", "a#2"]),
        (["a", "a", "a#1", "a"], ["a", "a#1", "a#1#1", "a#2"]),
        ([3, 30, 3], ["3", "30", "3#1"]),
    ],
)
def test_repeated_native_ids_are_numbered_and_stay_unique(values: list[Any], ids: list[str]) -> None:
    assert sample_ids([{"id": v} for v in values], "id") == ids


def test_hostile_values_have_ids_and_a_missing_field_is_named_with_its_row() -> None:
    import numpy

    odd = [{"f": "\ud800"}, {"f": float("nan")}, {"f": numpy.arange(3)}, {"f": {"deep": [None, {"x": b"b"}]}}]
    assert len(set(sample_ids(odd, ["f"]))) == 4
    for rule in ("f", ["f"]):
        with pytest.raises(DataError, match="row 1 has no field 'f', which its id needs; it has g"):
            sample_ids([{"f": 1}, {"g": 2}], rule)


def test_fourteen_thousand_rows_have_ids_within_a_third_of_a_second() -> None:
    docs = [{"question": f"What is {i}? " * 20, "choices": ["a", "b", "c", str(i)]} for i in range(14_042)]
    start = time.process_time()
    ids = sample_ids(docs, ["question", "choices"])
    assert time.process_time() - start < 0.3
    assert len(set(ids)) == 14_042


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
