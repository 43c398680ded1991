"""Formats of training data: what a row of each becomes, which one a file is of, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import DataError, UsageError
from train_plugins.data.exports import EXPORTS
from train_plugins.data.formats import FORMATS, detect, find_format
from train_plugins.data.mappings import Malformed, Reading
from train_plugins.data.rows import check_row, kind_of
from train_plugins.data.sources import parse_hub

Messages = list[dict[str, str]]


def u(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def a(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def s(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def turn(who: str, text: str) -> dict[str, str]:
    return {"from": who, "value": text}


PREAMBLE = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nadd\n\n### Input:\n1 2\n\n### Response:"
)
SHARED = [turn("human", "q"), turn("gpt", "r")]
HH = "\n\nHuman: q\n\n1.\n\nAssistant: r\n\nHuman: t\n\nAssistant:"
GOLDEN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("messages", {"messages": [s("x"), u("q"), a("r")], "n": 1}, {"messages": [s("x"), u("q"), a("r")]}),
    ("messages", {"messages": [{**u("q"), "name": None}, a("r")]}, {"messages": [u("q"), a("r")]}),
    (
        "messages",
        {"messages": [u("q")], "ground_truth": "4", "dataset": "gsm8k", "constraint": None, "constraint_type": "c"},
        {"messages": [u("q")], "ground_truth": "4", "dataset": "gsm8k", "constraint_type": "c"},
    ),
    ("alpaca", {"instruction": "add", "input": "1 2", "output": "3"}, {"messages": [u("add\n\n1 2"), a("3")]}),
    ("alpaca", {"instruction": "add", "input": " ", "response": "3"}, {"messages": [u("add"), a("3")]}),
    ("alpaca", {"instruction": "add", "input": None, "output": "3"}, {"messages": [u("add"), a("3")]}),
    (
        "alpaca",
        {"instruction": "c", "output": "d", "system": "x", "history": [["a", "b"]]},
        {"messages": [s("x"), u("a"), a("b"), u("c"), a("d")]},
    ),
    (
        "sharegpt",
        {"conversations": [turn("system", "x"), *SHARED, turn("user", "t"), turn("model", "v")]},
        {"messages": [s("x"), u("q"), a("r"), u("t"), a("v")]},
    ),
    ("sharegpt", {"conversations": SHARED, "system": "x"}, {"messages": [s("x"), u("q"), a("r")]}),
    (
        "sharegpt",
        {"conversations": [turn("human", "q")], "chosen": turn("gpt", "r"), "rejected": turn("gpt", "t")},
        {"chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")]},
    ),
    (
        "hh",
        {"chosen": f"{HH} v", "rejected": HH},
        {"chosen": [u("q\n\n1."), a("r"), u("t"), a("v")], "rejected": [u("q\n\n1."), a("r"), u("t"), a("")]},
    ),
    (
        "oasst-pref",
        {"messages": [u("q")], "chosen": "r", "rejected": "t", "prompt_id": "p"},
        {"chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")]},
    ),
    ("prompt-completion", {"prompt": "q", "completion": "r"}, {"messages": [u("q"), a("r")]}),
    ("prompt-completion", {"prompt": [s("x"), u("q")], "completion": [a("r")]}, {"messages": [s("x"), u("q"), a("r")]}),
    (
        "prompt-chosen-rejected",
        {"prompt": "q", "chosen": "r", "rejected": "t", "chosen_rating": 4.0},
        {"chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")], "chosen_rating": 4.0},
    ),
    (
        "prompt-chosen-rejected",
        {"prompt": [u("q")], "chosen": [a("r")], "rejected": [a("t")]},
        {"chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")]},
    ),
    (  # whole conversations with the prompt once more, and one of them under a third name
        "prompt-chosen-rejected",
        {"prompt": "q", "chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")], "messages": [u("q"), a("r")]},
        {"chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")]},
    ),
    (
        "prompt-chosen-rejected",
        {"chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")]},
        {"chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "canonical"), GOLDEN, ids=[f"{i}-{g[0]}" for i, g in enumerate(GOLDEN)])
def test_a_row_of_each_format_becomes_its_canonical_row(
    name: str, row: dict[str, Any], canonical: dict[str, Any]
) -> None:
    form = detect([(1, row)], "a.jsonl")
    assert form.name == name
    assert form.convert(row, Reading()) == canonical


def test_the_preamble_of_alpaca_and_tools_are_there_when_asked_for() -> None:
    row = {"instruction": "add", "input": "1 2", "output": "3"}
    assert FORMATS["alpaca"].convert(row, Reading(alpaca_preamble=True))["messages"][0] == u(PREAMBLE)
    alone = FORMATS["alpaca"].convert({**row, "input": ""}, Reading(alpaca_preamble=True))["messages"][0]["content"]
    assert alone.startswith("Below is an instruction that describes a task. Write")
    assert "### Input" not in alone
    talk = {"conversations": [turn("human", "q"), turn("gpt", "r"), turn("tool", "1"), turn("gpt", "v")]}
    made = FORMATS["sharegpt"].convert(talk, Reading(allow_tools=True))
    assert [each["role"] for each in made["messages"]] == ["user", "assistant", "tool", "assistant"]


MALFORMED: list[tuple[str, dict[str, Any], str, str]] = [
    ("alpaca", {"instruction": "x", "output_text": "y"}, "missing_field", "`output_text`: did you mean `output`?"),
    ("alpaca", {"instruction": "x"}, "missing_field", "no field `output` or `response`; it has instruction"),
    ("alpaca", {"instruction": 3, "output": "y"}, "wrong_type", "instruction is a number"),
    ("alpaca", {"instruction": "x", "output": None}, "wrong_type", "output is null"),
    ("alpaca", {"instruction": "x", "output": "y", "history": [["a"]]}, "wrong_type", "history holds a list"),
    ("sharegpt", {"conversation": []}, "missing_field", "`conversation`: did you mean `conversations`?"),
    ("sharegpt", {"conversations": [turn("humn", "q")]}, "unknown_role", "[0].from is 'humn'; did you mean 'human'?"),
    ("sharegpt", {"conversations": [turn("tool", "q")]}, "unknown_role", "'tool'"),
    ("sharegpt", {"conversations": [{"from": "human"}]}, "missing_field", "conversations[0] has from"),
    ("sharegpt", {"conversations": "x"}, "wrong_type", "conversations is text"),
    ("hh", {"chosen": "Hello", "rejected": "\n\nHuman: q"}, "wrong_type", "chosen begins with 'Hello'"),
    ("oasst-pref", {"messages": "q", "chosen": "a", "rejected": "b"}, "wrong_type", "messages is text"),
    ("prompt-completion", {"prompt": "q", "completions": "r"}, "missing_field", "did you mean `completion`?"),
]


@pytest.mark.parametrize(("name", "row", "code", "found"), MALFORMED, ids=[m[3] for m in MALFORMED])
def test_a_row_that_is_not_of_its_format_says_why(name: str, row: dict[str, Any], code: str, found: str) -> None:
    with pytest.raises(Malformed) as error:
        FORMATS[name].convert(row, Reading())
    assert error.value.problem[0] == code
    assert found in error.value.problem[1]


def test_two_formats_in_one_file_are_refused_and_named() -> None:
    rows = [(1, {"instruction": "x", "output": "y"}), (2, {"a": 1}), (4, {"messages": [u("q"), a("r")]})]
    with pytest.raises(
        DataError, match=r"a\.jsonl: rows of two formats, alpaca \(line 1\) and messages \(line 4\); .*--from"
    ):
        detect(rows, "a.jsonl")  # fmt: skip


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"instruction": "x", "output_text": "y"}, "nearest to alpaca and has `output_text`: did you mean `output`?"),
        ({"message": []}, "`message`: did you mean `messages`?"),
        ({"question": "x", "answer": "y"}, "no format has the fields question, answer (line 1)"),
        ({"text": "x"}, "no roles; use continued pre-training elsewhere"),
        ([1], "none of its first rows is an object"),
    ],
)
def test_a_file_of_no_format_is_refused_with_the_near_miss(row: Any, words: str) -> None:
    with pytest.raises(DataError) as error:
        detect([(1, row)], "a.jsonl")
    assert words in str(error.value)


def test_an_unknown_format_is_refused_with_the_near_miss() -> None:
    with pytest.raises(UsageError, match=r"no format named 'alpacca'; did you mean 'alpaca'\?"):
        find_format("alpacca")


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("hub:o/n", ("o/n", None, "train")),
        ("hub:o/n:en", ("o/n", "en", "train")),
        ("hub:o/n:test_sft", ("o/n", None, "test_sft")),
        ("hub:o/n:en:dev", ("o/n", "en", "dev")),
        ("hub:o/n::en", ("o/n", None, "en")),
    ],
)
def test_a_hub_name_has_a_config_and_a_split(argument: str, parts: tuple[str, str | None, str]) -> None:
    assert parse_hub(argument) == parts


def test_a_hub_name_with_too_many_parts_is_refused() -> None:
    with pytest.raises(UsageError, match="expected hub:owner/name"):
        parse_hub("hub:o/n:a:b:c")


TEXT = st.text(min_size=1, max_size=12).filter(lambda text: bool(text.strip()))
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)


def talk(system: str | None, turns: list[tuple[str, str]]) -> Messages:
    messages = [s(system)] if system else []
    return messages + [each for q, r in turns for each in (u(q), a(r))]


def there_and_back(row: Mapping[str, Any], to: str, by: str) -> dict[str, Any]:
    exported = EXPORTS[to](row)
    assert detect([(1, exported)], "a.jsonl").name == by
    return {**{n: row[n] for n in ("id", "source")}, **FORMATS[by].convert(exported, Reading())}


@given(st.none() | TEXT, TURNS, st.sampled_from(["messages", "sharegpt", "alpaca", "prompt-completion"]))
@settings(max_examples=150, deadline=None)
def test_conversations_survive_the_way_to_every_format_and_back(
    system: str | None, turns: list[tuple[str, str]], to: str
) -> None:
    row = {"id": "1", "source": "own", "messages": talk(system, turns)}
    assert there_and_back(row, to, to) == row


@given(TURNS, TEXT, TEXT, st.sampled_from(["messages", "sharegpt", "prompt-completion"]))
@settings(max_examples=100, deadline=None)
def test_pairs_survive_the_way_to_every_format_that_has_them_and_back(
    turns: list[tuple[str, str]], chosen: str, rejected: str, to: str
) -> None:
    prompt = talk(None, turns)[:-1]
    row = {"id": "1", "source": "own", "chosen": [*prompt, a(chosen)], "rejected": [*prompt, a(rejected)]}
    assert there_and_back(row, to, "sharegpt" if to == "sharegpt" else "prompt-chosen-rejected") == row


@pytest.mark.parametrize(
    ("to", "row"),
    [
        ("alpaca", {"chosen": [u("q"), a("r")], "rejected": [u("q"), a("t")]}),
        ("alpaca", {"messages": [u("q"), a("r"), {"role": "tool", "content": "1"}, a("v")]}),
        ("prompt-completion", {"messages": [u("q")], "ground_truth": "1", "dataset": "gsm8k"}),
    ],
)
def test_what_a_format_cannot_say_is_refused(to: str, row: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        EXPORTS[to](row)


def test_every_golden_row_that_is_complete_is_sound() -> None:
    made = [FORMATS[name].convert(row, Reading()) for name, row, _ in GOLDEN if name != "hh"]
    assert [problem for row in made for problem in check_row(row, kind_of(row))] == []
