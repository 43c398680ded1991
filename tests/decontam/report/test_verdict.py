"""The verdict: strictly over the limit, an action by kind, an exit code, and what the gate reads of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decontam.errors import DecontamError
from decontam.report import write_reports
from decontam.report.facts import CAPPED, EXACT, EvalFacts, Scan, refuse_evals
from decontam.report.tally import tally
from decontam.report.verdict import as_json, judge
from decontam.types import Kind
from evalsuite.gating.evidence import training_of
from evalsuite.tables.clean import read_touched
from tests.decontam.report.world import Texts, data, eval_set, facts, match, near, scan, shard

NO_TEXTS = Texts({})


def hundred(kind: Kind = "development", name: str = "one") -> EvalFacts:
    return facts(eval_set(name, ["text"] * 100, kind))


def actions(chosen: Scan) -> dict[str, str]:
    verdict = judge(chosen, tally(chosen))
    return {chosen.evals[e].eval.name: action for (_, e), action in verdict.actions.items()}


@pytest.mark.parametrize(("hit", "action"), [(0, "none"), (2, "none"), (3, "drop_or_clean")])
def test_two_of_a_hundred_instances_are_not_over_two_percent(hit: int, action: str) -> None:
    chosen = scan([hundred()], [shard([match(i, i) for i in range(hit)])])
    assert actions(chosen) == {"one": action}
    assert judge(chosen, tally(chosen)).exit == (1 if hit == 3 else 0)


@pytest.mark.parametrize("limit", [0.01, 0.07, 0.14, 0.28, 0.29, 0.57])
def test_a_limit_is_the_number_that_was_typed(limit: float) -> None:
    at = round(100 * limit)
    for hit, action in ((at, "none"), (at + 1, "drop_or_clean")):
        chosen = scan([hundred()], [shard([match(i, i) for i in range(hit)])], limit=limit)
        assert actions(chosen) == {"one": action}


def test_unseen_data_must_go_and_the_rest_may_be_cleaned() -> None:
    evals = [hundred("development", "dev"), hundred("unseen", "held"), hundred("safety", "safe")]
    rows = [match(i, 100 * e + i) for e in range(3) for i in range(3)]
    assert actions(scan(evals, [shard(rows)])) == {"dev": "drop_or_clean", "held": "drop", "safe": "drop_or_clean"}


def test_skipped_instances_leave_the_denominator() -> None:
    # 1 of 50 is 2 %, 1 of 49 is more.
    for skipped, action in (((), "none"), ((7,), "drop_or_clean")):
        each = facts(eval_set("one", ["text"] * 50), skipped=skipped)
        assert actions(scan([each], [shard([match(0, 0)])])) == {"one": action}


def test_the_cap_and_near_duplicates_do_not_change_the_verdict() -> None:
    acquitted = scan([hundred()], [shard([match(i, i, EXACT) for i in range(3)])])
    assert actions(acquitted) == {"one": "drop_or_clean"}
    only_near = scan([hundred()], [shard([], [near(i, i) for i in range(9)])], near=True)
    assert actions(only_near) == {"one": "none"}


@pytest.mark.parametrize(("hit", "complete", "code"), [(0, True, 0), (0, False, 3), (9, True, 1), (9, False, 1)])
def test_over_the_limit_outranks_incomplete(hit: int, complete: bool, code: int) -> None:
    datasets = (data("train", complete=complete), data("more"))
    chosen = scan([hundred()], [shard([match(i, i) for i in range(hit)])], datasets)
    verdict = judge(chosen, tally(chosen))
    assert (verdict.exit, verdict.complete) == (code, complete)


def test_every_eval_has_a_rate_for_every_data_set() -> None:
    evals = [hundred(), hundred("unseen", "two")]
    datasets = (data("train", 50), data("more", 10))
    shards = [shard([match(0, 0), match(1, 1, EXACT), match(1, 2, EXACT | CAPPED)])]
    chosen = scan(evals, shards, datasets)
    counted = tally(chosen)
    raw = as_json(chosen, counted, judge(chosen, counted))
    assert raw["rates"] == {"digest of train": {"one": 0.03, "two": 0.0}, "digest of more": {"one": 0.0, "two": 0.0}}
    assert raw["row_rates"]["digest of train"] == {"one": 2 / 50, "two": 0.0}
    assert raw["capped_rates"]["digest of train"] == {"one": 0.02, "two": 0.0}
    assert raw["actions"]["digest of train"] == {"one": "drop_or_clean", "two": "none"}
    assert raw["rule"]["name"] == "tulu3"
    assert (raw["limit"], raw["exit"], raw["complete"]) == (0.02, 1, True)


def test_of_two_copies_of_the_data_the_worse_counts() -> None:
    datasets = (data("train", digest="same"), data("more", digest="same"))
    shards = [shard([match(i, i) for i in range(3)]), shard([match(0, 0)], dataset="more")]
    chosen = scan([hundred()], shards, datasets)
    raw = as_json(chosen, tally(chosen), judge(chosen, tally(chosen)))
    assert raw["rates"] == {"same": {"one": 0.03}}
    assert raw["actions"] == {"same": {"one": "drop_or_clean"}}


def test_an_instance_with_two_reasons_is_unprotected_once() -> None:
    each = facts(eval_set("one", ["a", "b", "c"]), unprotected={"too short": [0, 1], "boilerplate only": [1]})
    chosen = scan([each], [shard([])])
    raw = as_json(chosen, tally(chosen), judge(chosen, tally(chosen)))
    assert raw["evals"] == {"one": {"digest": "digest of one", "kind": "development", "n": 3, "unprotected": 2}}


def test_the_gate_and_the_tables_read_what_is_written(tmp_path: Path) -> None:
    results = tmp_path / "results"
    out = results / "decontam" / "train"
    out.mkdir(parents=True)
    chosen = scan([hundred(), hundred("unseen", "two")], [shard([match(0, 5), match(1, 4), match(2, 5)])])
    write_reports(out, chosen, NO_TEXTS)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    declared = {"data": [{"path": "data/train.jsonl", "digest": "digest of train"}]}
    (checkpoint / "evalsuite.json").write_text(json.dumps(declared))
    training = training_of(checkpoint, results, ["one", "two"], {"one": ["digest of one"], "two": []})
    report = training.reports["digest of train"]
    assert (report.complete, report.fractions) == (True, {"one": 0.02, "two": 0.0})
    assert report.touched == {"one": {"one-4", "one-5"}}
    assert read_touched([out], required=True) == {"one": {"one-4", "one-5"}, "two": frozenset()}
    assert (out / "clean_ids" / "one.txt").read_text() == "one-4\none-5\n", "in the order of the eval"


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "line\nbreak", "e" * 300, "\ud800"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(DecontamError, match="cannot name a file"):
        refuse_evals([eval_set(name, ["text"])])


def test_two_evals_of_one_name_are_refused() -> None:
    with pytest.raises(DecontamError, match="2 evals are named 'one'"):
        refuse_evals([eval_set("one", ["a"]), eval_set("one", ["b"])])


@pytest.mark.parametrize("broken", ["", "  ", "a\nb", "a\u2028b", "\ud800"])
def test_an_id_that_is_no_line_is_refused(broken: str) -> None:
    each = eval_set("one", ["a"])
    with pytest.raises(DecontamError, match="no single line"):
        refuse_evals([each.__class__(each.name, each.kind, each.fields, (broken,), each.texts, "")])
