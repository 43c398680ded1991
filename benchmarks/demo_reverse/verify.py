"""Reversing four letters: the response must be the letters backwards. Rows are drawn from a fixed seed, not loaded."""

import random

from evalsuite.verify.drawn import Row, as_dataset, gold_response, question, same_word
from evalsuite.verify.lmeval import as_process_results

N_TEST = 200
LETTERS = "abcdefgh"


def draw(rng: random.Random) -> Row:
    """One row: `question` "reverse hade", `answer` "edah"."""
    letters = "".join(rng.choices(LETTERS, k=4))
    return {"question": f"reverse {letters}", "answer": letters[::-1]}


def test_rows() -> list[Row]:
    """The fixed test set: the first 200 different questions of its seed."""
    rng, rows = random.Random("demo_reverse"), dict[str, Row]()
    while len(rows) < N_TEST:
        row = draw(rng)
        rows[row["question"]] = row
    return list(rows.values())


dataset = as_dataset(test_rows)
verify = same_word
process_results = as_process_results(verify, "exact_match")

__all__ = ["dataset", "draw", "gold_response", "process_results", "question", "test_rows", "verify"]
