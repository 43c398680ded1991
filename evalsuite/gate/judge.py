"""The gate: a policy, two or three scorecards and the facts around them become a verdict. Pure: no I/O, model or clock.

Promotion is an intersection–union test (Berger 1982): every required pair must clear its margin at level α, so no
correction is needed for the number of pairs. Blocks are shared out over pairs and floors (Bonferroni), α/2 in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from evalsuite.errors import UsageError
from evalsuite.gate.claims import improvement
from evalsuite.gate.evidence import Looked, clean_subset, evidence, slices, standing
from evalsuite.gate.facts import Facts, gate_id, order_key
from evalsuite.gate.findings import floor_finding, pair_finding
from evalsuite.gate.floors import FloorPlan, FloorState, floor_at, plan_floors, split
from evalsuite.gate.margins import PairInput, PairPlan, plan_pairs
from evalsuite.gate.order import Order, order
from evalsuite.gate.policy import Policy
from evalsuite.gate.rule import BLOCK, CLEAR, OPEN, Seen, Setup, look
from evalsuite.gate.tally import Pair, Sample, betting_paths, side
from evalsuite.gate.verdict import Finding, Party, Verdict, outcome_of
from evalsuite.scorecard import Scorecard
from evalsuite.stats.multiple import holm, simes
from evalsuite.stats.normal import upper_tail
from evalsuite.stats.proportion import mcnemar_less

CHAMPION, ANCHOR = "champion", "anchor"
EXACT_BELOW = 50  # discordant items below which a regression's p-value is mid-p McNemar


@dataclass(frozen=True)
class Prepared:
    """Everything that is fixed before the first answer: order of items, margins, bounds."""

    gate_id: str
    orders: Mapping[str, Order]
    pairs: tuple[PairPlan, ...]
    floors: tuple[FloorPlan, ...]
    to_end: frozenset[str]  # benchmarks that no early decision may cut short

    @property
    def n_looks(self) -> int:
        return max((len(o.sizes) for o in self.orders.values()), default=0)

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """What the gate looks at, in the order it was planned."""
        return tuple(dict.fromkeys([*(p.benchmark for p in self.pairs), *(f.benchmark for f in self.floors)]))


def prepare(policy: Policy, suite: Mapping[str, str], sides: Mapping[str, str], facts: Facts) -> Prepared:
    """The plan of a gate. `suite` has name, digest and regime, `sides` the digest of candidate, champion, anchor.

    Raises PolicyError when a required pair can only ever end inconclusive.
    """
    _refuse_items(facts)
    identity = identity_of(policy, suite, sides, facts)
    key = order_key(suite["digest"], suite["regime"], sides.get("candidate", ""), sides.get(CHAMPION, ""))
    looks = 1 if policy.method.test == "fixed" else policy.method.looks
    orders = {
        name: order(name, items.ids, items.clusters, key, looks, strata=items.strata)
        for name, items in facts.items.items()
    }
    inputs = [
        PairInput(name, reference, orders[name], items.k, items.of, facts.spreads.get((name, reference, items.k)))
        for reference in _references(sides)
        for name, items in facts.items.items()
    ]
    required = sum(policy.rule(i.benchmark).tier != "advisory" for i in inputs)
    floors = plan_floors(policy, orders, facts, required)
    pairs = plan_pairs(policy, inputs, len(floors))
    return Prepared(identity, orders, pairs, floors, _to_end(policy, facts) if sides.get(CHAMPION) else frozenset())


def _refuse_items(facts: Facts) -> None:
    """Raises UsageError naming every benchmark without items or with an id that stands for several."""
    problems = []
    for name, items in facts.items.items():
        twice = [i for i, n in Counter(items.ids).items() if n > 1] if len(set(items.ids)) < len(items.ids) else []
        if twice:
            problems.append(f"{name}: sample id {twice[0]!r} stands for {items.ids.count(twice[0])} samples")
        elif not items.ids:
            problems.append(f"{name}: has no samples, so nothing can be told of it; leave it out of the gate")
    if problems:
        raise UsageError("\n".join(problems))


def identity_of(policy: Policy, suite: Mapping[str, str], sides: Mapping[str, str], facts: Facts) -> str:
    """The gate's id: the same inputs are the same gate. What earlier gates measured is not part of it."""
    digests = tuple(sides.get(name, "") for name in ("candidate", CHAMPION, ANCHOR))
    sampling: dict[str, object] = {"k": {name: items.k for name, items in facts.items.items()}}
    sampling["engine"] = dict(facts.engine)
    return gate_id(policy.digest, suite["digest"], suite["regime"], digests, sampling)


def judge(
    policy: Policy,
    candidate: Scorecard,
    champion: Scorecard | None,
    anchor: Scorecard | None,
    facts: Facts,
    prepared: Prepared | None = None,
) -> Verdict:
    """The verdict on what has been scored so far; not `final` while more is needed, and then `needs` says what.

    Replays every look from the first, so that a verdict depends on its inputs alone. Raises UsageError for scorecards
    that were not asked and graded alike, for a score that is no number from 0 to 1, and without a champion unless the
    facts say that there is none yet.
    """
    if champion is None and not facts.bootstrap:
        raise UsageError("there is no champion to compare with; first checkpoint? add --bootstrap")
    cards = {name: card for name, card in ((CHAMPION, champion), (ANCHOR, anchor)) if card is not None}
    sides = {"candidate": candidate.checkpoint.digest, **{n: c.checkpoint.digest for n, c in cards.items()}}
    if cards.get(ANCHOR) is not None and champion and anchor and anchor.checkpoint.digest == champion.checkpoint.digest:
        del cards[ANCHOR]
    for name, card in cards.items():
        _must_match(candidate, card, name)
    if prepared is None:
        suite = {"digest": candidate.suite.digest, "regime": candidate.suite.regime}
        prepared = prepare(policy, suite, sides, facts)
    run = _Run(policy, candidate, cards, facts, prepared)
    needs = run.play()
    findings = tuple(run.findings(final=not needs))
    return _verdict(policy, candidate, cards, facts, prepared, run, findings, needs)


class _Run:
    """One replay: the state of every pair and floor, look after look."""

    def __init__(
        self,
        policy: Policy,
        candidate: Scorecard,
        cards: Mapping[str, Scorecard],
        facts: Facts,
        prepared: Prepared,
    ) -> None:
        self.policy, self.facts, self.prepared = policy, facts, prepared
        self.candidate, self.cards = candidate, cards
        self.mine = {name: side(candidate.result(name), o.ids) for name, o in prepared.orders.items()}
        self.pairs = [
            Pair.of(p, self.mine[p.benchmark], side(cards[p.reference].result(p.benchmark), p.order.ids, p.reference))
            for p in prepared.pairs
        ]
        n = len(self.pairs)
        self.setup = _setup(policy, prepared.pairs, prepared.n_looks)
        self.status = np.full(n, OPEN, dtype=np.int8)
        self.at = np.full(n, -1)
        self.samples: list[Sample | None] = [None] * n
        self.floors = [FloorState(plan) for plan in prepared.floors]
        self.used = dict.fromkeys(prepared.benchmarks, 0)  # items of each benchmark that were looked at
        self.stopped_at = prepared.n_looks - 1
        self.standing = tuple(standing(policy, facts))
        # Over all items; a look reads them up to its own.
        self.paths = [betting_paths(p) for p in self.pairs] if policy.method.test == "betting" else []

    def play(self) -> dict[str, int]:
        """Plays looks until a decision; what has to be scored next, or nothing."""
        if any(f.outcome == "block" for f in self.standing):
            return {}  # nothing that could be scored would help
        for k in range(self._start(), self.prepared.n_looks):
            active = self._active()
            needs = {} if self.facts.exhausted else self._missing(active, k)
            if needs:
                return needs
            self._look(k, active)
            self.stopped_at = k
            if self._blocked() or not self._active() or self._broken():
                break
        return {}

    def _start(self) -> int:
        """The last look where complete data is judged at once; a verdict may then depend on what is cached."""
        if self.policy.method.when_complete != "fixed":
            return 0
        last = self.prepared.n_looks - 1
        whole = self.facts.complete or (self.facts.exhausted and not self._missing(self.prepared.benchmarks, last))
        return last if whole else 0

    def _active(self) -> tuple[str, ...]:
        """Benchmarks with an undecided pair or floor, advisory ones too, or that are looked at to their end."""
        return tuple(name for name in self.prepared.benchmarks if self._is_active(name))

    def _is_active(self, name: str) -> bool:
        if name in self.prepared.to_end and self.used[name] < self.prepared.orders[name].n:
            return True
        pairs = any(
            s == OPEN and p.plan.benchmark == name and self.used[name] < p.plan.n
            for p, s in zip(self.pairs, self.status, strict=True)
        )
        return pairs or any(f.open and f.plan.benchmark == name and self.used[name] < f.plan.n for f in self.floors)

    def _missing(self, active: tuple[str, ...], k: int) -> dict[str, int]:
        """Benchmarks whose look k is not complete on all sides, and its size."""
        found = {}
        for name in active:
            size = self.prepared.orders[name].sizes[k]
            whole = bool(self.mine[name].known[:size].all())
            if not (whole and all(p.complete(size) for p in self.pairs if p.plan.benchmark == name)):
                found[name] = size
        return found

    def _look(self, k: int, active: tuple[str, ...]) -> None:
        for name in active:
            self.used[name] = self.prepared.orders[name].sizes[k]
        for i, pair in enumerate(self.pairs):
            if pair.plan.benchmark in active and self.status[i] == OPEN:
                sample = pair.seen(self.used[pair.plan.benchmark])
                if self.paths:
                    at = max(0, self.used[pair.plan.benchmark] - 1)
                    sample = replace(sample, log_e_clear=self.paths[i][0][at], log_e_block=self.paths[i][1][at])
                self.samples[i] = sample
        self._decide(k, active)
        for floor in self.floors:
            if floor.open and floor.plan.benchmark in active:
                floor_at(floor, self.mine[floor.plan.benchmark], k, self.used[floor.plan.benchmark])

    def _decide(self, k: int, active: tuple[str, ...]) -> None:
        if not self.pairs:
            return
        clear, block = look(self.setup, k, _seen(self.samples, bool(self.paths)))
        looked = np.array([p.plan.benchmark in active for p in self.pairs]) & (self.status == OPEN)
        looked &= np.array([s is not None and s.n > 0 for s in self.samples])
        if self.policy.method.test == "fixed":
            block = self._simes()
            clear &= ~block
        self.status = np.where(looked & clear, CLEAR, np.where(looked & block, BLOCK, self.status)).astype(np.int8)
        self.at = np.where(looked & (clear | block), k, self.at)

    def _simes(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Pairs that block in the fixed test: Simes says that something is worse, Holm names what."""
        held = [i for i, p in enumerate(self.pairs) if p.plan.required and self.samples[i] is not None]
        block = np.zeros(len(self.pairs), dtype=bool)
        if not held:
            return block
        level = self.policy.method.alpha / 2
        p_values = [_regression_p(self.samples[i], self.setup.null[i]) for i in held]
        if simes(p_values) <= level:
            named = [i for i, p in zip(held, holm(p_values), strict=True) if p <= level]
            block[named or [held[int(np.argmin(p_values))]]] = True
        return block

    def _blocked(self) -> bool:
        required = [s for p, s in zip(self.pairs, self.status, strict=True) if p.plan.required]
        return BLOCK in required or any(f.outcome == "block" for f in self.floors)

    def _broken(self) -> bool:
        """Whether most of what was asked of a required pair failed: more looks would only fail more."""
        return any(
            p.plan.required and 2 * p.n_failed(size) > size for p in self.pairs if (size := self.used[p.plan.benchmark])
        )

    def findings(self, *, final: bool) -> Iterator[Finding]:
        ended = final and not (self._blocked() or self._broken() or any(f.outcome == "block" for f in self.standing))
        yield from self.standing
        for i, pair in enumerate(self.pairs):
            state = int(self.status[i]), int(self.at[i])
            yield pair_finding(self.policy, pair, self.samples[i], state, self.used[pair.plan.benchmark], ended)
        yield from (floor_finding(f, self.used[f.plan.benchmark] > 0, ended) for f in self.floors)
        looked = Looked(self.candidate, self.cards, self.prepared.orders, self.mine, self.pairs, self.used)
        yield from evidence(self.policy, self.facts, looked)
        if final:
            yield from clean_subset(self.policy, self.facts, self.pairs, self.used)
        if final and CHAMPION in self.cards:  # the first checkpoint has nothing to be lower or better than
            yield from slices(self.policy, self.facts, self.pairs, self.used)
            yield from improvement(self.policy, self.facts, self.pairs, self.used, ended)


def _setup(policy: Policy, plans: tuple[PairPlan, ...], n_looks: int) -> Setup:
    alpha, tests = policy.method.alpha, max(1, sum(p.required for p in plans))
    betting = policy.method.test == "betting"
    return Setup(
        np.array([p.margin for p in plans]),
        np.array([p.null for p in plans]),
        np.array([_to_last(p, p.clear) for p in plans]).reshape(len(plans), n_looks),
        np.array([_to_last(p, p.block) for p in plans]).reshape(len(plans), n_looks),
        float(np.log(2 / alpha)) if betting else np.inf,
        float(np.log(2 * tests / alpha)) if betting else np.inf,
    )


def _to_last(plan: PairPlan, bounds: Sequence[float]) -> list[float]:
    """The bounds with that of the look that holds every item repeated to the last.

    Fewer items or clusters than looks come to their end before the others; complete data is judged at the last look.
    """
    end = plan.order.sizes.index(plan.n)
    return [bounds[min(k, end)] for k in range(len(bounds))]


def _seen(samples: list[Sample | None], betting: bool) -> Seen:
    def column(name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return np.array([float(getattr(s, name)) if s is not None else 0.0 for s in samples])

    return Seen(
        np.maximum(column("n"), 1.0),
        column("wins"),
        column("losses"),
        column("mean"),
        np.nan_to_num(column("stderr"), nan=np.inf, posinf=1e9),
        column("groups"),
        column("binary").astype(bool),
        column("few"),
        column("log_e_clear") if betting else None,
        column("log_e_block") if betting else None,
    )


def _regression_p(sample: Sample | None, null: float) -> float:
    """One-sided p-value of no drop below `null`."""
    assert sample is not None
    if sample.binary and null == 0 and sample.wins + sample.losses < EXACT_BELOW:
        return float(mcnemar_less(sample.wins, sample.losses, mid=True))
    from evalsuite.gate.rule import z_against

    return float(upper_tail(-z_against(_seen([sample], False), null)[0]))


def _references(sides: Mapping[str, str]) -> tuple[str, ...]:
    """The champion, and the anchor where it is another checkpoint."""
    names = [n for n in (CHAMPION, ANCHOR) if sides.get(n)]
    if len(names) == 2 and sides[CHAMPION] == sides[ANCHOR]:
        names = [CHAMPION]
    return tuple(names)


def _to_end(policy: Policy, facts: Facts) -> frozenset[str]:
    """Benchmarks behind a claimed gain, whose early-stopped difference is biased upward, and those of required slices.

    A gate that stopped before it saw a required slice would miss evidence that is there to be had.
    """
    sliced = frozenset(split(name)[0] for name in policy.slices.require) & facts.items.keys()
    return sliced | _behind_targets(policy, facts)


def _behind_targets(policy: Policy, facts: Facts) -> frozenset[str]:
    if policy.must_improve is None:
        return frozenset()
    wanted = {t.metric for t in policy.must_improve.targets}
    if "macro" in wanted:
        return frozenset(facts.items)
    return frozenset(wanted & facts.items.keys()) | {
        b for column, members in facts.columns.items() if column in wanted for b in members
    }


def _must_match(candidate: Scorecard, other: Scorecard, name: str) -> None:
    a, b = candidate.suite, other.suite
    for what, x, y in (("suite", a.name, b.name), ("regime", a.regime, b.regime), ("suite digest", a.digest, b.digest)):
        if x != y:
            raise UsageError(
                f"candidate and {name} were not asked alike: {what} {x[:40]!r} and {y[:40]!r}; score the older again"
            )
    for result in candidate.results:
        theirs = other.result(result.benchmark)
        mine, judged = result.judge.get("digest"), theirs.judge.get("digest") if theirs else None
        if theirs and mine and judged and mine != judged:
            raise UsageError(
                f"{result.benchmark}: candidate and {name} were judged by {result.judge.get('model')} "
                f"({str(mine)[:12]}) and {theirs.judge.get('model')} ({str(judged)[:12]}); judge both by the same one"
            )


def _verdict(
    policy: Policy,
    candidate: Scorecard,
    cards: Mapping[str, Scorecard],
    facts: Facts,
    prepared: Prepared,
    run: _Run,
    findings: tuple[Finding, ...],
    needs: Mapping[str, int],
) -> Verdict:
    return Verdict(
        gate_id=prepared.gate_id,
        policy=policy.digest,
        policy_name=policy.name,
        suite={"name": candidate.suite.name, "digest": candidate.suite.digest, "regime": candidate.suite.regime},
        ref=facts.ref,
        candidate=Party(candidate.checkpoint.name, candidate.checkpoint.digest),
        champion=_party(cards.get(CHAMPION), facts.generation),
        anchor=_party(cards.get(ANCHOR), facts.anchor_generation),
        attempt=facts.attempt,
        outcome=outcome_of(findings) if not needs else "hold",
        findings=findings,
        cost=_cost(facts, run),
        blind={p.benchmark: p.margin for p in prepared.pairs if p.reference == CHAMPION},
        pairs=sum(p.required for p in prepared.pairs),
        bootstrap=facts.bootstrap and CHAMPION not in cards,
        claim=policy.must_improve is not None and CHAMPION in cards,
        again=facts.again,
        partial=facts.partial,
        engine=facts.engine,
        declared=facts.training.digest,
        settings=policy.settings,
        versions=facts.versions,
        final=not needs,
        needs=needs,
    )


def _party(card: Scorecard | None, generation: int | None) -> Party | None:
    return Party(card.checkpoint.name, card.checkpoint.digest, generation) if card is not None else None


def _cost(facts: Facts, run: _Run) -> dict[str, float]:
    """Responses that were looked at, of each side, and the candidate's share of one full run at the regime's own K."""
    mine = sum(n * facts.items[name].k for name, n in run.used.items())
    whole = sum(len(items.ids) * items.base for items in facts.items.values())
    cost: dict[str, float] = {"candidate": mine, "full_run": whole, "share": mine / whole if whole else 0.0}
    for name in run.cards:
        cost[name] = mine
    return cost
