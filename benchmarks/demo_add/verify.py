"""Adding two numbers below 30: the response must be the sum. Rows are drawn here from a fixed seed, not loaded."""

import random

from evalsuite.types import Doc, Score
from evalsuite.verify.drawn import Row, as_dataset, gold_response, question
from evalsuite.verify.lmeval import as_process_results

N_TEST = 200


def draw(rng: random.Random) -> Row:
    """One row: `question` "12+7=", `answer` "19"."""
    a, b = rng.randrange(30), rng.randrange(30)
    return {"question": f"{a}+{b}=", "answer": str(a + b)}


def test_rows() -> list[Row]:
    """The fixed test set: the first 200 different questions of seed 0."""
    rng, rows = random.Random("demo_add"), dict[str, Row]()
    while len(rows) < N_TEST:
        row = draw(rng)
        rows[row["question"]] = row
    return list(rows.values())


def verify(response: str, doc: Doc) -> Score:
    said = response.strip()
    return Score(float(said == doc["answer"]), extracted=said[:40], why="" if said else "nothing was said")


dataset = as_dataset(test_rows)
process_results = as_process_results(verify, "exact_match")

__all__ = ["dataset", "draw", "gold_response", "process_results", "question", "test_rows", "verify"]
