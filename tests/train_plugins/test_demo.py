"""The demonstration trains, scores and tabulates; its model is small and never sees a test row."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest

from evalsuite.__main__ import main
from evalsuite.benchmark import find_benchmark
from evalsuite.checkpoint import open_checkpoint
from train_plugins import demo


def test_no_test_row_is_trained_on() -> None:
    held_out = {row["question"] for name in demo.TASKS for row in find_benchmark(name).module.test_rows()}  # type: ignore[union-attr]
    seen = {question for question, _ in itertools.islice(demo._examples(random.Random(0)), 20_000)}
    assert len(seen) > 3_000
    assert not seen & held_out


@pytest.mark.slow
def test_a_short_demo_ends_in_a_leaderboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "STEPS", {"early": 10, "late": 150})
    demo.main(["--out", str(tmp_path), "--threads", "1"])
    out = capfd.readouterr().out
    assert "$ evalsuite leaderboard" in out
    table = out.split("$ evalsuite leaderboard")[1]
    rows = dict(re.findall(r"^(early|late) +\[\d, \d\] +([\d.]+)", table, flags=re.MULTILINE))
    assert float(rows["late"]) > float(rows["early"])
    assert "promote: late may replace early (champion, generation 1)" in out
    assert "block: early may not replace late (champion, generation 2)" in out
    # A claim that cannot hold: +99 points on average. Nothing is worse and nothing is proven, which exits with 3.
    early, late = (str(tmp_path / "checkpoints" / name) for name in ("early", "late"))
    claim = ["--set", "must_improve={all_of: [{metric: macro, min_gain: 0.99}]}"]
    engine = ["--suite", "demo", "--model", "hf", "--threads", "1", "--results", str(tmp_path)]
    assert main(["gate", late, "--against", early, *engine, *claim]) == 3
    assert "hold   macro (must_improve)" in capfd.readouterr().out
    checkpoint = open_checkpoint(tmp_path / "checkpoints" / "late")
    assert 0 < checkpoint.n_parameters < 1_000_000
