"""Finding the texts of a row: what a group of selectors picks, and where in the row each text stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from decontam.errors import BrokenRow
from decontam.selectors import Filter, Path, Step, quoted
from decontam.types import Message

PROMPT, COMPLETION = 0, 1
ASSISTANTS = frozenset({"assistant", "gpt", "chatgpt", "model", "bot", "ai", "function_call"})
TAGS = ("role", "from")  # the key of a message that says who speaks
NOT_TEXT = frozenset({*TAGS, "type"})  # what `**` leaves out

Row = Mapping[str, Any]
Place = tuple[str | int, ...]  # the keys and indices from the row to a value
Reader = Callable[[Row, int, list[Message]], int]  # row, first turn, messages found so far -> next turn


class Group(NamedTuple):
    """Selectors that go through the same list to the same key: an item picked by any of them is one message.

    `picks` has the filters of that list for each selector. Turns are positions in the list; a group without a list has
    turn 0, one with several lists or with `**` numbers what it finds. The turns of a row's next group go on from there.
    """

    paths: tuple[Path, ...]  # several: their texts are joined
    picks: tuple[tuple[Filter, ...], ...]
    where: int  # of messages that do not say who speaks


class Spot(NamedTuple):
    """A message with the place and the text of each part; parts are joined by newline."""

    turn: int
    where: int
    parts: tuple[tuple[Place, str], ...]


def spots_of(group: Group, row: Row, turn: int) -> tuple[list[Spot], int]:
    """The messages of a group with their places, and the first turn of the next group."""
    path = group.paths[0]
    if len(group.paths) > 1:
        joined = _joined(group, row)
        return [Spot(turn, group.where, joined)] if joined else [], turn + 1
    reached = _reach(row, path, group.picks, group.where)
    if path.below:
        below = [Spot(turn + i, where, ((place, text),)) for i, (where, place, text) in enumerate(_below(reached))]
        return below, turn + len(below)
    spots = []
    for where, place, value in reached:
        parts = _parts(place, value)
        if parts:
            spots.append(Spot(turn + next((key for key in place if isinstance(key, int)), 0), where, parts))
    if path.lists == 0:
        return spots, turn + 1
    if path.lists == 1:
        return spots, turn + _size(row, path)
    return [spot._replace(turn=turn + i) for i, spot in enumerate(spots)], turn + len(spots)


def reader_of(group: Group) -> Reader:
    """Appends the messages of one group: closures for the common forms, a walk for the others."""
    path = group.paths[0]
    walk = _walking_reader(group)
    if path.below:
        return _below_reader(path.keys[0], walk)
    if all(len(each.steps) == 1 and not each.lists for each in group.paths):
        keys = tuple(each.keys[0] for each in group.paths)
        return _field_reader(keys[0], group.where, walk) if len(keys) == 1 else _joining_reader(keys, group.where, walk)
    if len(group.picks) == 1 and len(group.picks[0]) == 1 and path.steps[0].filters and len(path.steps) == 2:
        only = group.picks[0][0]
        if only.index is None:
            return _turns_reader(path.keys[0], path.keys[1], only, group.where, walk)
    return walk


def _walking_reader(group: Group) -> Reader:
    def read(row: Row, turn: int, found: list[Message]) -> int:
        spots, following = spots_of(group, row, turn)
        found += [Message(spot.turn, spot.where, "\n".join([text for _, text in spot.parts])) for spot in spots]
        return following

    return read


def _below_reader(key: str, walk: Reader) -> Reader:
    def read(row: Row, turn: int, found: list[Message]) -> int:
        return walk(row, turn, found) if key in row else turn

    return read


def _field_reader(key: str, where: int, walk: Reader) -> Reader:
    def read(row: Row, turn: int, found: list[Message]) -> int:
        text = row.get(key)
        if isinstance(text, str):
            found.append(Message(turn, where, text))
        elif text is not None:
            return walk(row, turn, found)
        return turn + 1

    return read


def _joining_reader(keys: tuple[str, ...], where: int, walk: Reader) -> Reader:
    def read(row: Row, turn: int, found: list[Message]) -> int:
        texts = []
        for key in keys:
            text = row.get(key)
            if not isinstance(text, str):
                return walk(row, turn, found)
            if text:
                texts.append(text)
        found.append(Message(turn, where, "\n".join(texts)))
        return turn + 1

    return read


def _turns_reader(key: str, leaf: str, only: Filter, default: int, walk: Reader) -> Reader:
    tag, speaker = only.key, only.value
    known = None if tag != TAGS[0] else COMPLETION if speaker in ASSISTANTS else PROMPT

    def read(row: Row, turn: int, found: list[Message]) -> int:
        items = row.get(key)
        if not isinstance(items, list):
            return walk(row, turn, found)
        n = len(found)
        for i, item in enumerate(items, turn):
            if isinstance(item, dict) and (not tag or item.get(tag) == speaker):
                text = item.get(leaf)
                if isinstance(text, str):
                    found.append(Message(i, _where(item, default) if known is None else known, text))
                elif text is not None:
                    del found[n:]
                    return walk(row, turn, found)
        return turn + len(items)

    return read


def _reach(
    row: Row, path: Path, picks: tuple[tuple[Filter, ...], ...] = (), where: int = PROMPT
) -> Iterator[tuple[int, Place, Any]]:
    """(where, place, value) of what a path leads to; `picks` replace the filters of its list.

    A key that is absent or null leads nowhere, and so does an item of a list that is no object where keys follow.
    """

    def walk(node: Row, steps: tuple[Step, ...], where: int, place: Place) -> Iterator[tuple[int, Place, Any]]:
        step, rest = steps[0], steps[1:]
        if place:
            where = _where(node, where)
        value, place = node.get(step.key), (*place, step.key)
        if value is None:
            return
        if step.filters and not isinstance(value, list):
            raise BrokenRow(f"{_spell(place)} is {kind(value)}, not a list")
        found = [(place, value)]
        if step.filters:
            found = [((*place, i), item) for i, item in _picked(value, picks or (step.filters,)) if item is not None]
        elif rest and not isinstance(value, dict):
            raise BrokenRow(f"{_spell(place)} is {kind(value)}, not an object")
        for each, item in found:
            if not rest:
                yield where, each, item
            elif isinstance(item, dict):
                yield from walk(item, rest, where, each)

    return walk(row, path.steps, where, ())


def _picked(items: Sequence[Any], picks: Sequence[tuple[Filter, ...]]) -> list[tuple[int, Any]]:
    """The (index, item) pairs that pass all filters of one of the picks, in order."""
    kept: dict[int, Any] = {}
    for filters in picks:
        left: Sequence[tuple[int, Any]] = list(enumerate(items))
        for each in filters:
            left = each.keep(left)
        kept.update(left)
    return sorted(kept.items(), key=lambda pair: pair[0])


def _size(row: Row, path: Path) -> int:
    """How many items the list on this path has."""
    node: Any = row
    for step in path.steps:
        node = node.get(step.key)
        if node is None or step.filters:
            break
    return len(node or ())


def _joined(group: Group, row: Row) -> tuple[tuple[Place, str], ...]:
    """The parts with text of all paths; the first of the parts where all are empty."""
    reached = (found for path in group.paths for found in _reach(row, path))
    parts = [part for _, place, value in reached for part in _parts(place, value)]
    return tuple(part for part in parts if part[1]) or tuple(parts[:1])


def _parts(place: Place, value: Any) -> tuple[tuple[Place, str], ...]:
    """A text with its place, or the text parts of a list of parts; empty where there is none."""
    if isinstance(value, str):
        return ((place, value),)
    if not isinstance(value, list):
        raise BrokenRow(f"{_spell(place)} is {kind(value)}, not text")
    texts = []
    for i, part in enumerate(value):
        if not isinstance(part, dict):
            raise BrokenRow(f"{_spell((*place, i))} is {kind(part)}, not a part of a text (an object with type, text)")
        if not isinstance(part.get("type"), str):  # a list of something else, as the turns of a chat
            raise BrokenRow(f"{_spell((*place, i))} has no type: not a part of a text (an object with type, text)")
        text = part.get("text")
        if part["type"] == "text" and text is not None:
            if not isinstance(text, str):
                raise BrokenRow(f"{_spell((*place, i, 'text'))} is {kind(text)}, not text")
            texts.append(((*place, i, "text"), text))
    return tuple(texts)


def _below(reached: Iterable[tuple[int, Place, Any]]) -> Iterator[tuple[int, Place, str]]:
    """(where, place, text) of every string at or below the values, in order."""
    stack = list(reached)[::-1]
    while stack:
        where, place, value = stack.pop()
        if isinstance(value, str):
            yield where, place, value
        elif isinstance(value, list):
            stack += [(where, (*place, i), item) for i, item in enumerate(value)][::-1]
        elif isinstance(value, dict):
            where = _where(value, where)
            stack += [(where, (*place, key), item) for key, item in value.items() if key not in NOT_TEXT][::-1]


def _where(item: Row, default: int) -> int:
    """What the item's speaker makes its text; `default` where it has none."""
    for tag in TAGS:
        speaker = item.get(tag)
        if isinstance(speaker, str):
            return COMPLETION if speaker in ASSISTANTS else PROMPT
    return default


def _spell(place: Place) -> str:
    """`messages[0].content` for its place in a row."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{quoted(key)}" for key in place).removeprefix(".")


def id_of(own: Any) -> str | None:
    """A row's own `id` as reports name it, where it is a text or a whole number.

    Lone surrogates are spelled out: no file of UTF-8 can hold them.
    """
    if not isinstance(own, str | int) or isinstance(own, bool):
        return None
    return str(own).encode("utf-8", "backslashreplace").decode()


def kind(value: Any) -> str:
    """What JSON calls a value."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    names = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
