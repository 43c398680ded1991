"""IFEval-OOD: how many words, names, numbers, pronouns and the like (ten checks, and one that only stands in)."""

from __future__ import annotations

import re

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.ifeval_words import compared
from evalsuite.verify.constraints.language_tools import countries_in, language_of, words_of
from evalsuite.verify.constraints.ood_words import EDGES, without_marks
from evalsuite.verify.constraints.registry import constraint

IDS = (
    "count:word_count_range",
    "count:unique_word_count",
    "count:conjunctions",
    "count:person_names",
    "count:countries",
    "count:levenshtein",
    "count:numbers",
    "count:punctuation",
    "count:pronouns",
    "count:words_japanese",
)

APPROXIMATE_IDS = ("count:words_french",)
"""Ids that the metric list and the paper name, but for which no public check exists: a Result must say so."""

_NAMES = """
Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin Harper
Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria Elijah Layla
Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan
"""
NAMES = tuple(_NAMES.split())
"""The fifty names of which a prompt asks for some, in its order."""

CONJUNCTIONS = frozenset(("and", "but", "for", "nor", "or", "so", "yet"))

_PRONOUNS = """
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves
"""
_OTHER_PRONOUNS = """
this that these those who whom whose which what whoever whomever whatever whichever anybody anyone anything
everybody everyone everything nobody nothing somebody someone something each either neither both all some any none
"""
PRONOUNS = frozenset(_PRONOUNS.split())
MORE_PRONOUNS = PRONOUNS | frozenset(_OTHER_PRONOUNS.split())
"""Of the `ifbench` variant: demonstrative, interrogative and indefinite ones too."""

_WORD = re.compile(r"\w+")  # as nltk up to 3.9; 3.10 counts otherwise (see ifeval_length.py)
_NUMBER = re.compile(r"\d+")
_ALONE = {name: re.compile(rf"\b{name}\b") for name in NAMES}
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")


def _ordered(min_words: int, max_words: int) -> str | None:
    return f"min_words {min_words} is above max_words {max_words}" if min_words > max_words else None


@constraint("count:word_count_range", {"min_words": p.count, "max_words": p.count}, agree=_ordered)
def word_count(text: str, min_words: int, max_words: int) -> str | None:
    """So many runs of letters, digits and underscores, both limits allowed ("don't" is two)."""
    found = len(_WORD.findall(text))
    return None if min_words <= found <= max_words else f"words: {found}, asked for {min_words} to {max_words}"


@constraint("count:unique_word_count", {"N": p.count})
def unique_words(text: str, N: int) -> str | None:
    """At least so many different words, whatever their case and the marks around them."""
    # A token of nothing but marks ("--") leaves an empty word, which upstream counts once.
    return compared("different words", len({word.strip(EDGES) for word in text.lower().split()}), "at least", N)


@constraint("count:conjunctions", {"small_n": p.count})
def conjunctions(text: str, small_n: int) -> str | None:
    """At least so many different spellings of and, but, for, nor, or, so, yet."""
    # Hole: tokens are told apart as they stand, so "and", "And" and "and," are three.
    found = {word for word in text.split() if word.strip(EDGES).lower() in CONJUNCTIONS}
    return compared("conjunctions", len(found), "at least", small_n)


@constraint("count:person_names", {"N": p.count}, variants=["tulu3"])
def names_inside(text: str, N: int) -> str | None:
    """At least so many of the fifty names, inside longer words too ("Emmanuel" holds Emma)."""
    return compared("names of the list", sum(name in text for name in NAMES), "at least", N)


@constraint("count:person_names", variants=["ifbench"])
def names_alone(text: str, N: int) -> str | None:
    """At least so many of the fifty names, each as a word by itself."""
    # A plain search first: it is thirty times faster than one that begins with a word boundary.
    found = sum(name in text and bool(alone.search(text)) for name, alone in _ALONE.items())
    return compared("names of the list", found, "at least", N)


@constraint("count:countries", {"percentage": p.count}, tools=["countries"], variants=["tulu3"])
def countries(text: str, percentage: int) -> str | None:
    """At least so many different countries; the parameter is a count, whatever upstream calls it."""
    return compared("countries", len(countries_in(text)), "at least", percentage)


@constraint("count:levenshtein", {"reference_text": p.text, "N": p.count}, variants=["tulu3"])
def near_reference(text: str, reference_text: str, N: int) -> str | None:
    """The reference text is at most so many inserted, deleted or replaced characters away."""
    # nltk 3.10 raises above 2,000 characters, where upstream then says no; the distance itself decides here.
    from rapidfuzz.distance import Levenshtein

    near = Levenshtein.distance(text, reference_text, score_cutoff=N) <= N
    return None if near else f"more than {N} edits from the reference text"


@constraint("count:numbers", {"N": p.count})
def numbers(text: str, N: int) -> str | None:
    """Exactly so many runs of digits after all marks are deleted ("1,000", "3.5" and "3-4" are one each)."""
    found = len(_NUMBER.findall(without_marks(text)))
    return None if found == N else f"numbers: {found}, asked for exactly {N}"


@constraint("count:punctuation")
def all_marks(text: str) -> str | None:
    """An interrobang ("?!", "!?" or "‽"), and besides it each of . , ! ? ; : somewhere."""
    if not any(mark in text for mark in ("?!", "!?", "‽")):
        return "no interrobang"
    rest = text.replace("?!", "", 1) if "?!" in text else text.replace("!?", "", 1)
    missing = [mark for mark in ".,!?;:" if mark not in rest]
    return f"no {' '.join(missing)} besides the interrobang" if missing else None


@constraint("count:pronouns", {"N": p.count}, tools=["sentences@ifbench", "words@ifbench"], variants=["tulu3"])
def personal_pronouns(text: str, N: int) -> str | None:
    """At least so many personal pronouns, repeats included ("it's" without its mark is one, "its")."""
    words = without_marks(text.replace("/", " ").lower()).split()
    return compared("pronouns", sum(word in PRONOUNS for word in words), "at least", N)


@constraint("count:pronouns", variants=["ifbench"])
def all_pronouns(text: str, N: int) -> str | None:
    """At least so many pronouns of any kind, repeats included."""
    words = words_of(text.replace("/", " ").lower())
    return compared("pronouns", sum(word in MORE_PRONOUNS for word in words), "at least", N)


@constraint("count:words_japanese", {"N": p.position})
def nth_words_japanese(text: str, N: int) -> str | None:
    """Every Nth word holds a Japanese character, unless it is a number or nothing but marks."""
    # Hole: a text of fewer than N words passes.
    for word in (word.strip(EDGES) for word in text.split()[N - 1 :: N]):
        if word and not word.isdigit() and not _JAPANESE.search(word):
            return f"{word[:80]!r} is not Japanese"
    return None


@constraint("count:words_french", {"N": p.position}, tools=["language"])
def nth_words_french(text: str, N: int) -> str | None:
    """Every Nth word, taken together, is identified as French (our own reading: no public check exists)."""
    words = " ".join(text.split()[N - 1 :: N])
    found = language_of(words) if words else None
    return None if found in ("fr", None) else f"every word number {N} is {found!r}, asked for 'fr'"
