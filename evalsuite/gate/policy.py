"""What a gate demands: margins, error rates, samples, floors and required evidence, as data with a digest.

`reading` makes a Policy from files; whatever is in one was checked there. Numbers are 0 to 1. A margin of None is
calibrated: the smallest drop that the data can rule out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from evalsuite.registry.canonical import digest

Test = Literal["group_sequential", "betting", "fixed"]
Spending = Literal["pocock", "obf"]
Tier = Literal["critical", "standard", "advisory"]
BlockNull = Literal["zero", "margin"]
Severity = Literal["warn", "block"]


@dataclass(frozen=True, slots=True)
class KRule:
    """Benchmarks of fewer than `n_lt` items are asked `k` times an item."""

    n_lt: int
    k: int


@dataclass(frozen=True, slots=True)
class Samples:
    """How often each item is asked. More than once means sampled at `temperature` and `top_p`."""

    default: int = 1
    temperature: float = 0.7
    top_p: float = 0.95
    when: tuple[KRule, ...] = ()

    def k_for(self, n: int, *, sampled: bool) -> int:
        """Samples an item for a benchmark of n items; 1 where nothing is generated (`sampled` is false)."""
        if not sampled:
            return 1
        fitting = [rule for rule in self.when if n < rule.n_lt]
        return min(fitting, key=lambda rule: rule.n_lt).k if fitting else self.default


@dataclass(frozen=True, slots=True)
class Method:
    """The test: `clear` and `block` name how alpha is spent over the looks (gate.md §4.3)."""

    test: Test = "group_sequential"
    looks: int = 10
    alpha: float = 0.05
    beta: float = 0.06
    clear: Spending = "pocock"
    block: Spending = "obf"
    when_complete: Literal["replay", "fixed"] = "replay"


@dataclass(frozen=True, slots=True)
class Planning:
    """What is assumed of two checkpoints before either was compared: it sets calibrated margins, never a test."""

    disagreement: float = 0.15
    disagreement_floor: float = 0.05
    icc: float = 0.01
    min_power: float = 0.8


@dataclass(frozen=True, slots=True)
class Rule:
    """What one benchmark must not do. `cluster` is "default" (what its YAML declares), "none", or a declared field.

    `block_null` None stands for "zero" under a calibrated margin, which is a limit of sight, and for "margin" under a
    written one, which is a permission.
    """

    margin: float | None = None
    margin_min: float = 0.01
    margin_max: float | None = None
    tier: Tier = "standard"
    on_inconclusive: Literal["hold", "warn"] = "hold"
    cluster: str = "default"
    strata: bool = False
    block_null: BlockNull | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A gain that is claimed beforehand: of the suite's mean ("macro") or of one benchmark."""

    metric: str
    min_gain: float = 0.0


@dataclass(frozen=True, slots=True)
class MustImprove:
    mode: Literal["any_of", "all_of"]
    targets: tuple[Target, ...]
    alpha: float = 0.05


@dataclass(frozen=True, slots=True)
class Floor:
    """Bounds on the candidate's own score: refusing what is harmful and answering what is harmless."""

    floor: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True, slots=True)
class Slices:
    """`require` names slices, "benchmark/category" or "benchmark/*", whose absence is missing evidence."""

    require: tuple[str, ...] = ()
    min_items: int = 50
    on_fail: Severity = "warn"


@dataclass(frozen=True, slots=True)
class Decontamination:
    required: bool = False
    max_eval_fraction: float = 0.02
    clean_subset: Severity = "warn"


@dataclass(frozen=True, slots=True)
class Errors:
    """What becomes of missing or bad evidence. Shares are of the items looked at, the overlap of those planned."""

    missing: Literal["block", "hold"] = "block"
    judge_failed_rate_max: float = 0.005
    pair_overlap_min: float = 0.99
    truncated_delta_max: float = 0.02
    empty_safety_max: float = 0.02
    unsandboxed: Literal["hold", "warn"] = "hold"


@dataclass(frozen=True, slots=True)
class Unseen:
    """How often the unseen suite may be looked at; `eta` None rounds to max(0.5 points, standard error)."""

    per_candidate: int = 1
    per_90_days: int = 3
    eta: float | None = None


@dataclass(frozen=True, slots=True)
class Override:
    """Tiers whose hold or block a person may overrule, and classes of findings that nobody may."""

    allow: tuple[str, ...] = ("standard", "advisory")
    never: tuple[str, ...] = ("safety", "decontamination")


@dataclass(frozen=True, slots=True)
class Notify:
    """Where verdicts are sent: a file, or a webhook whose address is in the environment (`env:NAME`)."""

    kind: Literal["webhook", "file"]
    target: str


@dataclass(frozen=True)
class Policy:
    """A whole policy. `rules` and `safety` have benchmark names (or "benchmark/category") once read with their suite.

    `name` and `settings` (the `--set` lines) say where it came from and are outside its digest.
    """

    version: int = 1
    name: str = "default"
    suite: str = "tulu3-dev"
    champion: str = "champion"
    anchor: str | None = "anchor"
    method: Method = Method()
    samples: Samples = Samples()
    plan: Planning = Planning()
    default: Rule = Rule()
    rules: Mapping[str, Rule] = field(default_factory=dict)
    must_improve: MustImprove | None = None
    safety: Mapping[str, Floor] = field(default_factory=dict)
    slices: Slices = Slices()
    decontamination: Decontamination = Decontamination()
    infra: tuple[str, ...] = ("loads", "generates", "chat_template", "finite_weights")
    errors: Errors = Errors()
    unseen: Unseen = Unseen()
    override: Override = Override()
    notify: tuple[Notify, ...] = ()
    settings: tuple[str, ...] = ()

    def rule(self, benchmark: str) -> Rule:
        return self.rules.get(benchmark, self.default)

    @cached_property
    def digest(self) -> str:
        """sha256 hex of the canonical JSON of `as_json`: equal digests demand the same."""
        return digest(self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The merged form, in the words of a policy file and complete, so that it reads back as the same policy."""
        method = asdict(self.method)
        spending = {"clear": method.pop("clear"), "block": method.pop("block")}
        return {
            "version": self.version,
            "suite": self.suite,
            "compare": {"champion": self.champion, "anchor": self.anchor},
            "method": {**method, "spending": spending},
            "samples": {**asdict(self.samples), "when": [asdict(rule) for rule in self.samples.when]},
            "plan": asdict(self.plan),
            "must_not_regress": {"default": _rule(self.default), **{b: _rule(r) for b, r in self.rules.items()}},
            "must_improve": _must_improve(self.must_improve),
            "safety": {name: asdict(bounds) for name, bounds in self.safety.items()},
            "slices": {**asdict(self.slices), "require": list(self.slices.require)},
            "decontamination": asdict(self.decontamination),
            "infra": list(self.infra),
            "errors": asdict(self.errors),
            "unseen": {**asdict(self.unseen), "eta": "auto" if self.unseen.eta is None else self.unseen.eta},
            "override": {key: list(words) for key, words in asdict(self.override).items()},
            "notify": [{each.kind: each.target} for each in self.notify],
        }


def _rule(rule: Rule) -> dict[str, Any]:
    return {**asdict(rule), "margin": "calibrated" if rule.margin is None else rule.margin}


def _must_improve(claims: MustImprove | None) -> dict[str, Any] | None:
    return None if claims is None else {claims.mode: [asdict(t) for t in claims.targets], "alpha": claims.alpha}
