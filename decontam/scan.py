"""One shard of training data against an index: its matches, its near-duplicates and what it held.

JSON lines are judged raw by the gate, and only lines that pass, or that are not plainly as expected, are parsed. All
other ways (Arrow columns, joined fields, other analyzers, near-duplicates) judge the decoded messages.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from decontam.errors import BrokenRow
from decontam.index import Index
from decontam.kernel import PADDING
from decontam.match_table import Whose, match_columns, match_table, near_table
from decontam.matcher import Found, Matcher, joined
from decontam.row import id_of
from decontam.shape import Shape, shape_of
from decontam.types import Message, Shard, ShardCounts
from decontam.unparsed import Unparsed, unparsed

if TYPE_CHECKING:
    import pyarrow as pa

    from decontam.inputs import ArrowMessages
    from decontam.job.work import Options
    from decontam.select import Selection

Array = np.ndarray[Any, Any]
BROKEN_NAMED = 20
_OWN = threading.local()


def scan_shard(
    index: Index, selection: Selection, shard: Shard, options: Options
) -> tuple[pa.Table, pa.Table | None, ShardCounts]:
    """(matches, near-duplicates where asked for, counts); see `match_table` and `near_table` for the columns.

    Rows are numbered from the shard's first on. Raises DecontamError where the file cannot be read.
    """
    scan = _Scan(index, selection, shard, options)
    if shard.format in ("parquet", "arrow"):
        scan.batches()
    else:
        scan.lines()
    return scan.tables()


def scan_batch(index: Index, selection: Selection, batch: pa.RecordBatch) -> tuple[pa.Table, tuple[int, ...]]:
    """(matches, broken rows) of a batch that is no part of a file; see `match_table` for the columns."""
    from decontam.job.work import PLAIN

    scan = _Scan(index, selection, Shard(0, "", "", "", "arrow", 0, -1), PLAIN)
    broken = scan.record(batch).broken
    return match_table(scan.found), tuple(row for row, _ in broken)


@dataclass
class _Batch:
    """Messages of parsed rows that wait to be judged, and whose they are. `ids` holds those of rows that have one."""

    texts: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    wheres: list[int] = field(default_factory=list)
    ids: dict[int, str] = field(default_factory=dict)

    def add(self, row: int, offset: int, told: str | None, messages: Sequence[Message]) -> None:
        for turn, where, text in messages:
            self.texts.append(text)
            self.rows.append(row)
            self.offsets.append(offset)
            self.turns.append(turn)
            self.wheres.append(where)
        if told is not None:
            self.ids[row] = told

    def whose(self) -> Whose:
        rows, offsets = np.array(self.rows, np.int64), np.array(self.offsets, np.int64)
        return Whose(rows, offsets, np.array(self.turns, np.int64), np.array(self.wheres, np.int64))


class _Scan:
    """The state of one shard's scan."""

    def __init__(self, index: Index, selection: Selection, shard: Shard, options: Options) -> None:
        self.index, self.selection, self.shard, self.options = index, selection, shard, options
        self.matcher = Matcher(index, options.es_cap) if options.es_cap else _matcher(index)
        self.raw = self.matcher.native and selection.needs is not None and not (options.near or options.es_cap)
        self.near = _near(index) if options.near else None
        self.counts = Counter[str]()
        self.fields = Counter[str]()
        self.broken: list[tuple[int, str]] = []
        self.why = ""
        self.found: list[dict[str, Any]] = []
        self.nears: list[dict[str, Any]] = []

    # -- JSON lines --

    def lines(self) -> None:
        from decontam.inputs import TruncatedInput, read_blocks

        self.matcher.expect(self.selection.needs or (), shape_of(self.selection) if self.raw else Shape())
        try:
            for block in read_blocks(self.shard):
                self._block(block.data, block.length, block.offset)
        except TruncatedInput as error:
            self.why = str(error)

    def _block(self, data: Array, length: int, offset: int) -> None:
        lines, native = self.matcher.lines(data, length), None
        first = self.counts["rows"]
        chosen: Array = np.arange(lines.status.size)
        if self.raw:
            self.matcher.gate_lines(data, length, lines)
            native = unparsed(data, lines)
            chosen = np.flatnonzero((lines.status != 0) & ~native.lines)
        batch = _Batch()
        text = memoryview(data)  # type: ignore[arg-type]
        places = zip(chosen.tolist(), lines.starts[chosen].tolist(), lines.stops[chosen].tolist(), strict=True)
        for line, start, stop in places:
            self._row(first + line, offset + start, text[start:stop], batch)
        self.counts["rows"] += int(lines.status.size)
        self.counts["bytes"] += length
        if native is None or not native.line.size:
            self._judge(batch)
            return
        whose = Whose(first + native.line, offset + lines.starts[native.line], native.turn, native.where)
        found, whose, texts = self._judge_both(native, whose, batch)
        if found.matches.size:
            rows = whose.row[found.matches[:, 0]]
            batch.ids |= {first + line: told for line, told in native.ids(data, lines.ids, rows - first)}
            self.found.append(match_columns(self.index, found, whose, batch.ids, texts))

    def _judge_both(self, native: Unparsed, whose: Whose, batch: _Batch) -> tuple[Found, Whose, Array]:
        """Matches of unparsed and parsed messages in order of their rows, whose the messages are, and their digests."""
        buf, starts, stops = joined(batch.texts)
        shift = native.buf.size
        both = Whose(*(np.concatenate(pair) for pair in zip(whose, batch.whose(), strict=True)))
        order = np.argsort(both.row, kind="stable")
        starts = np.concatenate([native.starts, starts + shift])[order]
        stops = np.concatenate([native.stops, stops + shift])[order]
        both_buf = np.concatenate([native.buf, buf])
        found = self.matcher.judge(both_buf, starts, stops)
        texts = _digests(found, lambda m: both_buf[starts[m] : stops[m]].tobytes())
        return found, Whose(*(each[order] for each in both)), texts

    def _row(self, row: int, offset: int, line: memoryview, batch: _Batch) -> None:
        try:
            parsed = _parse(line)
            messages = self.selection.messages(parsed)
        except BrokenRow as error:
            self._broken(row, str(error))
            return
        self.counts["parsed"] += 1
        if messages:
            batch.add(row, offset, id_of(parsed.get("id")), messages)
        else:
            self._unselected(parsed)

    def _broken(self, row: int, why: str) -> None:
        self.counts["parsed"] += 1
        self.counts["broken"] += 1
        if len(self.broken) < BROKEN_NAMED:
            self.broken.append((row, why))

    def _unselected(self, row: Mapping[str, Any]) -> None:
        self.counts["unselected"] += 1
        self.fields.update(row.keys())

    def _judge(self, batch: _Batch) -> None:
        if not batch.texts:
            return
        found = self.matcher.judge_texts(batch.texts)
        if found.matches.size:
            texts = _digests(found, lambda m: batch.texts[m].encode("utf-8", "surrogatepass"))
            self.found.append(match_columns(self.index, found, batch.whose(), batch.ids, texts))
        if self.near is not None:
            self._find_near(batch)

    def _find_near(self, batch: _Batch) -> None:
        from decontam.near import PROFILES

        assert self.near is not None
        for each in self.near.find(batch.texts, PROFILES[self.options.near]):
            m = each.message
            self.nears.append(
                {
                    "row": batch.rows[m],
                    "offset": batch.offsets[m],
                    "id": batch.ids.get(batch.rows[m]),
                    "turn": batch.turns[m],
                    "where": batch.wheres[m],
                    "inst": each.inst,
                    "score": each.score,
                    "train_from": each.train_from,
                    "train_to": each.train_to,
                    "eval_from": each.eval_from,
                    "eval_to": each.eval_to,
                    "text": _digest(batch.texts[m].encode("utf-8", "surrogatepass")),
                }
            )

    # -- Arrow --

    def batches(self) -> None:
        from decontam.inputs import TruncatedInput, read_batches

        try:
            for record in read_batches(self.shard):
                self.record(record)
        except TruncatedInput as error:
            self.why = str(error)

    def record(self, record: pa.RecordBatch) -> ArrowMessages:
        """Judges the rows of a batch, which count on from those before; its messages."""
        from decontam.inputs import arrow_messages

        messages = arrow_messages(self.selection, record)
        first = self.counts["rows"]
        for row, why in messages.broken:
            self._broken(first + row, why)
        self.counts["rows"] += record.num_rows
        self.counts["parsed"] += record.num_rows - len(messages.broken)
        self.counts["bytes"] += int((messages.stops - messages.starts).sum())
        self._count_unselected(messages, record)
        self._judge_arrow(messages, record, first)
        return messages

    def _count_unselected(self, messages: Any, record: Any) -> None:
        missing = record.num_rows - len(messages.broken) - np.unique(messages.row).size
        if missing:
            self.counts["unselected"] += missing
            columns = zip(record.schema.names, record.columns, strict=True)
            self.fields.update({name: record.num_rows - column.null_count for name, column in columns})

    def _judge_arrow(self, messages: Any, record: Any, first: int) -> None:
        chosen: Array = np.arange(len(messages))
        if self.matcher.native and self.near is None and not self.options.es_cap:
            chosen = self._gated(messages)
        ids = record.column("id") if "id" in record.schema.names else None
        batch = _Batch()
        for m in chosen.tolist():
            row = int(messages.row[m])
            told = id_of(ids[row].as_py()) if ids is not None else None
            message = Message(int(messages.turn[m]), int(messages.where[m]), messages.text(m))
            batch.add(first + row, -1, told, [message])
        self._judge(batch)

    def _gated(self, messages: Any) -> Array:
        """Messages that the gate passes, read where they lie but for those at the very end, which are not padded."""
        safe = messages.stops + PADDING <= messages.values.size
        inside = np.flatnonzero(safe)
        passed = inside[self.matcher.gate_texts(messages.values, messages.starts[inside], messages.stops[inside])]
        return np.sort(np.concatenate([passed, np.flatnonzero(~safe)]))

    # -- results --

    def tables(self) -> tuple[pa.Table, pa.Table | None, ShardCounts]:
        counts = ShardCounts(
            n_rows=self.counts["rows"],
            n_parsed=self.counts["parsed"],
            n_unselected=self.counts["unselected"],
            n_broken=self.counts["broken"],
            n_bytes=self.counts["bytes"],
            broken=tuple(self.broken),
            complete=not self.why,
            why=self.why,
            fields=dict(sorted(self.fields.items())),
        )
        return match_table(self.found), near_table(self.nears) if self.near is not None else None, counts


def _digests(found: Found, text: Callable[[int], bytes]) -> Array:
    """The digest of each match's message."""
    messages, place = np.unique(found.matches[:, 0], return_inverse=True)
    return np.array([_digest(text(m)) for m in messages.tolist()], np.int64)[place]


def _digest(text: bytes) -> int:
    """64 bits by which equal texts are counted once."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def _parse(line: memoryview) -> Any:
    import orjson

    from decontam.inputs import parse_line

    try:
        return orjson.loads(line)
    except ValueError:
        return parse_line(bytes(line))


def _matcher(index: Index) -> Matcher:
    """This thread's matcher of the index."""
    known = getattr(_OWN, "matcher", None)
    if known is None or known.index is not index:
        known = _OWN.matcher = Matcher(index)
    return known


_NEAR: dict[str, Any] = {}
_NEAR_LOADING = threading.Lock()


def _near(index: Index) -> Any:
    """The near-duplicate index beside an index, opened once a process."""
    from decontam.near import NearIndex

    with _NEAR_LOADING:
        if str(index.folder) not in _NEAR:
            _NEAR[str(index.folder)] = NearIndex.load(index.folder / "near")
        return _NEAR[str(index.folder)]
