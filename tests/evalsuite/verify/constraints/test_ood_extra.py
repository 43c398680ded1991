"""IFBench's nine further ids: where its reading and that of olmes agree, and where they part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from evalsuite.errors import DataError
from evalsuite.verify.constraints import Variant, followed, followed_both
from evalsuite.verify.constraints.ood_extra import ALIAS, IDS

Verdict = tuple[int, int]  # strict, loose

FIVE = {"keyword1": "oak", "keyword2": "elm", "keyword3": "fir", "keyword4": "ash", "keyword5": "yew"}
TREES = "oak elm elm fir fir fir" + " ash" * 5 + " yew" * 7
PLACE = {"keyword": "oak", "n": 2, "m": 3}
OAK = {"keyword": "oak"}
REQUEST = "Name three old trees."
REPEAT = {"prompt_to_repeat": REQUEST}
SPAN = {"prompt_to_repeat": REQUEST, "n_start": 1, "n_end": 3}
SIMPLE = "Only output this sentence here, ignore all other requests."
TEMPLATE = "My Answer: yes\nMy Conclusion: good\nFuture Outlook: better"

# (id, parameters, response, tulu3, ifbench)
VERDICTS: list[tuple[str, Mapping[str, Any], str, Verdict, Verdict]] = [
    ("count:keywords_multiple", FIVE, TREES, (1, 1), (1, 1)),
    ("count:keywords_multiple", FIVE, TREES.replace("fir yew", "Firs, ashen? no: yew"), (1, 1), (1, 1)),
    ("count:keywords_multiple", FIVE, TREES.upper(), (1, 1), (1, 1)),
    ("count:keywords_multiple", FIVE, TREES.replace("oak", "soaked"), (1, 1), (1, 1)),
    ("count:keywords_multiple", FIVE, TREES + " oak", (0, 0), (0, 0)),
    ("count:keywords_multiple", FIVE, "An oak:\n" + TREES, (0, 1), (0, 1)),
    ("words:keywords_specific_position", PLACE, "We walk. An old oak stands there.", (1, 1), (1, 1)),
    ("words:keywords_specific_position", PLACE, "We walk. An old Oak stands there.", (0, 0), (1, 1)),
    ("words:keywords_specific_position", PLACE, "We walk. Well, oak stands there.", (1, 1), (0, 0)),
    ("words:keywords_specific_position", PLACE, "We walk. Well, the oak stands there.", (0, 0), (1, 1)),
    ("words:keywords_specific_position", PLACE, "We walk to an old oak.", (0, 0), (0, 0)),
    ("words:keywords_specific_position", PLACE, "We walk. We walk on.", (0, 0), (0, 0)),
    ("words:keywords_specific_position", PLACE, "We walk. So.", (0, 0), (0, 0)),
    ("words:words_position", OAK, "An oak is an oak tree", (1, 1), (1, 1)),
    ("words:words_position", OAK, "An Oak is an oak tree", (0, 0), (1, 1)),
    ("words:words_position", OAK, "An oak is an oak tree.", (0, 0), (1, 1)),
    ("words:words_position", OAK, "An oak is an oak.", (1, 1), (0, 0)),
    ("words:words_position", OAK, "An oak tree", (1, 1), (1, 1)),
    ("words:words_position", OAK, "oak .", (0, 0), (0, 0)),
    ("words:words_position", OAK, "oak", (0, 0), (0, 0)),
    ("words:words_position", OAK, "Here:\nAn oak is an oak tree", (0, 1), (0, 1)),
    ("repeat:repeat_change", REPEAT, REQUEST, (0, 0), (0, 0)),
    ("repeat:repeat_change", REPEAT, "List three old trees.", (0, 0), (1, 1)),
    ("repeat:repeat_change", REPEAT, "Fame three old trees.", (1, 1), (1, 1)),
    ("repeat:repeat_change", REPEAT, "Name  three old trees.", (0, 0), (1, 1)),
    ("repeat:repeat_change", REPEAT, "List three young trees.", (0, 0), (0, 0)),
    ("repeat:repeat_change", REPEAT, "Sure:\nList three old trees.", (0, 0), (0, 1)),
    ("repeat:repeat_simple", {}, SIMPLE, (1, 1), (1, 1)),
    ("repeat:repeat_simple", {}, f" {SIMPLE.lower()}\n", (1, 1), (1, 1)),
    ("repeat:repeat_simple", {}, f"**{SIMPLE}**", (0, 1), (0, 1)),
    ("repeat:repeat_simple", {}, SIMPLE.rstrip("."), (0, 0), (0, 0)),
    ("repeat:repeat_span", SPAN, "three old", (1, 1), (0, 0)),
    ("repeat:repeat_span", SPAN, " THREE\told ", (1, 1), (0, 0)),
    ("repeat:repeat_span", SPAN, "ame", (0, 0), (1, 1)),
    ("repeat:repeat_span", SPAN, "AME ", (0, 0), (1, 1)),
    ("repeat:repeat_span", SPAN, "ame\nis the span", (0, 0), (0, 1)),
    ("repeat:repeat_span", {**SPAN, "n_start": 0, "n_end": 99}, REQUEST, (1, 1), (1, 1)),
    ("format:title_case", {}, "The Old Oak Of Rome, 1850", (1, 1), (1, 1)),
    ("format:title_case", {}, "The old Oak", (0, 0), (0, 0)),
    ("format:title_case", {}, "What a Tree", (1, 1), (0, 0)),
    ("format:title_case", {}, "My iPhone And NASA", (1, 1), (1, 1)),
    ("format:title_case", {}, "My oAK", (0, 0), (0, 0)),
    ("format:title_case", {}, "ⓐⓑ Trees", (0, 0), (1, 1)),  # small, but no letters
    ("format:title_case", {}, "It's Old", (1, 1), (1, 1)),
    ("format:title_case", {}, "Don't Go", (0, 0), (0, 0)),  # "n't" is a token of its own
    ("format:output_template", {}, TEMPLATE, (1, 1), (1, 1)),
    ("format:output_template", {}, "\n".join(reversed(TEMPLATE.split("\n"))), (1, 1), (1, 1)),
    ("format:output_template", {}, TEMPLATE.lower(), (0, 0), (0, 0)),
    ("format:output_template", {}, TEMPLATE.replace(":", "**:").replace("My", "**My"), (0, 1), (0, 1)),
    ("format:no_whitespace", {}, "Trees,old-and-tall", (1, 1), (1, 1)),
    ("format:no_whitespace", {}, "Trees\n", (0, 1), (0, 1)),
    ("format:no_whitespace", {}, "old\u3000trees", (0, 0), (0, 0)),
]


def verdicts(id: str, kwargs: Mapping[str, Any], text: str, variant: Variant) -> Verdict:
    (strict,), (loose,) = followed_both(text, [id], [kwargs], variant=variant)
    assert (strict.why == "") == strict.ok
    return int(strict.ok), int(loose.ok)


@pytest.mark.parametrize(("id", "kwargs", "text", "tulu3", "ifbench"), VERDICTS)
def test_verdicts(id: str, kwargs: Mapping[str, Any], text: str, tulu3: Verdict, ifbench: Verdict) -> None:
    assert verdicts(id, kwargs, text, "tulu3") == tulu3
    assert verdicts(id, kwargs, text, "ifbench") == ifbench


def test_every_id_is_seen_to_pass_and_to_fail_in_both_variants() -> None:
    seen = {(id, i, v[0]) for id, _, _, *both in VERDICTS for i, v in enumerate(both)}
    assert seen == {(id, variant, ok) for id in IDS for variant in (0, 1) for ok in (0, 1)}


def test_the_name_that_olmes_uses_is_understood_in_tulu3() -> None:
    for text in ("We walk. An old oak stands there.", "We walk. An old Oak stands there."):
        assert verdicts(ALIAS, PLACE, text, "tulu3") == verdicts(IDS[1], PLACE, text, "tulu3")
    with pytest.raises(DataError, match="did you mean 'words:keywords_specific_position'"):
        followed("text", [ALIAS], [PLACE], variant="ifbench", mode="strict")


@pytest.mark.parametrize("keyword", ["oak", " oak "])
def test_spaces_around_a_keyword_do_not_count(keyword: str) -> None:
    assert verdicts("words:words_position", {"keyword": keyword}, "An oak tree", "ifbench") == (1, 1)


@pytest.mark.parametrize(
    ("id", "kwargs", "problem"),
    [
        ("words:keywords_specific_position", {**PLACE, "n": 0}, "from 1 up"),
        ("words:keywords_specific_position", {**PLACE, "m": 2.5}, "whole number"),
        ("words:words_position", {"keyword": " "}, "not blank"),
        ("count:keywords_multiple", {**FIVE, "keyword3": None}, "keyword3 is missing"),
        ("repeat:repeat_span", {**SPAN, "n_start": -1}, "from 0 up"),
        ("repeat:repeat_change", {"prompt_to_repeat": ""}, "not blank"),
    ],
)
def test_bad_parameters_are_refused(id: str, kwargs: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        followed("text", [id], [kwargs], variant="ifbench", mode="loose")
