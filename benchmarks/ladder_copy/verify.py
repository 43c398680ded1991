"""Repeating a word: "cab3?" must be answered "ababab". Rows are drawn from a fixed seed, not loaded."""

from __future__ import annotations

import random

from evalsuite.verify.drawn import Row, as_dataset, gold_response, held_out_rows, question, same_word
from evalsuite.verify.lmeval import as_process_results

N_TEST = 500
LETTERS = "abcdefgh"
TIMES = {2: (2, 3, 4), 3: (2,), 4: (2,)}  # length of the word -> how often it may be asked for


def draw(rng: random.Random) -> Row:
    """One row: `question` "cab3?", `answer` "ababab"."""
    length = rng.choice(tuple(TIMES))
    word, times = "".join(rng.choices(LETTERS, k=length)), rng.choice(TIMES[length])
    return {"question": f"c{word}{times}?", "answer": word * times}


def test_rows() -> list[Row]:
    return held_out_rows(draw, "ladder_copy", N_TEST)


dataset = as_dataset(test_rows)
verify = same_word
process_results = as_process_results(verify, "exact_match")

__all__ = ["dataset", "draw", "gold_response", "process_results", "question", "test_rows", "verify"]
