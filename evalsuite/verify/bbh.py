"""BIG-Bench Hard: reading the answer from a chain of thought, with the patterns of allenai/olmes @5a51f50.

Two extractions: `ladder` (`bbh:cot-v1::tulu`, commit 534d13d and later) looks for the task's kind of answer with ever
looser patterns; `strict` (`bbh:cot::tulu`, e0d79fd) takes what follows "the answer is". Quirks of upstream:
- `bbh-dead-letter-step`: the ladder's sixth step wants backspace characters around a stand-alone letter ("\\b" in a
  string that is not raw), so it never hits;
- `bbh-strict-eats-last`: the strict pattern drops the last character of the line, full stop or not.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from evalsuite.verify.text import end_of_line, exact_match, last, last_after

QUIRKS = frozenset({"bbh-dead-letter-step", "bbh-strict-eats-last"})

LETTER = r"\([A-Z]\)"  # the answer of the 17 tasks that are not listed here
YES_NO = "[yY]es|[nN]o"
ANSWERS = {
    "boolean_expressions": "[tT]rue|[fF]alse",
    "causal_judgement": YES_NO,
    "dyck_languages": r"[\]\)\}\> ]+",
    "formal_fallacies": "[iI]nvalid|[vV]alid",
    "multistep_arithmetic_two": r"-?\d+",
    "navigate": "[nN]o|[yY]es",
    "object_counting": r"\d+",
    "sports_understanding": YES_NO,
    "web_of_lies": YES_NO,
    "word_sorting": "[a-z ]+",
}
MARKS = (
    ("$", "$"),
    (r"\(", r"\)"),
    ("(", ")"),
    ("**", "**"),
    ("***", "***"),
    (r"\[", r"\]"),
    ("'", "'"),
    ("`", "`"),
    ('"', '"'),
)

_ANSWER_COLON = re.compile("(?i)answer:")
_ANSWER_WORD = re.compile(r"(?i)answer\b")
_LETTER_ALONE = re.compile(r"\b([A-Z])\b")
_LETTER_DEAD = re.compile("\b([A-Z])\b")
_THE_ANSWER_IS = "the answer is "


@dataclass(frozen=True, slots=True)
class _Patterns:
    so: re.Pattern[str]
    is_: re.Pattern[str]
    plain: re.Pattern[str]
    any_case: re.Pattern[str]
    marks: tuple[tuple[str, str], ...]
    letter: bool


@functools.cache
def _patterns(task: str) -> _Patterns:
    answer = ANSWERS.get(task, LETTER)
    return _Patterns(
        so=re.compile(rf"(?i)So the answer is ({answer})\.?"),
        is_=re.compile(rf"(?i)answer is ({answer})"),
        plain=re.compile(f"({answer})"),
        any_case=re.compile(f"(?i)({answer})"),
        marks=tuple((left, right) for left, right in MARKS if not re.match(answer, left)),
        letter=answer == LETTER,
    )


def ladder(text: str, task: str, quirks: frozenset[str] = QUIRKS) -> tuple[str, int]:
    """The answer in a response to a BBH task and the step (1 to 7) that found it; ("", 0) when there is none.

    Each step takes its last hit. A letter comes back in parentheses.
    """
    found, step = _search(text, task, quirks)
    for left, right in _patterns(task).marks:
        if len(found) >= len(left) + len(right) and found.startswith(left) and found.endswith(right):
            found = found[len(left) : len(found) - len(right)]
        found = found.strip()
    return (f"({found})" if _patterns(task).letter and len(found) == 1 else found), step


def _search(text: str, task: str, quirks: frozenset[str]) -> tuple[str, int]:
    patterns = _patterns(task)
    # A regex that ignores case is slow to find nothing. Beyond ASCII, lower() and the regex disagree on some letters.
    if not text.isascii() or "answer" in text.lower():
        if (found := last(patterns.so, text)) is not None:
            return found, 1
        if (found := last(patterns.is_, text)) is not None:
            return found, 2
        if (found := last_after(_ANSWER_COLON, patterns.any_case, text)) is not None:
            return found, 3
        if (found := last_after(_ANSWER_WORD, patterns.any_case, text)) is not None:
            return found, 4
    if (found := last(patterns.plain, text)) is not None:
        return found, 5
    if patterns.letter:
        alone = _LETTER_DEAD if "bbh-dead-letter-step" in quirks else _LETTER_ALONE
        if (found := last(alone, text)) is not None:
            return found, 6
    if (found := last(patterns.any_case, text)) is not None:
        return found, 7
    return "", 0


def strict(text: str, quirks: frozenset[str] = QUIRKS) -> str:
    """What follows the first "the answer is " that has something after it on its line, without full stops around it."""
    start = text.find(_THE_ANSWER_IS)
    while start >= 0:
        start += len(_THE_ANSWER_IS)
        end = end_of_line(text, start)
        if end > start:
            return text[start : end - 1 if "bbh-strict-eats-last" in quirks else end].strip(".")
        start = text.find(_THE_ANSWER_IS, start)
    return ""


def same_answer(answer: str, gold: str, task: str, *, keep_punctuation: bool = False) -> bool:
    """Equality without case, and without punctuation unless the task is about it (or the strict regime keeps it)."""
    ignore = not keep_punctuation and task != "dyck_languages"
    return exact_match(answer, gold, ignore_punctuation=ignore)
