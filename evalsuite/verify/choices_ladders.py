"""Multiple choice in the unseen suite: the letter that a reasoned answer ends in, for MMLU-Pro, GPQA and AGIEval.

Each ladder is that of allenai/olmes @5a51f50 (`0shot_cot::tulu3`), in linear time: a step that says "last stand-alone
letter" is upstream's `.*\\b([A-J])\\b`, whose cost is quadratic on a long line without a hit. One quirk:
- `agieval-letter-in-word`: the last step takes any A to E, even inside a word; without it only one that stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from evalsuite.verify.text import end_of_line, last

MMLU_PRO_LETTERS = "ABCDEFGHIJ"
AGIEVAL_QUIRKS = frozenset({"agieval-letter-in-word"})

_THEREFORE_J = re.compile(r"Therefore, the answer is \(([A-J])\)")
_ANSWER_IS_J = re.compile(r"(?i)answer is:?\s*\(?([A-J])\)?")
# Only the word is consumed: in "answer: Answer: B" the second word begins with what the first takes for its letter.
_ANSWER_COLON_J = re.compile(r"[aA]nswer:(?=\s*([A-J]))")
_ALONE_J = re.compile(r"\b([A-J])\b")

_THEREFORE_D = re.compile(r"Therefore, the answer is \(([A-D])\)")
_IN_PARENTHESES_D = re.compile(r"\(([A-D])\)")
_CORRECT_IS_D = re.compile(r"The correct answer is: ([A-D])")
_ALONE_D = re.compile(r"\b([A-D])\b")

_THEREFORE_F = re.compile(r"Therefore, the answer is \(([A-F])\)")
_THE_ANSWER_IS = "the answer is "
_IN_PARENTHESES_E = re.compile(r"\(([A-E])\)")
_ALONE_E = re.compile(r"\b([A-E])\b")


def mmlu_pro_letter(text: str) -> tuple[str, int]:
    """The letter A to J as it is written and the step (1 to 4) that found it, else ("", 0)."""
    if letter := last(_THEREFORE_J, text):
        return letter, 1
    # Searching without case is slow; beyond ASCII, lower() and the regex disagree on some letters.
    if not text.isascii() or "answer is" in text.lower():
        match = _ANSWER_IS_J.search(text)
        if match:
            return match.group(1), 2
    if letter := _last_of_first_line(text):
        return letter, 3
    if letter := last(_ALONE_J, text):
        return letter, 4
    return "", 0


def _last_of_first_line(text: str) -> str:
    """What `.*[aA]nswer:\\s*([A-J])` finds first: the last such letter of the first line that has one."""
    first = _ANSWER_COLON_J.search(text)
    if first is None:
        return ""
    letter = first.group(1)
    # Not searched in a part of the text: the white space before the letter may cross the end of the line.
    end = end_of_line(text, first.end())
    for match in _ANSWER_COLON_J.finditer(text, first.end()):
        if match.start() >= end:
            break
        letter = match.group(1)
    return letter


def gpqa_letter(text: str) -> tuple[str, int]:
    """The letter A to D and the step (1 to 4) that found it, else ("", 0)."""
    if letter := last(_THEREFORE_D, text):
        return letter, 1
    if letter := last(_IN_PARENTHESES_D, text):
        return letter, 2
    match = _CORRECT_IS_D.search(text)
    if match:
        return match.group(1), 3
    if letter := last(_ALONE_D, text):
        return letter, 4
    return "", 0


def agieval_letter(text: str, quirks: frozenset[str] = AGIEVAL_QUIRKS) -> tuple[str, int]:
    """The letter A to E (F only in the asked-for phrase) and the step (1 to 3) that found it, else ("", 0)."""
    if letter := last(_THEREFORE_F, text):
        return letter, 1
    *_, span = text, *_sentence_ends(text)
    if letter := last(_IN_PARENTHESES_E, span):
        return letter, 2
    if "agieval-letter-in-word" in quirks:
        place = max(map(text.rfind, "ABCDE"))
        letter = text[place] if place >= 0 else ""
    else:
        letter = last(_ALONE_E, text) or ""
    return letter, 3 if letter else 0


def _sentence_ends(text: str) -> Iterator[str]:
    """What `(?<=the answer is )(.*?)(?=\\.)` finds: from the phrase to the next full stop of its line.

    As with the regex, an empty hit (a full stop right after the phrase) is followed by one up to the next full stop,
    and a phrase that ends where a hit ends begins another one.
    """
    line_end = 0
    phrase = text.find(_THE_ANSWER_IS)
    while phrase >= 0:
        start = phrase + len(_THE_ANSWER_IS)
        if start > line_end:
            line_end = end_of_line(text, start)
        stop = text.find(".", start, line_end)
        if stop < 0:
            phrase = text.find(_THE_ANSWER_IS, line_end)  # nor has a later phrase of this line one
            continue
        yield text[start:stop]
        if stop == start and (further := text.find(".", start + 1, line_end)) > 0:
            stop = further
            yield text[start:stop]
        phrase = text.find(_THE_ANSWER_IS, max(phrase + 1, stop - len(_THE_ANSWER_IS)))
