"""MMLU by log-likelihood: the most likely letter after five examples (Hendrycks et al. 2021, arXiv 2009.03300).

Prompt and measure are those of allenai/olmes @5a51f50, `mmlu:mc::tulu`, with the first line in our own words. The YAML
names `docs_<subject>` and `shots_<subject>`, which exist for every subject.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evalsuite.errors import DataError
from evalsuite.types import Score
from evalsuite.verify.choices import LETTERS, best
from evalsuite.verify.lmeval import as_process_choices

INSTRUCTION = "Here are multiple-choice questions about {subject}, each with its answer.\n\n"
N_SHOTS = 5


def verify(totals: Sequence[float], doc: Mapping[str, Any]) -> Score:
    choice = best(totals)
    return Score(float(choice == doc["answer"]), extracted=LETTERS[choice])


process_results = as_process_choices(verify)


def gold_totals(doc: Mapping[str, Any]) -> list[float]:
    return [0.0 if n == doc["answer"] else -1.0 for n in range(len(LETTERS))]


def doc_to_text(doc: Mapping[str, Any]) -> str:
    options = "".join(f" {letter}. {text}\n" for letter, text in zip(LETTERS, doc["choices"], strict=True))
    return f"{doc.get('lead', '')}Question: {doc['question']}\n{options}Answer:"


def _docs(rows: Any, subject: str) -> Any:
    """The rows of a subject, in their order; raises DataError when there are none."""
    # One config for all subjects: 57 downloads would be a minute on a good day.
    found = [n for n, s in enumerate(rows["subject"][:]) if s == subject]
    if not found:
        raise DataError(f"mmlu_mc: the data has no rows of the subject {subject!r}; use config 'all' of cais/mmlu")
    return rows.select(found)


def _shots(rows: Any, subject: str) -> list[dict[str, Any]]:
    """The first five of the subject's `dev` rows; the instruction stands at the beginning of the first turn."""
    lead = INSTRUCTION.format(subject=subject.replace("_", " "))
    chosen = list(_docs(rows, subject))[:N_SHOTS]
    return [{**row, "lead": "" if n else lead} for n, row in enumerate(chosen)]


def __getattr__(name: str) -> Callable[..., Any]:
    kind, _, subject = name.partition("_")
    if kind not in ("docs", "shots") or not subject:
        raise AttributeError(name)
    return functools.partial(_docs if kind == "docs" else _shots, subject=subject)
