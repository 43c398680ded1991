"""The final answer of a response to DeepMind's Mathematics, found and stripped of its wrapping, in linear time.

The steps are those of allenai/olmes @5a51f50 (`deepmind_math:0shot_cot-v3::tulu3`). One quirk:
- `dm-angle-brackets`: the special token `<|eot_id|>` is taken for a regex, an alternative of three, so that every `<`,
  every `>` and every `eot_id` is deleted.
"""

from __future__ import annotations

import re

from evalsuite.verify.text import end_of_line

QUIRKS = frozenset({"dm-angle-brackets"})

_THEREFORE = re.compile(r"(?i)Therefore, the final answer is ")
_HOPE = re.compile(r"(?i)\. I hope it is correct.")
_HOPE_ANY = re.compile(r"(?i). I hope it is correct.")
_LEADS = (re.compile(r"(?i)the final answer is"), re.compile(r"(?i)answer is"))
_HOPE_TEXT = "I hope it is correct"
_EOT_AS_REGEX = re.compile("<|eot_id|>")
_WRAPPING = (("$", "$"), ("\\(", "\\)"), ("**", "**"), ("***", "***"), ("\\[", "\\]"))


def final_answer(text: str, quirks: frozenset[str] = QUIRKS, *, any_stop: bool = False) -> tuple[str, int]:
    """The cleaned answer and the step (1 or 2) that found it, ("", 0) without one.

    `any_stop` lets any character stand for the full stop before "I hope": the pattern of the first prompt's version.
    """
    # Searching without case is slow; beyond ASCII, lower() and the regex disagree on some letters.
    if text.isascii() and "answer is" not in text.lower():
        return "", 0
    said = _last_said(text, _HOPE_ANY if any_stop else _HOPE)
    if said is not None:
        return _clean(said, quirks), 1
    for lead in _LEADS:
        match = lead.search(text)
        if match:
            rest = text[match.end() :].strip()
            return _clean(rest[: end_of_line(rest, 0)].removesuffix("."), quirks), 2
    return "", 0


def _last_said(text: str, hope: re.Pattern[str]) -> str | None:
    """What `Therefore, the final answer is (.*?)` and then `hope` find last, both on one line."""
    said: str | None = None
    position = line_end = 0
    while head := _THEREFORE.search(text, position):
        if head.end() > line_end:
            line_end = end_of_line(text, head.end())
        tail = hope.search(text, head.end(), line_end)
        if tail is None:
            position = line_end  # nor can any later head on this line have one
            continue
        said, position = text[head.end() : tail.start()], tail.end()
    return said


def _clean(answer: str, quirks: frozenset[str]) -> str:
    before, hope, _ = answer.partition(_HOPE_TEXT)
    if hope:
        answer = before.rstrip().removesuffix(".").rstrip()
    answer = answer.replace("<end_of_turn>", "")
    answer = _EOT_AS_REGEX.sub("", answer) if "dm-angle-brackets" in quirks else answer.replace("<|eot_id|>", "")
    answer = answer.replace("<s>", "").replace("</s>", "").strip().removesuffix(".").strip()
    for left, right in _WRAPPING:
        if len(answer) >= len(left) + len(right) and answer.startswith(left) and answer.endswith(right):
            answer = answer[len(left) : -len(right)].strip()
    return answer
