"""Comparing and searching text: exact match as HF `evaluate` defines it, aliases, and the last hit of a pattern."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, gold: str, *, ignore_case: bool = True, ignore_punctuation: bool = False) -> bool:
    """Whether both are equal after lower-casing and dropping ASCII punctuation as asked. White space counts."""
    if ignore_case:
        prediction, gold = prediction.lower(), gold.lower()
    if ignore_punctuation:
        prediction, gold = prediction.translate(_NO_PUNCTUATION), gold.translate(_NO_PUNCTUATION)
    return prediction == gold


def found_alias(text: str, aliases: Iterable[str]) -> str | None:
    """The first alias that stands in the text as written, in lower case or capitalised; None when none does.

    The text itself keeps its case (the PopQA rule of allenai/olmes). Blank aliases are skipped: they stand everywhere.
    """
    for alias in aliases:
        if alias.strip() and (alias in text or alias.lower() in text or alias.capitalize() in text):
            return alias
    return None


def last(pattern: re.Pattern[str], text: str) -> str | None:
    """The group (or match) of the last of the non-overlapping matches; None without one."""
    found = pattern.findall(text)
    return found[-1] if found else None


def last_after(head: re.Pattern[str], answer: re.Pattern[str], text: str) -> str | None:
    """What `head.*?(answer)` finds last, in linear time; None without a hit. `answer` never spans lines.

    The plain regex looks through the rest of the line again for every head: quadratic on a long line without an answer.
    """
    found: str | None = None
    position = line_end = 0
    while hit := head.search(text, position):
        if hit.end() > line_end:
            line_end = end_of_line(text, hit.end())
        match = answer.search(text, hit.end(), line_end)
        if match is None:
            position = line_end  # nor can any later head on this line have one
            continue
        found, position = match.group(), match.end()
    return found


def end_of_line(text: str, start: int) -> int:
    """Where the line that `start` is on ends: the index of its newline, or the length of the text."""
    end = text.find("\n", start)
    return len(text) if end < 0 else end
