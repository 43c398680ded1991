"""IFEval: which words and letters stand in the response, and in which language it is (five checks)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.language_tools import language_of
from evalsuite.verify.constraints.registry import constraint

IDS = (
    "keywords:existence",
    "keywords:frequency",
    "keywords:forbidden_words",
    "keywords:letter_frequency",
    "language:response_language",
)


@constraint("keywords:existence", {"keywords": p.keywords})
def has_keywords(text: str, keywords: Sequence[re.Pattern[str]]) -> str | None:
    """Every keyword is found, in any case and inside longer words too ("cat" in "Concatenate")."""
    missing = [k.pattern for k in keywords if not k.search(text)]
    return f"not found: {', '.join(map(repr, missing))}" if missing else None


@constraint("keywords:frequency", {"keyword": p.keyword, "frequency": p.count, "relation": p.relation})
def keyword_frequency(text: str, keyword: re.Pattern[str], frequency: int, relation: str) -> str | None:
    """The keyword is found less than, or at least, so many times, inside longer words too."""
    return compared(f"{keyword.pattern!r}", len(keyword.findall(text)), relation, frequency)


@constraint("keywords:forbidden_words", {"forbidden_words": p.whole_words})
def lacks_words(text: str, forbidden_words: Mapping[str, re.Pattern[str]]) -> str | None:
    """None of the words stands alone in the text, in any case ("category" is no "cat")."""
    found = [word for word, pattern in forbidden_words.items() if pattern.search(text)]
    return f"forbidden, but found: {', '.join(map(repr, found))}" if found else None


@constraint("keywords:letter_frequency", {"letter": p.letter, "let_frequency": p.count, "let_relation": p.relation})
def letter_frequency(text: str, letter: str, let_frequency: int, let_relation: str) -> str | None:
    """The character stands less than, or at least, so many times in the lower-cased text."""
    return compared(f"{letter!r}", text.lower().count(letter), let_relation, let_frequency)


@constraint("language:response_language", {"language": p.language}, tools=["language"])
def in_language(text: str, language: str) -> str | None:
    """The text is identified as that language; a text without letters passes, as upstream has it."""
    found = language_of(text)
    return None if found in (language, None) else f"the language is {found!r}, asked for {language!r}"


def compared(what: str, found: int, relation: str, limit: int) -> str | None:
    """The objection to a count: None when it is less than, or at least, the limit."""
    holds = found < limit if relation == "less than" else found >= limit
    return None if holds else f"{what}: {found}, asked for {relation} {limit}"
