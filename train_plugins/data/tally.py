"""Counts of a finished mix: rows and tokens by skill, licence, origin, maker and length."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalsuite.errors import UsageError
from train_plugins.data.filters import texts
from train_plugins.data.licences import spelled
from train_plugins.data.mixfile import Source

CountFn = Callable[[Mapping[str, Any]], int]


def count_words(row: Mapping[str, Any]) -> int:
    """Words of all messages: what stands in for tokens where no tokenizer is given."""
    return sum(len(text.split()) for text in texts(row))


def counter(tokenizer: Path | None) -> CountFn:
    """Counts the tokens of a row by `tokenizer.json` of a folder, the template's own left out; words without one."""
    if tokenizer is None:
        return count_words
    file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    if not file.is_file():
        raise UsageError(f"{tokenizer}: no tokenizer.json; expected the folder of a model")
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(file))
    return lambda row: sum(len(made.encode(text, add_special_tokens=False).ids) for text in texts(row))


@dataclass(slots=True)
class Tally:
    """Adds up rows as they are written. A row of a source with two skills counts for both."""

    sources: Mapping[str, Source]
    count: CountFn = count_words
    rows: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    tokens: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    lengths: array[int] = field(default_factory=lambda: array("L"))

    def add(self, source: str, row: Mapping[str, Any]) -> None:
        n = self.count(row)
        self.rows[source] += 1
        self.tokens[source] += n
        self.lengths.append(n)

    def report(self) -> dict[str, Any]:
        """{by: {name: {rows, tokens}}} for skill, licence, origin and made_by, and the deciles of length."""
        groups: dict[str, Callable[[Source], Sequence[str]]] = {
            "skill": lambda source: source.skills,
            "licence": lambda source: (spelled(source.licence),),
            "origin": lambda source: (source.origin,),
            "made_by": lambda source: (source.made_by,),
        }
        return {"rows": sum(self.rows.values()), "tokens": sum(self.tokens.values()),
                **{name: self._by(of) for name, of in groups.items()}, "length": _deciles(self.lengths)}  # fmt: skip

    def _by(self, of: Callable[[Source], Sequence[str]]) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for name, source in self.sources.items():
            for group in of(source) if self.rows.get(name) else ():
                entry = found.setdefault(group, {"rows": 0, "tokens": 0})
                entry["rows"] += self.rows[name]
                entry["tokens"] += self.tokens[name]
        return dict(sorted(found.items(), key=lambda item: (-item[1]["rows"], item[0])))


def _deciles(lengths: Sequence[int]) -> dict[str, dict[str, int]]:
    """Ten equal parts of the rows by length, shortest first: `from–to` to rows and tokens."""
    ordered = sorted(lengths)
    n = len(ordered)
    found: dict[str, dict[str, int]] = {}
    for part in (ordered[n * i // 10 : n * (i + 1) // 10] for i in range(10)):
        if part:
            entry = found.setdefault(f"{part[0]:,}–{part[-1]:,}", {"rows": 0, "tokens": 0})
            entry["rows"] += len(part)
            entry["tokens"] += sum(part)
    return found


def report_text(report: Mapping[str, Any], unit: str) -> str:
    """The report as tables for a terminal; `unit` says what tokens are."""
    return "\n\n".join(_table(name, report, unit) for name in ("skill", "licence", "origin", "made_by", "length"))


def _table(name: str, report: Mapping[str, Any], unit: str) -> str:
    title = f"length in {unit}" if name == "length" else name.replace("_", " ")
    rows = [
        (
            group,
            f"{each['rows']:,}",
            f"{each['tokens']:,}",
            _percent(each["rows"], report["rows"]),
            _percent(each["tokens"], report["tokens"]),
        )
        for group, each in report[name].items()
    ]
    return aligned([(title, "rows", unit, "rows %", f"{unit} %"), *rows])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, those of numbers set to the right; a cell is one line without control characters."""
    rows = [["".join(c for c in " ".join(cell.split()) if c.isprintable()) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numbers = [i > 0 and all(not row[i] or row[i][:1].isdigit() for row in rows[1:]) for i in range(len(widths))]
    lines = (
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"
