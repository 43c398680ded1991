"""`ifeval_old`: checks of words and letters. Each returns the objection in plain words, None when there is none.

They count exactly where IFEval compares ("at least"), and find words inside words. That is how Tülu 3 was rewarded, so
nothing here is shared with IFEval's checks of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from evalsuite.verify.constraints.language_tools import language_of

_WORD = re.compile(r"\b\w+\b")
_CAPITALS = re.compile(r"\b[A-Z]+\b")


def keywords(text: str, keyword_list: Sequence[str]) -> str | None:
    """Every keyword stands in the text, in any case and also inside a word."""
    lower = text.lower()
    missing = next((word for word in keyword_list if word.lower() not in lower), None)
    return None if missing is None else f"no {missing!r}"


def keyword_frequency(text: str, word: str, N: int) -> str | None:
    """Exactly N of the text's words are the word, in any case; one of two words is never found."""
    return exactly("occurrences", _WORD.findall(text.lower()).count(word.lower()), N)


def forbidden_words(text: str, forbidden_words: Sequence[str]) -> str | None:
    """None of the words stands in the text, not even inside a word."""
    lower = text.lower()
    found = next((word for word in forbidden_words if word.lower() in lower), None)
    return None if found is None else f"{found!r} is there"


def letter_frequency(text: str, letter: str, N: int) -> str | None:
    """Exactly N times that letter, in that case."""
    return exactly("occurrences", text.count(letter), N)


def response_language(text: str, language: str) -> str | None:
    """The text is in that language; a text without anything to tell it by is in none."""
    found = language_of(text)
    return None if found == language else f"the language is {found}, asked for {language}"


def choice(text: str, options: Sequence[str]) -> str | None:
    """One of the options stands in the text, also inside a word."""
    return None if any(option in text for option in options) else "none of the options is there"


def uppercase(text: str) -> str | None:
    """The text is its own upper case; digits are."""
    return None if text == text.upper() else "not all upper case"


def lowercase(text: str) -> str | None:
    """The text is its own lower case; digits are."""
    return None if text == text.lower() else "not all lower case"


def capital_words(text: str, N: int, quantifier: str) -> str | None:
    """So many words of ASCII capitals alone; "around" allows a tenth more or less, and one."""
    return quantified("words in capitals", len(_CAPITALS.findall(text)), N, quantifier, tenth(N))


def no_commas(text: str) -> str | None:
    """No ASCII comma."""
    return None if "," not in text else "a comma is there"


def exactly(things: str, found: int, wanted: int) -> str | None:
    """The objection to a count that is another."""
    return None if found == wanted else f"{things}: {found}, asked for exactly {wanted}"


def quantified(things: str, found: int, wanted: int, quantifier: str, tolerance: int) -> str | None:
    """The objection to a count that is too small, too large or too far away."""
    lowest = wanted - tolerance if quantifier == "around" else wanted if quantifier == "at least" else found
    highest = wanted + tolerance if quantifier == "around" else wanted if quantifier == "at most" else found
    return None if lowest <= found <= highest else f"{things}: {found}, asked for {quantifier} {wanted}"


def tenth(count: int) -> int:
    """A tenth as Python rounds it (half to even), at least one."""
    return max(round(0.1 * count), 1)
