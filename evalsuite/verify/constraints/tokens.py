"""Cuts a sentence into tokens as nltk's NLTKWordTokenizer does, marks included and without nltk.

`words.py` drops the marks in one pass; here positions count, so this goes the tokenizer's way step by step. Measured
against nltk 3.10: the same tokens on every text tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Set

from evalsuite.verify.constraints.language_tools import sentences_of

_Match = re.Match[str]
_Step = tuple[str, re.Pattern[str], Callable[[_Match], str]]  # it can only change a text with one of the characters


def _alone(mark: _Match) -> str:
    return f" {mark[0]} "


def _in_two(word: _Match) -> str:
    return f" {' '.join(filter(None, word.groups()))} "


# The order matters: a step sees the spaces that earlier ones put around marks. Double quotes become `` and ''.
# Functions, because a template with groups costs several times as much.
_OPENING: tuple[_Step, ...] = (
    ('"', re.compile(r'^"'), lambda _: " `` "),
    ("\"'", re.compile(r"([ (\[{<])(?:\"|'')"), lambda m: f"{m[1]} `` "),
    ("'", re.compile(r"(?<!\w)'(?=\w)(?!(?:re|ve|ll|m|t|s|d|n)\b)", re.IGNORECASE), lambda _: "' "),
    # Only the full stop at the end of the sentence is cut off.
    (".", re.compile(r"(?<=[^.])\.([\])}>\"' »”’]*+)\s*$"), lambda m: f" . {m[1]} "),
    # Of ",,x" only the first comma, which takes the second along.
    (":,", re.compile(r"([:,])(\D)"), lambda m: f" {m[1]} {m[2]}"),
    (":,", re.compile(r"[:,]$"), _alone),
    (".", re.compile(r"\.{2,}"), _alone),
    ("-", re.compile(r"--"), _alone),
)
_CLITICS: tuple[_Step, ...] = (
    ("'", re.compile(r"(?<=[^' ])('[smd]?) ", re.IGNORECASE), _in_two),
    ("'", re.compile(r"(?<=[^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) "), _in_two),
)
_FUSED = ("cannot", "d'ye", "gimme", "gonna", "gotta", "lemme", "more'n", "wanna", "'tis", "'twas")
_FUSIONS = (
    (
        re.compile(r"\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n))\b", re.IGNORECASE),
        _in_two,
    ),
    (re.compile(r"\b(wan)(na)(?=\s)", re.IGNORECASE), _in_two),
    (re.compile(r" ('t)(is)\b", re.IGNORECASE), _in_two),
    (re.compile(r" ('t)(was)\b", re.IGNORECASE), _in_two),
)
_OPENERS = frozenset("«“‘„`")
_MARKS = frozenset(';@#$%&?!*[](){}<>"\u2012\u2013\u2014\u2015»”’')
# What no step but the one for the full stop changes: most sentences of a long list.
_PLAIN = re.compile(rf"[^{re.escape(''.join(_OPENERS | _MARKS))}':,.-]*\.?")


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


def _replaced(steps: Iterable[_Step], text: str, present: Set[str]) -> str:
    for changes, pattern, replacement in steps:
        if not present.isdisjoint(changes):
            text = pattern.sub(replacement, text)
    return text
