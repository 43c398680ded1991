"""Reversing a word: "rabcd?" must be answered "dcba". Rows are drawn from a fixed seed, not loaded."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from evalsuite.types import Doc, Score
from evalsuite.verify.drawn import Row, held_out_rows
from evalsuite.verify.lmeval import as_process_results

if TYPE_CHECKING:
    import datasets

N_TEST = 500
LETTERS = "abcdefgh"
LENGTHS = (3, 4)


def draw(rng: random.Random) -> Row:
    """One row: `question` "rabcd?", `answer` "dcba"."""
    word = "".join(rng.choices(LETTERS, k=rng.choice(LENGTHS)))
    return {"question": f"r{word}?", "answer": word[::-1]}


def test_rows() -> list[Row]:
    return held_out_rows(draw, "ladder_reverse", N_TEST)


def dataset(**_: object) -> dict[str, datasets.Dataset]:
    import datasets

    return {"test": datasets.Dataset.from_list(test_rows())}


def question(doc: Doc) -> str:
    return str(doc["question"])


def gold_response(doc: Doc) -> str:
    return str(doc["answer"])


def verify(response: str, doc: Doc) -> Score:
    said, gold = response.strip(), gold_response(doc)
    right = sum(a == b for a, b in zip(said, gold, strict=False)) / len(gold)
    return Score(float(said == gold), {"letters": right}, said[:40])


process_results = as_process_results(verify, "exact_match")
