"""One JSON line changed in its text: only what is changed changes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decontam.clean.change import Change, Tag, changed, tags_of, tree
from decontam.clean.jsontext import rewrite
from decontam.errors import DecontamError

TEXT = Change(texts={("text",): "new"})
FIRST = Change(removed={("m",): frozenset({0})})


@pytest.mark.parametrize(
    ("line", "change", "expected"),
    [
        pytest.param('{"text": "old"}\n', TEXT, '{"text": "new"}\n', id="a string, its newline kept"),
        pytest.param(' {\t"text" :"old" }\r\n', TEXT, ' {\t"text" :"new" }\r\n', id="white space and CRLF stay"),
        pytest.param(
            '{"n":1e5,"f":1.10,"i":' + "9" * 5000 + ',"text":"old","z":-0.0,"x":NaN}',
            TEXT,
            '{"n":1e5,"f":1.10,"i":' + "9" * 5000 + ',"text":"new","z":-0.0,"x":NaN}',
            id="numbers stay as they are written, of any length",
        ),
        pytest.param(
            r'{"a":"\/\u00e9\ud83d\ude00","text":"old"}',
            TEXT,
            r'{"a":"\/\u00e9\ud83d\ude00","text":"new"}',
            id="escapes of other fields stay",
        ),
        pytest.param('{"text":"a","k":1,"text":"b"}', TEXT, '{"k":1,"text":"new"}', id="a hidden first twin goes"),
        pytest.param('{"a":1,"a":2,"text":"b"}', TEXT, '{"a":1,"a":2,"text":"new"}', id="twins of other keys stay"),
        pytest.param('{"te\\u0078t":"b"}', TEXT, '{"te\\u0078t":"new"}', id="a key written with an escape"),
        pytest.param('{"m":[1, 2 , 3]}', FIRST, '{"m":[2 , 3]}', id="the first element"),
        pytest.param(
            '{"m": [1, 2 ,3,4]}',
            Change(removed={("m",): frozenset({1, 3})}),
            '{"m": [1 ,3]}',
            id="2",
        ),
        pytest.param('{"m":[ 1 ]}', FIRST, '{"m":[  ]}', id="the only element"),
        pytest.param('{"m":[5],"m":[1,2]}', FIRST, '{"m":[2]}', id="of two lists of one name the last counts"),
        pytest.param(
            '{"m":[{"c":"a"},{"c":"b"},{"c":"c"}]}',
            Change(removed={("m",): frozenset({0})}, texts={("m", 2, "c"): "x"}),
            '{"m":[{"c":"b"},{"c":"x"}]}',
            id="texts are found by their place before the removal",
        ),
    ],
)
def test_only_what_is_changed_changes(line: str, change: Change, expected: str) -> None:
    assert rewrite(line, change) == expected


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        ('{"text":"old"}', "é […]", '{"text":"\\u00e9 [\\u2026]"}'),
        ('{"text":"old","k":"ü"}', "é […]", '{"text":"é […]","k":"ü"}'),
        ('{"text":"old","k":"ü"}', "\ud800 é", '{"text":"\\ud800 é","k":"ü"}'),
        ('{"text":"old"}', "\ud800\U0001f600\x00", '{"text":"\\ud800\\ud83d\\ude00\\u0000"}'),
    ],
)
def test_a_new_text_is_escaped_as_the_line_is_and_lone_surrogates_always(line: str, text: str, expected: str) -> None:
    written = rewrite(line, Change(texts={("text",): text}))
    assert written == expected
    assert json.loads(written.encode().decode())["text"] == text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"a":1}\n', '{"a":1,"contamination":[{"eval":"quiz","instance":"7","score":0.75}]}\n'),
        ('{"a": 1}', '{"a": 1, "contamination": [{"eval": "quiz", "instance": "7", "score": 0.75}]}'),
        (
            '{"contamination":null,"a":1}',
            '{"contamination":[{"eval":"quiz","instance":"7","score":0.75}],"a":1}',
        ),
    ],
)
def test_tags_come_last_in_the_line_s_own_spacing_or_replace_older_tags(line: str, expected: str) -> None:
    change = Change(tags=(Tag("quiz", "7", 0.75),))
    assert rewrite(line, change) == expected
    assert rewrite(expected, change) == expected


def test_a_foreign_field_of_that_name_is_not_written_over() -> None:
    with pytest.raises(DecontamError, match="already has a field 'contamination'"):
        rewrite('{"a":1,"contamination":"high"}', Change(tags=(Tag("quiz", "7", 0.75),)))


def test_one_tag_an_instance_with_its_best_score() -> None:
    found = [Tag("quiz", "1", 0.6), Tag("quiz", "2", 0.9), Tag("quiz", "1", 0.8)]
    assert tags_of(found) == (Tag("quiz", "1", 0.8), Tag("quiz", "2", 0.9))


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "é", '"', "\ud800"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(value=st.dictionaries(st.text(max_size=2), VALUES, min_size=1, max_size=4), data=st.data())
def test_the_text_says_what_the_decoded_value_would(value: dict[str, Any], data: st.DataObject) -> None:
    texts = data.draw(_some(_leaves(value)))
    lists = data.draw(_some(_lists(value)))
    removed = {path: data.draw(st.frozensets(st.integers(0, n - 1))) for path, n in lists if n}
    change = Change(texts=dict.fromkeys(texts, "…\ud800"), removed=removed)
    spacing = data.draw(st.sampled_from([None, (",", ":"), (" ,\t", " : ")]))
    line = json.dumps(value, ensure_ascii=data.draw(st.booleans()), separators=spacing)
    assert json.loads(rewrite(line, change)) == changed(value, tree(change))


def _some(values: Iterable[Any]) -> st.SearchStrategy[list[Any]]:
    known = list(values)
    return st.lists(st.sampled_from(known), max_size=3) if known else st.just([])


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, str) and path:
        yield path
    for key, inner in _inside(value):
        yield from _leaves(inner, (*path, key))


def _lists(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    if isinstance(value, list):
        yield path, len(value)
    for key, inner in _inside(value):
        yield from _lists(inner, (*path, key))


def _inside(value: Any) -> Any:
    return value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
