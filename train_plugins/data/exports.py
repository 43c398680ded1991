"""Canonical rows in the formats that other tools read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from train_plugins.data.kinds import kind_of
from train_plugins.data.mappings import Malformed

Row = Mapping[str, Any]
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}


def to_sharegpt(row: Row) -> dict[str, Any]:
    """`conversations`, of a pair those before the last message, which stand beside it."""
    if kind_of(row) == "preference":
        sides = {name: _turn(row[name][-1]) for name in ("chosen", "rejected")}
        return _named(row) | {"conversations": [_turn(each) for each in row["chosen"][:-1]], **sides}
    return _named(row) | {"conversations": [_turn(each) for each in row["messages"]]}


def to_alpaca(row: Row) -> dict[str, Any]:
    """`instruction` and `output` of the last turn, the turns before it as `history`."""
    if kind_of(row) != "sft":
        raise Malformed("wrong_type", f"a row of kind {kind_of(row)}", "an sft row for --to alpaca")
    messages = list(row["messages"])
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    if len(messages) % 2 or any(each["role"] == "tool" for each in messages):
        raise Malformed("role_order", "turns that are not pairs of user and assistant", "such pairs for --to alpaca")
    texts = [each["content"] for each in messages]
    *history, last = [list(pair) for pair in zip(texts[::2], texts[1::2], strict=True)]
    more = ({"system": system} if system else {}) | ({"history": history} if history else {})
    return _named(row) | {"instruction": last[0], "input": "", "output": last[1], **more}


def to_prompt_completion(row: Row) -> dict[str, Any]:
    """`prompt` and `completion` as messages, of a pair `prompt`, `chosen` and `rejected`."""
    if kind_of(row) == "preference":
        sides = {name: row[name][-1:] for name in ("chosen", "rejected")}
        return _named(row) | {"prompt": row["chosen"][:-1], **sides}
    if kind_of(row) == "rlvr":
        raise Malformed("wrong_type", "a row of kind rlvr", "rows that hold an answer, for --to prompt-completion")
    return _named(row) | {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}


def _named(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "source") if name in row}


def _turn(message: Mapping[str, str]) -> dict[str, str]:
    return {"from": SPEAKERS[message["role"]], "value": message["content"]}


EXPORTS: Mapping[str, Callable[[Row], Row]] = {
    "messages": lambda row: row,
    "sharegpt": to_sharegpt,
    "alpaca": to_alpaca,
    "prompt-completion": to_prompt_completion,
}
