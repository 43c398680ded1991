"""IFEval-OOD's counts: verdicts that the official code gives, both variants; what holds on any text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.constraints import all_constraints, followed, row_problems
from evalsuite.verify.constraints.ood_count import APPROXIMATE_IDS, IDS, NAMES
from tests.evalsuite.verify.constraints.verdicts import ANY_TEXT, assert_sound, verdicts

KITTEN = {"reference_text": "kitten"}

VERDICTS: list[tuple[str, dict[str, Any], str, str]] = [
    ("word_count_range", {"min_words": 2, "max_words": 3}, "don't", "1/1"),
    ("word_count_range", {"min_words": 2, "max_words": 3}, "one two three", "1/1"),
    ("word_count_range", {"min_words": 2, "max_words": 3}, "one two three four", "0/0"),
    ("word_count_range", {"min_words": 2, "max_words": 3}, "one two three four\nfive six", "0/1"),
    ("word_count_range", {"min_words": 2, "max_words": 3}, "½ cup, 2² cups", "0/0"),  # four; three from nltk 3.10 on
    ("word_count_range", {"min_words": 2, "max_words": 3}, "हिन्दी", "1/1"),  # cut at its vowel signs; one from 3.10 on
    ("unique_word_count", {"N": 3}, "a b --", "1/1"),
    ("unique_word_count", {"N": 2}, "Don't don't dont.", "1/1"),
    ("unique_word_count", {"N": 3}, "Don't don't dont.", "0/0"),
    ("conjunctions", {"small_n": 3}, "and And and,", "1/1"),
    ("conjunctions", {"small_n": 2}, "and and sand", "0/0"),
    ("person_names", {"N": 2}, "Emmanuel met Avalon", "1/1 | 0/0"),
    ("person_names", {"N": 1}, "emma and liam", "0/0"),
    ("person_names", {"N": 2}, "Emma, Liam", "1/1"),
    ("countries", {"percentage": 3}, "Peru, Chile and Papua New Guinea", "1/1"),
    ("countries", {"percentage": 4}, "Peru, Chile and Papua New Guinea; Peru", "0/0"),
    ("levenshtein", {**KITTEN, "N": 3}, "sitting", "1/1"),
    ("levenshtein", {**KITTEN, "N": 2}, "sitting", "0/0"),
    ("levenshtein", {**KITTEN, "N": 0}, "**kitten**", "0/1"),
    ("numbers", {"N": 2}, "1,000 and 3.5", "1/1"),
    ("numbers", {"N": 1}, "3-4", "1/1"),
    ("numbers", {"N": 2}, "three 3rd x2y", "1/1"),
    ("numbers", {"N": 0}, "none", "1/1"),
    ("numbers", {"N": 1}, "1 2", "0/0"),
    ("punctuation", {}, "a. b, c! d? e; f: ?!", "1/1"),
    ("punctuation", {}, "a. b, e; f: ?! ?!", "1/1"),
    ("punctuation", {}, "a. b, e; f: ?!", "0/0"),
    ("punctuation", {}, "a. b, c! d? e; f: ‽", "1/1"),
    ("punctuation", {}, "a. b, c! d? e; f:", "0/0"),
    ("punctuation", {}, "a. b, d? e; f: !? !", "1/1"),
    ("pronouns", {"N": 3}, "This and that, who?", "0/0 | 1/1"),
    ("pronouns", {"N": 3}, "She/her I'm it's", "1/1"),
    ("pronouns", {"N": 4}, "She/her I'm it's", "0/0 | 1/1"),  # "I'm" is `im` without its mark, but `i` and `'m` to nltk
    ("words_japanese", {"N": 3}, "one two", "1/1"),
    ("words_japanese", {"N": 3}, "one two 三 four five 6", "1/1"),
    ("words_japanese", {"N": 3}, "one two three", "0/0"),
    ("words_japanese", {"N": 1}, "a,b、日本 c", "0/0"),
    ("words_japanese", {"N": 1}, "日本 -- 12", "1/1"),
    ("words_french", {"N": 2}, "one", "1/1"),
]


@pytest.mark.parametrize(("id", "kwargs", "text", "expected"), VERDICTS)
def test_verdicts_are_those_of_the_official_code(id: str, kwargs: dict[str, Any], text: str, expected: str) -> None:
    assert verdicts(f"count:{id}", kwargs, text) == expected


ASKS = {f"count:{id}": kwargs for id, kwargs, _, _ in VERDICTS}


@pytest.mark.parametrize("id", IDS)
@given(text=ANY_TEXT)
@settings(max_examples=40, deadline=None)
def test_any_text_is_judged_and_strict_implies_loose(id: str, text: str) -> None:
    assert_sound(id, ASKS[id], text)


def test_the_ids_are_ten_and_the_eleventh_is_marked_as_approximate() -> None:
    assert len(IDS) == 10
    assert set(IDS) | set(APPROXIMATE_IDS) == set(ASKS)
    assert {id for id in IDS if "ifbench" not in all_constraints()[id].checks} == {
        "count:countries",
        "count:levenshtein",
    }


def test_the_prompt_names_fifty_names() -> None:
    assert len(set(NAMES)) == 50
    assert (NAMES[0], NAMES[-1]) == ("Emma", "Jonathan")


def test_every_nth_word_in_french_is_told_by_the_language_tool() -> None:
    french = "Le petit chien regarde toujours les enfants qui jouent dans le jardin"
    mixed = " ".join(f"word {word}" for word in french.split())
    assert verdicts("count:words_french", {"N": 2}, mixed) == "1/1"
    assert verdicts("count:words_french", {"N": 2}, "the very small dog looks at all the other little animals") == "0/0"


SPOKEN = "it's I'm you'll they've who'd that's y'all one's her. “she” (him) me, us; we"


@given(st.lists(st.sampled_from(SPOKEN.split())))
@settings(max_examples=200, deadline=None)
def test_pronouns_are_the_tokens_of_nltks_tokenizer(words: list[str]) -> None:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    from evalsuite.verify.constraints.language_tools import sentences_of
    from evalsuite.verify.constraints.ood_count import MORE_PRONOUNS

    text = " ".join(words) or "x"
    tokenizer = NLTKWordTokenizer()
    n = sum(t in MORE_PRONOUNS for s in sentences_of(text.lower()) for t in tokenizer.tokenize(s))
    asked = [{"N": n}], [{"N": n + 1}]
    enough, more = (followed(text, ["count:pronouns"], a, variant="ifbench", mode="strict")[0].ok for a in asked)
    assert (enough, more) == (True, False)


@pytest.mark.parametrize(
    ("id", "kwargs", "problem"),
    [
        ("count:word_count_range", {"min_words": 9, "max_words": 3}, "min_words 9 is above max_words 3"),
        ("count:words_japanese", {"N": 0}, "from 1 up"),
        ("count:numbers", {"N": 1.5}, "whole number"),
        ("count:numbers", {}, "N is missing"),
        ("count:levenshtein", {"reference_text": " ", "N": 1}, "not blank"),
    ],
)
def test_a_bad_parameter_is_refused(id: str, kwargs: dict[str, Any], problem: str) -> None:
    assert problem in "; ".join(row_problems([id], [kwargs]))


def test_an_id_that_ifbench_retired_is_unknown_to_its_variant() -> None:
    (problem,) = row_problems(["count:levenshtein"], [{"reference_text": "a", "N": 1}], "ifbench")
    assert problem.startswith("no instruction id 'count:levenshtein'")
