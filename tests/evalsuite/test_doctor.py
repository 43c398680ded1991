"""The doctor tells the truth about this machine cheaply, and what to type where something does not work."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalsuite import doctor, models
from evalsuite.__main__ import main
from evalsuite.cli.doctor import lines
from evalsuite.doctor import engine as doctor_engine
from evalsuite.doctor.data import data_problems, data_state
from evalsuite.doctor.sandbox import landlock_abi, sandbox
from evalsuite.errors import EngineError
from evalsuite.models.fake import FakeModel
from evalsuite.models.vllm.install import vllm_status
from evalsuite.types import Likelihoods, LogLikelihood, LoglikRequest
from tests.hub import write_repo

REPOSITORY = Path(__file__).resolve().parents[2]
GSM8K = [{"question": f"q{i}", "answer": f"#### {i}"} for i in range(3)]

COST = """
import json, resource, sys
from evalsuite.doctor import diagnose
report = diagnose()
heavy = {"torch", "transformers", "vllm", "datasets", "lm_eval", "numpy", "tokenizers", "pyarrow"} & set(sys.modules)
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps([sorted(heavy), sum(u.ru_utime + u.ru_stime for u in used)]))
"""


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return doctor.diagnose()


def test_a_diagnosis_takes_under_two_cpu_seconds_and_imports_no_engine() -> None:
    run = subprocess.run([sys.executable, "-c", COST], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    heavy, seconds = json.loads(run.stdout)
    assert heavy == []
    assert seconds < 2.0


def test_versions_are_those_that_are_installed(report: dict[str, Any]) -> None:
    for name in ("torch", "transformers", "lm-eval", "datasets"):
        assert report["packages"][name]["version"] == importlib.metadata.version(name)
        assert report["packages"][name]["ok"]
    assert report["engines"]["hf"]["usable"]
    assert report["machine"]["cores"] >= 1
    assert json.loads(json.dumps(report)) == report


def test_the_value_of_a_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_value")
    found = doctor.diagnose()
    assert found["hub"]["token"] is True
    assert "hf_secret_value" not in json.dumps(found) + "\n".join(lines(found))


def packages(**versions: str | None) -> dict[str, dict[str, Any]]:
    """The four packages of the hf engine, all well except those named."""
    ranges = {"torch": ">=2.6", "transformers": "<5.24,>=5.10", "tokenizers": ">=0.22", "safetensors": ">=0.5"}
    found = {"torch": "2.13.0", "transformers": "5.19.0", "tokenizers": "0.23.3", "safetensors": "0.8.0"} | versions
    return {
        name: {"version": v, "supported": ranges[name], "ok": v is None or doctor._within(v, ranges[name])}
        for name, v in found.items()
    }


@pytest.mark.parametrize(
    ("found", "devices", "usable", "why", "repair"),
    [
        (packages(), [], True, "", ""),
        (packages(torch="2.13.0+cpu"), [], True, "", ""),
        (packages(torch=None), [], False, "torch not installed", "pip install torch"),
        (
            packages(transformers="5.30.1"),
            [],
            False,
            "transformers 5.30.1 is outside <5.24,>=5.10",
            "pip install 'transformers<5.24,>=5.10'",
        ),
        (
            packages(torch="2.13.0+cpu"),
            ["H100"],
            True,
            "this torch is built for CPUs and cannot use the GPU",
            "pip install --force-reinstall torch (a CUDA build)",
        ),
    ],
)
def test_the_hf_engine_is_judged_by_what_it_needs(
    found: dict[str, Any], devices: list[str], usable: bool, why: str, repair: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None)  # none of torch's companions is installed
    verdict = doctor._hf(found, devices)
    assert (verdict["usable"], verdict["why"], verdict["repair"]) == (usable, why, repair)


def test_a_cuda_torchvision_beside_a_cpu_torch_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", {"torchvision": "0.29.0", "torchaudio": "2.11.0+cpu"}.get)
    verdict = doctor._hf(packages(torch="2.13.0+cpu"), [])
    assert not verdict["usable"]
    assert verdict["repair"] == "pip uninstall -y torchvision"


def test_what_is_broken_comes_before_what_could_be_better(report: dict[str, Any]) -> None:
    ill = json.loads(json.dumps(report))
    ill["packages"]["lm-eval"] |= {"version": "0.4.9", "ok": False}
    ill["packages"]["datasets"]["version"] = None
    ill["engines"]["vllm"] = {
        "usable": False,
        "version": None,
        "why": "vllm is not installed",
        "repair": "pip install v",
    }
    ill["sandbox"] |= {
        "level": "landlock",
        "why": "bubblewrap is not installed",
        "repair": "apt-get install bubblewrap",
    }
    ill["hub"]["offline"] = False
    problems = doctor._problems(ill)
    assert [(p["repair"], p["needed"]) for p in problems] == [
        ("pip install 'datasets>=4.0'", True),
        ("pip install 'lm-eval==0.4.13'", True),
        ("pip install v", False),
        ("apt-get install bubblewrap", False),
    ]
    text = "\n".join(lines(ill | {"problems": problems}))
    assert "repair: lm-eval 0.4.9 is outside ==0.4.13\n    pip install 'lm-eval==0.4.13'" in text
    assert "could be better: engine vllm: vllm is not installed\n    pip install v" in text
    assert "nothing to repair" not in text
    assert "nothing to repair" in "\n".join(lines(ill | {"problems": problems[2:]}))


# --- data


def state_of_gsm8k(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = data_state([root])["suites"]["tulu3-dev"]["gsm8k"]
    return found


def test_data_is_complete_partial_absent_or_unusable(tmp_path: Path, hub_data: Path) -> None:
    assert state_of_gsm8k(hub_data) == {"state": "complete", "rows": 1319, "why": ""}
    for root in ("empty", "some", "wrong"):
        (tmp_path / root).mkdir()
    write_repo(tmp_path / "some", "openai/gsm8k", {"main": {"train": GSM8K, "test": GSM8K}})
    write_repo(tmp_path / "wrong", "openai/gsm8k", {"socratic": {"test": GSM8K}})
    assert state_of_gsm8k(tmp_path / "some") == {"state": "partial", "rows": 3, "why": "partial dataset 3/1319"}
    assert state_of_gsm8k(tmp_path / "empty")["state"] == "absent"
    unusable = state_of_gsm8k(tmp_path / "wrong")
    assert unusable["state"] == "unusable"
    assert unusable["why"].endswith("gsm8k has no config 'main'; it has socratic")


def test_absent_data_is_a_problem_only_while_the_hub_is_off() -> None:
    here = {"state": "absent", "rows": None, "why": "…"}
    data = {"roots": [], "suites": {"s": {"gsm8k": here}}}
    assert data_problems(data, offline=False) == []
    assert data_problems(data, offline=True) == [
        (
            "the data of gsm8k is not here, and the hub is off (HF_HUB_OFFLINE)",
            "export EVALSUITE_DATA_ROOT=DIR, or: unset HF_HUB_OFFLINE",
        )
    ]


# --- sandbox


def install_bwrap(folder: Path, monkeypatch: pytest.MonkeyPatch, *, works: bool) -> Path:
    """A stand-in on PATH that writes down how it was run; bubblewrap itself is not on every machine."""
    program = folder / "bwrap"
    outcome = "" if works else "echo 'bwrap: No permissions to create a new namespace' >&2; exit 1"
    version = 'if [ "$1" = --version ]; then echo "bubblewrap 0.8.0"; exit 0; fi'
    program.write_text(f'#!/bin/sh\n{version}\necho "$@" > {folder}/ran\n{outcome}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder / "ran"


def test_bubblewrap_counts_only_when_a_program_ran_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = install_bwrap(tmp_path, monkeypatch, works=True)
    found = sandbox()
    assert (found["level"], found["bwrap"], found["why"], found["repair"]) == ("bwrap", "0.8.0", "", "")
    words = ran.read_text().split()
    assert {"--unshare-all", "--disable-userns", "--die-with-parent"} <= set(words)
    assert words[-1] == "true"


def test_an_installed_bubblewrap_that_cannot_make_namespaces_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_bwrap(tmp_path, monkeypatch, works=False)
    found = sandbox()
    assert found["level"] == ("landlock" if landlock_abi() else "none")
    assert found["why"] == "bubblewrap is installed but does not work (bwrap: No permissions to create a new namespace)"
    assert found["repair"]


def test_without_bubblewrap_the_command_that_installs_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = sandbox()
    assert (found["bwrap"], found["why"]) == (None, "bubblewrap is not installed")
    assert found["repair"] == "apt-get install bubblewrap"


def test_landlock_is_reported_exactly_where_the_kernel_lists_it() -> None:
    modules = Path("/sys/kernel/security/lsm")
    if not modules.is_file():
        pytest.skip("this kernel does not list its security modules")
    assert (landlock_abi() > 0) == ("landlock" in modules.read_text().split(","))


# --- engines


def test_a_working_engine_is_started_and_timed() -> None:
    tried = doctor_engine.try_engine("hf")
    assert tried["engine"] == "hf"
    assert all(tried[step] >= 0 for step in ("start_s", "generate_s", "loglikelihood_s"))
    assert len(tried["totals"]) == 2
    assert tried["totals"][0] != tried["totals"][1]


@pytest.mark.vllm
@pytest.mark.slow
def test_the_vllm_engine_can_be_tried_too() -> None:
    if vllm_status()["usable"] != "yes":
        pytest.skip("vllm does not work here")
    assert doctor_engine.try_engine("vllm")["totals"] == pytest.approx(
        doctor_engine.try_engine("hf")["totals"], abs=1e-3
    )


class Dies(FakeModel):
    def __init__(self, checkpoint: Path | None = None, **_: Any) -> None:
        raise RuntimeError("no kernel image is available\nand a long story")


class Fails(FakeModel):
    def __init__(self, checkpoint: Path | None = None, **_: Any) -> None:
        super().__init__(checkpoint, fail_every=1)


class Overflows(FakeModel):
    def __init__(self, checkpoint: Path | None = None, **_: Any) -> None:
        super().__init__(checkpoint)

    def loglikelihood(self, requests: Sequence[LoglikRequest], wanted: Any = None) -> Iterator[tuple[int, Likelihoods]]:
        yield 0, (LogLikelihood(float("nan"), False, 1), LogLikelihood(-1.0, False, 1))


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (Dies, "RuntimeError: no kernel image is available (see: evalsuite doctor)"),
        (Fails, "its one generation failed"),
        (Overflows, "it gave [nan, -1.0] as log-probabilities of two options"),
    ],
)
def test_an_engine_that_does_not_work_is_an_error_with_the_reason(
    engine: type, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.BUILT_IN, "ill", f"{__name__}:{engine.__name__}")
    with pytest.raises(EngineError) as refused:
        doctor_engine.try_engine("ill")
    assert str(refused.value).startswith("engine 'ill' does not work here: ")
    assert reason in str(refused.value)
    assert refused.value.exit_code == 2


def test_the_tiny_checkpoint_leaves_the_random_state_alone_and_is_complete(tmp_path: Path) -> None:
    import torch

    from evalsuite.checkpoint import open_checkpoint

    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    folder = doctor_engine.tiny_checkpoint(tmp_path / "tiny")
    assert torch.equal(torch.rand(1), expected)
    assert open_checkpoint(folder).digest


# --- command line


def test_the_command_prints_json_that_holds_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"engines", "devices", "packages", "data", "sandbox", "problems"} <= set(found)


def test_a_named_engine_that_works_is_told_with_its_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--engine", "fake"]) == 0
    assert "tried      fake works: start " in capsys.readouterr().out


def test_an_unknown_engine_exits_2_with_the_near_miss(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--engine", "hff"]) == 2
    said = capsys.readouterr()
    assert "no engine named 'hff'; did you mean 'hf'?" in said.err
    assert "Traceback" not in said.err


def test_a_missing_data_root_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--data-root", str(tmp_path / "no")]) == 2
    assert f"--data-root: {tmp_path / 'no'} does not exist" in capsys.readouterr().err
