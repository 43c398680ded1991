"""IFEval: capital and small letters (three checks)."""

from __future__ import annotations

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.ifeval_words import compared
from evalsuite.verify.constraints.language_tools import language_of, words_of
from evalsuite.verify.constraints.registry import constraint

IDS = ("change_case:capital_word_frequency", "change_case:english_capital", "change_case:english_lowercase")


@constraint(
    "change_case:capital_word_frequency",
    {"capital_frequency": p.count, "capital_relation": p.relation},
    tools=["sentences", "words"],
)
def capital_words(text: str, capital_frequency: int, capital_relation: str) -> str | None:
    """Less than, or at least, so many words in capitals ("A-B" is one, "I" and "DON'T" are one and two)."""
    found = sum(map(str.isupper, words_of(text)))
    return compared("words in capitals", found, capital_relation, capital_frequency)


@constraint("change_case:english_capital", tools=["language"])
def english_capital(text: str) -> str | None:
    """English, with letters and none of them small."""
    return _english(text) if text.isupper() else "not all in capitals"


@constraint("change_case:english_lowercase", tools=["language"])
def english_lowercase(text: str) -> str | None:
    """English, with letters and none of them a capital."""
    return _english(text) if text.islower() else "not all in lower case"


def _english(text: str) -> str | None:
    found = language_of(text)
    return None if found in ("en", None) else f"the language is {found!r}, asked for 'en'"
