"""The data that the parts of decontamination hand to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["development", "unseen", "safety"]
Where = Literal["prompt", "completion"]
WHERE: tuple[Where, ...] = ("prompt", "completion")  # a message's `where` is an index of this


@dataclass(frozen=True, slots=True)
class EvalSet:
    """The texts of one eval that training data must not hold.

    `texts` has one tuple an instance with one text a field, None where the instance lacks the field. `ids` are those of
    the scorecards. `digest` is of what the eval read, as scorecards and the gate know it; else of the texts themselves.
    """

    name: str
    kind: Kind
    fields: tuple[str, ...]
    ids: tuple[str, ...]
    texts: tuple[tuple[str | None, ...], ...]
    digest: str
    source: str = ""  # where it came from, for reports


class Window(NamedTuple):
    """Positions start..stop-1 of a field, whose words must stand in a message one after the other."""

    start: int
    stop: int
    phrase: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """One text of an instance under a rule.

    `n` counts positions (spaCy tokens for tulu3, words for others); `spans` are their character offsets, one
    (from, to) a position. A field without windows cannot be matched.
    """

    n: int
    spans: tuple[tuple[int, int], ...]
    windows: tuple[Window, ...]


class Message(NamedTuple):
    """A text of a training row, matched as a whole. `turn` is its number in the row, `where` an index of WHERE."""

    turn: int
    where: int
    text: str


@dataclass(frozen=True, slots=True)
class Need:
    """What a raw JSON line must show of one key before it may stay unparsed.

    Each occurrence of the key as a key must be followed by a value whose first byte is one of `follow`, and where
    `follow` is empty, by an empty string or null. With `required` the key must occur, with `value` as that string.
    """

    key: str
    follow: str
    required: bool = True
    value: str = ""


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of one file: bytes start..stop of a plain file (its rows are those whose line starts there), or row groups
    start..stop of a Parquet or Arrow file. Compressed files are one shard: start 0, stop -1."""

    number: int
    dataset: str
    file: str  # as reports name it: the path given, with what lies below a folder
    path: str
    format: Literal["jsonl", "jsonl.gz", "jsonl.zst", "parquet", "arrow"]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """What one shard held. `broken` has (row, why) of the first twenty broken rows; row numbers start at 0."""

    n_rows: int = 0
    n_parsed: int = 0  # rows that had to be parsed
    n_unselected: int = 0  # parsed rows in which the selectors found nothing
    n_broken: int = 0
    n_bytes: int = 0  # uncompressed
    broken: tuple[tuple[int, str], ...] = ()
    complete: bool = True  # False when the file ended early
    why: str = ""
    fields: Mapping[str, int] = field(default_factory=dict)  # keys of unselected rows, for the error message
