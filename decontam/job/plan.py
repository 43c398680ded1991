"""What a job is, the manifest that remembers it, and what may not have changed when the same command goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decontam.errors import DecontamError
from decontam.job.folder import EVALS, MANIFEST, SHARDS, begun, clear, told, write
from decontam.job.work import KERNEL, PLAIN, Options, Scanner, Source, Task, source_digest
from decontam.rules import Rule
from decontam.types import EvalSet, Shard

if TYPE_CHECKING:
    from decontam.inputs import Dataset
    from decontam.select import Selection

SCHEMA = "decontam-manifest/2"


@dataclass(frozen=True, slots=True)
class Job:
    """A scan: everything that its output hangs on, and nothing else. `paths` and `selections` have one a dataset.

    `index` is the folder of the built index, whose name is its digest: of evals, rule, cap and what else it holds.
    """

    datasets: tuple[Dataset, ...]
    paths: tuple[str, ...]  # as the user gave them
    selections: tuple[Selection, ...]
    evals: tuple[EvalSet, ...]
    rule: Rule
    index: Path
    cap: int = 50
    limit: float = 0.02
    drop_empty_fields: bool = False
    options: Options = PLAIN
    shard_bytes: int = 64 << 20
    scanner: Scanner = KERNEL


@dataclass(frozen=True, slots=True)
class Plan:
    """A job cut into pieces: its files, and the shards of each in order."""

    job: Job
    sources: tuple[Source, ...]
    shards: tuple[Shard, ...]

    def task(self, out: Path) -> Task:
        """What every piece needs to know."""
        job = self.job
        return Task(
            out=os.path.abspath(out),
            index=os.path.abspath(job.index),
            selections={d.name: s for d, s in zip(job.datasets, job.selections, strict=True)},
            sources={(source.dataset, source.path): source for source in self.sources},
            options=job.options,
            scanner=job.scanner,
        )

    def on_disk(self) -> Mapping[int, int]:
        """Bytes on the disk of each shard; a file of row groups is shared out evenly."""
        found: dict[int, int] = {}
        for source in self.sources:
            mine = [s for s in self.shards if source.holds(s)]
            total = sum(s.stop - s.start for s in mine)
            whole = any(s.stop < s.start for s in mine) or not total
            for shard in mine:
                found[shard.number] = source.size if whole else source.size * (shard.stop - shard.start) // total
        return found


def make_plan(job: Job) -> Plan:
    """Cuts the data into shards, numbered on through all files; raises DecontamError for what cannot be read."""
    from decontam.inputs import shards_of

    names = [dataset.name for dataset in job.datasets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DecontamError(f"two data sets are called {twice!r}; name them apart: NAME={twice}")
    # With a bound on hits in row order, one scan has to see the whole file.
    size = 1 << 62 if job.options.es_cap else job.shard_bytes
    cut = [shard for dataset in job.datasets for shard in shards_of(dataset, size)]
    shards = tuple(replace(shard, number=n, path=os.path.abspath(shard.path)) for n, shard in enumerate(cut))
    files: dict[tuple[str, str], Shard] = {}
    for shard in shards:
        files.setdefault((shard.dataset, shard.path), shard)
    return Plan(job, tuple(_source(number, shard) for number, shard in enumerate(files.values())), shards)


def _source(number: int, shard: Shard) -> Source:
    from decontam.inputs import fingerprint

    found = fingerprint(shard.path)
    return Source(
        number=number,
        dataset=shard.dataset,
        file=shard.file,
        path=shard.path,
        format=shard.format,
        size=found["size"],
        mtime_ns=found["mtime_ns"],
        ends=found["sha256"],
    )


def begin(plan: Plan, out: Path, fresh: bool = False) -> None:
    """Writes the manifest, or compares with the one that is there; raises DecontamError naming what differs.

    The manifest is written last and taken away first: what a folder without one holds does not count.
    """

    from decontam.report.lines import json_text

    mine = _manifest(plan)
    if begun(out) and not fresh:
        compare(plan, out)
    else:
        clear(out)
    with told(out):
        (out / SHARDS).mkdir(exist_ok=True)
        write(out / EVALS, _evals(plan.job))
        if not (out / MANIFEST).is_file():
            write(out / MANIFEST, json_text(mine, indent=1).encode() + b"\n")


def _evals(job: Job) -> bytes:
    """The evals as one file; an index has them so."""
    from decontam.evals import to_jsonl

    known = job.index / EVALS
    return known.read_bytes() if known.is_file() else to_jsonl(job.evals).encode()


def _manifest(plan: Plan) -> dict[str, Any]:
    job = plan.job
    return {
        "schema": SCHEMA,
        "index": job.index.name,
        "rule": {"name": job.rule.name, "digest": job.rule.digest},
        "cap": job.cap,
        "drop_empty_fields": job.drop_empty_fields,
        "options": {each.name: getattr(job.options, each.name) for each in fields(job.options)},
        "shard_bytes": job.shard_bytes,
        "datasets": [
            {"name": d.name, "selectors": list(s.spec)} for d, s in zip(job.datasets, job.selections, strict=True)
        ],
        "files": [
            {
                "dataset": s.dataset,
                "file": s.file,
                "format": s.format,
                "size": s.size,
                "mtime_ns": s.mtime_ns,
                "ends": s.ends,
            }
            for s in plan.sources
        ],
        "shards": [[s.number, s.file, s.start, s.stop] for s in plan.shards],
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        if found["schema"] == SCHEMA:
            return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DecontamError(f"{path}: not a manifest ({type(error).__name__}); --fresh starts anew") from error
    raise DecontamError(f"{path}: schema {found['schema']!r}, this version writes {SCHEMA!r}; --fresh starts anew")


_OPTIONS = {"near": "near-dup", "short": "short", "es_cap": "es-cap"}


def compare(plan: Plan, out: Path) -> None:
    """Raises DecontamError naming what the job that was begun in the folder has otherwise."""
    theirs, mine = _read(out / MANIFEST), _manifest(plan)
    changed = [*_other_settings(theirs, mine), *_other_files(theirs["files"], mine["files"], plan.sources, out)]
    if not changed and theirs["shards"] != mine["shards"]:
        changed = ["the files are cut into other shards"]
    if changed:
        raise DecontamError(
            f"{out} is of another job: {'; '.join(changed)} (use another --out, or --fresh to start anew)"
        )


def _other_settings(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> Iterator[str]:
    named = list(_other_options(theirs, mine))
    yield from named
    if theirs["index"] != mine["index"] and not named:
        yield f"index (the evals, or how they are read) was {theirs['index'][:12]}, now {mine['index'][:12]}"
    if theirs["shard_bytes"] != mine["shard_bytes"]:
        yield f"--shard-mb was {theirs['shard_bytes'] / (1 << 20):g}, now {mine['shard_bytes'] / (1 << 20):g}"
    was, now = ({d["name"]: d["selectors"] for d in each["datasets"]} for each in (theirs, mine))
    if list(was) != list(now):
        yield f"training data was {', '.join(was)}, now {', '.join(now)}"
    for name in was:
        if name in now and was[name] != now[name]:
            yield f"selectors of {name} were {', '.join(was[name])}, now {', '.join(now[name])}"


def _other_options(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> Iterator[str]:
    for what, key in (("rule", "rule"), ("cap", "cap"), ("--drop-empty-fields", "drop_empty_fields")):
        if theirs[key] != mine[key]:
            was, now = (each[key]["name"] if key == "rule" else each[key] for each in (theirs, mine))
            yield f"{what} was {was}, now {now}" if was != now else f"{what} {was} of another version"
    for option, now in mine["options"].items():
        if (was := theirs["options"].get(option)) != now:
            yield f"--{_OPTIONS[option]} was {was or 'off'}, now {now or 'off'}"


def _other_files(
    theirs: Sequence[Mapping[str, Any]], mine: Sequence[Mapping[str, Any]], sources: Sequence[Source], out: Path
) -> Iterator[str]:
    was = {(f["dataset"], f["file"]): f for f in theirs}
    now = {(f["dataset"], f["file"]): f for f in mine}
    yield from (f"file {key[1]} is gone" for key in was if key not in now)
    yield from (f"file {key[1]} is new" for key in now if key not in was)
    for key, source in zip(now, sources, strict=True):
        old = was.get(key)
        if old is None or old == now[key]:
            continue
        if old["size"] != source.size:
            yield f"file {source.file} changed, {old['size']:,} → {source.size:,} bytes"
        elif old["ends"] != source.ends:
            yield f"file {source.file} changed"
        elif not _same_content(out, source):
            yield f"file {source.file} was written since"


def _same_content(out: Path, source: Source) -> bool:
    """Whether a file with another time is the one that was read: a copy fetched again after a machine was lost is."""
    from decontam.inputs import file_digest

    known = source_digest(out, source)
    return known is not None and file_digest(source.path) == known
