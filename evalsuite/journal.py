"""Append-only store of what engines answered: the only thing a crash has to leave behind.

`<root>/<checkpoint digest 12>/<benchmark>/<segment>.jsonl`. A segment is written by one process; its first line is a
header, every other line one finished answer. A line is one `write` on an O_APPEND descriptor the moment the answer
arrives, so `kill -9` loses only what was in flight; `fsync` once a second bounds what a power cut loses. An answer is
found again by its key (see `KeyMaker`), never by a name or a path.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from evalsuite.errors import DiskFull, JournalError
from evalsuite.types import Failed, GenerateRequest, Likelihoods, LogLikelihood, LoglikRequest, Response, Sampling

SCHEMA = 1
Answer = Response | Likelihoods
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Stored:
    """What a journal holds for one key; `failed` answers are asked for again on resume."""

    answer: Answer
    failed: bool


@dataclass(frozen=True, slots=True)
class Opening:
    """What was found when a journal was opened, for the line a user sees on resume."""

    n_answers: int
    n_failed: int
    n_conflicts: int
    torn: tuple[str, ...]


class KeyMaker:
    """Makes the keys of one benchmark on one checkpoint: everything that an answer depends on, and nothing else.

    blake2b-128 over schema, checkpoint content digest, prompt-side benchmark digest, engine fingerprint, sample id and
    number, and the request (kind, exact prompt, options, sampling with seed, stops). Fields are length-delimited.
    """

    def __init__(self, checkpoint: str, benchmark: str, fingerprint: Mapping[str, str]) -> None:
        self._base = blake2b(digest_size=16)
        self._add(self._base, str(SCHEMA), checkpoint, benchmark, json.dumps(dict(fingerprint), sort_keys=True))
        self._sampling: dict[Sampling, str] = {}

    def key(self, sample: str, number: int, request: GenerateRequest | LoglikRequest) -> str:
        digest = self._base.copy()
        if isinstance(request, GenerateRequest):
            prompt, settings = request.prompt, repr(request.sampling)
            self._add(digest, "generate", sample, str(number), prompt.text, prompt.prefill, settings)
            digest.update(b"\1" if prompt.chat else b"\0")
            if request.top_logprobs:  # not said otherwise: keys of older journals stay what they are
                self._add(digest, f"top {request.top_logprobs}")
            if request.json_schema:
                self._add(digest, f"schema {request.json_schema}")
        else:
            prompt = request.context
            self._add(digest, "loglikelihood", sample, str(number), prompt.text, *request.options)
            digest.update(b"\1" if prompt.chat else b"\0")
        return digest.hexdigest()

    @staticmethod
    def _add(digest: Any, *parts: str) -> None:
        for part in parts:
            data = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:" % len(data))
            digest.update(data)


class Journal:
    """The answers of one benchmark on one checkpoint. Use as a context manager; it holds the folder's lock.

    `fresh` starts over: nothing stored counts any more, for this run and later ones. `again` does not know what is
    stored either, but only what it appends takes the place of a stored answer: for journals that several runs share.
    Raises JournalError when another process holds the lock (`wait=False`) or a file cannot be understood, and DiskFull
    when a line does not fit; then the journal is valid up to the last full line.
    """

    def __init__(
        self,
        folder: Path,
        header: Mapping[str, Any],
        *,
        wait: bool = True,
        fresh: bool = False,
        again: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder = folder
        self._header = dict(header)
        self._say = say
        self._fd: int | None = None
        self._synced = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder, wait, say)
        try:
            self._answers, self.opening, (oldest, newest), self._environments = _read(folder, say)
        except BaseException:
            os.close(self._lock)
            raise
        self._generation = newest + 1 if (fresh or again) and self._answers else newest
        self._since = self._generation if fresh else oldest
        if fresh or again:
            self._answers, self._environments = {}, []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, key: str) -> Stored | None:
        return self._answers.get(key)

    def describe(self, environment: Mapping[str, str]) -> None:
        """Says how the answers to come are made (device, scoring level); goes into this segment's header."""
        self._header["environment"] = dict(environment)

    def described(self) -> dict[str, list[str]]:
        """Every environment that answers of this journal were made in: fact to its values, more than one if mixed."""
        environments = [*self._environments, *([self._header.get("environment", {})] if self._fd is not None else [])]
        names = sorted({name for e in environments for name in e})
        return {name: sorted({str(e[name]) for e in environments if name in e}) for name in names}

    def append(self, key: str, sample: str, number: int, answer: Answer) -> None:
        """Writes one answer; after this returns, a killed process does not lose it."""
        line = {"key": key, "id": sample, "k": number, **_to_raw(answer)}
        self._write(line)
        self._answers[key] = Stored(answer, _is_failed(answer))

    def close(self) -> None:
        """Syncs and releases the lock. Idempotent."""
        if self._fd is not None:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._fd is None:
            self._fd = self._new_segment()
        data = _encode(line)
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            if error.errno in _FULL:
                raise self._full(0) from error
            raise
        if written < len(data):
            raise self._full(written)
        now = time.monotonic()
        if now - self._synced > 1.0:
            os.fsync(self._fd)
            self._synced = now

    def _full(self, written: int) -> DiskFull:
        if written and self._fd is not None:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
        return DiskFull(f"{self.folder}: no room to write the journal; free some space and run the same command again")

    def _new_segment(self) -> int:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"{stamp}-{socket.gethostname()[:20]}-{os.getpid()}-{os.urandom(2).hex()}.jsonl"
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        self._fd = fd
        generations = {"generation": self._generation, "since": self._since}
        self._write({"header": self._header, "schema": SCHEMA, **generations})
        return fd


# -- reading --


def _lock(folder: Path, wait: bool, say: Callable[[str], None]) -> int:
    fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd
    except OSError:
        if not wait:
            os.close(fd)
            raise JournalError(
                f"{folder}: in use by another evalsuite process; wait for it, or drop --no-wait to queue behind it"
            ) from None
    say(f"{folder}: in use by another evalsuite process; waiting for it to finish")
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


@dataclass(frozen=True, slots=True)
class _Segment:
    """`since` is the oldest generation that counted when this segment was begun."""

    generation: int
    since: int
    environment: Mapping[str, str]
    answers: list[tuple[str, Stored]]
    torn: str


def _read(
    folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, Stored], Opening, tuple[int, int], list[Mapping[str, str]]]:
    """(answers, what was found, oldest and newest generation that count, environments).

    An answer of a newer generation takes the place of an older one, even a failed one: it was asked for again. Within
    a generation the first that is not failed counts, and others that differ are conflicts.
    """
    segments = [s for path in sorted(folder.glob("*.jsonl")) if (s := _read_segment(path, say)) is not None]
    oldest = max((s.since for s in segments), default=0)
    current = sorted((s for s in segments if s.generation >= oldest), key=lambda s: s.generation)
    found: dict[str, tuple[int, Stored]] = {}
    conflicts = 0
    for segment in current:
        for key, stored in segment.answers:
            generation, known = found.get(key, (-1, stored))
            if generation < segment.generation or known.failed:
                found[key] = segment.generation, stored
            elif not stored.failed and stored.answer != known.answer:
                conflicts += 1
    answers = {key: stored for key, (_, stored) in found.items()}
    failed = sum(s.failed for s in answers.values())
    opening = Opening(len(answers) - failed, failed, conflicts, tuple(s.torn for s in segments if s.torn))
    newest = max((s.generation for s in current), default=oldest)
    return answers, opening, (oldest, newest), [s.environment for s in current if s.answers]


def _read_segment(path: Path, say: Callable[[str], None]) -> _Segment | None:
    data = path.read_bytes()
    torn = ""
    if not data.endswith(b"\n"):
        # Written by a process that was killed in the middle of a line. We hold the lock, so nobody else is writing.
        keep = data.rfind(b"\n") + 1
        torn = path.name
        say(f"{path}: the last line was cut off by a crash; removed {len(data) - keep} bytes, it is asked again")
        os.truncate(path, keep)
        data = data[:keep]
    lines = data.split(b"\n")[:-1]
    if not lines:
        path.unlink()
        return None
    header = _parse(path, 1, lines[0])
    if "header" not in header:
        raise JournalError(f"{path}: line 1: expected the segment's header; move the file away to go on without it")
    if header.get("schema") != SCHEMA:
        raise JournalError(
            f"{path}: journal schema {header.get('schema')!r}, this version reads {SCHEMA}; use a new --results"
        )
    found = []
    for number, line in enumerate(lines[1:], 2):
        raw = _parse(path, number, line)
        try:
            answer = _from_raw(raw)
            found.append((raw["key"], Stored(answer, _is_failed(answer))))
        except (KeyError, TypeError, ValueError) as error:
            raise JournalError(f"{path}: line {number}: not an answer ({type(error).__name__}: {error})") from error
    environment = header["header"].get("environment", {})
    generation = int(header.get("generation", 0))
    return _Segment(generation, int(header.get("since", generation)), environment, found, torn)


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise JournalError(
            f"{path}: line {number}: not JSON ({error}); move the file away to go on without it"
        ) from error
    if not isinstance(raw, dict):
        raise JournalError(f"{path}: line {number}: expected a JSON object")
    return raw


# -- one line --


def _encode(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


def _is_failed(answer: Answer) -> bool:
    return isinstance(answer, Failed) or (isinstance(answer, Response) and answer.finish == "error")


def _to_raw(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Failed):
        return {"kind": "ll", "why": answer.why}
    if isinstance(answer, Response):
        raw: dict[str, Any] = {"kind": "gen", "text": answer.text, "finish": answer.finish, "n_tokens": answer.n_tokens}
        extra = {"thinking": answer.thinking, "why": answer.why, "shrunk": answer.shrunk}
        raw |= {k: v for k, v in extra.items() if v}
        if answer.tokens is not None:
            raw |= {"tokens": answer.tokens, "logprobs": answer.logprobs}
        return raw | ({"top": answer.top} if answer.top else {})
    return {"kind": "ll", "options": [[o.total, o.greedy, o.n_tokens] for o in answer]}


def _from_raw(raw: Mapping[str, Any]) -> Answer:
    if raw["kind"] == "gen":
        return Response(
            raw["text"],
            raw["finish"],
            raw["n_tokens"],
            _tuple(raw.get("tokens")),
            _tuple(raw.get("logprobs")),
            raw.get("thinking", ""),
            raw.get("why", ""),
            raw.get("shrunk", False),
            tuple((str(token), float(value)) for token, value in raw.get("top", ())),
        )
    if "options" not in raw:
        return Failed(raw["why"])
    return tuple(LogLikelihood(float(total), bool(greedy), int(n)) for total, greedy, n in raw["options"])


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
