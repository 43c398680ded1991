"""What is said of rows that cannot be used: a code each, where it stands, what was found and what was expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

SHOWN = 20  # bad rows that a report names one by one


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used. `line` counts from 1: the line of a text file, else the row."""

    file: str
    line: int
    code: str
    found: str
    expected: str
    text: str = ""  # the line as it stands, where no row came of it; bytes that are no UTF-8 as surrogates

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code}: {self.found}; expected {self.expected}"


@dataclass(slots=True)
class Tally:
    """All reasons with their counts, and the first rows in full. A row with two problems counts as one bad row."""

    n_rows: int = 0
    n_bad: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first: list[BadRow] = field(default_factory=list)
    _shown: int = 0

    def add(self, problems: Sequence[BadRow]) -> None:
        """Takes down the problems of one row."""
        self.n_bad += 1
        self.counts.update({bad.code for bad in problems})
        if self._shown < SHOWN:
            self._shown += 1
            self.first += problems

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.n_rows,
            "bad": self.n_bad,
            "codes": dict(sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))),
            "first": [
                {"file": b.file, "line": b.line, "code": b.code, "found": b.found, "expected": b.expected}
                for b in self.first
            ],
        }

    def lines(self) -> list[str]:
        """The report: how many, why, and the first rows."""
        counts = ", ".join(f"{code} {n}" for code, n in self.as_json()["codes"].items())
        head = f"{self.n_bad} of {self.n_rows} rows cannot be used: {counts}"
        more = [f"  … and {self.n_bad - self._shown} more rows"] if self.n_bad > self._shown else []
        return [head, *(f"  {bad}" for bad in self.first), *more]
