"""What benchmarks share that draw their rows instead of loading them: which are held out for the test set, that set,
and how a written word is judged.

A question is held out or not by its own hash, whoever draws it: training rows and test rows can share none.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from evalsuite.types import Doc, Score

if TYPE_CHECKING:
    import datasets

Row = dict[str, str]
Draw = Callable[[random.Random], Row]

ONE_IN = 4  # of all questions, this share is held out


def held_out(question: str) -> bool:
    """Whether a question may stand in a test set alone; the others may be trained on."""
    return int.from_bytes(hashlib.blake2b(question.encode(), digest_size=8).digest(), "big") % ONE_IN == 0


def held_out_rows(draw: Draw, seed: str, n: int) -> list[Row]:
    """The first `n` different held-out rows that `draw` gives with this seed; always the same ones."""
    rng, rows = random.Random(seed), dict[str, Row]()
    while len(rows) < n:
        row = draw(rng)
        if held_out(row["question"]):
            rows[row["question"]] = row
    return list(rows.values())


def as_dataset(test_rows: Callable[[], list[Row]]) -> Callable[..., dict[str, datasets.Dataset]]:
    """What lm-eval calls as `custom_dataset`: the test split and no other."""

    def dataset(**_: object) -> dict[str, datasets.Dataset]:
        import datasets

        return {"test": datasets.Dataset.from_list(test_rows())}

    return dataset


def question(doc: Doc) -> str:
    return str(doc["question"])


def gold_response(doc: Doc) -> str:
    return str(doc["answer"])


# -- judging --


def same_word(response: str, doc: Doc) -> Score:
    """1 for exactly the answer; the part `letters` is the share of its letters that stand in their places."""
    said, gold = response.strip(), gold_response(doc)
    right = sum(a == b for a, b in zip(said, gold, strict=False)) / len(gold)
    return Score(float(said == gold), {"letters": right}, said[:40])


def written(word: str, marks: str) -> str:
    """The word as all marks ask for it: "[" in brackets, "^" in capitals, any other mark behind it."""
    word = word.upper() if "^" in marks else word
    word = f"[{word}]" if "[" in marks else word
    return word + marks.strip("[^")


def same_form(response: str, doc: Doc) -> Score:
    """1 where the response has the answer's letters, in any order, in the answer's form; both are parts."""
    said, gold = response.strip(), gold_response(doc)
    letters, form = float(_letters(said) == _letters(gold)), float(_form(said) == _form(gold))
    return Score(letters * form, {"letters": letters, "form": form}, said[:40])


def _letters(text: str) -> list[str]:
    return sorted(c for c in text.lower() if c.isalpha())


def _form(text: str) -> str:
    """What stands around the letters, and their case; not how many they are: "[abc]" and "[ab]" are both "[a]"."""
    return re.sub("[A-Z]+", "A", re.sub("[a-z]+", "a", text))
