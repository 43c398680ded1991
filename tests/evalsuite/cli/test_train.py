"""`evalsuite train`: what it refuses, what it trains, what it prints. The trainer is a fake but for one test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from evalsuite.__main__ import main
from evalsuite.checkpoint import Checkpoint, open_checkpoint
from evalsuite.loop.mixes import built_file, rows_of_mix
from evalsuite.trainers import TrainJob, append_event, lookup, worker_command
from evalsuite.trainers.machine import Machine
from evalsuite.trainers.planning import PlanFacts, StagePlan
from tests.evalsuite.loop.folders import write_model
from tests.toy import make_benchmark
from train_plugins.plan import plan_stage
from train_plugins.settings import SFTOptions

ROOT = Path(__file__).resolve().parents[3]
OPTIONS = {"lr": 1e-3, "epochs": 2, "batch": 4, "max_length": 64, "weight_decay": 0, "warmup_ratio": 0.5}


class Quick:
    """Publishes two checkpoints at once, and the second time the same two."""

    name = "sft"
    config = SFTOptions
    jobs: ClassVar[list[TrainJob]] = []
    reason: ClassVar[str] = "finished"

    def plan(self, options: SFTOptions, facts: PlanFacts) -> StagePlan:
        return plan_stage("sft", options, facts)

    def train(self, job: TrainJob) -> Iterator[Checkpoint]:
        self.jobs.append(job)
        for step in (1, 2):
            name = f"checkpoints/step-{step:06d}"
            folder = write_model(job.out / name, step + len(job.stage))
            append_event(job.out / "events.jsonl", "checkpoint", step=step, path=name)
            yield open_checkpoint(folder)
        append_event(job.out / "events.jsonl", "end", reason=self.reason, step=2)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a toy suite, a model, eight rows; `sft` and `dpo` are both the fake."""
    make_benchmark(tmp_path / "benchmarks", "toy", 20)
    for name in ("suite", "other"):
        suite = {"suite": name, "regime": "toy@v1", "split": "development", "columns": {"toy": "toy"}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(suite))
    policy = {"version": 1, "suite": "suite", "method": {"looks": 1}, "samples": {"when": []}}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n' * 8)
    write_model(tmp_path / "model", 9.0)
    monkeypatch.setattr(lookup, "entry_points", lambda group: ())  # those of an installed evalsuite are the real ones
    for name in ("sft", "dpo"):
        monkeypatch.setitem(lookup.BUILT_IN, name, f"{__name__}:Quick")
    Quick.jobs.clear()
    monkeypatch.setattr(Quick, "reason", "finished")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(*stages: dict[str, Any], **more: Any) -> list[str]:
    """Writes a recipe of these stages over the usual one, and returns what is typed for it."""
    usual = {"name": "sft", "trainer": "sft", "start": "model", "data": "data.jsonl", "options": OPTIONS}
    content = {"schema": 1, "name": "r", "model": "model", "stages": [{**usual, **stage} for stage in stages or ({},)]}
    gate = {"suite": "suite.yaml", "policy": "policy.yaml"}
    Path("recipe.yaml").write_text(yaml.safe_dump({"gate": gate, **content, **more}))
    return ["-c", "recipe.yaml", "--benchmarks", "benchmarks"]


def train(*arguments: str) -> int:
    return main(["train", *arguments])


def report(name: str, data: str = "data.jsonl", rate: float = 0.0, evals: Sequence[str] = ("toy",)) -> None:
    digest = sha256(Path(data).read_bytes()).hexdigest()
    folder = Path("results/decontam") / name
    folder.mkdir(parents=True)
    known = {each: {"digest": "", "kind": "development", "n": 20} for each in evals}
    rates = {digest: dict.fromkeys(evals, rate)}
    raw = {"schema": "decontam/1", "complete": True, "training": [{"name": data, "digest": digest, "path": data}]}
    (folder / "verdict.json").write_text(json.dumps({**raw, "evals": known, "rates": rates, "actions": {digest: {}}}))


WAIVED = ("--waive-decontam", "a dry run")


# -- what is refused --


@pytest.mark.parametrize("gate", [None, False])
def test_unchecked_data_is_refused_with_or_without_a_gate(
    house: Path, capsys: pytest.CaptureFixture[str], gate: Any
) -> None:
    more = {} if gate is None else {"gate": False}
    assert train(*recipe(**more), *(["--suite", "suite.yaml"] if more else [])) == 2
    said = capsys.readouterr().err
    assert "stage 'sft': training requires a decontamination report, and there is none of data.jsonl" in said
    assert "evalsuite decontam scan data.jsonl --suite suite.yaml --benchmarks benchmarks" in said
    assert "--waive-decontam REASON" in said
    assert Quick.jobs == []


def test_data_with_a_report_is_trained_on_and_the_job_names_the_report(house: Path) -> None:
    report("r")
    assert train(*recipe()) == 0
    (job,) = Quick.jobs
    written = (house / "results/decontam/r/verdict.json").read_bytes()
    assert job.data[0].decontamination == sha256(written).hexdigest()[:16]
    assert job.coupling.mode == "off"


def test_more_suites_of_the_recipe_need_a_report_too(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_benchmark(house / "benchmarks", "more", 20)
    other = {"suite": "other", "regime": "toy@v1", "split": "development", "columns": {"more": "more"}}
    (house / "other.yaml").write_text(yaml.safe_dump(other))
    arguments = recipe(decontam={"against": ["other.yaml"]})
    assert train(*arguments) == 2
    assert capsys.readouterr().err.count("training requires a decontamination report") == 2  # all are told at once
    report("r")
    assert train(*arguments) == 2
    said = capsys.readouterr().err
    assert said.count("training requires a decontamination report") == 1
    assert "against other below" in said
    report("s", evals=["more"])
    assert train(*arguments) == 0


def test_data_over_the_limit_is_refused_unless_it_is_waived(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report("r", rate=0.5)
    assert train(*recipe()) == 2
    assert "data.jsonl holds 50.0% of toy" in capsys.readouterr().err
    assert train(*recipe(), *WAIVED) == 0
    assert Quick.jobs[0].data[0].decontamination == "waived: a dry run"


def test_what_the_data_itself_was_waived_for_is_said_of_what_it_trains(house: Path) -> None:
    (house / "data.jsonl.meta.json").write_text(json.dumps({"decontamination_waived": "no evals here"}))
    assert main(["loop", *recipe(gate=False, decontam={"run": False})[1:]]) == 0
    assert Quick.jobs[0].data[0].decontamination == "waived: no evals here"
    report("r")
    assert train(*recipe(), "--out", "again") == 0
    assert "waived" not in Quick.jobs[1].data[0].decontamination  # it was looked at after all


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["dpi"], "no stage 'dpi'; did you mean 'dpo'? (r has sft, dpo)"),
        ([], "say which stage: evalsuite train STAGE … (r has sft, dpo)"),
        (["sft", "--waive-decontam", " "], "--waive-decontam needs a reason"),
        (["sft", "--launch", "fsdp"], "launch.config 'fsdp' is no file and no shipped accelerate config"),
        (["sft", "--processes", "3", *WAIVED], "batch 4 does not divide by 3 processes; the nearest that do: 3 and 6"),
        (["dpo", *WAIVED], "start is sft@promoted, and stage 'sft' has no promoted checkpoint"),
        (["sft", "--start", "nowhere/there", *WAIVED], "hf download nowhere/there --local-dir DIR, then --start DIR"),
        (["sft", "--recipe", "tulu3_8b"], "say which recipe, by a file or by a shipped name"),
        (["recipe.yaml"], "recipe.yaml is no stage; a recipe is given by -c: -c recipe.yaml"),
    ],
)
def test_bad_input_is_one_line_and_exit_two(
    house: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    typed = recipe({}, {"name": "dpo", "trainer": "dpo", "start": "sft@promoted"})
    assert train(*arguments, *typed) == 2
    assert told in capsys.readouterr().err
    assert Quick.jobs == []


def test_a_value_that_is_not_public_is_asked_for_and_only_noted_in_a_plan(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = recipe({"options": {**OPTIONS, "lr": None, "batch": None}})
    assert train(*typed, *WAIVED) == 2
    said = capsys.readouterr().err
    assert "sft.options.lr: expected a number, found null: no public source gives this value, so set it" in said
    assert "sft.options.batch" in said
    assert train(*typed, "--plan") == 0
    assert "a value for lr, batch: null in the recipe" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("machine", "fits"),
    [
        (Machine((), 2**34), False),
        (Machine((80 * 2**30,) * 8, 2**34), False),
        (Machine((), 2**38), True),
        (Machine((160 * 2**30,), 0), True),
    ],
)
def test_a_model_that_cannot_fit_is_refused_with_the_memory_that_it_needs(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, machine: Machine, fits: bool
) -> None:
    monkeypatch.setattr("evalsuite.trainers.machine.this_machine", lambda: machine)
    config = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336}
    config |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}
    (house / "model" / "config.json").write_text(json.dumps(config))
    code = train(*recipe(), *WAIVED)
    said = capsys.readouterr().err
    # 16 · 8,030,261,248 bytes are 119.7 GiB
    assert ("8,030,261,248 parameters need 119.7 GiB of memory in each of 1 process" in said) == (not fits)
    assert (code == 0) == fits


# -- what is trained --


def test_checkpoints_go_to_stdout_progress_to_stderr_and_the_same_command_goes_on(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert train("sft", *recipe(), *WAIVED) == 0
        told = capsys.readouterr()
        folder = house / "results/train/r/sft/checkpoints"
        assert told.out.splitlines() == [str(folder / "step-000001"), str(folder / "step-000002")]
        assert "sft: training in results/train/r/sft" in told.err
    first, second = Quick.jobs
    assert first == second
    assert first.start is not None
    assert first.start.path == house / "model"


def test_json_tells_what_was_trained_and_a_stopped_run_is_exit_three(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Quick, "reason", "stopped")
    assert train(*recipe(), *WAIVED, "--json", "--out", "here") == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["stage"], told["out"], told["finished"]) == ("sft", "here", False)
    assert [Path(each["path"]).name for each in told["checkpoints"]] == ["step-000001", "step-000002"]


def test_processes_and_launch_stand_in_place_of_the_recipes(house: Path) -> None:
    assert train(*recipe(), *WAIVED, "--processes", "2", "--launch", "fsdp2") == 0
    assert (Quick.jobs[0].launch.processes, Quick.jobs[0].launch.config) == (2, "fsdp2")


def test_a_stage_starts_from_what_an_earlier_one_left_or_a_loop_promoted(house: Path) -> None:
    dpo = {"name": "dpo", "trainer": "dpo"}
    assert train("sft", *recipe({}, {**dpo, "start": "sft@last"}), *WAIVED) == 0
    assert train("dpo", *recipe({}, {**dpo, "start": "@last"}), *WAIVED) == 0
    assert Quick.jobs[1].start is not None
    assert Quick.jobs[1].start.path == house / "results/train/r/sft/checkpoints/step-000002"
    good = write_model(house / "looped", 5.0)
    log = house / "results/loops/r/loop.jsonl"
    log.parent.mkdir(parents=True)
    append_event(log, "checkpoint", stage="sft", digest="d", name="n", path=str(good))
    append_event(log, "promoted", stage="sft", digest="d", generation=1)
    assert train("dpo", *recipe({}, {**dpo, "start": "sft@promoted"}), *WAIVED, "--out", "second") == 0
    assert Quick.jobs[2].start is not None
    assert Quick.jobs[2].start.path == good


def test_the_recipes_template_is_that_of_every_stage_without_its_own(house: Path) -> None:
    own = {"name": "dpo", "trainer": "dpo", "options": {**OPTIONS, "chat_template": "own"}}
    typed = recipe({}, own, chat_template="tulu")
    assert train("sft", *typed, *WAIVED) == train("dpo", *typed, *WAIVED) == 0
    assert [job.options["chat_template"] for job in Quick.jobs] == ["tulu", "own"]


# -- mixes --


def write_mix(name: str = "mix.yaml", counts: Sequence[Any] = (3, 2)) -> Path:
    sources = [{"path": "data.jsonl", "count": count} for count in counts]
    Path(name).write_text(yaml.safe_dump({"schema": 1, "name": "m", "sources": sources}))
    return Path(name)


class Mixer:
    """Stands in for `evalsuite data mix`."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.typed: list[list[str]] = []

    def __call__(self, arguments: Sequence[str], **_: Any) -> Any:
        self.typed.append(list(arguments))
        if self.code == 0:
            Path(arguments[arguments.index("-o") + 1]).write_text('{"text": "mixed"}\n' * 5)
        return subprocess.CompletedProcess(arguments, self.code)


def test_a_mix_is_built_once_and_its_rows_are_what_is_trained_on(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, mix = Mixer(), write_mix()
    monkeypatch.setattr("evalsuite.loop.mixes.subprocess.run", mixer)
    for _ in range(2):
        assert train(*recipe({"data": "mix.yaml"}), *WAIVED) == 0
        Path("results/train/r/sft/job.json").touch()  # as every real trainer leaves one: the stage has begun
    (typed,) = mixer.typed
    built = built_file(Path("results/train/r/data"), mix)
    assert typed[-7:] == ["mix.yaml", "-o", str(built), "--results", "results", "--benchmarks", "benchmarks"]
    (ref,) = Quick.jobs[0].data
    assert (ref.path, ref.rows, ref.location) == ("mix.yaml", 5, str(built.absolute()))
    write_mix(counts=(4, 1))
    assert train(*recipe({"data": "mix.yaml"}), *WAIVED, "--out", "again") == 0
    assert len(mixer.typed) == 2  # another mix is another file
    assert built.is_file()


def test_a_mix_that_cannot_be_built_ends_with_its_command(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalsuite.loop.mixes.subprocess.run", Mixer(2))
    write_mix()
    assert train(*recipe({"data": "mix.yaml"}), *WAIVED) == 2
    said = capsys.readouterr().err
    assert "stage 'sft': the mix mix.yaml could not be built (exit code 2)" in said
    assert "evalsuite data mix mix.yaml -o" in said
    assert Quick.jobs == []


@pytest.mark.parametrize(("counts", "rows"), [((3, 2), 5), ((3, "all"), None), ((), None)])
def test_rows_of_a_mix_are_known_before_it_is_built_where_all_counts_are_numbers(
    house: Path, counts: Sequence[Any], rows: int | None
) -> None:
    assert rows_of_mix(write_mix(counts=counts)) == rows


def test_a_yaml_file_that_is_no_mix_is_refused(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*recipe({"data": "policy.yaml"}), *WAIVED) == 2
    assert "policy.yaml: not a mix file: expected a mapping with sources" in capsys.readouterr().err


# -- plans --


@pytest.mark.parametrize("columns", [60, 120])
def test_a_plan_fits_the_width_and_names_rows_steps_batch_and_sources(
    house: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert train("--plan", *recipe({"sources": {"a paper, table 3": ["lr", "epochs"]}, "save": {"steps": 3}})) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    said = " ".join(" ".join(lines).split())
    assert "data data.jsonl: 8 rows" in said
    # ceil(8/4) · 2 steps, half of them warm-up; saved after 3 and at the end
    assert "steps 4 of 8 rows, warm-up 2, 2 checkpoints" in said
    assert "batch 4 = 4 per device × 1 accumulated × 1 process" in said
    assert "source a paper, table 3: lr, epochs" in said
    assert Quick.jobs == []
    assert not Path("results").exists()


def test_a_plan_as_json_has_the_same_numbers_and_what_is_missing(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mix()
    stages = [{"data": "mix.yaml"}, {"name": "dpo", "trainer": "dpo", "start": "nobody/has", "data": "gone.jsonl"}]
    assert train("--plan", "--json", *recipe(*stages)) == 0
    sft, dpo = json.loads(capsys.readouterr().out)["stages"]
    assert (sft["plan"]["rows"], sft["plan"]["steps"], sft["lacks"]) == (5, 4, [])
    assert dpo["plan"]["steps"] is None
    assert dpo["lacks"] == ["no data file 'gone.jsonl'", "no checkpoint folder 'nobody/has'"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--processes", "3"], "r: sft: batch 4 does not divide by 3 processes; the nearest that do: 3 and 6"),
        (["--launch", "zero4"], "no shipped accelerate config; did you mean 'zero3'?"),
    ],
)
def test_a_plan_that_contradicts_itself_is_exit_two(
    house: Path, capsys: pytest.CaptureFixture[str], more: list[str], told: str
) -> None:
    assert train("--plan", *recipe(), *more) == 2
    assert told in capsys.readouterr().err


def test_a_plan_of_a_shipped_recipe_needs_no_model_and_loads_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from evalsuite.__main__ import main; code = main(sys.argv[1:])\n"
        "assert not {'torch', 'transformers', 'datasets', 'trl'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "--recipe", "tulu3_8b", "--plan", "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = {each["name"]: each["plan"] for each in json.loads(done.stdout)["stages"]}
    told = {name: (plan["steps"], plan["warmup_steps"]) for name, plan in stages.items()}
    assert told == {"sft": (14_678, 440), "rm": (1_061, 0), "dpo": (2_121, 212), "rlvr": (178_568, 0)}
    assert (stages["rlvr"]["iterations"], stages["rlvr"]["rollouts"]) == (44_642, 224)


def test_a_plan_of_rlvr_says_iterations_rollouts_networks_and_what_generates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    assert train("rlvr", "--recipe", "tulu3.1_8b", "--plan") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "iterations 13,020, 326 checkpoints" in lines  # every 40 and the last: 325 + 1
    assert "steps 26,040 of the optimizer, warm-up 0" in lines
    # 13,020 · 48 prompts / 29,946 rows
    assert "rollouts 768 = 48 prompts × 16 an iteration, on 6 processes, 20.9 passes over the rows" in lines
    assert "batch 384 rollouts of a step" in lines
    assert "networks policy (8,030,326,784 parameters) trained, reference frozen" in lines
    assert any(
        line.startswith("beside vLLM has 2 more GPUs (6,7) to itself, 7.5 GiB of weights in each") for line in lines
    )
    assert not any(line.startswith("tokens not known") for line in lines)
    assert train("rlvr", "--recipe", "tulu3_70b", "--plan") == 0
    assert "no checkpoint folder 'allenai/Llama-3.1-Tulu-3-8B-RM' for value_init" in capsys.readouterr().out


def test_rlvr_that_does_not_fit_is_refused_with_what_is_trained_and_what_is_frozen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tmp_path / "allenai/Llama-3.1-Tulu-3-8B-DPO"
    write_model(model, 1.0)
    shape = {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_attention_heads": 32}
    (model / "config.json").write_text(json.dumps({**shape, "num_key_value_heads": 8, "vocab_size": 128264}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("evalsuite.trainers.machine.this_machine", lambda: Machine((), 2**34))
    assert train("rlvr", "--recipe", "tulu3.1_8b") == 2
    # 16 + 2 bytes · 8,030,326,784 / 6 processes / 2^30
    assert (
        "stage 'rlvr': policy (8,030,326,784 parameters) trained, reference frozen: 22.4 GiB of memory in each of "
        "6 processes (16 bytes for each parameter that is trained, 2 or 4 for each that is frozen), and here there is "
        "no GPU, and 16.0 GiB of memory; spread them: --processes N --launch fsdp2 (see: evalsuite train --plan)"
    ) in capsys.readouterr().err


def test_an_input_from_the_hub_is_to_be_put_where_the_recipe_looks_for_it(
    house: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*recipe({"inputs": {"value_init": "nobody/rm"}}), *WAIVED) == 2
    said = capsys.readouterr().err
    assert "value_init: there is no checkpoint folder 'nobody/rm'" in said
    assert "(from the hub: hf download nobody/rm --local-dir nobody/rm)" in said


def test_a_launch_is_resolved_by_name_where_the_worker_starts(house: Path) -> None:
    assert train(*recipe(), *WAIVED, "--processes", "2", "--launch", "zero2") == 0
    typed = worker_command("train_plugins.sft_worker", Quick.jobs[0])
    at = typed.index("--config_file")
    assert typed[at + 1].endswith("recipes/accelerate/zero2.yaml")
    assert typed[at + 2 : at + 6] == ["--num_processes", "2", "-m", "train_plugins.sft_worker"]


def test_the_loop_takes_a_shipped_recipe_and_stops_at_what_is_not_public(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["loop", "--recipe", "tulu3_405b"]) == 2
    assert "sft.options.lr: expected a number, found null: no public source gives this value" in capsys.readouterr().err
    assert main(["loop", "--recipe", "tulu3_405"]) == 2
    assert "did you mean 'tulu3_405b'?" in capsys.readouterr().err
    assert main(["loop"]) == 2
    assert "say which recipe" in capsys.readouterr().err


def test_shipped_recipes_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--recipes"]) == 0
    assert "tulu3_8b" in capsys.readouterr().out
    assert main(["list", "--recipes", "--json"]) == 0
    listed = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert listed["tulu3_8b"]["stages"] == ["sft", "rm", "dpo", "rlvr"]
    assert train("--show", "tulu3_70b") == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "tulu3_70b"


def test_the_options_of_a_trainer_are_printed_with_type_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--options", "dpo") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "beta number (needed)" in lines
    assert "loss dpo_norm | dpo | simpo | ipo = dpo_norm" in lines
    assert "lora {r, alpha, dropout, targets} | null = null" in lines
    assert "adam_betas list of number = [0.9, 0.999]" in lines
    assert "reference_cache true | false = true" in lines
    assert any("`beta` is around 5" in line for line in lines)
    assert train("--options", "rlvr") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "algorithm ppo | grpo (needed)" in lines
    assert "verifiers mapping of text = {}" in lines
    assert any(line.startswith("gap_limits {warn_mean, ") and "= {warn_mean: 0.02, " in line for line in lines)
    assert train("--options", "dpi") == 2
    assert "did you mean 'dpo'" in capsys.readouterr().err


# -- for real --


@pytest.mark.slow
def test_a_tiny_model_is_trained_for_real_on_a_mix_and_the_plan_told_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from train_plugins.tiny import write_tiny

    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path / "model", hidden=32, layers=2)
    rows = [
        {"id": str(i), "source": "t", "messages": [{"role": "user", "content": f"say {i}"},
                                                   {"role": "assistant", "content": str(i)}]}
        for i in range(12)
    ]  # fmt: skip
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"path": "data.jsonl", "count": 9, "licence": "Apache-2.0", "origin": "ours", "skills": ["chat"]}
    mix = {"schema": 1, "name": "m", "seed": 1, "dedup": "prompt", "decontam": {"waive": "a dry run"}}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({**mix, "sources": [{**source, "made_by": "human"}]}))
    typed = recipe({"data": "mix.yaml", "options": {**OPTIONS, "dtype": "float32", "threads": 1}})[:2]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    evalsuite = [sys.executable, "-m", "evalsuite", "train"]
    said: list[Any] = []
    for more in (["--plan", "--json"], ["--json", *WAIVED], ["--json", *WAIVED]):
        done = subprocess.run(
            [*evalsuite, *typed, *more], env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
    assert said[1] == said[2]  # the second time there was nothing left to do
    (checkpoint,) = said[1]["checkpoints"]
    assert said[0]["stages"][0]["plan"]["steps"] == 6  # ceil(9/4) · 2
    assert Path(checkpoint["path"]).name == "step-000006"
    told = json.loads((Path(checkpoint["path"]) / "evalsuite.json").read_text())
    assert told["decontamination_waived"] == "a dry run"
    assert told["data"][0]["licence"] == "Apache-2.0"
