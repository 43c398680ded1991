"""How often a judge of preferences agrees with people: both outputs of a row are rated, the higher mean is its choice.

For files like LLMBar's (Zeng et al. 2024, arXiv 2310.07641): `input`, `output_1`, `output_2`, `label` (1 or 2, the
output that people hold better), `subset`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

from evalsuite.errors import DataError
from evalsuite.types import Message
from train_plugins.data.badrows import BadRow
from train_plugins.data.containers import read_lines
from train_plugins.data.ratings import Grading, Item, Rated, rate

FIELDS = ("input", "output_1", "output_2", "label")
Outcome = Literal["agree", "disagree", "tie", "failed"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Counts of rows; a row whose outputs have the same mean is a tie, one without enough ratings has failed.

    `share` is of the rows that are neither; `low` and `high` are its 95 % Wilson interval.
    """

    n: int
    n_agree: int
    n_disagree: int
    n_ties: int
    n_failed: int

    @property
    def share(self) -> float | None:
        decided = self.n_agree + self.n_disagree
        return self.n_agree / decided if decided else None

    @property
    def interval(self) -> tuple[float, float] | None:
        n, z = self.n_agree + self.n_disagree, NormalDist().inv_cdf(0.975)
        if not n:
            return None
        p = self.n_agree / n
        middle, width = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
        scale = 1 + z * z / n
        return max(0.0, (middle - width) / scale), min(1.0, (middle + width) / scale)

    def as_json(self) -> dict[str, Any]:
        low, high = self.interval or (None, None)
        counts = {"n": self.n, "agree": self.n_agree, "disagree": self.n_disagree, "ties": self.n_ties}
        return {**counts, "failed": self.n_failed, "agreement": self.share, "low": low, "high": high}


def measure_agreement(rows: Sequence[Mapping[str, Any]], grading: Grading) -> dict[str, Agreement]:
    """Agreement over "all" rows, then by subset. The order in which the outputs are shown is drawn for each row."""
    items = [_item(number, row) for number, row in enumerate(rows, 1)]
    rated = rate(items, grading)
    outcomes: dict[str, list[Outcome]] = {"all": []}
    for item, row in zip(items, rows, strict=True):
        outcome = _outcome(rated[item.id], int(row["label"]), grading.least)
        outcomes["all"].append(outcome)
        outcomes.setdefault(str(row.get("subset") or "none"), []).append(outcome)
    return {name: _counted(found) for name, found in outcomes.items()}


def read_judged(path: Path) -> list[dict[str, Any]]:
    """The rows of a file with people's choices. Raises DataError with file:line."""
    found = []
    for line, row in read_lines(path):
        if isinstance(row, BadRow):
            raise DataError(str(row))
        for bad in _problems(path, line, row):
            raise DataError(str(bad))
        found.append(dict(row))
    if not found:
        raise DataError(f"{path} has no rows; expected {', '.join(FIELDS)} and subset")
    return found


def _item(number: int, row: Mapping[str, Any]) -> Item:
    texts = {name: row[name] for name in ("output_1", "output_2")}
    return Item(f"row{number}", (Message("user", row["input"]),), texts)


def _problems(path: Path, line: int, row: Any) -> Iterator[BadRow]:
    expected = f"an object with {', '.join(FIELDS)}"
    if not isinstance(row, Mapping) or (lacking := [name for name in FIELDS if name not in row]):
        found = f"no {', '.join(lacking)}" if isinstance(row, Mapping) else "no object"
        yield BadRow(str(path), line, "missing_field", found, expected)
        return
    if wrong := [name for name in FIELDS[:3] if not isinstance(row[name], str)]:
        yield BadRow(str(path), line, "wrong_type", f"{', '.join(wrong)} is no text", "text")
    if str(row["label"]) not in ("1", "2"):
        yield BadRow(str(path), line, "wrong_type", f"label is {row['label']!r}", "1 or 2, the better output")


def _outcome(rated: Rated, label: int, least: int) -> Outcome:
    first, second = (rated.mean(f"output_{number}") for number in (1, 2))
    if rated.lacking(least) or first is None or second is None:
        return "failed"
    if first == second:
        return "tie"
    return "agree" if (first > second) == (label == 1) else "disagree"


def _counted(outcomes: Sequence[Outcome]) -> Agreement:
    return Agreement(len(outcomes), *(outcomes.count(each) for each in ("agree", "disagree", "tie", "failed")))
