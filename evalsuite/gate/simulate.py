"""What a planned gate would do, drawn from Brownian paths and decided by the gate's own rule.

Z at look k is (W(t_k) + (Δ/SE)·t_k)/√t_k, the limit of every test of the gate; the few-discordant-items rule, floors
and must_improve are outside it. Champion and anchor are compared with the same candidate: their paths correlate by ½.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evalsuite.gate.margins import PairPlan
from evalsuite.gate.rule import BLOCK, CLEAR, Course, Seen, Setup, course, z_against
from evalsuite.stats.normal import upper_tail

GAIN, DROP = 0.01, 0.02
WORSE = 3  # benchmarks that drop where only some do
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Shares of runs that end so, and the mean cost in full runs of the suite at one sample an item."""

    name: str
    promote: float
    block: float
    hold: float
    cost: float


@dataclass(frozen=True)
class Gate:
    """The pairs of one gate as arrays: P pairs over B benchmarks, L looks. `costs` is (B, L), in full runs."""

    setup: Setup
    stderr: Floats
    times: Floats
    benchmark: NDArray[np.int64]
    required: NDArray[np.bool_]
    to_end: NDArray[np.bool_]
    costs: Floats
    simes: float | None  # level of the fixed test's block


def gate_of(plans: Sequence[PairPlan], unit: int, *, to_end: Collection[str] = (), simes: float | None = None) -> Gate:
    """The arrays of planned pairs. Costs are in runs of `unit` responses; `to_end` are benchmarks that are asked whole,
    `simes` the level of a fixed test."""
    names = list(dict.fromkeys(p.benchmark for p in plans))
    first = [next(p for p in plans if p.benchmark == name) for name in names]
    return Gate(
        Setup(
            np.array([p.margin for p in plans]),
            np.array([p.null for p in plans]),
            np.array([p.clear for p in plans]),
            np.array([p.block for p in plans]),
        ),
        np.array([p.stderr for p in plans]),
        np.array([p.order.times for p in plans]),
        np.array([names.index(p.benchmark) for p in plans]),
        np.array([p.required for p in plans]),
        np.array([name in to_end for name in names]),
        np.array([[size * p.k / unit for size in p.order.sizes] for p in first]),
        simes,
    )


def scenarios(gate: Gate, runs: int, seed: int) -> tuple[Scenario, ...]:
    """Every scenario of gate.md §8 that the suite has room for, each from `runs` seeded runs."""
    found = []
    for i, (name, effect) in enumerate(_effects(gate, runs, seed)):
        found.append(_scenario(name, gate, effect, np.random.default_rng([seed, i])))
    return tuple(found)


def cleared_alone(gate: Gate, runs: int, seed: int) -> tuple[Floats, Floats]:
    """The chance that each pair clears by itself, shape (P,): at no difference, and at a drop by its whole margin."""
    given = gate.setup
    alone = Setup(given.margin[:, None], given.null[:, None], given.clear[:, None], given.block[:, None])
    shares = []
    for i, effect in enumerate((np.zeros(len(gate.stderr)), -gate.setup.margin)):
        looks = _looks(gate, np.broadcast_to(effect, (runs, len(effect))), np.random.default_rng([seed, 100 + i]))
        shares.append(course(alone, [_apart(seen) for seen in looks]).promoted.mean(axis=0))
    return shares[0], shares[1]


def _apart(seen: Seen) -> Seen:
    """Every pair as a gate of its own."""
    return _each(seen, lambda values: values[..., None])


def _effects(gate: Gate, runs: int, seed: int) -> Iterator[tuple[str, Floats]]:
    """(name, Δ of each run and benchmark)."""
    n = len(gate.costs)
    size = gate.costs[:, -1]
    yield "equal", np.zeros((runs, n))
    yield "+1 everywhere", np.full((runs, n), GAIN)
    if n <= WORSE:
        yield "−2 everywhere", np.full((runs, n), -DROP)
        return
    order = np.argsort(np.random.default_rng([seed, 99]).random((runs, n)), axis=1)
    random = np.zeros((runs, n), dtype=bool)
    np.put_along_axis(random, order[:, :WORSE], True, axis=1)
    yield "−2 on three at random", np.where(random, -DROP, 0.0)
    by_size = np.argsort(size, kind="stable")
    for name, chosen in (("−2 on the three largest", by_size[-WORSE:]), ("−2 on the three smallest", by_size[:WORSE])):
        yield name, np.where(np.isin(np.arange(n), chosen), -DROP, 0.0) + np.zeros((runs, 1))
    yield "−2 on three at random, +1 elsewhere", np.where(random, -DROP, GAIN)


def _looks(gate: Gate, effect: Floats, rng: np.random.Generator) -> list[Seen]:
    """What every look of every run sees; `effect` is the true difference of each run and pair."""
    runs, pairs = effect.shape
    steps = np.diff(gate.times, axis=1, prepend=0.0)
    shared = len(set(gate.benchmark.tolist())) < pairs
    walk = np.zeros((runs, pairs))
    looks = []
    for k in range(gate.times.shape[1]):
        noise = rng.standard_normal((runs, pairs))
        if shared:
            candidate = rng.standard_normal((runs, len(gate.costs)))[:, gate.benchmark]
            noise = (noise + candidate) / np.sqrt(2)
        walk = walk + noise * np.sqrt(steps[:, k])
        t = gate.times[:, k]
        many = np.full((runs, pairs), 1e9)  # never few: counts are not drawn
        stderr = np.broadcast_to(gate.stderr / np.sqrt(t), (runs, pairs))
        mean = effect + gate.stderr * walk / t
        # Without groups: the error is known here, and Student's t of the gate undoes what estimating it costs.
        none = np.zeros((runs, pairs))
        looks.append(Seen(many, many, many, mean, stderr, none, none.astype(bool)))
    return looks


def _scenario(name: str, gate: Gate, effect: Floats, rng: np.random.Generator) -> Scenario:
    looks = _looks(gate, effect[:, gate.benchmark], rng)
    went, blocked = _course(gate, looks)
    must = went.status[:, gate.required]
    promoted = (must == CLEAR).all(axis=1) & ~blocked
    cost = _cost(gate, went, blocked)
    promote, block, hold = (float(share.mean()) for share in (promoted, blocked, ~(promoted | blocked)))
    return Scenario(name, promote, block, hold, float(cost.mean()))


def _course(gate: Gate, looks: Sequence[Seen]) -> tuple[Course, NDArray[np.bool_]]:
    """The course of all pairs and whether each run was blocked; advisory pairs neither stop nor block a run."""
    must = gate.required
    held = course(_part(gate.setup, must), [_seen_part(seen, must) for seen in looks])
    status = np.zeros(looks[0].n.shape, dtype=np.int8)
    at = np.full(status.shape, -1, dtype=np.int64)
    status[:, must], at[:, must] = held.status, held.at
    for i in np.flatnonzero(~must):
        one = np.arange(len(must)) == i
        own = course(_part(gate.setup, one), [_seen_part(seen, one) for seen in looks])
        status[:, one], at[:, one] = own.status, own.at
    blocked = held.blocked
    if gate.simes is not None:
        p = upper_tail(-z_against(_seen_part(looks[-1], must), gate.setup.null[must]))
        ranks = np.arange(1, p.shape[1] + 1)
        blocked = (np.sort(p, axis=1) * p.shape[1] / ranks).min(axis=1) <= gate.simes
    return Course(status, at, held.stop), blocked


def _cost(gate: Gate, went: Course, blocked: NDArray[np.bool_]) -> Floats:
    """Full runs of the suite that each gate asked for: every benchmark up to the look that decided its pairs."""
    last = gate.costs.shape[1] - 1
    decided = np.where((went.status == CLEAR) | (went.status == BLOCK), went.at, last)
    total = np.zeros(len(decided))
    for b in range(len(gate.costs)):
        until = np.full(len(decided), last) if gate.to_end[b] else decided[:, gate.benchmark == b].max(axis=1)
        until = np.where(blocked, np.minimum(until, went.stop), until)
        total += gate.costs[b][until]
    return total


def _part(setup: Setup, keep: NDArray[np.bool_]) -> Setup:
    if keep.all():
        return setup
    return Setup(setup.margin[keep], setup.null[keep], setup.clear[keep], setup.block[keep])


def _seen_part(seen: Seen, keep: NDArray[np.bool_]) -> Seen:
    if keep.all():
        return seen
    return _each(seen, lambda values: values[:, keep])


def _each(seen: Seen, change: Callable[[Any], Any]) -> Seen:
    """What was seen, every array changed alike."""
    counts = change(seen.n), change(seen.wins), change(seen.losses)
    return Seen(*counts, change(seen.mean), change(seen.stderr), change(seen.groups), change(seen.binary))
