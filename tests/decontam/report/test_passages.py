"""Texts as they are shown: nothing of a run is lost, nothing outside its surroundings is kept."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from decontam.report.match import Match, Run
from decontam.report.passages import CONTEXT, LONGEST_RUN, Piece, instances_of, pieces, sides, visible, visible_lines
from tests.decontam.report.world import eval_set


def a_match(*runs: Run, instance: str = "one-0") -> Match:
    return Match("train", "f", 0, None, 0, "prompt", "one", "development", instance, 0.8, ("exact",), runs)


def test_a_run_is_split_off_and_numbered() -> None:
    assert list(pieces("say hello now", [(4, 9)])) == [Piece("say "), Piece("hello", (1,)), Piece(" now")]


def test_overlapping_runs_share_what_they_overlap() -> None:
    assert list(pieces("abcdef", [(0, 4), (2, 6)])) == [Piece("ab", (1,)), Piece("cd", (1, 2)), Piece("ef", (2,))]


def test_a_long_text_is_cut_to_what_surrounds_its_runs() -> None:
    text = "x" * 1_000_000 + "hello" + "y" * 1000 + "world" + "z" * 1000
    found = list(pieces(text, [(1_000_000, 1_000_005), (1_001_005, 1_001_010)]))
    assert found == [
        Piece("", (), 1_000_000 - CONTEXT),
        Piece("x" * CONTEXT),
        Piece("hello", (1,)),
        Piece("y" * CONTEXT, (), 1000 - 2 * CONTEXT),
        Piece("y" * CONTEXT),
        Piece("world", (2,)),
        Piece("z" * CONTEXT, (), 1000 - CONTEXT),
        Piece(""),
    ]


def test_a_run_of_a_megabyte_shows_its_ends() -> None:
    found = list(pieces("a" * 1_000_000, [(0, 1_000_000)]))
    assert [len(piece.text) for piece in found] == [LONGEST_RUN // 2] * 2
    assert found[0].cut == 1_000_000 - LONGEST_RUN


spans = st.lists(st.tuples(st.integers(-5, 60), st.integers(-5, 60)), max_size=5)


@given(st.text(max_size=50), spans)
def test_short_texts_are_shown_whole_with_exactly_their_spans_marked(text: str, found: list[tuple[int, int]]) -> None:
    shown = list(pieces(text, found))
    assert "".join(piece.text for piece in shown) == text
    marked = [runs for piece in shown for runs in [piece.runs] * len(piece.text)]
    for at in range(len(text)):
        assert marked[at] == tuple(i for i, (a, b) in enumerate(found, 1) if max(a, 0) <= at < b)


@given(st.text(max_size=50))
def test_what_is_visible_holds_no_control_character(text: str) -> None:
    assert all(unicodedata.category(c)[0] != "C" and c not in "\u2028\u2029" for c in visible(text))
    assert all(unicodedata.category(c)[0] != "C" for line in visible_lines(text).split("\n") for c in line)


def test_lines_and_tabs_keep_their_shape() -> None:
    assert visible_lines("a\tb\r\nc\rd") == "a    b\nc\\x0dd"
    assert visible("\x1b]0;x\x07\u202e\ud800") == "\\x1b]0;x\\x07\\u202e\\ud800"


def test_a_run_has_one_number_on_both_sides_and_in_its_own_field() -> None:
    instances = instances_of([eval_set("one", [("the passage", "the question")])])
    runs = (Run((4, 8), "question", (0, 3), 1), Run((0, 3), "passage", (4, 11), 2))
    training, fields = sides(a_match(*runs), "abc defgh", instances)
    assert training[0].pieces == (Piece("abc", (2,)), Piece(" "), Piece("defg", (1,)), Piece("h"))
    assert [(f.title, f.pieces[0], f.pieces[-1]) for f in fields] == [
        ("passage", Piece("the "), Piece("passage", (2,))),
        ("question", Piece("the", (1,)), Piece(" question")),
    ]


def test_a_near_duplicate_counts_characters_of_all_fields_joined() -> None:
    instances = instances_of([eval_set("one", [("ab", "cd")])])
    _, fields = sides(a_match(Run((0, 1), "", (1, 4), 0)), "x", instances)
    assert fields[0].pieces == (Piece("a"), Piece("b\nc", (1,)), Piece("d"))


def test_texts_that_are_gone_are_said_to_be() -> None:
    training, fields = sides(a_match(instance="unknown"), None, {})
    assert "cannot be read" in training[0].pieces[0].text
    assert "not in evals.jsonl" in fields[0].pieces[0].text
