"""IFEval-OOD: what each sentence holds, compared with the one before (three checks), and how checks get sentences."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.language_tools import sentences_of
from evalsuite.verify.constraints.registry import CheckText, Parse, Variant, constraint
from evalsuite.verify.constraints.split_regex import split_by_regex

IDS = ("sentence:alliteration_increment", "sentence:increment", "sentence:keyword")

PUNKT_IN_IFBENCH = "sentences@ifbench"
"""The tool of a check that is given sentences: only the `ifbench` variant asks punkt for them."""

_SPLITTERS: dict[Variant, Callable[[str], list[str]]] = {"tulu3": split_by_regex, "ifbench": sentences_of}
_NO_MARKS = str.maketrans("", "", string.punctuation)


def sentence_constraint(
    id: str, params: Mapping[str, Parse] | None = None, *, variants: Sequence[Variant] = ("tulu3", "ifbench")
) -> Callable[[CheckText], CheckText]:
    """Registers a check of the list of sentences, cut by regex in `tulu3` and by punkt in `ifbench`."""

    def register(check: CheckText) -> CheckText:
        for variant in variants:
            constraint(id, params, tools=[PUNKT_IN_IFBENCH], variants=[variant])(_on_text(check, _SPLITTERS[variant]))
        return check

    return register


def _on_text(check: CheckText, split: Callable[[str], list[str]]) -> CheckText:
    def on_text(text: str, **params: Any) -> str | None:
        return check(split(text), **params)

    on_text.__doc__ = check.__doc__
    return on_text


@sentence_constraint("sentence:alliteration_increment")
def growing_alliteration(sentences: Sequence[str]) -> str | None:
    """Each sentence has more words in alliterating runs than the one before; the first may have none."""
    # All runs of a sentence are added up, though the prompt speaks of one.
    for i, (before, after) in enumerate(pairwise(map(_alliterating, sentences)), 2):
        if after <= before:
            return f"sentence {i} has {after} alliterating words, the one before {before}"
    return None


def _alliterating(sentence: str) -> int:
    words = (word.lstrip(string.punctuation) for word in sentence.lower().split())
    runs = [len(list(run)) for _, run in groupby(word[0] for word in words if word)]
    return sum(run for run in runs if run > 1)


@sentence_constraint("sentence:increment", {"small_n": p.count})
def growing_by(sentences: Sequence[str], small_n: int) -> str | None:
    """Each sentence has exactly n words more than the one before."""
    # Hole: a single sentence passes.
    counts = (len(sentence.translate(_NO_MARKS).split()) for sentence in sentences)
    for i, (before, after) in enumerate(pairwise(counts), 2):
        if after != before + small_n:
            return f"sentence {i} has {after} words, asked for {before + small_n}"
    return None


@sentence_constraint("sentence:keyword", {"word": p.text, "N": p.position}, variants=["tulu3"])
def keyword_inside(sentences: Sequence[str], word: str, N: int) -> str | None:
    """The Nth sentence holds the word, in any case and inside longer words too ("cat" in "cathedral")."""
    if len(sentences) < N:
        return f"sentences: {len(sentences)}, asked for a word in number {N}"
    return None if word.lower() in sentences[N - 1].lower() else f"sentence {N} lacks {word!r}"


@sentence_constraint("sentence:keyword", variants=["ifbench"])
def keyword_alone(sentences: Sequence[str], word: str, N: int) -> str | None:
    """The Nth sentence holds the word by itself, in any case."""
    if len(sentences) < N:
        return f"sentences: {len(sentences)}, asked for a word in number {N}"
    found = re.search(rf"\b{re.escape(word)}\b", sentences[N - 1], re.IGNORECASE)
    return None if found else f"sentence {N} lacks the word {word!r}"
