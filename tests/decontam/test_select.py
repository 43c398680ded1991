"""Field selectors: what they pick, where it stands, and what a user reads when they do not fit."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.errors import BrokenRow, DecontamError
from decontam.row import COMPLETION, PROMPT, id_of
from decontam.select import SCAN_ALL, Selection, auto_select, nothing_selected, parse_selectors
from decontam.types import Message, Need


def turn(role: str | None, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


CHAT = {"messages": [turn("system", "s"), turn("user", "a"), turn("assistant", "b"), turn("user", "c")]}
USER = "messages[role=user].content"
SHARED = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
PARTS = [{"type": "text", "text": "one"}, {"type": "image", "url": "x"}, {"type": "text", "text": "two"}]


@pytest.mark.parametrize(
    ("selectors", "row", "expected"),
    [
        ([USER], CHAT, [(1, PROMPT, "a"), (3, PROMPT, "c")]),
        (["messages[*].content"], CHAT, [(0, PROMPT, "s"), (1, PROMPT, "a"), (2, COMPLETION, "b"), (3, PROMPT, "c")]),
        (["messages[role=user][-1].content"], CHAT, [(3, PROMPT, "c")]),
        (["messages[role=user][1].content"], CHAT, [(3, PROMPT, "c")]),
        (["messages[2].content"], CHAT, [(2, COMPLETION, "b")]),
        (["messages[role=user][7].content"], CHAT, []),
        (["messages[role=tool].content"], CHAT, []),
        (
            ["messages[role=user].content", "messages[role=assistant].content"],
            CHAT,
            [(1, 0, "a"), (2, 1, "b"), (3, 0, "c")],
        ),
        (["conversations[from=human].value"], SHARED, [(0, PROMPT, "a")]),
        (["conversations[from=gpt].value"], SHARED, [(1, COMPLETION, "b")]),
        ([USER], {"messages": [turn("user", PARTS)]}, [(0, PROMPT, "one\ntwo")]),
        ([USER], {"messages": [turn("user", [PARTS[1]])]}, []),
        ([USER], {"messages": [turn("user", None), None, "x", turn("user", "")]}, [(3, PROMPT, "")]),
        ([USER], {"messages": None}, []),
        ([USER], {"messages": []}, []),
        (["text"], {"text": "x"}, [(0, PROMPT, "x")]),
        (["text"], {"other": "x"}, []),
        (["text"], {"text": PARTS}, [(0, PROMPT, "one\ntwo")]),
        (["output"], {"output": "x"}, [(0, COMPLETION, "x")]),
        (["instruction+input"], {"instruction": "a", "input": "b"}, [(0, PROMPT, "a\nb")]),
        (["instruction+input"], {"instruction": "a", "input": ""}, [(0, PROMPT, "a")]),
        (["instruction+input"], {"input": "b"}, [(0, PROMPT, "b")]),
        (["instruction+input"], {"instruction": "", "input": ""}, [(0, PROMPT, "")]),
        (["instruction+input"], {"output": "b"}, []),
        (["a.b+c"], {"a": {"b": "x"}, "c": "y"}, [(0, PROMPT, "x\ny")]),
        (["a.b.c"], {"a": {"b": {"c": "x"}}}, [(0, PROMPT, "x")]),
        (["a.b.c"], {"a": {"b": None}}, []),
        (['"a.b"."c+d"'], {"a.b": {"c+d": "x"}}, [(0, PROMPT, "x")]),
        (["Best Answer"], {"Best Answer": "x"}, [(0, PROMPT, "x")]),
        (["answers[*]"], {"answers": ["x", None, "y"]}, [(0, COMPLETION, "x"), (2, COMPLETION, "y")]),
        (
            ["d[*].t[role=user].c"],
            {"d": [{"t": [{"role": "user", "c": "x"}]}, {"t": [{"role": "user", "c": "y"}]}]},
            [(0, 0, "x"), (1, 0, "y")],
        ),
        (["prompt", "chosen"], {"prompt": "p", "chosen": "c"}, [(0, PROMPT, "p"), (1, COMPLETION, "c")]),
        (["prompt", "chosen"], {"chosen": "c"}, [(1, COMPLETION, "c")]),
        (["chosen", "rejected"], {"chosen": "c", "rejected": "r"}, [(0, PROMPT, "c"), (1, PROMPT, "r")]),
        (
            ["text", "messages[role=user].content", "more"],
            {"text": "t", "more": "m", **CHAT},
            [(0, 0, "t"), (2, 0, "a"), (4, 0, "c"), (5, 0, "m")],
        ),
        (
            ["a.**"],
            {"a": {"role": "gpt", "x": ["1", {"y": "2", "type": "no"}], "n": 3}},
            [(0, COMPLETION, "1"), (1, COMPLETION, "2")],
        ),
    ],
)
def test_selectors_pick_messages(
    selectors: list[str], row: dict[str, Any], expected: list[tuple[int, int, str]]
) -> None:
    assert parse_selectors(selectors).messages(row) == [Message(*each) for each in expected]


@pytest.mark.parametrize(
    ("selector", "row", "why"),
    [
        ("text", [], "the row is a list, not an object"),
        ("text", "x", "the row is a string, not an object"),
        ("text", {"text": 3}, "text is a number, not text"),
        ("text", {"text": True}, "text is true, not text"),
        ("text", {"text": {"a": 1}}, "text is an object, not text"),
        ("text", {"text": ["a"]}, "text[0] is a string, not a part of a text (an object with type, text)"),
        ("messages", CHAT, "messages[0] has no type: not a part of a text (an object with type, text)"),
        ("text", {"text": [{"text": "a"}]}, "text[0] has no type: not a part of a text (an object with type, text)"),
        ("instruction+input", {"instruction": "a", "input": 1}, "input is a number, not text"),
        ("a.b", {"a": "x"}, "a is a string, not an object"),
        ("messages[*].content", {"messages": "x"}, "messages is a string, not a list"),
        (
            "messages[*].content",
            {"messages": [turn("user", "a"), turn("user", 4)]},
            "messages[1].content is a number, not text",
        ),
        (
            "messages[role=user].content",
            {"messages": [turn("user", [{"type": "text", "text": 4}])]},
            "messages[0].content[0].text is a number, not text",
        ),
    ],
)
def test_what_is_no_text_breaks_the_row(selector: str, row: Any, why: str) -> None:
    with pytest.raises(BrokenRow, match=f"^{re.escape(why)}$"):
        parse_selectors([selector]).messages(row)


def test_a_broken_turn_leaves_no_messages_behind() -> None:
    selection = parse_selectors(["text", "messages[*].content"])
    with pytest.raises(BrokenRow):
        selection.messages({"text": "x", "messages": [turn("user", "a"), turn("user", 4)]})
    assert selection.messages({"text": "x"}) == [Message(0, PROMPT, "x")]


@pytest.mark.parametrize(
    ("selector", "why"),
    [
        ("", "a field name is expected at character 1"),
        ("a..b", "a field name is expected at character 3"),
        ("a.", "a field name is expected at character 3"),
        ("+a", "a field name is expected at character 1"),
        ("a]", "unexpected ']' at character 2"),
        ("messages.*.content", "a field name is expected at character 10, not '*'"),
        ("messages[role=user.content", "the '[' at character 9 has no ']'"),
        ("messages[user].content", "did you mean [role=user]?"),
        ("messages[role:user].content", "did you mean [role=user]?"),
        ("messages[role==user].content", "did you mean [role=user]?"),
        ("messages[].content", "did you mean [*]?"),
        ("a+b[*].c", "`+` joins plain fields"),
        ("a+b.**", "`+` joins plain fields"),
    ],
)
def test_a_selector_that_cannot_be_read_says_where(selector: str, why: str) -> None:
    with pytest.raises(DecontamError, match=re.escape(why)) as caught:
        parse_selectors([selector])
    assert str(caught.value).startswith(f"selector {selector!r}: ")


def test_no_selector_is_an_error() -> None:
    with pytest.raises(DecontamError, match="no selector given"):
        parse_selectors([SCAN_ALL])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([CHAT], [USER]),
        ([SHARED], ["conversations[from=human].value"]),
        ([{"conversations": [turn("user", "a")], "text": "t"}], ["conversations[role=user].content"]),
        (
            [{"messages": [{"from": "user", "value": "a"}, {"from": "human", "value": "b"}]}],
            ["messages[from=user].value", "messages[from=human].value"],
        ),
        ([{**SHARED, **CHAT}], [USER]),
        ([{"messages": [], "id": 1}, CHAT], [USER]),
        ([{"messages": None, "text": "t"}], ["text"]),
        (
            [{"chosen": CHAT["messages"], "rejected": CHAT["messages"]}],
            ["chosen[role=user].content", "rejected[role=user].content"],
        ),
        ([{"chosen": "c", "rejected": "r"}], ["chosen", "rejected"]),
        ([{"prompt": "p", "chosen": "c", "rejected": "r"}], ["prompt", "chosen", "rejected"]),
        ([{"chosen": {"from": "gpt", "value": "c"}, "instruction": "i"}], ["chosen.value"]),
        ([{"instruction": "i", "input": "", "output": "o"}], ["instruction+input"]),
        ([{"instruction": "i", "prompt": "p"}], ["instruction"]),
        ([{"prompt": "p", "text": "t"}], ["prompt"]),
        ([{"prompt": [turn("user", "a")], "completion": [turn("assistant", "b")]}], ["prompt[role=user].content"]),
        ([{"question": "q", "answer": "a", "text": "t"}], ["question"]),
        ([{"text": "t"}], ["text"]),
        ([{"text": ["t"]}], ["text[*]"]),
        ([{"messages": "odd"}, CHAT, CHAT], [USER]),
        ([CHAT, *[{"messages": "m"}] * 2], ["messages"]),
        ([CHAT, *[{"text": "t"}] * 3], ["text"]),
        ([CHAT, *[{"text": "t", "messages": []}] * 2, {"text": 4}], [USER]),
    ],
)
def test_the_first_rows_tell_the_selectors(rows: list[dict[str, Any]], expected: list[str]) -> None:
    assert auto_select(rows).spec == expected


def test_rows_without_a_known_field_name_the_fields() -> None:
    with pytest.raises(DecontamError, match=r"^db: no field is known to hold prompts; fields: database, test \(choose"):
        auto_select([{"test": "x", "database": "y", "nothing": None}], "db")


def test_selectors_that_pick_nothing_name_the_fields_and_the_near_miss() -> None:
    error = nothing_selected(parse_selectors(["promt"]), {"id": 9, "prompt": 9, "meta": 3}, "data.jsonl")
    assert str(error) == (
        "data.jsonl: no row has text at 'promt'; did you mean 'prompt'?; fields and rows that have them: "
        "id (9), prompt (9), meta (3) (choose with --select FIELD)"
    )


@pytest.mark.parametrize(
    ("selectors", "row", "expected"),
    [
        ([USER], {**CHAT, "answer": "x"}, [(0, 0, "s"), (1, 0, "a"), (2, 1, "b"), (3, 0, "c"), (4, 1, "x")]),
        (["messages[role=user][-1].content"], CHAT, [(0, 0, "s"), (1, 0, "a"), (2, 1, "b"), (3, 0, "c")]),
        (["instruction+input"], {"instruction": "i", "input": "j", "output": "o"}, [(0, 0, "i\nj"), (1, 1, "o")]),
        (
            ["prompt"],
            {"prompt": "p", "chosen": [turn("user", "p"), turn("assistant", "c")]},
            [(0, 0, "p"), (1, 0, "p"), (2, 1, "c")],
        ),
        (
            ["conversations[from=human].value"],
            {**SHARED, "chosen": {"from": "gpt", "value": "c"}},
            [(0, 0, "a"), (1, 1, "b"), (2, 1, "c")],
        ),
        (
            ["question"],
            {"question": "q", "answers": {"text": ["x", "y"], "answer_start": [1]}, "label": "no"},
            [(0, 0, "q"), (1, 1, "x"), (2, 1, "y")],
        ),
        (["text"], {"text": "t", "solution": 4}, [(0, 0, "t")]),
    ],
)
def test_scan_all_adds_answers_and_keeps_the_turns(
    selectors: list[str], row: dict[str, Any], expected: list[Any]
) -> None:
    selection = parse_selectors(selectors)
    found = selection.with_scan_all().messages(row)
    assert found == [Message(*each) for each in expected]
    assert set(selection.messages(row)) <= set(found)


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (
            [USER],
            (Need("messages", "["), Need("content", '"'), Need("role", '"', True, "user")),
        ),
        (["messages[*].content"], (Need("messages", "["), Need("content", '"'))),
        (["text"], (Need("text", '"'),)),
        (["meta.q"], (Need("meta", "{"), Need("q", '"'))),
        (["instruction+input"], (Need("instruction", '"'), Need("input", "", False))),
        (["prompt", "chosen"], (Need("prompt", '"'), Need("chosen", '"n', False))),
        (["text", "a[*].b"], (Need("text", '"'), Need("a", "[n", False), Need("b", '"n', False))),
        (["answers[*]"], None),
        (["answers.**"], None),
    ],
)
def test_needs_say_when_a_line_may_stay_unparsed(selectors: list[str], expected: tuple[Need, ...] | None) -> None:
    assert parse_selectors(selectors).needs == expected


def test_lines_stay_unparsed_only_where_the_first_rows_have_the_text() -> None:
    selection = parse_selectors(["text"])
    assert selection.checked([{"text": 1}, {}, {"text": "x"}]).needs == selection.needs
    nested = selection.checked([{"meta": {"text": "x"}}, {"text": None}, {"text": 1}])
    assert nested.needs is None
    assert nested == selection
    assert pickle.loads(pickle.dumps(nested.with_scan_all())).needs is None


def test_a_selection_is_rebuilt_from_its_spec_and_travels_to_other_processes() -> None:
    selection = parse_selectors(["text", "messages[role=user].content", "text"]).with_scan_all()
    assert selection.spec == ["text", "messages[role=user].content", SCAN_ALL]
    row = {"text": "t", **CHAT, "output": "o"}
    for other in (parse_selectors(selection.spec), pickle.loads(pickle.dumps(selection)), selection.with_scan_all()):
        assert other == selection
        assert other.messages(row) == selection.messages(row)


@pytest.mark.parametrize(
    ("own", "told"),
    [("a", "a"), (7, "7"), (True, None), (1.5, None), (None, None), (["a"], None), ("\ud800é", "\\ud800é")],
)
def test_the_id_of_a_row_is_text_that_a_file_can_hold(own: Any, told: str | None) -> None:
    assert id_of(own) == told


words = st.text("ab é\n", max_size=3)
leaves = (
    words
    | st.none()
    | st.integers(0, 2)
    | st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "image"]), "text": words}), max_size=2)
)
turns = (
    st.none()
    | words
    | st.dictionaries(
        st.sampled_from(["role", "from", "content", "value"]), st.sampled_from(["user", "gpt", "assistant"]) | leaves
    )
)
rows = st.dictionaries(
    st.sampled_from(["messages", "text", "instruction", "input", "meta", "chosen", "answers"]),
    leaves | st.lists(turns, max_size=4) | st.dictionaries(st.sampled_from(["q", "role", "content"]), leaves),
)
spelled = st.sampled_from(
    [
        *("text", "meta.q", "instruction+input", "instruction+meta.q", "chosen.**", "answers[*]"),
        *(
            USER,
            "messages[*].content",
            "messages[from=gpt].value",
            "messages[0].content",
            "messages[role=user][-1].content",
        ),
    ]
)


def value_at(row: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        row = row[key]
    return row


@settings(max_examples=200, deadline=None)
@given(st.lists(spelled, min_size=1, max_size=4), rows, st.booleans())
def test_each_message_is_made_of_the_strings_it_is_located_at(selectors: list[str], row: Any, scan_all: bool) -> None:
    selection = parse_selectors(selectors)
    selection = selection.with_scan_all() if scan_all else selection
    try:
        messages = selection.messages(row)
    except BrokenRow:
        return
    assert len({message.turn for message in messages}) == len(messages)
    for message in messages:
        parts = selection.locate(row, message.turn)
        assert message.text == "\n".join(value_at(row, part.path) for part in parts)
        assert all(message.text[part.start : part.stop] == value_at(row, part.path) for part in parts)


@settings(max_examples=200, deadline=None)
@given(spelled, rows)
def test_the_fast_readers_find_what_the_walk_finds(selector: str, row: Any) -> None:
    """Over one group the walk numbers turns from 0 as the reader does; `dict` subclasses change nothing."""
    selection = parse_selectors([selector])

    def outcome(read: Any) -> Any:
        try:
            return read()
        except BrokenRow as error:
            return str(error)

    walked = outcome(lambda: walk(selection, row))
    assert outcome(lambda: selection.messages(row)) == walked


def walk(selection: Selection, row: Any) -> list[Message]:
    from decontam.row import spots_of

    spots, _ = spots_of(selection.groups[0], row, 0)
    return [Message(spot.turn, spot.where, "\n".join(text for _, text in spot.parts)) for spot in spots]


def test_a_turn_that_is_not_there_cannot_be_located() -> None:
    with pytest.raises(KeyError, match="no message with turn 4"):
        parse_selectors(["text"]).locate({"text": "x"}, 4)
