"""Two sides of one benchmark, item by item in the gate's order, and what each look sees of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evalsuite.errors import UsageError
from evalsuite.gate.margins import PairPlan
from evalsuite.gate.rule import FEW_GRADED
from evalsuite.scorecard import Result
from evalsuite.stats.betting import log_e
from evalsuite.stats.inferiority import cluster_robust, loss_bound, stratified_stderr
from evalsuite.stats.power import intraclass

JUDGE = "judge: "  # how a failure begins that is a judge's, not the checkpoint's or ours (verify.judge.Unjudged)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One checkpoint's scores of one benchmark, in the gate's order; nan where there is none.

    `known` marks items that were answered or failed, `unjudged` those whose judge gave no verdict, `failed` the others
    without a score.
    """

    scores: Floats
    known: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    unjudged: NDArray[np.bool_]


def side(result: Result | None, ids: tuple[str, ...], who: str = "candidate") -> Side:
    """The result laid out in order; a missing result knows nothing.

    Raises UsageError naming a sample of `who` whose score is no number from 0 to 1: it would count as absent.
    """
    if result is not None:
        _refuse_broken(result, who)
    scores: Mapping[str, float] = result.scores if result else {}
    failures: Mapping[str, str] = result.failures if result else {}
    values = np.fromiter((scores.get(i, math.nan) for i in ids), dtype=float, count=len(ids))
    has = ~np.isnan(values)
    failed = np.zeros(len(ids), dtype=bool)
    unjudged = np.zeros(len(ids), dtype=bool)
    if failures:
        whys = [failures.get(i, "") for i in ids]
        unjudged = np.array([why.startswith(JUDGE) for why in whys], dtype=bool)
        failed = np.array([bool(why) for why in whys], dtype=bool) & ~unjudged
    return Side(values, has | failed | unjudged, failed & ~has, unjudged & ~has)


def _refuse_broken(result: Result, who: str) -> None:
    try:
        values = np.fromiter(result.scores.values(), dtype=float, count=len(result.scores))
        if bool(((values >= 0) & (values <= 1)).all()):
            return
    except (TypeError, ValueError):
        pass
    sample, score = next((i, s) for i, s in result.scores.items() if not (isinstance(s, int | float) and 0 <= s <= 1))
    raise UsageError(
        f"{result.benchmark}: sample {sample!r} of the {who} has the score {score!r}, which is no number from 0 to 1; "
        "repair its verifier or its metric's range, and score it again"
    )


@dataclass(frozen=True)
class Pair:
    """Candidate minus reference in the gate's order; `difference` is nan where either has no score.

    Verdicts that a judge owes are imputed at their worst, candidate 0 and reference 1, so that they can never promote a
    worse checkpoint.
    """

    plan: PairPlan
    candidate: Side
    reference: Side
    now: Floats
    was: Floats
    difference: Floats

    @classmethod
    def of(cls, plan: PairPlan, candidate: Side, reference: Side) -> Pair:
        now = np.where(candidate.unjudged, 0.0, candidate.scores)
        was = np.where(reference.unjudged, 1.0, reference.scores)
        return cls(plan, candidate, reference, now, was, now - was)

    def complete(self, size: int) -> bool:
        """Whether the first `size` items are known on both sides."""
        return bool(self.candidate.known[:size].all() and self.reference.known[:size].all())

    def n_failed(self, size: int) -> int:
        """How many of the first `size` items failed on either side."""
        return int((self.candidate.failed[:size] | self.reference.failed[:size]).sum())

    def seen(self, size: int) -> Sample:
        """What the first `size` items say."""
        held = ~np.isnan(self.difference[:size])
        d = self.difference[:size][held]
        now, was = self.now[:size][held], self.was[:size][held]
        clusters = self.plan.order.clusters[:size]
        index = _numbered([c for c, h in zip(clusters, held, strict=True) if h]) if clusters else None
        return Sample.of(self.plan, d, now, was, index)


@dataclass(frozen=True)
class Sample:
    """The pairs of a prefix, summed up. `stderr` is that of the mean difference, by the pair's own design."""

    n: int
    wins: int
    losses: int
    mean: float
    now: float
    was: float
    stderr: float
    groups: float  # how many even clusters tell as much; 0 for independent items
    binary: bool
    few: float
    variance: float
    icc: float | None
    log_e_clear: float
    log_e_block: float

    @classmethod
    def of(cls, plan: PairPlan, d: Floats, now: Floats, was: Floats, index: Any) -> Sample:
        n = len(d)
        wins, losses = int((d > 0).sum()), int((d < 0).sum())
        mean = math.fsum(d) / n if n else 0.0
        variance = math.fsum((d - mean) ** 2) / (n - 1) if n > 1 else 0.0
        binary = (
            plan.k == 1 and index is None and bool(((now == 0) | (now == 1)).all() and ((was == 0) | (was == 1)).all())
        )
        stderr, groups = math.sqrt(variance / n) if n else math.inf, 0.0
        if index is not None and n:
            if plan.order.strata:
                stderr = float(stratified_stderr(d, index))
            else:
                stderr, groups = cluster_robust(d, index, plan.icc)
        return cls(
            n=n,
            wins=wins,
            losses=losses,
            mean=mean,
            now=math.fsum(now) / n if n else math.nan,
            was=math.fsum(was) / n if n else math.nan,
            stderr=float(stderr),
            groups=groups,
            binary=binary,
            few=_few(plan, d, losses, index) if wins + losses < FEW_GRADED and not binary else 1.0,
            variance=variance,
            icc=float(intraclass(d, index)) if index is not None and n > 1 else None,
            log_e_clear=math.nan,
            log_e_block=math.nan,
        )


def betting_paths(pair: Pair) -> tuple[Floats, Floats]:
    """Running maxima of log E over the items, (to clear, to block); what is absent bets nothing."""
    return _path(pair, -pair.plan.margin, "clear"), _path(pair, pair.plan.null, "block")


def _path(pair: Pair, null: float, side: Literal["clear", "block"]) -> Floats:
    """One bet an item, or one a cluster: on its sum of (d − null), over the size of the largest cluster.

    The null goes into the sum: a small cluster at the margin has lost less than the largest one, which is no evidence.
    """
    excess = np.nan_to_num(pair.difference - null, nan=0.0)
    clusters = pair.plan.order.clusters
    if not clusters or pair.plan.order.strata:
        return np.asarray(np.maximum.accumulate(log_e(excess + null, null, side)))
    index = _numbered(list(clusters))
    sums = np.bincount(index, weights=excess) / np.bincount(index).max()
    return np.asarray(np.maximum.accumulate(log_e(sums + null, null, side))[index])


def _few(plan: PairPlan, d: Floats, losses: int, index: Any) -> float:
    """The p-value that clears a pair with hardly a difference.

    Graded scores bet against the margin (p = 1/E by Ville). Clusters count as n/deff independent items, by the planned
    design effect, and only at the end: an early look may not have met the few clusters that lost everything.
    """
    if index is not None and not plan.order.strata:
        if len(d) < plan.n:
            return 1.0
        return float(loss_bound(max(1.0, math.floor(len(d) / plan.deff)), losses, plan.margin))
    return min(1.0, math.exp(-float(log_e(d, -plan.margin, "clear")[-1]))) if len(d) else 1.0


def _numbered(names: list[str]) -> NDArray[np.int64]:
    """Each name as the number of its first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
