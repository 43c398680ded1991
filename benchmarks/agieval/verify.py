"""AGIEval, English: the letter of the right answer in eight exams, after reasoning (Zhong et al. 2023).

arXiv 2304.06364. Prompt and extraction are those of allenai/olmes @5a51f50, `agi_eval_english:0shot_cot::tulu3`, in
our own words.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from evalsuite.types import Score
from evalsuite.verify import lmeval
from evalsuite.verify.choices_ladders import AGIEVAL_QUIRKS as QUIRKS
from evalsuite.verify.choices_ladders import agieval_letter
from evalsuite.verify.parts import load_parts
from evalsuite.verify.text import exact_match

LETTERS = "ABCDE"
INSTRUCTION = (
    "Here is a multiple-choice question. Reply with the letter of the correct answer, in parentheses. Keep your "
    'reasoning CONCISE, and be sure to end your reply with "Therefore, the answer is (ANSWER_LETTER)" where '
    "(ANSWER_LETTER) is one of (A), (B), (C), (D), (E), etc.\n\n"
)
REMINDER = (
    "\n\nNow answer this question. REMEMBER that your reply has to end with the exact phrase "
    '"Therefore, the answer is (ANSWER_LETTER)" where (ANSWER_LETTER) is one of (A), (B), (C), (D), (E), etc.'
)

_PREFIX = re.compile(r"^\s*\([A-E]\)\s*|^\s*[A-E][.?]?\s*")
_GLUED = re.compile(r"\(([A-E])\)(?=\S)")
_NEWLINES = re.compile(r"\n+")


def verify(response: str, doc: Mapping[str, Any], quirks: frozenset[str] = QUIRKS) -> Score:
    letter, step = agieval_letter(response, quirks)
    return Score(
        float(exact_match(letter, doc["label"], ignore_punctuation=True)),
        extracted=letter or None,
        why=f"found by step {step}" if step else "no letter in the response",
        format_ok=step == 1,
    )


process_results = lmeval.as_process_results(verify, category="exam")
macro = lmeval.macro


def gold_response(doc: Mapping[str, Any]) -> str:
    return f"Therefore, the answer is ({doc['label']})."


def dataset(configs: Sequence[str], places: Mapping[str, Mapping[str, Any]] | None = None, **_: Any) -> dict[str, Any]:
    """The eight exams, one config each, as one table; `configs` comes from the metadata of the YAML."""
    return load_parts("RUCAIBox/agieval", configs, "test", _rows, places)


def _rows(exam: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        kept = {"passage": row.get("passage") or "", "question": row["question"], "options": list(row["options"])}
        yield {"exam": exam, **kept, "label": row["label"].strip()}


def doc_to_text(doc: Mapping[str, Any]) -> str:
    passage = f"Passage: {doc['passage']}\n" if doc["passage"] else ""
    texts = (_PREFIX.sub("", option, count=1) for option in doc["options"])
    options = "\n".join(f" ({letter}) {text}" for letter, text in zip(LETTERS, texts, strict=False))
    asked = _GLUED.sub(r"(\1) ", f"{passage}Question: {doc['question']}\n{options}")
    asked = _NEWLINES.sub("\n", asked)
    return f"{INSTRUCTION}{asked}{REMINDER}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return str(doc["label"])
