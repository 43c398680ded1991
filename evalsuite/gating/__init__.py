"""Runs a gate: asks in looks what the verdict still needs, stops when it knows, and writes down what was decided.

Nothing of a gate is kept on disk but answers: the same command replays the looks from the journals and goes on where a
killed one stopped. Everything that is asked is reused by a later `evalsuite score`, and the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evalsuite import provenance
from evalsuite.data import go_offline_when_local
from evalsuite.errors import UsageError
from evalsuite.gate.facts import Check, Facts, Items
from evalsuite.gate.judge import Prepared, identity_of, judge, prepare
from evalsuite.gate.policy import Policy
from evalsuite.gate.verdict import Verdict, to_json, to_raw
from evalsuite.gating.evidence import attempt_event, infra_checks, last_verdict, spreads_of, training_of
from evalsuite.gating.sampling import items_of, samples_for
from evalsuite.gating.sides import Live, Side, Slot, Stored
from evalsuite.plan import Plan
from evalsuite.progress import Observer, Silent
from evalsuite.registry import durable
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
                    side.score(name, self.prepared.orders[name].ids[: ahead.get(name, verdict.needs[name])])

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
        return _stored(job, job.candidate, observer)
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
    facts, prepared = _facts(job, suite, sides, items, infra=())
    # All runs lock journals in one order, by checkpoint and then benchmark: none waits for another that waits for it.
    for side in sorted(sides.values(), key=lambda side: side.checkpoint.digest):
        if isinstance(side, Live):
            _open_runs(job, side, mine, plans, counts)
    champion = sides.get("champion")
    against = champion if isinstance(champion, Live) else None
    infra = tuple(infra_checks(job.policy.infra, mine, against, job.accept_template))
    facts = replace(facts, infra=infra, versions=provenance.versions(candidate.engine.name))
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


def _stored(job: GateJob, candidate: Scorecard, observer: Observer) -> _Gate:
    """A gate over scorecards alone: nothing can be asked, one sample an item."""
    sides: dict[str, Side] = {"candidate": Stored("candidate", candidate)}
    for role, source in (("champion", job.champion), ("anchor", job.anchor)):
        if isinstance(source, Job):
            raise UsageError("a scorecard is compared with another scorecard: --against FILE")
        if source is not None:
            sides[role] = Stored(role, source)
    items = {}
    for result in candidate.results:
        ids = set(result.scores) | set(result.failures)
        for side in sides.values():
            other = side.card.result(result.benchmark)
            ids |= (set(other.scores) | set(other.failures)) if other else set()
        wanted = job.policy.rule(result.benchmark).cluster
        clusters = result.categories if wanted == "category" else result.clusters if wanted != "none" else {}
        macro, safety = result.aggregate == "macro", result.split == "safety"
        items[result.benchmark] = Items(
            tuple(sorted(ids)), dict(clusters), dict(result.categories), macro=macro, safety=safety
        )
    facts, prepared = _facts(job, candidate.suite, sides, items, infra=())
    facts = replace(facts, exhausted=True, versions=dict(candidate.provenance.get("versions", {})))
    return _Gate(job, sides, facts, prepared, dict.fromkeys(items, 1), observer)


def _facts(
    job: GateJob, suite: SuiteRef, sides: Mapping[str, Side], items: Mapping[str, Items], infra: tuple[Check, ...]
) -> tuple[Facts, Prepared]:
    """The facts and the plan. The attempt is logged before anything is asked; a repeated gate is the same attempt."""
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
        training=training_of(folder, job.results, list(items)),
        unsandboxed=_unsandboxed(job),
    )
    about = {"digest": suite.digest, "regime": suite.regime}
    registry = job.registry
    if registry is None:
        return facts, prepare(job.policy, about, digests, facts)
    identity = identity_of(job.policy, about, digests, facts)
    opened = attempt_event(registry, identity)
    if opened is not None:
        spreads, attempt = spreads_of(registry, opened.detail.get("spreads")), int(opened.detail["attempt"])
    else:
        source = last_verdict(registry, job.ref, suite.digest)
        spreads, attempt = spreads_of(registry, source), 1 + registry.attempts(job.ref or "", suite.digest)
    facts = replace(facts, spreads=spreads, attempt=attempt)
    prepared = prepare(job.policy, about, digests, facts)
    if opened is None and not job.dry_run:
        claim = job.policy.must_improve is not None
        detail = {"gate_id": identity, "suite": suite.digest, "claim": claim, "attempt": attempt, "spreads": source}
        registry.record("attempt", ref=job.ref, id=digests["candidate"], detail=detail)
    return facts, prepared


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
    path = job.results / "gates" / f"{verdict.gate_id[:16]}.json"
    with durable.step("writing the verdict", path, "every answer is kept"):
        durable.make_folder(path.parent)
        durable.replace(path, to_json(verdict).encode())
    registry = job.registry
    if registry is None:
        return None
    registry.put(job.policy.as_json())
    digest = registry.put(to_raw(verdict))
    candidate = verdict.candidate.digest
    events = [e for e in registry.events() if e.event == "verdict" and (e.id, e.ref) == (candidate, job.ref)]
    if events and events[-1].verdict == digest:
        return digest  # the same gate again; after another one it is recorded anew, for the newest verdict counts
    detail = {"gate_id": verdict.gate_id, "outcome": verdict.outcome, "policy": verdict.policy}
    detail |= {"suite": verdict.suite["digest"], "name": verdict.candidate.name}
    registry.record("verdict", ref=job.ref, id=candidate, verdict=digest, detail=detail)
    return digest
