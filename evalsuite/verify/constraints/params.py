"""What a parameter of an instruction may be. Each function returns the value a check takes, or raises ValueError.

Upstream fills a missing or odd parameter with a random one, which makes a verdict unrepeatable; we refuse the row.
"""

from __future__ import annotations

import re
from typing import Any

_CODES = "en es pt ar hi fr ru de ja it bn uk th ur ta te bg ko pl he fa vi ne sw kn mr gu pa ml fi"
LANGUAGES = tuple(_CODES.split())
"""The ISO 639-1 codes that an IFEval prompt can ask for."""

RELATIONS = ("less than", "at least")


def count(value: Any) -> int:
    """A whole number from 0 up. Datasets deliver some of them as floats."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value != int(value):
        raise ValueError("expected a whole number")
    if value < 0:
        raise ValueError("expected a number from 0 up")
    return int(value)


def position(value: Any) -> int:
    """A whole number from 1 up."""
    if count(value) < 1:
        raise ValueError("expected a number from 1 up")
    return int(value)


def percentage(value: Any) -> int:
    """A whole number from 0 to 100."""
    if count(value) > 100:
        raise ValueError("expected a number from 0 to 100")
    return int(value)


def relation(value: Any) -> str:
    """How a count compares with its limit."""
    if value not in RELATIONS:
        raise ValueError("expected 'less than' or 'at least'")
    return str(value)


def text(value: Any) -> str:
    """Text that holds more than spaces, as it stands."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected text that is not blank")
    return value


def stripped(value: Any) -> str:
    """Text without the spaces around it."""
    return text(value).strip()


def letter(value: Any) -> str:
    """One character, in lower case. Two rows of IFEval ask for '#' and '!', which we count as they are."""
    found = stripped(value).lower()
    if len(found) != 1:
        raise ValueError("expected one character")
    return found


def language(value: Any) -> str:
    """One of the codes that an IFEval prompt can ask for."""
    if value not in LANGUAGES:
        raise ValueError(f"expected one of {' '.join(LANGUAGES)}")
    return str(value)


def pattern(value: Any) -> re.Pattern[str]:
    """A regular expression, case-sensitive, without the spaces around it."""
    return _compiled(stripped(value), stripped(value), re.NOFLAG)


def keyword(value: Any) -> re.Pattern[str]:
    """A regular expression that ignores case, without the spaces around it."""
    return _compiled(stripped(value), stripped(value), re.IGNORECASE)


def keywords(value: Any) -> tuple[re.Pattern[str], ...]:
    """At least one regular expression, sorted; they ignore case and keep the spaces around them."""
    return tuple(_compiled(word, word, re.IGNORECASE) for word in _words(value))


def whole_words(value: Any) -> dict[str, re.Pattern[str]]:
    """Each word once, sorted, with the pattern that finds it as a whole word in any case."""
    return {word: _compiled(rf"\b{word}\b", word, re.IGNORECASE) for word in sorted(set(_words(value)))}


def _words(value: Any) -> list[str]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise ValueError("expected a list of words")
    return sorted(text(word) for word in value)


def _compiled(source: str, shown: str, flags: re.RegexFlag) -> re.Pattern[str]:
    try:
        return re.compile(source, flags)
    except re.error as error:
        raise ValueError(f"{shown!r} is no regular expression ({error})") from None
