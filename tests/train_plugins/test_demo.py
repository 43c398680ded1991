"""The demonstration climbs, tells its story from its own numbers, and climbs no step twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from evalsuite.__main__ import main as evalsuite
from evalsuite.trainers import append_event
from evalsuite.trainers.recipes import find_recipe
from train_plugins import demo
from train_plugins.ladder import page, story
from train_plugins.ladder.story import Told


def told(stage: str, step: int, **more: object) -> Told:
    return replace(Told(stage, f"{stage}-{step}", step, Path("x"), f"{stage}{step}"), **more)  # type: ignore[arg-type]


FLAT, LOWER = {"sort": 0.6, "copy": 0.5}, {"sort": 0.3, "copy": 0.4}
LADDER = [
    told("sft", 150, outcome="promote", promoted=1, dev=0.5, stderr=0.01, scores=FLAT, unseen=0.1),
    told("dpo", 50, outcome="hold", dev=0.5, stderr=0.01, scores=FLAT, unseen=0.1),
    told("grpo", 20, outcome="promote", promoted=2, dev=0.6, stderr=0.01, scores=FLAT, reward=0.6),
    told("narrow", 30, outcome="block", line="sort fell", dev=0.4, scores=FLAT, reward=0.7),
    told("narrow", 60, outcome="block", line="<b>sort</b> fell", dev=0.3, scores=LOWER, reward=0.9),
]


def test_the_story_names_the_champion_and_what_the_blocked_run_lost_while_its_reward_rose() -> None:
    lines = story.lines(LADDER)
    assert len(lines) <= 10
    assert any("Champion: grpo-20, generation 2." in line for line in lines)
    narrow = next(line for line in lines if line.strip().startswith("narrow "))
    assert "reward 70 → 90: BLOCKED" in narrow
    # From its start (dpo): sort 60 → 30, copy 50 → 40.
    assert lines[-1].endswith("Since its start sort -30, copy -10 points.")


def test_a_story_without_a_promotion_or_a_block_tells_of_neither() -> None:
    lines = story.lines([replace(each, outcome="hold", promoted=None) for each in LADDER])
    assert not any("Champion" in line or "Why" in line for line in lines)
    assert sum("held: not proven better" in line for line in lines) == 4


def test_the_page_escapes_what_a_verdict_says(tmp_path: Path) -> None:
    page.write_page(tmp_path / "curve.html", LADDER, {"narrow": [(1, 0.6), (60, 0.9)], "ppo": []})
    text = (tmp_path / "curve.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;sort&lt;/b&gt; fell" in text
    assert "<b>" not in text
    assert text.count("<figure>") == 1  # a run without a curve has none


def test_rewards_are_those_of_the_iterations_before_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "grpo").mkdir()
    for step in range(1, 9):
        append_event(tmp_path / "grpo" / "events.jsonl", "step", step=step, pass_rate=step / 10)
    append_event(tmp_path / "loop.jsonl", "checkpoint", stage="grpo", digest="d", name="n", path="a/step-000007")
    append_event(tmp_path / "loop.jsonl", "gated", stage="grpo", digest="d", outcome="hold", line="why")
    [found] = story.checkpoints_of(tmp_path)
    assert found.reward == pytest.approx((3 + 4 + 5 + 6 + 7) / 50)
    assert (found.outcome, found.line, found.promoted) == ("hold", "why", None)


@pytest.mark.slow
def test_a_short_ladder_ends_in_a_leaderboard_and_is_climbed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    short = find_recipe("demo_cpu").read_text(encoding="utf-8")
    for many, few in (("iterations: 40", "iterations: 2"), ("save: {steps: 20}", "save: {}")):
        assert many in short
        short = short.replace(many, few)
    (tmp_path / "short.yaml").write_text(short, encoding="utf-8")
    monkeypatch.setattr("evalsuite.trainers.recipes.find_recipe", lambda name: tmp_path / "short.yaml")
    monkeypatch.setattr(demo, "STAGES", ("sft", "dpo", "grpo"))
    monkeypatch.setattr(demo, "N_SFT", 64 * 40)
    monkeypatch.setattr(demo, "N_PAIRS", 200)
    monkeypatch.setattr(demo, "N_RLVR", 64)
    monkeypatch.setattr(story, "RUNS", ("grpo",))
    out = tmp_path / "out"
    demo.main(["--out", str(out)])
    said = capfd.readouterr().out
    assert "sft: 1 checkpoint, 1 promoted" in said
    assert "$ evalsuite leaderboard" in said
    facts = json.loads((out / "story.json").read_text(encoding="utf-8"))
    assert [each["stage"] for each in facts["checkpoints"]] == ["sft", "dpo", "grpo"]
    assert all(each["outcome"] and each["dev"] is not None for each in facts["checkpoints"])
    assert len(facts["curves"]["grpo"]) == 2
    registry = sorted(path for path in (out / "registry").rglob("*") if path.is_file())
    before = {path: path.read_bytes() for path in registry}
    demo.main(["--out", str(out)])
    assert {path: path.read_bytes() for path in registry} == before
    assert evalsuite(["score", str(out / "base"), "--suite", "ladder-unseen", "--results", str(tmp_path)]) == 5
