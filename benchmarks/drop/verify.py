"""DROP: words and numbers of the answer, as F1 over bags of words (Dua et al. 2019, arXiv 1903.00161).

Prompt, exemplars and grading are those of allenai/olmes @5a51f50, `drop::llama3`: plain text, no chat.
"""

import random
from collections.abc import Mapping
from typing import Any

from evalsuite.errors import DataError
from evalsuite.types import Score
from evalsuite.verify.drop import golds, judge
from evalsuite.verify.lmeval import as_process_results

N_SHOTS = 3
SEED = 1234  # of the shots; with the 77,400 or 77,409 rows of train it draws 57767, 15315 and 981


def verify(response: str, doc: Mapping[str, Any]) -> Score:
    score = judge(response, golds(doc))
    return Score(
        score.f1,
        parts={"exact_match": score.exact},
        extracted=response.strip() or None,
        why=f"closest to {score.gold!r}" if score.gold else "no word of an answer",
    )


process_results = as_process_results(verify, metric="f1")


def gold_response(doc: Mapping[str, Any]) -> str:
    return doc_to_target(doc)


def doc_to_text(doc: Mapping[str, Any]) -> str:
    return f"Passage: {doc['passage']}\nQuestion: {doc['question']}\nAnswer:"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return ", ".join(golds(doc)[0])


def shots(rows: Any) -> Any:
    """Three rows of the train split, the same for every question; raises DataError when it has fewer."""
    if len(rows) < N_SHOTS:
        raise DataError(f"drop: the train split has {len(rows)} rows; {N_SHOTS} are needed for the shots")
    return rows.select(random.Random(SEED).sample(range(len(rows)), N_SHOTS))
