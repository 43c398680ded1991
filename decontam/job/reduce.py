"""From the shards of a job to its reports: sums of small tables, in order of the shards."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decontam.errors import BrokenRow, DecontamError
from decontam.job.broken import N_NAMED, Broken, Read, broken_rows
from decontam.job.folder import told, write
from decontam.job.plan import Plan
from decontam.job.protection import eval_facts, own_matches
from decontam.job.work import Source, shard_done, shard_table, source_digest

if TYPE_CHECKING:
    from decontam.inputs import Dataset
    from decontam.report.facts import EvalFacts, Scan
    from decontam.report.matrix import Matrix

SCHEMA = "decontam-summary/1"


class Unfit(DecontamError):
    """The data has no rows, or none that the selectors fit: what was scanned is worth nothing."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A job whose reports are written."""

    exit: int
    matrix: Matrix
    verdict: str  # what verdict.json holds


@dataclass(frozen=True, slots=True)
class Summary:
    """What was read of a data set. `broken` names its first broken rows, `why` tells all that makes it incomplete."""

    name: str
    digest: str
    path: str
    selectors: tuple[str, ...]
    n_rows: int
    n_parsed: int
    n_unselected: int
    n_broken: int
    n_bytes: int
    broken: tuple[Broken, ...]
    why: tuple[str, ...]


def reduce(plan: Plan, out: Path, say: Callable[[str], None]) -> Finished:
    """Writes the reports of a job whose pieces are all done; `say` is told of rows that were left out."""
    from decontam.report import write_reports
    from decontam.report.facts import DatasetFacts, Scan, ShardTables

    job = plan.job
    shards = list(read_shards(plan, out))
    read = summaries(plan, out, shards)
    _tell(read, say)
    evals = eval_facts(job.scanner.open(job.index), job.evals, own_matches(job.scanner, job.index, job.evals))
    near = bool(job.options.near)
    scan = Scan(
        rule=job.rule,
        cap=job.cap,
        evals=evals,
        datasets=[DatasetFacts(s.name, s.digest, s.path, s.n_rows, not s.why, s.why) for s in read],
        shards=[
            ShardTables(
                dataset=each.shard.dataset,
                file=each.shard.file,
                matches=shard_table(out, each.shard),
                near=shard_table(out, each.shard, ".near") if near else None,
                first_row=each.first_row,
            )
            for each in shards
        ],
        near=near,
        short=job.options.short,
        limit=job.limit,
    )
    with told(out):
        write(out / "summary.json", _summary_json(scan, read))
        (out / "clean_ids").mkdir(exist_ok=True)
    verdict, matrix = write_reports(out, scan, _Texts(plan))
    return Finished(verdict.exit, matrix, (out / "verdict.json").read_text(encoding="utf-8"))


def _tell(read: Sequence[Summary], say: Callable[[str], None]) -> None:
    for each in read:
        if each.n_unselected:
            say(f"{each.name}: {each.n_unselected:,} of {each.n_rows:,} rows have nothing that the selectors pick")
        for why in each.why:
            say(f"{each.name}: {why}")
    named = [each for summary in read for each in summary.broken][:N_NAMED]
    for row in named:
        say(str(row))
    if (more := sum(each.n_broken for each in read) - len(named)) > 0:
        say(f"and {more:,} more broken row{'s' if more > 1 else ''}")


def _summary_json(scan: Scan, read: Sequence[Summary]) -> bytes:
    from decontam.report.lines import json_text

    raw = {
        "schema": SCHEMA,
        "complete": all(not each.why for each in read),
        "datasets": [
            {
                "name": each.name,
                "digest": each.digest,
                "path": each.path,
                "selectors": each.selectors,
                "rows": each.n_rows,
                "parsed": each.n_parsed,
                "unselected": each.n_unselected,
                "broken": each.n_broken,
                "bytes": each.n_bytes,
                "complete": not each.why,
                "why": each.why,
                "first_broken": [row.as_json() for row in each.broken],
            }
            for each in read
        ],
        "evals": {facts.eval.name: _eval_json(facts) for facts in scan.evals},
    }
    return json_text(raw, indent=1).encode() + b"\n"


def _eval_json(facts: EvalFacts) -> dict[str, Any]:
    ids = facts.eval.ids
    return {
        "kind": facts.eval.kind,
        "fields": facts.eval.fields,
        "digest": facts.eval.digest,
        "source": facts.eval.source,
        "n": facts.n,
        "skipped": [ids[i] for i in facts.skipped],
        "unprotected": {why: [ids[i] for i in found] for why, found in facts.unprotected.items()},
    }


# -- what was read --


def read_shards(plan: Plan, out: Path) -> Iterator[Read]:
    """The finished shards in order, up to the first that is not."""
    file, first_row = ("", ""), 0
    for shard in plan.shards:
        done = shard_done(out, shard)
        if done is None:
            return
        if (shard.dataset, shard.path) != file:
            file, first_row = (shard.dataset, shard.path), 0
        yield Read(shard, done.counts, first_row)
        first_row += done.counts.n_rows


def first_broken(plan: Plan, out: Path) -> Broken | None:
    """The first broken row of the job, as far as it is done."""
    return next(iter(broken_rows(read_shards(plan, out), plan.sources, 1)), None)


def summaries(plan: Plan, out: Path, shards: Sequence[Read]) -> list[Summary]:
    """What was read of each data set; raises Unfit for one that has no rows, or none that the selectors fit."""
    from decontam.select import nothing_selected

    found = []
    for dataset, path, selection in zip(plan.job.datasets, plan.job.paths, plan.job.selections, strict=True):
        mine = [read for read in shards if read.shard.dataset == dataset.name]
        counts = [read.counts for read in mine]
        n_rows, n_broken = sum(c.n_rows for c in counts), sum(c.n_broken for c in counts)
        if not n_rows:
            raise Unfit(f"{dataset.name}: no rows; expected training data with at least one")
        n_unselected = sum(c.n_unselected for c in counts)
        if n_unselected and n_unselected == n_rows - n_broken:
            fields: Counter[str] = Counter()
            for each in counts:
                fields.update(each.fields)
            raise Unfit(str(nothing_selected(selection, fields, dataset.name)))
        why = [f"{n_broken:,} broken row{'s' if n_broken > 1 else ''}"] if n_broken else []
        why += [_incomplete(read, dataset.name) for read in mine if not read.counts.complete]
        found.append(
            Summary(
                name=dataset.name,
                digest=_dataset_digest(plan, out, dataset),
                path=path,
                selectors=tuple(selection.spec),
                n_rows=n_rows,
                n_parsed=sum(c.n_parsed for c in counts),
                n_unselected=n_unselected,
                n_broken=n_broken,
                n_bytes=sum(c.n_bytes for c in counts),
                broken=broken_rows(mine, plan.sources),
                why=tuple(why),
            )
        )
    return found


def _incomplete(read: Read, dataset: str) -> str:
    """Why a shard was not read as a whole, with the file where the data set does not name it."""
    return read.counts.why if read.shard.file == dataset else f"{read.shard.file} {read.counts.why}"


def _dataset_digest(plan: Plan, out: Path, dataset: Dataset) -> str:
    """What `decontam.inputs.dataset_digest` gives, from the digests of the files that were taken beside the scan."""
    digests = {source.path: source_digest(out, source) for source in plan.sources if source.dataset == dataset.name}
    found = {file.relative: str(digests[os.path.abspath(file.path)]) for file in dataset.files}
    if len(found) == 1:
        return next(iter(found.values()))
    lines = sorted(f"{name}\0{digest}\n" for name, digest in found.items())
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


# -- texts to show --


class _Texts:
    """Fetches messages of training rows for the page."""

    def __init__(self, plan: Plan) -> None:
        self._selections = {d.name: s for d, s in zip(plan.job.datasets, plan.job.selections, strict=True)}
        self._sources = {(source.dataset, source.file): source for source in plan.sources}

    def __call__(self, dataset: str, file: str, rows: Mapping[int, int]) -> dict[int, dict[int, str]]:
        """Row to turn to text; a row that can no longer be read is absent."""
        source = self._sources[dataset, file]
        try:
            found = _lines_at(source.path, rows) if source.format == "jsonl" else _fetched(source, rows)
        except (OSError, DecontamError):
            return {}
        told_texts = {}
        for row, value in found.items():
            try:
                told_texts[row] = {message.turn: message.text for message in self._selections[dataset].messages(value)}
            except BrokenRow:
                continue
        return told_texts


def _lines_at(path: str, rows: Mapping[int, int]) -> dict[int, Any]:
    """The rows of a plain file, by the byte offsets of their lines."""
    from decontam.inputs import parse_line

    found = {}
    with open(path, "rb") as lines:
        for row, offset in rows.items():
            lines.seek(offset)
            try:
                found[row] = parse_line(lines.readline())
            except BrokenRow:
                continue
    return found


def _fetched(source: Source, rows: Mapping[int, int]) -> dict[int, Any]:
    from decontam.inputs import fetch_rows

    return dict(fetch_rows(source.path, source.format, rows.keys()))
