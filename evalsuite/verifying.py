"""Grades responses that were generated elsewhere: rows in, one verdict for each row out, no model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from evalsuite.benchmark import Benchmark
from evalsuite.data import go_offline_when_local, resolve_all
from evalsuite.errors import DataError, UsageError
from evalsuite.grading import score_response
from evalsuite.harness import datasets_of, documents
from evalsuite.stats import mean_stderr, ratio_stderr
from evalsuite.types import Doc, Ratio, Score

ROW = 'a row is {"id": sample id, "response": text}, or {"doc": {…}, "response": text}'


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier said of one row; `failed` says why there is no score."""

    id: str
    score: Score | None
    failed: str = ""

    def to_raw(self) -> dict[str, Any]:
        if self.score is None:
            return {"id": self.id, "failed": self.failed}
        raw: dict[str, Any] = {"id": self.id, "score": self.score.value, "extracted": self.score.extracted}
        raw["parts"] = {k: list(v) if isinstance(v, Ratio) else v for k, v in self.score.parts.items()}
        if self.score.format_ok is not None:
            raw["format_ok"] = self.score.format_ok
        return raw | {"why": self.score.why}


@dataclass(slots=True)
class Summary:
    """Means over the rows that have a score, and how many have none."""

    benchmark: str
    metric: str
    values: list[float] = field(default_factory=list)
    parts: dict[str, list[float | Ratio]] = field(default_factory=dict)
    n_failed: int = 0

    def add(self, verdict: Verdict) -> None:
        if verdict.score is None:
            self.n_failed += 1
            return
        self.values.append(verdict.score.value)
        for name, part in verdict.score.parts.items():
            self.parts.setdefault(name, []).append(part)

    def to_raw(self) -> dict[str, Any]:
        """Metric name to value, standard error and n: plain means over the rows, also of a macro-averaged benchmark."""
        metrics = {self.metric: mean_stderr(self.values)} if self.values else {}
        for name, values in self.parts.items():
            ratios = isinstance(values[0], Ratio)
            metrics[name] = (
                ratio_stderr(cast("list[Ratio]", values)) if ratios else mean_stderr(cast("list[float]", values))
            )
        numbers = {n: {"value": m.value, "stderr": m.stderr, "n": m.n} for n, m in metrics.items()}
        return {"benchmark": self.benchmark, "n": len(self.values), "n_failed": self.n_failed, "metrics": numbers}


def verify_rows(
    benchmark: Benchmark,
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    source: str,
    roots: Sequence[Path],
    offline: bool,
) -> Iterator[Verdict]:
    """One verdict for each `(line number, row)`. The dataset is only loaded when a row brings no document of its own.

    Raises DataError naming file, line and field for a row that is not of the expected form or whose id is unknown.
    """
    docs: Mapping[str, Doc] | None = None
    for number, row in rows:
        response, where = row.get("response"), f"{source}: line {number}"
        if not isinstance(response, str):
            raise DataError(f"{where}: field 'response' is {response!r:.40}, expected a string; {ROW}")
        doc = row.get("doc")
        if doc is None:
            docs = docs if docs is not None else _load(benchmark, roots, offline)
            doc = _find(docs, row, where)
        elif not isinstance(doc, dict):
            raise DataError(f"{where}: field 'doc' is {doc!r:.40}, expected an object; {ROW}")
        yield _verdict(benchmark, str(row.get("id", row.get("doc_id", number))), response, doc)


def read_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, row) of a JSONL file; empty lines are passed over. DataError names file and line of a bad one."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _row(path, number, line)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def _row(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}: line {number}: not JSON ({error}); {ROW}") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}: line {number}: expected an object; {ROW}")
    return row


def _load(benchmark: Benchmark, roots: Sequence[Path], offline: bool) -> Mapping[str, Doc]:
    resolved = resolve_all(datasets_of(benchmark), roots, offline=offline)
    go_offline_when_local(resolved.values())
    return documents(benchmark, resolved)


def _find(docs: Mapping[str, Doc], row: Mapping[str, Any], where: str) -> Doc:
    name = row.get("id", row.get("doc_id"))
    if isinstance(name, int) and "id" not in row:
        # A position in the dataset, as lm-eval's sample files have it.
        if 0 <= name < len(docs):
            return list(docs.values())[name]
        raise DataError(f"{where}: field 'doc_id' is {name}, the dataset has {len(docs)} rows")
    if str(name) in docs:
        return docs[str(name)]
    if name is None:
        raise DataError(f"{where}: neither 'id' nor 'doc' is given; {ROW}")
    raise DataError(f"{where}: no sample has the id {name!r} (an id looks like {next(iter(docs))!r}); {ROW}")


def _verdict(benchmark: Benchmark, name: str, response: str, doc: Doc) -> Verdict:
    try:
        return Verdict(name, score_response(benchmark, response, doc))
    except (KeyError, TypeError) as error:
        return Verdict(name, None, f"the verifier cannot use this document ({type(error).__name__}: {error})")
