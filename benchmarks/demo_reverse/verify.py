"""Reversing four letters: the response must be the letters backwards. Rows are drawn from a fixed seed, not loaded."""

import random

import datasets

from evalsuite.types import Doc, Score
from evalsuite.verify.lmeval import as_process_results

N_TEST = 200
LETTERS = "abcdefgh"


def draw(rng: random.Random) -> dict[str, str]:
    """One row: `question` "reverse hade", `answer` "edah"."""
    letters = "".join(rng.choices(LETTERS, k=4))
    return {"question": f"reverse {letters}", "answer": letters[::-1]}


def test_rows() -> list[dict[str, str]]:
    """The fixed test set: the first 200 different questions of its seed."""
    rng, rows = random.Random("demo_reverse"), {}
    while len(rows) < N_TEST:
        row = draw(rng)
        rows[row["question"]] = row
    return list(rows.values())


def dataset(**_: object) -> dict[str, datasets.Dataset]:
    return {"test": datasets.Dataset.from_list(test_rows())}


def question(doc: Doc) -> str:
    return str(doc["question"])


def gold_response(doc: Doc) -> str:
    return str(doc["answer"])


def verify(response: str, doc: Doc) -> Score:
    said = response.strip()
    right = sum(a == b for a, b in zip(said, doc["answer"], strict=False)) / len(doc["answer"])
    return Score(float(said == doc["answer"]), {"letters": right}, said[:40])


process_results = as_process_results(verify, "exact_match")
