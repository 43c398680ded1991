"""What a person may overrule: tiers that the policy allows, no class that it forbids, and never what is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evalsuite.errors import UsageError
from evalsuite.gate.facts import Check, Training
from evalsuite.gate.override import refuse_override
from evalsuite.gate.policy import Decontamination, Floor, Override, Policy, Rule, Slices
from evalsuite.gate.verdict import Verdict
from tests.evalsuite.cards import make_card
from tests.evalsuite.gate.cards import ONE_LOOK, card, counts, duel, lacking, ruled

LOST = counts(0, 30, 170)
UNSURE = counts(15, 25, 160)


def overruled(verdict: Verdict, policy: Policy) -> str | None:
    """What stands in the way; None when the override is accepted."""
    try:
        refuse_override(verdict, policy.as_json())
    except UsageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("scores", [LOST, UNSURE])
def test_a_block_or_hold_of_a_standard_benchmark_may_be_overruled(scores: Any) -> None:
    assert overruled(ruled(duel(a=scores)), ONE_LOOK) is None


@pytest.mark.parametrize("scores", [LOST, UNSURE])
def test_a_critical_benchmark_may_not(scores: Any) -> None:
    policy = replace(ONE_LOOK, default=Rule(tier="critical"))
    said = overruled(ruled(duel(a=scores), policy), policy)
    assert said is not None
    assert said.startswith("may not be overridden: a (critical, must_not_regress): ")


def test_everything_that_stands_in_the_way_is_named_at_once() -> None:
    policy = replace(ONE_LOOK, default=Rule(tier="critical"), safety={"b": Floor(floor=0.9)})
    said = overruled(ruled(duel(a=LOST, b=UNSURE), policy), policy)
    assert said is not None
    assert "a (critical, must_not_regress)" in said
    assert "b (critical, must_not_regress)" in said
    assert "b (safety, floor)" in said


def test_a_broken_floor_and_touched_training_data_may_never_be_overruled() -> None:
    floor = replace(ONE_LOOK, safety={"a": Floor(floor=0.9)})
    said = overruled(ruled((card("new", a=[0.0] * 200), None), floor, bootstrap=True), floor)
    assert said is not None
    assert "a (safety, floor)" in said
    required = replace(ONE_LOOK, decontamination=Decontamination(required=True))
    said = overruled(ruled(duel(a=counts(0, 0, 200)), required, training=Training()), required)
    assert said is not None
    assert "decontamination (decontamination, decontamination)" in said


def test_failed_samples_may_never_be_overruled() -> None:
    failed = make_card("new", {"a": lacking(1, "timed out")})
    policy = replace(ONE_LOOK, override=Override(allow=("standard", "advisory"), never=()))
    said = overruled(ruled((failed, card("old", a=[1.0] * 200)), policy), policy)
    assert said is not None
    assert "a (standard, failed)" in said


@pytest.mark.parametrize("never", ["slices", "infra", "missing"])
def test_a_class_that_the_policy_forbids_is_known_by_its_findings(never: str) -> None:
    kinds = {"a": {"categories": {f"q{i}": "x" for i in range(200)}}}
    equal = counts(0, 0, 200)
    facts: dict[str, Any] = {"infra": (Check("loads", False, "cut off"),)} if never == "infra" else {}
    policy = replace(ONE_LOOK, slices=Slices(("a/gone",)) if never == "slices" else Slices())
    sides = duel(a=equal) if never != "missing" else (card("new", b=[1.0] * 200), card("old", a=equal[1], b=equal[1]))
    verdict = ruled(sides, policy, items=kinds, exhausted=True, **facts)
    assert verdict.outcome == "block"
    strict = replace(policy, override=Override(never=(never,)))
    told = overruled(verdict, strict)
    if never == "missing":  # nothing of a is on both sides, which nobody may overrule anyway
        assert told is not None
        assert "a (standard, missing)" in told
    else:
        assert overruled(verdict, policy) is None
        assert told is not None
        assert {"slices": "(standard, slice)", "infra": "(standard, infra.loads)"}[never] in told


def test_a_policy_may_allow_no_tier_at_all() -> None:
    policy = replace(ONE_LOOK, override=Override(allow=()))
    assert overruled(ruled(duel(a=UNSURE)), policy) is not None


def test_a_promotion_and_an_unfinished_gate_have_nothing_to_overrule() -> None:
    verdict = ruled(duel(a=counts(0, 0, 200)))
    assert overruled(verdict, ONE_LOOK) == "the verdict is promote; there is nothing to override"
    held = replace(verdict, outcome="hold", final=False)
    assert overruled(held, ONE_LOOK) == "the verdict is not final; run the gate to its end"
