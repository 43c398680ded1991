"""The whole way by hand: real data, mixed and cleaned, SFT, gate, pairs by a judge, DPO, gate, and back by digests.

Everything is typed as a user types it; the model is tiny and learns next to nothing, but nothing else is a stand-in.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evalsuite.trainers import read_events
from tests.train_plugins.ladder import Archive, Desk, judge, rows, sha256, sidecar
from train_plugins.tiny import write_tiny

pytestmark = pytest.mark.slow

DEV = {
    "suite": "dev",
    "regime": "tulu3@v5",
    "split": "development",
    "columns": {"gsm8k": "gsm8k", "humaneval": "humaneval"},
}
TRAINED = {"epochs": 1, "batch": 8, "max_length": 256, "weight_decay": 0.0, "dtype": "float32", "threads": 1}
SFT: dict[str, Any] = {
    "name": "sft",
    "trainer": "sft",
    "start": "model",
    "save": {"epochs": 1},
    "options": {**TRAINED, "lr": 3e-3},
}
DPO: dict[str, Any] = {
    "name": "dpo",
    "trainer": "dpo",
    "start": "sft@promoted",
    "data": "pairs-mix.yaml",
    "save": {"epochs": 1},
    "options": {**TRAINED, "lr": 1e-5, "beta": 5.0},
}
SFT_ROWS, OWN_PAIRS = 24 + 40, 8
EVALS = {"demo_add", "demo_reverse", "demo_larger", "gsm8k", "humaneval"}
GATE = ("--threads", "1", "--device", "cpu")


def source(path: Path | str, count: int | str, origin: str, made_by: str, **more: Any) -> dict[str, Any]:
    about = {"licence": "Apache-2.0", "origin": origin, "skills": ["chat"], "made_by": made_by}
    return {"path": str(path), "count": count, **about, **more}


def mix(name: str, *sources: Mapping[str, Any]) -> dict[str, Any]:
    short = {"max_words": 150}  # a token is a character here, and 256 of them are trained on
    against = {"against": ["demo", "dev.yaml"]}
    return {"schema": 1, "name": name, "seed": 3, "decontam": against, "filters": short, "sources": [*sources]}


def recipe(name: str, *stages: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"schema": 1, "name": name, "model": "base", "seed": 5, "stages": [*stages], **more}


def preferences(url: str, policy: str) -> dict[str, Any]:
    """Models of characters never end by themselves: their answers are cut, and kept."""
    models = [
        {"name": "sft", "model": f"hf:{policy}", "on_policy": True},
        {"name": "base", "model": "hf:base"},
    ]
    return {
        "schema": 1, "name": "pairs", "seed": 7, "licence": "Apache-2.0", "prompts": ["data/sft.jsonl"],
        "models": models, "responses": {"form": "one_side_model", "max_tokens": 24, "cut": "keep"},
        "judge": {"model": f"api:{url}", "served_model": "judge"}, "skills": ["chat"], "limit": 24,
    }  # fmt: skip


def desk(folder: Path, shared_data: Path) -> Desk:
    """A folder with a start model and a suite of two benchmarks whose data is on this machine."""
    write_tiny(folder / "base", hidden=64, layers=2, intermediate=128)
    at = Desk(folder, shared_data / "hub")
    at.write("dev.yaml", DEV)
    return at


@pytest.fixture(scope="module")
def train(shared_data: Path) -> Path:
    folder = shared_data / "train"
    if not folder.is_dir():
        pytest.skip(f"real training data is absent: no folder {folder} (set EVALSUITE_SHARED_DATA)")
    return folder


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory, shared_data: Path, train: Path) -> Desk:
    """The folder after the last command."""
    at = desk(tmp_path_factory.mktemp("ladder"), shared_data)
    oasst, alpaca = train / "sft" / "oasst1_en100.jsonl", train / "sft" / "alpaca_en_demo.jsonl"
    pairs = train / "preference" / "oasst1_en100.jsonl"
    at.write(
        "sft-mix.yaml",
        mix(
            "sft",
            source(oasst, 24, "OpenAssistant/oasst1", "human", name="oasst", format="messages"),
            source(alpaca, 40, "tatsu-lab/alpaca", "synthetic:gpt-4", name="alpaca", format="alpaca"),
        ),
    )
    gate = {"suite": "demo", "bootstrap": True}
    decontam = {"run": True, "against": ["dev.yaml"]}
    at.write("recipe.yaml", recipe("ladder", {**SFT, "data": "data/sft.jsonl"}, DPO, gate=gate, decontam=decontam))

    at.type("data", "mix", "sft-mix.yaml", "-o", "data/sft.jsonl")
    assert "sft: 1 checkpoint, 1 promoted" in at.type("loop", "recipe.yaml", "--only", "sft", *GATE).out
    [policy] = (at.folder / "results" / "loops" / "ladder" / "sft" / "checkpoints").iterdir()
    with judge() as server:
        at.write("prefs.yaml", preferences(server.url, str(policy.relative_to(at.folder))))
        at.type("data", "preferences", "prefs.yaml", "-o", "pairs.jsonl")
    at.write(
        "pairs-mix.yaml",
        mix(
            "pairs",
            source("pairs.jsonl", "all", "generated", "synthetic:sft,base", name="own"),
            source(pairs, OWN_PAIRS, "OpenAssistant/oasst1", "human", name="oasst", format="oasst-pref"),
        ),
    )
    done = at.type("loop", "recipe.yaml", *GATE)
    assert "sft: done before (1 checkpoint, 1 promoted)" in done.err
    assert "dpo: 1 checkpoint, 1 promoted" in done.out
    return at


@pytest.fixture(scope="module")
def archive(climbed: Desk, train: Path) -> Archive:
    return Archive([climbed.folder, train])


def shown(at: Desk, what: str) -> dict[str, Any]:
    """The manifest of a checkpoint in the registry."""
    manifest: dict[str, Any] = json.loads(at.type("registry", "show", what).out)["manifest"]
    return manifest


def test_both_stages_are_trained_gated_and_promoted(climbed: Desk) -> None:
    log = climbed.type("registry", "log").out
    assert "bootstrap  champion 0 → 1  sft/step-000008" in log  # 64 rows in batches of 8
    assert re.search(r"promote  champion 1 → 2  dpo/step-\d+", log)
    assert "are whole" in climbed.type("registry", "verify").out
    events = read_events(climbed.folder / "results" / "loops" / "ladder" / "dpo" / "events.jsonl")
    losses = [event["loss"] for event in events if event["kind"] == "step"]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # ln 2: before the first step policy and reference are one
    evidence = shown(climbed, "champion")["evidence"]
    assert evidence["cost"]["candidate"] == evidence["cost"]["champion"] > 0  # both sides were asked


def test_the_champion_leads_to_its_start_and_that_to_the_model_of_the_recipe(climbed: Desk, archive: Archive) -> None:
    champion = shown(climbed, "champion")
    folder = archive.checkpoint(champion["checkpoint"]["digest"])
    assert folder == Path(champion["checkpoint"]["path"])
    assert {name: sha256(folder / name) for name in champion["files"]} == {
        name: entry["sha256"] for name, entry in champion["files"].items()
    }
    parent = shown(climbed, champion["parent"])
    assert archive.checkpoint(champion["parent"]) == Path(parent["checkpoint"]["path"])
    assert (parent["stage"], champion["stage"]) == ("sft", "dpo")
    assert archive.checkpoint(parent["parent"]) == climbed.folder / "base"


def test_the_rows_of_both_stages_lead_to_the_files_they_were_drawn_from(
    climbed: Desk, archive: Archive, train: Path
) -> None:
    champion = shown(climbed, "champion")
    parent = shown(climbed, champion["parent"])
    [taught], [compared] = parent["data"], champion["data"]

    sft = archive.file(taught["digest"])
    assert sft == climbed.folder / "data" / "sft.jsonl"
    assert (taught["rows"], sidecar(sft)["rows"]) == (SFT_ROWS, SFT_ROWS)
    drawn = {each["name"]: archive.file(each["digest"]) for each in sidecar(sft)["sources"]}
    assert drawn == {
        "oasst": train / "sft" / "oasst1_en100.jsonl",
        "alpaca": train / "sft" / "alpaca_en_demo.jsonl",
    }

    mixed = archive.file(compared["digest"])
    drawn = {each["name"]: archive.file(each["digest"]) for each in sidecar(mixed)["sources"]}
    assert drawn == {
        "own": climbed.folder / "pairs.jsonl",
        "oasst": train / "preference" / "oasst1_en100.jsonl",
    }
    made = sidecar(drawn["own"])["made"]
    assert [archive.file(each["digest"]) for each in made["prompts"]] == [sft]
    weights = {name: model["weights"] for name, model in made["models"].items()}
    assert weights == {"sft": champion["parent"], "base": parent["parent"]}  # on-policy: the model that is tuned
    assert compared["rows"] == sidecar(drawn["own"])["rows"] + OWN_PAIRS
    assert sidecar(drawn["own"])["rows"] >= 12  # of 24; the judge finds some even


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_every_row_says_which_source_and_which_row_of_it_it_was(climbed: Desk, archive: Archive, stage: str) -> None:
    manifest = shown(climbed, "champion")
    manifest = manifest if stage == "dpo" else shown(climbed, manifest["parent"])
    path = archive.file(manifest["data"][0]["digest"])
    notes = rows(path.with_name(f"{path.stem}.provenance.jsonl"))
    assert [note["id"] for note in notes] == [row["id"] for row in rows(path)]
    sources = {each["name"]: each["digest"] for each in sidecar(path)["sources"]}
    assert {(note["source"], note["revision"]) for note in notes} == {
        (name, f"sha256:{digest}") for name, digest in sources.items()
    }


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_report_that_a_checkpoint_names_is_of_its_data_and_found_nothing(
    climbed: Desk, archive: Archive, stage: str
) -> None:
    manifest = shown(climbed, "champion")
    manifest = manifest if stage == "dpo" else shown(climbed, manifest["parent"])
    [data] = manifest["data"]
    named = archive.file(data["decontamination"])
    assert named.name == "verdict.json"
    verdict = climbed.read(str(named))
    assert [each["digest"] for each in verdict["training"]] == [data["digest"]]
    assert verdict["complete"] is True
    assert set(verdict["evals"]) == EVALS
    assert set(verdict["rates"][data["digest"]].values()) == {0.0}
    [told] = sidecar(archive.file(data["digest"]))["decontamination"]
    assert archive.file(told["digest"]) == named


def test_contaminated_data_is_refused_until_it_is_cleaned_with_the_command_that_is_printed(
    tmp_path: Path, shared_data: Path, train: Path
) -> None:
    at = desk(tmp_path, shared_data)
    given = train / "contaminated" / "llm_adapters_math.jsonl"
    at.type("data", "convert", str(given), "-o", "math.jsonl", "--skip-bad", "--licence", "Apache-2.0")
    short = {**SFT, "options": {**SFT["options"], "max_steps": 2}}
    gate = {"suite": "dev.yaml", "bootstrap": True}

    at.write("math.yaml", recipe("math", {**short, "data": "math.jsonl"}, gate=gate))
    told = at.type("train", "-c", "math.yaml", exits=2).err
    [scan] = re.findall(r"evalsuite (decontam scan .*?) \(or ", told)
    assert "--waive-decontam REASON" in told
    at.type(*shlex.split(scan), exits=1)

    told = at.type("train", "-c", "math.yaml", exits=2).err
    assert told == at.type("loop", "math.yaml", *GATE, exits=2).err
    # 755 of the 1,319 questions stand in the file as it is given, 57.2 %; a few of its rows cannot be used.
    assert re.search(r"math\.jsonl holds 5\d\.\d% of gsm8k \(at most 2\.0%\)", told)
    assert not [*at.folder.rglob("job.json")]  # nothing was begun
    [clean] = re.findall(r"evalsuite (decontam clean .*)", told)
    at.type(*shlex.split(clean))

    [cleaned] = (at.folder / "math-clean").glob("*.jsonl")
    again = {**short, "data": str(cleaned.relative_to(at.folder))}
    at.write("clean.yaml", recipe("clean", again, gate=gate, decontam={"run": True}))
    checkpoint = Path(at.type("train", "-c", "clean.yaml").out.strip())
    [data] = at.read(str(checkpoint / "evalsuite.json"))["data"]
    assert data["digest"] == sha256(cleaned)
    assert data["rows"] == len(rows(cleaned)) < len(rows(at.folder / "math.jsonl"))
    report = Archive([at.folder / "results"]).file(data["decontamination"])
    assert at.read(str(report))["rates"][data["digest"]]["gsm8k"] == 0
