"""One thread's way to the kernels: its scratch arrays, the gate over a block, the judgement of messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from decontam.index import Index
from decontam.index.arrays import MODES
from decontam.kernel import PADDING
from decontam.kernel.cover import CAPPED, EXACT, UNSURE, cover
from decontam.kernel.gate import gate_lines, gate_spans, gate_texts
from decontam.kernel.jsonl import lines
from decontam.kernel.tables import lower_table, separator_table
from decontam.kernel.words import MASK_ROOM
from decontam.shape import Shape
from decontam.text import spans_of, words_of
from decontam.types import Need

Array = np.ndarray[Any, Any]
NO_SHAPE = Shape()
WORDS, MATCHES = 1, 2  # what cover says is full
LONGEST_WORD = 1 << 12  # bytes of an odd word that are compared; a longer one is in no vocabulary


@dataclass(frozen=True, slots=True)
class Found:
    """Matches of a batch of messages, in order of message and instance.

    A row of `matches` is message, instance, flags, first field, first run, number of runs; of `fields` covered, n,
    covered by uncommon windows, n without common, matched weight, the same uncommon, total weight; of `runs` train
    from, to (characters of the message), field, eval from, to (positions); of `scores` score, capped score, common
    share.
    """

    matches: Array
    fields: Array
    runs: Array
    scores: Array


class Lines(NamedTuple):
    """Start, stop and status (see kernel.jsonl) of each line of a block; the texts to be matched of plain ones, and
    where the ids of their rows stand (see kernel.jsonl.plain_object). All are written over by the next block."""

    starts: Array
    stops: Array
    status: Array
    spans: Array
    ids: Array


class Matcher:
    """Not to be shared between threads."""

    def __init__(self, index: Index, most_hits: int = 0) -> None:
        self.index = index
        self.most_hits = most_hits  # messages in which a phrase counts, in the order they are judged; 0 is all
        self.rule = index.rule
        self.native = self.rule.analyzer == "pattern"  # the gate can read raw JSON
        a = index.arrays
        self._separators, self._lower = separator_table(self.rule.analyzer), lower_table(self.rule.analyzer)
        self._gate = [a[f"gate_{name}"] for name in ("orders", "bitmap", "table", "entries")]
        self._known = [
            *(a[name] for name in ("vocab_table", "vocab_ids", "vocab_starts", "vocab_text")),
            *(a[name] for name in ("orders", "bitmap", "table", "entries")),
            *(
                a[name]
                for name in ("phrase_words", "phrase_common", "kept_starts", "kept_instance", "instances", "fields")
            ),
            *(a[name] for name in ("common_before", "window_phrase", "window_weight")),
        ]
        n_phrases, n_instances = a["phrase_starts"].size - 1, len(a["instances"])
        self._hits = np.zeros(n_phrases if most_hits else 0, np.int32)
        most_fields = int(np.diff(a["instance_fields"]).max(initial=1))
        self._state = [np.zeros(n_phrases // 64 + 1, np.uint64), np.zeros(n_phrases, np.int32)]
        self._state += [np.zeros((n_phrases, 3), np.int64), np.zeros(n_instances // 64 + 1, np.uint64)]
        self._state += [np.zeros(n_instances // 4096 + 1, np.uint64), np.zeros(n_instances, np.int64)]
        self._state.append(np.zeros((max(1, most_fields), 6), np.int64))
        self._lines_room(0)
        self.expect(())
        self._words_room(1 << 16)
        self._matches_room(1 << 14)

    def _words_room(self, room: int) -> None:
        room = 1 << max(16, int(room + 8 - 1).bit_length())
        self._begins, self._ends, self._left, self._ids = (np.zeros(room, np.int32) for _ in range(4))
        self._mask = np.zeros(room + MASK_ROOM, np.uint8)
        self._hashes, self._keys = np.zeros(room, np.uint64), np.zeros(room, np.uint64)
        self._froms, self._tos = np.zeros(room, np.int32), np.zeros(room, np.int32)
        self._side = np.zeros(LONGEST_WORD, np.uint8)

    def _matches_room(self, room: int) -> None:
        self._out = [np.zeros((room, 6), np.int64), np.zeros((room, 3)), np.zeros((4 * room, 7), np.int64)]
        self._out.append(np.zeros((8 * room, 5), np.int32))

    def expect(self, needs: Sequence[Need], shape: Shape = NO_SHAPE) -> None:
        """What raw lines must show of their keys before they may stay unparsed, and where their texts stand."""
        self._needs, self._apart, self._shape = needs_arrays(needs), shape.apart, shape.arrays()

    def lines(self, buf: Array, length: int) -> Lines:
        """The lines of a block that are not blank."""
        counts = np.zeros(2, np.int64)
        while not lines(buf, length, *self._needs, *self._shape, *self._lines, counts):
            self._lines_room(max(1 << 16, 2 * self._lines[0].size))
        n, n_spans = counts
        starts, stops, status, spans, ids = self._lines
        return Lines(starts[:n], stops[:n], status[:n], spans[:n_spans], ids[:n])

    def _lines_room(self, room: int) -> None:
        self._lines: list[Array] = [np.zeros(room, np.int64), np.zeros(room, np.int64), np.zeros(room, np.uint8)]
        self._lines += [np.zeros((room, 5), np.int64), np.zeros((room, 2), np.int64)]

    def gate_lines(self, buf: Array, length: int, found: Lines) -> None:
        """Marks the lines of a raw block that a flagged message could stand in."""
        if not found.status.size:
            return
        scratch = (self._separators, self._lower, found.starts, found.status.size, found.status, *self._gate)
        room = 1
        while room:
            words = (self._mask, self._hashes, self._begins, self._ends, self._keys, self._left, self._side)
            if self._apart:
                room = gate_spans(buf, found.spans, *scratch, *words)
            else:
                room = gate_lines(buf, length, *scratch, *words)
            if room:
                self._words_room(room)

    def gate_texts(self, buf: Array, starts: Array, stops: Array) -> Array:
        """Indices of the decoded texts that could be flagged."""
        passed = np.zeros(starts.size, np.uint8)
        while room := gate_texts(
            buf, starts, stops, self._separators, self._lower, passed, *self._gate,
            self._mask, self._hashes, self._begins, self._ends, self._keys, self._left, self._side,
        ):  # fmt: skip
            self._words_room(room)
        return np.flatnonzero(passed)

    def judge_texts(self, texts: Sequence[str], *, gated: bool = False) -> Found:
        """The matches of messages; `gated` says that the gate has passed them already."""
        words = texts if self.native else [" ".join(words_of(self.rule.analyzer, text)) for text in texts]
        buf, starts, stops = joined(words)
        if self.most_hits or (gated and self.native):
            found = self.judge(buf, starts, stops)
        else:
            passed = self.gate_texts(buf, starts, stops)
            found = self.judge(buf, starts[passed], stops[passed])
            found.matches[:, 0] = passed[found.matches[:, 0]]
        return found if self.native else self._in_characters(found, texts)

    def judge(self, buf: Array, starts: Array, stops: Array) -> Found:
        """The matches of decoded, padded messages."""
        parts: list[tuple[Array, Array, Array, Array]] = []
        counts, text = np.zeros(5, np.int64), 0
        while text < starts.size:
            counts[:] = 0
            text = cover(
                buf, starts, stops, text, self._separators, self._lower, self.native, *self._known,
                MODES[self.rule.score], self.rule.threshold.numerator, self.rule.threshold.denominator,
                self._hits, self.most_hits,
                self._mask, self._hashes, self._begins, self._ends, self._keys, self._left, self._side, self._ids,
                self._froms, self._tos, *self._state,
                self._out[0], self._out[1], self._out[2], self._out[3], counts,
            )  # fmt: skip
            n, n_fields, n_runs, full, room = map(int, counts)
            if n:
                made = (self._out[0][:n], self._out[2][:n_fields], self._out[3][:n_runs], self._out[1][:n])
                parts.append(tuple(array.copy() for array in made))  # type: ignore[arg-type]
            if full == WORDS:
                self._words_room(room)
            elif full == MATCHES and not n:
                self._matches_room(4 * self._out[0].shape[0])
        return self._exactly(_together(parts))

    def _exactly(self, found: Found) -> Found:
        """Decides by fractions what lies so near the threshold that floating point could be wrong."""
        if self.rule.score != "coverage" or not found.matches.size:
            return found
        limit = self.rule.threshold
        close = np.abs(found.scores[:, :2] - float(limit)) < 2 * UNSURE
        close &= (np.diff(np.append(found.matches[:, 3], len(found.fields))) > 1)[:, None]
        gone = []
        for m in np.flatnonzero(close.any(axis=1)):
            first = found.matches[m, 3]
            last = found.matches[m + 1, 3] if m + 1 < len(found.matches) else len(found.fields)
            rows = found.fields[first:last].tolist()
            if not found.matches[m, 2] & EXACT:
                continue
            total = limit * int(self.index.arrays["instance_counted"][found.matches[m, 1]])
            if added(row[:2] for row in rows) <= total:
                gone.append(m)
            elif added(row[2:4] for row in rows) <= total:
                found.matches[m, 2] &= ~CAPPED
            else:
                found.matches[m, 2] |= CAPPED
        if not gone:
            return found
        keep = np.delete(np.arange(len(found.matches)), gone)
        return Found(found.matches[keep], found.fields, found.runs, found.scores[keep])

    def _in_characters(self, found: Found, texts: Sequence[str]) -> Found:
        """Runs whose train offsets count words, as characters of the original messages."""
        for message in np.unique(found.matches[:, 0]):
            spans = spans_of(self.rule.analyzer, texts[message])
            for m in np.flatnonzero(found.matches[:, 0] == message):
                first, n = found.matches[m, 4:6]
                for run in found.runs[first : first + n]:
                    run[0], run[1] = spans[run[0]][0], spans[run[1] - 1][1]
        return found


def added(pairs: Iterable[Sequence[int]]) -> Fraction:
    """The sum over (part, whole) of part / whole, 0 where there is no whole."""
    return sum((Fraction(part, whole) for part, whole in pairs if whole), Fraction(0))


def joined(texts: Sequence[str]) -> tuple[Array, Array, Array]:
    """Padded UTF-8 of the texts one after the other, and where each starts and stops."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    stops = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    buf = np.frombuffer(b"".join([*encoded, bytes(PADDING)]), np.uint8)
    return buf, np.concatenate([np.zeros(1, np.int64), stops[:-1]])[: len(encoded)], stops


def needs_arrays(needs: Sequence[Need]) -> tuple[Array, Array, Array, Array]:
    """Keys and values as bytes, where each stands in them, the allowed first bytes, and which must occur."""
    text, places = b"", np.zeros((len(needs), 4), np.int64)
    follow = np.zeros((len(needs), 257), np.bool_)
    for r, need in enumerate(needs):
        key, value = need.key.encode(), need.value.encode()
        places[r] = np.cumsum([len(text), len(key), 0, len(value)])
        text += key + value
        follow[r, [ord(c) for c in need.follow]] = True
        follow[r, 256] = bool(need.follow)
    required = np.array([need.required for need in needs], np.uint8)
    return np.frombuffer(text + bytes(PADDING), np.uint8), places, follow, required


def _together(parts: Sequence[tuple[Array, Array, Array, Array]]) -> Found:
    if not parts:
        return Found(
            np.zeros((0, 6), np.int64), np.zeros((0, 7), np.int64), np.zeros((0, 5), np.int32), np.zeros((0, 3))
        )
    n_fields = n_runs = 0
    for matches, fields, runs, _ in parts:
        matches[:, 3] += n_fields
        matches[:, 4] += n_runs
        n_fields += len(fields)
        n_runs += len(runs)
    matches, fields, runs, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Found(matches, fields, runs, scores)
