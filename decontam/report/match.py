"""A match as matches.jsonl has it, read back: what was found, where, and the runs on both sides."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from decontam.errors import DecontamError

Key = tuple[str, str, int, int, str, str]


class Run(NamedTuple):
    """A stretch that both sides share, in characters. `field` is "" for all fields joined by newlines."""

    train: tuple[int, int]
    field: str
    eval: tuple[int, int]
    k: int


@dataclass(frozen=True, slots=True)
class Match:
    """One message that holds one instance. `covered` and `capped` are (covered positions, positions) per field."""

    dataset: str
    file: str
    row: int
    id: str | None
    turn: int
    where: str
    eval: str
    kind: str
    instance: str
    score: float
    flags: tuple[str, ...]
    runs: tuple[Run, ...]
    covered: tuple[tuple[int, int], ...] = ()
    capped_score: float = 0.0
    capped: tuple[tuple[int, int], ...] = ()
    common_share: float = 0.0
    rule: str = ""

    @property
    def key(self) -> Key:
        """What names the match within one report."""
        return (self.dataset, self.file, self.row, self.turn, self.eval, self.instance)

    @property
    def boilerplate(self) -> bool:
        """Whether the exact rule flags it and the cap on common phrases acquits it."""
        return "exact" in self.flags and "capped" not in self.flags and "short" not in self.flags


def read_matches(path: Path) -> Iterator[Match]:
    """The matches of a file in order; raises DecontamError naming the line that is none."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield parse(line, f"{path}:{number}")
    except OSError as error:
        raise DecontamError(f"{path}: cannot be read ({error.strerror}); expected the folder of a scan") from error


def parse(line: str | bytes, where: str = "a line") -> Match:
    """One line of matches.jsonl or near.jsonl."""
    try:
        return _match(_loads(line))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DecontamError(f"{where} is no match ({type(error).__name__}: {error}); scan again") from error


def _loads(line: str | bytes) -> Any:
    import orjson

    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:  # it refuses lone surrogates, which a name or an id may hold
        return json.loads(line)


def _match(raw: Mapping[str, Any]) -> Match:
    return Match(
        raw["dataset"],
        raw["file"],
        int(raw["row"]),
        raw["id"],
        int(raw["turn"]),
        raw["where"],
        raw["eval"],
        raw["kind"],
        raw["instance"],
        float(raw["score"]),
        tuple(raw["flags"]),
        tuple([_run(run) for run in raw["runs"]]),
        _pairs(raw.get("covered", ())),
        float(raw.get("capped_score", 0.0)),
        _pairs(raw.get("capped", ())),
        float(raw.get("common_share", 0.0)),
        raw.get("rule", ""),
    )


def _run(raw: Mapping[str, Any]) -> Run:
    (a, b), (c, d) = raw["train"], raw["eval"]
    return Run((int(a), int(b)), raw.get("field", ""), (int(c), int(d)), int(raw.get("k", 0)))


def _pairs(raw: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
    return tuple([(int(a), int(b)) for a, b in raw])
