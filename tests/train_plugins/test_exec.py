"""The exec trainer against scripts that write what external trainers write, in their order and names, slowly."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from evalsuite.checkpoint import Checkpoint, open_checkpoint
from evalsuite.errors import DiskFull, TrainerFailed, UsageError
from evalsuite.gating.evidence import training_of
from evalsuite.trainers import Control, DataRef, SaveRule, TrainJob, parse, process, read_events, write_control
from tests.evalsuite.loop.folders import model_files, weights, write_model
from train_plugins.exec import Exec, ExecOptions, known_presets, read_options
from train_plugins.watching import Complete, Watch, model_lacks, render

ROOT = Path(__file__).resolve().parents[2]
PAUSE_S = 0.01
SETTLED = {"settled_s": 0.2}

# argv: folder that the trainer is given, pause. `files` writes a model in place, each file in two halves; what is whole
# is left alone when the program is started again, as trainers do that resume.
WRITER = f"""
import pathlib, sys, time
sys.path.insert(0, {str(ROOT)!r})
from tests.evalsuite.loop.folders import model_files
out, pause = pathlib.Path(sys.argv[1]), float(sys.argv[2])
def part(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        half = len(content) // 2
        file.write(content[:half]); file.flush(); time.sleep(pause); file.write(content[half:])
def files(folder, value, names=None):
    for name, content in model_files(float(value)).items():
        if names is None or name in names:
            part(folder / name, content)
def states(folder, value):
    part(folder / "optimizer.bin", b"x" * 100)
    part(folder / "model.safetensors", model_files(float(value))["model.safetensors"])
    part(folder / "random_states_0.pkl", b"y" * 10)
journal = out.parent / "journal.txt"
journal.parent.mkdir(parents=True, exist_ok=True)
done = journal.read_text().split() if journal.exists() else []
def finished(i):
    with open(journal, "a") as file:
        file.write(f"{{i}}\\n")
todo = [i for i in (10, 20, 30) if str(i) not in done]
"""
WRITERS = {
    "open_instruct_grpo": "for i in todo: files(pathlib.Path(f'{out}_checkpoints') / f'step_{i}', i); finished(i)",
    "open_instruct_states": (
        "for i in todo:\n states(out / f'step_{i}', i); (out / f'step_{i}' / 'COMPLETED').write_text(''); finished(i)"
    ),
    "open_instruct_final": "for i in todo: states(out / f'step_{i}', i); finished(i)\nfiles(out, 40)",
    "openrlhf": (
        "for i in todo:\n part(out / f'_actor/global_step{i}/mp_rank_00_model_states.pt', b'z' * 64)\n"
        " files(out / f'global_step{i}_hf', i); finished(i)"
    ),
    "verl": (
        "for i in todo:\n actor = out / f'global_step_{i}' / 'actor'\n"
        " part(actor / 'model_world_size_1_rank_0.pt', str(i).encode() * 9)\n"
        " files(actor / 'huggingface', i, ('config.json', 'tokenizer.json'))\n"
        " part(out / 'latest_checkpointed_iteration.txt', str(i).encode()); finished(i)"
    ),
    "verl_hf": (
        "for i in todo:\n files(out / f'global_steps_{i}' / 'actor' / 'huggingface', i)\n"
        " part(out / 'latest_checkpointed_iteration.txt', str(i).encode()); finished(i)"
    ),
    "trl": (
        "for i in todo:\n files(out / f'checkpoint-{i}', i); part(out / f'checkpoint-{i}/optimizer.pt', b'o')\n"
        " finished(i)"
    ),
}  # fmt: skip
FOLDER = {"openrlhf": "ckpt", "verl": "ckpt", "verl_hf": "ckpt"}  # what the preset calls it; `run` elsewhere
VALUES = {"open_instruct_final": [40]}  # the weights of the checkpoints that are to come; 10, 20, 30 elsewhere
# Stands for verl.model_merger, which needs verl: the step is nine times in the shard.
MERGER = """
import pathlib, sys
sys.path.insert(0, {root!r})
from tests.evalsuite.loop.folders import write_model
src, dst = map(pathlib.Path, sys.argv[1:3])
text = (src / "model_world_size_1_rank_0.pt").read_text()
assert len(text) == 18, text
write_model(dst, float(text[:2]))
"""


def make_job(out: Path, options: Mapping[str, Any], start: Checkpoint | None = None) -> TrainJob:
    return TrainJob("external", start, (), out, 7, SaveRule(), options)


def train(out: Path, options: Mapping[str, Any], start: Checkpoint | None = None) -> Iterator[Checkpoint]:
    return Exec().train(make_job(out, {"poll_s": 0.03, **options}, start))


def value(checkpoint: Checkpoint) -> float:
    """The number that a model folder was written with."""
    data = (checkpoint.path / "model.safetensors").read_bytes()
    return next(v for v in (1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0) if data == weights(v))


def preset_options(name: str, root: Path) -> dict[str, Any]:
    script = root / "writer.py"
    script.write_text(WRITER + WRITERS[name])
    shipped = read_options({"preset": name}).complete
    complete = {"marker": shipped.marker, "file": shipped.file, "contains": shipped.contains, **SETTLED}
    options: dict[str, Any] = {"preset": name, "complete": complete}
    options["command"] = [sys.executable, str(script), f"{{out}}/{FOLDER.get(name, 'run')}", str(PAUSE_S)]
    if name == "verl":
        merger = root / "merger.py"
        merger.write_text(MERGER.format(root=str(ROOT)))
        options["convert"] = [sys.executable, str(merger), "{src}", "{dst}"]
    return options


def test_every_preset_is_tested_here() -> None:
    assert set(known_presets()) == set(WRITERS)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_preset_yields_what_its_trainer_writes_once_and_in_order_though_it_is_killed_midway(
    name: str, tmp_path: Path
) -> None:
    options, out = preset_options(name, tmp_path), tmp_path / "out"
    start = open_checkpoint(write_model(tmp_path / "start", 4.0))
    expected = VALUES.get(name, [10, 20, 30])
    seen: list[str] = []
    said: list[str] = []
    follower = threading.Thread(target=_follow_until_it_fails, args=(train(out, options, start), seen, said))
    follower.start()
    journal, deadline = out / "journal.txt", time.monotonic() + 30
    while not (journal.exists() and journal.read_text().startswith("10\n")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(3 * PAUSE_S)  # in the middle of the second
    running = process.find(out)
    assert running is not None
    running.signal("KILL")
    follower.join(30)
    assert not follower.is_alive()
    assert len(said) == 1
    assert "killed by signal 9" in said[0]
    assert len(seen) <= 2
    found = list(train(out, options, start))
    assert [value(c) for c in found] == expected
    assert [c.digest for c in found][: len(seen)] == seen
    assert len({c.digest for c in found}) == len(expected)
    names = [f"step-{v:06d}" for v in expected] if expected != [40] else ["final"]
    assert [c.path.name for c in found] == names
    assert all(open_checkpoint(c.path).digest == c.digest for c in found)


def _follow_until_it_fails(checkpoints: Iterator[Checkpoint], seen: list[str], said: list[str]) -> None:
    try:
        for checkpoint in checkpoints:
            seen.append(checkpoint.digest)
    except TrainerFailed as error:
        said.append(str(error))


def watched(root: Path, **options: Any) -> dict[str, Any]:
    full = {"watch": str(root), "pattern": r"checkpoint-(?P<step>\d+)", "complete": SETTLED, "ends": {"idle_s": 0.8}}
    return {**full, **options}


def test_a_folder_of_somebody_elses_run_is_watched_and_judged_once(tmp_path: Path) -> None:
    for i in (2, 10, 1):
        write_model(tmp_path / "run" / f"checkpoint-{i}", i if i < 10 else 3.0)
    first = list(train(tmp_path / "out", watched(tmp_path / "run")))
    assert [c.path.name for c in first] == ["step-000001", "step-000002", "step-000010"]  # by number, not by name
    write_model(tmp_path / "run" / "checkpoint-11", 4.0)
    assert [value(c) for c in train(tmp_path / "out", watched(tmp_path / "run"))] == [1.0, 2.0, 3.0, 4.0]
    events = [e for e in read_events(tmp_path / "out" / "events.jsonl") if e["kind"] == "checkpoint"]
    assert len(events) == 4


@pytest.mark.parametrize("what", ["shard", "header", "length", "config", "tokenizer", "template", "nan", "json"])
def test_an_incomplete_or_broken_folder_is_never_yielded_and_the_next_one_is(tmp_path: Path, what: str) -> None:
    broken = write_model(tmp_path / "run" / "checkpoint-1", 1.0)
    data = (broken / "model.safetensors").read_bytes()
    if what == "shard":
        (broken / "model.safetensors").unlink()
        (broken / "model-00001-of-00002.safetensors").write_bytes(data)
        index = {"weight_map": {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}}
        (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    change = {"header": data[:20], "length": data[:-1], "nan": weights(float("nan"))}
    if what in change:
        (broken / "model.safetensors").write_bytes(change[what])
    if what in ("config", "tokenizer"):
        (broken / f"{what}.json").unlink()
    if what == "template":
        (broken / "chat_template.jinja").write_text("{% for %}")
    if what == "json":
        (broken / "config.json").write_bytes(model_files(1.0)["config.json"][:-3])
    write_model(tmp_path / "run" / "checkpoint-2", 2.0)
    found = list(train(tmp_path / "out", watched(tmp_path / "run")))
    assert [value(c) for c in found] == [2.0]
    warnings = [e["text"] for e in read_events(tmp_path / "out" / "events.jsonl") if e.get("code") == "passed_over"]
    assert len(warnings) == 1
    assert warnings[0].startswith("not judged: ")


def test_an_unfinished_folder_is_waited_for_while_nothing_later_is_complete(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "run" / "checkpoint-1", 1.0)
    (folder / "model.safetensors").unlink()
    later = threading.Timer(0.6, lambda: (folder / "model.safetensors").write_bytes(weights(1.0)))
    later.start()  # three times settled_s after everything else
    options = watched(tmp_path / "run", ends={"idle_s": 2.5})
    assert [value(c) for c in train(tmp_path / "out", options)] == [1.0]


def test_a_marker_that_is_absent_is_never_overlooked(tmp_path: Path) -> None:
    for i in (1, 2, 3):
        write_model(tmp_path / "run" / f"checkpoint-{i}", i)
    (tmp_path / "run" / "checkpoint-2" / "COMPLETED").touch()
    options = watched(tmp_path / "run", complete={"marker": "COMPLETED", **SETTLED})
    assert [value(c) for c in train(tmp_path / "out", options)] == [2.0]


def test_a_file_that_names_the_newest_step_vouches_for_the_ones_before(tmp_path: Path) -> None:
    for i in (9, 10, 11):
        (tmp_path / f"global_step_{i}").mkdir()
        (tmp_path / f"global_step_{i}" / "shard.pt").write_bytes(b"x")
    latest = tmp_path / "latest.txt"
    complete = Complete(settled_s=60, file=str(latest), contains="global_step{step}")
    watch = Watch(tmp_path, r"global_step_(?P<step>\d+)", complete, model=False)
    assert [look.state for look in watch.look()] == ["changing"] * 3
    latest.write_text("global_step10")
    assert [(look.folder.step, look.state) for look in watch.look()] == [(9, "ready"), (10, "ready"), (11, "changing")]
    latest.write_text("global_step1")
    assert [look.state for look in watch.look()] == ["changing"] * 3


def test_staging_folders_do_not_match(tmp_path: Path) -> None:
    write_model(tmp_path / "tmp-checkpoint-1", 1.0)
    write_model(tmp_path / "checkpoint-1.partial", 1.0)
    assert Watch(tmp_path, r"checkpoint-(?P<step>\d+)", Complete(0.0), model=True).look() == ()


@pytest.mark.parametrize(("pin", "links"), [("hardlink", 2), ("copy", 1)])
def test_a_checkpoint_that_the_trainer_rotates_away_is_kept(tmp_path: Path, pin: str, links: int) -> None:
    folder = write_model(tmp_path / "run" / "checkpoint-1", 1.0)
    checkpoints = train(tmp_path / "out", watched(tmp_path / "run", pin=pin))
    found = next(checkpoints)
    assert os.stat(found.path / "model.safetensors").st_nlink == links
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert open_checkpoint(found.path).digest == found.digest
    facts = json.loads((found.path / "evalsuite.json").read_text())
    assert (facts["step"], facts["source"], facts["data"]) == (1, str(folder), None)
    assert list(checkpoints) == []


@pytest.mark.parametrize("pin", ["copy", "hardlink"])
def test_a_copy_that_would_not_fit_is_not_begun(tmp_path: Path, pin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "run" / "checkpoint-1", 1.0)
    size = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(tmp_path)._replace(free=int(1.2 * size) - 1)
    monkeypatch.setattr("train_plugins.pinning.shutil.disk_usage", lambda path: free)
    if pin == "hardlink":
        monkeypatch.setattr("train_plugins.pinning._link", lambda source, target: False)  # another file system
    out = tmp_path / "out"
    with pytest.raises(DiskFull, match=r"it needs .* MB, .* MB free on /.*; use --keep or another --out"):
        next(train(out, watched(tmp_path / "run", pin=pin)))
    assert [e["code"] for e in read_events(out / "events.jsonl") if e["kind"] == "warning"] == ["cannot_wait", "disk"]
    assert list((out / "checkpoints").iterdir()) == []
    monkeypatch.undo()
    assert [value(c) for c in train(out, watched(tmp_path / "run", pin=pin))] == [1.0]


def test_declared_data_stand_beside_the_kept_weights_where_the_gate_reads_them(tmp_path: Path) -> None:
    write_model(tmp_path / "run" / "checkpoint-1", 1.0)
    data = (DataRef("mine.jsonl", "ab" * 32, 2),)
    job = dataclasses.replace(make_job(tmp_path / "out", watched(tmp_path / "run")), data=data)
    (found,) = Exec().train(job)
    read = training_of(found.path, tmp_path / "results", [])
    assert (read.declared, read.data) == (True, {"mine.jsonl": "ab" * 32})
    (undeclared,) = train(tmp_path / "without", watched(tmp_path / "run"))
    assert not training_of(undeclared.path, tmp_path / "results", []).declared


def test_declared_data_that_pinning_would_have_kept_are_warned_about(tmp_path: Path) -> None:
    write_model(tmp_path / "run" / "checkpoint-1", 1.0)
    options = watched(tmp_path / "run", pin="none")
    job = dataclasses.replace(make_job(tmp_path / "out", options), data=(DataRef("mine.jsonl"),))
    for _ in range(2):
        list(Exec().train(job))
    warned = [e["code"] for e in read_events(tmp_path / "out" / "events.jsonl") if e["kind"] == "warning"]
    assert warned == ["cannot_wait", "data_not_kept"]  # each once, not at every start


def test_without_pinning_the_folder_itself_is_judged(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "run" / "checkpoint-1", 1.0)
    found = list(train(tmp_path / "out", watched(tmp_path / "run", pin="none")))
    assert [c.path for c in found] == [folder]
    again = list(train(tmp_path / "out", watched(tmp_path / "run", pin="none")))
    assert [c.digest for c in again] == [c.digest for c in found]


def test_a_folder_rewritten_with_other_content_is_another_checkpoint_and_one_that_lost_its_optimizer_is_not(
    tmp_path: Path,
) -> None:
    folder = write_model(tmp_path / "run" / "checkpoint-1", 1.0)
    (folder / "optimizer.pt").write_bytes(b"state")
    assert [value(c) for c in train(tmp_path / "out", watched(tmp_path / "run"))] == [1.0]
    (folder / "optimizer.pt").unlink()
    assert [value(c) for c in train(tmp_path / "out", watched(tmp_path / "run"))] == [1.0]
    for path in folder.iterdir():
        path.unlink()
    write_model(folder, 2.0)
    found = list(train(tmp_path / "out", watched(tmp_path / "run")))
    assert [c.path.name for c in found] == ["step-000001", "step-000001-a1"]
    assert [value(c) for c in found] == [1.0, 2.0]


def test_closing_stops_the_command_with_its_signal_and_the_next_call_starts_it_again(tmp_path: Path) -> None:
    text = (
        "import signal, sys, time, pathlib\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.evalsuite.loop.folders import write_model\n"
        "run = pathlib.Path(sys.argv[1])\n"
        "signal.signal(signal.SIGUSR1, lambda *_: ((run / 'told').touch(), sys.exit(0)))\n"
        "write_model(run / 'checkpoint-1', 1.0)\n"
        "if (run / 'told').exists(): write_model(run / 'checkpoint-2', 2.0); sys.exit(0)\n"
        "time.sleep(60)\n"
    )
    options = watched(tmp_path / "run", command=[sys.executable, "-c", text, str(tmp_path / "run")], ends={},
                      stop={"signal": "USR1", "grace_s": 10})  # fmt: skip
    checkpoints = train(tmp_path / "out", options)
    assert value(next(checkpoints)) == 1.0
    checkpoints.close()  # type: ignore[attr-defined]
    assert (tmp_path / "run" / "told").exists()
    # It exited with 0, but because it was told to: that is not the end of the run.
    assert [value(c) for c in train(tmp_path / "out", options)] == [1.0, 2.0]


def test_a_rollback_starts_the_restart_command_from_the_folder(tmp_path: Path) -> None:
    text = (
        "import sys, time, pathlib\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.evalsuite.loop.folders import write_model\n"
        "run, words = pathlib.Path(sys.argv[1]), sys.argv[2:]\n"
        "if words:\n (run / 'restart.txt').write_text(' '.join(words))\n"
        " write_model(run / 'checkpoint-3', 3.0); sys.exit(0)\n"
        "write_model(run / 'checkpoint-1', 1.0)\nwrite_model(run / 'checkpoint-2', 2.0)\ntime.sleep(60)\n"
    )
    base = [sys.executable, "-c", text, str(tmp_path / "run")]
    options = watched(tmp_path / "run", command=base, restart=[*base, "{src}", "{lr_scale}", "{seed}"], ends={},
                      stop={"grace_s": 5})  # fmt: skip
    found = []
    for checkpoint in train(tmp_path / "out", options):
        found.append(checkpoint)
        if value(checkpoint) == 2.0:
            adjust = {"lr_scale": 0.5, "seed": 8}
            write_control(tmp_path / "out", Control(1, "step-000002", "rollback", found[0].digest, adjust))
    assert [value(c) for c in found] == [1.0, 2.0, 3.0]
    assert (tmp_path / "run" / "restart.txt").read_text() == f"{found[0].path} 0.5 8"
    assert [value(c) for c in train(tmp_path / "out", options)] == [1.0, 2.0, 3.0]


def test_a_paused_command_stands_still_while_its_checkpoint_is_judged(tmp_path: Path) -> None:
    text = (
        "import sys, time, pathlib\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from tests.evalsuite.loop.folders import write_model\n"
        "run = pathlib.Path(sys.argv[1])\n"
        "write_model(run / 'checkpoint-1', 1.0)\n"
        "for i in range(60): (run / 'beat').write_text(str(i)); time.sleep(0.02)\n"
    )
    command = [sys.executable, "-c", text, str(tmp_path / "run")]
    checkpoints = train(tmp_path / "out", watched(tmp_path / "run", command=command, pause=True, ends={}))
    next(checkpoints)
    time.sleep(0.1)
    beats = [(tmp_path / "run" / "beat").read_text()]
    time.sleep(0.3)
    beats.append((tmp_path / "run" / "beat").read_text())
    assert beats[0] == beats[1]
    assert list(checkpoints) == []
    assert (tmp_path / "run" / "beat").read_text() == "59"


def test_a_converter_that_fails_is_told_and_the_next_checkpoint_goes_on(tmp_path: Path) -> None:
    for i in (1, 2):
        (tmp_path / "run" / f"checkpoint-{i}").mkdir(parents=True)
        (tmp_path / "run" / f"checkpoint-{i}" / "state").write_text(str(i))
    convert = (
        f"import sys, pathlib; sys.path.insert(0, {str(ROOT)!r})\n"
        "n = (pathlib.Path(sys.argv[1]) / 'state').read_text()\n"
        "from tests.evalsuite.loop.folders import write_model\n"
        "sys.exit('no room') if n == '1' else write_model(pathlib.Path(sys.argv[2]), float(n))"
    )
    options = watched(tmp_path / "run", convert=[sys.executable, "-c", convert, "{src}", "{dst}"])
    assert [value(c) for c in train(tmp_path / "out", options)] == [2.0]
    texts = [e["text"] for e in read_events(tmp_path / "out" / "events.jsonl") if e.get("code") == "passed_over"]
    assert texts == [f"not judged: convert ended with exit code 1; its output is in {tmp_path / 'out' / 'convert.log'}"]
    assert not list((tmp_path / "out" / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "watch and pattern say where checkpoints appear"),
        ({"preset": "tlr"}, "no preset 'tlr'; did you mean 'trl'?"),
        ({"watch": "x", "pattern": "("}, "is no regular expression"),
        ({"watch": "x", "pattern": "a", "complete": {"marker": "a", "file": "b"}}, "marker or file, not both"),
        ({"watch": "x", "pattern": "a", "stop": {"signal": "TREM"}}, "stop.signal 'TREM'"),
        ({"watch": "x", "patern": "a"}, "unknown key 'patern'; did you mean 'pattern'?"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Mapping[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(ExecOptions, options, "options")
    assert said in str(caught.value)


def test_the_folder_of_kept_checkpoints_is_not_to_be_watched(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="watch another folder"):
        next(train(tmp_path / "out", watched(tmp_path / "out" / "checkpoints")))


def test_only_known_names_are_filled_in_and_the_shells_braces_stay() -> None:
    assert render("{out}/{a,b} ${out} ${HOME} {nope}", {"out": "/x"}) == "/x/{a,b} ${out} ${HOME} {nope}"


def test_rollback_needs_a_restart_command() -> None:
    options = {"watch": "x", "pattern": "a"}
    assert not Exec().can_roll_back(parse(ExecOptions, options, "o"))
    assert Exec().can_roll_back(parse(ExecOptions, {**options, "restart": ["x"]}, "o"))


def test_what_a_half_written_folder_lacks_is_said(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", 1.0)
    assert model_lacks(folder) == ""
    (folder / "model.safetensors").write_bytes(weights(1.0)[:30])
    assert "half-written weights" in model_lacks(folder)
