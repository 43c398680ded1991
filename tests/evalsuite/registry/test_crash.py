"""kill -9 at every step, lines cut at every byte, bits that flip: recovered, or refused and named."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evalsuite.errors import RegistryError
from evalsuite.registry import FAULTS, Registry
from evalsuite.registry.refs import content
from tests.evalsuite.registry.places import contents, in_child, killed_at, make, memory_folder, promote

NO_OBJECT = {"object-write", "object-fsync", "object-rename"}
NO_REF = {"ref-write", "ref-fsync", "ref-rename"}
# what is killed -> the points that it never passes
ACTIONS: dict[str, tuple[Callable[[Registry], object], set[str]]] = {
    "promote": (lambda registry: promote(registry, 2, "cc"), set()),
    "rollback": (lambda registry: registry.rollback("champion", to=None, reason="x"), NO_OBJECT),
    "attempt": (lambda registry: registry.record("attempt", ref="champion"), NO_OBJECT | NO_REF),
    "put": (lambda registry: registry.put({"new": 1}), {"event-write", "event-fsync", *NO_REF}),
}


@pytest.fixture
def root() -> Iterator[Path]:
    with memory_folder() as folder:
        yield folder


def two_generations(root: Path) -> Registry:
    registry = make(root)
    promote(registry, 0, "aa")
    promote(registry, 1, "bb")
    return registry


@pytest.mark.parametrize("point", FAULTS)
@pytest.mark.parametrize("name", ACTIONS)
def test_a_writer_killed_at_any_step_leaves_a_registry_that_is_whole_and_goes_on(
    root: Path, name: str, point: str
) -> None:
    action, never = ACTIONS[name]
    n = len(two_generations(root).events())
    assert killed_at(point, lambda: action(make(root))) == (point not in never)
    registry = make(root)
    assert registry.verify(pause_s=0) == ()
    written = registry.events()[n:]
    assert [e.event for e in written] in ([], [name])
    registry.record("attempt")  # the next command recovers first
    champion, last = registry.ref("champion"), [e for e in registry.events() if e.generation][-1]
    assert champion is not None
    assert (champion.generation, champion.id, champion.event_hash) == (last.generation, last.id, last.hash)
    assert promote(registry, champion.generation, "dd").generation == champion.generation + 1
    assert registry.verify(pause_s=0) == ()
    assert list(root.rglob("*.part")) == []


@pytest.mark.parametrize("point", FAULTS)
def test_the_very_first_promotion_may_be_killed_too(root: Path, point: str) -> None:
    assert killed_at(point, lambda: promote(make(root), 0, "aa"))
    registry = make(root)
    assert registry.verify(pause_s=0) == ()
    registry.record("attempt")
    champion = registry.ref("champion")
    happened = FAULTS.index(point) >= FAULTS.index("event-write")
    assert (champion.generation if champion else 0) == int(happened)
    promote(registry, int(happened), "bb")
    assert registry.verify(pause_s=0) == ()


@pytest.mark.parametrize("point", ["event-write", "event-fsync"])
def test_a_repair_may_be_killed_and_is_still_said_once(root: Path, point: str) -> None:
    registry = two_generations(root)
    registry.record("attempt")
    log = root / "log" / "audit.jsonl"
    log.write_bytes(log.read_bytes()[:-7])
    assert killed_at(point, lambda: make(root).record("attempt"))
    make(root).record("attempt")
    assert [e.event for e in make(root).events()] == ["promote", "promote", "repair", "attempt"]
    assert make(root).verify(pause_s=0) == ()


def test_a_cut_line_whose_repair_was_not_said_yet_is_said_by_the_next_writer(root: Path) -> None:
    two_generations(root)
    (root / "log" / "torn-3.bin").write_bytes(b'{"actor"')  # saved and cut, then killed
    said: list[str] = []
    Registry(root, say=said.append).record("attempt")
    assert [e.event for e in make(root).events()] == ["promote", "promote", "repair", "attempt"]
    assert "kept in torn-3.bin" in said[0]


def test_the_log_may_be_cut_at_every_byte_of_its_last_two_lines(root: Path) -> None:
    registry = two_generations(root / "whole")
    log = root / "whole" / "log" / "audit.jsonl"
    registry.record("attempt", ref="champion", detail={"suite": "dev", "claim": True})
    kept = len(log.read_bytes())
    registry.record("attempt")
    middle = len(log.read_bytes())
    ref = (root / "whole" / "refs" / "champion.json").read_bytes()
    promote(registry, 2, "cc")
    (root / "whole" / "refs" / "champion.json").write_bytes(ref)  # the promotion was never finished
    whole = log.read_bytes()
    for size in range(kept, len(whole)):
        log.write_bytes(whole[:size])
        torn = size not in (kept, middle)
        after = make(root / "whole")
        after.record("attempt")
        left = 4 if size >= middle else 3
        assert [e.event for e in after.events()[left:]] == (["repair", "attempt"] if torn else ["attempt"]), size
        champion = after.ref("champion")
        assert champion is not None
        assert champion.generation == 2
        if size % 10 == 0:
            assert after.verify(pause_s=0) == (), size
        for saved in log.parent.glob("torn-*.bin"):
            assert saved.read_bytes() == whole[middle if size >= middle else kept : size]
            saved.unlink()


def test_a_log_that_was_cut_below_its_refs_is_refused_and_left_as_it_is(root: Path) -> None:
    registry = two_generations(root / "whole")
    log = root / "whole" / "log" / "audit.jsonl"
    whole = log.read_bytes()
    for size in [0, 1, *range(len(whole) - 300, len(whole), 5), len(whole) - 1]:
        log.write_bytes(whole[:size])
        before = contents(root)
        with pytest.raises(RegistryError, match=r"champion\.json: its event 2 .* is not in the log"):
            make(root / "whole").record("attempt")
        assert contents(root) == before
        assert registry.verify(pause_s=0) != ()
    log.unlink()
    with pytest.raises(RegistryError, match="the log was cut or replaced"):
        promote(make(root / "whole"), 2)


def test_a_ref_that_fell_behind_is_rolled_forward_and_said(root: Path) -> None:
    registry = two_generations(root)
    ref = root / "refs" / "champion.json"
    old = content(type(registry.refs()["champion"])("aa", 1, 1, registry.events()[0].hash))
    newest = ref.read_bytes()
    for stale in (old, None):
        ref.unlink() if stale is None else ref.write_bytes(stale)
        said: list[str] = []
        Registry(root, say=said.append).record("attempt")
        assert ref.read_bytes() == newest
        assert "rolled forward to generation 2" in said[0]


def test_a_damaged_ref_is_refused_and_comes_back_from_the_log_when_it_is_moved_away(root: Path) -> None:
    registry = two_generations(root)
    ref = root / "refs" / "champion.json"
    whole = ref.read_bytes()
    ref.write_bytes(whole[:-3])
    for use in (registry.refs, lambda: registry.record("attempt")):
        with pytest.raises(RegistryError, match=r"champion\.json: damaged; move the file away"):
            use()
    ref.unlink()
    registry.record("attempt")
    assert ref.read_bytes() == whole


def test_every_flipped_bit_is_found(root: Path) -> None:
    registry = two_generations(root)
    verdict = registry.put({"outcome": "promote", "findings": [0.1, "ü"]})
    registry.record("verdict", ref="champion", id="cc", verdict=verdict)
    promote(registry, 2, "cc")
    registry.peeks.append("intent", id="cc")
    assert registry.verify() == ()
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != "lock")
    places = [(path, offset) for path in files for offset in range(path.stat().st_size)]
    draw = random.Random(20)
    for path, offset in draw.sample(places, 200):
        whole = path.read_bytes()
        bit = draw.randrange(8)
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1 << bit]) + whole[offset + 1 :])
        assert make(root).verify(pause_s=0) != (), f"{path} byte {offset} bit {bit}"
        path.write_bytes(whole)
    assert make(root).verify(pause_s=0) == ()


@pytest.mark.slow
def test_a_thousand_kills_at_random_moments_leave_the_registry_whole() -> None:
    draw = random.Random(4)
    with memory_folder() as folder:
        root = folder / "registry"
        promote(make(root), 0, "aa")

        def promote_for_ever() -> None:
            registry = make(root)
            while True:
                current = registry.ref("champion")
                promote(registry, current.generation if current else 0, f"{time.monotonic_ns():x}")

        for n in range(1000):
            pid = os.fork()
            if pid == 0:
                in_this_process(promote_for_ever)
            time.sleep(draw.uniform(0.001, 0.012))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if n % 100 == 0:
                make(root).record("attempt")
                assert make(root).verify(pause_s=0) == ()
                shutil.rmtree(root)
                promote(make(root), 0, "aa")
        make(root).record("attempt")
        assert make(root).verify(pause_s=0) == ()


def in_this_process(action: Callable[[], object]) -> None:
    try:
        action()
    finally:
        os._exit(1)


def test_a_process_without_a_fault_in_its_environment_is_not_killed(root: Path) -> None:
    assert in_child(lambda: promote(make(root), 0)) == 0
    assert killed_at("event-fsync:2", lambda: promote(make(root), 1)) is False
