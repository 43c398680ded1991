"""The rules as data: found by name, and told apart by their digests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from decontam.errors import DecontamError
from decontam.rules import RULES, find_rule


@pytest.mark.parametrize(
    ("name", "analyzer", "found"),
    [
        ("tulu3", None, "tulu3"),
        ("tulu3", "pattern", "tulu3"),
        ("tulu3", "standard", "tulu3-standard"),
        ("tulu3-standard", None, "tulu3-standard"),
        ("any-8", None, "any-8"),
    ],
)
def test_the_analyzer_chooses_a_variant(name: str, analyzer: str | None, found: str) -> None:
    assert find_rule(name, analyzer) is RULES[found]


@pytest.mark.parametrize("name", ["any-8", "gpt3-13", "fixed-8", "idf", "exact"])
def test_other_rules_have_no_variant(name: str) -> None:
    with pytest.raises(DecontamError, match=f"rule '{name}' has the analyzer .* --analyzer is for tulu3"):
        find_rule(name, "standard")


def test_a_variant_is_another_rule_by_its_digest_and_the_same_in_all_but_the_analyzer() -> None:
    tulu3, standard = RULES["tulu3"], RULES["tulu3-standard"]
    assert len({rule.digest for rule in RULES.values()}) == len(RULES)
    assert replace(standard, name=tulu3.name, analyzer=tulu3.analyzer, about=tulu3.about) == tulu3


def test_an_unknown_rule_is_named_with_its_near_miss() -> None:
    with pytest.raises(DecontamError, match="no rule named 'tulu-3'; did you mean 'tulu3'"):
        find_rule("tulu-3")
