"""What becomes of one row: turns, masks, and the rows that must go whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from decontam.clean.change import Change, changed, tree
from decontam.clean.decide import Hit, decide, way_of
from decontam.clean.spans import cut, hidden, merge, widened
from decontam.errors import DecontamError
from decontam.select import parse_selectors

USERS = ("messages[role=user].content",)


def hit(turn: int = 0, *spans: tuple[int, int], id: str | None = None, score: float = 0.9) -> Hit:
    return Hit(turn, "quiz", f"q{turn}", score, spans, id)


def roles(pattern: str) -> dict[str, Any]:
    """`sua` is a system, a user and an assistant turn."""
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return {"messages": [{"role": names[c], "content": f"{c}{i}"} for i, c in enumerate(pattern)]}


def outcome(
    row: dict[str, Any], hits: Sequence[Hit], how: Any, select: Sequence[str] = USERS, **options: Any
) -> Change:
    return decide(row, hits, parse_selectors(select), way_of(how, **options), lambda text, hits: ())


@pytest.mark.parametrize(
    ("pattern", "turns", "left"),
    [
        ("uaua", [0], ["u2", "a3"]),
        ("uaua", [2], ["u0", "a1"]),
        ("suaua", [1], ["s0", "u3", "a4"]),
        ("uataua", [0], ["u4", "a5"]),  # a tool call, its result and the answer are one reply
        ("uuaua", [0], ["u3", "a4"]),  # one reply to two user turns
        ("uasua", [0], ["s2", "u3", "a4"]),
        ("uau", [2], ["u0", "a1"]),
        ("auaua", [1], ["a0", "u3", "a4"]),
        ("uauaua", [0, 4], ["u2", "a3"]),
        ("ua", [0], None),
        ("sua", [1], None),
        ("uaua", [0, 2], None),
    ],
)
def test_the_user_turn_goes_with_the_reply_to_it(pattern: str, turns: list[int], left: list[str] | None) -> None:
    row = roles(pattern)
    change = outcome(row, [hit(turn) for turn in turns], "drop-turn")
    if left is None:
        assert change.drop == "no user turn left"
    else:
        assert [m["content"] for m in changed(row, tree(change))["messages"]] == left


def test_a_hit_in_a_reply_takes_the_user_turn_before_it() -> None:
    row = roles("uaua")
    change = outcome(row, [hit(3)], "drop-turn", ["messages[*].content"])
    assert [m["content"] for m in changed(row, tree(change))["messages"]] == ["u0", "a1"]


@pytest.mark.parametrize(
    ("row", "select", "turn", "why"),
    [
        ({"text": "x"}, "text", 0, "not in a conversation"),
        ({"texts": ["x"]}, "texts[*]", 0, "not in a conversation"),
        (roles("suaua"), "messages[*].content", 0, "before the first user turn"),
        (
            {"chosen": roles("uaua")["messages"], "rejected": roles("uaua")["messages"]},
            "chosen[role=user].content",
            0,
            "one of several conversations",
        ),
    ],
)
def test_where_no_turn_can_be_taken_out_the_row_goes(row: dict[str, Any], select: str, turn: int, why: str) -> None:
    assert outcome(row, [hit(turn)], "drop-turn", [select]).drop == why


def test_a_row_goes_where_a_turn_that_was_never_scanned_would_become_the_one_that_is() -> None:
    first, all_of_them = ["messages[role=user][0].content"], USERS
    assert outcome(roles("uaua"), [hit(0)], "drop-turn", first).drop == "another turn would be matched"
    assert not outcome(roles("uaua"), [hit(0)], "drop-turn", all_of_them).drop


def test_turns_of_a_sharegpt_conversation() -> None:
    row = {"conversations": [{"from": who, "value": str(i)} for i, who in enumerate(["human", "gpt"] * 2)]}
    change = outcome(row, [hit(0)], "drop-turn", ["conversations[from=human].value"])
    assert [m["value"] for m in changed(row, tree(change))["conversations"]] == ["2", "3"]


@pytest.mark.parametrize(
    ("window", "min_slice", "expected"),
    [
        (0, 0, "Please answer this: […] And explain."),
        (3, 0, "Please answer thi[…]d explain."),  # "s: " and " An" go too
        (0, 13, "Please answer this: […] And explain."),  # " And explain." has 13 characters
        (0, 14, "Please answer this: […]"),
    ],
)
def test_masks_widen_by_the_window_and_swallow_short_slices(window: int, min_slice: int, expected: str) -> None:
    row = {"text": "Please answer this: SECRET And explain."}
    change = outcome(row, [hit(0, (20, 26))], "mask-span", ["text"], window=window, min_slice=min_slice)
    assert changed(row, tree(change)) == {"text": expected}


def test_a_mask_goes_into_each_field_that_a_message_was_joined_from() -> None:
    row = {"instruction": "Keep this part, SECRET", "input": "SECRET and this one too"}
    # joined: 22 + newline + 23 characters; the run goes from 16 over the newline to 29
    change = outcome(row, [hit(0, (16, 29))], "mask-span", ["instruction+input"], min_slice=0)
    assert changed(row, tree(change)) == {"instruction": "Keep this part, […]", "input": "[…] and this one too"}


def test_a_mask_finds_its_text_part_among_nested_content() -> None:
    image = {"type": "image", "url": "x.png"}
    parts = [{"type": "text", "text": "Look at this:"}, image, {"type": "text", "text": "the SECRET text"}]
    row = {"messages": [{"role": "user", "content": parts}]}
    # joined: "Look at this:" is 13 characters, so the second text starts at 14 and SECRET at 18
    change = outcome(row, [hit(0, (18, 24))], "mask-span", min_slice=0)
    assert change.texts == {("messages", 0, "content", 2, "text"): "the […] text"}


def test_a_message_of_which_nothing_is_left_goes_with_its_reply() -> None:
    row = {
        "messages": [
            {"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(["ABC?", "x", "d", "y"])
        ]
    }
    change = outcome(row, [hit(0, (0, 3))], "mask-span")
    assert [m["content"] for m in changed(row, tree(change))["messages"]] == ["d", "y"]
    assert outcome({"text": "ABC?"}, [hit(0, (0, 3))], "mask-span", ["text"]).drop == "not in a conversation"


def test_the_recipe_of_gpt3_cuts_wide_and_drops_the_row_at_the_eleventh_place() -> None:
    # every 1,000 characters one place of 10 characters: 200 on both sides go, slices of 590 stay
    def row(n: int) -> dict[str, Any]:
        return {"text": "x" * 1000 * n}

    def places(n: int) -> Hit:
        return hit(0, *((i * 1000 + 500, i * 1000 + 510) for i in range(n)))

    change = outcome(row(10), [places(10)], "gpt3", ["text"])
    assert change.texts[("text",)] == "x" * 300 + "[…]" + ("x" * 590 + "[…]") * 9 + "x" * 290
    assert outcome(row(11), [places(11)], "gpt3", ["text"]).drop == "more than 10 places to cut"
    twice = [places(6), places(6)]  # the same places, found by two instances
    assert not outcome(row(6), twice, "gpt3", ["text"]).drop
    short = outcome({"text": "x" * 1000}, [hit(0, (400, 410))], "gpt3", ["text"])
    assert short.texts[("text",)] == "[…]" + "x" * 390  # the 200 characters before the window are too short a slice


def test_what_a_masked_text_still_holds_is_masked_until_nothing_is_left() -> None:
    text = "one SECRET two SECRET three SECRET four words that may stay"
    asked: list[str] = []

    def still_held(message: str, hits: Sequence[Hit]) -> list[tuple[int, int]]:
        asked.append(message)
        at = message.find("SECRET")
        return [(at, at + 6)] if at >= 0 else []

    change = decide(
        {"text": text}, [hit(0, (4, 10))], parse_selectors(["text"]), way_of("mask-span", min_slice=0), still_held
    )
    assert change.texts[("text",)] == "one […] two […] three […] four words that may stay"
    assert [len(message) for message in asked] == [len(text)] * 3  # offsets stay those of the message


def test_a_text_that_masks_do_not_free_goes_whole() -> None:
    change = decide(
        {"text": "some words that stay flagged whatever is masked"},
        [hit(0, (0, 4))],
        parse_selectors(["text"]),
        way_of("mask-span", min_slice=0),
        lambda text, hits: [(0, 1)],
    )
    assert change.drop


@pytest.mark.parametrize(
    ("row", "found", "why"),
    [
        ({"text": "abc", "id": 8}, hit(0, (0, 2), id="7"), "id '8', expected '7'"),
        ({"text": "abc"}, hit(0, (0, 9)), "shorter than the text that was scanned"),
        ({"other": "abc"}, hit(0, (0, 2)), "not the row that was scanned"),
        ({"text": 5}, hit(0, (0, 2)), "not the row that was scanned"),
    ],
)
@pytest.mark.parametrize("how", ["drop-row", "tag", "mask-span"])
def test_a_row_that_is_not_the_one_that_was_scanned_is_refused(row: Any, found: Hit, why: str, how: Any) -> None:
    with pytest.raises(DecontamError, match=why):
        outcome(row, [found], how, ["text"])


def test_spans_that_touch_are_one_and_hidden_text_keeps_its_length() -> None:
    assert merge([(5, 7), (0, 2), (2, 4), (6, 9)]) == [(0, 4), (5, 9)]
    assert widened([(4, 6)], 20, 1, 4) == [(0, 7)]  # the slice 0..3 has 3 characters
    assert cut("abcdef", [(1, 3)]) == "a[…]def"
    assert hidden("abcdef", [(1, 3)]) == "a……def"
