"""The command for personas: files, dry runs, real checkpoints, and a killed run that goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.errors import DataError
from tests.scripted_lm import make_scripted
from tests.servers import Reply, ScriptedServer
from tests.train_plugins.data.author import Author
from tests.train_plugins.data.persona_runs import COUNTS, REPOSITORY, SHIPPED, config, content, write
from train_plugins.data.persona_config import read_personas
from train_plugins.data.personas import plan
from train_plugins.data.rows import read_meta, read_rows


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"schema": 2}, "schema is 2, this version reads 1"),
        ({"skills": {"maths": 3}}, "no skill 'maths'; did you mean 'math'?"),
        ({"skills": {"math": -3}}, "skills.math is -3"),
        ({"skills": {}}, "skills is empty"),
        ({"name": "a/b"}, "name is 'a/b'"),
        ({"engine": {"model": "gpt"}}, "engine: model is 'gpt'"),
        ({"decontam": {"waive": " "}}, "waive is blank"),
        ({"decontam": {"against": []}}, "against names no suite"),
        ({"limits": {"max_failed": 2}}, "max_failed is a share"),
        ({"persona": "x"}, "unknown key 'persona'; did you mean 'personas'?"),
    ],
)
def test_a_file_that_cannot_be_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: dict[str, Any], said: str
) -> None:
    file = write(tmp_path / "p.yaml", **more)
    assert main(["data", "personas", str(file), "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_personas_are_lines_or_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two \none\n")
    assert read_personas("a.txt", tmp_path) == ("one", "two")
    (tmp_path / "b.jsonl").write_text('{"persona": "one"}\n{"input persona": "two", "x": 1}\n')
    assert read_personas("b.jsonl", tmp_path) == ("one", "two")
    (tmp_path / "c.jsonl").write_text('{"role": "one"}\n')
    with pytest.raises(DataError, match=r"c.jsonl:1: no field 'persona'.*it has role"):
        read_personas("c.jsonl", tmp_path)
    (tmp_path / "d.txt").write_text("\n")
    with pytest.raises(DataError, match="holds none"):
        read_personas("d.txt", tmp_path)
    with pytest.raises(DataError, match="no file"):
        read_personas("e.txt", tmp_path)


def test_personas_of_a_hub_id_are_read_from_a_data_root(tmp_path: Path) -> None:
    (tmp_path / "own" / "hub").mkdir(parents=True)
    (tmp_path / "own" / "hub" / "train.jsonl").write_text('{"persona": "one"}\n{"persona": "two"}\n')
    assert read_personas("hub:own/hub", tmp_path, (tmp_path,), offline=True) == ("one", "two")


def test_the_shipped_personas_are_forty_different_ones() -> None:
    assert len(SHIPPED) == 40
    assert all(len(persona.split()) > 6 for persona in SHIPPED)


def test_a_dry_run_asks_nobody_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "p.yaml")
    assert main(["data", "personas", "p.yaml", "--dry-run", "--json", "--limit", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 12
    assert told["skills"]["math"]["rows"] == 2
    assert len(told["skills"]["instruction_following"]["prompts"]) == 2
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.slow
def test_two_real_checkpoints_write_and_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    final = "Three.\nFinal Answer: The final answer is $3$. I hope it is correct."
    make_scripted(tmp_path / "writer", "Math problem: How many are 1 and 2?")
    make_scripted(tmp_path / "solver", final)
    file = write(
        tmp_path / "p.yaml",
        skills={"math": 2},
        engine={"model": "hf:writer", "max_tokens": 8},  # folders count from the file
        answer_engine={"model": "hf:solver", "max_tokens": 8, "temperature": 0},
    )
    assert main(["data", "personas", str(file), "-o", str(tmp_path / "out"), "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    # The writer has but one problem to offer.
    assert (told["written"], told["dropped"]) == ({"math": 1}, {"math": {"duplicate": 1}})
    (row,) = read_rows(tmp_path / "out" / "p" / "math.sft.jsonl")
    assert [m["content"] for m in row["messages"]] == ["How many are 1 and 2?", final]
    made = read_meta(tmp_path / "out" / "p" / "math.sft.jsonl")
    assert made["made_by"] == "synthetic:solver+writer"
    assert len(made["made"]["models"]["solver"]["weights"]) == 64
    assert main(["data", "personas", str(file), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "math: 1 of 2 rows\n       1 dropped: duplicate\n" in said.out
    assert "NOT decontaminated: a test" in said.out
    assert "prompt (writer): reused 2, to do 0" in said.err


def started(file: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "evalsuite", "data", "personas", str(file), "-o", str(out), "--json", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    tasks = plan(config(), SHIPPED)
    author = Author(tasks, 7)

    def reply(body: dict[str, Any], attempt: int) -> Reply:
        found = author.served(body)
        return Reply(found.body, delay_s=0.05)

    with ScriptedServer(reply) as server:
        engine = {"model": f"api:{server.url}", "served_model": "m", "concurrency": 2}
        file = write(tmp_path / "p.yaml", engine=engine)
        whole = started(file, tmp_path / "whole")
        told, said = whole.communicate(timeout=60)
        assert whole.returncode == 0, said.decode()
        assert json.loads(told)["written"] == COUNTS
        n_whole = len(server.asked())
        for n_more in (6, 30):  # in the prompts, and in the answers
            process = started(file, tmp_path / "killed")
            before = len(server.asked())
            while len(server.asked()) < before + n_more and process.poll() is None:
                time.sleep(0.01)
            assert process.poll() is None, "it ended before it was killed"
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            assert not (tmp_path / "killed" / "p").exists()
        last = started(file, tmp_path / "killed")
        _, said = last.communicate(timeout=60)
        assert last.returncode == 0, said.decode()
        n_killed = len(server.asked()) - n_whole
    assert content(tmp_path / "killed" / "p") == content(tmp_path / "whole" / "p")
    assert len(content(tmp_path / "whole" / "p")) == 8
    assert n_whole <= n_killed <= n_whole + 2 * 2  # of two kills, what was in flight


def test_the_module_is_light() -> None:
    code = "import train_plugins.data.personas, train_plugins.data.cli.personas, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout == "False\n"
