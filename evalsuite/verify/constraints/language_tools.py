"""The language tools behind some checks, each with the backend that answers here and now.

No data is shipped or downloaded. A tool whose reference data is absent answers by its fall-back, and `tools()` says so:
the scorecard carries it, because a fall-back can move IFEval's headline by tenths of a point.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evalsuite.verify.constraints.guess_language import guess_language
from evalsuite.verify.constraints.registry import all_constraints
from evalsuite.verify.constraints.sentences import split_sentences
from evalsuite.verify.constraints.words import split_words

FALLBACKS = {
    "sentences: rules": "nltk's punkt_tab data are absent; fetch them with: python -m nltk.downloader punkt_tab",
    "language: rules": "the package langdetect is absent; install it with: pip install langdetect",
}

# langdetect reads the first 10,000 characters that are left after web and mail addresses are taken out. Only a text
# with more than 40,000 characters of addresses before that point could be judged differently by the bound.
LANGUAGE_CHARS = 50_000


def tools(ids: Iterable[str] | None = None) -> dict[str, str]:
    """Tool to backend for the given instruction ids, or for all that are registered: {"sentences": "rules", …}."""
    known = all_constraints()
    needed = {tool for id in (known if ids is None else ids) for tool in known[id].tools}
    return {tool: backend(tool) for tool in sorted(needed)}


def fallbacks(ids: Iterable[str] | None = None) -> tuple[str, ...]:
    """What to fetch or install so that the given ids are judged by the reference tools; empty when they are."""
    named = [f"{tool}: {backend}" for tool, backend in tools(ids).items()]
    return tuple(FALLBACKS[name] for name in named if name in FALLBACKS)


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
    from langdetect import LangDetectException

    detector = factory.create()
    try:
        detector.append(text)
        return str(detector.detect())
    except LangDetectException:
        return None


@cache
def backend(tool: str) -> str:
    """What answers as `sentences`, `words` or `language` on this machine."""
    if tool == "sentences":
        return "punkt" if _has_punkt() else "rules"
    if tool == "language":
        return "rules" if _langdetect() is None else f"langdetect {_version('langdetect')}"
    return "nltk rules"  # words: our own code, equal to nltk's on every text tried


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
def _has_punkt() -> bool:
    """Looks where nltk looks, without the second that importing it takes."""
    if find_spec("nltk") is None:
        return False
    roots = [*os.environ.get("NLTK_DATA", "").split(os.pathsep), os.path.expanduser("~/nltk_data")]
    roots += [os.path.join(sys.prefix, *inside, "nltk_data") for inside in ((), ("share",), ("lib",))]
    roots += [f"{base}/nltk_data" for base in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    found = [Path(root) / "tokenizers" / "punkt_tab" for root in roots if root]
    return any((folder / "english").is_dir() for folder in found)


def _version(package: str) -> str:
    from importlib.metadata import version  # not at the top: it imports the e-mail parser

    return version(package)
