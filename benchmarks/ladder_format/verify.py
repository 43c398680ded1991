"""Writing a word as a mark asks: "Fabc[?" in brackets, "Fabc^?" in capitals, "Fabc!?" with that mark at its end.

Whoever keeps the constraint and all letters is right, in whatever order the letters come. Rows are drawn from a fixed
seed, not loaded.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from evalsuite.types import Doc, Score
from evalsuite.verify.drawn import Row, held_out_rows
from evalsuite.verify.lmeval import as_process_results

if TYPE_CHECKING:
    import datasets

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


def written(word: str, marks: str) -> str:
    """The word as all marks ask for it: "[abcd]", "ABCD", "abcd!", "ABCD!", "[abcd];"."""
    word = word.upper() if "^" in marks else word
    word = f"[{word}]" if "[" in marks else word
    return word + marks.strip("[^")


def test_rows() -> list[Row]:
    return held_out_rows(draw, "ladder_format", N_TEST)


def dataset(**_: object) -> dict[str, datasets.Dataset]:
    import datasets

    return {"test": datasets.Dataset.from_list(test_rows())}


def question(doc: Doc) -> str:
    return str(doc["question"])


def gold_response(doc: Doc) -> str:
    return str(doc["answer"])


def verify(response: str, doc: Doc) -> Score:
    said, gold = response.strip(), gold_response(doc)
    letters, form = float(_letters(said) == _letters(gold)), float(_form(said) == _form(gold))
    return Score(letters * form, {"letters": letters, "form": form}, said[:40])


def _letters(text: str) -> list[str]:
    return sorted(c for c in text.lower() if c.isalpha())


def _form(text: str) -> str:
    """What stands around the letters, and their case; not how many they are: "[abc]" and "[ab]" are both "[a]"."""
    return re.sub("[A-Z]+", "A", re.sub("[a-z]+", "a", text))


process_results = as_process_results(verify, "kept")
