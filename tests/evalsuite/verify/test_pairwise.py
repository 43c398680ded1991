"""The order that a judge is shown is upstream's, and several verdicts make one preference or a failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalsuite.verify.judge import NoVerdict, Unjudged, Verdict
from evalsuite.verify.pairwise import is_swapped, preference, score


def test_the_order_of_the_real_instructions_is_the_official_one(hub_data: Path) -> None:
    path = hub_data / "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline/eval.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    instructions = [row["instruction"] for row in rows]
    assert len(instructions) == 805
    swapped = {seed: [is_swapped(i, seed) for i in instructions] for seed in (0, 42)}
    assert [sum(drawn) for drawn in swapped.values()] == [406, 426]
    assert swapped[0][:8] == [True, True, True, False, False, False, True, False]


def test_the_draw_sees_every_character_of_the_instruction() -> None:
    names = [f"Describe item {n}." for n in range(200)]
    assert any(is_swapped(name, 0) != is_swapped(name + " ", 0) for name in names)
    assert 70 < sum(is_swapped(name, 0) for name in names) < 130


def test_verdicts_are_averaged_and_one_that_is_missing_leaves_no_score() -> None:
    assert preference([Verdict(0.25), Verdict(0.75)]) == 0.5
    failure = NoVerdict("truncated", "cut after 100 tokens")
    with pytest.raises(Unjudged, match="truncated"):
        preference([Verdict(1.0), failure])
    with pytest.raises(Unjudged, match="unparsed"):
        preference([Verdict(labels={"response": "harmful"})])
    with pytest.raises(Unjudged, match="unparsed"):
        preference([])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1.0, "the response is preferred"),
        (0.5, "a tie"),
        (0.0, "the baseline is preferred"),
        (0.25, "the baseline is preferred (0.250)"),
    ],
)
def test_a_score_says_who_is_preferred(value: float, why: str) -> None:
    assert (score(value).value, score(value).why) == (value, why)
