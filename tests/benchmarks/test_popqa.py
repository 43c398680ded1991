"""PopQA's exemplars are rows of the data it evaluates; ours are invented, because the stand-in does not hold them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalsuite.benchmark import find_benchmark
from evalsuite.errors import DataError
from tests.benchmarks.test_folders import ROOT, build, load, turns

MODULE: Any = find_benchmark("popqa").module


def write_root(root: Path, ids: list[int]) -> Path:
    """A repo-shaped stand-in with one invented row for each id."""
    folder = root / "akariasai/PopQA"
    (folder / "default").mkdir(parents=True)
    front = "---\nconfigs:\n- config_name: default\n  default: true\n  data_files:\n"
    (folder / "README.md").write_text(front + "  - split: test\n    path: default/test.jsonl\n---\n")
    made = [
        {
            "id": i,
            "question": f"Who built tower {i}?",
            "obj": f"Mason {i}",
            "possible_answers": json.dumps([f"Mason {i}"]),
        }
        for i in ids
    ]
    (folder / "default/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return folder


def test_the_fifteen_exemplars_come_by_id_in_their_order_and_stay_when_they_are_evaluated(tmp_path: Path) -> None:
    ids = [1, *sorted(MODULE.EXEMPLAR_IDS), 2]
    task = load("popqa", write_root(tmp_path, ids))["popqa"]
    instances = build(find_benchmark("popqa"), task)
    assert len(instances) == 17  # the exemplars are evaluated as well
    for i, instance in zip(ids, instances, strict=True):
        *shots, question = turns(instance)
        assert question == ("user", f"Q: Who built tower {i}? A:")
        assert [text for role, text in shots if role == "assistant"] == [f"Mason {n}" for n in MODULE.EXEMPLAR_IDS]
        assert instance.args[1] == {"until": ["\n\n"], "max_gen_toks": 15, "do_sample": False}


def test_absent_exemplars_are_an_error_that_names_them(tmp_path: Path) -> None:
    missing = MODULE.EXEMPLAR_IDS[3:5]
    folder = write_root(tmp_path, [i for i in MODULE.EXEMPLAR_IDS if i not in missing])
    with pytest.raises(DataError, match=rf"2 of the 15 exemplar rows .*{missing[0]}, {missing[1]}"):
        load("popqa", folder)


@pytest.mark.slow
def test_stock_lm_eval_runs_the_folder(tmp_path: Path) -> None:
    write_root(tmp_path / "data", [*MODULE.EXEMPLAR_IDS, 3])
    command = [sys.executable, "-m", "lm_eval", "run", "--include_path", str(ROOT / "benchmarks"), "--tasks", "popqa"]
    command += ["--model", "dummy", "--limit", "3", "--output_path", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    subprocess.run(command, cwd=tmp_path / "data", env=environment, check=True, capture_output=True)
    [result] = (tmp_path / "out").rglob("results*.json")
    assert json.loads(result.read_text())["results"]["popqa"]["exact_match,none"] == 0.0
