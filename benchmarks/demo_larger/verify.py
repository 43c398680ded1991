"""The larger of two numbers, as a choice: the likelier option must be it. Rows are drawn here from a fixed seed."""

import random
from collections.abc import Sequence

import datasets

from evalsuite.types import Doc, Score
from evalsuite.verify.lmeval import as_process_choices

N_TEST = 200


def draw(rng: random.Random) -> dict[str, object]:
    """One row: `question` "larger of 17 and 52", `choices` ["17", "52"], `label` 1, `answer` "52"."""
    numbers = rng.sample(range(10, 100), 2)
    label = numbers.index(max(numbers))
    choices = [str(n) for n in numbers]
    return {
        "question": f"larger of {choices[0]} and {choices[1]}",
        "choices": choices,
        "label": label,
        "answer": choices[label],
    }


def test_rows() -> list[dict[str, object]]:
    """The fixed test set: the first 200 different questions of its seed."""
    rng, rows = random.Random("demo_larger"), {}
    while len(rows) < N_TEST:
        row = draw(rng)
        rows[row["question"]] = row
    return list(rows.values())


def dataset(**_: object) -> dict[str, datasets.Dataset]:
    return {"test": datasets.Dataset.from_list(test_rows())}


def question(doc: Doc) -> str:
    return str(doc["question"])


def options(doc: Doc) -> list[str]:
    return list(doc["choices"])


def label(doc: Doc) -> int:
    return int(doc["label"])


def gold_totals(doc: Doc) -> list[float]:
    return [0.0 if i == doc["label"] else -1.0 for i in range(len(doc["choices"]))]


def verify(totals: Sequence[float], doc: Doc) -> Score:
    best = max(range(len(totals)), key=lambda i: totals[i])
    return Score(float(best == doc["label"]), extracted=doc["choices"][best])


process_results = as_process_choices(verify, "acc")
