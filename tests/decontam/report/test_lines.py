"""matches.jsonl: every line is what plain Python would have written."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.report import lines
from decontam.report.facts import EvalFacts
from decontam.report.lines import write_matches, write_near
from tests.decontam.report.world import eval_set, facts, match, near, shard

EVALS = (facts(eval_set("one", ["a", "b"])), facts(eval_set('t"wo', [("p", "q"), ("r", "s")], "unseen")))
FLAGS = ("exact", "capped", "short")


def written(rows: Sequence[Mapping[str, Any]], evals: Sequence[EvalFacts] = EVALS, first_row: int = 0) -> list[str]:
    out = io.BytesIO()
    n = write_matches(out, [shard(rows, first_row=first_row)], evals, "tulu3")
    found = out.getvalue().decode().split("\n")
    assert found.pop() == ""
    assert n == len(found)
    return found


def expected(row: Mapping[str, Any], evals: Sequence[EvalFacts] = EVALS, first_row: int = 0) -> str:
    """The line by the contract, spelled out."""
    each, place = [(f, i) for f in evals for i in range(len(f.eval.ids))][row["inst"]]
    runs = [row["runs"][i : i + 6] for i in range(0, len(row["runs"]), 6)]
    line = {
        "dataset": "train",
        "file": "data/train.jsonl",
        "row": row["row"] + first_row,
        "id": row["id"],
        "turn": row["turn"],
        "where": ("prompt", "completion")[row["where"]],
        "eval": each.eval.name,
        "kind": each.eval.kind,
        "instance": each.eval.ids[place],
        "score": row["score"],
        "covered": [[c, n] for c, n in zip(row["covered"], each.sizes[place], strict=True)],
        "capped_score": row["capped_score"],
        "capped": [[c, n] for c, n in zip(row["capped"], each.uncommon[place], strict=True)],
        "flags": [name for i, name in enumerate(FLAGS) if row["flags"] >> i & 1],
        "rule": "tulu3",
        "common_share": row["common_share"],
        "runs": [{"train": [a, b], "field": each.eval.fields[f], "eval": [c, d], "k": k} for a, b, f, c, d, k in runs],
    }
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def a_match(inst: int, **changes: Any) -> dict[str, Any]:
    fields = 1 if inst < 2 else 2
    found = match(0, inst, covered=[8] * fields, capped=[5] * fields)
    return {**found, **changes}


@st.composite
def matches(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = []
    for row, turn, inst in sorted(draw(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 2), st.integers(0, 3))))):
        fields = 1 if inst < 2 else 2
        count = st.lists(st.integers(0, 9), min_size=fields, max_size=fields)
        number = st.integers(0, 2**31 - 1)
        a_run = st.tuples(number, number, st.integers(0, fields - 1), number, number, st.integers(1, 99))
        unit = st.floats(0, 1, allow_nan=False)
        changes = {
            "turn": turn,
            "where": draw(st.integers(0, 1)),
            "id": draw(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)),
            "covered": draw(count),
            "capped": draw(count),
            "score": draw(unit),
            "capped_score": draw(unit),
            "common_share": draw(unit),
            "flags": draw(st.integers(1, 7)),
            "runs": [n for run in draw(st.lists(a_run, max_size=3)) for n in run],
        }
        rows.append(match(row, inst, **changes))
    return rows


@settings(deadline=None)
@given(matches(), st.integers(0, 10**12))
def test_lines_are_those_of_plain_python(rows: list[dict[str, Any]], first_row: int) -> None:
    assert written(rows, first_row=first_row) == [expected(row, first_row=first_row) for row in rows]


def test_order_and_batches_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [a_match(inst, row=row, turn=turn) for row in range(9) for turn in range(3) for inst in range(4)]
    whole = written(rows)
    monkeypatch.setattr(lines, "BATCH", 7)
    assert written(random.Random(1).sample(rows, len(rows))) == whole == [expected(row) for row in rows]


@pytest.mark.parametrize("text", ['say "hi"', "back\\slash", "tab\there", "nul\0", "é 中 🙂", "", "</script>", "null"])
def test_any_row_id_survives(text: str) -> None:
    (line,) = written([a_match(0, id=text)])
    assert json.loads(line)["id"] == text


def test_a_name_that_utf8_cannot_hold_is_written_as_an_escape() -> None:
    each = facts(eval_set("one\ud800", ["a"]))
    (line,) = written([a_match(0)], [each])
    assert json.loads(line)["eval"] == "one\ud800"
    assert r"\ud800" in line


def test_a_match_that_counts_other_fields_than_its_instance_is_a_bug() -> None:
    with pytest.raises(ValueError, match="more or fewer fields"):
        written([a_match(2, covered=[8])])


def test_nothing_found_is_an_empty_file() -> None:
    assert written([]) == []


def test_near_duplicates_have_one_run_over_all_fields() -> None:
    out = io.BytesIO()
    shards = [shard([], [near(5, 2, train_to=7), near(4, 1, id="x")], first_row=10)]
    assert write_near(out, shards, EVALS) == 2
    first, second = map(json.loads, out.getvalue().splitlines())
    assert (first["row"], first["id"], first["instance"], first["score"]) == (14, "x", "one-1", 91.25)
    assert (second["row"], second["instance"], second["flags"]) == (15, 't"wo-0', ["near"])
    assert second["runs"] == [{"train": [0, 7], "eval": [0, 9]}]
