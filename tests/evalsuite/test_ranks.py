"""Rank intervals and signs: what paired tests on all rows can order, and that joining once changes no number."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.compare import compare_results
from evalsuite.scorecard import Result, group_result
from evalsuite.stats import average_difference
from evalsuite.tables import Table
from evalsuite.tables.leaderboard import table
from evalsuite.tables.marks import GateMarks
from evalsuite.tables.pairs import Difference, Pairs
from evalsuite.tables.ranks import Rank, ranks
from tests.evalsuite.cards import flips, make_card, make_result


def drawn(kind: str, seed: int, n: int = 60) -> tuple[Result, Result, Result]:
    """Three results of one benchmark that share most samples, of every shape that a benchmark has."""
    rng = random.Random(seed)
    binary = kind in {"binary", "binary clusters"}
    made = []
    for first in (0, 0, 7):
        scores = [float(rng.random() < 0.6) if binary else round(rng.random(), 3) for _ in range(n)]
        places = range(first, first + n)
        categories = [f"c{i % 5}" for i in places] if kind.startswith("macro") else []
        clusters = [f"g{i % 9}" for i in places] if kind.endswith("clusters") else []
        if kind == "macro inside clusters":
            categories, clusters = [f"c{i % 12}" for i in places], [f"g{i % 4}" for i in places]  # 4 divides 12
        made.append(make_result("b", scores, categories=categories, clusters=clusters, first=first))
    return made[0], made[1], made[2]


@pytest.mark.parametrize(
    "kind", ["binary", "binary clusters", "plain", "plain clusters", "macro", "macro clusters", "macro inside clusters"]
)
def test_a_difference_joined_once_is_the_one_that_compare_joins_by_pair(kind: str) -> None:
    for seed in range(5):
        results = drawn(kind, seed)
        pairs = Pairs({"b": results})
        for a, b in ((0, 1), (1, 0), (0, 2), (2, 1)):
            ours, theirs = pairs.column("b", a, b), compare_results(results[a], results[b])
            assert ours is not None
            assert theirs is not None
            assert (ours.wins, ours.losses) == (theirs.wins, theirs.losses)
            assert (ours.value, ours.stderr, ours.p) == pytest.approx(
                (theirs.difference, theirs.stderr, theirs.p), rel=1e-9, abs=1e-15
            )


def test_an_average_and_a_column_of_several_benchmarks_are_those_of_compare() -> None:
    one, two = drawn("macro", 1), drawn("binary", 2)
    groups = [
        group_result("g", [make_result("m1", list(a.scores.values())), make_result("m2", list(b.scores.values()))])
        for a, b in zip(drawn("plain", 3), drawn("binary", 4), strict=True)
    ]
    pairs = Pairs({"one": one, "two": two, "g": groups})
    parts = [compare_results(side[0], side[1]) for side in (one, two, groups)]
    theirs = average_difference([part for part in parts if part is not None])
    ours = pairs.average(["one", "two", "g"], 0, 1)
    assert ours is not None
    assert (ours.value, ours.stderr, ours.p) == pytest.approx((theirs.difference, theirs.stderr, theirs.p), rel=1e-9)


def test_rows_that_share_no_sample_have_no_difference() -> None:
    results = [make_result("b", flips(9, [1])), make_result("b", flips(9, [1]), first=9)]
    assert Pairs({"b": results}).column("b", 0, 1) is None
    assert Pairs({"b": results}).average(["b"], 0, 1) is None


def test_a_win_rate_that_is_no_mean_is_compared_by_its_two_errors() -> None:
    # 55 ± 3 against 45 ± 4: 10 points with √(3² + 4²) = 5, z = 2 and a two-sided p of .0455
    sides = [
        make_result("b", flips(50, range(k)), value=v, stderr=e) for k, v, e in ((25, 0.55, 0.03), (25, 0.45, 0.04))
    ]
    difference = Pairs({"b": sides}).column("b", 0, 1)
    assert difference is not None
    assert (difference.value, difference.stderr) == pytest.approx((0.10, 0.05))
    assert difference.p == pytest.approx(0.0455, abs=1e-4)


def test_an_interval_counts_what_is_proven_better_and_worse() -> None:
    # Row 0 beats 2 and 3, row 1 beats 3, nothing else is proven: 6 pairs, so Holm takes p = .001 to .006 at most.
    proven = {(0, 2), (0, 3), (1, 3)}

    def compare(a: int, b: int) -> Difference:
        # p of 1000 wins and no loss is far below .05/6, of 5 and 5 it is 1.
        wins, losses = (1000, 0) if (a, b) in proven else (5, 5)
        return Difference(0.1 if wins > losses else 0.01, None, wins, losses, (0, 0), exact=True)

    assert ranks(range(4), compare) == {0: Rank(1, 2), 1: Rank(1, 3), 2: Rank(2, 4), 3: Rank(3, 4)}


def test_holm_is_over_all_pairs_and_widens_the_intervals() -> None:
    # 1 win against 8 losses: mid-p .0215. Alone it orders two rows; among the 15 pairs of six rows it does not.
    def compare(a: int, b: int) -> Difference:
        return Difference(-0.07, None, 1, 8, (1, 8), exact=True)

    assert ranks(range(2), compare) == {0: Rank(2, 2), 1: Rank(1, 1)}
    assert set(ranks(range(6), compare).values()) == {Rank(1, 6)}


def test_a_row_without_a_partner_has_no_interval() -> None:
    def compare(a: int, b: int) -> Difference | None:
        return None if 2 in (a, b) else Difference(0.0, 0.01, 3, 3, (3, 3))

    assert ranks(range(3), compare) == {0: Rank(1, 2), 1: Rank(1, 2)}


@given(st.lists(st.lists(st.booleans(), min_size=30, max_size=30), min_size=2, max_size=5))
@settings(max_examples=40, deadline=None)
def test_intervals_hold_their_own_place_and_never_contradict_the_averages(rows: list[list[bool]]) -> None:
    cards = [make_card(f"c{i}", {"b": list(map(float, row))}) for i, row in enumerate(rows)]
    made = table(cards)
    spans = [tuple(map(int, cell(made, row, "rank").strip("[]").split(", "))) for row in range(len(rows))]
    assert all(1 <= low <= high <= len(rows) for low, high in spans)
    # Two rows that share no place are told apart, and then the average of the first is the higher one.
    averages = [made.rows[i].cells[2].value for i in range(len(rows))]
    for (one, a), (other, b) in pairwise(zip(spans, averages, strict=True)):
        assert isinstance(a, float)
        assert isinstance(b, float)
        assert a > b if one[1] < other[0] else one[0] <= other[0]


def cell(made: Table, row: int, key: str) -> str:
    return made.rows[row].cells[[c.key for c in made.columns].index(key)].text


def column(made: Table, key: str) -> list[str]:
    return [cell(made, row, key) for row in range(len(made.rows))]


def marks(made: Table, key: str) -> dict[str, str]:
    index = [c.key for c in made.columns].index(key)
    return {row.cells[0].text: row.cells[index].marks for row in made.rows}


def three(a: Sequence[int], b: Sequence[int], c: Sequence[int]) -> list[str]:
    made = table([make_card(name, {"x": flips(400, wrong)}) for name, wrong in zip("abc", (a, b, c), strict=True)])
    return [f"{name} {rank}" for name, rank in zip(column(made, "checkpoint"), column(made, "rank"), strict=True)]


def test_rows_are_ordered_by_their_best_rank_then_by_average() -> None:
    # 40, 42 and 200 of 400 wrong, nested: b against a loses 2 and wins none (z = 1.42), c loses 160 and 158 more.
    assert three(range(40), range(42), range(200)) == ["a [1, 2]", "b [1, 2]", "c [3, 3]"]
    assert three(range(200), range(42), range(40)) == ["c [1, 2]", "b [1, 2]", "a [3, 3]"]


def test_a_row_of_a_part_of_the_samples_has_no_rank_and_stands_below() -> None:
    look = make_result("x", flips(20, []), notes=("20 of 400 samples, drawn by seed 1234",))
    made = table(
        [
            make_card("a", {"x": flips(400, range(9))}),
            make_card("b", {"x": flips(400, range(90))}),
            make_card("look", {"x": look}),
        ]
    )
    assert column(made, "checkpoint") == ["a", "b", "look"]
    assert column(made, "rank") == ["[1, 1]", "[2, 2]", "–"]


def test_a_single_row_and_rows_without_shared_samples_get_no_rank_column() -> None:
    alone = [make_card("a", {"x": flips(9, [1])})]
    apart = [*alone, make_card("b", {"x": make_result("x", flips(9, []), first=9)})]
    for cards in (alone, apart):
        assert "rank" not in [c.key for c in table(cards).columns]


def test_signs_say_what_is_proven_against_the_champion() -> None:
    # Against the champion's 100 wrong of 1000: better fixes 60 of them, worse breaks 60 more, same swaps 5 for 5.
    cards = [
        make_card("champ", {"x": flips(1000, range(100)), "y": flips(1000, range(100))}),
        make_card("better", {"x": flips(1000, range(40)), "y": flips(1000, [*range(95), *range(500, 505)])}),
        make_card("worse", {"x": flips(1000, range(160)), "y": flips(1000, range(100))}),
    ]
    made = table(cards, marks=GateMarks(champion=cards[0].checkpoint.digest, generation=3))
    assert marks(made, "x") == {"better": "^", "champ": "", "worse": "v"}
    assert set(marks(made, "y").values()) == {""}
    assert marks(made, "average") == {"better": "^", "champ": "", "worse": "v"}
    assert dict(made.notes)["v"].startswith("proven worse than the champion")
    assert set(marks(table(cards), "x").values()) == {""}


def test_holm_over_the_row_asks_more_of_many_columns() -> None:
    # 1 win against 8 losses is mid-p .0215: proven on one benchmark (and on its average), not on one of six.
    champion = {f"b{i}": flips(500, [0]) for i in range(6)}
    loser = {**champion, "b0": flips(500, range(1, 9))}
    one = [make_card("champ", {"b0": champion["b0"]}), make_card("loser", {"b0": loser["b0"]})]
    six = [make_card("champ", champion), make_card("loser", loser)]
    said = GateMarks(champion=one[0].checkpoint.digest)
    assert marks(table(one, marks=said), "b0")["loser"] == "v"
    assert marks(table(six, marks=said), "b0")["loser"] == ""


def test_the_sign_for_worse_is_no_footnote() -> None:
    truncated = make_result("x", flips(1000, range(160)), n_truncated=120)
    cards = [make_card("champ", {"x": flips(1000, range(100))}), make_card("worse", {"x": truncated})]
    made = table(cards, marks=GateMarks(champion=cards[0].checkpoint.digest))
    assert marks(made, "x")["worse"] == "v,a"
    # 30 footnotes: the letters go on past z and never say v
    many = {f"b{i}": make_result(f"b{i}", flips(100, []), n_truncated=i + 2) for i in range(30)}
    letters = [mark for mark, _ in table([make_card("a", many)]).notes]
    assert letters[20:22] == ["u", "w"]
    assert len(letters) == 30
