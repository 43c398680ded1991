"""Multiple choice: the letter that a written answer settles on, and what log-likelihoods of options say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from evalsuite.verify.text import end_of_line

LETTERS = "ABCD"

_THEREFORE = re.compile(r"(?i)therefore,?\s*the\s*answer\s*is:?\s*\(?([A-D])\b")
_ANSWER_IS = re.compile(r"(?i)answer\s*is:?\s*\(?([A-D])\b")
_IS_CORRECT = re.compile(r"(?i)([A-D])\)?\s+is\s+correct")
_IN_PARENTHESES = re.compile(r"\(([A-D])\)")
_ALONE = re.compile(r"\b[A-D]\b")
# A pattern, and a lower-case word of every hit: without the word there is no need to look (ten times faster).
_STEPS = ((_THEREFORE, "therefore"), (_ANSWER_IS, "answer"), (_IS_CORRECT, "correct"), (_IN_PARENTHESES, "("))


def mmlu_letter(text: str, *, first: bool = True) -> tuple[str, int]:
    """The letter A to D that a response settles on, in upper case, and the step (1 to 5) that found it, else ("", 0).

    The ladder of allenai/olmes @5a51f50 for `mmlu:cot::summarize`; each step takes its `first` hit (quirk
    `mmlu-first-match`) or else its last. Step 5 is upstream's `.*\\b([A-D])\\b` in linear time: the last stand-alone
    letter of the first line that has one; without the quirk, of the whole text.
    """
    # Case folding beyond ASCII can match a regex and change a length, so the short cut is for ASCII alone.
    lowered = text.lower() if text.isascii() else None
    for number, (pattern, word) in enumerate(_STEPS, 1):
        if lowered is None or word in lowered:
            letter = _first(pattern, text) if first else _last(pattern, text)
            if letter:
                return letter.upper(), number
    alone = _ALONE.search(text)
    if alone is None:
        return "", 0
    end = end_of_line(text, alone.end()) if first else len(text)
    return str(_ALONE.findall(text, alone.start(), end)[-1]), 5


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match.group(1) if match else ""


def _last(pattern: re.Pattern[str], text: str) -> str:
    found: list[str] = pattern.findall(text)
    return found[-1] if found else ""


def best(totals: Sequence[float]) -> int:
    """Index of the most likely option, the first of equals. Raises ValueError for a NaN or no options."""
    _check(totals)
    return max(range(len(totals)), key=totals.__getitem__)


def share_of_true(totals: Sequence[float], labels: Sequence[int]) -> float:
    """TruthfulQA's mc2: the part of all options' probability that lies on those labelled 1 (Lin et al. 2021).

    By log-sum-exp: the plain sum of exponentials divides zero by zero when every option is very unlikely.
    """
    _check(totals)
    if len(totals) != len(labels):
        raise ValueError(f"{len(totals)} log-likelihoods for {len(labels)} labels")
    top = max(totals)
    if top == -math.inf:
        raise ValueError("every option has probability zero")
    weights = [math.exp(total - top) for total in totals]
    true = math.fsum(w for w, label in zip(weights, labels, strict=True) if label == 1)
    return true / math.fsum(weights)


def _check(totals: Sequence[float]) -> None:
    if not totals or any(math.isnan(total) for total in totals):
        raise ValueError(f"log-likelihoods are {list(totals)!r}; expected one number for each option")
