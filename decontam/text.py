"""How text becomes words: the four analyzers of the rules, and where in the text each word stands."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

from decontam.errors import DecontamError, did_you_mean
from decontam.rules import Analyzer

SEPARATORS = ' ,.?!:;()"-\n\\'  # of `pattern`: the tokenizer that open-instruct's index.py declares; a tab is none
MAX_TOKEN = 255  # of `standard`: Elasticsearch's default max_token_length

_PATTERN = re.compile(f"[^{re.escape(SEPARATORS)}]+")
_WORD = re.compile(r"\S+")  # \s is what str.split takes for white space
# From the first to the last kept character of each stretch without white space; its start is never punctuation, so
# that no stretch is read more than twice.
_PLAIN = re.compile(rf"[^\s{re.escape(string.punctuation)}](?:\S*[^\s{re.escape(string.punctuation)}])?")
_PLAIN_TABLE = str.maketrans(string.ascii_uppercase, string.ascii_lowercase, string.punctuation)


def analyze(text: str) -> list[str]:
    """The words of `pattern`: text split at SEPARATORS, each code point in simple lower case."""
    return _PATTERN.findall(fold(text))


def fold(text: str) -> str:
    """`text` in simple lower case, code point by code point, so that offsets stay what they were.

    `str.lower` differs from the simple mapping in two letters only: a sigma at the end of a word becomes ς, and İ
    becomes two code points.
    """
    return text.lower() if text.isascii() else text.replace("Σ", "σ").replace("İ", "i").lower()


def words_of(analyzer: Analyzer, text: str) -> list[str]:
    """The words of `text` in order, lower-case.

    pattern   split at SEPARATORS: `analyze`
    standard  Unicode word segmentation (UAX #29), pieces with a letter or digit, cut every MAX_TOKEN code points
    words     split at white space (open-r1)
    plain     ASCII punctuation deleted, ASCII lower-cased, split at white space (GPT-3, lm-eval's janitor)
    """
    return _find(analyzer).words(text)


def spans_of(analyzer: Analyzer, text: str) -> list[tuple[int, int]]:
    """The offsets (from, to) in `text` of the words that `words_of` gives."""
    return _find(analyzer).spans(text)


class _Way:
    """One analyzer: words and their offsets are as many."""

    def __init__(self, words: Callable[[str], list[str]], spans: Callable[[str], list[tuple[int, int]]]) -> None:
        self.words = words
        self.spans = spans


def _spans(pattern: re.Pattern[str]) -> Callable[[str], list[tuple[int, int]]]:
    return lambda text: [found.span() for found in pattern.finditer(text)]


def _standard_spans(text: str) -> list[tuple[int, int]]:
    return list(_segments(text))


def _segments(text: str) -> Iterator[tuple[int, int]]:
    boundary, letter = _unicode()
    edges = [found.start() for found in boundary.finditer(text)]
    for start, stop in pairwise(edges):
        if letter.match(text, start, stop):
            yield from ((at, min(at + MAX_TOKEN, stop)) for at in range(start, stop, MAX_TOKEN))


@cache
def _unicode() -> tuple[Any, Any]:
    import regex

    # White space can begin a piece, with a combining sign on it: that is no word, whatever the sign.
    # `w` makes \b the default word boundary of Unicode; with it both ends of the text are boundaries.
    return regex.compile(r"(?w)\b"), regex.compile(r"\S*?[\p{Alphabetic}\p{N}\p{Ideographic}]")


def _standard_words(text: str) -> list[str]:
    return [fold(text[start:stop]) for start, stop in _segments(text)]


_WAYS = {
    "pattern": _Way(analyze, _spans(_PATTERN)),
    "standard": _Way(_standard_words, _standard_spans),
    "words": _Way(lambda text: text.lower().split(), _spans(_WORD)),
    "plain": _Way(lambda text: text.translate(_PLAIN_TABLE).split(), _spans(_PLAIN)),
}


def _find(analyzer: str) -> _Way:
    if analyzer not in _WAYS:
        raise DecontamError(
            f"no analyzer named {analyzer!r}{did_you_mean(analyzer, _WAYS)} (known: {', '.join(_WAYS)})"
        )
    return _WAYS[analyzer]
