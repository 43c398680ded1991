"""What decontamination must know of a suite: the texts of each benchmark as it is scored, and what they were read from.

`evalsuite.cli.decontam` hands them to the scanner, which stands alone and knows nothing of suites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evalsuite.benchmark import Benchmark
from evalsuite.data import DatasetSpec, Resolved, go_offline_when_local, resolve_all
from evalsuite.errors import BenchmarkError, DataError, UsageError
from evalsuite.gating.evidence import dataset_digest
from evalsuite.harness import datasets_of, documents
from evalsuite.registry import Registry
from evalsuite.suite import Suite, known_aliases
from evalsuite.types import Doc, Split
from evalsuite.unseen import note

DEFAULT_FIELDS = ("question", "problem", "prompt", "instruction", "input", "Question", "Behavior", "text")
"""Where the text of a benchmark is when nobody says: the first that its documents have."""

Published = Mapping[str, tuple[str, ...]]
"""Hub id to the fields that hold the text of an eval, by a published list."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What training data must not hold of a benchmark: `fields` of its documents, which go by the ids of scorecards.

    `digest` is that of what the benchmark read, as a gate knows it; "" where nothing is known.
    """

    name: str
    kind: Split
    fields: tuple[str, ...]
    docs: Mapping[str, Doc]
    digest: str
    datasets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """The benchmarks whose data is there, and why each of the others could not be had."""

    texts: tuple[Texts, ...]
    missing: Mapping[str, str] = field(default_factory=dict)


def benchmarks_of(suites: Sequence[Suite], tasks: Sequence[str] | None = None) -> dict[str, Benchmark]:
    """The benchmarks of several suites, each once and by its own name: what a gate on any of them asks for.

    Raises UsageError for a task that none has, and for a benchmark that two suites ask differently.
    """
    known = [{*suite.columns, *suite.groups, *(b.name for b in suite.columns.values())} for suite in suites]
    suites[0].select([task for task in tasks or () if not any(task in names for names in known)])
    found: dict[str, Benchmark] = {}
    for suite, names in zip(suites, known, strict=True):
        for benchmark in suite.select(None if tasks is None else [t for t in tasks if t in names]).values():
            if found.setdefault(benchmark.name, benchmark).prompt_digest != benchmark.prompt_digest:
                both = " and ".join(s.name for s in suites)
                raise UsageError(f"{both} ask {benchmark.name} differently; scan against one suite at a time")
    return found


def find_texts(
    benchmarks: Mapping[str, Benchmark],
    roots: Sequence[Path],
    published: Published,
    *,
    offline: bool,
    skip_missing: bool = False,
) -> Found:
    """The texts of all benchmarks. DataError lists every data set that cannot be used, BenchmarkError all text fields
    that are not found; `skip_missing` leaves out benchmarks of which no data root has anything."""
    aliases = known_aliases()
    resolved, missing = _resolved(benchmarks, roots, offline, aliases, skip_missing)
    go_offline_when_local(resolved.values())
    texts, problems = [], []
    for name, benchmark in benchmarks.items():
        if name in missing:
            continue
        docs = documents(benchmark, resolved)
        fields = text_fields(benchmark, docs, published)
        if fields:
            texts.append(_texts(benchmark, docs, fields, resolved))
        else:
            has = ", ".join(next(iter(docs.values())))
            problems.append(f"{benchmark.folder}: no text field; its documents have {has} (metadata.decontam_fields)")
    if problems:
        raise BenchmarkError("\n".join(problems))
    return Found(tuple(texts), missing)


def _resolved(
    benchmarks: Mapping[str, Benchmark],
    roots: Sequence[Path],
    offline: bool,
    aliases: Mapping[str, Sequence[str]],
    skip_missing: bool,
) -> tuple[dict[DatasetSpec, Resolved], dict[str, str]]:
    specs = {name: datasets_of(benchmark) for name, benchmark in benchmarks.items()}
    if not skip_missing:
        every = [spec for of_one in specs.values() for spec in of_one]
        return resolve_all(every, roots, offline=offline, aliases=aliases), {}
    resolved: dict[DatasetSpec, Resolved] = {}
    missing: dict[str, str] = {}
    for name, of_one in specs.items():
        try:
            resolved |= resolve_all(of_one, roots, offline=offline, aliases=aliases)
        except DataError as error:
            # What is there and broken is an error all the same: nobody would look for it among what is absent.
            if any(_is_there(spec, roots, aliases) for spec in of_one):
                raise
            missing[name] = str(error).splitlines()[0]
    return resolved, missing


def _is_there(spec: DatasetSpec, roots: Sequence[Path], aliases: Mapping[str, Sequence[str]]) -> bool:
    names = {spec.id, *aliases.get(spec.id, ()), *(key for key, others in aliases.items() if spec.id in others)}
    return any((root / name).is_dir() for root in roots for name in names)


def text_fields(benchmark: Benchmark, docs: Mapping[str, Doc], published: Published) -> tuple[str, ...]:
    """The published fields of its data set where the documents have them, else those that the benchmark declares
    (`metadata.decontam_fields`), else the first of DEFAULT_FIELDS; empty where there is none."""
    has = next(iter(docs.values()), {}).keys()
    for task in benchmark.tasks:
        fields = published.get(str(task.dataset), ())
        if fields and set(fields) <= set(has):
            return fields
    own = benchmark.meta.decontam_fields
    if own:
        return (own,) if isinstance(own, str) else own
    return tuple([name for name in DEFAULT_FIELDS if name in has][:1])


def _texts(
    benchmark: Benchmark, docs: Mapping[str, Doc], fields: tuple[str, ...], resolved: Mapping[DatasetSpec, Resolved]
) -> Texts:
    specs = datasets_of(benchmark)
    ids = tuple(dict.fromkeys(spec.id for spec in specs))
    digest = dataset_digest({"parts": [resolved[spec].provenance for spec in specs]})
    return Texts(benchmark.name, benchmark.meta.split, fields, docs, digest, ids)


def data_digests(benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved]) -> frozenset[str]:
    """What a gate on this benchmark accepts as the digest of the data that a report is about."""
    digest = dataset_digest({"parts": [resolved[spec].provenance for spec in datasets_of(benchmark)]})
    return frozenset({digest} - {""})


def note_unseen(results: Path, suites: Sequence[Suite], names: Sequence[str], train: Sequence[str]) -> None:
    """Writes into the ledger that unseen texts are read for decontamination, where there is a registry.

    That is no look: prompts are read, no checkpoint answers them (`evalsuite release --status` shows both).
    """
    if not (results / "registry").is_dir():
        return
    registry = Registry.at(results)
    for suite in suites:
        unseen = [b.name for b in suite.columns.values() if b.meta.split == "unseen" and b.name in names]
        if unseen:
            detail = {"suite": {"name": suite.name, "digest": suite.digest}, "read": unseen, "data": list(train)}
            note(registry, "decontam", "", "texts are looked for in training data", detail)
