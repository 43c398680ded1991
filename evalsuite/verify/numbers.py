"""The last number of a response, compared with the gold one (GSM8K: Cobbe et al. 2021, arXiv 2110.14168).

The steps and quirks are those of allenai/olmes @5a51f50 (`gsm8k::tulu`):
- `gsm8k-unsigned-int`: an integer loses its sign, in the response and in the gold answer;
- `gsm8k-decimal-string`: numbers are compared as text (`18.00` is not `18`) and `1/2` is read as `2`.
Without them a sign that stands before a number belongs to it, `a/b` is one number, and values are compared.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from evalsuite.verify.text import exact_match

QUIRKS = frozenset({"gsm8k-unsigned-int", "gsm8k-decimal-string"})

# One pass, so that "1,2,3" becomes "12,3": the list of numbers 1, 2, 3 ends in 3 all the same.
_DIGIT_COMMA_DIGIT = re.compile(r"(\d),(\d)")
_DOLLARS_AND_COMMAS = str.maketrans("", "", "$,")
_FINAL_STOP = re.compile(r"\.$")


def last_number(text: str, quirks: frozenset[str] = QUIRKS) -> str | None:
    """The last number in the text as written there, without thousands separators; None when there is none."""
    # split keeps both groups, so joining is `sub(r"\1\2", …)`, six times as fast.
    found = _number(quirks).findall("".join(_DIGIT_COMMA_DIGIT.split(text)))
    return found[-1] if found else None


@functools.cache
def _number(quirks: frozenset[str]) -> re.Pattern[str]:
    signed = r"(?:(?<![\w.)\]])[-+])?(?:\d*\.\d+|\d+)"  # the minus of "7-3" is an operator
    number = r"[-+]?\d*\.\d+|\d+" if "gsm8k-unsigned-int" in quirks else signed
    return re.compile(number if "gsm8k-decimal-string" in quirks else rf"(?:{number})(?:/\d+)?")


def same_number(answer: str, gold: str, quirks: frozenset[str] = QUIRKS) -> bool:
    """Whether two extracted answers agree: as cleaned text with `gsm8k-decimal-string`, by value without it."""
    answer, gold = _clean(answer), _clean(gold)
    if exact_match(answer, gold):
        return True
    if "gsm8k-decimal-string" in quirks:
        return False
    value = _value(answer)
    return value is not None and value == _value(gold)


def _clean(text: str) -> str:
    # Upstream deletes `(?s).*#### ` by regex, which is quadratic on a long text without it; rpartition is the same.
    return _FINAL_STOP.sub("", text.translate(_DOLLARS_AND_COMMAS).rpartition("#### ")[2])


def _value(text: str) -> Fraction | None:
    try:
        return Fraction(text) if len(text) <= 1000 else None  # exponent-free by construction, so this bounds the work
    except (ValueError, ZeroDivisionError):
        return None
