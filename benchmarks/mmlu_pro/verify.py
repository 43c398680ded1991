"""MMLU-Pro: the letter of the right answer among up to ten, after reasoning (Wang et al. 2024, arXiv 2406.01574).

Prompt and extraction are those of allenai/olmes @5a51f50, `mmlu_pro:0shot_cot::tulu3`, in our own words.
"""

from collections.abc import Mapping
from typing import Any

from evalsuite.types import Score
from evalsuite.verify import lmeval
from evalsuite.verify.choices_ladders import MMLU_PRO_LETTERS as LETTERS
from evalsuite.verify.choices_ladders import mmlu_pro_letter
from evalsuite.verify.text import exact_match

INSTRUCTION = (
    "Here is a multiple-choice question. Reply with the letter of the correct answer, in parentheses. Keep your "
    'reasoning CONCISE, and be sure to end your reply with "Therefore, the answer is (ANSWER_LETTER)" where '
    "(ANSWER_LETTER) is one of (A), (B), (C), (D), (E), etc.\n\n"
)
REMINDER = (
    "\nNow answer this question. REMEMBER that your reply has to end with the exact phrase "
    '"Therefore, the answer is (ANSWER_LETTER)" where (ANSWER_LETTER) is one of (A), (B), (C), (D), (E), etc.'
)


def verify(response: str, doc: Mapping[str, Any]) -> Score:
    letter, step = mmlu_pro_letter(response)
    return Score(
        float(exact_match(letter, doc["answer"])),
        extracted=letter or None,
        why=f"found by step {step}" if step else "no letter in the response",
        format_ok=step == 1,
    )


process_results = lmeval.as_process_results(verify, category="category")
macro = lmeval.macro


def gold_response(doc: Mapping[str, Any]) -> str:
    return f"Therefore, the answer is ({doc['answer']})."


def doc_to_text(doc: Mapping[str, Any]) -> str:
    # Not strict: questions have three to ten options.
    options = "".join(f" ({letter}) {text}\n" for letter, text in zip(LETTERS, doc["options"], strict=False))
    return f"{INSTRUCTION}Question: {doc['question']}\n{options}{REMINDER}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return str(doc["answer"])
