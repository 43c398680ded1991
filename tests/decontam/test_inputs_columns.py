"""Messages read from the buffers of an Arrow batch are those read from its rows as objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.errors import BrokenRow
from decontam.inputs import ArrowMessages, arrow_messages
from decontam.select import parse_selectors

SELECTORS = (
    ["messages[role=user].content"],
    ["messages[*].content"],
    ["messages[role=user][-1].content"],
    ["messages[1].content"],
    ["messages[role=user].content", "messages[from=human].content"],
    ["text"],
    ["text", "messages[role=assistant].content", "meta.question"],
    ["meta.question"],
    ["meta.answer.value", "absent"],
    ["instruction+text"],
    ["instruction+meta.question"],
    ["answers.**"],
    ["absent.**"],
    ["messages.**", "text"],
    ["text.**", "flag.**", "meta.**"],
    ["answers[*]"],
    ["flag"],
    ["text[*]"],
    ["absent[*].content"],
)

texts = st.none() | st.text("aé🙂 \n\0", max_size=5)
messages = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", None, "system"]),
        "from": st.sampled_from([None, None, "human", "gpt"]),
        "content": texts,
        "weight": st.integers(0, 3),
    }
)
rows = st.fixed_dictionaries(
    {
        "text": texts,
        "instruction": texts,
        "messages": st.none() | st.lists(st.none() | messages, max_size=4),
        "meta": st.none()
        | st.fixed_dictionaries(
            {
                "question": texts,
                "answer": st.none() | st.fixed_dictionaries({"from": st.sampled_from(["gpt", None]), "value": texts}),
            }
        ),
        "answers": st.none() | st.lists(texts, max_size=3),
        "flag": st.none() | st.booleans(),
    }
)


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    """Rows under types drawn at random, seen through a slice."""
    text = st.sampled_from([pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
    plain = st.sampled_from([pa.string(), pa.large_string(), pa.string_view()])
    make_list = draw(st.sampled_from([pa.list_, pa.large_list]))
    turn = [("role", draw(text)), ("from", draw(plain)), ("content", draw(plain)), ("weight", pa.int8())]
    schema = pa.schema(
        [
            ("text", draw(text)),
            ("instruction", draw(text)),
            ("messages", make_list(pa.struct(turn))),
            (
                "meta",
                pa.struct(
                    [("question", draw(text)), ("answer", pa.struct([("from", text_of(draw)), ("value", draw(plain))]))]
                ),
            ),
            ("answers", make_list(draw(plain))),
            ("flag", pa.bool_()),
        ]
    )
    batch = pa.RecordBatch.from_pylist(draw(st.lists(rows, max_size=8)), schema=schema)
    start = draw(st.integers(0, batch.num_rows))
    return batch.slice(start, draw(st.integers(0, batch.num_rows - start)))


def text_of(draw: st.DrawFn) -> pa.DataType:
    return draw(st.sampled_from([pa.string(), pa.large_string()]))


def told(found: ArrowMessages) -> list[tuple[int, int, int, str]]:
    places = zip(found.row.tolist(), found.turn.tolist(), found.where.tolist(), strict=True)
    return [(*place, found.text(i)) for i, place in enumerate(places)]


def by_rows(selectors: list[str], rows: list[dict[str, Any]]) -> tuple[list[tuple[int, int, int, str]], list[int]]:
    selection, found, broken = parse_selectors(selectors), [], []
    for number, row in enumerate(rows):
        try:
            found += [(number, *message) for message in selection.messages(row)]
        except BrokenRow:
            broken.append(number)
    return found, broken


@settings(max_examples=150, deadline=None)
@given(batches(), st.sampled_from(SELECTORS), st.booleans())
def test_a_batch_gives_the_messages_of_its_rows(batch: pa.RecordBatch, selectors: list[str], scan_all: bool) -> None:
    selection = parse_selectors(selectors)
    selection = selection.with_scan_all() if scan_all else selection
    found = arrow_messages(selection, batch)
    expected, broken = by_rows(selection.spec, batch.to_pylist())
    assert told(found) == expected
    assert [row for row, _ in found.broken] == broken
    kinds = [found.values, found.starts, found.stops, found.row, found.turn, found.where]
    assert [array.dtype for array in kinds] == [np.uint8, np.int64, np.int64, np.int64, np.int32, np.int8]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.large_string())])
def test_texts_of_one_column_are_not_copied(kind: pa.DataType) -> None:
    column = pa.array(["one", None, "two", "one"], kind)
    found = arrow_messages(parse_selectors(["text"]), pa.record_batch([column], ["text"]))
    data = column.dictionary.buffers()[2] if pa.types.is_dictionary(kind) else column.buffers()[2]
    assert found.values.__array_interface__["data"][0] == data.address
    assert told(found) == [(0, 0, 0, "one"), (2, 0, 0, "two"), (3, 0, 0, "one")]


def test_turns_of_a_chat_are_not_copied() -> None:
    chat = [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]]
    batch = pa.RecordBatch.from_pylist([{"messages": each} for each in chat])
    found = arrow_messages(parse_selectors(["messages[role=user].content"]), batch)
    assert found.values.tobytes() == b"hiyo"
    assert told(found) == [(0, 0, 0, "hi")]


def test_items_under_a_null_list_are_not_read() -> None:
    turns = pa.array([{"content": "a"}, {"content": "b"}, {"content": "c"}])
    column = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), turns, mask=pa.array([False, True, False]))
    found = arrow_messages(parse_selectors(["messages[*].content"]), pa.record_batch([column], ["messages"]))
    assert told(found) == [(0, 0, 0, "a"), (2, 0, 0, "c")]


def test_parts_of_a_text_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image", "text": None}, {"type": "text", "text": "b"}]
    batch = pa.RecordBatch.from_pylist([{"messages": [{"role": "user", "content": parts}]}])
    assert told(arrow_messages(parse_selectors(["messages[role=user].content"]), batch)) == [(0, 0, 0, "a\nb")]


def test_text_that_is_not_utf8_breaks_its_row_alone() -> None:
    column = pa.array([b"good", b"b\xffd", None, b"fine"]).view(pa.string())
    found = arrow_messages(parse_selectors(["text"]), pa.record_batch([column], ["text"]))
    assert told(found) == [(0, 0, 0, "good"), (3, 0, 0, "fine")]
    assert found.broken == ((1, "its text is not UTF-8"),)


def test_a_column_that_is_no_text_breaks_each_row_that_has_it() -> None:
    batch = pa.RecordBatch.from_pylist([{"text": 1}, {"text": None}, {"text": 2}])
    found = arrow_messages(parse_selectors(["text"]), batch)
    assert len(found) == 0
    assert found.broken == ((0, "text is a number, not text"), (2, "text is a number, not text"))


def test_padding_keeps_the_messages_and_ends_in_zeros() -> None:
    batch = pa.RecordBatch.from_pylist([{"text": "abc"}])
    found = arrow_messages(parse_selectors(["text"]), batch).padded()
    assert found.values.tobytes() == b"abc" + bytes(64)
    assert told(found) == [(0, 0, 0, "abc")]
