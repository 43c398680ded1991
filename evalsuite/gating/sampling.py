"""How often each item is asked in a gate, and which items depend on one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

from evalsuite.gate.facts import Items, needed
from evalsuite.gate.order import MIN_CLUSTERS
from evalsuite.gate.policy import Policy, Samples
from evalsuite.plan import Plan, Planned
from evalsuite.types import GenerateRequest, Sampling

CATEGORY = "category"


def sampled(plan: Plan, k: int, samples: Samples, checkpoint: str) -> Plan:
    """The plan with every question asked `k` times, sampled; the plan itself where it asks so often anyway.

    Seeds come from the checkpoint's digest, so that two checkpoints are seeded independently and a champion keeps the
    answers that it gave as a candidate. A benchmark that samples anyway keeps its own temperature.
    """
    if k == repeats_of(plan):
        return plan
    planned = [
        Planned(
            p.sample, number, _seeded(p.request, samples, f"{checkpoint}\0{plan.benchmark.name}\0{p.sample}", number)
        )
        for p in plan.planned
        if isinstance(p.request, GenerateRequest)
        for number in range(k)
    ]
    return replace(plan, planned=planned)


def samples_for(policy: Policy, plan: Plan) -> int:
    """K of a benchmark: by its size where it generates; what the regime repeats anyway stays as it is."""
    repeats = repeats_of(plan)
    if repeats > 1:
        return repeats
    generates = isinstance(plan.planned[0].request, GenerateRequest)
    return policy.samples.k_for(len(plan.docs), sampled=generates)


def repeats_of(plan: Plan) -> int:
    """How many responses the regime asks for each item; 1 where nothing is generated."""
    if not isinstance(plan.planned[0].request, GenerateRequest):
        return 1
    return 1 + max(p.number for p in plan.planned)


def items_of(policy: Policy, plan: Plan, k: int) -> Items:
    """The benchmark as the gate sees it: ids, clusters by the policy's rule, categories."""
    rule = policy.rule(plan.benchmark.name)
    clusters = dict(_clusters(plan, rule.cluster))
    # Few clusters leave a t-test hardly any degrees of freedom; so few groups are fixed categories, not a sample.
    few = 0 < len(set(clusters.values())) < MIN_CLUSTERS
    strata = rule.strata or (few and rule.cluster == "default")
    return Items(
        ids=tuple(plan.docs),
        clusters=clusters or (dict(plan.categories) if rule.strata else {}),
        categories=dict(plan.categories),
        k=k,
        base=repeats_of(plan),
        of=min(k, needed(plan.benchmark.meta.metric)),
        strata=strata,
        macro=plan.benchmark.meta.aggregate == "macro",
        safety=plan.benchmark.meta.split == "safety",
    )


def _clusters(plan: Plan, wanted: str) -> Mapping[str, str]:
    """Sample id to cluster: what the benchmark declares for comparisons, a field of its documents, or nothing."""
    meta = plan.benchmark.meta
    if wanted == "none":
        return {}
    field = (meta.gate_cluster or meta.cluster) if wanted == "default" else wanted
    if field is None:
        return {}
    if field == meta.cluster and plan.clusters:
        return plan.clusters
    if field in (CATEGORY, meta.category):
        return plan.categories
    return {i: _short(str(doc[field])) for i, doc in plan.docs.items()}


def _short(text: str) -> str:
    return text if len(text) <= 40 else blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _seeded(request: GenerateRequest, samples: Samples, name: str, number: int) -> GenerateRequest:
    own = request.sampling
    seed = int.from_bytes(blake2b(f"{name}\0{number}".encode(), digest_size=8).digest(), "big") >> 1
    if own.temperature > 0:
        return replace(request, sampling=replace(own, seed=seed))
    return replace(request, sampling=_at(own, samples.temperature, samples.top_p, seed))


def _at(own: Sampling, temperature: float, top_p: float, seed: int) -> Sampling:
    return replace(own, temperature=temperature, top_p=top_p, seed=seed)
