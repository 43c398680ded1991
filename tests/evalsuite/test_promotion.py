"""Promotion: only by a final verdict on these very bytes, against the champion there is; the commands around it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from evalsuite.checkpoint import open_checkpoint
from evalsuite.cli import promote as promote_cli
from evalsuite.cli import registry as registry_cli
from evalsuite.cli import rollback as rollback_cli
from evalsuite.errors import CheckpointError, EvalsuiteError, LostRace, RegistryError, UsageError
from evalsuite.promotion import NotPromoted, manifest_of, promote
from evalsuite.registry import FAULTS, Registry
from evalsuite.registry.manifest import declared_digest
from evalsuite.registry.refs import content, moves, ref_of
from tests.evalsuite.registry.places import killed_at, memory_folder


def make_checkpoint(folder: Path, weight: float = 1.0, **training: Any) -> Path:
    """The smallest folder that counts as a checkpoint: one tensor of one number."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "vocab_size": 8}')
    (folder / "vocab.txt").write_text("a\n")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<f", weight))
    if training:
        (folder / "evalsuite.json").write_text(json.dumps(training))
    return folder


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: each of these tests waits for the disk some dozens of times otherwise."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry.at(tmp_path / "results", actor="tester", host="here")


def finding(outcome: str) -> dict[str, Any]:
    return {"benchmark": "gsm8k", "rule": "must_not_regress", "outcome": outcome, "why": "as it came out"}


POLICY = {"version": 1}


def judge(registry: Registry, folder: Path, outcome: str = "promote", **facts: Any) -> str:
    """Records a verdict on a checkpoint against the champion of now, as the gate does; `policy` is put too."""
    checkpoint, champion = open_checkpoint(folder), registry.ref("champion")
    against = {"name": "old", "digest": champion.id, "generation": champion.generation} if champion else None
    told = [{"file": str(registry.root.parent / "gate.md")}]
    policy = registry.put({**facts.pop("policy", POLICY), "notify": told})
    verdict = {
        "schema": "gate/1",
        "gate_id": "9a" * 32,
        "policy": policy,
        "policy_name": "house",
        "suite": {"name": "dev", "digest": "cc", "regime": "r"},
        "ref": "champion",
        "candidate": {"name": checkpoint.name, "digest": checkpoint.digest},
        "champion": against,
        "anchor": None,
        "attempt": 1,
        "bootstrap": against is None,
        "outcome": outcome,
        "findings": [finding("pass"), finding({"promote": "pass"}.get(outcome, outcome))],
        "cost": {},
        "blind": {},
        "pairs": 1,
        "settings": [],
        "final": True,
        **facts,
    }
    digest = registry.put(verdict)
    registry.record("verdict", ref=verdict["ref"], id=checkpoint.digest, verdict=digest)
    return digest


def champion_of(registry: Registry, folder: Path) -> str:
    """Judges and promotes; the checkpoint's digest."""
    judge(registry, folder)
    return promote(registry, folder).id


def test_the_first_checkpoint_becomes_champion_and_anchor(registry: Registry, tmp_path: Path) -> None:
    verdict = judge(registry, make_checkpoint(tmp_path / "a"))
    done = promote(registry, tmp_path / "a", reason="a start")
    assert (done.ref, done.generation, done.name, done.verdict, done.already) == ("champion", 1, "a", verdict, False)
    assert [(e.event, e.ref) for e in registry.events()] == [
        ("verdict", "champion"),
        ("bootstrap", "champion"),
        ("anchor", "anchor"),
    ]
    assert {name: ref.id for name, ref in registry.refs().items()} == {"champion": done.id, "anchor": done.id}
    assert registry.verify() == ()
    assert (tmp_path / "results" / "gate.md").read_text() == "- **promote** a on dev, now champion generation 1\n"


def test_the_second_becomes_champion_and_the_anchor_stays(registry: Registry, tmp_path: Path) -> None:
    first = champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    second = champion_of(registry, make_checkpoint(tmp_path / "b", 2.0))
    assert first != second
    assert {name: ref.id for name, ref in registry.refs().items()} == {"champion": second, "anchor": first}
    manifest = registry.manifest(second)
    assert manifest is not None
    assert manifest["evidence"]["suite"]["name"] == "dev"


def test_the_same_command_again_says_so_and_writes_nothing(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a"))
    before = registry.events()
    again = promote(registry, tmp_path / "a")
    assert (again.already, again.generation) == (True, 1)
    assert registry.events() == before


def test_a_verdict_against_an_older_champion_loses_the_race(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    b, c = make_checkpoint(tmp_path / "b", 2.0), make_checkpoint(tmp_path / "c", 3.0)
    judge(registry, b)
    judge(registry, c)
    promote(registry, b)
    before = registry.events()
    with pytest.raises(LostRace, match=r"generation 2 .* against generation 1"):
        promote(registry, c)
    assert registry.events() == before


def test_retry_gates_again_against_the_new_champion(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    b, c = make_checkpoint(tmp_path / "b", 2.0), make_checkpoint(tmp_path / "c", 3.0)
    judge(registry, c)
    champion_of(registry, b)
    gated: list[Path] = []

    def regate(folder: Path) -> str:
        gated.append(folder)
        return judge(registry, folder)

    assert promote(registry, c, retries=1, regate=regate).generation == 3
    assert gated == [c]


def test_retry_ends_when_the_new_champion_is_better(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    b, c = make_checkpoint(tmp_path / "b", 2.0), make_checkpoint(tmp_path / "c", 3.0)
    judge(registry, c)
    champion_of(registry, b)
    with pytest.raises(NotPromoted, match="'block'"):
        promote(registry, c, retries=5, regate=lambda folder: judge(registry, folder, "block"))


def test_retry_without_a_gate_does_not_go_round_for_ever(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    b, c = make_checkpoint(tmp_path / "b", 2.0), make_checkpoint(tmp_path / "c", 3.0)
    judge(registry, c)
    champion_of(registry, b)
    with pytest.raises(LostRace):
        promote(registry, c, retries=100)


@pytest.mark.parametrize(("outcome", "code"), [("block", 1), ("hold", 3)])
def test_a_verdict_that_is_not_promote_exits_as_the_gate_did(
    registry: Registry, tmp_path: Path, outcome: str, code: int
) -> None:
    verdict = judge(registry, make_checkpoint(tmp_path / "a"), outcome)
    with pytest.raises(NotPromoted, match=f"gate override {verdict[:12]}") as caught:
        promote(registry, tmp_path / "a")
    assert caught.value.exit_code == code
    assert registry.refs() == {}


def test_an_overridden_verdict_promotes_and_is_marked_for_ever(registry: Registry, tmp_path: Path) -> None:
    verdict = judge(registry, make_checkpoint(tmp_path / "a"), "block")
    override = registry.record("override", verdict=verdict, reason="a flaky judge", detail={"by": "kim"})
    assert promote(registry, tmp_path / "a").overridden_by == "kim"
    event = next(e for e in registry.events() if e.event == "bootstrap")
    assert (event.detail["overridden_by"], event.detail["override"]) == ("kim", override.seq)


def test_an_override_does_not_outlive_its_verdict(registry: Registry, tmp_path: Path) -> None:
    verdict = judge(registry, make_checkpoint(tmp_path / "a"), "block")
    registry.record("override", verdict=verdict, reason="a flaky judge", detail={"by": "kim"})
    judge(registry, tmp_path / "a", "block", attempt=2)
    with pytest.raises(NotPromoted):
        promote(registry, tmp_path / "a")
    with pytest.raises(RegistryError, match="not the newest"):
        promote(registry, tmp_path / "a", verdict=verdict)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"final": False}, "is not final"),
        ({"needs": {"gsm8k": 264}}, "is not final"),
        ({"findings": [finding("pass"), finding("block")]}, "says 'promote' and its findings come to 'block'"),
        ({"findings": [finding("error")]}, "says 'promote' and its findings come to 'hold'"),
        ({"findings": [{"outcome": "pass"}]}, "not a verdict"),
        ({"schema": "gate/9"}, "not a verdict"),
        ({"bootstrap": False}, "first checkpoint"),
        ({"candidate": {"name": "other", "digest": "ff"}}, "on another checkpoint"),
    ],
)
def test_a_verdict_that_does_not_fit_is_refused(
    registry: Registry, tmp_path: Path, facts: dict[str, Any], message: str
) -> None:
    judge(registry, make_checkpoint(tmp_path / "a"), **facts)
    with pytest.raises(RegistryError, match=message) as caught:
        promote(registry, tmp_path / "a")
    assert caught.value.exit_code == 2


def test_without_a_verdict_or_with_one_of_another_policy_nothing_is_promoted(
    registry: Registry, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "a")
    with pytest.raises(RegistryError, match="no verdict on it for 'champion'"):
        promote(registry, folder)
    judge(registry, folder)
    with pytest.raises(RegistryError, match="required is abababababab"):
        promote(registry, folder, policy_digest="ab" * 32)
    policy = next(e for e in registry.events() if e.verdict).verdict
    assert promote(registry, folder, policy_digest=registry.get(str(policy))["policy"]).generation == 1


def test_a_checkpoint_that_changed_since_it_was_judged_has_no_verdict(registry: Registry, tmp_path: Path) -> None:
    judge(registry, make_checkpoint(tmp_path / "a"))
    (tmp_path / "a" / "chat_template.jinja").write_text("{{ other }}")
    with pytest.raises(RegistryError, match="no verdict on it"):
        promote(registry, tmp_path / "a")


@pytest.mark.parametrize("paranoid", [False, True])
def test_a_checkpoint_that_changes_while_the_lock_is_waited_for_is_not_promoted(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paranoid: bool
) -> None:
    judge(registry, make_checkpoint(tmp_path / "a"))
    real = registry.promote

    def slowly(*args: Any, **facts: Any) -> Any:
        (tmp_path / "a" / "chat_template.jinja").write_text("{{ other }}")
        return real(*args, **facts)

    monkeypatch.setattr(registry, "promote", slowly)
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: changed since it was judged"):
        promote(registry, tmp_path / "a", paranoid=paranoid)
    assert registry.refs() == {}


def test_a_reward_model_is_refused_for_every_ref(registry: Registry, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "rm", stage="rm")
    for ref in ("champion", "anchor", "candidate"):
        with pytest.raises(CheckpointError, match="a reward model has no text to score"):
            promote(registry, tmp_path / "rm", ref=ref, reason="x")
    assert registry.events() == ()


def test_an_anchor_is_chosen_with_a_reason_and_without_a_verdict(registry: Registry, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "a")
    with pytest.raises(UsageError, match="add --reason"):
        promote(registry, folder, ref="anchor", reason=" ")
    done = promote(registry, folder, ref="anchor", reason="the base")
    (event,) = registry.events()
    assert (event.event, event.ref, event.reason, event.verdict) == ("anchor", "anchor", "the base", None)
    assert promote(registry, folder, ref="anchor", reason="again").already
    assert promote(registry, folder, ref="candidate").generation == 1
    assert registry.refs()["anchor"].id == done.id


def test_the_release_is_moved_by_evalsuite_release_alone(registry: Registry, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "a")
    judge(registry, folder, ref="release")
    with pytest.raises(RegistryError, match=f"run evalsuite release {folder}"):
        promote(registry, folder, ref="release", reason="because")
    assert registry.refs() == {}
    assert run(promote_cli.command, folder, "--ref", "release", "--results", tmp_path / "results").exit_code == 2


def test_a_verdict_for_another_ref_makes_no_champion(registry: Registry, tmp_path: Path) -> None:
    """Recorded for the champion by hand, though the gate was asked for the release."""
    folder = make_checkpoint(tmp_path / "a")
    verdict = judge(registry, folder, ref="release")
    with pytest.raises(RegistryError, match="no verdict on it for 'champion'"):
        promote(registry, folder)
    registry.record("verdict", ref="champion", id=open_checkpoint(folder).digest, verdict=verdict)
    with pytest.raises(RegistryError, match="asked for 'release', not for 'champion'"):
        promote(registry, folder)


def test_a_verdict_by_another_policy_than_the_champions_needs_a_reason(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    b = make_checkpoint(tmp_path / "b", 2.0)
    lax = registry.get(judge(registry, b, policy={"version": 1, "infra": []}))["policy"]
    before = registry.events()
    strict = registry.get(str(before[0].verdict))["policy"]
    with pytest.raises(RegistryError, match=f"by policy {lax[:12]}, that of the champion by {strict[:12]}") as caught:
        promote(registry, b)
    assert "--new-policy REASON" in str(caught.value)
    assert (caught.value.exit_code, registry.events()) == (2, before)
    assert promote(registry, b, new_policy="no chat template here").generation == 2
    detail = registry.events()[-1].detail
    assert (detail["policy"], detail["new_policy"]) == (lax, "no chat template here")

    c = make_checkpoint(tmp_path / "c", 3.0)
    judge(registry, c, policy={"version": 1, "infra": []})  # the champion's own policy by now
    assert promote(registry, c, new_policy="as before").generation == 3
    assert "new_policy" not in registry.events()[-1].detail


def test_after_a_rollback_the_policy_of_the_checkpoint_that_is_back_counts(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    b, c = make_checkpoint(tmp_path / "b", 2.0), make_checkpoint(tmp_path / "c", 3.0)
    judge(registry, b, policy={"version": 1, "infra": []})
    promote(registry, b, new_policy="a try")
    registry.rollback("champion", to=1, reason="it failed")
    judge(registry, c)
    assert promote(registry, c).generation == 4


def test_a_race_that_was_lost_to_another_policy_is_a_lost_race(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    b, c = make_checkpoint(tmp_path / "b", 2.0), make_checkpoint(tmp_path / "c", 3.0)
    judge(registry, b, policy={"version": 1, "infra": []})
    judge(registry, c)
    promote(registry, b, new_policy="a try")
    with pytest.raises(LostRace):
        promote(registry, c)


def test_a_reason_for_a_policy_is_refused_where_none_is_compared(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave --new-policy out"):
        promote(registry, make_checkpoint(tmp_path / "a"), ref="candidate", new_policy="why not")


@pytest.mark.parametrize("changed", ['{"stage": "sft", "data": []}', None])
def test_what_the_trainer_declared_must_be_what_was_judged(
    registry: Registry, tmp_path: Path, changed: str | None
) -> None:
    folder = make_checkpoint(tmp_path / "a", stage="sft", data=["cd"])
    said = folder / "evalsuite.json"
    whole = said.read_bytes()
    judge(registry, folder, declared=declared_digest(json.loads(whole)))
    if changed is None:
        said.unlink()
    else:
        said.write_text(changed)
    with pytest.raises(CheckpointError, match=r"evalsuite\.json: changed since it was judged"):
        promote(registry, folder)
    assert registry.refs() == {}
    said.write_bytes(whole)
    assert promote(registry, folder).generation == 1


def test_a_declaration_that_came_after_the_gate_is_a_change(registry: Registry, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "a")
    judge(registry, folder, declared="")
    (folder / "evalsuite.json").write_text('{"stage": "sft"}')
    with pytest.raises(CheckpointError, match="changed since it was judged"):
        promote(registry, folder)


@pytest.mark.parametrize("point", [*FAULTS, *(f"{point}:2" for point in FAULTS)])
def test_a_killed_promotion_ends_as_an_undisturbed_one_when_it_is_typed_again(
    registry: Registry, tmp_path: Path, point: str
) -> None:
    """The second pass of a point is that of the anchor, whose objects are there already."""
    judge(registry, make_checkpoint(tmp_path / "a"))
    killed_at(point, lambda: promote(Registry.at(tmp_path / "results"), tmp_path / "a"))
    assert registry.verify(pause_s=0) == ()
    registry.record("attempt")
    promote(registry, tmp_path / "a")
    assert {name: ref.generation for name, ref in registry.refs().items()} == {"champion": 1, "anchor": 1}
    assert [e.event for e in registry.events() if e.event != "attempt"] == ["verdict", "bootstrap", "anchor"]
    assert registry.verify(pause_s=0) == ()


def test_the_manifest_tells_files_origin_and_template(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "a", stage="sft", parent="ab", data=["cd"], step=5)
    manifest = manifest_of(open_checkpoint(folder))
    template = hashlib.sha256(b"{{ messages }}").hexdigest()
    assert manifest["files"]["chat_template.jinja"] == {"size": 14, "sha256": template}
    assert manifest["chat_template"] == template
    assert (manifest["stage"], manifest["parent"], manifest["data"]) == ("sft", "ab", ["cd"])
    assert manifest["decontamination"] is None
    assert manifest["training"]["step"] == 5
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert manifest_of(open_checkpoint(folder))["chat_template"] == template


# -- the commands --


def run(command: click.Command, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])


def test_promote_prints_one_line_or_json(registry: Registry, tmp_path: Path) -> None:
    verdict = judge(registry, make_checkpoint(tmp_path / "a"))
    results = tmp_path / "results"
    done = run(promote_cli.command, tmp_path / "a", "--results", results)
    assert done.exit_code == 0, done.output
    digest = registry.refs()["champion"].id
    assert done.stdout == f"a ({digest[:12]}) is champion, generation 1, verdict {verdict[:12]}\n"
    again = json.loads(run(promote_cli.command, tmp_path / "a", "--results", results, "--json", "--paranoid").stdout)
    assert (again["already"], again["generation"], again["id"], again["verdict"]) == (True, 1, digest, verdict)


def test_the_commands_exit_with_the_codes_of_the_errors(registry: Registry, tmp_path: Path) -> None:
    results = tmp_path / "results"
    for outcome, code in {"block": 1, "hold": 3}.items():
        judge(registry, make_checkpoint(tmp_path / outcome, len(outcome)), outcome)
        error = run(promote_cli.command, tmp_path / outcome, "--results", results).exception
        assert isinstance(error, EvalsuiteError)
        assert error.exit_code == code
    assert isinstance(run(rollback_cli.command, "--reason", "x", "--results", results).exception, RegistryError)
    assert isinstance(run(rollback_cli.command, "--reason", " ", "--results", results).exception, UsageError)
    assert run(rollback_cli.command, "--results", results).exit_code == 2  # no --reason
    assert isinstance(run(registry_cli.command, "export", "--results", results).exception, UsageError)
    assert isinstance(run(registry_cli.command, "log", "--results", tmp_path / "none").exception, RegistryError)
    assert not (tmp_path / "none").exists()


def test_rollback_says_what_is_back_and_warns_when_its_folder_is_gone(registry: Registry, tmp_path: Path) -> None:
    first = champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    champion_of(registry, make_checkpoint(tmp_path / "b", 2.0))
    (tmp_path / "a").rename(tmp_path / "moved")
    done = run(rollback_cli.command, "--reason", "worse", "--results", tmp_path / "results")
    assert done.stdout == f"a ({first[:12]}) is champion again, generation 3\n"
    assert f"{tmp_path / 'a'}: the folder of this checkpoint is gone" in done.stderr
    back = run(rollback_cli.command, "--to", "2", "--reason", "no", "--json", "--results", tmp_path / "results")
    assert json.loads(back.stdout)["generation"] == 4
    assert json.loads(back.stdout)["name"] == "b"


def test_the_log_is_one_line_per_event_in_a_pipe_and_everything_in_json(registry: Registry, tmp_path: Path) -> None:
    verdict = judge(registry, make_checkpoint(tmp_path / "a\u202ex"), "block")
    registry.record("override", ref="champion", verdict=verdict, reason="two\nlines", detail={"by": "kim"})
    promote(registry, tmp_path / "a\u202ex")
    results = tmp_path / "results"
    lines = run(registry_cli.command, "log", "--results", results).stdout.splitlines()
    assert len(lines) == 5
    policy = registry.get(verdict)["policy"]
    assert f"verdict {verdict[:12]}: block by policy {policy[:12]}" in lines[0]
    assert "override  champion" in lines[1]
    assert "⚑ kim answers for it" in lines[1]
    assert r"two\x0alines" in lines[1]
    assert "bootstrap  champion 0 → 1" in lines[2]
    assert r"a\u202ex" in lines[2]
    assert "⚑ overridden by kim" in lines[2]
    head = registry.events()[-1]
    assert lines[4] == f"head  4  {head.hash}"
    whole = json.loads(run(registry_cli.command, "log", "--json", "--results", results).stdout)
    assert [e["hash"] for e in whole["events"]] == [e.hash for e in registry.events()]
    assert whole["head"] == {"seq": 4, "hash": head.hash}
    anchors = run(registry_cli.command, "log", "--ref", "anchor", "--results", results).stdout
    assert len(anchors.splitlines()) == 2  # one event, and the head of the whole log
    assert anchors.splitlines()[1] == lines[4]


def test_verify_lists_faults_and_exits_with_2(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a"))
    results = tmp_path / "results"
    assert run(registry_cli.command, "verify", "--results", results).stdout == (
        "3 events and everything they name are whole\n"
    )
    log = results / "registry" / "log" / "audit.jsonl"
    log.write_bytes(log.read_bytes().replace(b"tester", b"nobody"))
    done = run(registry_cli.command, "verify", "--results", results)
    assert "audit.jsonl: line 1: its hash does not fit its content" in done.stdout
    assert isinstance(done.exception, RegistryError)
    assert done.exception.exit_code == 2
    faults = json.loads(run(registry_cli.command, "verify", "--json", "--results", results).stdout)["faults"]
    assert len(faults) == 3


def cut_back(registry: Registry, kept: int) -> None:
    """What somebody does who wants a promotion forgotten: the end of the log goes, and the refs are written back."""
    log = registry.root / "log" / "audit.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:kept]))
    for name in ("champion", "anchor"):
        moved = moves(registry.events(), name)
        if moved:
            (registry.root / "refs" / f"{name}.json").write_bytes(content(ref_of(moved[-1])))


def test_verify_names_what_a_cut_log_no_longer_tells_of(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    kept = len(registry.events())
    b, results = make_checkpoint(tmp_path / "b", 2.0), tmp_path / "results"
    verdict = judge(registry, b, policy={"version": 1, "infra": []})
    (results / "gates").mkdir()
    (results / "gates" / "9a9a.json").write_text(json.dumps(registry.get(verdict), indent=1))
    promote(registry, b, new_policy="a try")
    assert run(registry_cli.command, "verify", "--results", results).exit_code == 0
    head = registry.head()[1]
    cut_back(registry, kept)
    late = Registry.at(results)
    assert late.verify() == ()
    named = late.unlogged(pause_s=0)
    # policy, verdict and manifest of b, and the verdict in results/gates
    assert len(named) == 4
    assert sum("a verdict, not in the log" in line for line in named) == 2
    assert sum("a manifest, not in the log" in line for line in named) == 1
    done = run(registry_cli.command, "verify", "--results", results)
    assert done.stdout.splitlines() == list(named)
    assert isinstance(done.exception, RegistryError)
    assert "4 thing(s) not in the log" in str(done.exception)
    raw = json.loads(run(registry_cli.command, "verify", "--json", "--results", results).stdout)
    assert raw == {"faults": [], "not_in_the_log": list(named)}
    asked = run(registry_cli.command, "verify", "--head", head[:12], "--results", results)
    assert f"no event has the hash {head[:12]}" in asked.stdout


def test_a_head_that_was_kept_is_found_in_a_log_that_grew(registry: Registry, tmp_path: Path) -> None:
    champion_of(registry, make_checkpoint(tmp_path / "a", 1.0))
    head, results = registry.head()[1], tmp_path / "results"
    champion_of(registry, make_checkpoint(tmp_path / "b", 2.0))
    assert run(registry_cli.command, "verify", "--head", head, "--results", results).exit_code == 0
    assert isinstance(run(registry_cli.command, "verify", "--head", "9f", "--results", results).exception, UsageError)


@pytest.mark.parametrize("verb", ["log", "verify", "show", "export"])
def test_every_verb_of_the_registry_has_examples(verb: str) -> None:
    assert f"evalsuite registry {verb} " in run(registry_cli.command, verb, "--help").stdout.partition("Examples:")[2]


def test_show_knows_refs_checkpoints_and_objects(registry: Registry, tmp_path: Path) -> None:
    digest = champion_of(registry, make_checkpoint(tmp_path / "a"))
    results = tmp_path / "results"

    def show(what: str) -> Any:
        done = run(registry_cli.command, "show", what, "--results", results)
        assert done.exit_code == 0, done.exception
        return json.loads(done.stdout)

    assert show("champion")["ref"]["id"] == digest
    assert [e["event"] for e in show(digest[:8])["events"]] == ["verdict", "bootstrap", "anchor"]
    verdict = registry.events()[0].verdict
    assert verdict is not None
    assert show(verdict[:10])["outcome"] == "promote"
    for unknown in ("release", "beef" * 16, "zz"):
        assert isinstance(run(registry_cli.command, "show", unknown, "--results", results).exception, RegistryError)
