"""What a row of each format means: the canonical row that is made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalsuite.errors import did_you_mean
from train_plugins.data.checks import name_of, unknown_role
from train_plugins.data.kinds import OPTIONAL, Problem

Row = Mapping[str, Any]
Messages = list[dict[str, str]]

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant"}
SPEAKERS |= {"system": "system"}
HH_TURN = re.compile(r"\n\n(Human|Assistant):")
HH_ROLES = {"Human": "user", "Assistant": "assistant"}
# The prompt of Stanford Alpaca (tatsu-lab/stanford_alpaca, train.py), with and without an input.
PREAMBLE = (
    "Below is an instruction that describes a task{paired}. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{instruction}{given}\n\n### Response:"
)
PAIRED = ", paired with an input that provides further context"


class Malformed(Exception):
    """A row that is not of the format it should be of: code, what was found, what was expected."""

    def __init__(self, code: str, found: str, expected: str) -> None:
        super().__init__(found)
        self.problem: Problem = (code, found, expected)


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are read where a format leaves it open."""

    alpaca_preamble: bool = False
    allow_tools: bool = False


def text_of(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, str):
        return value
    if name not in row:
        raise Malformed(*missing_field(row, [name]))
    raise Malformed("wrong_type", f"{name} is {name_of(value)}", "text")


def plain_messages(value: Any) -> Any:
    """Messages with role and content only; what has another shape stays for the check to tell."""
    try:
        return [{"role": each["role"], "content": each["content"]} for each in value]
    except (TypeError, KeyError):
        return value


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def from_messages(row: Row, reading: Reading) -> dict[str, Any]:
    canonical = {"messages": plain_messages(row["messages"]) if "messages" in row else text_of(row, "messages")}
    if "ground_truth" in row:
        return canonical | _copied(row, ("ground_truth", "dataset", *OPTIONAL["rlvr"]))
    return canonical


def _copied(row: Row, names: Sequence[str]) -> dict[str, Any]:
    """The fields that the row has; a column store has null where a row has none."""
    return {name: row[name] for name in names if row.get(name) is not None}


def from_alpaca(row: Row, reading: Reading) -> dict[str, Any]:
    if "instruction" not in row or not ("output" in row or "response" in row):
        raise Malformed(*missing_field(row, ("instruction", "output|response")))
    messages = _before(row) if "system" in row or "history" in row else []
    given = text_of(row, "input") if row.get("input") is not None else ""
    prompt = _alpaca_prompt(text_of(row, "instruction"), given, reading.alpaca_preamble)
    answer = text_of(row, "response" if row.get("output") is None and "response" in row else "output")
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def _before(row: Row) -> Messages:
    """The messages before the last turn."""
    messages = [said("system", text_of(row, "system"))] if row.get("system") else []
    for pair in row.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
            raise Malformed("wrong_type", f"history holds {name_of(pair)}", "pairs of texts, [user, assistant]")
        messages += [said("user", pair[0]), said("assistant", pair[1])]
    return messages


def _alpaca_prompt(instruction: str, given: str, preamble: bool) -> str:
    if preamble:
        paired, given = (PAIRED, f"\n\n### Input:\n{given}") if given.strip() else ("", "")
        return PREAMBLE.format(paired=paired, instruction=instruction, given=given)
    return f"{instruction}\n\n{given}" if given and not given.isspace() else instruction


def from_sharegpt(row: Row, reading: Reading) -> dict[str, Any]:
    if "conversations" not in row:
        raise Malformed(*missing_field(row, ("conversations",)))
    messages = _speakers(row["conversations"], "conversations", reading)
    if row.get("system"):
        messages = [said("system", text_of(row, "system")), *messages]
    if "chosen" not in row and "rejected" not in row:
        return {"messages": messages}
    sides = {name: [*messages, *_speakers(_listed(row.get(name)), name, reading)] for name in ("chosen", "rejected")}
    return sides | _copied(row, OPTIONAL["preference"])


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, Mapping) else value


def _speakers(turns: Any, field: str, reading: Reading) -> Messages:
    try:
        return [{"role": SPEAKERS[turn["from"]], "content": turn["value"]} for turn in turns]
    except (KeyError, TypeError):
        return [_speaker(turn, f"{field}[{i}]", reading) for i, turn in enumerate(_list(turns, field))]


def _list(value: Any, field: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise Malformed("wrong_type", f"{field} is {name_of(value)}", "a list of {from, value}")


def _speaker(turn: Any, where: str, reading: Reading) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise Malformed("wrong_type", f"{where} is {name_of(turn)}", "an object {from, value}")
    if "from" not in turn or "value" not in turn:
        raise Malformed("missing_field", f"{where} has {', '.join(map(str, turn))}", "`from` and `value` in it")
    speakers = SPEAKERS | ({"tool": "tool"} if reading.allow_tools else {})
    if not isinstance(turn["from"], str) or turn["from"] not in speakers:
        raise Malformed(*unknown_role(turn["from"], f"{where}.from", tuple(speakers)))
    return said(speakers[turn["from"]], turn["value"])


def from_hh(row: Row, reading: Reading) -> dict[str, Any]:
    return {name: _dialogue(text_of(row, name), name) for name in ("chosen", "rejected")}


def _dialogue(text: str, field: str) -> Messages:
    before, *parts = HH_TURN.split(text)
    if before.strip() or not parts:
        found = f"{field} begins with {(before or text)[:30]!r}"
        raise Malformed("wrong_type", found, "a text that begins with a blank line and `Human:`")
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": HH_ROLES[who], "content": what.strip()} for who, what in turns]


def from_oasst(row: Row, reading: Reading) -> dict[str, Any]:
    if "messages" not in row:
        raise Malformed(*missing_field(row, ("messages", "chosen", "rejected")))
    prompt = plain_messages(row["messages"])
    if not isinstance(prompt, list):
        raise Malformed("wrong_type", f"messages is {name_of(prompt)}", "a list of {role, content}")
    sides = {name: [*prompt, said("assistant", text_of(row, name))] for name in ("chosen", "rejected")}
    return sides | _copied(row, OPTIONAL["preference"])


def from_completion(row: Row, reading: Reading) -> dict[str, Any]:
    return {"messages": [*_turns(row, "prompt", "user"), *_turns(row, "completion", "assistant")]}


def from_pair(row: Row, reading: Reading) -> dict[str, Any]:
    prompt = _turns(row, "prompt", "user") if row.get("prompt") is not None else []
    sides = {name: _turns(row, name, "assistant") for name in ("chosen", "rejected")}
    # Some data sets give whole conversations and the prompt once more beside them.
    if prompt and not all(side[: len(prompt)] == prompt for side in sides.values()):
        sides = {name: [*prompt, *side] for name, side in sides.items()}
    return sides | _copied(row, OPTIONAL["preference"])


def from_text(row: Row, reading: Reading) -> dict[str, Any]:
    """Nothing: a text has no roles. A file of them is refused before any row is read."""
    raise Malformed("no_assistant", "a text without roles", "rows with roles")


def _turns(row: Row, name: str, role: str) -> list[Any]:
    """Messages of a field that holds them, or one text of that role."""
    value = row.get(name)
    if isinstance(value, list):
        messages: list[Any] = plain_messages(value)
        return messages
    return [said(role, text_of(row, name))]


def missing_field(row: Row, needs: Sequence[str]) -> Problem:
    """What a row lacks of the fields that a format needs, with the near miss. `a|b`: one of the two is enough."""
    has = [key for key in row if isinstance(key, str)]
    lacks = next((each for each in needs if not any(option in row for option in each.split("|"))), needs[0])
    options = lacks.split("|")
    near = next((key for key in has if did_you_mean(key, options) and not _is_needed(key, needs)), None)
    expected = " or ".join(f"`{option}`" for option in options)
    if near:
        meant = next(option for option in options if did_you_mean(near, [option]))
        return "missing_field", f"`{near}`: did you mean `{meant}`?", expected
    return "missing_field", f"no field {expected}; it has {', '.join(has) or 'none'}", expected


def _is_needed(key: str, needs: Sequence[str]) -> bool:
    return any(key in each.split("|") for each in needs)
