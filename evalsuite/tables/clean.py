"""Scores without the samples that training data touched, from the id lists that decontamination writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalsuite.compare import is_mean, value_on
from evalsuite.errors import UsageError
from evalsuite.scorecard import Result

FOLDER = "clean_ids"  # of <benchmark>.txt, one id of a touched sample a line
Touched = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Delta:
    """The score on the samples that are not touched, less the whole; `n_touched` of `n` samples are left out."""

    value: float
    n_touched: int
    n: int


def read_touched(folders: Sequence[Path], *, required: bool = False) -> dict[str, frozenset[str]]:
    """Benchmark to touched sample ids, of all id lists anywhere below the folders.

    Reports of several training sets add up: a sample is clean when none of them touched it. Raises UsageError naming a
    list that cannot be read and, when they are `required`, a folder without any.
    """
    empty = [str(folder) for folder in folders if required and not _lists(folder)]
    if empty:
        raise UsageError(f"{', '.join(empty)}: no {FOLDER}/<benchmark>.txt below; expected a decontamination report")
    touched: dict[str, frozenset[str]] = {}
    for path in sorted({path for folder in folders for path in _lists(folder)}):
        try:
            lines = path.read_text(encoding="utf-8").split("\n")  # an id may hold any other separator
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read ({error}); expected one sample id a line") from error
        touched[path.stem] = touched.get(path.stem, frozenset()) | {line.rstrip("\r") for line in lines} - {""}
    return touched


def read_reported(folders: Sequence[Path]) -> dict[str, frozenset[str]]:
    """The same, with an empty entry for each benchmark that a report (verdict.json) is about and no list names.

    Raises UsageError for a folder without any list, and for a verdict that cannot be read.
    """
    touched = read_touched(folders, required=True)
    return {name: touched.get(name, frozenset()) for name in (*touched, *_reported(folders))}


def _reported(folders: Sequence[Path]) -> Iterator[str]:
    for path in (path for folder in folders for path in sorted(folder.rglob("verdict.json"))):
        try:
            yield from json.loads(path.read_text(encoding="utf-8"))["evals"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: not a decontamination verdict ({type(error).__name__}: {error})") from error


def _lists(folder: Path) -> list[Path]:
    own = list(folder.glob("*.txt")) if folder.name == FOLDER else []
    return own + [path for found in folder.rglob(FOLDER) for path in found.glob("*.txt")]


def delta(result: Result | None, touched: Touched) -> Delta | None:
    """None where no sample is touched, none is left, or samples do not make up the number."""
    of = _of(result, touched) if result is not None else set()
    if result is None or result.value is None or not of or not is_mean(result):
        return None
    ids = result.scores.keys() - of
    if len(ids) == result.n or not ids:
        return None
    if result.members and any(not (m.scores.keys() - touched.get(m.benchmark, frozenset())) for m in result.members):
        return None
    return Delta(value_on(result, ids) - result.value, result.n - len(ids), result.n)


def _of(result: Result, touched: Touched) -> set[str]:
    if not result.members:
        return set(touched.get(result.benchmark, ()))
    return {f"{m.benchmark}/{i}" for m in result.members for i in touched.get(m.benchmark, ())}
