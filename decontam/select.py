"""Which texts of a training row are matched: selectors given or found, and the messages they pick from a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from decontam.errors import BrokenRow, DecontamError, did_you_mean
from decontam.row import COMPLETION, PROMPT, TAGS, Group, Place, kind, reader_of, spots_of
from decontam.selectors import Filter, Selector, parse_selector, quoted
from decontam.types import Message, Need

SCAN_ALL = "--scan all"  # stands in a Selection's spec as its last entry
COMPLETIONS = (
    *("completion", "completions", "response", "responses", "output", "outputs", "output_1", "output_2"),
    *("answer", "answers", "chosen", "rejected", "solution", "solutions", "target", "targets", "reply"),
    *("generation", "generations"),
)
DIALOGUES = ("messages", "conversations", "conversation")
EVERY = (Filter(),)
LEAVES = ("content", "value")  # the key of a message that holds its text


class Part(NamedTuple):
    """Characters start..stop-1 of a message are those of the string at `path` in the row."""

    path: Place
    start: int
    stop: int


class Selection:
    """The selectors of a dataset. `messages(row)` has the texts they pick; `spec` parses back to an equal Selection.

    `needs` says what a JSON line must show to be left unparsed; None where each has to be parsed.
    """

    def __init__(self, selectors: Sequence[Selector], scan_all: bool = False, parse_all: bool = False) -> None:
        self.selectors, self.scan_all, self.parse_all = tuple(selectors), scan_all, parse_all
        self.spec = [selector.text for selector in selectors] + [SCAN_ALL] * scan_all
        self.groups = _groups([*selectors, *_others(selectors)] if scan_all else selectors)
        self.needs = None if parse_all else _needs(self.groups)
        self._readers = tuple(reader_of(group) for group in self.groups)

    def __reduce__(self) -> tuple[Any, ...]:
        return Selection, (self.selectors, self.scan_all, self.parse_all)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self.spec == other.spec

    def __hash__(self) -> int:
        return hash(tuple(self.spec))

    def __repr__(self) -> str:
        return f"Selection({self.spec})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The top-level fields that are read."""
        return tuple(dict.fromkeys(path.steps[0].key for group in self.groups for path in group.paths))

    def with_scan_all(self) -> Selection:
        """This selection and, in any row, assistant turns, completions and answers."""
        return Selection(self.selectors, True, self.parse_all)

    def checked(self, rows: Iterable[Mapping[str, Any]]) -> Selection:
        """This selection, with all lines to be parsed where its first selector picks nothing in any of these rows.

        Needs look at keys wherever they stand in a line: `text` below another key passes for the `text` of the row, and
        only parsing would tell that no row has what is selected.
        """
        for row in rows:
            found: list[Message] = []
            with suppress(BrokenRow):
                self._readers[0](row, 0, found)
            if found:
                return self
        return Selection(self.selectors, self.scan_all, parse_all=True)

    def messages(self, row: Mapping[str, Any]) -> list[Message]:
        """The texts picked from a row, in order of turns; raises BrokenRow where one is no text. No key is no text."""
        if not isinstance(row, dict):
            raise BrokenRow(f"the row is {kind(row)}, not an object")
        found: list[Message] = []
        turn = 0
        for read in self._readers:
            turn = read(row, turn, found)
        return found

    def locate(self, row: Mapping[str, Any], turn: int) -> list[Part]:
        """Where the characters of that message stand in the row; the newlines between joined parts are in none."""
        first = 0
        for group in self.groups:
            spots, first = spots_of(group, row, first)
            for spot in spots:
                if spot.turn == turn:
                    return _ranges(spot.parts)
        raise KeyError(f"no message with turn {turn} in this row")


def parse_selectors(texts: Sequence[str]) -> Selection:
    """The selection that these selectors spell; raises DecontamError. A Selection's spec gives that Selection back."""
    plain = [text for text in texts if text != SCAN_ALL]
    if not plain:
        raise DecontamError("no selector given (write for example messages[role=user].content or text)")
    unique = {selector.text: selector for selector in map(parse_selector, plain)}
    return Selection(tuple(unique.values()), scan_all=len(plain) < len(texts))


def auto_select(rows: Sequence[Mapping[str, Any]], dataset: str = "the dataset") -> Selection:
    """The selectors that fit the first rows; raises DecontamError with the fields there are where none does.

    `messages`, `conversations`: user turns; `chosen` and `rejected`: user turns, or whole where they are text, with the
    `prompt` where there is one; else `instruction` and `input`; else `prompt`, `question` or `text`. What few rows have
    yields to what twice as many have.
    """
    seen: dict[str, list[Any]] = {}
    for row in rows:
        for key, value in row.items():
            if value is not None:
                seen.setdefault(key, []).append(value)

    def fitting(*keys: str) -> list[str]:
        return [text for key in keys for text in _prompts_in(key, seen.get(key, ()))]

    pair = fitting("chosen", "rejected")
    alpaca = fitting("instruction")
    if alpaca == ["instruction"] and fitting("input") == ["input"]:
        alpaca = ["instruction+input"]
    choices = [fitting("messages"), fitting("conversations"), pair and fitting("prompt", "chosen", "rejected"), alpaca]
    choices += [fitting(key) for key in ("prompt", "question", "text")]
    fits = [(_n_picked(selection, rows), selection) for selection in map(parse_selectors, filter(None, choices))]
    most = max((n for n, _ in fits), default=0)
    for n, selection in fits:
        if 2 * n >= most:
            return selection
    known = ", ".join(sorted(seen)) or "none"
    raise DecontamError(f"{dataset}: no field is known to hold prompts; fields: {known} (choose with --select FIELD)")


def _n_picked(selection: Selection, rows: Iterable[Mapping[str, Any]]) -> int:
    """In how many rows there is a text."""
    n = 0
    for row in rows:
        with suppress(BrokenRow):
            n += bool(selection.messages(row))
    return n


def nothing_selected(selection: Selection, fields: Mapping[str, int], dataset: str) -> DecontamError:
    """The error for a dataset in which no row had what the selectors pick; `fields` counts the rows that have each."""
    heads = [path.steps[0].key for selector in selection.selectors for path in selector.paths]
    near = next((hint for head in heads if head not in fields and (hint := did_you_mean(head, fields))), "")
    known = ", ".join(f"{key} ({n})" for key, n in sorted(fields.items(), key=lambda item: (-item[1], item[0])))
    given = ", ".join(repr(selector.text) for selector in selection.selectors)
    return DecontamError(
        f"{dataset}: no row has text at {given}{near}; fields and rows that have them: {known or 'none'}"
        " (choose with --select FIELD)"
    )


def _ranges(texts: Iterable[tuple[Place, str]]) -> list[Part]:
    parts, start = [], 0
    for path, text in texts:
        parts.append(Part(path, start, start + len(text)))
        start += len(text) + 1
    return parts


def _prompts_in(key: str, values: Sequence[Any]) -> list[str]:
    """Selectors of the prompts in a field with such values, as most of them are; none where that shape is unknown."""
    name = quoted(key)
    shapes = Counter(type(value) for value in values if value != [])
    if not shapes:
        return []
    shape = shapes.most_common(1)[0][0]
    values = [value for value in values if type(value) is shape]
    if shape is str:
        return [name]
    turns = [item for value in values if isinstance(value, list) for item in value]
    if any(isinstance(turn, str) for turn in turns):
        return [f"{name}[*]"]
    single = [value for value in values if isinstance(value, dict)]
    objects = [turn for turn in turns if isinstance(turn, dict)] or single
    leaf = next((leaf for leaf in LEAVES if any(leaf in item for item in objects)), None)
    tag = next((tag for tag in TAGS if any(tag in item for item in objects)), None)
    if leaf is None or (tag is None and objects is not single):
        return []
    if objects is single:
        return [f"{name}.{leaf}"]
    speakers = {item.get(tag) for item in objects if isinstance(item.get(tag), str)}
    users = [user for user in ("user", "human") if user in speakers] or ["human" if tag == "from" else "user"]
    return [f"{name}[{tag}={user}].{leaf}" for user in users]


def _others(selectors: Sequence[Selector]) -> list[Selector]:
    """What `--scan all` reads besides: the other turns of the lists, and every text of fields known to hold answers."""
    texts = []
    for selector in selectors:
        path = selector.paths[0]
        if path.lists == 1 and not path.below:
            texts.append(".".join(quoted(step.key) + "[*]" * bool(step.filters) for step in path.steps))
    heads = {path.steps[0].key for selector in selectors for path in selector.paths}
    texts += [f"{key}.**" for key in (*DIALOGUES, *COMPLETIONS) if key not in heads]
    return [parse_selector(text) for text in dict.fromkeys(texts)]


def _groups(selectors: Iterable[Selector]) -> tuple[Group, ...]:
    selectors = list(selectors)
    plain = [path for selector in selectors for path in selector.paths if not path.below]
    # A pair of transcripts holds its prompt; beside a prompt, the pair is what follows it.
    transcripts = {path.steps[0].key for path in plain} <= {"chosen", "rejected"}
    grouped: dict[tuple[Any, ...], Group] = {}
    for selector in selectors:
        path = selector.paths[0]
        one_list = path.lists == 1 and not path.below
        picks = tuple(step.filters for step in path.steps if step.filters) if one_list else ()
        key = ("list", path.keys, tuple(bool(step.filters) for step in path.steps)) if one_list else (selector.text,)
        if key in grouped:
            group = grouped[key]
            both = tuple(dict.fromkeys(group.picks + picks))
            grouped[key] = group._replace(picks=(EVERY,) if EVERY in both else both)
            continue
        answers = set(path.keys) & set(COMPLETIONS) and not (transcripts and not path.below and not path.lists)
        grouped[key] = Group(selector.paths, picks, COMPLETION if answers else PROMPT)
    return tuple(grouped.values())


def _needs(groups: Sequence[Group]) -> tuple[Need, ...] | None:
    """What makes it sure, without parsing, that a row has text at the first selector and is not broken at the others.

    The windows of a message stand in the raw line one after the other unless its text is put together: from fields
    joined by `+`, of which at most one may then have text, or from a list of parts.
    """
    if groups[0].paths[0].below:
        return None
    needs: list[Need] = []
    for number, group in enumerate(groups):
        if group.paths[0].below:
            continue  # each text is a string of its own, and nothing there is broken
        for place, path in enumerate(group.paths):
            first = number == place == 0
            null = "" if first else "n"
            *inner, leaf = path.steps
            if leaf.filters:
                return None  # a list of texts: nothing in the line tells what its items are
            needs += [Need(step.key, ("[" if step.filters else "{") + null, first) for step in inner]
            needs.append(Need(leaf.key, "", False) if place else Need(leaf.key, '"' + null, first))
            if first:
                needs += [Need(f.key, '"', True, f.value) for step in inner for f in step.filters if f.key]
    return tuple(dict.fromkeys(needs))
