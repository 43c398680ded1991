"""What the registry answers: refs, verdicts, overrides, attempts, rollbacks, and who may write what."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evalsuite.errors import LostRace, RegistryError
from evalsuite.registry import Ref, Registry
from tests.evalsuite.registry.places import make, promote


def test_reading_creates_nothing(tmp_path: Path) -> None:
    registry = Registry.at(tmp_path / "results")
    assert registry.root == tmp_path / "results" / "registry"
    assert (registry.refs(), registry.ref("champion"), registry.events(), registry.verify()) == ({}, None, (), ())
    assert registry.verdict_of("ab") is None
    assert registry.manifest("ab") is None
    assert list(tmp_path.iterdir()) == []


def test_a_promotion_counts_generations_and_is_the_last_event(tmp_path: Path) -> None:
    registry = make(tmp_path)
    first, second = promote(registry, 0, "aa"), promote(registry, 1, "bb", reason="better")
    assert (first.generation, second.generation) == (1, 2)
    last = registry.events()[-1]
    assert registry.ref("champion") == second == Ref("bb", 2, last.seq, last.hash)
    assert (last.event, last.ref, last.id, last.prev_generation, last.reason) == (
        "promote",
        "champion",
        "bb",
        1,
        "better",
    )
    manifest = registry.manifest("bb")
    assert manifest is not None
    assert manifest["checkpoint"]["name"] == "bb"
    assert registry.verify() == ()


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_another_generation_than_the_judged_one_is_a_lost_race(tmp_path: Path, expected: int) -> None:
    registry = make(tmp_path)
    promote(registry, 0)
    promote(registry, 1)
    before = registry.events()
    with pytest.raises(LostRace, match=rf"generation 2 .* against generation {expected}") as caught:
        promote(registry, expected)
    assert caught.value.exit_code == 4
    assert registry.events() == before


def test_what_the_check_raises_stops_the_promotion(tmp_path: Path) -> None:
    registry = make(tmp_path)

    def changed() -> None:
        raise RegistryError("changed")

    with pytest.raises(RegistryError, match="changed"):
        promote(registry, 0, check=changed)
    assert registry.events() == ()
    assert promote(registry, 0).generation == 1


def test_refs_have_generations_of_their_own(tmp_path: Path) -> None:
    registry = make(tmp_path)
    promote(registry, 0, "aa")
    promote(registry, 1, "bb")
    registry.promote("anchor", checkpoint_id="aa", manifest={}, expected_generation=0, verdict=None, event="anchor")
    assert {name: (ref.id, ref.generation) for name, ref in registry.refs().items()} == {
        "champion": ("bb", 2),
        "anchor": ("aa", 1),
    }


def test_a_ref_that_does_not_exist_is_named_with_the_near_miss(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no ref named 'champoin'; did you mean 'champion'"):
        make(tmp_path).ref("champoin")
    with pytest.raises(RegistryError, match="did you mean 'anchor'"):
        make(tmp_path).record("attempt", ref="ancor")


def test_a_rollback_is_a_new_generation_and_a_second_one_goes_further_back(tmp_path: Path) -> None:
    registry = make(tmp_path)
    for generation, checkpoint in enumerate(["aa", "bb", "cc"]):
        promote(registry, generation, checkpoint)
    assert registry.rollback("champion", to=None, reason="wrong language").generation == 4  # back to 2: bb
    assert registry.events()[-1].detail["to"] == 2
    again = registry.rollback("champion", to=None, reason="still")  # not to 3, which was rolled back, but to 1: aa
    assert (again.id, again.generation) == ("aa", 5)
    with pytest.raises(RegistryError, match="the present one is the first"):
        registry.rollback("champion", to=None, reason="more")
    promote(registry, 5, "dd")
    assert registry.rollback("champion", to=None, reason="dd is bad").id == "aa"  # what was champion before dd
    assert registry.rollback("champion", to=3, reason="cc was right").id == "cc"
    assert [e.event for e in registry.events()][-2:] == ["rollback", "rollback"]
    assert registry.verify() == ()


@pytest.mark.parametrize(("to", "message"), [(7, "no generation 7 .there are 1 to 2"), (2, "already")])
def test_a_rollback_to_nowhere_is_refused(tmp_path: Path, to: int, message: str) -> None:
    registry = make(tmp_path)
    promote(registry, 0, "aa")
    promote(registry, 1, "bb")
    with pytest.raises(RegistryError, match=message):
        registry.rollback("champion", to=to, reason="x")
    with pytest.raises(RegistryError, match="nothing was promoted yet"):
        registry.rollback("release", to=None, reason="x")


def test_the_newest_verdict_and_its_override_are_found(tmp_path: Path) -> None:
    registry = make(tmp_path)
    old, new = registry.put({"outcome": "block"}), registry.put({"outcome": "hold"})
    for digest in (old, new):
        registry.record("verdict", ref="champion", id="aa", verdict=digest)
    registry.record("verdict", ref="release", id="aa", verdict=old)
    event = registry.record("override", verdict=new, reason="known flake", detail={"by": "kim"})
    found = registry.verdict_of("aa")
    assert found is not None
    assert (found[0], found[1]) == (new, {"outcome": "hold"})
    assert registry.override_of(new) == event
    assert registry.override_of(old) is None
    assert registry.verdict_of("bb") is None


def test_the_newest_is_the_last_in_the_log_whatever_the_clocks_of_two_hosts_say(tmp_path: Path) -> None:
    early = Registry(tmp_path, host="early", actor="a", clock=lambda: datetime(2020, 1, 1, tzinfo=UTC))
    late = Registry(tmp_path, host="late", actor="a", clock=lambda: datetime(2030, 1, 1, tzinfo=UTC))
    first, second = late.put({"n": 1}), early.put({"n": 2})
    late.record("verdict", ref="champion", id="aa", verdict=first)
    early.record("verdict", ref="champion", id="aa", verdict=second)
    promote(late, 0, "aa")
    promote(early, 1, "bb")
    found = late.verdict_of("aa")
    assert found is not None
    assert found[0] == second
    assert [(e.seq, e.host) for e in early.events()] == [(1, "late"), (2, "early"), (3, "late"), (4, "early")]
    assert late.verify() == early.verify() == ()


def test_attempts_are_claims_since_the_last_epoch_of_this_ref_and_suite(tmp_path: Path) -> None:
    registry = make(tmp_path)

    def attempt(suite: str, claim: bool = True, ref: str = "champion") -> None:
        registry.record("attempt", ref=ref, detail={"suite": suite, "claim": claim})

    attempt("dev")
    attempt("dev")
    attempt("dev", claim=False)
    attempt("safety")
    attempt("dev", ref="release")
    assert registry.attempts("champion", "dev") == 2
    registry.record("epoch", ref="champion", reason="new data", detail={"suite": "dev"})
    assert registry.attempts("champion", "dev") == 0
    attempt("dev")
    assert (registry.attempts("champion", "dev"), registry.attempts("champion", "safety")) == (1, 1)


def test_record_moves_no_ref(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="no event 'promote' to record"):
        make(tmp_path).record("promote", ref="champion", id="aa")


def test_an_event_names_only_verdicts_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="store it first"):
        make(tmp_path).record("verdict", ref="champion", id="aa", verdict="ab" * 32)


def test_objects_are_found_by_their_first_digits(tmp_path: Path) -> None:
    registry = make(tmp_path)
    digest = registry.put({"a": 1})
    assert registry.put({"a": 1}) == digest
    assert registry.get(digest) == registry.get(digest[:4]) == registry.get(f"sha256:{digest}") == {"a": 1}
    for name, message in {
        "ab": "expected 4 to 64 hex digits",
        "f" * 64: "no such object",
        "../../x": "hex digits",
    }.items():
        with pytest.raises(RegistryError, match=message):
            registry.get(name)
    path = tmp_path / "objects" / "sha256" / digest[:2]
    (path / (digest[2:-1] + ("0" if digest[-1] != "0" else "1"))).write_bytes(b"{}")
    with pytest.raises(RegistryError, match="2 objects begin with it"):
        registry.get(digest[:8])


def test_a_damaged_object_is_not_handed_out(tmp_path: Path) -> None:
    registry = make(tmp_path)
    digest = registry.put({"a": 1})
    (tmp_path / "objects" / "sha256" / digest[:2] / digest[2:]).write_bytes(b'{"a":2}')
    with pytest.raises(RegistryError, match="damaged"):
        registry.get(digest)
    with pytest.raises(RegistryError, match="damaged"):
        registry.put({"a": 1})


def test_a_thread_that_holds_the_lock_may_write_and_another_waits(tmp_path: Path) -> None:
    registry = make(tmp_path)
    order: list[str] = []

    def other() -> None:
        make(tmp_path).record("attempt")
        order.append("other")

    thread = threading.Thread(target=other)
    with registry.locked():
        thread.start()
        registry.record("attempt")
        registry.peeks.append("intent", id="aa")
        thread.join(0.1)
        order.append("mine")
    thread.join(5)
    assert order == ["mine", "other"]
    assert len(registry.events()) == 2
    assert [e.event for e in registry.peeks.read()] == ["intent"]
    assert registry.verify() == ()


def test_verify_names_faults_of_every_part(tmp_path: Path) -> None:
    registry = make(tmp_path)
    promote(registry, 0, "aa")
    promote(registry, 1, "bb")
    registry.peeks.append("intent", id="aa")
    registry.peeks.path.write_bytes(registry.peeks.path.read_bytes().replace(b"intent", b"result"))
    (tmp_path / "refs" / "champion.json").unlink()
    (tmp_path / "refs" / "old.json").write_text("{}")
    (tmp_path / "refs" / "anchor.json").write_text("{}")
    manifest = registry.events()[0].detail["manifest"]
    (tmp_path / "objects" / "sha256" / manifest[:2] / manifest[2:]).unlink()
    found = "\n".join(registry.verify(pause_s=0))
    for part in ("peeks.jsonl: line 1", "champion.json: gone", "old.json: not a ref", "anchor.json: no event"):
        assert part in found
    assert f"its manifest {manifest[:12]} is not among the objects" in found
