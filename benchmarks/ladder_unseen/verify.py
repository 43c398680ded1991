"""Constraints of `ladder_format` as nobody trains them: two at once, words of other lengths, marks that are new.

A word must be written as the marks behind it ask. Whoever keeps all constraints and all letters is right, in whatever
order the letters come. Rows are drawn from a fixed seed, not loaded.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from evalsuite.verify.drawn import Row, as_dataset, gold_response, held_out_rows, question, same_form, written
from evalsuite.verify.lmeval import as_process_results

N_TEST = 500
LETTERS = "abcdefgh"
ALL = (2, 3, 4)
# Kind of what was never trained -> marks -> lengths of words.
ASKED: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "two": {"[;": ALL, "^!": ALL, "[^": ALL},
    "length": {"[": (4,), "^": (2,), "!": (3,), ".": (4,), ";": (2,)},
    "order": {"![": ALL, ".[": ALL, ".^": ALL, ";^": ALL},
}


def draw(rng: random.Random) -> Row:
    """One row: `question` "Fabc[^?", `answer` "[ABC]", `kind` "two"."""
    kind = rng.choice(tuple(ASKED))
    marks = rng.choice(tuple(ASKED[kind]))
    word = "".join(rng.choices(LETTERS, k=rng.choice(ASKED[kind][marks])))
    return {"question": f"F{word}{marks}?", "answer": written(word, marks), "kind": kind}


def test_rows() -> list[Row]:
    return held_out_rows(draw, "ladder_unseen", N_TEST)


dataset = as_dataset(test_rows)
verify = same_form
process_results = as_process_results(verify, "kept")

__all__ = ["dataset", "draw", "gold_response", "process_results", "question", "test_rows", "verify"]
