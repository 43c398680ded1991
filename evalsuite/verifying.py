"""Grades responses that were generated elsewhere: rows in, one verdict for each row out, no model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from evalsuite.benchmark import Benchmark
from evalsuite.data import go_offline_when_local, resolve_all
from evalsuite.errors import DataError, UsageError, did_you_mean
from evalsuite.grading import score_response
from evalsuite.harness import datasets_of, documents
from evalsuite.stats import mean_stderr, ratio_stderr
from evalsuite.suite import known_aliases
from evalsuite.types import Doc, Ratio, Score

ROW = 'a row is {"id": sample id, "response": text}, or {"doc": {…}, "response": text}'
N_SHOWN = 20

Row = Mapping[str, Any] | str
"""One row, or why its line could not be read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verifier said of one row; `failed` says why there is no score.

    `instructions` holds a mapping for each instruction of a row that has some: id, strict, loose, why, backend.
    """

    id: str
    score: Score | None
    failed: str = ""
    instructions: tuple[Mapping[str, Any], ...] = ()

    def to_raw(self) -> dict[str, Any]:
        if self.score is None:
            return {"id": self.id, "failed": self.failed}
        raw: dict[str, Any] = {"id": self.id, "score": self.score.value, "extracted": self.score.extracted}
        raw["parts"] = {k: list(v) if isinstance(v, Ratio) else v for k, v in self.score.parts.items()}
        if self.score.format_ok is not None:
            raw["format_ok"] = self.score.format_ok
        raw["why"] = self.score.why
        return raw | {"instructions": [dict(i) for i in self.instructions]} if self.instructions else raw


@dataclass(slots=True)
class Summary:
    """Means over the rows that have a score, and how many have none."""

    benchmark: str
    metric: str
    values: list[float] = field(default_factory=list)
    parts: dict[str, list[float | Ratio]] = field(default_factory=dict)
    n_failed: int = 0
    variant: str | None = None

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
        raw = {"benchmark": self.benchmark, "n": len(self.values), "n_failed": self.n_failed, "metrics": numbers}
        return raw | ({"variant": self.variant} if self.variant else {})


def verify_rows(
    benchmark: Benchmark,
    rows: Iterable[tuple[int, Row]],
    source: str,
    roots: Sequence[Path],
    offline: bool,
    *,
    variant: str | None = None,
    exact: bool = False,
) -> Iterator[Verdict]:
    """One verdict for each `(line number, row)`. The dataset is only loaded when a row brings no document of its own.

    Raises DataError naming file, line and field of every row that is not of the expected form, whose id is unknown or
    whose instructions cannot be checked, before anything is graded. `exact` refuses language tools that fall back.
    """
    variant = variant_of(benchmark, variant)
    read, problems = [], []
    docs: Mapping[str, Doc] | None = None
    for number, row in rows:
        where = f"{source}: line {number}"
        try:
            if not isinstance(row, str) and docs is None and _needs_dataset(row):
                docs = _load(benchmark, roots, offline)
            read.append(_read(benchmark, number, row, docs, variant))
        except _BadRow as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise DataError(_told(problems))
    if exact:
        _require_exact(benchmark, [doc for _, _, doc in read], variant)
    for name, response, doc in read:
        yield _verdict(benchmark, name, response, doc, variant)


class _BadRow(Exception):
    """What is wrong with one row."""


def variant_of(benchmark: Benchmark, asked: str | None) -> str | None:
    """Which variant a benchmark is judged by, None when it has none; UsageError when it lacks the one asked for."""
    known: tuple[str, ...] = getattr(benchmark.module, "VARIANTS", ())
    if asked is not None and asked not in known:
        if not known:
            raise UsageError(f"{benchmark.name} has no variants; leave --variant out")
        near = did_you_mean(asked, known)
        raise UsageError(f"{benchmark.name} has no variant {asked!r}{near} (known: {', '.join(known)})")
    return asked if asked is not None else getattr(benchmark.module, "VARIANT", None)


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number, row) of a JSONL file; empty lines are passed over. A line that is no row comes as its problem."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _row(line)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def _row(line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON ({error})"
    return row if isinstance(row, dict) else "expected an object"


def _told(problems: Sequence[str]) -> str:
    """All problems, one a line; of many the first ones and their count."""
    more = [f"and {len(problems) - N_SHOWN} more"] if len(problems) > N_SHOWN else []
    count = [f"{len(problems)} rows cannot be used:"] if len(problems) > 1 else []
    return "\n".join([*count, *problems[:N_SHOWN], *more]) + f"; {ROW}"


def _needs_dataset(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("response"), str) and row.get("doc") is None and not _is_direct(row)


def _is_direct(row: Mapping[str, Any]) -> bool:
    """Whether a row is its own document, as the instruction benchmarks have them."""
    return "instruction_id_list" in row


def _read(
    benchmark: Benchmark, number: int, row: Row, docs: Mapping[str, Doc] | None, variant: str | None
) -> tuple[str, str, Doc]:
    """Name, response and document of a row; raises _BadRow."""
    if isinstance(row, str):
        raise _BadRow(row)
    response = row.get("response")
    if not isinstance(response, str):
        raise _BadRow(f"field 'response' is {response!r:.40}, expected a string")
    doc = row.get("doc")
    if doc is None:
        doc = row if _is_direct(row) else _find(docs or {}, row)
    if not isinstance(doc, dict):
        raise _BadRow(f"field 'doc' is {doc!r:.40}, expected an object")
    if _has_instructions(benchmark):
        _check_instructions(doc, variant)
    name = next((row[key] for key in ("id", "doc_id", "key") if row.get(key) is not None), number)
    return str(name), response, doc


def _has_instructions(benchmark: Benchmark) -> bool:
    return hasattr(benchmark.module, "verdicts")


def _check_instructions(doc: Doc, variant: str | None) -> None:
    from evalsuite.verify.constraints.rows import row_problems

    ids, kwargs = doc.get("instruction_id_list"), doc.get("kwargs")
    if not isinstance(ids, list) or not ids or not all(isinstance(i, str) for i in ids):
        raise _BadRow(f"field 'instruction_id_list' is {ids!r:.80}, expected a list of instruction ids")
    if not isinstance(kwargs, list) or not all(isinstance(k, dict) for k in kwargs):
        raise _BadRow(f"field 'kwargs' is {kwargs!r:.80}, expected a list of objects, one for each instruction")
    found = list(row_problems(ids, kwargs, cast("Any", variant or "tulu3")))
    if found:
        field = "instruction_id_list" if any(problem.startswith("no instruction id") for problem in found) else "kwargs"
        raise _BadRow(f"field {field!r}: {'; '.join(found)}")


def _require_exact(benchmark: Benchmark, docs: Sequence[Doc], variant: str | None) -> None:
    from evalsuite.verify.constraints.language_tools import require_exact

    if not _has_instructions(benchmark):
        raise UsageError(f"{benchmark.name} uses no language tools; leave --tools out")
    require_exact({id for doc in docs for id in doc["instruction_id_list"]}, cast("Any", variant or "tulu3"))


def _load(benchmark: Benchmark, roots: Sequence[Path], offline: bool) -> Mapping[str, Doc]:
    resolved = resolve_all(datasets_of(benchmark), roots, offline=offline, aliases=known_aliases())
    go_offline_when_local(resolved.values())
    return documents(benchmark, resolved)


def _find(docs: Mapping[str, Doc], row: Mapping[str, Any]) -> Doc:
    name = row.get("id", row.get("doc_id"))
    if isinstance(name, int) and "id" not in row:
        # A position in the dataset, as lm-eval's sample files have it.
        if 0 <= name < len(docs):
            return list(docs.values())[name]
        raise _BadRow(f"field 'doc_id' is {name}, the dataset has {len(docs)} rows")
    if str(name) in docs:
        return docs[str(name)]
    if name is None:
        raise _BadRow("neither 'id' nor 'doc' is given")
    raise _BadRow(f"no sample has the id {name!r} (an id looks like {next(iter(docs))!r})")


def _verdict(benchmark: Benchmark, name: str, response: str, doc: Doc, variant: str | None) -> Verdict:
    try:
        if _has_instructions(benchmark):
            return _verdict_on_instructions(benchmark, name, response, doc, variant)
        return Verdict(name, score_response(benchmark, response, doc))
    except (KeyError, TypeError) as error:
        return Verdict(name, None, f"the verifier cannot use this document ({type(error).__name__}: {error})")


def _verdict_on_instructions(benchmark: Benchmark, name: str, response: str, doc: Doc, variant: str | None) -> Verdict:
    from evalsuite.verify.constraints.scoring import score_of

    module: Any = benchmark.module
    found = module.verdicts(response, doc) if variant is None else module.verdicts(response, doc, variant)
    return Verdict(name, score_of(found), instructions=tuple(one.to_raw() for one in found))
