"""IFEval-OOD's twelve checks of layout: the verdicts of the official code, and what stands behind the odd ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import DataError
from evalsuite.verify.constraints import Variant, followed, followed_both
from evalsuite.verify.constraints.ood_format import (
    CODE_CHARS,
    CODE_DEPTH,
    IDS,
    _without_most_blanks,
    camel_case,
    line_indent,
    quote_unquote,
)
from evalsuite.verify.constraints.registry import find_constraint
from evalsuite.verify.constraints.stop import Stop

Verdict = tuple[int, int]  # strict, loose

MAYBE = {"options": "yes/no/maybe"}
KNOW = {"options": "I know or I don't know"}
LETTERS = {"options": "a), b), c), d)"}
CODE = "```python\nmyVar = 1\n```"

# Verdicts of the official code (id, parameters, response, tulu3, ifbench).
OFFICIAL: list[tuple[str, Mapping[str, Any], str, Verdict, Verdict | None]] = [
    ("format:parentheses", {}, "(((((a)", (1, 1), (1, 1)),
    ("format:parentheses", {}, "((((a]((((( b)", (1, 1), (1, 1)),
    ("format:parentheses", {}, "(((((", (0, 0), (0, 0)),
    ("format:quotes", {}, '"a \'b "c" b\' a"', (1, 1), (1, 1)),
    ("format:quotes", {}, "\"a 'b' c\"", (0, 0), (0, 0)),
    ("format:options", MAYBE, "**Yes**", (1, 1), (1, 1)),
    ("format:options", LETTERS, "a", (0, 0), (0, 0)),
    ("format:options", KNOW, "i know", (1, 1), (1, 1)),
    ("format:options", KNOW, "I don’t know", (0, 0), (0, 0)),
    ("format:camel_case", {}, CODE, (0, 1), None),
    ("format:camel_case", {}, "def f(bad_name):\n    return 1", (1, 1), None),
    ("format:camel_case", {}, "MAX = 1", (0, 0), None),
    ("format:newline", {}, "one\n- \ntwo", (0, 1), (0, 1)),
    ("format:emoji", {}, "Hi. 😀 Yes. 😀", (1, 1), (1, 1)),
    ("format:emoji", {}, "Hi ©.", (1, 1), (1, 1)),
    ("format:emoji", {}, "Hi ❤\ufe0f.", (1, 1), (1, 1)),
    ("format:line_indent", {}, "a\n\n b\n\n  c", (1, 1), (1, 1)),
    ("format:line_indent", {}, "a\n\n\n b", (0, 1), (0, 1)),
    ("format:line_indent", {}, "a\n\tb", (0, 1), (0, 1)),
    ("format:quote_unquote", {}, "He said “hi”.", (0, 0), (1, 1)),
    ("format:quote_unquote", {}, "123.", (0, 0), (1, 1)),
    ("format:list", {"sep": "-"}, "well-known, up-to-date", (1, 1), (1, 1)),
    ("format:thesis", {}, "<em></em> Text.", (1, 1), (1, 1)),
    ("format:thesis", {}, "<i></i> Text.", (0, 0), (0, 0)),
    ("format:thesis", {}, "<i>T.</i>", (0, 0), (0, 0)),
    ("format:sub-bullets", {}, "plain text", (1, 1), (1, 1)),
    ("format:sub-bullets", {}, "* **a**\n - b", (0, 1), (0, 1)),
    ("format:no_bullets_bullets", {}, "One. Two.\n* a\n* b\n", (0, 1), (0, 1)),
    ("format:no_bullets_bullets", {}, "One. Two.\n\n* a\n* b", (1, 1), (1, 1)),
    ("format:no_bullets_bullets", {}, "One.\n\nTwo.\n* a\n* b", (0, 0), (0, 0)),
    ("format:no_bullets_bullets", {}, "One! Two?\n* a\n* b", (1, 1), (1, 1)),
]


def verdicts(id: str, kwargs: Mapping[str, Any], text: str, variant: Variant) -> Verdict:
    (strict,), (loose,) = followed_both(text, [id], [kwargs], variant=variant)
    assert (strict.why == "") == strict.ok
    return int(strict.ok), int(loose.ok)


@pytest.mark.parametrize(("id", "kwargs", "text", "tulu3", "ifbench"), OFFICIAL)
def test_verdicts_equal_those_of_the_official_code(
    id: str, kwargs: Mapping[str, Any], text: str, tulu3: Verdict, ifbench: Verdict | None
) -> None:
    assert verdicts(id, kwargs, text, "tulu3") == tulu3
    if ifbench is not None:
        assert verdicts(id, kwargs, text, "ifbench") == ifbench


# What the verdicts above leave open; both variants.
FURTHER: list[tuple[str, Mapping[str, Any], str, Literal[0, 1]]] = [
    ("format:parentheses", {}, "(a [b {c (d [e] d) c} b] a)", 1),
    ("format:parentheses", {}, "(a (b (c (d) c) b) a)", 0),
    ("format:parentheses", {}, "((((( ]", 0),
    ("format:quotes", {}, "'it's a \"dog's\" life'", 0),
    ("format:quotes", {}, "'a \"b 'c' b\" a'", 1),
    ("format:options", MAYBE, " maybe!", 1),
    ("format:options", MAYBE, "Yes, of course", 0),
    ("format:options", LETTERS, "c)", 1),
    ("format:options", LETTERS, "c) ", 0),
    ("format:options", {"options": "red, green, blue"}, "Green.", 1),
    ("format:newline", {}, "one\ntwo\nthree", 1),
    ("format:newline", {}, "one\n\n\ntwo", 1),
    ("format:newline", {}, "one two", 0),
    ("format:emoji", {}, "Hi there 😀. Good day 🎉!", 1),
    ("format:emoji", {}, "Hi there 😀. Good day.", 0),
    ("format:emoji", {}, "Good day. And hello 🎉", 0),
    ("format:line_indent", {}, "a\n b\n  c", 1),
    ("format:line_indent", {}, "a\n  b\n  c", 0),
    ("format:line_indent", {}, "a", 1),
    ("format:quote_unquote", {}, '"A stitch in time" means: begin now.', 1),
    ("format:quote_unquote", {}, '"One" "two" are numbers.', 0),
    ("format:quote_unquote", {}, 'He said "go".', 0),
    ("format:quote_unquote", {}, "The mark '\"' '\"' is a quote.", 1),
    ("format:list", {"sep": "!?!?"}, "!?!? milk\n!?!? bread", 1),
    ("format:list", {"sep": "!?!?"}, "!?!?!? milk", 0),
    ("format:list", {"sep": "..."}, "...... ", 1),
    ("format:thesis", {}, "Title\n<i>We should walk more.</i> It is healthy.", 1),
    ("format:thesis", {}, "<em>We should walk more.</em> It is healthy.", 1),
    ("format:thesis", {}, "<i>We should walk more. It is healthy.", 0),
    ("format:thesis", {}, "We should walk more.", 0),
    ("format:sub-bullets", {}, "* a\n  - b\n* c\n  - d", 1),
    ("format:sub-bullets", {}, "* a\n  - b\n* c", 0),
    ("format:no_bullets_bullets", {}, "One. Two.\n* a", 0),
    ("format:no_bullets_bullets", {}, "One.\n* a\n* b", 0),
    ("format:no_bullets_bullets", {}, "One.\nTwo.\n  * a\n* b", 1),
    ("format:no_bullets_bullets", {}, "One. Two.\n* a\nThree.\n* b", 0),
    ("format:no_bullets_bullets", {}, "One. Two.", 0),
]


@pytest.mark.parametrize("variant", ["tulu3", "ifbench"])
@pytest.mark.parametrize(("id", "kwargs", "text", "strict"), FURTHER)
def test_strict_verdicts(
    id: str, kwargs: Mapping[str, Any], text: str, strict: Literal[0, 1], variant: Variant
) -> None:
    assert verdicts(id, kwargs, text, variant)[0] == strict


def test_every_id_but_the_free_one_is_seen_to_pass_and_to_fail() -> None:
    seen = {(id, ok) for id, _, _, (ok, _), _ in OFFICIAL} | {(id, ok) for id, _, _, ok in FURTHER}
    assert seen == {(id, ok) for id in IDS for ok in (0, 1)}


def test_sub_bullets_let_everything_pass_in_loose_mode() -> None:
    for text in ("* a", "*", "* a\n* b", "* - a\n* b"):
        (check,) = followed(text, ["format:sub-bullets"], [{}], mode="loose")
        assert check.ok == bool(text.replace("*", "").strip())


def test_camel_case_is_gone_in_ifbench() -> None:
    with pytest.raises(DataError, match="no instruction id 'format:camel_case'"):
        followed("x = 1", ["format:camel_case"], [{}], variant="ifbench", mode="strict")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("rowCount = total + 1", None),
        ("import os\nprint(os.path_sep)", None),  # attributes and modules are no names
        ("def bad_name(): pass", None),  # nor is what a definition is called
        ("for i2 in range(3): print(i2)", None),
        ("row_count = 1", "not in camelCase: 'row_count'"),
        ("rowID = 1", "not in camelCase: 'rowID'"),
        ("isinstance(x, ValueError)", "not in camelCase: 'ValueError'"),
        ("x = (", "not Python: '(' was never closed"),
        ("x = '\\d'", None),  # a warning of the parser is no verdict
        ("x = '\ud800'", "Python's parser gave up: UnicodeEncodeError"),
        ("-" * 90_000 + "1", "Python's parser gave up: MemoryError"),
        ("a" + ".b" * 40_000, "Python's parser gave up: RecursionError"),
        ("a" + ".b" * (CODE_DEPTH - 4), None),  # above the name: Module, Expr, and 496 times Attribute
        ("a" + ".b" * CODE_DEPTH, f"code nested deeper than {CODE_DEPTH}"),
        ("x = 1\n" * 20_000, f"code longer than {CODE_CHARS} characters"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_camel_case_says(code: str, why: str | None) -> None:
    assert camel_case(code) == why


def test_code_that_breaks_the_parser_ends_the_loose_search_and_a_syntax_error_does_not() -> None:
    for first, loose in (("This is the code:", True), ("The code \ud800:", False)):
        (check,) = followed(f"{first}\nx = 1", ["format:camel_case"], [{}], mode="loose")
        assert check.ok is loose


def test_digits_alone_raise_upstream_in_tulu3() -> None:
    assert isinstance(quote_unquote("123."), Stop)
    assert type(quote_unquote('He says "no".')) is str
    assert quote_unquote('""') == "a quote directly after a quote"


def test_a_lone_mark_is_a_sentence_to_the_regex_splitter_and_needs_its_emoji() -> None:
    assert verdicts("format:emoji", {}, "What?! 😀", "tulu3") == (0, 0)
    assert verdicts("format:emoji", {}, "What?! 😀", "ifbench") == (1, 1)


def blanks_removed_as_upstream_does(lines: list[str]) -> list[str]:
    for line in lines:
        if not line.strip():
            lines.remove(line)
    return lines


@given(st.lists(st.sampled_from(["", " ", "  ", "a", " b", "c"]), max_size=14))
@settings(max_examples=1500, deadline=None)
def test_blank_lines_go_as_they_do_from_a_list_that_is_changed_while_it_is_read(lines: list[str]) -> None:
    assert _without_most_blanks(lines) == blanks_removed_as_upstream_does(list(lines))


@given(st.text(alphabet=" a\n\t", max_size=30))
@settings(max_examples=800, deadline=None)
def test_stairs_are_lines_with_growing_indents(text: str) -> None:
    lines = blanks_removed_as_upstream_does(text.split("\n"))
    indents = [len(re.match(" *", line)[0]) for line in lines]  # type: ignore[index]
    assert (line_indent(text) is None) == all(a < b for a, b in pairwise(indents))


@pytest.mark.parametrize("options", ["", " ", None, 3])
def test_options_that_are_no_text_are_refused(options: Any) -> None:
    with pytest.raises(DataError, match="options"):
        followed("yes", ["format:options"], [{"options": options}], mode="strict")


def test_only_the_emoji_and_the_bullets_ask_for_sentences_and_those_by_regex_in_tulu3() -> None:
    asking = {id for id in IDS if find_constraint(id).tools}
    assert asking == {"format:emoji", "format:no_bullets_bullets"}
    assert all("sentences@ifbench" in find_constraint(id).tools for id in asking)
