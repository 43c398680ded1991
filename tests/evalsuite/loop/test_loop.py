"""What the loop makes of verdicts: decisions, stages, starts, exit codes, and recipes that are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from evalsuite.checkpoint import Checkpoint, open_checkpoint
from evalsuite.cli.loop import command
from evalsuite.errors import CheckpointError, LostRace, TrainerFailed, UsageError
from evalsuite.loop import Ended, Gated, Hooks, make_plan, run_loop
from evalsuite.loop.keep import dispensable
from evalsuite.loop.log import LoopLog, StageState
from evalsuite.loop.view import Lines, saved_line, step_line
from evalsuite.recipe import Recipe, Stage, load_recipe
from evalsuite.trainers import Trainer, TrainJob, append_event, read_control
from tests.evalsuite.loop.folders import write_model
from tests.evalsuite.loop.world import World


@dataclass(frozen=True, slots=True)
class ListOptions:
    values: tuple[int, ...] = (1, 2, 3)
    fails: bool = False


class ListTrainer:
    """Publishes a checkpoint for each of its values: the weights are the value, the name is step-VALUE."""

    name = "list"
    config = ListOptions

    def __init__(self) -> None:
        self.jobs: list[TrainJob] = []
        self.stopped = 0

    def train(self, job: TrainJob) -> Iterator[Checkpoint]:
        self.jobs.append(job)
        if job.options.get("fails"):
            raise TrainerFailed("out of memory")
        try:
            for value in job.options.get("values", (1, 2, 3)):
                yield open_checkpoint(write_model(job.out / "checkpoints" / f"step-{value}", value))
        except GeneratorExit:
            self.stopped += 1
            raise


class Bench:
    """A recipe of list trainers, run in this process."""

    def __init__(self, root: Path) -> None:
        self.root, self.out = root, root / "out"
        self.trainer = ListTrainer()
        self.world = World(root / "world", {})

    def recipe(self, stages: list[Mapping[str, Any]], **more: Any) -> Recipe:
        full = [{"trainer": "list", **stage} for stage in stages]
        text = yaml.safe_dump({"schema": 1, "name": "bench", "stages": full, **more})
        (self.root / "recipe.yaml").write_text(text)
        return load_recipe(self.root / "recipe.yaml")

    def run(
        self, stages: list[Mapping[str, Any]], outcomes: str, hooks: Hooks | None = None, view: Any = None,
        only: str | None = None, start: Path | None = None, **more: Any,
    ) -> Ended:  # fmt: skip
        """`outcomes`: p, b or h for step-1, step-2, …"""
        words = {"p": "promote", "b": "block", "h": "hold"}
        self.world.outcomes = {f"step-{i}": words[o] for i, o in enumerate(outcomes, 1)}
        plan = make_plan(self.recipe(stages, **more), self.out, only=only, start=start, find=self.find)
        return run_loop(plan, hooks or self.world.hooks, view)

    def find(self, name: str) -> Trainer:
        assert name == "list"
        return self.trainer


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def steps(n: int) -> dict[str, Any]:
    return {"values": list(range(1, n + 1))}


@pytest.mark.parametrize(
    ("outcomes", "rule", "decisions", "code"),
    [
        ("ppp", {}, "ccc", 0),
        ("bbb", {}, "cs", 1),  # on_block stop with patience 2 is the default: the third is never trained
        ("bpb", {}, "ccc", 0),  # the promotion between them starts the count again
        ("bhb", {}, "ccc", 3),  # so does an undecided one; nothing promoted, not all blocked
        ("bbb", {"on_block": "continue"}, "ccc", 1),
        ("bpp", {"patience": 1}, "s", 1),
        ("ppp", {"on_promote": "stop"}, "s", 0),
        ("hpp", {"on_hold": "stop"}, "s", 3),
        ("pbb", {"on_block": "rollback"}, "ccr", 0),
        ("bb", {"on_block": "rollback"}, "cs", 1),  # nothing promoted that it could go back to
        ("pbbb", {"on_block": "rollback", "patience": 1, "max_rollbacks": 2}, "crrs", 0),
    ],
)
def test_verdicts_become_decisions_and_an_exit_code(
    bench: Bench, outcomes: str, rule: Mapping[str, Any], decisions: str, code: int
) -> None:
    ended = bench.run([{"name": "one", "options": steps(len(outcomes)), "gate": rule}], outcomes)
    assert "".join(e["decision"][0] for e in ended.stages["one"].controls.values()) == decisions
    assert ended.code == code
    assert bench.trainer.stopped == decisions.endswith("s")
    told = read_control(bench.out / "one")
    assert told is not None
    assert (told.seq, told.decision[0]) == (len(decisions), decisions[-1])


def test_a_rollback_goes_to_the_newest_promoted_one_and_changes_rate_and_seed(bench: Bench) -> None:
    ended = bench.run([{"name": "one", "seed": 5, "gate": {"on_block": "rollback", "patience": 1}}], "ppb")
    told = read_control(bench.out / "one")
    assert told is not None
    assert told.to == list(ended.stages["one"].promoted)[1]
    assert told.adjust == {"seed": 6, "lr_scale": 0.5}


def test_the_next_stage_starts_from_what_was_promoted_last(bench: Bench) -> None:
    stages = [{"name": "sft"}, {"name": "dpo", "start": "@promoted", "inputs": {"reference": "sft@last"}}]
    bench.run(stages, "ppb")
    dpo = bench.trainer.jobs[1]
    assert dpo.start is not None
    assert dpo.start.path == bench.out / "sft" / "checkpoints" / "step-2"
    assert dpo.inputs["reference"].path.name == "step-3"


def test_a_stage_that_promoted_nothing_ends_the_loop_when_the_next_one_starts_from_it(bench: Bench) -> None:
    stages = [{"name": "sft"}, {"name": "dpo", "start": "sft@promoted"}]
    ended = bench.run(stages, "bbb")
    assert ended.code == 1
    assert "2 checkpoints, 0 promoted, 2 blocked; the next stage starts from what it promotes" in ended.line
    assert len(bench.trainer.jobs) == 1


def test_a_stage_that_promoted_nothing_ends_nothing_when_the_next_one_does_not_need_it(bench: Bench) -> None:
    stages = [{"name": "sft", "gate": {"on_block": "continue"}}, {"name": "dpo", "start": "sft@last", "gate": False}]
    ended = bench.run(stages, "bbb")
    assert ended.code == 0  # the last stage judges nothing
    assert len(bench.trainer.jobs) == 2
    assert bench.world.work() == ["step-1", "step-2", "step-3"]


def test_one_stage_alone_takes_the_start_it_is_given(bench: Bench) -> None:
    start = write_model(bench.root / "mine", 9)
    stages = [{"name": "sft"}, {"name": "dpo", "start": "sft@promoted"}]
    ended = bench.run(stages, "ppp", only="dpo", start=start)
    assert ended.code == 0
    assert [job.start.path for job in bench.trainer.jobs if job.start] == [start]


def test_a_stage_alone_without_the_one_before_it_says_what_is_missing(bench: Bench) -> None:
    with pytest.raises(UsageError, match="starts from sft@promoted, but stage 'sft' promoted no checkpoint"):
        bench.run([{"name": "sft"}, {"name": "dpo", "start": "sft@promoted"}], "ppp", only="dpo")


def test_the_champion_can_be_a_start(bench: Bench) -> None:
    champion = write_model(bench.root / "champion", 9)
    hooks = Hooks(bench.world.gate, bench.world.promote, lambda: champion)
    bench.run([{"name": "one", "start": "@champion"}], "ppp", hooks)
    assert bench.trainer.jobs[0].start is not None
    assert bench.trainer.jobs[0].start.path == champion


def test_a_finished_loop_does_nothing_again(bench: Bench) -> None:
    first = bench.run([{"name": "one"}], "pbp")
    again = bench.run([{"name": "one"}], "pbp")
    assert (again.code, again.stages["one"].promoted) == (first.code, first.stages["one"].promoted)
    assert len(bench.trainer.jobs) == 1


def test_a_changed_recipe_is_refused_with_what_changed(bench: Bench) -> None:
    bench.run([{"name": "one"}], "ppp")
    with pytest.raises(UsageError, match=r"stages\.one\.seed null → 3"):
        bench.run([{"name": "one", "seed": 3}], "ppp")


def test_a_trainer_that_fails_ends_the_loop_with_its_reason(bench: Bench) -> None:
    with pytest.raises(TrainerFailed, match="out of memory"):
        bench.run([{"name": "one", "options": {"fails": True}}], "")


def test_a_trainer_without_a_checkpoint_is_an_error(bench: Bench) -> None:
    with pytest.raises(TrainerFailed, match="ended without a checkpoint"):
        bench.run([{"name": "one", "options": {"values": []}}], "")


def test_a_checkpoint_that_changes_while_it_is_judged_counts_for_nothing(bench: Bench) -> None:
    def gate(path: Path, stage: Stage) -> Gated:
        verdict = bench.world.gate(path, stage)
        if path.name == "step-2":
            write_model(path, 99)
        return verdict

    ended = bench.run([{"name": "one"}], "bpp", Hooks(gate, bench.world.promote))
    state = ended.stages["one"]
    assert [state.seen[d]["name"] for d in state.void] == ["step-2"]
    assert [state.seen[d]["name"] for d in state.promoted] == ["step-3"]


def test_a_checkpoint_that_vanishes_while_it_is_judged_counts_for_nothing(bench: Bench) -> None:
    def gate(path: Path, stage: Stage) -> Gated:
        if path.name == "step-1":
            (path / "model.safetensors").unlink()
            open_checkpoint(path)
        return bench.world.gate(path, stage)

    ended = bench.run([{"name": "one"}], "ppp", Hooks(gate, bench.world.promote))
    assert [ended.stages["one"].seen[d]["name"] for d in ended.stages["one"].promoted] == ["step-2", "step-3"]


def test_a_broken_checkpoint_that_did_not_change_is_no_void_verdict(bench: Bench) -> None:
    def gate(path: Path, stage: Stage) -> Gated:
        raise CheckpointError("no chat template")

    with pytest.raises(CheckpointError, match="no chat template"):
        bench.run([{"name": "one"}], "ppp", Hooks(gate, bench.world.promote))


def test_after_a_lost_race_the_checkpoint_is_judged_again(bench: Bench) -> None:
    races = iter([True, False])

    def promote(path: Path, verdict: str) -> int:
        if path.name == "step-1" and next(races):
            raise LostRace("another one was promoted")
        return bench.world.promote(path, verdict)

    judged: list[str] = []

    def gate(path: Path, stage: Stage) -> Gated:
        judged.append(path.name)
        return bench.world.gate(path, stage)

    ended = bench.run([{"name": "one", "options": steps(2)}], "pp", Hooks(gate, promote))
    assert judged == ["step-1", "step-1", "step-2"]
    assert list(ended.stages["one"].promoted.values()) == [1, 2]
    assert list(LoopLog(bench.out).stage("one").promoted.values()) == [1, 2]


@pytest.mark.parametrize(
    ("keep", "outcomes", "left"),
    [
        ("all", "pbpbb", "12345"),
        ("promoted", "pbpbb", "135"),  # and the newest, which nobody knows the use of yet
        ("promoted", "bbbbb", "5"),
        ("last 2", "pbbbb", "145"),  # 1 is the newest promoted one
        ("last 2", "ppppp", "45"),
        ("last 9", "bbbbb", "12345"),
    ],
)
def test_judged_checkpoints_are_kept_as_the_recipe_says(bench: Bench, keep: str, outcomes: str, left: str) -> None:
    stages = [{"name": "one", "options": steps(5), "keep": keep, "gate": {"on_block": "continue"}}]
    bench.run(stages, outcomes)
    assert [path.name for path in sorted((bench.out / "one" / "checkpoints").iterdir())] == [f"step-{n}" for n in left]


def test_what_a_ref_of_the_registry_points_to_is_kept(bench: Bench) -> None:
    anchor = open_checkpoint(write_model(bench.root / "same", 2)).digest
    hooks = Hooks(bench.world.gate, bench.world.promote, refs=lambda: {anchor})
    bench.run([{"name": "one", "options": steps(4)}], "pppp", hooks, keep="last 1")
    assert sorted(p.name for p in (bench.out / "one" / "checkpoints").iterdir()) == ["step-2", "step-4"]


def test_the_command_line_has_the_last_word_on_what_is_kept(bench: Bench) -> None:
    rule = {"on_block": "continue"}
    bench.world.outcomes = {f"step-{i}": "block" for i in range(1, 4)}
    recipe = bench.recipe([{"name": "one", "gate": rule}], keep="all")
    run_loop(make_plan(recipe, bench.out, keep="promoted", find=bench.find), bench.world.hooks)
    assert [p.name for p in (bench.out / "one" / "checkpoints").iterdir()] == ["step-3"]


def test_folders_outside_the_stages_own_are_never_removed(tmp_path: Path) -> None:
    state = StageState()
    for i, path in enumerate(("mine/a", "mine/b", "mine/b", "mine/c")):
        state.seen[str(i)] = {"path": path}
        state.controls[str(i)] = {"decision": "continue"}
    # b was removed and written again: its old content goes, the folder holds the new one.
    assert dispensable("last 2", state, (), gated=True) == (Path("mine/a"),)
    del state.controls["0"]
    assert dispensable("last 2", state, (), gated=True) == ()  # not judged yet
    assert dispensable("last 2", state, (), gated=False) == (Path("mine/a"),)
    assert dispensable("promoted", state, (), gated=False) == ()


def test_a_gate_that_cannot_judge_is_refused_before_any_stage_trains(bench: Bench) -> None:
    checked: list[tuple[str, bool]] = []

    def check(stage: Stage, begins: bool) -> None:
        checked.append((stage.name, begins))
        if begins and stage.name == "dpo":
            raise UsageError("no champion")

    hooks = Hooks(bench.world.gate, bench.world.promote, check=check)
    with pytest.raises(UsageError, match="no champion"):
        bench.run([{"name": "sft"}, {"name": "dpo"}], "ppp", hooks)
    assert checked == [("sft", False), ("dpo", False), ("sft", True), ("dpo", True)]
    assert len(bench.trainer.jobs) == 1


def test_a_loop_goes_on_only_with_the_gate_options_that_it_began_with(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.recipe([{"name": "one", "options": steps(1), "gate": {"policy": "mine.yaml"}}])
    (bench.root / "mine.yaml").write_text("version: 1\n")
    bench.world.outcomes = {"step-1": "promote"}
    monkeypatch.setattr("evalsuite.cli.loop.make_hooks", lambda options, recipe: bench.world.hooks)
    monkeypatch.setattr("evalsuite.loop.plan.find_trainer", bench.find)

    def call(*more: str) -> str:
        arguments = [str(bench.root / "recipe.yaml"), "--results", str(bench.root / "results"), *more]
        return str(CliRunner().invoke(command, arguments, standalone_mode=False).exception or "")

    begun = ("--set", "method.looks=3", "--suite", "demo")
    assert call(*begun) == ""
    assert call(*begun, "--keep", "last 3", "--threads", "1") == ""  # no verdict depends on these
    assert 'command line.--set ["method.looks=3"] → null' in call("--suite", "demo")
    assert 'command line.--regime null → "tulu3@v1"' in call(*begun, "--regime", "tulu3@v1")
    (bench.root / "mine.yaml").write_text("version: 1\nsuite: demo\n")
    assert 'files.one.gate.policy "mine.yaml ' in call(*begun)


def test_data_of_a_recipe_are_told_with_digest_and_rows(bench: Bench) -> None:
    (bench.root / "a.jsonl").write_bytes(b'{"x": 1}\n\n{"x": 2}\n')
    (bench.root / "mix.yaml").write_bytes(b"a: 1\n")
    bench.run([{"name": "one", "data": ["a.jsonl", "mix.yaml"]}], "ppp")
    rows, mix = bench.trainer.jobs[0].data
    assert (rows.path, rows.rows, rows.digest) == ("a.jsonl", 2, sha256(b'{"x": 1}\n\n{"x": 2}\n').hexdigest())
    assert (mix.path, mix.rows, mix.digest) == ("mix.yaml", None, sha256(b"a: 1\n").hexdigest())


def test_two_loops_do_not_work_in_one_folder(bench: Bench) -> None:
    inner: list[str] = []

    def gate(path: Path, stage: Stage) -> Gated:
        with pytest.raises(UsageError, match="another evalsuite loop is working here"):
            bench.run([{"name": "one"}], "ppp")
        inner.append(path.name)
        return bench.world.gate(path, stage)

    bench.run([{"name": "one", "options": steps(1)}], "p", Hooks(gate, bench.world.promote))
    assert inner == ["step-1"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"schema": 2}, ["schema 2: this version reads 1"]),
        ({"stagse": []}, ["unknown key 'stagse'; did you mean 'stages'?"]),
        ({"gate": {"on_blok": "stop", "patience": "two"}},
         ["did you mean 'on_block'?", "one.gate.patience: expected a whole number"]),
        ({"gate": {"patience": 0}}, ["patience must be at least 1"]),
        ({"stages": [{"name": "a/b", "trainer": "list"}]}, ["'a/b' is no name for a folder"]),
        ({"stages": [{"name": "a", "trainer": "list"}] * 2}, ["two stages are named 'a'"]),
        ({"stages": [{"name": "a", "trainer": "list", "start": "model"}]}, ["the recipe names no model"]),
        ({"stages": [{"name": "a", "trainer": "list", "start": "@last"}]}, ["no stage comes before it"]),
        ({"stages": [{"name": "sft", "trainer": "list"}, {"name": "b", "trainer": "list", "start": "stf@last"}]},
         ["no earlier stage named 'stf'; did you mean 'sft'?"]),
        ({"stages": [{"name": "rm", "trainer": "list", "gate": False},
                     {"name": "b", "trainer": "list", "start": "rm@promoted"}]},
         ["stage 'rm' has no gate; use rm@last"]),
        ({"stages": []}, ["expected at least one"]),
        ({"keep": "promotd", "stages": [{"name": "a", "trainer": "list", "keep": "last 0"}]},
         ["keep: expected all, promoted or 'last N'", "did you mean 'promoted'?", "a.keep: expected all"]),
        ({"decontam": {"rnu": True, "scan": "prompt"}},
         ["did you mean 'run'?", "one.decontam.scan", "did you mean 'prompts'?"]),
    ],
)  # fmt: skip
def test_a_recipe_with_mistakes_is_refused_naming_each(
    tmp_path: Path, content: Mapping[str, Any], said: list[str]
) -> None:
    full = {"schema": 1, "name": "x", "stages": [{"name": "one", "trainer": "list"}], **content}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(full))
    with pytest.raises(UsageError) as caught:
        load_recipe(tmp_path / "recipe.yaml")
    for part in said:
        assert part in str(caught.value)


def test_gate_off_in_yaml_is_no_gate_and_stages_inherit_the_recipes_rule(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "schema: 1\nname: x\ngate: {suite: demo, patience: 3}\nstages:\n"
        "  - {name: a, trainer: list}\n  - {name: b, trainer: list, gate: off}\n"
        "  - {name: c, trainer: list, gate: {patience: 1}}\n"
    )
    a, b, c = load_recipe(tmp_path / "r.yaml").stages
    assert a.gate is not None
    assert c.gate is not None
    assert (a.gate.suite, a.gate.patience, b.gate, c.gate.suite, c.gate.patience) == ("demo", 3, None, "demo", 1)


def test_problems_of_all_stages_are_told_before_anything_is_trained(bench: Bench) -> None:
    stages = [{"name": "a", "options": {"valeus": []}}, {"name": "b", "data": "no.jsonl"}]
    with pytest.raises(UsageError) as caught:
        bench.run(stages, "")
    assert "a.options: unknown key 'valeus'; did you mean 'values'?" in str(caught.value)
    assert "b.data: no file 'no.jsonl'" in str(caught.value)
    assert bench.trainer.jobs == []


def test_a_missing_recipe_names_the_one_that_is_near(tmp_path: Path) -> None:
    (tmp_path / "tulu3.yaml").write_text("")
    with pytest.raises(UsageError, match=r"did you mean 'tulu3\.yaml'"):
        load_recipe(tmp_path / "tulu.yaml")


def test_plain_lines_tell_what_happened(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.run([{"name": "one"}], "pbb", view=Lines())
    said = capsys.readouterr().err.splitlines()
    assert "one/step-1: promote  says promote  (0.25 of a full run)" in said
    assert "one/step-1: promoted, generation 1" in said
    assert "one/step-3: stop (2 blocked in a row)" in said
    assert said[-1] == "one: stopped (3 checkpoints, 1 promoted, 2 blocked)"


def test_the_line_of_costs_counts_what_was_not_run() -> None:
    verdicts = [Gated("promote", "", "", {"used": 0.25}), Gated("block", "", "", {"used": 0.5}), Gated("hold", "", "")]
    assert saved_line(verdicts) == "2 verdicts for 0.75 runs of the suite, 1.25 saved"  # 2 − 0.75


@pytest.mark.parametrize(
    ("event", "line"),
    [
        ({"step": 3, "loss": 0.25, "lr": 5e-7}, "step 3  loss 0.25  lr 5e-07"),
        (
            {"step": 120, "steps": 14678, "loss": 0.5321, "tokens_per_s": 21300.4, "eta_s": 7500},
            "step 120/14678  2 h 05 min left  loss 0.5321  21,300 tokens/s",
        ),
        ({"step": 1, "eta_s": 40}, "step 1  40 s left"),
        ({"step": 1, "eta_s": 720}, "step 1  12 min left"),
        ({"step": 1, "eta_s": 76 * 3600}, "step 1  3 d 4 h left"),
        ({"step": 1, "eta_s": float("inf"), "loss": None, "lr": True}, "step 1  ? left"),
    ],
)
def test_a_step_is_told_as_far_as_its_event_goes(event: dict[str, Any], line: str) -> None:
    assert step_line(event) == line


@pytest.mark.parametrize(("every_s", "told"), [(0.0, ["step 1", "step 2", "step 3"]), (3600.0, ["step 3"])])
def test_plain_lines_tell_steps_now_and_then_and_always_the_last(
    tmp_path: Path, every_s: float, told: list[str]
) -> None:
    stream = StringIO()
    lines = Lines(stream, every_s)
    append_event(tmp_path / "events.jsonl", "step", step=0)  # an earlier call has told it
    lines.stage("sft", tmp_path)
    for step in (1, 2, 3):
        append_event(tmp_path / "events.jsonl", "step", step=step)
    lines.close()
    assert stream.getvalue().splitlines()[1:] == told


def test_the_line_of_a_step_ends_in_the_last_verdict(tmp_path: Path) -> None:
    stream = StringIO()
    lines = Lines(stream, 0.0)
    lines.stage("sft", tmp_path)
    lines.gated("sft/step-1", Gated("promote", "", "may replace a"))
    append_event(tmp_path / "events.jsonl", "step", step=2)
    lines.close()
    assert stream.getvalue().splitlines()[-1] == "step 2  last verdict: sft/step-1 promote"


@pytest.mark.parametrize("columns", [60, 120])
def test_on_a_terminal_the_table_is_gone_while_a_gate_draws_and_stands_whole_at_the_end(
    bench: Bench, columns: int
) -> None:
    from rich.console import Console

    from evalsuite.loop.view import Live

    view, screen = Live(), StringIO()
    view._console = Console(file=screen, force_terminal=True, width=columns, color_system=None)
    drawn: list[bool] = []

    def gate(path: Path, stage: Stage) -> Gated:
        drawn.append(view._live is not None)
        return bench.world.gate(path, stage)

    bench.run([{"name": "one"}], "pbp", Hooks(gate, bench.world.promote), view)
    assert view._live is not None
    view.close()
    assert drawn == [False, False, False]
    plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", screen.getvalue())
    lines = [line.split("\r")[-1].rstrip() for line in plain.split("\n")]
    assert lines[-5:] == [
        "one/step-1  promote  says promote",
        "one/step-2  block    says block",
        "one/step-3  promote  says promote",
        "3 verdicts for 0.75 runs of the suite, 2.25 saved",  # 3 − 3 × 0.25
        "",
    ]
    assert sum(line.endswith("one/step-1: judging") for line in lines) == 1
    assert max(map(len, lines)) <= columns


def test_the_live_table_shows_stage_step_and_verdicts(tmp_path: Path) -> None:
    from rich.console import Console

    from evalsuite.loop.view import Live

    view = Live()
    view._stage, view._step = "dpo", "step 3"
    view._verdicts = [("step-1", Gated("block", "", "gsm8k fell", {"used": 0.25}))]
    console = Console(width=80, record=True, file=(tmp_path / "screen").open("w"))
    console.print(view._table())
    shown = " ".join(console.export_text().split())
    for part in ("dpo", "step 3", "step-1", "block", "gsm8k fell", "0.25 runs of the suite, 0.75 saved"):
        assert part in shown


def test_the_command_runs_a_recipe_and_exits_with_what_it_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.recipe([{"name": "one", "options": steps(2)}])
    bench.world.outcomes = {"step-1": "block", "step-2": "promote"}
    monkeypatch.setattr("evalsuite.cli.loop.make_hooks", lambda options, recipe: bench.world.hooks)
    monkeypatch.setattr("evalsuite.loop.plan.find_trainer", bench.find)
    arguments = [str(tmp_path / "recipe.yaml"), "--results", str(tmp_path / "results"), "--json"]
    done = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.return_value == 0
    told = json.loads(done.stdout)
    assert [c["outcome"] for c in told["stages"]["one"]["checkpoints"]] == ["block", "promote"]
    assert (tmp_path / "results" / "loops" / "bench" / "loop.jsonl").is_file()
