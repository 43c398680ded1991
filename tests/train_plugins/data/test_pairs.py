"""pairs ↔ hand-made ratings: who is chosen, who may be rejected, and why there is no pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from evalsuite.types import Message
from train_plugins.data.composition import compose, lines_of
from train_plugins.data.pairs import Dropped, Pair, PairRules, Ties, choose_pair, pair_row
from train_plugins.data.ratings import Item, Rated
from train_plugins.data.rows import check_row

ASPECTS = ("helpfulness", "instruction_following", "truthfulness", "honesty")
PROMPT = (Message("system", "Be kind."), Message("user", "Say hello."))


def rated(ratings: Mapping[str, Sequence[Any]], texts: Mapping[str, str] | None = None, id: str = "p1") -> Rated:
    texts = texts or {name: f"text of {name}" for name in ratings}
    by_name = {name: dict(zip(ASPECTS, values, strict=True)) for name, values in ratings.items()}
    return Rated(Item(id, PROMPT, texts), tuple(ratings), by_name, False, "503")


def means(**values: int) -> Rated:
    return rated({name: [value] * 4 for name, value in values.items()})


def rules(ties: Ties = "drop", min_margin: float = 0.0, seed: int = 7) -> PairRules:
    return PairRules(seed, 3, ties, min_margin)


def test_the_best_against_each_strictly_worse_one_alike() -> None:
    found: Counter[str] = Counter()
    for i in range(600):
        ratings = {"a": [5] * 4, "b": [3] * 4, "c": [2] * 4, "d": [4] * 4}
        pair = choose_pair(rated(ratings, id=f"p{i}"), rules())
        assert isinstance(pair, Pair)
        assert pair.chosen == "a"
        found[pair.rejected] += 1
    assert set(found) == {"b", "c", "d"}
    assert all(160 < n < 240 for n in found.values())  # 200 expected, sd 11.5


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    items = [rated({"a": [5] * 4, "b": [3] * 4, "c": [2] * 4}, id=f"p{i}") for i in range(50)]
    turned = [rated({"c": [2] * 4, "a": [5] * 4, "b": [3] * 4}, id=f"p{i}") for i in range(50)]
    assert [choose_pair(i, rules()) for i in items] == [choose_pair(i, rules()) for i in turned]
    assert [choose_pair(i, rules()) for i in items] != [choose_pair(i, rules(seed=8)) for i in items]


DROPPED: dict[str, tuple[Rated, PairRules, str, str]] = {
    "a shared first place": (means(a=5, b=5, c=3), rules(), "tie", "a, b share the highest mean, 5.00"),
    "all the same": (means(a=4, b=4), rules("seeded"), "tie", "a, b share"),
    "too near": (
        means(a=5, b=4, c=4),
        rules(min_margin=1.5),
        "margin",
        "no text is 1.5 below the best; the next is 1.00",
    ),
    "one text has a rating": (
        rated({"a": [5, 4, 4, "not_applicable"], "b": ["unreadable"] * 4}),
        rules(),
        "few_ratings",
        "b: fewer than 3 of 4 ratings, after asking again (4 unreadable)",
    ),
    "a judge that was down": (
        rated({"a": [5] * 4, "b": [4, 4, "request_failed", "request_failed"]}),
        rules(),
        "judge_failed",
        "503",
    ),
    "the same text twice": (
        rated({"a": [5] * 4, "b": [4] * 4}, {"a": "Hello  you", "b": "Hello you"}),
        rules(),
        "identical_pair",
        "the texts of a and b are the same",
    ),
}


@pytest.mark.parametrize("name", DROPPED)
def test_prompts_without_a_pair_say_why(name: str) -> None:
    item, rule, code, why = DROPPED[name]
    found = choose_pair(item, rule)
    assert isinstance(found, Dropped)
    assert found.code == code
    assert why in found.why


def test_seeded_ties_draw_among_the_best_and_reject_a_worse_one() -> None:
    found = Counter(
        choose_pair(rated({"a": [5] * 4, "b": [5] * 4, "c": [3] * 4}, id=f"p{i}"), rules("seeded")) for i in range(300)
    )
    assert set(found) == {Pair("a", "c"), Pair("b", "c")}
    assert all(115 < n < 185 for n in found.values())  # 150 expected, sd 8.7


def test_means_are_compared_exactly() -> None:
    # (5+4+4)/3 against (5+4+4+4)/4: 13/3 > 17/4, a difference of 1/12.
    item = rated({"a": [5, 4, 4, "not_applicable"], "b": [5, 4, 4, 4]})
    assert choose_pair(item, rules()) == Pair("a", "b")
    # 4.5 - 4.4 is less than 0.1 in floats; (5+5+4+4)/4 - (5+4+4+4)/4 = 0.25 meets a margin of 0.25.
    item = rated({"a": [5, 5, 4, 4], "b": [5, 4, 4, 4]})
    assert choose_pair(item, rules(min_margin=0.25)) == Pair("a", "b")
    assert isinstance(choose_pair(item, rules(min_margin=0.26)), Dropped)


def test_the_row_is_canonical_and_says_who_was_rated_how() -> None:
    item = rated({"b": [4, 3, 4, 3], "a": [5, 5, "not_applicable", 5]})
    row = pair_row(item, Pair("a", "b"))
    assert check_row(row, "preference") == []
    assert row["chosen"][:-1] == row["rejected"][:-1] == [{"role": m.role, "content": m.content} for m in PROMPT]
    assert row["chosen"][-1] == {"role": "assistant", "content": "text of a"}
    assert (row["chosen_rating"], row["rejected_rating"]) == (5.0, 3.5)
    assert (row["chosen_model"], row["rejected_model"]) == ("a", "b")
    assert row["order"] == ["b", "a"]
    assert row["ratings"][0] == {
        "model": "a", "mean": 5.0, "helpfulness": 5, "instruction_following": 5, "truthfulness": None, "honesty": 5,
    }  # fmt: skip


# -- composition --


def pair_of(chosen: str, rejected: str, lengths: tuple[int, int], ratings: tuple[float, float]) -> dict[str, Any]:
    sides = {
        side: [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * n}]
        for side, n in zip(("chosen", "rejected"), lengths, strict=True)
    }
    by_model = [
        {"model": model, "mean": rating, "helpfulness": rating, "honesty": None}
        for model, rating in zip((chosen, rejected), ratings, strict=True)
    ]
    more = {"chosen_rating": ratings[0], "rejected_rating": ratings[1], "ratings": by_model, "source": "s"}
    return {**sides, "chosen_model": chosen, "rejected_model": rejected, **more}


def test_the_composition_by_hand() -> None:
    rows = [
        pair_of("policy", "a", (10, 20), (5, 4)),
        pair_of("a", "policy", (30, 10), (4, 2)),
        pair_of("a", "b", (20, 10), (3, 2)),
        pair_of("a", "b", (20, 20), (3, 2)),
    ]
    found = compose(rows, ("policy",))
    assert found.on_policy == 2 / 8
    assert found.with_on_policy == 2 / 4
    assert found.models == {"a": (3, 1), "b": (0, 2), "policy": (1, 1)}
    assert found.margin == (1 + 2 + 1 + 1) / 4
    assert found.aspects == {"helpfulness": 25 / 8}  # 5+4+4+2+3+2+3+2
    length = found.length
    assert length is not None
    assert (length.chosen, length.rejected, length.chosen_longer) == (20.0, 15.0, 0.5)
    # (length, rating): (10,5) (20,4) (30,4) (10,2) (20,3) (10,2) (20,3) (20,2), means 17.5 and 3.125:
    # sum xy - n mean mean = 450 - 437.5, sum x² - n mean² = 2,800 - 2,450, sum y² - n mean² = 87 - 78.125.
    assert length.correlation == pytest.approx(12.5 / (350 * 8.875) ** 0.5)
    told = dict(lines_of(found))
    assert told["answers on-policy"] == "25.0%"
    assert told["model a"] == "4 pairs: 3 chosen, 1 rejected"


def test_rows_that_say_little_have_a_composition_too() -> None:
    bare = {key: pair_of("a", "b", (5, 4), (1, 0))[key] for key in ("chosen", "rejected")}
    found = compose([bare])
    assert (found.n_pairs, found.models, found.margin, found.on_policy) == (1, {}, None, None)
    assert found.length is not None
    assert found.length.correlation is None
    assert compose([]).as_json()["length"] is None
    assert lines_of(found)[0] == ("pairs", "1")
