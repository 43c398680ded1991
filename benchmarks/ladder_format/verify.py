"""Writing a word as a mark asks: "Fabc[?" in brackets, "Fabc^?" in capitals, "Fabc!?" with that mark at its end.

Whoever keeps the constraint and all letters is right, in whatever order the letters come. Rows are drawn from a fixed
seed, not loaded.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from evalsuite.verify.drawn import Row, as_dataset, gold_response, held_out_rows, question, same_form, written
from evalsuite.verify.lmeval import as_process_results

N_TEST = 500
LETTERS = "abcdefgh"
ALL = (2, 3, 4)
# Marks behind the word -> lengths of the words that they are asked about. The other pairs are left to `ladder_unseen`.
ASKED: Mapping[str, tuple[int, ...]] = {"[": (2, 3), "^": (3, 4), "!": (2, 4), ".": (2, 3), ";": (3, 4),
                                            "[!": ALL, "[.": ALL, "^.": ALL, "^;": ALL}  # fmt: skip


def draw(rng: random.Random) -> Row:
    """One row: `question` "Fabc[?", `answer` "[abc]"."""
    marks = rng.choice(tuple(ASKED))
    word = "".join(rng.choices(LETTERS, k=rng.choice(ASKED[marks])))
    return {"question": f"F{word}{marks}?", "answer": written(word, marks)}


def test_rows() -> list[Row]:
    return held_out_rows(draw, "ladder_format", N_TEST)


dataset = as_dataset(test_rows)
verify = same_form
process_results = as_process_results(verify, "kept")

__all__ = ["dataset", "draw", "gold_response", "process_results", "question", "test_rows", "verify"]
