"""One run of an engine over a benchmark: what is asked, what was answered already, what it is worth so far."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evalsuite import grading, provenance
from evalsuite.benchmark import Benchmark
from evalsuite.errors import Incomplete, JournalError, UsageError
from evalsuite.journal import Answer, Journal, KeyMaker
from evalsuite.models import open_model
from evalsuite.plan import Plan
from evalsuite.progress import Observer
from evalsuite.scorecard import Result
from evalsuite.types import GenerateRequest, LoglikRequest, Model, Response
from evalsuite.verify.summary import SummaryContext

if TYPE_CHECKING:
    from evalsuite.judge import Judge
    from evalsuite.score import Job


class Judges:
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

    def are_local(self, protocol: str) -> bool:
        """Whether a judge needs the device that the checkpoint is on."""
        return self._of[protocol].local

    def close(self) -> None:
        """All of them give the device back; asked again, they open again."""
        for judge in self._of.values():
            judge.close()


class Engine:
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
        """Gives the device back; asked again, it opens again."""
        model, self._model = self._model, None
        if model is not None:
            model.close()


class Run:
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
        try:
            journal = Journal(folder, header, wait=job.wait, fresh=job.fresh and not job.rejudge, say=observer.say)
        except OSError as error:
            raise JournalError(
                f"{error.filename or folder}: the journal cannot be written ({error.strerror}); make it writable, or "
                "name another folder with --results"
            ) from error
        self.journal = stack.enter_context(journal)
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
        if not self._todo:
            self.journal.close()  # nothing will be written: others need not wait
        if self.journal.opening.n_conflicts:
            n = self.journal.opening.n_conflicts
            observer.say(f"{benchmark.name}: {n} answers were given twice and differ; the first counts")

    def ask(self, engine: Engine, observer: Observer, samples: Collection[str] | None = None) -> int:
        """Asks what is left (of these samples alone) and says how much that was.

        Every answer is in the journal before the next one is taken.
        """
        todo = frozenset(self._todo if samples is None else self._of(samples))
        if not todo:
            return 0
        name = self.plan.benchmark.name
        if self._job.rejudge:
            raise UsageError(
                f"--rejudge asks the checkpoint nothing, and {len(self._todo)} of {len(self.plan.planned)} answers of "
                f"{name} are not in the journal; score it first, without --rejudge"
            )
        model = engine.get()
        described = False
        try:
            with closing(_stream(model, [p.request for p in self.plan.planned], todo)) as stream:
                for index, answer in stream:
                    if not described:
                        # Not earlier: an engine decides how to score when it is first asked.
                        self.journal.describe(environment(model, answer))
                        described = True
                    planned = self.plan.planned[index]
                    self.journal.append(self._keys[index], planned.sample, planned.number, answer)
                    self._answers[planned.sample, planned.number] = answer
                    self._todo.discard(index)
                    observer.answered(name, answer)
        except KeyboardInterrupt:
            left = len(self.plan.planned) - len(self._answers)
            raise Incomplete(
                f"stopped: {left} answers of {name} are missing; go on with: {self._job.command}"
            ) from None
        return len(todo)

    def result(self, samples: Collection[str] | None = None) -> Result:
        """What the answers (to these samples alone) are worth."""
        whole = samples is None
        plan = self.plan if samples is None else self.plan.part(samples)
        return grading.grade(plan, self._answers, dtype=self._job.engine.dtype, whole=whole)

    def judged(self, judges: Judges, observer: Observer, samples: Collection[str] | None = None) -> Result:
        """The result after the judge was asked what its own journal does not hold."""
        from evalsuite.judging import judge_plan

        plan = self.plan if samples is None else self.plan.part(samples)
        responses = {
            (sample, number): a
            for (sample, number), a in self._answers.items()
            if sample in plan.docs and isinstance(a, Response) and a.finish != "error"
        }
        judged = judge_plan(
            plan,
            responses,
            judges.of(str(plan.benchmark.meta.judge)),
            self._job.results / "journal",
            observer=observer,
            wait=self._job.wait,
            fresh=self._job.fresh,
            command=self._job.command,
        )
        context = SummaryContext(self._job.data_roots, self._job.seed, self._hub_files)
        dtype, whole = self._job.engine.dtype, samples is None
        return grading.grade(plan, self._answers, dtype=dtype, judged=judged, context=context, whole=whole)

    def n_missing(self, samples: Collection[str] | None = None) -> int:
        """How many answers (to these samples) are not there yet."""
        return len(self._todo if samples is None else self._of(samples))

    def _of(self, samples: Collection[str]) -> set[int]:
        return {i for i in self._todo if self.plan.planned[i].sample in samples}


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
