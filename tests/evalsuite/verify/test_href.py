"""HREF's arithmetic on tables made by hand: win rates, intervals, ranks, the leaderboard's JSON, agreement."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest

from evalsuite.errors import DataError
from evalsuite.verify.href import (
    AVERAGE,
    DEV_TASKS,
    TASKS,
    Agreement,
    Cell,
    Tally,
    agreement,
    export,
    inner_agreement,
    interval,
    key_of,
    label_of,
    label_of_preference,
    macro,
    outer_agreement,
    pair_of,
    pooled,
    rank_table,
    ranks,
    tallies,
    tally,
)


def wins(n_wins: int, n_ties: int, n_losses: int, n_failed: int = 0) -> Tally:
    return tally([1.0] * n_wins + [0.5] * n_ties + [0.0] * n_losses + [None] * n_failed)


# -- win rates --


@pytest.mark.parametrize(
    ("counted", "rate", "official"),
    [
        (wins(3, 2, 5), 0.4, 0.4),  # (3 + 2/2) / 10
        (wins(3, 2, 5, 2), 0.4, 4 / 12),  # upstream's NaN stands in the denominator only
        (wins(0, 4, 0), 0.5, 0.5),
        (wins(0, 0, 0, 3), None, 0.0),
        (wins(0, 0, 0), None, None),
    ],
)
def test_a_win_rate_is_wins_and_half_the_ties(counted: Tally, rate: float | None, official: float | None) -> None:
    assert counted.win_rate == (None if rate is None else pytest.approx(rate))
    assert counted.win_rate_official == (None if official is None else pytest.approx(official))


def test_a_preference_between_the_three_counts_as_itself() -> None:
    assert tally([0.25, 0.25, 1.0, None]) == Tally(((0.25, 2), (1.0, 1)), 1)
    assert tally([0.25, 0.25, 1.0]).win_rate == 0.5


def test_the_average_is_over_prompts_and_the_macro_mean_over_tasks() -> None:
    rows = [("Rewrite", 1.0)] * 9 + [("Rewrite", None)] + [("Extract", 0.0)] * 3
    tasks = tallies(rows)
    assert list(tasks) == ["Rewrite", "Extract"]  # the order of the table, not of the rows
    assert pooled(tasks).win_rate == 9 / 12
    assert pooled(tasks).win_rate_official == 9 / 13
    assert macro(tasks) == 0.5
    assert macro(tasks | {"Classify": wins(0, 0, 0, 2)}) is None


@pytest.mark.parametrize(
    ("tasks", "label"),
    [
        (TASKS, "HREF"),
        (DEV_TASKS, "href-dev (8 tasks)"),
        (DEV_TASKS[:7], "href-dev (7 tasks)"),
        (TASKS[1:], "href (10 of 11 tasks)"),
    ],
)
def test_only_all_eleven_tasks_are_called_href(tasks: Sequence[str], label: str) -> None:
    assert label_of(tasks) == label_of(iter(tasks)) == label


def test_the_eleven_labels_and_their_keys() -> None:
    assert len(set(map(key_of, TASKS))) == 11
    assert key_of("Fact Checking or Attributed QA") == "fact_checking_or_attributed_qa"
    assert key_of("Multi-Document Synthesis") == "multi-document_synthesis"


# -- intervals --


def looped(counted: Tally, n_resamples: int) -> tuple[float, float]:
    """Upstream's way: every resample draws its rows."""
    rows = np.repeat([v for v, _ in counted.counts], [n for _, n in counted.counts])
    rng = np.random.default_rng(99)
    means = [rng.choice(rows, size=len(rows)).mean() for _ in range(n_resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@pytest.mark.parametrize("counted", [wins(150, 60, 190), wins(20, 0, 380), wins(0, 400, 0)])
def test_the_multinomial_interval_is_that_of_a_loop_over_rows(counted: Tally) -> None:
    # Half a point at n = 400 and 5,000 resamples; the Monte Carlo error of a bound is about 0.1 points.
    assert interval(counted, seed=0) == pytest.approx(looped(counted, 5000), abs=0.005)


def test_an_interval_depends_on_its_seed_and_its_rows_alone() -> None:
    assert interval(wins(5, 1, 9), seed=1) == interval(wins(5, 1, 9), seed=1)
    assert interval(wins(50, 11, 97), 1, n_resamples=50) != interval(wins(50, 11, 97), 2, n_resamples=50)
    models = {"a": {"Rewrite": wins(50, 11, 97)}, "b": {"Rewrite": wins(20, 1, 70)}}
    alone, both = (rank_table({m: models[m] for m in which}, seed=1) for which in ("a", "ab"))
    assert alone.cells["a"] == both.cells["a"]


def test_an_interval_of_no_rows_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no judged rows"):
        interval(wins(0, 0, 0, 4), seed=0)


def test_a_cell_is_written_with_both_distances() -> None:
    assert Cell(0.421, 0.39, 0.455, 100).spread == "+3.4 / -3.1"


# -- ranks --


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        # A overlaps B and B overlaps C, but C does not overlap the head A.
        ({"a": (0.60, 0.55, 0.65), "b": (0.53, 0.48, 0.58), "c": (0.46, 0.41, 0.51)}, {"a": 1, "b": 1, "c": 3}),
        ({"c": (0.46, 0.41, 0.51), "b": (0.53, 0.48, 0.58), "a": (0.60, 0.55, 0.65)}, {"a": 1, "b": 1, "c": 3}),
        ({"a": (0.6, 0.5, 0.7), "b": (0.5, 0.4, 0.5)}, {"a": 1, "b": 1}),  # bounds that touch overlap
        ({"a": (0.6, 0.5, 0.7), "b": (0.4, 0.3, 0.49)}, {"a": 1, "b": 2}),
        # The last overlaps the head, but a model between them does not, and heads its own group.
        ({"a": (0.6, 0.58, 0.62), "b": (0.5, 0.49, 0.51), "c": (0.45, 0.3, 0.6)}, {"a": 1, "b": 2, "c": 2}),
        ({"a": (0.5, 0.4, 0.6), "b": (0.5, 0.4, 0.6), "c": (0.5, 0.4, 0.6)}, {"a": 1, "b": 1, "c": 1}),
        ({}, {}),
    ],
)
def test_models_whose_interval_overlaps_the_heads_share_its_rank(
    cells: dict[str, tuple[float, float, float]], expected: dict[str, int]
) -> None:
    assert ranks({m: Cell(*c, 100) for m, c in cells.items()}) == expected


def test_a_table_of_models_and_its_json() -> None:
    weak, strong = wins(30, 0, 270), wins(240, 0, 60)
    models = {
        "weak": {"Rewrite": weak, "Extract": weak},
        "strong": {"Extract": strong, "Rewrite": strong},
        "mixed": {"Rewrite": strong, "Extract": weak},
    }
    table = rank_table(models, seed=3)
    assert (table.columns, table.label) == (("Rewrite", "Extract", AVERAGE), "href-dev (2 tasks)")
    assert list(table.cells) == ["strong", "mixed", "weak"]  # best average first
    assert {m: list(row.values()) for m, row in table.ranks.items()} == {
        "strong": [1, 1, 1],
        "mixed": [1, 2, 2],
        "weak": [3, 2, 3],
    }
    first = export(table)[1]
    assert {k: v for k, v in first.items() if not k.endswith("_confi")} == {
        "model": "mixed",
        "rewrite": 0.8,
        "rewrite_rank": 1,
        "extract": 0.1,
        "extract_rank": 2,
        "average": 0.45,
        "average_rank": 2,
    }
    assert re.fullmatch(r"\+4\.\d / -4\.\d", first["rewrite_confi"])  # 1.96 · √(0.8 · 0.2 / 300) = 0.045


def test_rates_are_rounded_to_three_decimals_and_the_average_to_four() -> None:
    [row] = export(rank_table({"m": {"Rewrite": wins(1, 0, 2), "Extract": wins(1, 1, 4)}}, seed=0))
    assert (row["rewrite"], row["extract"], row["average"]) == (0.333, 0.25, 0.2778)


def test_models_on_different_tasks_are_not_ranked() -> None:
    with pytest.raises(DataError, match="a: Rewrite; b: Extract"):
        rank_table({"a": {"Rewrite": wins(1, 0, 1)}, "b": {"Extract": wins(1, 0, 1)}}, seed=0)


# -- agreement with people --


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ((1, 1, 2, 2), 0.0),  # the other three always have a majority for the opposite label
        ((1, 1, 1, 2), 0.75),  # (1 + 1 + 1 + 0) / 4
        ((1, 1, 1, 1), 1.0),
        # Left out a 1: the rest 1, 2, 0 has three modes and agrees in one of three; left out the 2 or the 0: mode 1.
        ((1, 1, 2, 0), (1 / 3 + 1 / 3 + 0 + 0) / 4),
    ],
)
def test_agreement_between_people(annotations: tuple[int, ...], expected: float) -> None:
    assert inner_agreement(annotations) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("annotations", "label", "expected"),
    [
        ((1, 1, 2, 2), 1, 0.5),  # the rest is 1, 2, 2 twice and 1, 1, 2 twice
        ((1, 1, 1, 2), 1, 1.0),
        ((1, 1, 1, 2), 2, 0.0),
        ((1, 1, 2, 0), 0, (1 / 3 + 1 / 3 + 0 + 0) / 4),
        ((1, 1, 1, 1), None, 0.0),  # a failed judgement never agrees
    ],
)
def test_agreement_of_a_judge_with_people(annotations: tuple[int, ...], label: int | None, expected: float) -> None:
    assert outer_agreement(annotations, label) == pytest.approx(expected)


def drawn(annotations: Sequence[int], label: int | None, rng: random.Random) -> tuple[float, float]:
    """Upstream's way: a mode among several is drawn."""
    hits, said = 0.0, 0.0
    for i, own in enumerate(annotations):
        others = [*annotations[:i], *annotations[i + 1 :]]
        most = max(others.count(value) for value in others)
        mode = rng.choice(sorted({value for value in others if others.count(value) == most}))
        hits, said = hits + (mode == own), said + (mode == label)
    return hits / len(annotations), said / len(annotations)


def test_the_expectation_is_the_mean_over_upstreams_draws() -> None:
    rng = random.Random(0)
    for four in combinations_with_replacement((0, 1, 2), 4):
        draws = [drawn(four, 1, rng) for _ in range(600)]
        means = tuple(sum(d[k] for d in draws) / len(draws) for k in (0, 1))
        assert (inner_agreement(four), outer_agreement(four, 1)) == pytest.approx(means, abs=0.06)


def people(task: str, *annotations: int) -> dict[str, Any]:
    texts = {"instruction": "i", "output_a": "a", "output_b": "b", "generator_b": "made-up", "reference": "r"}
    return {"category": task, "annotations": list(annotations), **texts}


def test_agreement_is_by_task_and_overall_and_by_row() -> None:
    rows = [people("Rewrite", 1, 1, 1, 2), people("Rewrite", 2, 2, 2, 2), people("Extract", 0, 0, 0, 0)]
    found = agreement(rows, [1.0, 1.0, None])  # the first two rows have the same texts: each keeps its own verdict
    assert found == {
        "Rewrite": Agreement(inner=(0.75 + 1) / 2, outer=0.5, n=2),
        "Extract": Agreement(1.0, 0.0, 1),
        "overall": Agreement((0.75 + 1 + 1) / 3, 1 / 3, 3),
    }
    assert agreement([], []) == {}


def test_the_judges_preference_in_the_annotators_labels() -> None:
    assert [label_of_preference(p) for p in (1.0, 0.75, 0.5, 0.0, None)] == [1, 1, 0, 2, None]
    assert pair_of(people("Rewrite", 1, 1)) == (
        "a",
        {"category": "Rewrite", "instruction": "i", "reference": "r", "output": "b", "generator": "made-up"},
    )


def test_annotations_that_are_none_are_refused_with_the_first_twenty() -> None:
    bad = [people("Rewrite", 1, 3), people("Rewrite", 1), {**people("Rewrite"), "annotations": None}]
    with pytest.raises(DataError) as refused:
        agreement([people("Rewrite", 1, 2), *bad * 8], [None] * 25)
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("24 rows cannot be used; each row needs two or more annotations of 0")
    assert lines[1] == "  row 1: annotations are [1, 3]"
    assert (len(lines), lines[-1]) == (22, "  … 24 rows in all")
