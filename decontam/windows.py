"""The windows of an eval text under a rule: which positions must be found together, and as which words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from decontam.rules import Rule
from decontam.text import analyze, spans_of, words_of
from decontam.types import Field, Window

SPACY_VERSION = version("spacy")  # tokens change with it, so an index is bound to it
SHORT_TOKENS = 8  # an instance below has no window under tulu3 ...
SHORT_WORDS = 4  # ... and `--short exact` takes it whole from this many words on

_LONE = re.compile("[\ud800-\udfff]")
Spans = list[tuple[int, int]]


def fields_of(rule: Rule, texts: Sequence[str], *, nlp: Any = None) -> list[Field]:
    """One Field a text: its positions and the windows of `rule.n` of them, none where there are fewer.

    tulu3: windows of spaCy tokens, white-space tokens included; the phrase of a window is what the analyzer makes of
    the slice of text from its first to its last token (open-instruct @e6c3044a, decontamination/search.py). A window
    edge may thus cut a word in two. Upstream keeps the last of equal slices; all are kept here, but for `compat`. With
    `rule.n == 0` one window is the whole text.
    """
    if rule.positions == "words":
        return [_of_words(rule.n, words_of(rule.analyzer, text), spans_of(rule.analyzer, text)) for text in texts]
    spans = _tokens(texts, nlp)
    return [_of_tokens(rule, text, places) for text, places in zip(texts, spans, strict=True)]


def short_field(text: str) -> Field | None:
    """The whole text as one window of analyzer words, where it has too few spaCy tokens for tulu3 yet SHORT_WORDS."""
    words = analyze(text)
    if len(words) < SHORT_WORDS or len(next(_tokens([text]))) >= SHORT_TOKENS:
        return None
    return _of_words(0, words, spans_of("pattern", text))


@cache
def tokenizer() -> Any:
    """spaCy's blank English pipeline, whose tokenizer is all that the rule needs."""
    import spacy

    return spacy.blank("en")


def _tokens(texts: Sequence[str], nlp: Any = None) -> Iterator[Spans]:
    """The offsets of each text's spaCy tokens."""
    # spaCy refuses lone surrogates; a replacement character is as long.
    readable = (_LONE.sub("�", text) for text in texts)
    for doc in (nlp or tokenizer()).tokenizer.pipe(readable):
        yield [(start, start + size) for start, size in doc.to_array(["IDX", "LENGTH"]).tolist()]


def _of_words(n: int, words: Sequence[str], spans: Spans) -> Field:
    size = n or len(words)
    starts = range(len(words) - size + 1) if words else range(0)
    return Field(len(words), tuple(spans), tuple(Window(i, i + size, tuple(words[i : i + size])) for i in starts))


def _of_tokens(rule: Rule, text: str, spans: Spans) -> Field:
    n = rule.n
    edges = [(first[0], last[1]) for first, last in zip(spans, spans[n - 1 :], strict=False)]
    if rule.analyzer == "pattern":
        phrases = _cut(text, edges)
    else:
        phrases = (tuple(words_of(rule.analyzer, text[a:b])) for a, b in edges)
    if rule.compat:
        # Windows keep their places, and one without words stands nowhere.
        last = {text[a:b]: i for i, (a, b) in enumerate(edges)}
        phrases = (
            (p if last[text[a:b]] == i else ()) for i, (p, (a, b)) in enumerate(zip(phrases, edges, strict=True))
        )
    windows = tuple(map(Window, range(len(edges)), range(n, len(edges) + n), phrases))
    return Field(len(spans), tuple(spans), windows)


def _cut(text: str, edges: Iterable[tuple[int, int]]) -> Iterator[tuple[str, ...]]:
    """`analyze(text[a:b])` of each of the edges, which must ascend; the words are split once and shared."""
    words = tuple(analyze(text))
    spans = [*spans_of("pattern", text), (len(text), len(text) + 1)]  # the last is a guard
    first = last = 0  # words[first:last] are those that reach into text[a:b]
    for a, b in edges:
        while spans[first][1] <= a:
            first += 1
        while spans[last][0] < b:
            last += 1
        if first < last and (spans[first][0] < a or spans[last - 1][1] > b):
            yield tuple(analyze(text[a:b]))
        else:
            yield words[first:last]
