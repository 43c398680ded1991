"""The matrix in its four forms."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence

import pytest

from decontam.report.facts import EXACT, DatasetFacts, EvalFacts, Scan
from decontam.report.matrix import Matrix, as_json, markdown, matrix_of, percent, tsv
from decontam.report.tally import tally
from decontam.report.terminal import display_width, matrix_text
from decontam.report.verdict import judge
from tests.decontam.report.world import data, eval_set, facts, match, near, scan, shard

LONG = "an_eval_whose_name_is_longer_than_any_column_could_be_on_a_narrow_terminal"


def evals(*names: str) -> list[EvalFacts]:
    return [facts(eval_set(name, ["text"] * 200)) for name in names]


def world(names: Sequence[str] = ("one", "two", LONG), datasets: Sequence[DatasetFacts] = (data(),)) -> Scan:
    rows = [match(0, 0), match(1, 1, EXACT), match(1, 401), *(match(9, 400 + i) for i in range(5))]
    return scan(evals(*names), [shard(rows, [near(3, 0)])], datasets, near=True)


def of(chosen: Scan) -> Matrix:
    counted = tally(chosen)
    return matrix_of(chosen, counted, judge(chosen, counted))


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.0, "0"), (0.5, "50.00"), (1.0, "100.00"), (0.0001, "0.01"), (1 / 50_000, "<0.01"), (2 / 1319, "0.15")],
)
def test_a_share_that_is_there_never_reads_as_zero(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_tsv_has_every_cell_with_counts_and_percentages() -> None:
    rows = list(csv.DictReader(io.StringIO(tsv(of(world()))), delimiter="\t"))
    assert [row["eval"] for row in rows] == ["one", "two", LONG]
    one = rows[0]
    assert (one["exact_instances"], one["exact_instances_pct"]) == ("2", "1.0000")  # 2 of 200
    assert (one["exact_rows"], one["exact_rows_pct"]) == ("2", "2.0000")  # 2 of 100
    assert (one["capped_instances"], one["near_instances"], one["action"]) == ("1", "1", "none")
    assert rows[1]["exact_instances_pct"] == "0.0000"
    assert rows[2]["action"] == "drop_or_clean"  # 5 of 200
    assert "short_instances" not in one, "a way that was not asked for has no column"


def test_json_has_shares_and_not_percentages() -> None:
    chosen = world()
    raw = json.loads(json.dumps(as_json(chosen, of(chosen))))
    assert raw["cells"][0]["exact"] == {
        "instances": 2,
        "instance_share": 0.01,
        "rows": 2,
        "row_share": 0.02,
        "texts": 2,
    }


def test_markdown_keeps_its_columns_whatever_names_hold() -> None:
    chosen = world(["a|b", "<b>`x`</b>", "one\x1b[31m"])
    table = [line for line in markdown(of(chosen)).splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {14}
    assert "<b>" not in "".join(table)
    assert "\x1b" not in "".join(table)


def test_piped_text_has_every_name_in_full_and_no_escape_sequence() -> None:
    text = matrix_text(of(world()))
    assert f"! {LONG} " in text
    assert "\x1b" not in text
    assert "nothing of two" in text


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_a_terminal_is_never_overrun(width: int) -> None:
    datasets = (data("train"), data("日本語のとても長い名前のデータセット" * 3))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", matrix_text(of(world(datasets=datasets)), width))
    assert max(map(display_width, plain.splitlines())) <= width
    assert "one" in plain
    assert "2.50" in plain  # 5 of 200


def test_names_are_shown_and_never_obeyed() -> None:
    text = matrix_text(of(world(["[red]x[/red]", "two\x1b]0;title\x07", "three\u202e"])), 120)
    assert "[red]x[/red]" in text
    assert "\\x1b]0;title\\x07" in text
    assert "\x07" not in text
    assert "\u202e" not in text


def test_outcome_names_what_is_over_and_what_was_not_read() -> None:
    datasets = (data("train", complete=False, why=("3 broken rows",)),)
    lines = of(world(datasets=datasets)).outcome
    assert lines == (
        f"train holds more than 2 % of the instances of {LONG}: drop it, or clean it where that hurts",
        "train was not read as a whole: 3 broken rows",
    )
    clean = scan(evals("one"), [shard([])])
    assert of(clean).outcome == ("nothing is over the limit: more than 2 % of the instances of any eval",)


def test_what_is_unprotected_is_listed_by_reason() -> None:
    each = facts(eval_set("one", ["t"] * 1200), unprotected={"too short": range(1100), "boilerplate only": [0, 1150]})
    assert of(scan([each], [shard([])])).unprotected == ("one: 1,101 of 1,200 (too short 1,100, boilerplate only 2)",)
