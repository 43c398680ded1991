"""`evalsuite gate` on real checkpoints and the demo suite with the engine for CPUs: exit codes 0, 1 and 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.registry import Registry
from tests.scripted_lm import make_scripted

DIGITS = "987654321"
SUM = "30"  # right about a few of the 200 sums, and about no reversed word


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Llamas that answer every question with 30. Where two numbers are to choose from, a digit earlier in the list of
    runners-up is likelier: "large" and "again" choose the larger one mostly, "small" the smaller one."""
    root = tmp_path_factory.mktemp("scripted")
    made = {
        "large": make_scripted(root / "large", SUM, DIGITS),
        "again": make_scripted(root / "again", SUM, DIGITS),
        "small": make_scripted(root / "small", SUM, DIGITS[::-1]),
    }
    config = made["again"] / "generation_config.json"  # the same model, and another checkpoint
    config.write_text(json.dumps(json.loads(config.read_text()) | {"transformers_version": "0"}))
    return made


@pytest.fixture(scope="module")
def results(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results with a champion, "large", that answered nothing yet."""
    folder = tmp_path_factory.mktemp("gates") / "results"
    assert main(["gate", str(checkpoints["large"]), *options(folder), "--bootstrap", "--promote"]) == 0
    return folder


def options(results: Path) -> list[str]:
    return ["--suite", "demo", "--policy", "demo", "--model", "hf", "--threads", "1", "--results", str(results)]


def gate(
    capsys: pytest.CaptureFixture[str], checkpoint: Path, results: Path, *more: str
) -> tuple[int, str, dict[str, dict[str, Any]]]:
    """(exit code, outcome, findings of the comparisons by benchmark)."""
    capsys.readouterr()
    code = main(["gate", str(checkpoint), *options(results), *more, "--json"])
    raw = json.loads(capsys.readouterr().out)
    assert raw["final"]
    return code, raw["outcome"], {f["benchmark"]: f for f in raw["findings"] if f["rule"] == "must_not_regress"}


@pytest.mark.slow
def test_an_equal_checkpoint_is_promoted_with_0_after_a_part_of_the_suite(
    checkpoints: dict[str, Path], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, outcome, found = gate(capsys, checkpoints["again"], results)
    assert (code, outcome) == (0, "promote")
    assert found.keys() == {"demo_add", "demo_reverse", "demo_larger"}
    assert {f["outcome"] for f in found.values()} == {"pass"}
    assert all(f["n"] < 200 and f["difference"] == 0 for f in found.values())
    assert found["demo_larger"]["now"] > 0.6


@pytest.mark.slow
def test_a_worse_checkpoint_is_blocked_with_1_and_the_benchmark_named(
    checkpoints: dict[str, Path], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, outcome, found = gate(capsys, checkpoints["small"], results)
    assert (code, outcome) == (1, "block")
    assert [name for name, f in found.items() if f["outcome"] == "block"] == ["demo_larger"]
    assert found["demo_larger"]["now"] < 0.4
    capsys.readouterr()
    assert main(["promote", str(checkpoints["small"]), "--results", str(results)]) == 1


@pytest.mark.slow
def test_a_gain_that_is_claimed_and_not_there_is_inconclusive_with_3(
    checkpoints: dict[str, Path], results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = "must_improve={any_of: [{metric: demo_larger, min_gain: 0.01}]}"
    code, outcome, _ = gate(capsys, checkpoints["again"], results, "--set", claim)
    assert (code, outcome) == (3, "hold")


@pytest.mark.slow
def test_a_gate_that_is_repeated_loads_no_weights(
    checkpoints: dict[str, Path],
    results: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = gate(capsys, checkpoints["again"], results)

    def load(*_: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("evalsuite.run.open_model", load)
    assert gate(capsys, checkpoints["again"], results) == first
    assert Registry.at(results).refs()["champion"].generation == 1
