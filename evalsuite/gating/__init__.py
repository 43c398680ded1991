"""Runs a gate: asks in looks what the verdict still needs, stops when it knows, and writes down what was decided.

Nothing of a gate is kept on disk but answers: the same command replays the looks from the journals and goes on where a
killed one stopped. Everything that is asked is reused by a later `evalsuite score`, and the other way round.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite import provenance
from evalsuite.data import go_offline_when_local
from evalsuite.errors import UsageError
from evalsuite.gate.facts import Check, Facts, Items
from evalsuite.gate.judge import Prepared, identity_of, judge, prepare
from evalsuite.gate.naming import refuse_categories
from evalsuite.gate.policy import Policy
from evalsuite.gate.verdict import Verdict, to_json, to_raw
from evalsuite.gating.evidence import (
    attempt_event,
    dataset_digests,
    gates_before,
    infra_checks,
    last_verdict,
    spreads_of,
    training_of,
)
from evalsuite.gating.sampling import items_of, samples_for
from evalsuite.gating.sides import Live, Side, Slot, Stored
from evalsuite.gating.stored import stored
from evalsuite.plan import Plan
from evalsuite.progress import Observer, Silent
from evalsuite.registry import durable
from evalsuite.registry.canonical import digest as canonical_digest
from evalsuite.run import Judges
from evalsuite.score import Job, resolve
from evalsuite.scorecard import Scorecard, SuiteRef
from evalsuite.types import GenerateRequest

if TYPE_CHECKING:
    from evalsuite.registry import Registry


@dataclass(frozen=True)
class GateJob:
    """One gate. Sides are jobs to be run, or scorecards that are taken as they are.

    `ref` is the ref that the candidate wants (None when it is compared with a checkpoint that is nobody's ref), with
    the generation it has now. Without a registry, or with `dry_run`, nothing is recorded.
    """

    policy: Policy
    candidate: Job | Scorecard
    champion: Job | Scorecard | None
    anchor: Job | Scorecard | None = None
    ref: str | None = None
    generation: int | None = None
    anchor_generation: int | None = None
    registry: Registry | None = None
    results: Path = Path("results")
    bootstrap: bool = False
    accept_template: bool = False
    dry_run: bool = False
    partial: str = ""  # "2 of 12 columns": such a verdict promotes nobody


@dataclass(frozen=True, slots=True)
class Gated:
    """A verdict, its digest in the registry (None when nothing was recorded), and how many answers it took, by side."""

    verdict: Verdict
    digest: str | None
    n_asked: Mapping[str, int]


def gate(job: GateJob, observer: Observer | None = None) -> Gated:
    """The verdict on a candidate, after as few looks as it takes.

    Raises PolicyError when the policy cannot decide on this suite, UsageError for sides that cannot be compared, and
    what `score` raises. Interrupted or killed, the same command goes on.
    """
    observer = observer or Silent()
    if job.champion is None and not job.bootstrap:
        raise UsageError("there is no champion to compare with; first checkpoint? add --bootstrap")
    with ExitStack() as stack:
        run = _open(job, observer, stack)
        verdict = run.play()
        asked = {side.name: side.n_asked for side in run.sides.values()}
    digest = _record(job, verdict)
    return Gated(verdict, digest, asked)


class _Gate:
    """The sides of a gate with everything that is fixed before the first look."""

    def __init__(
        self,
        job: GateJob,
        sides: Mapping[str, Side],
        facts: Facts,
        prepared: Prepared,
        cost: Mapping[str, int],
        observer: Observer,
    ) -> None:
        self.job, self.sides, self.facts, self.prepared = job, sides, facts, prepared
        self._cost, self._observer = cost, observer

    def play(self) -> Verdict:
        looks = 0
        while True:
            verdict = self._judge()
            if verdict.final:
                return verdict
            looks += 1
            self._observer.say(f"look {looks}: {_needs(verdict)}")
            # Cheapest first, and one side after another, so that engines change places as rarely as can be.
            names = sorted(verdict.needs, key=lambda name: (self._cost[name] * verdict.needs[name], name))
            for role, side in self.sides.items():
                ahead = self._ahead(role, side, verdict.needs)
                for name in names:
                    ids = self.prepared.orders[name].ids
                    side.ask(name, ids[: ahead.get(name, 0)])
                    side.score(name, ids[: verdict.needs[name]])

    def _ahead(self, role: str, side: Side, needs: Mapping[str, int]) -> dict[str, int]:
        """How far a reference is answered when its engine must be opened anyway: twice the look.

        Its answers serve every later gate, and engines that change places at each look would cost more than they save.
        """
        if role == "candidate" or not isinstance(side, Live):
            return {}
        orders = self.prepared.orders
        if not any(side.missing(name, orders[name].ids[:size]) for name, size in needs.items()):
            return {}
        return {name: min(orders[name].n, 2 * size) for name, size in needs.items()}

    def _judge(self) -> Verdict:
        cards = {role: side.card for role, side in self.sides.items()}
        facts, policy = self.facts, self.job.policy
        return judge(policy, cards["candidate"], cards.get("champion"), cards.get("anchor"), facts, self.prepared)


def _needs(verdict: Verdict) -> str:
    return ", ".join(f"{name} up to {size}" for name, size in sorted(verdict.needs.items()))


def _open(job: GateJob, observer: Observer, stack: ExitStack) -> _Gate:
    if isinstance(job.candidate, Scorecard):
        return stored(job, job.candidate, observer)
    candidate = job.candidate
    resolved = resolve(candidate, observer)
    go_offline_when_local(resolved.values())
    if any(b.meta.runs_code for b in candidate.columns.values()):
        from evalsuite import sandbox

        sandbox.require()
    suite = candidate.suite.ref(list(candidate.columns))
    slot, judges = Slot(), Judges(candidate, stack)
    sides: dict[str, Side] = {}
    for role, source in (("candidate", candidate), ("champion", job.champion), ("anchor", job.anchor)):
        if isinstance(source, Job):
            sides[role] = Live(role, source, resolved, suite, slot, judges, observer, stack)
        elif source is not None:
            sides[role] = Stored(role, source)
    mine = sides["candidate"]
    assert isinstance(mine, Live)
    plans = {b.name: mine.plan(b.name) for b in candidate.columns.values()}
    counts = {name: samples_for(job.policy, plan) for name, plan in plans.items()}
    items = {name: items_of(job.policy, plan, counts[name]) for name, plan in plans.items()}
    refuse_categories(job.policy, {name: set(found.categories.values()) for name, found in items.items()})
    datasets = {name: dataset_digests(plan.dataset) for name, plan in plans.items()}
    facts, prepared = _facts(job, suite, sides, items, (), datasets)
    # All runs lock journals in one order, by checkpoint and then benchmark: none waits for another that waits for it.
    for side in sorted(sides.values(), key=lambda side: side.checkpoint.digest):
        if isinstance(side, Live):
            _open_runs(job, side, mine, plans, counts)
    champion = sides.get("champion")
    against = champion if isinstance(champion, Live) else None
    infra = tuple(infra_checks(job.policy.infra, mine, against, job.accept_template))
    whole = job.policy.method.when_complete == "fixed" and all(
        isinstance(side, Live) and side.is_whole() for side in sides.values()
    )
    facts = replace(facts, infra=infra, complete=whole, versions=provenance.versions(candidate.engine.name))
    return _Gate(
        job, sides, facts, prepared, {name: _tokens(plan, counts[name]) for name, plan in plans.items()}, observer
    )


def _open_runs(job: GateJob, side: Live, mine: Live, plans: Mapping[str, Plan], counts: Mapping[str, int]) -> None:
    """Opens the journals of one side. Prompts are the candidate's where the chat template is the same."""
    same = side.job.engine.template_digest == mine.job.engine.template_digest and side.job.path is not None
    for name, plan in sorted(plans.items()):
        side.open(plan if same else side.plan(name), counts[name], job.policy.samples)


def _tokens(plan: Plan, k: int) -> int:
    """Planned tokens of one item, for the order in which benchmarks are asked: the limit of its responses."""
    request = plan.planned[0].request
    return k * (request.sampling.max_tokens if isinstance(request, GenerateRequest) else 1)


def _facts(
    job: GateJob,
    suite: SuiteRef,
    sides: Mapping[str, Side],
    items: Mapping[str, Items],
    infra: tuple[Check, ...],
    datasets: Mapping[str, Collection[str]] | None = None,
) -> tuple[Facts, Prepared]:
    """The facts and the plan. A repeated gate is the same attempt, planned with what was known then."""
    digests = {role: side.checkpoint.digest for role, side in sides.items()}
    folder = job.candidate.path if isinstance(job.candidate, Job) else None
    facts = Facts(
        items=items,
        columns={c: suite.groups.get(b, (b,)) for c, b in suite.columns.items()},
        ref=job.ref,
        generation=job.generation,
        anchor_generation=job.anchor_generation,
        bootstrap=job.bootstrap,
        infra=infra,
        training=training_of(folder, job.results, list(items), datasets or {}),
        unsandboxed=_unsandboxed(job),
        engine=job.candidate.engine.fingerprint() if isinstance(job.candidate, Job) else {},
        dry_run=job.dry_run,
        partial=job.partial,
    )
    about = {"digest": suite.digest, "regime": suite.regime}
    registry = job.registry
    if registry is None:
        return facts, prepare(job.policy, about, digests, facts)
    identity = identity_of(job.policy, about, digests, facts)
    with nullcontext() if job.dry_run else registry.locked():
        opened = attempt_event(registry, identity)
        known = opened.detail if opened is not None else _attempt(job, registry, identity, suite.digest, digests)
        spreads = spreads_of(registry, known.get("spreads"))
        facts = replace(facts, spreads=spreads, attempt=int(known["attempt"]), again=int(known.get("again", 0)))
        prepared = prepare(job.policy, about, digests, facts)
        if opened is None and not job.dry_run:
            registry.record("attempt", ref=job.ref, id=digests["candidate"], detail=known)
    return facts, prepared


def _attempt(
    job: GateJob, registry: Registry, identity: str, suite: str, sides: Mapping[str, str]
) -> Mapping[str, Any]:
    """What is logged before anything is asked: which attempt this is, and whose measured spreads plan it."""
    return {
        "gate_id": identity,
        "suite": suite,
        "sides": dict(sides),
        "claim": job.policy.must_improve is not None,
        "attempt": 1 + registry.attempts(job.ref or "", suite),
        "again": gates_before(registry, sides),
        "spreads": last_verdict(registry, job.ref, suite, job.policy.digest, sides["candidate"]),
    }


def _unsandboxed(job: GateJob) -> frozenset[str]:
    """Benchmarks whose model-written code would run, or ran, without isolation."""
    if isinstance(job.candidate, Scorecard):
        tools = job.candidate.provenance.get("grading_tools", {})
        return frozenset(name for name, facts in tools.items() if facts.get("sandbox") == "none")
    coded = frozenset(b.name for b in job.candidate.columns.values() if b.meta.runs_code)
    if not coded:
        return coded
    from evalsuite import sandbox

    return coded if sandbox.describe().get("sandbox") == "none" else frozenset()


def _record(job: GateJob, verdict: Verdict) -> str | None:
    """Writes the verdict to results/gates and to the registry; its digest there."""
    if job.dry_run:
        return None
    digest = canonical_digest(to_raw(verdict))
    path = job.results / "gates" / f"{verdict.gate_id[:16]}-{digest[:8]}.json"
    with durable.step("writing the verdict", path, "every answer is kept"):
        durable.make_folder(path.parent)
        durable.replace(path, to_json(verdict).encode())
    registry = job.registry
    if registry is None:
        return None
    registry.put(job.policy.as_json())
    registry.put(to_raw(verdict))
    candidate = verdict.candidate.digest
    events = [e for e in registry.events() if e.event == "verdict" and (e.id, e.ref) == (candidate, job.ref)]
    if events and events[-1].verdict == digest:
        return digest  # the same gate again; after another one it is recorded anew, for the newest verdict counts
    detail = {"gate_id": verdict.gate_id, "outcome": verdict.outcome, "policy": verdict.policy}
    detail |= {"suite": verdict.suite["digest"], "name": verdict.candidate.name}
    registry.record("verdict", ref=job.ref, id=candidate, verdict=digest, detail=detail)
    return digest
