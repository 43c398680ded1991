"""Decontamination reports beside a checkpoint's declared data: the worst counts, and what is not said is not known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import UsageError
from evalsuite.gate.facts import Contamination, Training
from evalsuite.gating.evidence import dataset_digests, training_of

MIX, WEB = "d" * 64, "e" * 64


def checkpoint(folder: Path, data: Sequence[Any] = ({"path": "mix", "digest": MIX},), **more: Any) -> Path:
    (folder / "ckpt").mkdir()
    (folder / "ckpt" / "evalsuite.json").write_text(json.dumps({"data": list(data), **more}))
    return folder / "ckpt"


def report(
    folder: Path,
    name: str,
    rates: Mapping[str, Any] | None,
    /,
    evals: Any = ("a", "b"),
    touched: Mapping[str, Sequence[str]] | None = None,
    **changes: Any,
) -> Path:
    """A report on the mix under results/decontam."""
    place = folder / "results" / "decontam" / name
    (place / "clean_ids").mkdir(parents=True)
    raw = {"schema": "decontam/1", "training": [{"name": "mix", "digest": MIX}], "evals": evals, "complete": True}
    raw["rates"] = {MIX: rates} if rates is not None else {}
    (place / "verdict.json").write_text(json.dumps(raw | changes))
    for benchmark, ids in (touched or {}).items():
        (place / "clean_ids" / f"{benchmark}.txt").write_text("".join(f"{i}\n" for i in ids))
    return place / "verdict.json"


def read(folder: Path, datasets: Mapping[str, Sequence[str]] | None = None) -> Training:
    return training_of(folder / "ckpt", folder / "results", ["a", "b"], datasets or {})


def found(folder: Path, datasets: Mapping[str, Sequence[str]] | None = None) -> Contamination:
    return read(folder, datasets).reports[MIX]


@pytest.mark.parametrize("worse", ["first", "last"])
def test_the_worst_of_two_reports_counts_whichever_is_read_last(tmp_path: Path, worse: str) -> None:
    checkpoint(tmp_path)
    dirty, clean = ("r1", "r2") if worse == "first" else ("r2", "r1")
    report(tmp_path, dirty, {"a": 0.5, "b": 0.0}, touched={"a": ["q1"]})
    report(tmp_path, clean, {"a": 0.0, "b": 0.1}, touched={"a": ["q2"], "b": ["q3"]})
    told = found(tmp_path)
    assert (told.complete, told.fractions) == (True, {"a": 0.5, "b": 0.1})
    assert told.touched == {"a": {"q1", "q2"}, "b": {"q3"}}


@pytest.mark.parametrize("worse", ["r1", "r2"])
def test_a_report_on_some_of_the_benchmarks_counts_only_beside_a_whole_one(tmp_path: Path, worse: str) -> None:
    checkpoint(tmp_path)
    report(tmp_path, worse, {"a": 0.5}, evals=["a"])
    assert read(tmp_path).reports == {}
    report(tmp_path, "r1" if worse == "r2" else "r2", {"a": 0.0, "b": 0.0})
    assert (found(tmp_path).complete, found(tmp_path).fractions) == (True, {"a": 0.5, "b": 0.0})


@pytest.mark.parametrize("rates", [None, {}, {"a": 0.0}])
def test_a_report_without_a_rate_is_not_complete(tmp_path: Path, rates: Mapping[str, float] | None) -> None:
    checkpoint(tmp_path)
    report(tmp_path, "r1", rates)
    assert not found(tmp_path).complete


@pytest.mark.parametrize("said", [False, "false", 1, None])
def test_only_true_means_complete(tmp_path: Path, said: object) -> None:
    checkpoint(tmp_path)
    report(tmp_path, "r1", {"a": 0.0, "b": 0.0}, complete=said)
    report(tmp_path, "r2", {"a": 0.0, "b": 0.0})
    assert not found(tmp_path).complete


@pytest.mark.parametrize(
    "evals",
    [{"a": {"digest": "old"}, "b": {"digest": "data-b"}}, {"a": "old", "b": "data-b"}],
)
def test_a_report_on_other_data_of_a_benchmark_is_none_of_this_suite(tmp_path: Path, evals: Any) -> None:
    checkpoint(tmp_path)
    report(tmp_path, "r1", {"a": 0.5, "b": 0.1}, evals=evals)
    assert found(tmp_path).fractions == {"a": 0.5, "b": 0.1}  # nothing is known of the gate's data
    known = {"a": ["data-a"], "b": ["data-b"]}
    assert read(tmp_path, known).reports == {}
    report(tmp_path, "r2", {"a": 0.0, "b": 0.0}, evals={"a": "data-a", "b": {"name": "b"}})
    assert found(tmp_path, known).fractions == {"a": 0.0, "b": 0.1}  # of the old report what still fits counts


def test_the_digest_of_a_benchmarks_data_is_that_of_all_its_parts_together() -> None:
    assert dataset_digests({"origin": "root", "digest": "x"}) == dataset_digests({"parts": [{"digest": "x"}]}) == {"x"}
    assert dataset_digests({"origin": "hub", "commit": "c"}) == {"c"}
    both = hashlib.sha256(b"x\ny").hexdigest()
    assert dataset_digests({"parts": [{"digest": "y"}, {"digest": "x"}]}) == {both}  # in whatever order
    assert dataset_digests({"parts": [{"digest": "x"}, {"origin": "generated"}]}) == frozenset()
    assert dataset_digests({"origin": "generated"}) == dataset_digests({}) == frozenset()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rates": {MIX: {"a": float("nan"), "b": 0}}},
            r"rates\.dddddddddddd\.a is nan; expected a number from 0 to 1",
        ),
        ({"rates": {MIX: {"a": "0", "b": 0}}}, r"rates\.dddddddddddd\.a is '0'"),
        ({"rates": {MIX: {"a": -1, "b": 0}}}, r"rates\.dddddddddddd\.a is -1"),
        ({"rates": {MIX: [0, 0]}}, "rates is no mapping"),
        ({"training": {"mix": MIX}}, "training is no list"),
        ({"training": [{"name": "mix"}]}, "training is no list"),
        ({"evals": "ab"}, "evals is neither"),
        ({"schema": "decontam/2"}, "schema 'decontam/2', this version reads 'decontam/1'"),
    ],
)
def test_a_report_that_cannot_be_read_is_named(tmp_path: Path, changes: Mapping[str, Any], said: str) -> None:
    checkpoint(tmp_path)
    path = report(tmp_path, "r1", {"a": 0.0, "b": 0.0}, **changes)
    with pytest.raises(UsageError, match=said) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{path}: ")


# -- what a checkpoint declares --


def test_the_digest_of_the_declaration_is_kept(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    said = json.loads((folder / "evalsuite.json").read_text())
    whole = read(tmp_path).digest
    assert len(whole) == 64
    (folder / "evalsuite.json").write_text(json.dumps(said | {"step": 7, "source": "/elsewhere"}))
    assert read(tmp_path).digest == whole  # what a gate does not read may differ
    (folder / "evalsuite.json").write_text(json.dumps(said | {"decontamination_waived": "in a hurry"}))
    assert read(tmp_path).digest != whole
    (folder / "evalsuite.json").write_text('{"stage": "sft"}')
    undeclared = read(tmp_path)
    assert (undeclared.declared, undeclared.digest) == (False, hashlib.sha256(b'{"stage":"sft"}').hexdigest())
    (folder / "evalsuite.json").unlink()
    assert read(tmp_path) == Training()


def test_data_of_one_name_do_not_hide_each_other(tmp_path: Path) -> None:
    checkpoint(tmp_path, [{"path": "mix", "digest": MIX}, {"path": "mix", "digest": WEB}, {"name": "web"}, "loose"])
    assert read(tmp_path).data == {"mix": MIX, f"mix ({WEB[:12]})": WEB, "web": "", "loose": ""}
