"""`evalsuite gate` and what follows it, from the command line: exit codes, words, and what is written."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from evalsuite import run as running
from evalsuite.__main__ import main
from evalsuite.models import EngineSpec
from evalsuite.models.fake import FakeModel
from evalsuite.registry import Registry
from tests.evalsuite.gating.world import LOOK, Checkpoint, Engine, N, every
from tests.evalsuite.registry.places import contents, memory_folder
from tests.evalsuite.test_promotion import make_checkpoint
from tests.toy import make_benchmark

POLICY = """
version: 1
suite: house
method: {looks: 4}
samples: {when: []}
must_not_regress: {default: {margin: 0.1, block_null: zero}}
"""
WEIGHTS = {"first": 1.0, "same": 2.0, "worse": 3.0, "noisy": 4.0}


@dataclass
class House:
    """A suite, a policy and checkpoints in a folder, and the command line in it."""

    root: Path
    capsys: pytest.CaptureFixture[str]
    sides: dict[str, Checkpoint] = field(default_factory=dict)
    opened: list[FakeModel] = field(default_factory=list)

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def registry(self) -> Registry:
        return Registry.at(self.results)

    def folder(self, name: str) -> str:
        return str(self.root / name)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of a command with --results."""
        self.capsys.readouterr()
        code = main([*arguments, "--results", str(self.results)])
        return code, *self.capsys.readouterr()

    def gate(self, name: str, *arguments: str) -> tuple[int, str, str]:
        options = ["--suite", self.folder("house.yaml"), "--policy", self.folder("policy.yaml"), "--model", "fake"]
        return self.run("gate", self.folder(name), *options, "--benchmarks", self.folder("benchmarks"), *arguments)

    def promoted(self, name: str, *arguments: str) -> None:
        assert self.gate(name, "--promote", *arguments)[0] == 0

    def open(self, spec: EngineSpec, checkpoint: Path | None) -> FakeModel:
        assert checkpoint is not None
        self.opened.append(Engine(self.sides[checkpoint.name]))
        return self.opened[-1]


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[House]:
    with memory_folder() as root:
        make_benchmark(root / "benchmarks", "toy", N)
        verify = root / "benchmarks" / "toy" / "verify.py"
        verify.write_text(verify.read_text().replace("What is", "toy: what is"))
        (root / "house.yaml").write_text("suite: house\nregime: demo@v1\nsplit: development\ncolumns: {toy: toy}\n")
        (root / "policy.yaml").write_text(POLICY)
        made = House(root, capsys)
        for name, weight in WEIGHTS.items():
            make_checkpoint(root / name, weight)
            made.sides[name] = Checkpoint(name)
        made.sides["worse"].wrong = every(10)
        made.sides["noisy"].fails = every(20)
        monkeypatch.setattr(running, "open_model", made.open)
        yield made


# -- verdicts and exit codes --


def test_the_first_checkpoint_becomes_champion_and_the_next_ones_are_held_against_it(house: House) -> None:
    code, out, said = house.gate("first", "--bootstrap", "--promote")
    assert code == 0
    assert out.startswith("promote: first may become the first champion on house; 0.00 of a full run")
    assert "champion: first, generation 1" in said

    code, out, said = house.gate("same")
    assert code == 0
    assert out.startswith("promote: same may replace first (champion, generation 1) on house; 0.25 of a full run used")
    assert "clear at look 1 of 4, 100 of 400 items; cannot see a drop under 10" in out
    assert f"asked anew: {LOOK} of candidate, {2 * LOOK} of champion" in said
    assert f"next: evalsuite promote {house.folder('same')}" in said

    code, out, said = house.gate("worse")
    assert code == 1
    assert out.startswith("block: worse may not replace first (champion, generation 1) on house; 0.50 of a full run")
    assert "proven worse at look 2 of 4, 200 of 400 items" in out
    assert "overruled, if it must be: evalsuite gate override" in said

    code, out, _ = house.gate("noisy")
    assert code == 3
    assert out.startswith("hold: cannot tell whether noisy may replace first (champion, generation 1) on house")
    assert "samples of the candidate failed" in out

    house.sides["noisy"].fails = lambda request: False
    assert house.gate("noisy")[0] == 0
    assert house.registry.refs()["champion"].generation == 1
    assert house.registry.refs()["anchor"].id == house.registry.refs()["champion"].id


def test_json_is_the_verdict_and_nothing_else(house: House) -> None:
    house.promoted("first", "--bootstrap")
    code, out, _ = house.gate("worse", "--json")
    raw = json.loads(out)
    assert (code, raw["schema"], raw["outcome"], raw["final"]) == (1, "gate/1", "block", True)
    assert (raw["champion"]["name"], raw["champion"]["generation"]) == ("first", 1)
    assert raw["blind"] == {"toy": 0.1}
    (written,) = [p for p in (house.results / "gates").iterdir() if json.loads(p.read_text())["outcome"] == "block"]
    assert written.read_text() == out
    assert house.gate("worse", "--json")[1] == out


def test_a_dry_run_leaves_the_registry_as_it_was(house: House) -> None:
    house.promoted("first", "--bootstrap")
    before, gates = contents(house.results / "registry"), contents(house.results / "gates")
    code, out, said = house.gate("same", "--dry-run")
    assert (code, out.split(":")[0]) == (0, "promote")
    assert "verdict:" not in said
    assert contents(house.results / "registry") == before
    assert contents(house.results / "gates") == gates
    assert house.gate("same", "--dry-run", "--promote")[0] == 2


def test_a_folder_may_be_named_as_the_reference(house: House) -> None:
    code, out, said = house.gate("same", "--against", house.folder("first"))
    assert (code, out.split(" on house")[0]) == (0, "promote: same may replace first")
    assert "next:" not in said  # it is nobody's champion
    assert house.run("promote", house.folder("same"))[0] == 2


def test_another_chat_template_than_the_champions_must_be_accepted(house: House) -> None:
    house.promoted("first", "--bootstrap")
    (house.root / "same" / "chat_template.jinja").write_text("{{ messages }} and go")
    code, out, _ = house.gate("same")
    assert (code, out.split(":")[0]) == (1, "block")
    assert "the champion's is" in out
    assert house.sides["same"].numbers() == []
    assert house.gate("same", "--accept-template")[0] == 0


# -- promotion --


def test_a_verdict_promotes_and_a_second_champion_makes_an_old_verdict_void(house: House) -> None:
    house.promoted("first", "--bootstrap")
    assert house.gate("same")[0] == 0
    house.sides["noisy"].fails = lambda request: False
    house.promoted("noisy")
    code, _, said = house.run("promote", house.folder("same"))
    assert code == 4
    assert "generation" in said
    assert house.gate("same")[0] == 0  # against the new champion, from the same journal
    code, out, _ = house.run("promote", house.folder("same"))
    assert (code, "is champion, generation 3" in out) == (0, True)


@pytest.mark.parametrize(("name", "code"), [("worse", 1), ("noisy", 3)])
def test_what_was_not_cleared_is_not_promoted(house: House, name: str, code: int) -> None:
    house.promoted("first", "--bootstrap")
    assert house.gate(name, "--promote")[0] == code
    assert house.run("promote", house.folder(name))[0] == code
    assert house.registry.refs()["champion"].generation == 1


def test_an_override_lets_a_blocked_checkpoint_pass_and_marks_it_for_ever(house: House) -> None:
    house.promoted("first", "--bootstrap")
    _, _, said = house.gate("worse")
    verdict = said.split("verdict: ")[1].split()[0]
    code, out, _ = house.run("gate", "override", verdict, "--reason", "needed for the demo", "--by", "ann")
    assert (code, out) == (0, "⚑ worse: block overridden by ann\n")
    code, out, _ = house.run("promote", house.folder("worse"))
    assert code == 0
    assert "is champion, generation 2" in out
    assert "⚑ overridden by ann" in out
    assert "overridden by ann" in house.run("registry", "log")[1]
    options = ["--suite", house.folder("house.yaml"), "--benchmarks", house.folder("benchmarks"), "--model", "fake"]
    assert "⚑ overridden by ann" in house.run("score", house.folder("worse"), *options)[1]
    assert house.run("registry", "verify")[0] == 0


def test_failed_samples_cannot_be_overridden(house: House) -> None:
    house.promoted("first", "--bootstrap")
    _, _, said = house.gate("noisy")
    assert "samples of the candidate failed" not in said
    verdict = said.split("verdict: ")[1].split()[0]
    code, out, said = house.run("gate", "override", verdict, "--reason", "in a hurry", "--by", "ann")
    assert (code, out) == (2, "")
    assert "may not be overridden: toy (standard, failed)" in said
    assert not [event for event in house.registry.events() if event.event == "override"]


def test_an_override_needs_a_reason_a_name_and_something_to_override(house: House) -> None:
    house.promoted("first", "--bootstrap")
    _, _, said = house.gate("same")
    verdict = said.split("verdict: ")[1].split()[0]
    wrong = {
        ("--by", "ann"): "--reason",
        ("--reason", "x"): "--by",
        ("--reason", " ", "--by", "ann"): "must say something",
        ("--reason", "x", "--by", "ann"): "the verdict is promote; there is nothing to override",
    }
    for arguments, words in wrong.items():
        code, _, said = house.run("gate", "override", verdict, *arguments)
        assert (code, words in said) == (2, True), said


# -- verbs --


def test_a_verdict_is_explained_again_word_for_word(house: House) -> None:
    house.promoted("first", "--bootstrap")
    _, out, said = house.gate("worse")
    verdict = said.split("verdict: ")[1].split()[0]
    assert house.run("gate", "explain", verdict)[:2] == (0, out)
    raw = json.loads(house.run("gate", "explain", verdict, "--json")[1])
    assert house.run("gate", "explain", raw["gate_id"][:16])[:2] == (0, out)
    code, _, said = house.run("gate", "explain", "feedbeef")
    assert (code, "no verdict begins with 'feedbeef'" in said) == (2, True)
    assert house.run("gate", "explain", verdict[:3])[0] == 2


def test_attempts_at_a_claim_count_up_until_an_epoch(house: House) -> None:
    house.promoted("first", "--bootstrap")
    claim = ["--set", "must_improve={any_of: [{metric: macro}]}"]

    def attempt(name: str) -> int:
        code, out, _ = house.gate(name, *claim, "--json")
        assert code in (1, 3)  # none of them is better
        return int(json.loads(out)["attempt"])

    house.sides["noisy"].fails = lambda request: False
    assert [attempt(name) for name in ("same", "worse", "same")] == [1, 2, 1]
    options = ["--suite", house.folder("house.yaml"), "--benchmarks", house.folder("benchmarks")]
    assert house.run("gate", "epoch", *options)[0] == 2  # without a reason
    code, out, _ = house.run("gate", "epoch", "--reason", "a new base model", *options)
    assert (code, out) == (0, "attempts at champion on house count from 1 again\n")
    assert attempt("noisy") == 1


def test_a_folder_with_the_name_of_a_verb_is_written_with_its_path(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.promoted("first", "--bootstrap")
    shutil.copytree(house.root / "same", house.root / "explain")
    house.sides["explain"] = Checkpoint("explain")
    monkeypatch.chdir(house.root)
    options = ["--suite", "house.yaml", "--policy", "policy.yaml", "--model", "fake", "--benchmarks", "benchmarks"]
    code, out, _ = house.run("gate", "./explain", *options)
    assert (code, out.split(" (")[0]) == (0, "promote: explain may replace first")
    assert house.run("gate", "explain")[0] == 2


# -- wrong input --


def refused(house: House, name: str, *arguments: str) -> str:
    """The one line that a gate is refused with, before an engine starts."""
    n_opened = len(house.opened)
    code, out, said = house.gate(name, *arguments)
    assert (code, out) == (2, ""), said
    assert len(said.strip().splitlines()) == 1, said
    assert "Traceback" not in said
    assert len(house.opened) == n_opened
    return said


def test_without_a_champion_one_is_asked_to_say_bootstrap(house: House) -> None:
    assert "first checkpoint? add --bootstrap" in refused(house, "first")
    assert not house.results.exists()


def test_a_champion_is_not_gated_against_itself(house: House) -> None:
    house.promoted("first", "--bootstrap")
    said = refused(house, "first")
    assert f"{house.folder('first')} is champion already; there is nothing to gate" in said


def test_a_champion_whose_folder_is_gone_is_named(house: House) -> None:
    house.promoted("first", "--bootstrap")
    shutil.move(house.root / "first", house.root / "elsewhere")
    said = refused(house, "same")
    assert f"champion is gone: {house.folder('first')}" in said
    assert "put it back, or name another: --against FOLDER" in said


def test_a_champion_whose_files_changed_is_named_with_both_digests(house: House) -> None:
    house.promoted("first", "--bootstrap")
    before = house.registry.refs()["champion"].id[:12]
    shutil.rmtree(house.root / "first")
    make_checkpoint(house.root / "first", 9.0)
    said = refused(house, "same")
    assert f"{house.folder('first')} changed since it became champion" in said
    assert f"was {before}" in said


WRONG = {
    "endpoint": (["--model", "api:http://127.0.0.1:9/v1"], "evalsuite gate NEW.json --against OLD.json"),
    "reference": (["--against", "champoin"], "no folder and no ref; did you mean 'champion'?"),
    "setting": (["--set", "method.lokks=3"], "did you mean 'looks'"),
    "unreachable": (["--set", "must_not_regress.default.margin=0.01"], "can only end inconclusive"),
    "policy": (["--policy", "demmo"], "no policy named 'demmo'; did you mean 'demo'?"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_words_are_one_line_and_start_nothing(house: House, kind: str) -> None:
    house.promoted("first", "--bootstrap")
    arguments, words = WRONG[kind]
    assert words in refused(house, "same", *arguments)


def test_an_unseen_suite_is_refused_before_its_data_is_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr("evalsuite.score.resolve_all", read)
    (house.root / "house.yaml").write_text("suite: house\nregime: demo@v1\nsplit: unseen\ncolumns: {toy: toy}\n")
    code, out, said = house.gate("first", "--bootstrap")
    assert (code, out) == (5, "")
    assert "Only `evalsuite release` may read it" in said
    assert house.run("gate", house.folder("first"), "--suite", "tulu3-unseen", "--bootstrap")[0] == 5


# -- scorecards --


def scored(house: House, name: str) -> str:
    options = ["--suite", house.folder("house.yaml"), "--benchmarks", house.folder("benchmarks"), "--model", "fake"]
    code, _, said = house.run("score", house.folder(name), *options)
    assert code == 0
    return said.split("scorecard: ")[1].strip()


def test_two_scorecards_are_gated_without_a_model(house: House) -> None:
    first, same, worse = (scored(house, name) for name in ("first", "same", "worse"))
    n_opened = len(house.opened)
    policy = ["--policy", house.folder("policy.yaml")]
    code, out, said = house.run("gate", same, "--against", first, *policy)
    assert (code, out.split(" on house")[0]) == (0, "promote: same may replace first")
    assert "asked anew: 0 of candidate, 0 of champion" in said
    assert house.run("gate", worse, "--against", first, *policy)[0] == 1
    assert len(house.opened) == n_opened
    assert not (house.results / "registry").exists()
    code, _, said = house.run("gate", same, *policy)
    assert (code, "compared with another one: --against OLD.json" in said) == (2, True)


def test_a_scorecard_of_another_suite_digest_is_refused(house: House) -> None:
    first = scored(house, "first")
    yaml = house.root / "benchmarks" / "toy" / "toy.yaml"
    yaml.write_text(yaml.read_text().replace("max_gen_toks: 16", "max_gen_toks: 17"))
    same = scored(house, "same")
    code, out, said = house.run("gate", same, "--against", first, "--policy", house.folder("policy.yaml"))
    assert (code, out) == (2, "")
    assert "candidate and champion were not asked alike: suite digest" in said


# -- how it looks --


def on_a_terminal(arguments: list[str], columns: int) -> str:
    """What a command prints when its stdout is a terminal of so many columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "evalsuite", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        shown += read
        if not read:
            break
    process.wait()
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_a_narrow_terminal_folds_what_a_pipe_keeps_on_one_line(house: House) -> None:
    house.promoted("first", "--bootstrap")
    _, piped, said = house.gate("worse")
    verdict = said.split("verdict: ")[1].split()[0]
    assert sum(line.startswith("block  toy") for line in piped.splitlines()) == 1
    assert max(map(len, piped.splitlines())) > 100
    shown = on_a_terminal(["gate", "explain", verdict, "--results", str(house.results)], 60)
    findings = shown.splitlines()[1:]
    assert max(map(len, findings)) <= 60
    # The very same words: only the lines are broken elsewhere.
    assert shown.split() == piped.split()
