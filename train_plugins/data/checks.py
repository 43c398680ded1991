"""What is wrong with a row: its shape, the order of its turns, its texts, and what its kind asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalsuite.errors import did_you_mean
from train_plugins.data.kinds import REQUIRED, ROLES, RULES, Kind, Problem, RowRules, kind_of
from train_plugins.data.labels import label_problems
from train_plugins.data.texts import has_problems, text_problems


def check_row(row: Any, kind: Kind, rules: RowRules = RULES) -> list[Problem]:
    """Everything that is wrong with a row of that kind; empty when it can be used."""
    if _is_sound(row, kind, rules):
        return []
    if not isinstance(row, Mapping):
        return [("not_object", f"the row is {name_of(row)}", "an object with fields")]
    if problems := _shape(row, kind, rules):
        return problems
    if kind == "preference":
        return _check_pair(row, rules)
    problems = check_messages(row["messages"], "messages", rules, "user" if kind == "rlvr" else "assistant")
    if kind == "rlvr" and rules.labels:
        problems += label_problems(row["dataset"], row["ground_truth"], rules.verifiers)
    return problems


def _is_sound(row: Any, kind: Kind, rules: RowRules) -> bool:
    """True for the plainest rows, which most are: a few looks at the whole instead of many at its parts.

    Never true for a row that the checks below object to; false says nothing.
    """
    try:
        if type(row.get("id", "")) is not str or type(row.get("source", "")) is not str:
            return False
        if kind == "sft":
            return _is_sound_talk(row["messages"], rules)
        if kind == "rlvr":
            return False
        chosen, rejected = row["chosen"], row["rejected"]
        if type(rejected) is not list or chosen[:-1] != rejected[:-1] or chosen[-1] == rejected[-1]:
            return False
        last = rejected[-1]
        return (
            last["role"] == "assistant" and _are_sound_texts([last["content"]], rules) and _is_sound_talk(chosen, rules)
        )
    except (TypeError, KeyError, IndexError, AttributeError):
        return False


def _is_sound_talk(messages: Any, rules: RowRules) -> bool:
    if type(messages) is not list:
        return False
    roles, texts = [each["role"] for each in messages], [each["content"] for each in messages]
    if roles[0] == "system":
        del roles[0]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        return False
    return _are_sound_texts(texts, rules)


def _are_sound_texts(texts: list[Any], rules: RowRules) -> bool:
    if "" in texts or any(map(str.isspace, texts)):
        return False
    return not has_problems(texts, () if rules.allow_template_text else rules.template_tokens, rules.max_chars)


def check_messages(messages: Sequence[Any], field: str, rules: RowRules, last: str) -> list[Problem]:
    """What is wrong with messages whose last one must be of role `last`."""
    problems = list(_order(messages, field, rules))
    problems += [
        ("empty_content", f"{field}[{i}] ({each['role']}) is blank", "text")
        for i, each in enumerate(messages)
        if each["role"] != "system" and (not each["content"] or each["content"].isspace())
    ]
    roles = [each["role"] for each in messages]
    if last == "assistant" and "assistant" not in roles:
        problems.append(("no_assistant", f"{field} holds no assistant message", "at least one to train on"))
    elif roles[-1] != last:
        code = "ends_with_user" if last == "assistant" else "role_order"
        problems.append((code, f"{field} ends with {roles[-1]!r}", f"a last message of the {last}"))
    return problems + _texts(messages, field, rules)


def _texts(messages: Sequence[Any], field: str, rules: RowRules, first: int = 0) -> list[Problem]:
    tokens = () if rules.allow_template_text else rules.template_tokens
    return text_problems([each["content"] for each in messages], field, tokens, rules.max_chars, first)


def _check_pair(row: Mapping[str, Any], rules: RowRules) -> list[Problem]:
    """The chosen messages, the last rejected one, and that they are equal before it."""
    chosen, rejected = row["chosen"], row["rejected"]
    problems = check_messages(chosen, "chosen", rules, "assistant")
    if len(chosen) != len(rejected) or chosen[:-1] != rejected[:-1]:
        return problems + check_messages(rejected, "rejected", rules, "assistant") + [_divergence(chosen, rejected)]
    if chosen[-1] == rejected[-1]:
        return [*problems, ("identical_pair", "chosen and rejected are the same", "two different last messages")]
    return problems + _check_rejected(rejected, rules)


def _check_rejected(rejected: Sequence[Any], rules: RowRules) -> list[Problem]:
    """What is wrong with the last message alone: those before it were looked at as chosen ones."""
    last, at = rejected[-1], len(rejected) - 1
    problems: list[Problem] = []
    if not last["content"] or last["content"].isspace():
        problems.append(("empty_content", f"rejected[{at}] ({last['role']}) is blank", "text"))
    if last["role"] != "assistant":
        found = f"rejected ends with {last['role']!r}"
        problems.append(("ends_with_user", found, "a last message of the assistant"))
    return problems + _texts([last], "rejected", rules, at)


def _divergence(chosen: Sequence[Any], rejected: Sequence[Any]) -> Problem:
    pairs = zip(chosen, rejected, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    expected = "messages that are equal but for the last"
    if first == 0:
        return "no_shared_prompt", "chosen and rejected differ from the first message on", expected
    found = f"they differ from message {first + 1} on, of {len(chosen)} chosen and {len(rejected)} rejected ones"
    return "diverges_early", found, expected


def merge_turns(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Equal neighbours joined by a blank line."""
    merged: list[dict[str, str]] = []
    for each in messages:
        if merged and merged[-1]["role"] == each["role"]:
            merged[-1] = {"role": each["role"], "content": f"{merged[-1]['content']}\n\n{each['content']}"}
        else:
            merged.append(dict(each))
    return merged


def name_of(value: Any) -> str:
    """What a JSON value is called."""
    names = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def _shape(row: Mapping[str, Any], kind: Kind, rules: RowRules) -> list[Problem]:
    """Missing fields and wrong types."""
    problems = []
    for name in REQUIRED[kind]:
        if name not in row:
            problems.append(_missing(name, row, kind))
        elif name in ("messages", "chosen", "rejected"):
            problems += _shape_of_messages(row[name], name, rules)
    problems += [
        ("wrong_type", f"{name} is {name_of(row[name])}", "text")
        for name in ("id", "source", "dataset")
        if name in row and not isinstance(row[name], str) and (name != "dataset" or kind == "rlvr")
    ]
    return problems


def _missing(name: str, row: Mapping[str, Any], kind: Kind) -> Problem:
    others = [key for key in row if isinstance(key, str)]
    near = next((key for key in others if did_you_mean(key, [name])), None)
    found = f"`{near}`: did you mean `{name}`?" if near else f"no field `{name}`; it has {', '.join(others) or 'none'}"
    actual = kind_of(row)
    hint = f" (this is a {actual} row)" if actual != kind and all(f in row for f in REQUIRED[actual]) else ""
    return "missing_field", found, f"`{name}` in a row of kind {kind}{hint}"


def _shape_of_messages(messages: Any, field: str, rules: RowRules) -> list[Problem]:
    if not isinstance(messages, list) or not messages:
        found = f"{field} is {'empty' if messages == [] else name_of(messages)}"
        return [("wrong_type", found, "a list of {role, content}")]
    known = (*ROLES, "tool") if rules.allow_tools else ROLES
    problems: list[Problem] = []
    for i, each in enumerate(messages):
        if not isinstance(each, Mapping):
            problems.append(("wrong_type", f"{field}[{i}] is {name_of(each)}", "an object {role, content}"))
        elif "role" not in each or "content" not in each:
            lacks = "role" if "role" not in each else "content"
            problems.append(("missing_field", f"{field}[{i}] has {', '.join(map(str, each))}", f"`{lacks}` in it"))
        elif not isinstance(each["content"], str):
            problems.append(("wrong_type", f"{field}[{i}].content is {name_of(each['content'])}", "text"))
        elif each["role"] not in known:
            problems.append(unknown_role(each["role"], f"{field}[{i}].role", known))
    return problems


def unknown_role(role: Any, where: str, known: Sequence[str]) -> Problem:
    near = did_you_mean(role, known) if isinstance(role, str) else ""
    more = " (tool: --allow-tools)" if role == "tool" else ""
    return "unknown_role", f"{where} is {role!r}{near}", f"one of {', '.join(known)}{more}"


def _order(messages: Sequence[Any], field: str, rules: RowRules) -> Iterator[Problem]:
    before = ""
    for i, each in enumerate(messages):
        role = each["role"]
        if role == "system" and i:
            yield "role_order", f"{field}[{i}] is a system message", "a system message first or nowhere"
            continue  # the turns around it are looked at as if it were not there
        if role == before and role != "tool":
            yield (
                "role_order",
                f"{field}[{i - 1}] and [{i}] are both of the {role}",
                "user and assistant by turns (--merge-turns joins them)",
            )
        elif role == "assistant" and before in ("", "system"):
            yield "role_order", f"{field}[{i}] of the assistant comes first", "a user message before it"
        elif role == "tool" and before not in ("assistant", "tool"):
            yield "role_order", f"{field}[{i}] of a tool comes after {before or 'nothing'!r}", "a call before it"
        before = role
