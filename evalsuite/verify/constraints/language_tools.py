"""The language tools behind some checks, each with the backend that answers here and now.

No data is shipped or downloaded. A tool whose reference data is absent answers by its fall-back, and `tools()` says so:
the scorecard carries it, because a fall-back can move IFEval's headline by tenths of a point.
"""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from evalsuite.errors import DataError
from evalsuite.verify.constraints import emoji_ranges
from evalsuite.verify.constraints.countries import find_countries
from evalsuite.verify.constraints.guess_language import guess_language
from evalsuite.verify.constraints.registry import Constraint, Variant, all_constraints
from evalsuite.verify.constraints.sentences import split_sentences
from evalsuite.verify.constraints.syllables import count_syllables
from evalsuite.verify.constraints.verbs import opens_with_verb
from evalsuite.verify.constraints.words import split_words

FALLBACKS = {
    "sentences: rules": "nltk's punkt_tab data are absent; fetch them with: python -m nltk.downloader punkt_tab",
    "language: rules": "the package langdetect is absent; install it with: pip install langdetect",
    "pos: verb list": "nltk's tagger or punkt data are absent; fetch them with: "
    "python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng",
    "syllables: vowel groups": "the package syllapy is absent; install it with: pip install syllapy",
    "countries: table": "spaCy's English model is absent; install it with: "
    "pip install spacy && python -m spacy download en_core_web_sm",
    "emoji: ranges": "the package emoji is absent; install it with: pip install emoji",
}

# langdetect reads the first 10,000 characters that are left after web and mail addresses are taken out. Only a text
# with more than 40,000 characters of addresses before that point could be judged differently by the bound.
LANGUAGE_CHARS = 50_000

# The tagger goes from left to right and looks two words ahead, so the first tag depends on the first three words.
TAGGED_CHARS = 5_000

# Above this spaCy refuses a text, unless it is told that there is memory enough.
SPACY_CHARS = 1_000_000


def tools(ids: Iterable[str] | None = None, variant: Variant = "tulu3") -> dict[str, str]:
    """Tool to backend for the given instruction ids, or for all that are registered: {"sentences": "rules", …}."""
    known = all_constraints()
    found = {tool for id in (known if ids is None else ids) for tool in needed(known[id], variant)}
    return {tool: backend(tool) for tool in sorted(found)}


def needed(constraint: Constraint, variant: Variant) -> tuple[str, ...]:
    """The tools of a constraint in that variant; one registered as `sentences@ifbench` is needed in `ifbench` only."""
    split = (tool.partition("@") for tool in constraint.tools)
    return tuple(tool for tool, _, only in split if only in ("", variant))


def fallbacks(ids: Iterable[str] | None = None, variant: Variant = "tulu3") -> tuple[str, ...]:
    """What to fetch or install so that the given ids are judged by the reference tools; empty when they are."""
    named = [f"{tool}: {backend}" for tool, backend in tools(ids, variant).items()]
    return tuple(FALLBACKS[name] for name in named if name in FALLBACKS)


def require_exact(ids: Iterable[str] | None = None, variant: Variant = "tulu3") -> None:
    """Raises DataError that names every package and data file without which the ids are judged by a fall-back."""
    absent = fallbacks(ids, variant)
    if absent:
        raise DataError(f"exact language tools were asked for: {'; '.join(absent)}")


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, by punkt where its data are found, else by rules made after it."""
    if not _has_punkt():
        return split_sentences(text)
    import nltk  # type: ignore[import-untyped]

    return list(nltk.sent_tokenize(text))


def words_of(text: str) -> list[str]:
    """The words of a text as nltk's tokenizer cuts them, without marks that stand alone."""
    return [word for sentence in sentences_of(text) for word in split_words(sentence)]


@lru_cache(maxsize=64)
def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language a text is in; None when it holds nothing to tell it by."""
    text = text[:LANGUAGE_CHARS]
    factory = _langdetect()
    if factory is None:
        return guess_language(text)
    from evalsuite.verify.constraints.identify import identify  # here, because it imports numpy

    return identify(factory, text)


def starts_with_verb(text: str) -> bool:
    """Is the first word a verb in any form, by nltk's tagger where its data are found, else by a list of verbs?"""
    if not _has_tagger():
        return opens_with_verb(text)
    import nltk

    words = nltk.word_tokenize(text[:TAGGED_CHARS])[:3]
    return bool(words) and "VB" in nltk.pos_tag(words)[0][1]


@lru_cache(maxsize=4096)
def syllables_in(word: str) -> int:
    """The syllables of an English word in lower case; 0 when it holds a digit."""
    return _syllables()(word)


def countries_in(text: str) -> set[str]:
    """The different places that spaCy takes for countries or cities; without it the countries of our table."""
    model = _spacy()
    if model is None:
        return find_countries(text)
    # Upstream keeps what follows the last comma, to read "Lima, Peru" as Peru.
    places = (entity.text for entity in model(text[:SPACY_CHARS]).ents if entity.label_ == "GPE")
    return {place.split(",")[-1].strip(string.punctuation + " ") for place in places}


def is_emoji(char: str) -> bool:
    """Is this one character an emoji?"""
    return _emoji()(char)


@cache
def backend(tool: str) -> str:
    """What answers as that tool on this machine."""
    match tool:
        case "sentences":
            return "punkt" if _has_punkt() else "rules"
        case "words":
            return "nltk rules"  # our own code, equal to nltk's on every text tried
        case "language":
            return "rules" if _langdetect() is None else f"langdetect {_version('langdetect')}"
        case "pos":
            return f"nltk {_version('nltk')} tagger" if _has_tagger() else "verb list"
        case "syllables":
            return f"syllapy {_version('syllapy')}" if find_spec("syllapy") else "vowel groups"
        case "countries":
            return f"en_core_web_sm {_version('en_core_web_sm')}" if _has_spacy() else "table"
        case "emoji":
            return f"emoji {_version('emoji')}" if find_spec("emoji") else "ranges"
    raise ValueError(f"no language tool {tool!r}")


@cache
def _langdetect() -> Any:
    """A detector factory of our own with a fixed seed; None when the package is absent.

    The package's shared one is random unless everybody in the process sets its seed, and takes its language profiles in
    the order in which the file system lists them.
    """
    if find_spec("langdetect") is None:
        return None
    from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

    factory = DetectorFactory()
    profiles = sorted(p for p in Path(PROFILES_DIRECTORY).iterdir() if not p.name.startswith((".", "_")))
    factory.load_json_profile([p.read_text(encoding="utf-8") for p in profiles])
    factory.set_seed(0)
    return factory


@cache
def _syllables() -> Callable[[str], int]:
    if find_spec("syllapy") is None:
        return count_syllables
    from syllapy import count  # type: ignore[import-not-found, unused-ignore]

    return cast("Callable[[str], int]", count)


@cache
def _emoji() -> Callable[[str], bool]:
    if find_spec("emoji") is None:
        return emoji_ranges.is_emoji
    from emoji import is_emoji  # type: ignore[import-not-found, unused-ignore]

    return cast("Callable[[str], bool]", is_emoji)


@cache
def _spacy() -> Any:
    """The English model, None where it or spaCy is absent."""
    if not _has_spacy():
        return None
    import spacy  # type: ignore[import-not-found, unused-ignore]

    return spacy.load("en_core_web_sm")


@cache
def _has_spacy() -> bool:
    return find_spec("spacy") is not None and find_spec("en_core_web_sm") is not None


@cache
def _has_punkt() -> bool:
    return _has_nltk_data("tokenizers/punkt_tab/english")


@cache
def _has_tagger() -> bool:
    return _has_punkt() and _has_nltk_data("taggers/averaged_perceptron_tagger_eng")


def _has_nltk_data(folder: str) -> bool:
    """Looks where nltk looks, without the second that importing it takes."""
    if find_spec("nltk") is None:
        return False
    roots = [*os.environ.get("NLTK_DATA", "").split(os.pathsep), os.path.expanduser("~/nltk_data")]
    roots += [os.path.join(sys.prefix, *inside, "nltk_data") for inside in ((), ("share",), ("lib",))]
    roots += [f"{base}/nltk_data" for base in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    return any((Path(root) / folder).is_dir() for root in roots if root)


def _version(package: str) -> str:
    from importlib.metadata import version  # not at the top: it imports the e-mail parser

    return version(package)
