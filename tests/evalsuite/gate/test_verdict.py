"""What a verdict says: its lines at any width, its JSON, and the way back from it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from evalsuite.errors import UsageError
from evalsuite.gate.facts import Check
from evalsuite.gate.policy import Floor, Method, MustImprove, Policy, Rule, Slices, Target
from evalsuite.gate.verdict import (
    Finding,
    FindingOutcome,
    Verdict,
    from_raw,
    headline,
    lines,
    outcome_of,
    signed,
    to_json,
    to_raw,
)
from evalsuite.registry.canonical import canonical
from tests.evalsuite.gate.cards import ONE_LOOK, card, counts, duel, ruled

FULL = Policy(
    rules={"popqa": Rule(tier="advisory"), "gsm8k": Rule(margin=0.07)},
    safety={"harmbench/contextual": Floor(floor=0.8)},
    must_improve=MustImprove("any_of", (Target("macro"),)),
    slices=Slices(min_items=20),
)


def full() -> Verdict:
    """A verdict with findings of most kinds, against champion and anchor."""
    sides = duel(
        gsm8k=counts(20, 45, 335),
        popqa=counts(0, 50, 350),
        harmbench=counts(0, 50, 350),
        ifeval=counts(30, 32, 338),
    )
    kinds = {"harmbench": {"categories": {f"q{i}": ("contextual", "standard")[i % 2] for i in range(400)}}}
    anchor = card("sft", gsm8k=[1.0] * 400, popqa=[1.0] * 400, harmbench=[1.0] * 400, ifeval=[1.0] * 400)
    facts: dict[str, Any] = {"ref": "champion", "generation": 2, "anchor_generation": 1, "versions": {"evalsuite": "1"}}
    return ruled(sides, FULL, anchor=anchor, items=kinds, infra=(Check("loads", True),), **facts)


def test_a_verdict_reads_back_from_its_json_as_it_was() -> None:
    for verdict in (full(), ruled(duel(a=counts(0, 0, 200))), ruled((card("new", a=[1.0]), None), bootstrap=True)):
        assert from_raw(json.loads(to_json(verdict))) == verdict
        assert to_json(from_raw(json.loads(to_json(verdict)))) == to_json(verdict)
        assert canonical(to_raw(verdict))  # the registry takes it: no NaN, no infinity


def test_the_json_says_what_the_registry_and_promotion_read() -> None:
    raw = json.loads(to_json(full()))
    assert (raw["schema"], raw["final"], raw["bootstrap"]) == ("gate/1", True, False)
    assert raw["champion"] == {"name": "old", "digest": raw["champion"]["digest"], "generation": 2}
    assert raw["anchor"]["generation"] == 1
    assert raw["policy"] == FULL.digest
    assert raw["suite"] == {"name": "demo", "digest": "d" * 64, "regime": "demo@v1"}
    assert set(raw["cost"]) == {"candidate", "champion", "anchor", "full_run", "share"}
    assert set(raw["blind"]) == {"gsm8k", "popqa", "harmbench", "ifeval"}
    assert list(raw) == sorted(raw)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "gate/2"}, "schema 'gate/2', this version reads 'gate/1'"),
        ({"candidate": None}, "TypeError"),
        ({"findings": [{"benchmark": "a", "made_up": 1}]}, "made_up"),
        ({"findings": None}, "TypeError"),
    ],
)
def test_what_is_no_verdict_is_refused(changes: dict[str, Any], words: str) -> None:
    raw = {**json.loads(to_json(full())), **changes}
    with pytest.raises(UsageError, match=f"not a verdict.*{words}"):
        from_raw(raw)
    with pytest.raises(UsageError, match="not a verdict"):
        from_raw({k: v for k, v in raw.items() if k != "gate_id"})


@pytest.mark.parametrize(
    ("outcomes", "outcome"),
    [
        ((), "promote"),
        (("pass", "warn"), "promote"),
        (("pass", "hold"), "hold"),
        (("warn", "error"), "hold"),
        (("hold", "error", "block"), "block"),
    ],
)
def test_the_worst_finding_decides(outcomes: tuple[FindingOutcome, ...], outcome: str) -> None:
    assert outcome_of(Finding("a", "must_not_regress", o, "") for o in outcomes) == outcome


def test_lines_come_worst_first_and_in_columns() -> None:
    found = lines(full().findings)
    order = ["block", "error", "hold", "warn", "pass"]
    ranks = [order.index(line.split()[0]) for line in found]
    assert ranks == sorted(ranks)
    assert len(found) == len(full().findings)
    named = [line for line in found if " → " in line]
    assert len({line.index(" → ") for line in named}) == 1  # scores stand below each other


def test_a_line_has_the_numbers_and_the_sentence() -> None:
    (passed,) = lines(
        [
            Finding(
                "gsm8k",
                "must_not_regress",
                "pass",
                "clear at look 4 of 10, 528 of 1319 items",
                reference="champion",
                was=0.762,
                now=0.76,
                difference=-0.002,
                low=-0.019,
                high=0.015,
                limit=0.03,
            )
        ]
    )
    assert passed == (
        "pass   gsm8k  0.762 → 0.760  −0.002 [−0.019, +0.015]  allowed −0.030  clear at look 4 of 10, 528 of 1319 items"
    )


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fold_to_the_terminal_and_keep_numbers_whole(width: int) -> None:
    found = lines(full().findings, width)
    assert max(map(len, found)) <= width
    assert "".join(" ".join(lines(full().findings)).split()) == "".join(" ".join(found).split())  # nothing is lost
    for before, after in pairwise(found):
        assert not before.endswith(("allowed", "→", "[", "floor", "least"))
        assert after.startswith("       ") or after.split()[0] in {"block", "error", "hold", "warn", "pass"}


def test_an_advisory_line_says_why_it_stops_nothing() -> None:
    policy = replace(ONE_LOOK, rules={"a": Rule(tier="advisory")})
    (line,) = [line for line in lines(ruled(duel(a=counts(0, 30, 170)), policy).findings) if " a  " in line]
    assert line.endswith("proven worse at the end, 200 of 200 items; advisory, so it stops nothing")


def test_the_anchor_is_named_where_it_is_what_was_compared_with() -> None:
    found = lines(full().findings)
    assert any("gsm8k vs anchor" in line for line in found)
    assert not any("vs champion" in line for line in found)


def test_the_headline_names_who_may_replace_whom() -> None:
    blocked = full()
    assert headline(blocked).startswith("block: new may not replace old (champion, generation 2) on demo; 0.")
    promoted = ruled(duel(a=counts(0, 0, 200)))
    cost = "1.00 of a full run used (200 responses)"
    assert headline(promoted) == f"promote: new may replace old on demo; {cost}; policy default"
    again = headline(replace(promoted, again=2, partial="1 of 3 benchmarks", settings=("method.looks=1",)))
    assert "on demo (1 of 3 benchmarks); " in again
    assert "policy default with method.looks=1; gate 3 of this pair" in again
    assert again.endswith("a part of a suite promotes nobody")
    held = ruled(duel(a=counts(15, 25, 160)))
    assert headline(held).startswith("hold: cannot tell whether new may replace old on demo")


@pytest.mark.parametrize(
    ("value", "text"), [(0.015, "+0.015"), (-0.0019, "−0.002"), (0.0, "+0.000"), (None, "–"), (1.0, "+1.000")]
)
def test_signed_numbers_have_three_decimals_and_a_true_minus(value: float | None, text: str) -> None:
    assert signed(value) == text


def test_blocking_has_what_keeps_the_checkpoint_back_worst_first() -> None:
    verdict = full()
    kinds = [f.outcome for f in verdict.blocking]
    assert kinds[0] == "block"
    assert set(kinds) <= {"block", "error", "hold"}
    assert len(kinds) == sum(f.outcome in {"block", "error", "hold"} for f in verdict.findings)
    assert (verdict.exit_code, replace(verdict, outcome="hold").exit_code) == (1, 3)


def test_a_difference_over_a_part_of_the_items_is_marked_as_no_estimate() -> None:
    early = ruled(duel(a=counts(0, 0, 400)), replace(ONE_LOOK, method=Method(looks=10)))
    (line,) = [line for line in lines(early.findings) if " a " in line]
    assert "+0.000 [+0.000, +0.000]~  " in line
    whole = ruled(duel(a=counts(0, 0, 400)))
    assert not [line for line in lines(whole.findings) if "~" in line]
