"""Claimed gains: declared beforehand, and held to a level that shrinks with every attempt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from evalsuite.distributions import t_quantile
from evalsuite.gate.facts import Facts
from evalsuite.gate.policy import Policy, Target
from evalsuite.gate.tally import Pair, Sample
from evalsuite.gate.verdict import Finding
from evalsuite.stats.inferiority import clustered_z, plain_z
from evalsuite.stats.multiple import attempt_alpha
from evalsuite.stats.normal import z_of_upper_tail


def improvement(
    policy: Policy, facts: Facts, pairs: Sequence[Pair], used: Mapping[str, int], ended: bool
) -> Iterator[Finding]:
    """Claimed gains, one-sided at a level that shrinks with every attempt, so that trying often proves nothing."""
    claim = policy.must_improve
    if claim is None:
        return
    if facts.dry_run:
        # A claim that costs no attempt could be made until it holds.
        words = "a dry run proves no claimed gain, for it is not counted as an attempt"
        yield Finding("", "must_improve", "hold", words, reference="champion")
        return
    level = attempt_alpha(claim.alpha, facts.attempt)
    if claim.mode == "any_of":
        level /= len(claim.targets)
    against = [p for p in pairs if p.plan.reference == "champion"]
    found = [_claimed(target, facts, against, used, level, ended) for target in claim.targets]
    proven = [f.outcome == "pass" for f in found]
    enough = any(proven) if claim.mode == "any_of" else all(proven)
    for f in found:
        # One proven gain is enough for any_of; the others then are no reason to hold.
        yield f if not enough or f.outcome == "pass" else replace(f, outcome="warn")


def _claimed(
    target: Target, facts: Facts, pairs: Sequence[Pair], used: Mapping[str, int], level: float, ended: bool
) -> Finding:
    gain = _gain(target.metric, facts, pairs, used)
    words = "was not looked at to its end" if not ended else "has no complete comparison"
    open_claim = Finding(
        target.metric,
        "must_improve",
        "hold",
        f"a claimed gain that {words}",
        reference="champion",
        limit=target.min_gain,
    )
    if gain is None:
        return open_claim
    z = gain.z(target.min_gain)
    needed = float(z_of_upper_tail(level))
    words = f"z {z:.2f}, {needed:.2f} needed (attempt {facts.attempt}, level {level:.2g})"
    return replace(
        open_claim,
        outcome="pass" if z >= needed else "hold",
        why=f"proven better, {words}" if z >= needed else f"not proven better, {words}",
        difference=gain.difference,
        low=gain.difference - gain.width,
        high=gain.difference + gain.width,
        z=z,
    )


@dataclass(frozen=True, slots=True)
class _Gain:
    """A mean difference over whole benchmarks. `freedom` is inf unless a benchmark comes in clusters."""

    difference: float
    stderr: float
    freedom: float

    @property
    def width(self) -> float:
        """Half of the 95 % interval."""
        return self.stderr * (t_quantile(0.975, self.freedom) if math.isfinite(self.freedom) else 1.959964)

    def z(self, null: float) -> float:
        if math.isfinite(self.freedom):
            return float(clustered_z(self.difference, self.stderr, self.freedom + 1, null))
        return float(plain_z(self.difference, self.stderr, null))


def _gain(metric: str, facts: Facts, pairs: Sequence[Pair], used: Mapping[str, int]) -> _Gain | None:
    """The gain of the suite, a column or a benchmark; None unless every benchmark behind it was looked at to its end.

    Few clusters leave few degrees of freedom (Satterthwaite, from the variances of the parts).
    """
    by_name = {p.plan.benchmark: p for p in pairs}
    columns = facts.columns if metric == "macro" else {metric: facts.columns.get(metric, (metric,))}
    differences, variances, uncertain = [], [], 0.0
    for members in columns.values():
        held = [by_name[m] for m in members if m in by_name]
        if len(held) < len(members) or not all(
            used[p.plan.benchmark] == p.plan.n and p.complete(p.plan.n) for p in held
        ):
            return None
        samples = [p.seen(p.plan.n) for p in held]
        if not all(s.n for s in samples):
            return None
        differences.append(math.fsum(s.mean for s in samples) / len(samples))
        parts = [(_stderr(s) / len(samples)) ** 2 for s in samples]
        variances += parts
        uncertain += math.fsum(v * v / (s.groups - 1) for v, s in zip(parts, samples, strict=True) if s.groups > 1)
    if not differences:
        return None
    variance = math.fsum(variances)
    freedom = variance**2 / uncertain if uncertain else math.inf
    return _Gain(math.fsum(differences) / len(differences), math.sqrt(variance) / len(differences), freedom)


def _stderr(sample: Sample) -> float:
    """The standard error; where every item changed by the same, that of a null of no change, √(Σd²)/n.

    A set that goes from all wrong to all right has no spread, and is still no proof on two items.
    """
    return sample.stderr or abs(sample.mean) / math.sqrt(sample.n)
