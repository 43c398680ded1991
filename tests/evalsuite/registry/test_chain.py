"""The chain: what was written stays, in its order, and a change of any kind shows."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from evalsuite.errors import RegistryError
from evalsuite.registry.canonical import canonical
from evalsuite.registry.chain import GENESIS, Chain, actor_name


def make(path: Path, n: int = 0) -> Chain:
    chain = Chain(path / "log" / "audit.jsonl", actor="a", host="h")
    for i in range(n):
        chain.append("attempt", ref="champion", detail={"i": i})
    return chain


def test_reading_an_absent_chain_finds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    assert make(tmp_path).read() == ()
    assert make(tmp_path).faults() == ()
    assert list(tmp_path.iterdir()) == []


def test_events_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = make(tmp_path).append("override", verdict="ab", reason="für später", detail={"rows": ({"x": 0.1},)})
    (read,) = make(tmp_path).read()
    assert read == written
    assert read.detail == {"rows": [{"x": 0.1}]}
    assert (read.seq, read.actor, read.host, read.prev_hash) == (1, "a", "h", GENESIS)


def test_the_hash_is_that_of_the_hash_before_and_the_rest(tmp_path: Path) -> None:
    make(tmp_path, 2)
    first, second = (json.loads(line) for line in (tmp_path / "log" / "audit.jsonl").read_bytes().splitlines())
    rest = {name: value for name, value in second.items() if name not in ("prev_hash", "hash")}
    assert second["prev_hash"] == first["hash"]
    assert second["hash"] == hashlib.sha256(first["hash"].encode() + canonical(rest)).hexdigest()


def test_a_chain_that_another_process_appends_to_is_read_on(tmp_path: Path) -> None:
    mine, other = make(tmp_path, 1), make(tmp_path)
    other.append("attempt")
    mine.append("attempt")
    assert [e.seq for e in mine.read()] == [e.seq for e in other.read()] == [1, 2, 3]
    assert mine.faults() == ()


def test_a_line_that_was_taken_back_by_its_writer_is_forgotten_by_readers(tmp_path: Path) -> None:
    writer, reader = make(tmp_path, 1), make(tmp_path)
    written = writer.append("promote", reason="first try")
    assert len(reader.read()) == 2
    writer.retract(written)
    again = writer.append("promote", reason="second try, and a longer line than that which was taken back")
    assert reader.read()[-1] == again
    assert reader.faults() == ()


@pytest.mark.parametrize("by", [timedelta(days=-365), timedelta(0), timedelta(days=365)])
def test_a_clock_that_jumps_changes_no_order(tmp_path: Path, by: timedelta) -> None:
    now = datetime(2025, 6, 1, tzinfo=UTC)
    clock = iter([now, now + by, now + 2 * by])
    chain = Chain(tmp_path / "log.jsonl", clock=lambda: next(clock), actor="a", host="h")
    written = [chain.append("attempt") for _ in range(3)]
    assert chain.read() == tuple(written)
    assert [e.seq for e in written] == [1, 2, 3]
    assert written[1].ts == (now + by).isoformat(timespec="milliseconds")
    assert chain.faults() == ()


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"", "not JSON"),
        (b"[1]", "not JSON"),
        (b"{}", "not an event"),
        (b'{"seq": NaN}', "not an event"),
    ],
)
def test_a_broken_line_before_the_last_is_named_and_refused(tmp_path: Path, line: bytes, what: str) -> None:
    chain = make(tmp_path, 3)
    lines = chain.path.read_bytes().splitlines()
    chain.path.write_bytes(b"\n".join([lines[0], line, lines[2]]) + b"\n")
    with pytest.raises(RegistryError, match=rf"line 2: {what}"):
        make(tmp_path).read()
    with pytest.raises(RegistryError):
        make(tmp_path).append("attempt")
    assert f"line 2: {what}" in make(tmp_path).faults()[0]


def test_an_infinity_in_a_line_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    chain = make(tmp_path, 2)
    chain.path.write_bytes(chain.path.read_bytes().replace(b'"i":0', b'"i":1e999'))
    assert "not canonical JSON" in chain.faults()[0]


def test_a_line_that_was_edited_left_out_or_swapped_is_found(tmp_path: Path) -> None:
    chain = make(tmp_path, 4)
    a, b, c, d = chain.path.read_bytes().splitlines(keepends=True)
    edits = {
        "edited": [a, b.replace(b'"i":1', b'"i":7'), c, d],
        "left out": [a, c, d],
        "swapped": [a, c, b, d],
        "twice": [a, b, b, c, d],
        "spaced": [a, b.replace(b",", b", ", 1), c, d],
        "first gone": [b, c, d],
    }
    for lines in edits.values():
        chain.path.write_bytes(b"".join(lines))
        assert chain.faults() != ()
        with pytest.raises(RegistryError, match=r"audit\.jsonl: line \d"):
            make(tmp_path).read()


def test_a_cut_off_line_is_kept_aside_and_said(tmp_path: Path) -> None:
    chain = make(tmp_path, 2)
    whole = chain.path.read_bytes()
    chain.path.write_bytes(whole[:-10])
    torn = whole.splitlines(keepends=True)[1][:-10]
    assert len(make(tmp_path).read()) == 1
    assert "cut off" in make(tmp_path).faults()[0]
    make(tmp_path).append("attempt")
    first, repair, new = make(tmp_path).read()
    assert (first.seq, repair.event, new.event) == (1, "repair", "attempt")
    assert repair.detail == {"file": "torn-2.bin", "bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}
    assert (tmp_path / "log" / "torn-2.bin").read_bytes() == torn
    assert make(tmp_path).faults() == ()


def test_what_was_cut_off_may_not_change_either(tmp_path: Path) -> None:
    chain = make(tmp_path, 1)
    chain.path.write_bytes(chain.path.read_bytes()[:-1])
    make(tmp_path).repair()
    (tmp_path / "log" / "torn-1.bin").write_bytes(b"something else")
    assert "changed since" in make(tmp_path).faults()[0]
    (tmp_path / "log" / "torn-1.bin").unlink()
    assert "gone" in make(tmp_path).faults()[0]


def test_the_actor_is_who_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALSUITE_ACTOR", "ci-bot")
    assert actor_name() == "ci-bot"
    monkeypatch.delenv("EVALSUITE_ACTOR")
    monkeypatch.setenv("LOGNAME", "kim")
    assert actor_name() == "kim"
