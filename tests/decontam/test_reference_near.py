"""The near-duplicate stage as it is written down."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from decontam.evals import load_evals
from decontam.evals.files import read_rows
from decontam.reference_near import near, seeds_of, shingles
from decontam.text import analyze

QUESTION = "Anna has 12 red apples, gives 5 of them to her brother Tom, and buys 3 green pears: how much fruit is left?"
OTHERS = [f"Question {i} asks about ship number {i}, which sails {i} miles a day." for i in range(5)]


def test_a_light_paraphrase_is_a_hit_with_spans_of_whole_words() -> None:
    seeds = seeds_of([QUESTION, *OTHERS])[0]
    message = f"Solve this. {QUESTION.replace('Tom', 'Jim').replace('red ', '')} Think first."
    found = near(QUESTION, seeds, message)
    assert found is not None
    assert 90 < found.score < 100
    # rapidfuzz aligns a stretch as long as the question; the copy is four letters shorter, so neighbours come along.
    assert message[found.train_from : found.train_to].removeprefix("this. ").startswith("Anna has 12 apples")
    assert message[found.train_from : found.train_to].removesuffix("? Think").endswith("is left")
    assert QUESTION[found.eval_from : found.eval_to] == QUESTION[:-1]


def test_a_shingle_of_many_instances_is_no_seed_and_few_seeds_cover_nothing() -> None:
    shared = seeds_of(["all five own this", *[f"all five own that{i}" for i in range(4)]])
    # `all five own` is of five instances, so each is left with one shingle: below three.
    assert shared == [frozenset()] * 5
    assert near("all five own this", shared[0], "all five own this") is None


def test_a_message_with_too_few_seeds_is_no_candidate() -> None:
    seeds = seeds_of([QUESTION])[0]
    # 22 words: 20 shingles, so three are needed at a fraction of 3/20, and eleven at 11/20.
    assert near(QUESTION, seeds, "anna has 12 red") is None
    assert near(QUESTION, seeds, QUESTION, fraction=Fraction(11, 20)) is not None
    assert near(QUESTION, seeds, QUESTION, fraction=Fraction(21, 20)) is None


def test_a_long_message_is_cut_to_where_the_seeds_are() -> None:
    seeds = seeds_of([QUESTION])[0]
    far = "other words stand here. " * 20_000
    found = near(QUESTION, seeds, far + QUESTION + far)
    assert found is not None
    assert (found.score, found.train_from, found.train_to) == (100, len(far), len(far) + len(QUESTION) - 1)


@pytest.mark.parametrize(
    ("fraction", "cutoff", "n_pairs"),
    [(Fraction(3, 20), 75, 4), (Fraction(1, 20), 65, 52)],  # the profiles default and wide
)
def test_rephrased_problems_are_near_their_own_and_no_other(
    hub_data: Path, shared_data: Path, fraction: Fraction, cutoff: float, n_pairs: int
) -> None:
    (humaneval,) = load_evals(str(hub_data / "openai/openai_humaneval/openai_humaneval/test.jsonl"))
    texts = [text or "" for (text,) in humaneval.texts]
    rows = read_rows(shared_data / "train/contaminated/rephrase_humaneval_python.jsonl")
    owned = [frozenset(shingles(analyze(each["text"]))) for each in rows]
    pairs = [
        (row, number)
        for number, (text, seeds) in enumerate(zip(texts, seeds_of(texts), strict=True))
        for row, each in enumerate(rows)
        if seeds & owned[row] and near(text, seeds, each["text"], fraction=fraction, cutoff=cutoff)
    ]
    assert len(pairs) == n_pairs
    assert all(row == number for row, number in pairs)
