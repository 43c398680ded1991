"""The rules that others ship, on the same made-up results as the gate's: all items, one look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evalsuite.distributions import t_quantile
from evalsuite.gate.policy import Policy
from evalsuite.gate.rule import Seen, course, z_against
from evalsuite.stats.multiple import holm, simes
from evalsuite.stats.normal import upper_tail
from evalsuite.stats.proportion import mcnemar_less
from tests.speed.gate_worlds import SIZES, Floats, World, held_to

EXACT_BELOW = 50  # as in judge.py
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Ruling:
    """What a rule says to each run; neither promoted nor blocked is a hold. `cost` is the share of the items used."""

    promoted: Bools
    blocked: Bools
    cost: float = 1.0


def peers(world: World, q: Floats, effect: Floats, rng: np.random.Generator) -> Mapping[str, Ruling]:
    """Every peer's ruling on the whole of each run; `q` and `effect` are the truth that drew it."""
    seen = world.looks[-1]
    d = seen.mean
    better, worst = d.mean(axis=1) >= 0, d.min(axis=1)
    return {
        "macro mean ≥ champion": _yes_or_no(better),
        "no benchmark lower": _yes_or_no(worst >= 0),
        "macro ≥, no drop > 1 point": _yes_or_no(better & (worst >= -0.01)),
        "macro ≥, no drop > 2 points": _yes_or_no(better & (worst >= -0.02)),
        "macro on 100 items each": _yes_or_no(_hundred_items(q, effect, rng), 100 * len(SIZES) / sum(SIZES.values())),
        "unpaired z, Holm (block only)": _unpaired(seen, rng),
        "95 % interval inside 1.5 points": _interval(seen, 0.015),
        "95 % interval inside 5 points": _interval(seen, 0.05),
    }


def _yes_or_no(promoted: Bools, cost: float = 1.0) -> Ruling:
    return Ruling(promoted, ~promoted, cost)


def _hundred_items(q: Floats, effect: Floats, rng: np.random.Generator) -> Bools:
    win, loss = (q + effect) / 2, (q - effect) / 2
    wins = rng.binomial(100, win)
    losses = rng.binomial(100 - wins, loss / (1 - win))
    return np.asarray((wins - losses).mean(axis=1) >= 0)


def _unpaired(seen: Seen, rng: np.random.Generator) -> Ruling:
    """Two-tailed z of two accuracies as if of different items, as lm-eval's model_comparator; Holm at .05 blocks.

    Items on which both agree are right three times in four; nearer to half the test has less power.
    """
    both = rng.binomial((seen.n - seen.wins - seen.losses).astype(np.int64), 0.75)
    ours, theirs = (both + seen.wins) / seen.n, (both + seen.losses) / seen.n
    z = (ours - theirs) / np.sqrt((ours * (1 - ours) + theirs * (1 - theirs)) / (seen.n - 1))
    p = 2 * upper_tail(np.abs(z))
    worst = np.where(z < 0, p, 1.0)
    blocked = np.zeros(len(z), bool)
    # Holm rejects nothing where the smallest p-value is above .05/B.
    for r in np.flatnonzero(p.min(axis=1) <= 0.05 / p.shape[1]):
        adjusted = np.array(holm([float(x) for x in p[r]]))
        blocked[r] = bool((adjusted[worst[r] < 1] <= 0.05).any())
    return Ruling(~blocked, blocked)


def _interval(seen: Seen, max_drop: float) -> Ruling:
    """The paired t interval against `max_drop`, as NeMo Evaluator's gate (engine/gate.py @01b90280) without clusters.

    GO where the largest drop in every interval is allowed, NO-GO where the smallest in any is not, else INCONCLUSIVE;
    every benchmark here has its minimum of 10 pairs, and no relative drop is limited.
    """
    variance = (seen.wins + seen.losses - seen.n * seen.mean**2) / (seen.n - 1)
    half = np.array([_t(int(n)) for n in seen.n[0]]) * np.sqrt(variance / seen.n)
    breach = (-(seen.mean + half) > max_drop).any(axis=1)
    return Ruling((-(seen.mean - half) <= max_drop).all(axis=1), breach)


@lru_cache
def _t(n: int) -> float:
    return t_quantile(0.975, n - 1)


def fixed_test(policy: Policy, world: World, q: Floats) -> Ruling:
    """The gate's own fixed test on all items: margins by its plan, blocks by Simes as `judge` has it."""
    setup, _ = held_to(policy, [(n, 1) for n in SIZES.values()], q, len(SIZES))
    seen = world.looks[-1]
    went = course(setup, [seen])
    p = np.asarray(upper_tail(-z_against(seen, 0.0)))
    for r, b in np.argwhere(seen.wins + seen.losses < EXACT_BELOW):
        p[r, b] = mcnemar_less(int(seen.wins[r, b]), int(seen.losses[r, b]), mid=True)
    blocked = np.array([simes([float(x) for x in row]) <= policy.method.alpha / 2 for row in p])
    return Ruling(went.promoted & ~blocked, blocked)
