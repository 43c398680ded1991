"""The rules as data: how text becomes words, which windows an instance has, when a message holds it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

from decontam.errors import DecontamError, did_you_mean

Analyzer = Literal["pattern", "standard", "words", "plain"]
Positions = Literal["spacy", "words"]
Score = Literal["coverage", "any", "idf", "whole"]

IDF_UNIT = 1 << 20  # idf weights are whole numbers of 1/IDF_UNIT, so that sums do not hang on their order


@dataclass(frozen=True, slots=True)
class Rule:
    """How matches are found and when an instance counts as held by a message.

    `analyzer` turns text into words (see `decontam.text`). Windows are `n` positions wide; positions are spaCy tokens
    or words. `score` says what is compared with `threshold`:
    coverage  the mean over fields of the share of positions covered by matching windows, > threshold
    any       one matching window suffices
    idf       the sum of idf weights of the distinct matching windows over that of all, >= threshold
    whole     the whole field stands in the message, each field in the same one
    `compat` takes over what upstream's code does beside its rule: of slices of a field with equal text only the last
    is a window (open-instruct @e6c3044a, decontamination/search.py, keys windows by their text).
    """

    name: str
    analyzer: Analyzer
    positions: Positions
    n: int
    score: Score
    threshold: Fraction
    version: int = 1
    about: str = ""
    compat: bool = False

    @property
    def digest(self) -> str:
        """sha256 hex of everything but the description: equal digests decide alike."""
        told = {k: str(v) for k, v in asdict(self).items() if k not in ("about", *([] if self.compat else ["compat"]))}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


_ALL = (
    Rule(
        "tulu3",
        "pattern",
        "spacy",
        8,
        "coverage",
        Fraction(1, 2),
        about="8-grams of spaCy tokens, more than half of the tokens covered (Tülu 3, arXiv 2411.15124, section 3.2)",
    ),
    Rule(
        "tulu3-standard",
        "standard",
        "spacy",
        8,
        "coverage",
        Fraction(1, 2),
        about="tulu3 by the words of Unicode (Elasticsearch's standard analyzer), to compare; slow",
    ),
    Rule(
        "tulu3-compat",
        "pattern",
        "spacy",
        8,
        "coverage",
        Fraction(1, 2),
        about="tulu3 as upstream's code has it, where of repeated slices only the last counts; to compare",
        compat=True,
    ),
    Rule("fixed-8", "pattern", "words", 8, "coverage", Fraction(1, 2), about="the common simplification of tulu3"),
    Rule("any-8", "words", "words", 8, "any", Fraction(0), about="any shared 8-gram of words (s1, open-r1)"),
    Rule(
        "gpt3-13",
        "plain",
        "words",
        13,
        "any",
        Fraction(0),
        about="any shared 13-gram of words (GPT-3, arXiv 2005.14165)",
    ),
    Rule(
        "idf", "pattern", "words", 5, "idf", Fraction(4, 5), about="idf-weighted share of 5-grams (after allenai/decon)"
    ),
    Rule("exact", "pattern", "words", 0, "whole", Fraction(1), about="the whole text"),
)
RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in _ALL})


def find_rule(name: str, analyzer: str | None = None) -> Rule:
    """The rule of that name, or the one that differs from it in its analyzer alone; DecontamError names a near miss.

    Which analyzer upstream's index ends up with is open: open-instruct @e6c3044a, decontamination/index.py, declares
    `pattern` and attaches none, so that Elasticsearch falls back to `standard`.
    """
    if name not in RULES:
        raise DecontamError(f"no rule named {name!r}{did_you_mean(name, RULES)} (known: {', '.join(RULES)})")
    rule = RULES[name]
    if analyzer in (None, rule.analyzer):
        return rule
    for other in RULES.values():
        if other.analyzer == analyzer and _alike(rule, other):
            return other
    raise DecontamError(
        f"rule {name!r} has the analyzer {rule.analyzer!r} and no variant with {analyzer!r}; --analyzer is for tulu3"
    )


def _alike(one: Rule, other: Rule) -> bool:
    """Whether two rules differ in name and analyzer alone."""
    return replace(one, name=other.name, analyzer=other.analyzer, about=other.about) == other
