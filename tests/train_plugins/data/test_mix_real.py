"""Mixes of real data, cleaned by the real scanner: test questions of GSM8K stand in one of the sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsuite.__main__ import main
from evalsuite.gating.evidence import reports_of
from tests.train_plugins.data.mixing import read

pytestmark = pytest.mark.slow


@pytest.fixture
def setting(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DECONTAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    suite = {"suite": "gsm", "regime": "tulu3@v5", "split": "development", "columns": {"gsm8k": "gsm8k"}}
    (tmp_path / "gsm.yaml").write_text(yaml.safe_dump(suite))
    return tmp_path


def about(**more: Any) -> dict[str, Any]:
    return {"format": "auto", "licence": "MIT", "origin": "o", "skills": ["math"], "made_by": "mixed", **more}


def mixed(folder: Path, shared_data: Path, capsys: pytest.CaptureFixture[str], **content: Any) -> dict[str, Any]:
    decontam = {"against": ["gsm.yaml"]}
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump({"schema": 1, "name": "math", "decontam": decontam, **content}))
    typed = ["data", "mix", str(path), "--data-root", str(shared_data / "hub"), "--offline", "--json"]
    assert main(typed) == 0, capsys.readouterr().err
    meta: dict[str, Any] = json.loads(capsys.readouterr().out)
    return meta


def test_rows_that_are_test_questions_go_and_others_of_their_source_step_in(
    setting: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = shared_data / "train"
    sources = [
        about(path=str(train / "contaminated" / "llm_adapters_math.jsonl"), name="adapters", count=1500, max_bad=0.01),
        about(path=str(train / "sft" / "oasst1_en100.jsonl"), name="oasst", count="all", skills=["chat"]),
    ]
    meta = mixed(setting, shared_data, capsys, dedup="row", sources=sources)
    adapters, oasst = meta["sources"]
    # 754 of the 2,306 rows hold a test question (spec of decontam, 12.4): over 1,500 others are there to draw from.
    # Rows with a blank answer, 129 first, and rows that stand there twice go before, whether or not they hold one.
    assert adapters["rows_in"] == 2306
    before = adapters["dropped"]["bad_row"] + adapters["dropped"].get("duplicate_row", 0)
    assert 754 - before <= adapters["dropped"]["decontamination"] <= 754
    assert adapters["rows_in"] - adapters["left"] == before + adapters["dropped"]["decontamination"]
    assert adapters["eval_hits"] == {"gsm8k": adapters["dropped"]["decontamination"]}
    assert (adapters["rows_out"], oasst["rows_out"], oasst["dropped"]) == (1500, 120, {})
    [report] = meta["decontamination"]
    assert report["suites"] == ["gsm"]
    assert report["rates"] == {}
    # What a gate asks: a whole report on this digest.
    found = reports_of(setting / "results" / "decontam", {"m": meta["digest"]}, {"gsm8k": frozenset()})
    assert found[meta["digest"]].complete
    assert found[meta["digest"]].fractions == {"gsm8k": 0.0}
    assert len(read(setting / "math.jsonl")) == meta["rows"] == 1620


def test_pairs_are_scanned_by_the_turns_that_both_sides_share(
    setting: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = next(iter(read_questions(shared_data)))
    pairs = [
        {side: [{"role": "user", "content": asked}, {"role": "assistant", "content": f"{side} answer"}]
         for side in ("chosen", "rejected")}
        for asked in (question, "Why is the sky blue on a day without any clouds in it?")
    ]  # fmt: skip
    (setting / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    meta = mixed(setting, shared_data, capsys, sources=[about(path="pairs.jsonl", count="all")])
    assert (meta["kind"], meta["rows"]) == ("preference", 1)
    assert meta["sources"][0]["eval_hits"] == {"gsm8k": 1}


def read_questions(shared_data: Path) -> list[str]:
    import pyarrow.parquet as pq

    files = sorted((shared_data / "hub" / "openai" / "gsm8k").rglob("*test*"))
    path = next(each for each in files if "main" in str(each))
    rows = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else read(path)
    return [str(each["question"]) for each in rows]
