"""DeepMind Mathematics: a mathematically equal final answer, 56 categories (Saxton et al. 2019, arXiv 1904.01557).

Prompt, extraction and comparison are those of allenai/olmes @5a51f50, `deepmind_math:0shot_cot-v3::tulu3`, in our own
words; `original` is the first version of both (regime `olmes-public`).
"""

import csv
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from evalsuite.types import Score
from evalsuite.verify import lmeval, parts
from evalsuite.verify.expressions import same_answer
from evalsuite.verify.math_final import QUIRKS, final_answer

INSTRUCTION = "Find an efficient solution to this problem:"
ASK = (
    'Show how you work it out, and conclude with the exact phrase "Therefore, the final answer is [answer]. I hope it '
    'is correct." where [answer] is nothing but the number, expression or label that solves the problem.'
)
LIKE = " For problems of this kind such conclusions look like this:\n"
SAID = "Therefore, the final answer is {}. I hope it is correct."
NOTES = (
    "Write the answer as follows: items of a list are separated by commas, the smallest first unless the problem asks "
    "for another order, as in `2, 10`; powers are written `x**2`, products with `*` as in `2*x`, and fractions with a "
    "slash as in `-2/7`."
)

_BYTES = re.compile(r"^b'|\\n'$")


def verify(
    response: str,
    doc: Mapping[str, Any],
    quirks: frozenset[str] = QUIRKS,
    extraction: Literal["v3", "original"] = "v3",
) -> Score:
    answer, step = final_answer(response, quirks, any_stop=extraction == "original")
    same = same_answer(answer, doc["answer"]) if answer else False
    found = f"found by step {step}" if step else "no answer in the response"
    return Score(
        float(bool(same)),
        parts={"parse_error": float(same is None)},
        extracted=answer or None,
        why=f"{found}; cannot be compared" if same is None else found,
        format_ok=step == 1,
    )


process_results = lmeval.as_process_results(verify, category="category")
macro = lmeval.macro


def gold_response(doc: Mapping[str, Any]) -> str:
    return SAID.format(doc["answer"])


def dataset(
    configs: Sequence[str],
    per_category: int,
    seed: int,
    places: Mapping[str, Mapping[str, Any]] | None = None,
    **_: Any,
) -> dict[str, Any]:
    """The categories, one config each, as one table; of a category with more rows a fixed sample."""
    read = functools.partial(_rows, per_category=per_category, seed=seed)
    return parts.load_parts("deepmind/math_dataset", configs, "test", read, places)


def _rows(category: str, rows: Any, per_category: int, seed: int) -> Iterator[dict[str, str]]:
    for row in parts.sample(rows, per_category, seed):
        yield {"category": category, "question": _text(row["question"]), "answer": _text(row["answer"])}


def _text(value: str) -> str:
    """The hub's rows are printed bytes: b'…\\n'."""
    return _BYTES.sub("", value).strip()


def doc_to_text(doc: Mapping[str, Any]) -> str:
    examples = "\n".join(f"- {SAID.format(answer)}" for answer in _examples()[doc["category"]])
    return f"{INSTRUCTION}\n{doc['question']}\n\n{ASK}{LIKE}{examples}\n\n{NOTES}"


def doc_to_text_original(doc: Mapping[str, Any]) -> str:
    return f"{INSTRUCTION}\n{doc['question']}\n\n{ASK}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return str(doc["answer"])


@functools.cache
def _examples() -> dict[str, tuple[str, ...]]:
    """Category to two or three answers of its kind, from examples.csv."""
    found: dict[str, tuple[str, ...]] = {}
    with Path(__file__).with_name("examples.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["category"]] = (*found.get(row["category"], ()), row["answer"])
    return found
