"""Adding two numbers below 30: the response must be the sum. Rows are drawn here from a fixed seed, not loaded."""

import random

import datasets

from evalsuite.types import Doc, Score
from evalsuite.verify.lmeval import as_process_results

N_TEST = 200


def draw(rng: random.Random) -> dict[str, str]:
    """One row: `question` "12+7=", `answer` "19"."""
    a, b = rng.randrange(30), rng.randrange(30)
    return {"question": f"{a}+{b}=", "answer": str(a + b)}


def test_rows() -> list[dict[str, str]]:
    """The fixed test set: the first 200 different questions of seed 0."""
    rng, rows = random.Random("demo_add"), {}
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
    return Score(float(said == doc["answer"]), extracted=said[:40], why="" if said else "nothing was said")


process_results = as_process_results(verify, "exact_match")
