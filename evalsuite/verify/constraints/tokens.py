"""Cuts a sentence into tokens as nltk's NLTKWordTokenizer does, marks included and without nltk.

`words.py` drops the marks in one pass; here positions count, so this goes the tokenizer's way step by step. Measured
against nltk 3.10: the same tokens on every text tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set

from evalsuite.verify.constraints.language_tools import sentences_of

_Steps = tuple[tuple[str, re.Pattern[str], str], ...]  # a step can only change a text with one of its characters

# The order matters: a step sees the spaces that earlier ones put around marks. Double quotes become `` and ''.
_OPENING: _Steps = (
    ('"', re.compile(r'^"'), " `` "),
    ("\"'", re.compile(r"([ (\[{<])(?:\"|'')"), r"\1 `` "),
    ("'", re.compile(r"(?<!\w)'(?=\w)(?!(?:re|ve|ll|m|t|s|d|n)\b)", re.IGNORECASE), "' "),
    (".", re.compile(r"(?<=[^.])\.([\])}>\"' »”’]*+)\s*$"), r" . \1 "),  # only the full stop at the end is cut off
    (":,", re.compile(r"([:,])(\D)"), r" \1 \2"),  # of ",,x" only the first comma: it takes the second along
    (":,", re.compile(r"[:,]$"), r" \g<0> "),
    (".", re.compile(r"\.{2,}"), r" \g<0> "),
    ("-", re.compile(r"--"), " -- "),
)
_CLITICS: _Steps = (
    ("'", re.compile(r"(?<=[^' ])('[smd]?) ", re.IGNORECASE), r" \1 "),
    ("'", re.compile(r"(?<=[^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) "), r" \1 "),
)
_FUSED = ("cannot", "d'ye", "gimme", "gonna", "gotta", "lemme", "more'n", "wanna", "'tis", "'twas")
_FUSIONS = (
    (
        re.compile(r"\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n))\b", re.IGNORECASE),
        r" \1\3\5\7\9\11\13 \2\4\6\8\10\12\14 ",
    ),
    (re.compile(r"\b(wan)(na)(?=\s)", re.IGNORECASE), r" \1 \2 "),
    (re.compile(r" ('t)(is)\b", re.IGNORECASE), r" \1 \2 "),
    (re.compile(r" ('t)(was)\b", re.IGNORECASE), r" \1 \2 "),
)
_PLAIN = re.compile(r"[\w\s]*\.?")  # most sentences of a long list; the steps would find nothing else in them
_OPENERS = frozenset("«“‘„`")
_MARKS = frozenset(';@#$%&?!*[](){}<>"\u2012\u2013\u2014\u2015»”’')


def tokens_of(text: str) -> list[str]:
    """The tokens of a text, sentence by sentence, as `nltk.word_tokenize` gives them."""
    return [token for sentence in sentences_of(text) for token in split_tokens(sentence)]


def split_tokens(sentence: str) -> list[str]:
    """The tokens in order: words, clitics, and marks by themselves."""
    text = sentence.replace(".", " .") + " " if _PLAIN.fullmatch(sentence) else _marks_apart(sentence)
    if any(map(text.casefold().__contains__, _FUSED)):
        for pattern, replacement in _FUSIONS:
            text = pattern.sub(replacement, text)
    return ["''" if token == '"' else token for token in text.split()]


def _marks_apart(sentence: str) -> str:
    present = set(sentence)
    text = _apart(sentence, present & _OPENERS).replace("`  `", "``")  # two that touched are one token
    text = _replaced(_OPENING, text, present)
    text = _apart(text, [*present & _MARKS, "''"])
    return _replaced(_CLITICS, f" {' '.join(text.split())} ", present)


def _apart(text: str, marks: Iterable[str]) -> str:
    """Each mark with spaces around it. Plain replacement: a megabyte of marks takes a regex over a second."""
    for mark in marks:
        text = text.replace(mark, f" {mark} ")
    return text


def _replaced(steps: _Steps, text: str, present: Set[str]) -> str:
    for changes, pattern, replacement in steps:
        if not present.isdisjoint(changes):
            text = pattern.sub(replacement, text)
    return text
