"""IFEval-OOD: shares and balances, of stop words, kinds of sentences and shared trigrams (five checks)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.ood_sentence import sentence_constraint
from evalsuite.verify.constraints.registry import constraint
from evalsuite.verify.constraints.stop import Stop

IDS = ("ratio:stop_words", "ratio:sentence_type", "ratio:sentence_balance", "ratio:overlap", "ratio:sentence_words")

# The 153 forms in nltk's English list that a run of letters can equal; its other entries have an apostrophe.
_STOP_WORDS = """
a about above after again against ain all am an and any are aren as at be because been before being below between both
but by can couldn d did didn do does doesn doing don down during each few for from further had hadn has hasn have haven
having he her here hers herself him himself his how i if in into is isn it its itself just ll m ma me mightn more most
mustn my myself needn no nor not now o of off on once only or other our ours ourselves out over own re s same shan she
should shouldn so some such t than that the their theirs them themselves then there these they this those through to
too under until up ve very was wasn we were weren what when where which while who whom why will with won wouldn y you
your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

_WORD = re.compile(r"\w+")  # as nltk up to 3.9; 3.10 counts otherwise (see ifeval_length.py)


@constraint("ratio:stop_words", {"percentage": p.percentage})
def few_stop_words(text: str, percentage: int) -> str | None:
    """At most so many percent of the words are stop words ("don't" is two of them, `don` and `t`)."""
    words = _WORD.findall(text)
    if not words:
        return Stop("no word")  # upstream divides by zero
    found = sum(word.lower() in STOP_WORDS for word in words) / len(words) * 100
    return None if found <= percentage else f"stop words: {found:.1f} %, asked for at most {percentage} %"


@sentence_constraint("ratio:sentence_type")
def two_statements_per_question(sentences: Sequence[str]) -> str | None:
    """Twice as many sentences end in a full stop as in a question mark."""
    # Hole: none of either passes.
    ends = _ends(sentences)
    return None if ends["."] == 2 * ends["?"] else f"sentences with . and ?: {ends['.']} and {ends['?']}, asked for 2:1"


@sentence_constraint("ratio:sentence_balance")
def balanced_sentences(sentences: Sequence[str]) -> str | None:
    """As many sentences end in a full stop as in a question mark and in an exclamation mark."""
    # Hole: none of the three passes.
    ends = _ends(sentences)
    if ends["."] == ends["?"] == ends["!"]:
        return None
    return f"sentences with . ? !: {ends['.']}, {ends['?']} and {ends['!']}, asked for as many of each"


def _ends(sentences: Sequence[str]) -> Counter[str]:
    return Counter(sentence[-1:] for sentence in sentences)


@constraint("ratio:overlap", {"reference_text": p.text, "percentage": p.percentage})
def trigram_overlap(text: str, reference_text: str, percentage: int) -> str | None:
    """So many percent, give or take 2, of the different runs of three characters are in the reference text too."""
    found = _trigrams(text)
    if not found:
        return Stop("fewer than three characters")  # upstream divides by zero
    share = len(found & _trigrams(reference_text)) / len(found) * 100
    if percentage - 2 <= share <= percentage + 2:
        return None
    return f"trigrams shared: {share:.1f} %, asked for {percentage} % (give or take 2)"


def _trigrams(text: str) -> set[str]:
    return {text[i : i + 3] for i in range(len(text) - 2)}


@sentence_constraint("ratio:sentence_words")
def three_equal_sentences(sentences: Sequence[str]) -> str | None:
    """Three sentences of the same number of characters."""
    # Hole: that all their words differ is asked for, but not checked.
    lengths = [len(sentence.strip()) for sentence in sentences]
    if len(lengths) != 3:
        return f"sentences: {len(lengths)}, asked for 3"
    return (
        None if len(set(lengths)) == 1 else f"characters: {lengths[0]}, {lengths[1]} and {lengths[2]}, asked for equal"
    )
