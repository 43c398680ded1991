"""Wrong input to the command line: exit code 2, one line that says what to do, no traceback, nothing lost."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from evalsuite.__main__ import main
from evalsuite.benchmark import find_benchmark, known_benchmarks
from evalsuite.errors import EvalsuiteError
from evalsuite.grading import score_response
from tests.toy import make_benchmark


@pytest.fixture
def broken(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be broken."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "ckpt"))


def half_written(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def with_nan(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, folder / "model.safetensors")


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")


def with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "no such|not exist|no checkpoint|not a folder|not found"),
    "half-written": (half_written, r"model\.safetensors"),
    "without config": (lambda f: (f / "config.json").unlink(), r"config\.json"),
    "without tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
    "without chat template": (lambda f: (f / "chat_template.jinja").unlink(), "--chat-template"),
    "with NaN": (with_nan, r"model\.norm\.weight"),
    "pickled": (pickled, "--allow-pickle"),
    "with code of its own": (with_code, "--trust-remote-code"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_refused_before_any_engine_starts(
    kind: str, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, expected = BROKEN[kind]
    damage(broken)
    code = main(["score", str(broken), "--suite", "demo", "--results", str(tmp_path / "results")])
    out, said = capsys.readouterr()
    assert (code, out) == (2, "")
    assert len(said.strip().splitlines()) == 1, said
    assert "Traceback" not in said
    assert re.search(expected, said), said
    assert not (tmp_path / "results").exists()


WRONG = {
    "unknown suite": (["--suite", "tulu3-def"], "no suite named 'tulu3-def'; did you mean 'tulu3-dev'?"),
    "unknown benchmark": (["--tasks", "ifevl"], "no benchmark named 'ifevl'; did you mean 'ifeval'?"),
    "benchmark of another suite": (
        ["--suite", "demo", "--tasks", "gsm8k"],
        "no benchmark named 'gsm8k' in suite 'demo'",
    ),
    "unknown engine": (["--suite", "demo", "--model", "vlm"], "no engine named 'vlm'; did you mean 'vllm'?"),
    "unknown option": (["--suit", "demo"], "No such option"),
    "missing data root": (["--suite", "demo", "--data-root", "no/such/folder"], "no/such/folder"),
    "endpoint without a model name": (["--suite", "demo", "--model", "api:http://127.0.0.1:9/v1"], "--served-model"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_words_get_one_line_with_the_near_miss(
    kind: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = WRONG[kind]
    code = main(["score", str(tiny_checkpoint), *arguments, "--results", str(tmp_path / "results")])
    out, said = capsys.readouterr()
    assert (code, out) == (2, "")
    assert expected in said
    assert len(said.strip().splitlines()) == 1, said


def test_all_missing_datasets_are_listed_at_once(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    arguments = ["--tasks", "gsm8k,ifeval,truthfulqa", "--data-root", str(tmp_path / "data"), "--offline"]
    assert main(["score", str(tiny_checkpoint), *arguments, "--results", str(tmp_path / "results")]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("openai/gsm8k", "google/IFEval", "truthfulqa/truthful_qa"))
    assert str(tmp_path / "data") in said


def test_a_malformed_row_is_named_by_file_and_line(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "openai" / "gsm8k" / "main"
    folder.mkdir(parents=True)
    rows = ['{"question": "1+1?", "answer": "#### 2"}', '{"question": "1+1?", "answer"']
    (folder / "train.jsonl").write_text(rows[0] + "\n")
    (folder / "test.jsonl").write_text("\n".join(rows) + "\n")
    (folder.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - split: train\n    path: main/train.jsonl\n  - split: test\n    path: main/test.jsonl\n---\n"
    )
    arguments = ["--tasks", "gsm8k", "--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
    assert main(["score", str(tiny_checkpoint), *arguments]) == 2
    said = capsys.readouterr().err
    assert "test.jsonl" in said
    assert "line 2" in said or ":2" in said


def test_a_prompt_longer_than_the_window_is_counted_and_said(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_benchmark(tmp_path / "mine", "toy", 6)
    arguments = ["--tasks", "toy", "--benchmarks", str(tmp_path / "mine"), "--model", "hf", "--threads", "1"]
    arguments += ["--max-length", "4", "--results", str(tmp_path / "results"), "--json"]
    assert main(["score", str(tiny_checkpoint), *arguments]) == 0
    out, said = capsys.readouterr()
    (result,) = json.loads(out)["results"]
    assert (result["n_prompt_too_long"], len(result["failures"]), result["value"]) == (6, 6, None)
    assert "6 failed" in said


def test_unseen_suites_are_not_scored_by_hand(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "held-out.yaml"
    suite.write_text("suite: held-out\nregime: demo@v1\nsplit: unseen\ncolumns: {add: demo_add}\n")
    assert main(["score", str(tiny_checkpoint), "--suite", str(suite)]) == 5
    assert "unseen" in capsys.readouterr().err


HOSTILE = {
    "a megabyte of one letter": "A" * 1_000_000,
    "a megabyte of digits": "7" * 1_000_000,
    "a megabyte of opening brackets": "\\boxed{" * 150_000,
    "a megabyte of lines": "Answer: (A)\n" * 80_000,
    "control characters": "".join(map(chr, range(32))) * 100 + "\x7f\u2028\u2029\u202e",
    "lone surrogates": "The answer is \ud800\udfff\udc00 (B)",
    "nothing": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", [n for n in sorted(known_benchmarks()) if find_benchmark(n).kind == "generate_until"])
def test_no_verifier_breaks_on_hostile_text(name: str, text: str) -> None:
    benchmark = find_benchmark(name)
    cases = (benchmark.folder / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    for doc in [json.loads(line)["doc"] for line in cases[:3]]:
        if benchmark.meta.judge:
            module: Any = benchmark.module
            shown = [ask.fields for ask in module.asks(HOSTILE[text], doc)]
            assert all(HOSTILE[text] in fields.values() for fields in shown)
            continue
        score = score_response(benchmark, HOSTILE[text], doc)
        assert 0.0 <= score.value <= 1.0


def test_a_bug_is_code_70_with_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from evalsuite.cli import list as listing

    def broken(extra: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(listing, "inventory", broken)
    assert main(["list"]) == 70
    assert "ZeroDivisionError: a bug" in capsys.readouterr().err


def test_every_error_a_user_can_fix_has_an_exit_code_of_the_list() -> None:
    def children(kind: type[EvalsuiteError]) -> list[type[EvalsuiteError]]:
        return [kind, *(c for child in kind.__subclasses__() for c in children(child))]

    assert {kind.exit_code for kind in children(EvalsuiteError)} <= {1, 2, 3, 4, 5, 70}


@pytest.mark.parametrize("group", [[], ["registry"], ["decontam"]])
def test_a_group_without_a_command_shows_its_help_and_exits_2(
    group: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module("evalsuite.cli.list")  # its name must not hide the built-in one
    assert main(group) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"Usage: {' '.join(['evalsuite', *group])} [OPTIONS]")
    assert printed.out == ""
