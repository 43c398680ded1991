"""Ablations: which variants there are, what is written for each, and a set that really trains, scores and tabulates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsuite.__main__ import main
from evalsuite.errors import TrainerFailed, UsageError
from evalsuite.recipe import load_recipe
from tests.scripted_lm import make_scripted
from tests.toy import make_benchmark
from tests.train_plugins.data.mixing import row, source, write_mix, write_rows
from train_plugins.data import ablation
from train_plugins.data.mixfile import load_mix, suites_of

# argv: folder with ready checkpoints by the name of the loop, folder to put one in, below that of its loop.
PROGRAM = """
import pathlib, shutil, sys
target = pathlib.Path(sys.argv[2]) / "checkpoint-1"
made = pathlib.Path(sys.argv[1]) / target.parents[2].name
if not target.exists():
    part = target.with_name("part")
    shutil.copytree(made, part)
    part.rename(target)
"""


def sources_of(folder: Path) -> list[dict[str, Any]]:
    for name in ("a", "b"):
        write_rows(folder / f"{name}.jsonl", [row(f"{name}{i}", f"{name} {i}") for i in range(4)])
    return [source("a.jsonl", skills=["chat"]), source("b.jsonl", skills=["math", "coding"])]


def recipe_at(folder: Path, *stages: dict[str, Any], **more: Any) -> Path:
    path = folder / "base.yaml"
    path.write_text(yaml.safe_dump({"schema": 1, "name": "base", "gate": False, "stages": list(stages), **more}))
    return path


def stage(name: str = "sft", **more: Any) -> dict[str, Any]:
    return {"name": name, "trainer": "sft", "start": "model", "data": "mix.yaml", "options": {}, **more}


def test_each_part_is_left_out_and_each_skill_taken_alone_but_no_set_of_sources_twice(tmp_path: Path) -> None:
    made = ablation.variants(load_mix(write_mix(tmp_path, *sources_of(tmp_path))))
    # Without b, or math, or coding, a is left; only chat is a too. Without a or chat b is left.
    assert {name: [s.name for s in mix.sources] for name, mix in made.items()} == {
        "full": ["a", "b"],
        "without-a": ["b"],
        "without-b": ["a"],
    }
    more = source("c.jsonl", skills=["chat", "math"])
    made = ablation.variants(load_mix(write_mix(tmp_path, *sources_of(tmp_path), more)))
    assert {name: "".join(s.name for s in mix.sources) for name, mix in made.items()} == {
        "full": "abc", "without-a": "bc", "without-b": "ac", "without-c": "ab", "without-chat": "b",
        "without-math": "a",
    }  # fmt: skip


def test_what_is_written_reads_as_mixes_and_recipes_that_find_their_files(tmp_path: Path) -> None:
    (tmp_path / "start").mkdir()
    (tmp_path / "suite.yaml").write_text("suite: s\n")
    more = {"filters": {"min_words": 1}, "decontam": {"against": ["suite.yaml", "demo"]}}
    mix = write_mix(tmp_path, *sources_of(tmp_path), **more)
    first = stage("warm", data="other.jsonl")
    base = recipe_at(tmp_path, first, stage(gate={"suite": "suite.yaml"}), model="start", gate={"suite": "demo"})
    made = ablation.write_ablation(str(mix), base, tmp_path / "deep" / "out")
    assert made.stage == "sft"
    for name in made.variants:
        recipe = load_recipe(made.recipe(name))
        assert recipe.name == f"base-{name}"
        assert recipe.find(recipe.model or "").resolve() == tmp_path / "start"
        last = recipe.stages[1]
        assert last.gate is not None
        assert Path(last.gate.suite or "").resolve() == tmp_path / "suite.yaml"
        variant = load_mix(recipe.find(last.data[0]))
        assert variant.name == f"m-{name}"
        assert variant.filters.min_words == 1
        suite, named = suites_of(variant)
        assert (Path(suite).resolve(), named) == (tmp_path / "suite.yaml", "demo")
        for each in variant.sources:
            assert (Path(variant.base) / each.paths[0]).resolve() == tmp_path / f"{each.name}.jsonl"
        assert recipe.stages[0].data == ("other.jsonl",)


@pytest.mark.parametrize(
    ("stages", "wanted", "told"),
    [
        ([stage("one", data="x.jsonl"), stage("two", data="y.jsonl")], None, "--stage one or --stage two"),
        ([stage("one"), stage("two")], None, "--stage one or --stage two"),
        ([stage("one")], "oen", "no stage named 'oen'; did you mean 'one'?"),
    ],
)
def test_the_stage_must_be_clear(tmp_path: Path, stages: list[dict[str, Any]], wanted: str | None, told: str) -> None:
    mix = write_mix(tmp_path, *sources_of(tmp_path))
    with pytest.raises(UsageError) as caught:
        ablation.write_ablation(str(mix), recipe_at(tmp_path, *stages, model="m"), tmp_path / "out", wanted)
    assert told in str(caught.value)


def test_the_command_prints_the_loops_that_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mix = write_mix(tmp_path, *sources_of(tmp_path))
    typed = ["data", "ablate", str(mix), "--recipe", str(recipe_at(tmp_path, stage(), model="m"))]
    assert main([*typed, "-o", str(tmp_path / "out"), "--", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 variants of stage 'sft'")
    assert sum(line.startswith("evalsuite loop") and line.endswith("--threads 1") for line in lines) == 3


def test_a_command_that_fails_ends_the_run(tmp_path: Path) -> None:
    mix = write_mix(tmp_path, *sources_of(tmp_path))
    made = ablation.write_ablation(str(mix), recipe_at(tmp_path, stage(), model="m"), tmp_path / "out")
    typed: list[Sequence[str]] = []

    def fails(arguments: Sequence[str]) -> int:
        typed.append(arguments)
        return 2

    with pytest.raises(TrainerFailed, match="exit code 2 of: evalsuite loop"):
        ablation.run_ablation(made, (), fails)
    assert len(typed) == 1


@pytest.mark.slow
def test_all_variants_are_trained_scored_and_put_into_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy", 8)
    make_scripted(tmp_path / "made" / "base-full", "0 2 4 6")  # right on the first four of eight
    make_scripted(tmp_path / "made" / "base-without-a", "0 2")
    (tmp_path / "train.py").write_text(PROGRAM)
    suite = {"suite": "toy", "regime": "toy@v1", "split": "development", "columns": {"toy": "toy"}}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    options = {
        "command": [sys.executable, str(tmp_path / "train.py"), str(tmp_path / "made"), "{out}/run"],
        "watch": "{out}/run", "pattern": r"checkpoint-(?P<step>\d+)", "complete": {"settled_s": 0.1}, "poll_s": 0.05,
    }  # fmt: skip
    base = recipe_at(tmp_path, {"name": "sft", "trainer": "exec", "data": "mix.yaml", "options": options})
    mix = write_mix(tmp_path, *sources_of(tmp_path))
    asked = ["--benchmarks", str(tmp_path / "benchmarks"), "--model", "hf", "--device", "cpu", "--threads", "1"]
    asked += ["--suite", str(tmp_path / "suite.yaml")]
    typed: list[str] = []

    def run(arguments: Sequence[str]) -> int:
        typed.append(arguments[0])
        given = [*arguments, *(["--format", "csv"] if arguments[0] == "leaderboard" else [])]
        return main(given)

    made = replace(ablation.write_ablation(str(mix), base, tmp_path / "out"), variants=("full", "without-a"))
    ablation.run_ablation(made, asked, run)
    assert typed == ["loop", "score", "loop", "score", "leaderboard"]
    table = capsys.readouterr().out
    for name, score, n_rows in (("full", "50.0", 8), ("without-a", "25.0", 4)):
        [line] = [line for line in table.splitlines() if name in line.split(",")]
        assert score in line.split(",")
        built = list((tmp_path / "out" / "results" / name).rglob("*.provenance.jsonl"))
        assert [len(path.read_text().splitlines()) for path in built] == [n_rows]
