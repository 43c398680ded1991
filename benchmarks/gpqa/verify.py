"""GPQA: the letter of the right answer among four, after reasoning (Rein et al. 2023, arXiv 2311.12022).

Prompt and extraction are those of allenai/olmes @5a51f50, `gpqa:0shot_cot::tulu3`, in our own words. The authors ask
not to publish examples: no row of the data belongs into logs, tests or pages.
"""

import random
import re
from collections.abc import Mapping
from typing import Any

from evalsuite.types import Score
from evalsuite.verify.choices_ladders import gpqa_letter
from evalsuite.verify.lmeval import as_process_results
from evalsuite.verify.text import exact_match

LETTERS = "ABCD"
SEED = 111  # plus the row's position: the seed of its order of options
INSTRUCTION = (
    "Here is a multiple-choice question. Reply with the letter of the correct answer, in parentheses. Keep your "
    'reasoning CONCISE, and be sure to end your reply with "Therefore, the answer is (ANSWER_LETTER)" where '
    "(ANSWER_LETTER) is one of (A), (B), (C), (D).\n\n"
)
REMINDER = (
    "\n\nNow answer this question. REMEMBER that your reply has to end with the exact phrase "
    '"Therefore, the answer is (ANSWER_LETTER)" where (ANSWER_LETTER) is one of (A), (B), (C), (D).'
)

_BRACKETS = re.compile(r"\[[^\]\n]*\]")


def verify(response: str, doc: Mapping[str, Any]) -> Score:
    letter, step = gpqa_letter(response)
    return Score(
        float(exact_match(letter, doc["letter"], ignore_punctuation=True)),
        extracted=letter or None,
        why=f"found by step {step}" if step else "no letter in the response",
        format_ok=step == 1,
    )


process_results = as_process_results(verify)


def gold_response(doc: Mapping[str, Any]) -> str:
    return f"Therefore, the answer is ({doc['letter']})."


def docs(rows: Any) -> Any:
    """Adds the four `choices` in the order shown and the `letter` of the right one; both depend on the position."""
    shown = [_options(row, position) for position, row in enumerate(rows)]
    return rows.add_column("choices", [o for o, _ in shown]).add_column("letter", [letter for _, letter in shown])


def _options(row: Mapping[str, Any], position: int) -> tuple[list[str], str]:
    right = len(LETTERS) - 1
    texts = [_clean(row[f"Incorrect Answer {n}"]) for n in (1, 2, 3)] + [_clean(row["Correct Answer"])]
    order = list(range(len(LETTERS)))
    random.Random(SEED + position).shuffle(order)
    return [texts[n] for n in order], LETTERS[order.index(right)]


def _clean(text: str) -> str:
    return _BRACKETS.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def doc_to_text(doc: Mapping[str, Any]) -> str:
    options = "\n".join(f" ({letter}) {text}" for letter, text in zip(LETTERS, doc["choices"], strict=True))
    return f"{INSTRUCTION}Question: {doc['Question']}\nChoices:\n{options}{REMINDER}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return str(doc["letter"])
