"""Grading: what is averaged, what is absent, and one bad response never takes the others with it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from evalsuite.benchmark import find_benchmark
from evalsuite.errors import UsageError
from evalsuite.grading import grade
from evalsuite.plan import Plan, Planned
from evalsuite.types import GenerateRequest, Prompt, Response, Sampling, Score

REQUEST = GenerateRequest(Prompt("?"), Sampling(1))


def plan_of(module: Any, n: int, *, repeats: int = 1, categories: dict[str, str] | None = None, **meta: Any) -> Plan:
    folder = find_benchmark("demo_add")
    benchmark: Any = replace(folder, meta=replace(folder.meta, **meta))
    object.__setattr__(benchmark, "module", module)
    planned = [Planned(f"q{i}", k, REQUEST) for i in range(n) for k in range(repeats)]
    return Plan(benchmark, planned, {f"q{i}": {} for i in range(n)}, categories or {}, {}, (), {})


def answers(plan: Plan, text: str = "x") -> dict[tuple[str, int], Response]:
    return {(p.sample, p.number): Response(f"{text}{p.sample}.{p.number}") for p in plan.planned}


def test_a_verifier_of_many_that_raises_on_one_response_loses_that_sample_alone() -> None:
    def verify_many(pairs: Any) -> list[Score]:
        if any(text == "xq1.1" for text, _ in pairs):
            raise RecursionError("too deep")
        return [Score(1.0) for _ in pairs]

    module = SimpleNamespace(verify_many=verify_many, combine=lambda scores: Score(len(scores) / 2))
    plan = plan_of(module, 3, repeats=2)
    result = grade(plan, answers(plan))
    assert result.scores == {"q0": 1.0, "q2": 1.0}
    assert result.failures == {"q1": "the verifier raised RecursionError: too deep"}


def test_an_error_that_a_user_can_fix_is_not_swallowed() -> None:
    def verify_many(pairs: Any) -> list[Score]:
        raise UsageError("no sandbox")

    plan = plan_of(SimpleNamespace(verify_many=verify_many), 2)
    with pytest.raises(UsageError, match="no sandbox"):
        grade(plan, answers(plan))


def test_a_macro_average_that_lost_a_category_is_absent() -> None:
    module = SimpleNamespace(verify=lambda text, doc: Score(1.0))
    plan = plan_of(module, 3, categories={"q0": "a", "q1": "a", "q2": "b"}, aggregate="macro")
    assert grade(plan, answers(plan)).value == 1.0
    lost = grade(plan, {k: a for k, a in answers(plan).items() if k[0] != "q2"})
    assert (lost.value, lost.n, lost.n_failed) == (None, 2, 1)
    assert lost.notes == ("absent: no sample of b has a score",)


def test_the_number_that_a_regime_wants_becomes_the_value_and_the_old_one_a_part() -> None:
    module = SimpleNamespace(verify=lambda text, doc: Score(1.0, {"strict": 0.0, "other": 0.5}))
    plan = plan_of(module, 2, metric="strict")
    object.__setattr__(plan.benchmark, "own_metric", "flex")
    result = grade(plan, answers(plan))
    assert result.value == 0.0
    assert {name: m.value for name, m in result.parts.items()} == {"flex": 1.0, "other": 0.5}


def test_options_reach_only_the_verifiers_that_take_them() -> None:
    seen = []

    def verify(text: str, doc: Any, quirks: frozenset[str] = frozenset("q")) -> Score:
        seen.append(quirks)
        return Score(1.0)

    for module in (SimpleNamespace(verify=verify), SimpleNamespace(verify=lambda text, doc: Score(1.0))):
        plan = plan_of(module, 1)
        object.__setattr__(plan.benchmark, "options", {"quirks": frozenset[str]()})
        assert grade(plan, answers(plan)).value == 1.0
    assert seen == [frozenset()]
