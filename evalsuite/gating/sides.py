"""One side of a gate: answers what is asked of it, from its journal or its engine, and grades it bit by bit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from evalsuite import harness, provenance
from evalsuite.gating.sampling import sampled
from evalsuite.plan import Plan
from evalsuite.progress import Observer
from evalsuite.run import Engine, Judges, Run
from evalsuite.score import hub_files
from evalsuite.scorecard import CheckpointRef, Result, Scorecard, SuiteRef
from evalsuite.types import Model

if TYPE_CHECKING:
    from evalsuite.data import DatasetSpec, Resolved
    from evalsuite.gate.policy import Samples
    from evalsuite.score import Job


class Side(Protocol):
    """Candidate, champion or anchor. `card` holds everything that was scored so far."""

    name: str
    checkpoint: CheckpointRef
    n_asked: int

    @property
    def card(self) -> Scorecard: ...

    def ask(self, benchmark: str, ids: Collection[str]) -> None:
        """Has these items answered, and leaves the card as it is."""
        ...

    def score(self, benchmark: str, ids: Collection[str]) -> None:
        """Makes the card hold these items, as scores or as failures, where that can be had."""
        ...


class Stored:
    """A side that is only a scorecard: what is not in it cannot be had."""

    def __init__(self, name: str, card: Scorecard) -> None:
        self.name, self.checkpoint, self.card, self.n_asked = name, card.checkpoint, card, 0

    def ask(self, benchmark: str, ids: Collection[str]) -> None: ...

    def score(self, benchmark: str, ids: Collection[str]) -> None: ...


class Slot:
    """Room for one engine: before another side's is opened, the one inside gives the device back."""

    def __init__(self) -> None:
        self._inside: Engine | None = None

    def take(self, engine: Engine) -> Engine:
        if self._inside is not None and self._inside is not engine:
            self._inside.close()
        self._inside = engine
        return engine

    def clear(self) -> None:
        if self._inside is not None:
            self._inside.close()


class Live:
    """A checkpoint with its engine and journal. Answers are shared with `evalsuite score`, item by item."""

    def __init__(
        self,
        name: str,
        job: Job,
        resolved: Mapping[DatasetSpec, Resolved],
        suite: SuiteRef,
        slot: Slot,
        judges: Judges,
        observer: Observer,
        stack: ExitStack,
    ) -> None:
        self.name, self.job, self.checkpoint = name, job, job.checkpoint
        self.n_asked = 0
        self._resolved, self._suite, self._slot, self._judges = resolved, suite, slot, judges
        self._observer = Named(observer, "" if name == "candidate" else name)
        self._stack = stack
        self._engine = Engine(job, self._observer)
        stack.callback(self._engine.close)
        self._runs: dict[str, Run] = {}
        self._held: dict[str, set[str]] = {}
        self._results: dict[str, Result] = {}

    @property
    def card(self) -> Scorecard:
        results = tuple(self._results[name] for name in sorted(self._results))
        return Scorecard(self.checkpoint, self._suite, results, None, {})

    def plan(self, benchmark: str) -> Plan:
        """The benchmark's plan for this checkpoint, one sample for each item."""
        found = next(b for b in self.job.columns.values() if b.name == benchmark)
        return harness.build_plan(found, self._resolved, self.job.render)

    def open(self, plan: Plan, k: int, samples: Samples) -> None:
        """Opens the journal of a benchmark that will be asked K times an item."""
        name = plan.benchmark.name
        plan = sampled(plan, k, samples, self.checkpoint.digest)
        files = hub_files(self.job, plan.benchmark, self._resolved)
        self._runs[name] = Run(self.job, plan, self._stack, self._observer, files)
        self._held[name] = set()

    def ask(self, benchmark: str, ids: Collection[str]) -> None:
        if ids:
            run = self._runs[benchmark]
            self.n_asked += run.ask(_InSlot(self._slot, self._engine), self._observer, frozenset(ids))

    def is_whole(self) -> bool:
        """Whether every item is answered; where a judge is needed nobody knows, for its verdicts are not looked up."""
        return not any(run.plan.benchmark.meta.judge or run.n_missing() for run in self._runs.values())

    def score(self, benchmark: str, ids: Collection[str]) -> None:
        run, held = self._runs[benchmark], self._held[benchmark]
        new = [i for i in ids if i not in held]
        if not new:
            return
        self.ask(benchmark, new)
        if run.plan.benchmark.meta.judge:
            if self._judges.are_local(run.plan.benchmark.meta.judge):
                self._slot.clear()
            part = run.judged(self._judges, self._observer, frozenset(new))
        else:
            part = run.result(frozenset(new))
        held.update(new)
        before = self._results.get(benchmark)
        self._results[benchmark] = joined(before, part) if before is not None else part

    def missing(self, benchmark: str, ids: Sequence[str]) -> int:
        """How many of these items its engine would have to answer."""
        return self._runs[benchmark].n_missing(frozenset(ids))

    def infra(self, ask: Callable[[Model], Any]) -> Any:
        """Asks the engine itself something."""
        return ask(self._slot.take(self._engine).get())

    def described(self) -> dict[str, str]:
        return provenance.versions(self.job.engine.name)


class _InSlot(Engine):
    """An engine that takes its slot when it is first needed."""

    def __init__(self, slot: Slot, engine: Engine) -> None:
        self._slot_of, self._real = slot, engine

    def get(self) -> Model:
        return self._slot_of.take(self._real).get()

    def close(self) -> None:
        self._real.close()


class Named:
    """An observer that says which side it hears of ("" for the candidate), and that a gate may need less than all."""

    def __init__(self, inner: Observer, name: str) -> None:
        self._inner, self._name = inner, name

    def say(self, line: str) -> None:
        self._inner.say(f"{self._name}: {line}" if self._name else line)

    def planned(self, benchmark: str, n_requests: int, n_reused: int, at_most: bool = False) -> None:
        self._inner.planned(self._of(benchmark), n_requests, n_reused, at_most=True)

    def answered(self, benchmark: str, answer: Any) -> None:
        self._inner.answered(self._of(benchmark), answer)

    def done(self, result: Result) -> None: ...

    def close(self) -> None: ...

    def _of(self, benchmark: str) -> str:
        return f"{self._name} {benchmark}" if self._name else benchmark


def joined(first: Result, second: Result) -> Result:
    """Two parts of one benchmark as one; values of the whole are left out, for neither part has them."""
    return replace(
        second,
        value=None,
        stderr=None,
        scores={**first.scores, **second.scores},
        failures={**first.failures, **second.failures},
        n_planned=first.n_planned + second.n_planned,
        categories={**first.categories, **second.categories},
        clusters={**first.clusters, **second.clusters},
        parts={},
        by_category={},
        n_truncated=first.n_truncated + second.n_truncated,
        n_shrunk=first.n_shrunk + second.n_shrunk,
        n_prompt_too_long=first.n_prompt_too_long + second.n_prompt_too_long,
        n_empty=first.n_empty + second.n_empty,
        n_near_ties=first.n_near_ties + second.n_near_ties,
        format_ok=None,
        notes=(),
        judge={k: v for k, v in second.judge.items() if k in ("digest", "model", "protocol")},
    )
