"""The command line: what is printed where, and the exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decontam.__main__ import main
from decontam.cli import VERBS
from decontam.job.work import Kernel
from tests.decontam.job.plain import SUMS, replace_kernel, tree, write_rows

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `a.jsonl`, of which every tenth row is a question of `sums.jsonl`, and no compiler."""
    replace_kernel(monkeypatch.setattr)
    monkeypatch.setenv("DECONTAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EVALSUITE_DATA_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.jsonl", 100)
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in SUMS))
    return tmp_path


def test_a_scan_prints_what_it_found_and_exits_1_over_the_limit(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scan", "a.jsonl", "--evals", "sums.jsonl", "--out", "out"]) == 1
    printed = capsys.readouterr()
    assert "10.00" in printed.out  # 10 of 100 instances
    assert "a.jsonl: 1 file, selected text" in printed.err
    assert "100 rows, 10 matches" in printed.err
    assert json.loads((world / "out" / "verdict.json").read_text())["exit"] == 1


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("Usage: ")


def test_json_is_the_verdict_and_nothing_else(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["scan", "a.jsonl", "--evals", "sums.jsonl", "--out", "out", "--json", "--quiet"]
    assert main([*arguments, "--limit-rate", "0.1"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((world / "out" / "verdict.json").read_text())
    assert printed.err == ""


def test_reports_go_to_a_folder_named_by_the_data(world: Path) -> None:
    (world / "b.jsonl").write_bytes((world / "a.jsonl").read_bytes())
    assert main(["scan", "a.jsonl", "other=b.jsonl", "--evals", "sums.jsonl", "--quiet"]) == 1
    assert (world / "results" / "decontam" / "a+other" / "verdict.json").is_file()


def test_an_incomplete_scan_exits_3_and_strict_exits_2(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (world / "a.jsonl").open("a") as lines:
        lines.write("{\n")
    arguments = ["scan", "a.jsonl", "--evals", "sums.jsonl", "--out", "out", "--limit-rate", "0.5"]
    assert main(arguments) == 3
    assert "a.jsonl line 101: not JSON" in capsys.readouterr().err
    assert main([*arguments, "--strict"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("decontam: a.jsonl line 101: not JSON")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["scan", "a.jsonl"],
            "expected --evals SPEC, or --index DIR, and not both (see: python -m decontam scan --help)",
        ),
        (["scan", "a.jsonl", "--index", "none"], "--index"),
        (
            ["scan", "a.jsonl", "--evals", "sums.jsonl", "--rule", "any-8", "--short", "exact"],
            "rule 'any-8' has others",
        ),
        (["scan", "a.jsonl", "--evals", "sums.jsonl", "--rule", "idf", "--short", "exact"], "rule 'idf' is not"),
        (["scan", "a.jsonl", "--evals", "sums.jsonl", "--rule", "exact", "--short", "exact"], "rule 'exact' is not"),
        (["scan", "a.jsonl", "--index", ".", "--analyzer", "standard"], "leave out --analyzer"),
        (
            ["scan", "a.jsonl", "--evals", "sums.jsonl", "--rule", "any-8", "--analyzer", "standard"],
            "rule 'any-8' has the analyzer 'words'",
        ),
        (
            ["scan", "a.jsonl", "--evals", "sums.jsonl", "--analyzer", "standard", "--short", "exact"],
            "rule 'tulu3-standard' has others",
        ),
        (["scan", "--evals", "sums.jsonl"], "Missing argument 'TRAIN...'"),
        (["scan", "a.jsnl", "--evals", "sums.jsonl"], "no file or folder 'a.jsnl'; did you mean 'a.jsonl'?"),
        (["scan", "a.jsonl", "--evals", "sums.jsnl"], "no evals at 'sums.jsnl'"),
        (["scan", "a.jsonl", "--evals", "sums.jsonl", "--rule", "tulu"], "did you mean 'tulu3'?"),
        (["scan", "a.jsonl", "--evals", "sums.jsonl", "--select", "txet"], "'txet'"),
        (["scan", "a.jsonl", "--evals", "sums.jsonl", "--profile", "wide"], "add --near-dup"),
        (["scan", "a.jsonl", "--evals", "sums.jsonl", "--limit-rate", "2"], "--limit-rate"),
        (["scan", "a.jsonl", "--evals", "sums.jsonl", "--out", "a.jsonl/out"], "a.jsonl"),
        (["scan", "a.jsonl", "--evals", "sums.jsonl", "--kind", "secret"], "'secret' is not one of"),
        (["skan"], "no command named 'skan'; did you mean 'scan'?"),
        (["index"], "no evals given; name some with --evals"),
    ],
)
def test_misuse_is_one_line_and_exit_2(
    world: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main([*arguments, *(["--quiet"] if arguments[0] == "scan" else [])]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda out: out.write_text("a file"), "is a file, no folder; use another --out"),
        (lambda out: (out.mkdir(), (out / "thesis.tex").touch()), "it holds 'thesis.tex'; use another --out"),
        (lambda out: out.mkdir(0o555), "out: cannot be written"),
    ],
    ids=["a file", "of something else", "read only"],
)
def test_a_wrong_out_is_told_before_the_index_is_built(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, make: Any, told: str
) -> None:
    make(world / "out")
    monkeypatch.setattr(Kernel, "build", lambda *given, **named: pytest.fail("an index was built"))
    if "written" in told and os.access(world / "out", os.W_OK):
        pytest.skip("this user may write everywhere")
    before = tree(world)
    assert main(["scan", "a.jsonl", "--evals", "sums.jsonl", "--out", "out" if "file" not in told else "out/x"]) == 2
    assert told in capsys.readouterr().err
    assert tree(world) == before


def test_the_folder_of_another_job_is_told_before_its_index_is_built(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["scan", "a.jsonl", "--evals", "sums.jsonl", "--out", "out", "--quiet"]
    assert main(arguments) == 1
    before = tree(world)
    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "build", lambda *given, **named: pytest.fail("an index was built"))
        assert main([*arguments, "--cap", "3"]) == 2
        assert "out is of another job: cap was 50, now 3" in capsys.readouterr().err
        (world / "sums.jsonl").write_text('{"question": "who was it then, and where did they go to after that"}')
        assert main(arguments) == 2
        assert "index (the evals, or how they are read) was" in capsys.readouterr().err
    assert {name: data for name, data in tree(world).items() if name != "sums.jsonl"} == {
        name: data for name, data in before.items() if name != "sums.jsonl"
    }
    assert main([*arguments, "--fresh"]) == 0


def test_a_bug_is_told_as_one_with_exit_70(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kernel, "scan", lambda *arguments: 1 / 0)
    assert main(["scan", "a.jsonl", "--evals", "sums.jsonl", "--out", "out"]) == 70
    assert "this is a bug in decontam" in capsys.readouterr().err


def test_an_interrupted_scan_exits_3_and_the_same_command_goes_on(
    world: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["scan", "a.jsonl", "--evals", "sums.jsonl", "--out", "out", "--shard-mb", "0.001"]

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("decontam.job.execute.reduce", stop)
        assert main(arguments) == 3
    assert capsys.readouterr().err.splitlines()[-1] == "decontam: stopped; the same command goes on"
    assert main(arguments) == 1
    assert "done before" in capsys.readouterr().err


def test_an_index_is_built_ahead_and_says_what_it_cannot_protect(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (world / "short.jsonl").write_text('{"id": "x", "question": "?"}\n{"id": "y", "question": "who was it then"}\n')
    assert main(["index", "--evals", "short.jsonl"]) == 0
    folder, line = capsys.readouterr().out.splitlines()
    assert Path(folder).parent == world / "cache"
    assert line == "short: 2 instances, 1 unprotected (short 1)"
    assert main(["index", "--evals", "short.jsonl", "--json"]) == 0
    raw = json.loads(capsys.readouterr().out)
    assert raw == {"index": folder, "evals": {"short": {"n": 2, "skipped": [], "unprotected": {"short": ["x"]}}}}
    before = tree(world / "cache")
    assert main(["scan", "a.jsonl", "--evals", "short.jsonl", "--out", "out", "--quiet"]) == 0
    assert tree(world / "cache") == before


def test_the_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("tulu3           8-grams of spaCy tokens")
    assert main(["rules", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["any-8"]["n"] == 8


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_DECONTAM_COMPLETE" in capsys.readouterr().out


def complete(*words: str) -> list[str]:
    line = ["decontam", *words]
    asked = {"_DECONTAM_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
    program = [sys.executable, "-m", "decontam"]
    done = subprocess.run(program, cwd=ROOT, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_rules_verbs_and_evals_are_completed() -> None:
    assert complete("scan", "a.jsonl", "--rule", "t") == ["tulu3", "tulu3-standard", "tulu3-compat"]
    assert complete("scan", "a.jsonl", "--evals", "decontam") == ["decontam:tulu3", "decontam"]
    assert complete("r") == ["review", "rules"]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_light_and_answers_in_a_fifth_of_a_cpu_second(verb: str) -> None:
    program = (
        "import resource, sys\n"
        "from decontam.__main__ import main\n"
        f"assert main([*{[verb] if verb else []!r}, '--help']) == 0\n"
        "heavy = {'numpy', 'pyarrow', 'numba', 'spacy', 'rapidfuzz', 'evalsuite'}\n"
        "assert not heavy & {name.split('.')[0] for name in sys.modules}\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('seconds', used.ru_utime + used.ru_stime)\n"
    )
    seconds = []
    for _ in range(10):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert "Examples:" in done.stdout or "Example:" in done.stdout
        seconds.append(float(done.stdout.split()[-1]))
        if seconds[-1] < 0.2:
            return
    pytest.fail(f"took {min(seconds):.2f} CPU-seconds at best")


PIPED = """
import sys
from decontam.__main__ import main
from tests.decontam.job.plain import replace_kernel
replace_kernel()
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "code"), [(["rules", "--json"], 0), (["scan", "a.jsonl", "--evals", "sums.jsonl", "--quiet"], 1)]
)
def test_a_closed_pipe_is_no_error_and_keeps_the_verdict(world: Path, arguments: list[str], code: int) -> None:
    """As when `head` has seen enough."""
    program = [sys.executable, "-c", PIPED, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == code
