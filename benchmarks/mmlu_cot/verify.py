"""MMLU with a summarised chain of thought: the letter it settles on (Hendrycks et al. 2021, arXiv 2009.03300).

Prompt and extraction are those of allenai/olmes @5a51f50, `mmlu:cot::summarize`, in our own words.
"""

import re
from collections.abc import Mapping
from typing import Any

from evalsuite.types import Score
from evalsuite.verify import lmeval
from evalsuite.verify.choices import LETTERS, mmlu_letter

QUIRKS = frozenset({"mmlu-first-match"})
INSTRUCTION = (
    "Below is a multiple-choice question about {subject}. Sum up your reasoning in a few concise sentences, and then "
    "end your response with `Therefore, the answer is: X` where X stands for one of A, B, C or D.\n\n"
)
PHRASE = re.compile(r"Therefore, the answer is: ?[A-D]\b")


def verify(response: str, doc: Mapping[str, Any], quirks: frozenset[str] = QUIRKS) -> Score:
    letter, step = mmlu_letter(response, first="mmlu-first-match" in quirks)
    return Score(
        float(letter == LETTERS[doc["answer"]]),
        extracted=letter or None,
        why=f"found by step {step}" if step else "no letter in the response",
        format_ok=PHRASE.search(response) is not None,
    )


process_results = lmeval.as_process_results(verify, category="subject")
macro = lmeval.macro


def gold_response(doc: Mapping[str, Any]) -> str:
    return f"Therefore, the answer is: {LETTERS[doc['answer']]}"


def doc_to_text(doc: Mapping[str, Any]) -> str:
    options = "".join(f" {letter}. {text}\n" for letter, text in zip(LETTERS, doc["choices"], strict=True))
    return f"{INSTRUCTION.format(subject=doc['subject'].replace('_', ' '))}Question: {doc['question']}\n{options}"


def doc_to_target(doc: Mapping[str, Any]) -> str:
    return LETTERS[doc["answer"]]
