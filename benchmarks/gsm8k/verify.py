"""GSM8K: the last number of the response must equal the answer (Cobbe et al. 2021, arXiv 2110.14168).

Prompt, extraction and quirks are those of allenai/olmes @5a51f50, `gsm8k::tulu`.
"""

from collections.abc import Mapping
from typing import Any

from evalsuite import exemplars
from evalsuite.types import Score
from evalsuite.verify.lmeval import as_process_results
from evalsuite.verify.numbers import QUIRKS, last_number, same_number

PREFILL = "Answer:"
PHRASE = "So the answer is"  # what every exemplar ends in


def verify(response: str, doc: Mapping[str, Any], quirks: frozenset[str] = QUIRKS) -> Score:
    number = last_number(response, quirks)
    answer = response if number is None else number
    return Score(
        float(same_number(answer, gold(doc, quirks), quirks)),
        extracted=number,
        why="" if number is not None else "no number in the response",
        format_ok=PHRASE in response,
    )


process_results = as_process_results(verify)


def gold(doc: Mapping[str, Any], quirks: frozenset[str] = QUIRKS) -> str:
    """The number after the #### of a row, read in the same way as a response."""
    answer = str(doc["answer"]).rpartition("####")[2].strip()
    number = last_number(answer, quirks)
    if number is None:
        raise ValueError(f"no number after the #### of the answer: {answer[-80:]!r}")
    return number


def gold_response(doc: Mapping[str, Any]) -> str:
    return f"{PHRASE} {str(doc['answer']).rpartition('####')[2].strip()}."


def docs(rows: Any) -> Any:
    # A field, because lm-eval renders a literal prefill as a template for every shot of every row (20 times slower).
    return rows.add_column("prefill", [PREFILL] * len(rows))


def doc_to_text(doc: Mapping[str, Any]) -> str:
    return f"Question: {doc['question']}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return str(doc["target"] if "target" in doc else doc["answer"])


def shots() -> list[dict[str, str]]:
    return [{**shot, "prefill": PREFILL} for shot in exemplars.gsm8k()]
