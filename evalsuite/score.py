"""Scores a checkpoint on a suite: plan, ask only what the journal does not hold, grade, write the scorecard."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evalsuite import grading, harness, provenance
from evalsuite.benchmark import Benchmark
from evalsuite.data import DatasetSpec, Resolved, go_offline_when_local, hub_file, resolve_all
from evalsuite.errors import DataError, Incomplete, UsageError
from evalsuite.journal import Answer, Journal, KeyMaker
from evalsuite.models import EngineSpec, open_model
from evalsuite.plan import Plan, Selection
from evalsuite.progress import Observer, Silent
from evalsuite.scorecard import CheckpointRef, Result, Scorecard, with_average, write
from evalsuite.suite import DEFAULT_REGIME, Suite
from evalsuite.types import GenerateRequest, LoglikRequest, Model, Response
from evalsuite.verify.summary import SummaryContext

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
    resolved = _resolve(job, observer)
    go_offline_when_local(resolved.values())
    if any(b.meta.runs_code for b in job.columns.values()):
        from evalsuite import sandbox

        sandbox.require()
    selection = Selection(job.limit, job.samples, job.seed)
    with ExitStack() as stack:
        judges = _Judges(job, stack)
        engine = _Engine(job, observer)
        stack.callback(engine.close)
        runs = []
        for benchmark in sorted(job.columns.values(), key=lambda b: b.name):
            plan = harness.build_plan(benchmark, resolved, job.render, selection)
            runs.append(_Run(job, plan, stack, observer, hub_files(job, benchmark, resolved)))
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


class _Judges:
    """The judges of a job, opened before anything is asked: a judge that cannot be reached stops the run at once."""

    def __init__(self, job: Job, stack: ExitStack) -> None:
        needed = {b.meta.judge for b in job.columns.values() if b.meta.judge}
        missing = sorted(needed - job.judges.keys())
        if missing:
            raise UsageError(f"no judge for the protocol {missing[0]!r} (give one: --judge ENGINE)")
        self._of: dict[str, Judge] = {}
        for protocol in sorted(needed):
            self._of[protocol] = job.judges[protocol]()
            stack.callback(self._of[protocol].close)

    def of(self, protocol: str) -> Judge:
        """The judge of a protocol; every other one gives the device back first."""
        wanted = self._of[protocol]
        for judge in self._of.values():
            if judge is not wanted:
                judge.close()
        return wanted


def _by_judge(runs: Iterable[_Run]) -> list[_Run]:
    """Runs with the same judge one after another, so that each judge is loaded once."""
    return sorted(runs, key=lambda r: str(r.plan.benchmark.meta.judge))


def _resolve(job: Job, observer: Observer) -> dict[DatasetSpec, Resolved]:
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


class _Engine:
    """The engine, started when the first question is asked: a finished run loads no weights."""

    def __init__(self, job: Job, observer: Observer) -> None:
        self._job = job
        self._observer = observer
        self._model: Model | None = None

    def get(self) -> Model:
        if self._model is None:
            spec = self._job.engine
            self._observer.say(f"engine: {spec.name}, {spec.dtype} ({spec.reason})")
            self._model = open_model(spec, self._job.path)
        return self._model

    def close(self) -> None:
        if self._model is not None:
            self._model.close()


class _Run:
    """One benchmark of a job: what is asked, what was answered already, and its open journal."""

    def __init__(
        self, job: Job, plan: Plan, stack: ExitStack, observer: Observer, files: Mapping[str, Path] | None = None
    ) -> None:
        self.plan = plan
        self._job = job
        self._hub_files = files or {}
        benchmark: Benchmark = plan.benchmark
        keys = KeyMaker(job.checkpoint.digest, _asked_digest(plan), job.engine.fingerprint())
        header = {"benchmark": benchmark.name, "checkpoint": job.checkpoint.digest, "engine": job.engine.fingerprint()}
        header |= {"versions": provenance.versions(job.engine.name), "command": job.command}
        folder = job.journal / benchmark.name
        self.journal = stack.enter_context(
            Journal(folder, header, wait=job.wait, fresh=job.fresh and not job.rejudge, say=observer.say)
        )
        self._keys = [keys.key(p.sample, p.number, p.request) for p in plan.planned]
        self._answers: dict[tuple[str, int], Answer] = {}
        self._todo: set[int] = set()
        for index, (planned, key) in enumerate(zip(plan.planned, self._keys, strict=True)):
            stored = self.journal.get(key)
            if stored is None or (stored.failed and not job.keep_failed):
                self._todo.add(index)
            else:
                self._answers[planned.sample, planned.number] = stored.answer
        observer.planned(benchmark.name, len(self._keys), len(self._answers))
        if self.journal.opening.n_conflicts:
            n = self.journal.opening.n_conflicts
            observer.say(f"{benchmark.name}: {n} answers were given twice and differ; the first counts")

    def ask(self, engine: _Engine, observer: Observer) -> None:
        """Asks what is left; every answer is in the journal before the next one is taken."""
        if not self._todo:
            return
        name = self.plan.benchmark.name
        if self._job.rejudge:
            raise UsageError(
                f"--rejudge asks the checkpoint nothing, and {len(self._todo)} of {len(self.plan.planned)} answers of "
                f"{name} are not in the journal; score it first, without --rejudge"
            )
        model = engine.get()
        described = False
        try:
            with closing(_stream(model, [p.request for p in self.plan.planned], self._todo)) as stream:
                for index, answer in stream:
                    if not described:
                        # Not earlier: an engine decides how to score when it is first asked.
                        self.journal.describe(environment(model, answer))
                        described = True
                    planned = self.plan.planned[index]
                    self.journal.append(self._keys[index], planned.sample, planned.number, answer)
                    self._answers[planned.sample, planned.number] = answer
                    observer.answered(name, answer)
        except KeyboardInterrupt:
            left = len(self.plan.planned) - len(self._answers)
            raise Incomplete(
                f"stopped: {left} answers of {name} are missing; go on with: {self._job.command}"
            ) from None

    def result(self) -> Result:
        return grading.grade(self.plan, self._answers, dtype=self._job.engine.dtype)

    def judged(self, judges: _Judges, observer: Observer) -> Result:
        """The result after the judge was asked what its own journal does not hold."""
        from evalsuite.judging import judge_plan

        responses = {k: a for k, a in self._answers.items() if isinstance(a, Response) and a.finish != "error"}
        judged = judge_plan(
            self.plan,
            responses,
            judges.of(str(self.plan.benchmark.meta.judge)),
            self._job.results / "journal",
            observer=observer,
            wait=self._job.wait,
            fresh=self._job.fresh,
            command=self._job.command,
        )
        context = SummaryContext(self._job.data_roots, self._job.seed, self._hub_files)
        return grading.grade(self.plan, self._answers, dtype=self._job.engine.dtype, judged=judged, context=context)


def environment(model: Model, answer: Answer) -> dict[str, str]:
    """What an engine says of itself beyond its fingerprint (device, threads); empty when it says nothing.

    How log-likelihoods are shared is left out of the description of generated answers, and the other way round: whether
    an engine knows it by then depends on what it was asked before, and a resumed run asks in another order.
    """
    describe = getattr(model, "environment", None)
    facts = dict(describe()) if describe else {}
    other = "scoring" if isinstance(answer, Response) else "generation"
    return {k: v for k, v in facts.items() if not k.startswith(other)}


def _stream(
    model: Model, requests: Sequence[Any], wanted: Collection[int]
) -> Generator[tuple[int, Answer], None, None]:
    if isinstance(requests[0], GenerateRequest):
        yield from model.generate(cast("Sequence[GenerateRequest]", requests), wanted)
    else:
        yield from model.loglikelihood(cast("Sequence[LoglikRequest]", requests), wanted)


def _asked_digest(plan: Plan) -> str:
    """Prompt side of the benchmark and the content of its data: an edited row is another question."""
    datasets = sorted(str(d.get("digest", "")) for d in (plan.dataset.get("parts") or [plan.dataset]))
    return "\n".join([plan.benchmark.prompt_digest, *datasets])


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
    if job.skipped:
        facts["skipped"] = dict.fromkeys(job.skipped, "no judge")
    return with_average(Scorecard(job.checkpoint, suite, tuple(results), None, facts))


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
