"""Reversing a word: "rabcd?" must be answered "dcba". Rows are drawn from a fixed seed, not loaded."""

from __future__ import annotations

import random

from evalsuite.verify.drawn import Row, as_dataset, gold_response, held_out_rows, question, same_word
from evalsuite.verify.lmeval import as_process_results

N_TEST = 500
LETTERS = "abcdefgh"
LENGTHS = (3, 4)


def draw(rng: random.Random) -> Row:
    """One row: `question` "rabcd?", `answer` "dcba"."""
    word = "".join(rng.choices(LETTERS, k=rng.choice(LENGTHS)))
    return {"question": f"r{word}?", "answer": word[::-1]}


def test_rows() -> list[Row]:
    return held_out_rows(draw, "ladder_reverse", N_TEST)


dataset = as_dataset(test_rows)
verify = same_word
process_results = as_process_results(verify, "exact_match")

__all__ = ["dataset", "draw", "gold_response", "process_results", "question", "test_rows", "verify"]
