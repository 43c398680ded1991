"""AlpacaEval's two regression files, as the user has them: rows of gamed baselines, and difficulties of instructions.

`df_gamed.csv` and `instruction_difficulty.csv` of the hub dataset `tatsu-lab/alpaca_eval` (CC-BY-NC-4.0: not shipped).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalsuite.errors import DataError

COLUMNS = ("model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline")
N_BASELINES = 2  # a verbose and a concise one


@dataclass(frozen=True, slots=True)
class Gamed:
    """Rows of the gamed baselines that have a preference (0 to 1), in file order, and each instruction's difficulty."""

    preference: tuple[float, ...]
    std_delta_len: tuple[float, ...]
    difficulty: tuple[float, ...]
    difficulties: Mapping[int, float]


def read_gamed(path: Path) -> Gamed:
    """Reads df_gamed.csv; raises DataError when it has other columns or an instruction twice, or lacks one."""
    rows = list(_read(path, COLUMNS))
    _check_index(path, rows)
    difficulties: dict[int, float] = {}
    for row in rows:
        difficulties.setdefault(int(row["index"]), row["instruction_difficulty"])
    judged = [row for row in rows if not math.isnan(row["preference"])]
    if any(not 0 <= row["preference"] <= 1 for row in judged):
        raise DataError(f"{path}: a preference is not between 0 and 1")
    return Gamed(
        tuple(row["preference"] for row in judged),
        tuple(row["std_delta_len"] for row in judged),
        tuple(row["instruction_difficulty"] for row in judged),
        difficulties,
    )


def read_difficulties(path: Path) -> dict[int, float]:
    """Reads instruction_difficulty.csv (position, difficulty); raises DataError for a position twice or missing."""
    found: dict[int, float] = {}
    for number, (position, difficulty) in enumerate(_two_columns(path), 2):
        if position in found:
            raise DataError(f"{path}: line {number}: position {position} is there twice; expected each once")
        found[position] = difficulty
    _check_complete(path, "", found)
    return found


def _read(path: Path, columns: Sequence[str]) -> Iterator[dict[str, float]]:
    """Rows as numbers; a model's name becomes its order of appearance, an empty cell NaN."""
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        names = reader.fieldnames or []
        if lacking := [c for c in columns if c not in names]:
            raise DataError(
                f"{path}: lacks {', '.join(lacking)}; it has {', '.join(names)}, expected {', '.join(columns)}"
            )
        models: dict[str, int] = {}
        for row in reader:
            try:
                yield {c: _number(row[c], models if c == "model" else None) for c in columns}
            except (ValueError, TypeError):
                raise DataError(f"{path}: line {reader.line_num}: not numbers: {row!r:.200}") from None


def _number(text: str, models: dict[str, int] | None) -> float:
    if models is not None:
        return models.setdefault(text, len(models))
    return {"": math.nan, "True": 1.0, "False": 0.0}[text] if text in ("", "True", "False") else float(text)


def _two_columns(path: Path) -> Iterator[tuple[int, float]]:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader, None)
        for row in reader:
            try:
                yield int(row[0]), float(row[1])
            except (ValueError, IndexError):
                raise DataError(
                    f"{path}: line {reader.line_num}: {row!r:.100}; expected a position and a difficulty"
                ) from None


def _check_index(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    if any(row["not_gamed_baseline"] != 0 for row in rows):
        raise DataError(f"{path}: not_gamed_baseline is not False in every row; expected gamed baselines only")
    by_model: dict[float, dict[int, float]] = {}
    for row in rows:
        seen = by_model.setdefault(row["model"], {})
        if row["index"] in seen:
            raise DataError(f"{path}: index {int(row['index'])} is there twice for one model; expected each once")
        seen[int(row["index"])] = 0.0
    if len(by_model) != N_BASELINES:
        raise DataError(f"{path}: {len(by_model)} models, expected {N_BASELINES} gamed baselines")
    every = set().union(*by_model.values())
    for seen in by_model.values():
        _check_complete(path, " for one model", {**dict.fromkeys(seen, 0.0)}, n=max(every, default=-1) + 1)


def _check_complete(path: Path, whose: str, found: Mapping[int, float], n: int | None = None) -> None:
    missing = set(range(len(found) if n is None else n)) - found.keys()
    if missing or not found:
        first = f"index {min(missing)} is missing{whose}" if missing else "no rows"
        raise DataError(f"{path}: {first}; expected every position from 0 on")
