"""Changes one JSON line in its text, so that everything that is not changed keeps its bytes.

Number formats, white space, escapes and key order survive, which no parser and writer together would promise.
"""

from __future__ import annotations

import json
import re
from json.decoder import scanstring  # type: ignore[attr-defined] # not in typeshed; in CPython since 2.6
from typing import Any, NamedTuple

from decontam.clean.change import TAG, Change, Node, Tag, tree
from decontam.errors import DecontamError

_BLANK = re.compile(r"[ \t\r\n]*")
_LONE = re.compile("[\ud800-\udfff]")
# Only where values end is asked of it: numbers stay text, as an int of 5,000 digits is refused by Python.
_SKIP = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)


class _Item(NamedTuple):
    """A member of an object or an element of a list: its key, where it starts, where its value starts and stops."""

    key: str | int
    start: int
    value: int
    stop: int


class _Cut(NamedTuple):
    start: int
    stop: int
    text: str


def rewrite(line: str, change: Change) -> str:
    """The line with the new texts, without the removed elements and with the tags.

    A value that a later one of the same key hides goes too where the key is changed: no reader sees it, and it may hold
    what was cut.
    """
    cuts: list[_Cut] = []
    start = _blank(line, 0)
    plan = tree(change)
    if plan.children:
        _walk(line, start, plan, cuts)
    if change.tags:
        _tag(line, start, change.tags, cuts)
    return _apply(line, cuts)


def _walk(line: str, start: int, node: Node, cuts: list[_Cut]) -> None:
    if node.text is not None:
        cuts.append(_Cut(start, _end(line, start), _dumps(node.text, line)))
        return
    items = _items(line, start)
    last = {item.key: i for i, item in enumerate(items)}
    hidden = {i for i, item in enumerate(items) if last[item.key] != i and item.key in node.children}
    gone = hidden | set(node.removed)
    cuts.extend(_without(items, gone))
    for key, child in node.children.items():
        if last[key] not in gone:
            _walk(line, items[last[key]].value, child, cuts)


def _items(line: str, start: int) -> list[_Item]:
    is_object = line[start] == "{"
    close = "}" if is_object else "]"
    at = _blank(line, start + 1)
    items: list[_Item] = []
    while line[at] != close:
        value, key = at, len(items)
        if is_object:
            key, value = scanstring(line, at + 1, False)
            value = _blank(line, _blank(line, value) + 1)  # over the colon
        stop = _end(line, value)
        items.append(_Item(key, at, value, stop))
        at = _blank(line, stop)
        if line[at] == ",":
            at = _blank(line, at + 1)
    return items


def _without(items: list[_Item], gone: set[int]) -> list[_Cut]:
    """Takes each out with the comma before it, and those before the first that stays with the comma after them."""
    cuts = []
    first = next((i for i in range(len(items)) if i not in gone), len(items))
    for i in sorted(gone):
        if i > first:
            cuts.append(_Cut(items[i - 1].stop, items[i].stop, ""))
        else:
            cuts.append(_Cut(items[i].start, items[i + 1].start if i + 1 < len(items) else items[i].stop, ""))
    return cuts


def _tag(line: str, start: int, tags: tuple[Tag, ...], cuts: list[_Cut]) -> None:
    items = _items(line, start)
    before = line[items[0].start : items[0].value]
    colon = ": " if before.endswith(" ") else ":"
    comma = ", " if colon == ": " else ","
    value = _dumps([tag.as_dict() for tag in tags], line, (comma, colon))
    own = [i for i, item in enumerate(items) if item.key == TAG]
    if not own:
        cuts.append(_Cut(items[-1].stop, items[-1].stop, f'{comma}"{TAG}"{colon}{value}'))
        return
    check_tag(json.loads(line[items[own[-1]].value : items[own[-1]].stop]))
    cuts.extend(_without(items, set(own[:-1])))
    cuts.append(_Cut(items[own[-1]].value, items[own[-1]].stop, value))


def check_tag(value: Any) -> None:
    """Raises DecontamError where a row has a field of the name that `tag` writes, with something else in it."""
    entries = value if isinstance(value, list) else [value]
    if value is not None and not all(isinstance(e, dict) and set(e) == {"eval", "instance", "score"} for e in entries):
        raise DecontamError(
            f"a row already has a field {TAG!r} that is no tag of an earlier clean; rename it, or use another --how"
        )


def _dumps(value: Any, line: str, separators: tuple[str, str] = (", ", ": ")) -> str:
    told = json.dumps(value, ensure_ascii=line.isascii(), separators=separators)
    return _LONE.sub(lambda lone: f"\\u{ord(lone[0]):04x}", told)  # UTF-8 has no lone surrogates


def _apply(line: str, cuts: list[_Cut]) -> str:
    parts: list[str] = []
    at = 0
    for cut in sorted(cuts, key=lambda cut: (cut.start, -cut.stop)):
        if cut.start >= at:  # else it lies in what is taken out already
            parts += line[at : cut.start], cut.text
            at = cut.stop
    return "".join([*parts, line[at:]])


def _blank(line: str, at: int) -> int:
    found = _BLANK.match(line, at)
    return found.end() if found else at


def _end(line: str, start: int) -> int:
    return _SKIP.raw_decode(line, start)[1]
