"""TruthfulQA MC2: how much of the probability lies on the true answers (Lin et al. 2021, arXiv 2109.07958).

Prompt and measure are those of allenai/olmes @5a51f50, `truthfulqa::tulu`: six question-answer pairs and the question
in one user turn. `mc1` beside it: is the most likely of the single-true options the true one?
"""

from collections.abc import Mapping, Sequence
from typing import Any

from evalsuite import exemplars
from evalsuite.types import Score
from evalsuite.verify.choices import best, share_of_true
from evalsuite.verify.lmeval import as_process_choices


def verify(totals: Sequence[float], doc: Mapping[str, Any]) -> Score:
    options, labels = doc["mc2_targets"]["choices"], doc["mc2_targets"]["labels"]
    value = share_of_true(totals, labels)
    return Score(value, parts={"mc1": _mc1(totals, doc)}, extracted=options[best(totals)])


def _mc1(totals: Sequence[float], doc: Mapping[str, Any]) -> float:
    # Every mc1 option is also an mc2 option (817 of 817 rows), so that nothing has to be scored twice.
    by_option = dict(zip(doc["mc2_targets"]["choices"], totals, strict=True))
    single = doc["mc1_targets"]
    return float(single["labels"][best([by_option[option] for option in single["choices"]])] == 1)


process_results = as_process_choices(verify, metric="mc2")


def gold_totals(doc: Mapping[str, Any]) -> list[float]:
    return [0.0 if label == 1 else -1000.0 for label in doc["mc2_targets"]["labels"]]


def doc_to_text(doc: Mapping[str, Any]) -> str:
    return f"{exemplars.truthfulqa()}\n\nQ: {doc['question']}\nA:"


def doc_to_choice(doc: Mapping[str, Any]) -> list[str]:
    return list(doc["mc2_targets"]["choices"])


def doc_to_target(doc: Mapping[str, Any]) -> int:
    return 0
