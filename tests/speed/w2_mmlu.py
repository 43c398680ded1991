"""W2: MMLU, 5 shots, letters, on the real rows; `hf` against lm-eval's hf backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from evalsuite.types import LoglikRequest, Prompt
from tests.speed.likelihoods import Row, compare
from tests.tiny import BENCH22

SUBJECTS = (
    "abstract_algebra",
    "anatomy",
    "astronomy",
    "computer_security",
    "machine_learning",
    "philosophy",
)
ROWS = 50
GOAL, BAR = 6.0, 4.0
LETTERS = ("A", "B", "C", "D")


def data_folder() -> Path:
    """Where the rows are: EVALSUITE_SHARED_DATA, else `shared/data` beside the repository."""
    root = Path(os.environ.get("EVALSUITE_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    return root / "hub" / "cais" / "mmlu"


def requests(subjects: Sequence[str] | None, rows: int | None, n_shots: int = 5) -> list[LoglikRequest]:
    """Prompts in the shape of lm-eval's `mmlu`: header, answered questions, the question; options ` A` to ` D`.

    `subjects` None takes all, `rows` None every test row. Shots are the subject's dev rows in file order.
    """
    shots: dict[str, list[str]] = {}
    for row in _read("dev"):
        answer = LETTERS[int(str(row["answer"]))]
        shots.setdefault(str(row["subject"]), []).append(f"{_question(row)} {answer}\n\n")
    taken: dict[str, int] = {}
    found: list[LoglikRequest] = []
    for row in _read("test"):
        subject = str(row["subject"])
        taken[subject] = taken.get(subject, 0) + 1
        if (subjects is not None and subject not in subjects) or (rows is not None and taken[subject] > rows):
            continue
        header = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        text = header + "".join(shots[subject][:n_shots]) + _question(row)
        found.append(LoglikRequest(Prompt(text), tuple(f" {letter}" for letter in LETTERS)))
    return found


def run(scale: float = 1.0) -> list[Row]:
    """W2(a): six subjects, 50 rows each at scale 1, and the same without shots. No row when the data is absent."""
    if not data_folder().is_dir():
        return []
    rows = max(5, round(ROWS * scale))
    few, none = requests(SUBJECTS, rows), requests(SUBJECTS, rows, n_shots=0)
    note = f"{len(few)} real rows of 6 subjects"
    return [
        compare("W2a MMLU 5-shot letters", BENCH22, few, GOAL, note),
        # Hardly anything is shared here: what counts is that sharing costs nothing where it gains nothing.
        compare("W2c MMLU 0-shot letters", BENCH22, none, 1.0, note),
    ]


def run_all(scale: float = 1.0) -> list[Row]:
    """W2(b), on request: all 57 subjects, every row at scale 1, a window of 8,192 tokens. Hours for the baseline."""
    found = requests(None, None if scale >= 1 else max(1, round(246 * scale)))
    shape = replace(BENCH22, positions=8192)
    return [compare("W2b MMLU 5-shot letters, all", shape, found, GOAL, f"{len(found)} real rows of 57 subjects")]


def _question(row: dict[str, object]) -> str:
    choices = row["choices"]
    assert isinstance(choices, Iterable)
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True)]
    return "\n".join([str(row["question"]).strip(), *lines, "Answer:"])


def _read(split: str) -> list[dict[str, object]]:
    import pyarrow.parquet

    rows: list[dict[str, object]] = pyarrow.parquet.read_table(data_folder() / "all" / f"{split}.parquet").to_pylist()
    return rows
