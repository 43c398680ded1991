"""Scores a checkpoint on a suite: plan, ask only what the journal does not hold, grade, write the scorecard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite import harness, provenance
from evalsuite.benchmark import Benchmark
from evalsuite.data import DatasetSpec, Resolved, go_offline_when_local, hub_file, resolve_all
from evalsuite.errors import DataError
from evalsuite.models import EngineSpec
from evalsuite.plan import Selection
from evalsuite.progress import Observer, Silent
from evalsuite.run import Engine, Judges, Run
from evalsuite.scorecard import CheckpointRef, Result, Scorecard, with_average, write
from evalsuite.suite import DEFAULT_REGIME, Suite

if TYPE_CHECKING:
    from evalsuite.judge import Judge

LONGEST = 100  # characters of a file name
Render = Callable[..., str]
JudgeMaker = Callable[[], "Judge"]


@dataclass(frozen=True)
class Job:
    """One checkpoint on one suite. `columns` are the benchmarks to score, `render` the checkpoint's chat template."""

    suite: Suite
    columns: Mapping[str, Benchmark]
    checkpoint: CheckpointRef
    path: Path | None
    engine: EngineSpec
    render: Render | None
    results: Path
    data_roots: tuple[Path, ...] = ()
    offline: bool = False
    limit: int | None = None
    samples: frozenset[str] | None = None
    seed: int = 1234
    fresh: bool = False
    keep_failed: bool = False
    wait: bool = True
    require_complete: bool = False
    judges: Mapping[str, JudgeMaker] = field(default_factory=dict)  # by the protocol that a benchmark names
    rejudge: bool = False
    skipped: tuple[str, ...] = ()  # judged benchmarks that were left out because there is no judge
    command: str = field(default_factory=provenance.command_line)

    @property
    def journal(self) -> Path:
        return self.results / "journal" / self.checkpoint.digest[:12]

    @property
    def scorecard(self) -> Path:
        """Where the scorecard goes when nobody judged: a readable name, unique by digest, suite, engine, selection."""
        return self.file(())

    def file(self, judges: Iterable[str]) -> Path:
        """The same beside what these judges (their digests) said: another judge never replaces a card."""
        regime = self.suite.regime.replace("/", "-")
        parts = [self.suite.name, *([regime] if regime != DEFAULT_REGIME else []), self.engine.name]
        parts += [self.engine.dtype] if self.engine.dtype not in ("float32", "server", "none", "auto") else []
        if len(self.columns) < len(self.suite.columns):
            parts += ["+".join(self.suite.ref(list(self.columns)).columns)]
        parts += [f"limit{self.limit}"] if self.limit else []
        parts += [f"samples{len(self.samples)}-{_short(sorted(self.samples))}"] if self.samples else []
        parts += [f"seed{self.seed}"] if self.seed != 1234 and (self.limit or self.samples) else []
        parts += [f"judge-{_short(sorted(set(judges)))}"] if judges else []
        folder = f"{_plain(self.checkpoint.name)}-{self.checkpoint.digest[:12]}"
        return self.results / "scorecards" / folder / f"{_plain('.'.join(parts))}.json"


def score(job: Job, observer: Observer | None = None) -> Scorecard:
    """The scorecard, written to `job.scorecard` too. The same job again only asks what is not in the journal.

    Judges are asked when the checkpoint has answered everything and has left the device. Raises DataError,
    BenchmarkError, SandboxError or CheckpointError before an engine is started, Incomplete when interrupted; whatever
    was answered by then stays in the journal.
    """
    observer = observer or Silent()
    resolved = resolve(job, observer)
    go_offline_when_local(resolved.values())
    if any(b.meta.runs_code for b in job.columns.values()):
        from evalsuite import sandbox

        sandbox.require()
    selection = Selection(job.limit, job.samples, job.seed)
    with ExitStack() as stack:
        judges = Judges(job, stack)
        engine = Engine(job, observer)
        stack.callback(engine.close)
        runs = []
        for benchmark in sorted(job.columns.values(), key=lambda b: b.name):
            plan = harness.build_plan(benchmark, resolved, job.render, selection)
            runs.append(Run(job, plan, stack, observer, hub_files(job, benchmark, resolved)))
        runs.sort(key=lambda r: list(job.columns.values()).index(r.plan.benchmark))
        results = {}
        for run in runs:
            run.ask(engine, observer)
            if not run.plan.benchmark.meta.judge:
                results[run.plan.benchmark.name] = result = run.result()
                observer.done(result)
        engine.close()
        for run in _by_judge(r for r in runs if r.plan.benchmark.meta.judge):
            results[run.plan.benchmark.name] = result = run.judged(judges, observer)
            observer.done(result)
        scoring = {run.plan.benchmark.name: run.journal.described() for run in runs}
    card = _card(job, [results[b.name] for b in job.columns.values()], scoring)
    write(card, card_file(job, card))
    return card


def card_file(job: Job, card: Scorecard) -> Path:
    """The file that the card of this job is in."""
    return job.file([str(r.judge["digest"]) for r in card.results if r.judge])


def hub_files(job: Job, benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved]) -> dict[str, Path]:
    """The files that a benchmark reads besides its rows, where the rows come from the hub and so can these."""
    found: dict[str, Path] = {}
    for spec in harness.datasets_of(benchmark) if benchmark.meta.files else ():
        if resolved[spec].origin == "hub":
            found |= {
                name: path
                for name in benchmark.meta.files
                if (path := hub_file(spec.id, name, spec.revision, offline=job.offline))
            }
    return found


def _by_judge(runs: Iterable[Run]) -> list[Run]:
    """Runs with the same judge one after another, so that each judge is loaded once."""
    return sorted(runs, key=lambda r: str(r.plan.benchmark.meta.judge))


def resolve(job: Job, observer: Observer) -> dict[DatasetSpec, Resolved]:
    """Where the data of each benchmark is; DataError naming what cannot be reached, a warning for partial data."""
    specs = list(dict.fromkeys(s for b in job.columns.values() for s in harness.datasets_of(b)))
    resolved: dict[DatasetSpec, Resolved] = resolve_all(
        specs, job.data_roots, offline=job.offline, aliases=job.suite.aliases or {}
    )
    partial = [f"{r.spec.id}: {n}" for r in resolved.values() for n in r.notes if n.startswith("partial")]
    if partial and job.require_complete:
        raise DataError(f"--require-complete: {'; '.join(partial)}")
    for line in partial:
        observer.say(f"warning: {line}; scores are marked and not comparable with published ones")
    return resolved


def _card(job: Job, results: Sequence[Result], scoring: Mapping[str, Any]) -> Scorecard:
    suite = job.suite.ref(list(job.columns))
    suite = replace(suite, regime=suite.regime + _other_protocols(job, results))
    facts: dict[str, Any] = {
        "command": job.command,
        "engine": job.engine.fingerprint() | {"reason": job.engine.reason},
        "environment": scoring,
        "grading_tools": {b.name: tools for b in job.columns.values() if (tools := _tools(b))},
        "seed": job.seed,
        "limit": job.limit,
        "versions": provenance.versions(job.engine.name),
        "git_commit": provenance.git_commit(),
        "data_roots": len(job.data_roots),
    }
    if waived := _waived(job.path):
        facts["decontamination_waived"] = waived
    if job.skipped:
        facts["skipped"] = dict.fromkeys(job.skipped, "no judge")
    return with_average(Scorecard(job.checkpoint, suite, tuple(results), None, facts))


def _waived(folder: Path | None) -> str:
    """Why the checkpoint was trained on unchecked data, as its trainer was told; empty where it was not."""
    from evalsuite.checkpoint.files import read_json

    return str(read_json(folder / "evalsuite.json").get("decontamination_waived") or "") if folder else ""


def _other_protocols(job: Job, results: Sequence[Result]) -> str:
    """A mark on the regime's tag for each protocol that judged in place of the regime's own: another measurement."""
    from evalsuite.protocol import protocol_name

    wanted = {b.name: protocol_name(b.meta.judge) for b in job.columns.values() if b.meta.judge}
    used = {str(r.judge["protocol"]) for r in results if r.judge and r.judge["protocol"] != wanted[r.benchmark]}
    return "".join(f"+{protocol}" for protocol in sorted(used))


def _tools(benchmark: Benchmark) -> dict[str, str]:
    """Which of several interchangeable tools a verifier found on this machine (sentence splitter, language guesser)."""
    found = getattr(benchmark.module, "tools", None)
    return dict(found()) if found else {}


def _short(texts: Sequence[str]) -> str:
    return blake2b("\n".join(texts).encode(), digest_size=4).hexdigest()


def _plain(name: str) -> str:
    """The name with anything that a file name should not hold replaced by a dash; a long one ends in its digest."""
    plain = re.sub(r"[^\w.@+=-]+", "-", name)
    if len(plain) > LONGEST:
        plain = f"{plain[: LONGEST - 9]}-{_short([plain])}"
    return plain.strip("-.") or "checkpoint"
