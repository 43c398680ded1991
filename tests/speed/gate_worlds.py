"""Made-up checkpoints for results/GATE.md: what every look of many gates would see, drawn all at once.

Margins and bounds come from `plan_pairs` under a real policy, and `rule.course` decides; only the data is invented.
Items of one benchmark are alike and independent, so counts per look are drawn instead of items: the same distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evalsuite.gate.margins import PairInput, PairPlan, Spread, plan_pairs
from evalsuite.gate.order import Order, order
from evalsuite.gate.policy import Policy
from evalsuite.gate.rule import CLEAR, Course, Seen, Setup
from evalsuite.stats.betting import log_e, log_e_counts

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A suite of the size of tulu3-dev; 72,315 items.
SIZES: Mapping[str, int] = {
    "mmlu": 14000,
    "popqa": 14000,
    "truthfulqa": 817,
    "mmlu_pro": 12000,
    "bbh": 6500,
    "drop": 9500,
    "agieval": 2500,
    "gsm8k": 1319,
    "math": 5000,
    "humaneval": 164,
    "humaneval_plus": 164,
    "ifeval": 541,
    "alpaca_eval": 805,
    "harmbench": 320,
    "do_anything_now": 300,
    "xstest": 450,
    "wildguardtest": 1725,
    "wildjailbreak": 2210,
}
GATE_ID = "00" * 32
SPARSE = 30  # differences below which the rule may ask for their bets
SUBSTEPS = 10  # how often within a look a bet's wealth is read; the gate itself reads it after every item


@dataclass(frozen=True)
class World:
    """R runs of a gate over P pairs: what each look saw, and what each pair is held to.

    `sizes` (P, L) are the items of each look, `samples` (P,) the responses an item takes, `benchmark` (P,) says which
    pairs ask the same items.
    """

    setup: Setup
    looks: tuple[Seen, ...]
    sizes: Ints
    samples: Ints
    benchmark: Ints

    def cost(self, course: Course) -> Floats:
        """Responses used by each run, over the items of the suite: 1 is every item once."""
        last = np.where(course.status == CLEAR, course.at, course.stop[:, None])
        used = np.zeros(course.stop.shape)
        items = 0
        for b in np.unique(self.benchmark):
            pairs = np.flatnonzero(self.benchmark == b)
            until = last[:, pairs].max(axis=1)
            used += self.sizes[pairs[0], until] * self.samples[pairs[0]]
            items += self.sizes[pairs[0], -1]
        return used / items


def effects(scenario: str, runs: int, rng: np.random.Generator, sizes: Sequence[int] = ()) -> Floats:
    """The true difference of every benchmark in every run, (R, B)."""
    n = np.array(sizes or list(SIZES.values()))
    zero = np.zeros((runs, len(n)))
    match scenario:
        case "equal":
            return zero
        case "+1":
            return zero + 0.01
        case "half":
            return np.where(_chosen(rng, runs, n > 0, len(n) // 2), 0.02, 0.0)
        case "reg3 rand":
            return np.where(_chosen(rng, runs, n > 0, 3), -0.02, 0.0)
        case "reg3 big":
            return np.where(_chosen(rng, runs, n >= 5000, 3), -0.02, 0.0)
        case "reg3 small":
            return np.where(_chosen(rng, runs, n < 1000, 3), -0.02, 0.0)
        case "masked":
            return np.where(_chosen(rng, runs, n > 0, 3), -0.02, 0.01)
        case "masked big":
            return np.where(_chosen(rng, runs, n >= 5000, 3), -0.02, 0.01)
        case "-5":
            return np.where(_chosen(rng, runs, n > 0, 3), -0.05, 0.0)
    raise ValueError(scenario)


def _chosen(rng: np.random.Generator, runs: int, allowed: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """`count` of the allowed columns in every row."""
    lots = np.where(allowed, rng.random((runs, len(allowed))), 2.0)
    return lots.argsort(axis=1).argsort(axis=1) < count


def disagreements(low: float, high: float, runs: int, columns: int, rng: np.random.Generator) -> Floats:
    """Shares of items that differ, uniform in steps of .001, so that each is planned only once."""
    return rng.integers(round(1000 * low), round(1000 * high) + 1, (runs, columns)) / 1000


def binary_world(
    policy: Policy,
    rng: np.random.Generator,
    q: Floats,
    effect: Floats,
    *,
    planned: Floats | None = None,
    sizes: Sequence[int] = (),
    n_tests: int = 0,
) -> World:
    """One answer an item, right or wrong: d is +1, −1 or 0 with chance (q+Δ)/2, (q−Δ)/2, 1−q. Plans know q."""
    n = list(sizes or SIZES.values())
    setup, items = held_to(policy, [(i, 1) for i in n], q if planned is None else planned, n_tests or len(n))
    if policy.method.test == "betting":
        looks = _betting_looks(rng, setup, items, (q + effect) / 2, (q - effect) / 2)
    else:
        counts = _binary_counts(rng, items, (q + effect) / 2, (q - effect) / 2)
        looks = tuple(_binary(items[:, k], *c) for k, c in enumerate(counts))
    return World(setup, looks, items, np.ones(len(n), np.int64), np.arange(len(n)))


def anchored_world(policy: Policy, rng: np.random.Generator, q: Floats, effect: Floats) -> World:
    """The same candidate against a champion and against an anchor that is as good; `q` is (R, 2B).

    The candidate is right half of the time; given that, champion and anchor differ from it independently, which gives
    each pair the chances of `binary_world`. Real references resemble each other more, and then pass or fail together.
    """
    b = len(SIZES)
    setup, items = held_to(policy, [(n, 1) for n in SIZES.values()] * 2, q, 2 * b)
    up, down = q + np.tile(effect, 2), q - np.tile(effect, 2)
    chances = np.stack(
        [
            up[:, :b] * up[:, b:],
            up[:, :b] * (1 - up[:, b:]),
            (1 - up[:, :b]) * up[:, b:],
            down[:, :b] * down[:, b:],
            down[:, :b] * (1 - down[:, b:]),
            (1 - down[:, :b]) * down[:, b:],
            np.zeros_like(up[:, :b]),
        ],
        axis=-1,
    )
    chances /= 2
    chances[..., -1] = 1 - chances[..., :-1].sum(axis=-1)
    steps = np.diff(items[:b], axis=1, prepend=0)
    total = np.zeros(chances.shape, np.int64)
    looks = []
    for k in range(items.shape[1]):
        total = total + rng.multinomial(steps[:, k], chances)
        both_up, up_1, up_2, both_down, down_1, down_2 = (total[..., i] for i in range(6))
        wins = np.concatenate([both_up + up_1, both_up + up_2], axis=1)
        losses = np.concatenate([both_down + down_1, both_down + down_2], axis=1)
        looks.append(_binary(items[:, k], wins, losses))
    return World(setup, tuple(looks), items, np.ones(2 * b, np.int64), np.tile(np.arange(b), 2))


def graded_world(policy: Policy, rng: np.random.Generator, effect: Floats, sizes: Sequence[int] = ()) -> World:
    """The latent model of `difference_chances`, with the policy's K for each benchmark; plans know its variance."""
    n = list(sizes or SIZES.values())
    ks = [policy.samples.k_for(i, sampled=True) for i in n]
    variances = np.array([[variance_of(difference_chances(k, 0.0)) for k in ks]])
    setup, items = held_to(policy, list(zip(n, ks, strict=True)), variances, max(len(n), len(SIZES)))
    return graded_looks(rng, setup, items, np.array(ks), effect)


def graded_looks(rng: np.random.Generator, setup: Setup, items: Ints, ks: Ints, effect: Floats) -> World:
    runs, columns = effect.shape
    margins = np.broadcast_to(setup.margin, effect.shape)
    parts: list[list[Seen]] = []
    for p in range(columns):
        k = int(ks[p])
        levels = np.arange(-k, k + 1) / k
        kinds, which = np.unique(effect[:, p], return_inverse=True)
        chances = np.array([difference_chances(k, float(kind)) for kind in kinds])[which]
        total = np.zeros((runs, len(levels)), np.int64)
        parts.append([])
        for step, n in zip(np.diff(items[p], prepend=0), items[p], strict=True):
            total = total + rng.multinomial(step, chances)
            parts[-1].append(_graded(total, levels, int(n), margins[:, p]))
    looks = tuple(_side_by_side([part[k] for part in parts]) for k in range(items.shape[1]))
    return World(setup, looks, items, ks, np.arange(columns))


def held_to(policy: Policy, columns: Sequence[tuple[int, int]], variances: Floats, n_tests: int) -> tuple[Setup, Ints]:
    """The setup of pairs of (n items, K samples) with the planned variances (R, P), and the items of each look."""
    plans: list[PairPlan] = []
    margins = np.empty(variances.shape)
    for p, (n, k) in enumerate(columns):
        kinds, which = np.unique(variances[:, p], return_inverse=True)
        of_kind = [planned_pair(policy, plain_order(n, _n_looks(policy)), k, Spread(float(v)), n_tests) for v in kinds]
        margins[:, p] = np.array([plan.margin for plan in of_kind])[which]
        plans.append(of_kind[0])
    return setup_of(policy, plans, margins, n_tests), np.array([plan.order.sizes for plan in plans])


def setup_of(policy: Policy, plans: Sequence[PairPlan], margins: Floats, n_tests: int) -> Setup:
    betting = policy.method.test == "betting"
    return Setup(
        margins,
        np.array([plan.null for plan in plans]),
        np.array([plan.clear for plan in plans]),
        np.array([plan.block for plan in plans]),
        float(np.log(2 / policy.method.alpha)) if betting else np.inf,
        float(np.log(2 * n_tests / policy.method.alpha)) if betting else np.inf,
    )


_PLANS: dict[tuple[str, int, int, Spread, int], PairPlan] = {}


def planned_pair(policy: Policy, items: Order, k: int, spread: Spread, n_tests: int) -> PairPlan:
    """One pair as the gate plans it among `n_tests` (the others count as floors, which share α and β alike)."""
    made = PairInput("benchmark", "champion", items, k, spread=spread)
    if items.clusters:
        return plan_pairs(policy, [made], n_tests - 1)[0]
    key = (policy.digest, items.n, k, spread, n_tests)
    if key not in _PLANS:
        _PLANS[key] = plan_pairs(policy, [made], n_tests - 1)[0]
    return _PLANS[key]


@lru_cache
def plain_order(n: int, n_looks: int) -> Order:
    return order("benchmark", [f"q{i}" for i in range(n)], {}, GATE_ID, n_looks)


def _n_looks(policy: Policy) -> int:
    return 1 if policy.method.test == "fixed" else policy.method.looks


def _binary_counts(rng: np.random.Generator, items: Ints, win: Floats, loss: Floats) -> Iterable[tuple[Ints, Ints]]:
    """(wins, losses) up to each column of `items`."""
    wins, losses = np.zeros(win.shape, np.int64), np.zeros(win.shape, np.int64)
    for step in np.diff(items, axis=1, prepend=0).T:
        more = rng.binomial(step, win)
        wins = wins + more
        losses = losses + rng.binomial(step - more, loss / (1 - win))
        yield wins, losses


def _binary(n: Ints, wins: Ints, losses: Ints, bets: tuple[Floats, Floats] | None = None) -> Seen:
    shape = wins.shape
    count = np.broadcast_to(n.astype(float), shape)
    unused = np.broadcast_to(np.nan, shape)
    none, yes = np.zeros(shape), np.ones(shape, bool)
    clear, block = bets or (None, None)
    mean = (wins - losses) / count
    return Seen(count, wins.astype(float), losses.astype(float), mean, unused, none, yes, None, clear, block)


def _betting_looks(rng: np.random.Generator, setup: Setup, items: Ints, win: Floats, loss: Floats) -> tuple[Seen, ...]:
    """Looks with the running maxima of log E, read SUBSTEPS times a look."""
    n_looks = items.shape[1]
    fine = np.ceil(items[:, -1:] * np.arange(1, n_looks * SUBSTEPS + 1) / (n_looks * SUBSTEPS)).astype(np.int64)
    clear, block = np.full(win.shape, -np.inf), np.full(win.shape, -np.inf)
    looks = []
    for i, (wins, losses) in enumerate(_binary_counts(rng, fine, win, loss)):
        ties = fine[:, i] - wins - losses
        clear = np.maximum(clear, log_e_counts(wins, losses, ties, -setup.margin, "clear"))
        block = np.maximum(block, log_e_counts(wins, losses, ties, setup.null, "block"))
        if (i + 1) % SUBSTEPS == 0:
            looks.append(_binary(fine[:, i], wins, losses, (clear, block)))
    return tuple(looks)


def _graded(total: Ints, levels: Floats, n: int, margin: Floats) -> Seen:
    """One pair, (R, 1): counts of each difference summed up as the gate sums up items."""
    middle = len(levels) // 2
    wins, losses = total[:, middle + 1 :].sum(axis=1), total[:, :middle].sum(axis=1)
    mean = total @ levels / n
    stderr = np.sqrt(np.maximum(total @ levels**2 - n * mean**2, 0.0) / (n - 1) / n)
    few = np.ones(len(total))
    for r in np.flatnonzero(wins + losses < SPARSE) if middle > 1 else ():
        few[r] = min(1.0, np.exp(-log_e(np.repeat(levels, total[r]), -margin[r], "clear")[-1]))
    columns = (np.full(len(total), n), wins, losses, mean, stderr, np.zeros(len(total)))
    binary = np.full((len(total), 1), middle == 1)
    return Seen(*(c[:, None].astype(float) for c in columns), binary, few[:, None])


def _side_by_side(parts: Sequence[Seen]) -> Seen:
    names = ("n", "wins", "losses", "mean", "stderr", "groups", "binary", "few")
    return Seen(*(np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names))


@lru_cache
def difference_chances(k: int, effect: float) -> Floats:
    """P(d = j/K) for j = −K … K where the mean difference is `effect`, by integration.

    An item's latent ability is a ~ N(.5, 5²) for the champion and b = a + N(0, .7²) + μ for the candidate; each of K
    answers is right with chance σ(a) or σ(b), and d is the difference of the two shares. μ is solved for.
    """
    ability = np.linspace(-39.5, 40.5, 1601)
    weight = np.exp(-(((ability - 0.5) / 5) ** 2) / 2)
    weight /= weight.sum()
    shifts, shares = np.polynomial.hermite_e.hermegauss(32)
    shares = shares / shares.sum()
    champion = _sigmoid(ability)

    def candidate(mu: float) -> Floats:
        return _sigmoid(ability[:, None] + 0.7 * shifts + mu)

    low, high = -3.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        gain = float(weight @ (candidate(middle) @ shares - champion))
        low, high = (middle, high) if gain < effect else (low, middle)
    right = np.einsum("ask,s->ak", _binomial(k, candidate(low)), shares)
    joint = np.einsum("a,ai,aj->ij", weight, right, _binomial(k, champion))
    return np.array([np.trace(joint, -j) for j in range(-k, k + 1)])


def variance_of(chances: Floats) -> float:
    k = len(chances) // 2
    levels = np.arange(-k, k + 1) / k
    return float(chances @ levels**2 - (chances @ levels) ** 2)


def _sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def _binomial(k: int, p: Floats) -> Floats:
    """P(Bin(K, p) = i) for i = 0 … K along a new last axis."""
    ways = np.array([1.0])
    for i in range(1, k + 1):
        ways = np.append(ways, ways[-1] * (k - i + 1) / i)
    i = np.arange(k + 1)
    return ways * p[..., None] ** i * (1 - p[..., None]) ** (k - i)
