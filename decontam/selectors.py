"""The language of field selectors: `messages[role=user].content`, `instruction+input`, `meta.question`, `chosen.**`.

A selector is one path, or several joined by `+`. A path is keys with dots between them. After a key may stand filters
of the list found there: `[*]` all items, `[key=value]` the objects with that text, `[n]` the n-th of those left, from
the end where n is negative. A final `**` means each text below. A key that has one of `.[]+` stands in double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from decontam.errors import DecontamError

EXAMPLES = "messages[role=user].content, instruction+input, meta.question or text"
BELOW = "**"
_KEY = re.compile(r'"([^"]+)"|([^.\[\]+"]+)')
_PAIR = re.compile(r"([^=:\s]+)\s*(?:=|==|:)\s*(\S(?:.*\S)?)")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items of a list: those whose `key` is `value`, or the one at `index` of those left, or all."""

    key: str = ""
    value: str = ""
    index: int | None = None

    def keep(self, items: Sequence[tuple[int, Any]]) -> Sequence[tuple[int, Any]]:
        """The (index, item) pairs that pass."""
        if self.key:
            return [pair for pair in items if isinstance(pair[1], dict) and pair[1].get(self.key) == self.value]
        if self.index is None:
            return items
        place = self.index + len(items) if self.index < 0 else self.index
        return [items[place]] if 0 <= place < len(items) else []


@dataclass(frozen=True, slots=True)
class Step:
    """A key, and where a list of which items are meant is found there, its filters."""

    key: str
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """The steps from the row to a text, or with `below` to where all texts are meant."""

    steps: tuple[Step, ...]
    below: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(step.key for step in self.steps)

    @property
    def lists(self) -> int:
        """How many of the steps go through a list."""
        return sum(bool(step.filters) for step in self.steps)


@dataclass(frozen=True, slots=True)
class Selector:
    """One way to a text of a row: a path, or several whose texts are joined by newline."""

    text: str
    paths: tuple[Path, ...]


def parse_selector(text: str) -> Selector:
    """The selector that `text` spells; raises DecontamError with the place and, where there is one, the near miss."""
    parser = _Parser(text.strip())
    paths = parser.read()
    if len(paths) > 1 and any(path.lists or path.below for path in paths):
        raise parser.error("`+` joins plain fields, without [ ] and **")
    return Selector(parser.text, tuple(paths))


def quoted(key: str) -> str:
    """The key as a selector writes it."""
    return key if _KEY.fullmatch(key) and key.strip() == key and key != BELOW and '"' not in key else f'"{key}"'


class _Parser:
    """Reads a selector from left to right; `at` is the next character."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def error(self, why: str) -> DecontamError:
        return DecontamError(f"selector {self.text!r}: {why} (a selector reads like {EXAMPLES})")

    def read(self) -> list[Path]:
        paths = [self.path()]
        while self.take("+"):
            paths.append(self.path())
        if self.at < len(self.text):
            raise self.error(f"unexpected {self.text[self.at]!r} at character {self.at + 1}")
        return paths

    def take(self, mark: str) -> bool:
        found = self.text.startswith(mark, self.at)
        self.at += len(mark) * found
        return found

    def path(self) -> Path:
        steps = [self.step()]
        while self.take("."):
            if self.text.startswith(BELOW, self.at):
                self.at += len(BELOW)
                return Path(tuple(steps), below=True)
            steps.append(self.step())
        return Path(tuple(steps))

    def step(self) -> Step:
        found = _KEY.match(self.text, self.at)
        if found is None:
            raise self.error(f"a field name is expected at character {self.at + 1}")
        key = found[1] or found[2].strip()
        if not key or key == "*" or key == BELOW:
            raise self.error(f"a field name is expected at character {found.start() + 1}, not {found[0]!r}")
        self.at = found.end()
        filters = []
        while self.take("["):
            filters.append(self.filter())
        return Step(key, tuple(filters))

    def filter(self) -> Filter:
        end = self.text.find("]", self.at)
        if end < 0:
            raise self.error(f"the '[' at character {self.at} has no ']'")
        inside = self.text[self.at : end].strip()
        self.at = end + 1
        if inside == "*":
            return Filter()
        if re.fullmatch(r"-?\d{1,9}", inside):
            return Filter(index=int(inside))
        pair = _PAIR.fullmatch(inside)
        if pair and "=" in inside and not pair[2].startswith("="):
            return Filter(pair[1], pair[2].strip("'\""))
        meant = f"{pair[1]}={pair[2].lstrip('=')}" if pair else f"role={inside}" if inside.isalpha() else "*"
        raise self.error(f"[{inside}] is neither [*], [number] nor [key=value]; did you mean [{meant}]?")
