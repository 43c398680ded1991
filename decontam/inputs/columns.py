"""The messages of an Arrow batch as byte ranges of its own buffers, without a Python object for each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from decontam.errors import BrokenRow
from decontam.inputs.ranges import (
    Texts,
    UnusualColumn,
    as_mask,
    is_text,
    is_textless,
    joined_texts,
    no_bytes,
    strings_of,
    taken,
    texts_of,
)
from decontam.row import ASSISTANTS, NOT_TEXT, TAGS, Group
from decontam.select import Selection
from decontam.selectors import Filter, Path

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

SLICE = 100  # rows made into objects at a time


@dataclass(frozen=True, slots=True)
class ArrowMessages:
    """What `Selection.messages` finds in the rows of a batch, row by row and turn by turn.

    Message i is the UTF-8 bytes values[starts[i]:stops[i]]. `broken` has (row in the batch, why). `values` is a view of
    the batch where all texts lie in one buffer: nothing is promised of the bytes after it, see `padded`.
    """

    values: NDArray[np.uint8]
    starts: Ints
    stops: Ints
    row: Ints  # within the batch
    turn: NDArray[np.int32]
    where: NDArray[np.int8]
    broken: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, i: int) -> str:
        """The text of message i."""
        return self.values[self.starts[i] : self.stops[i]].tobytes().decode()

    def padded(self, n: int = 64) -> ArrowMessages:
        """The same with n zero bytes after the values, copied."""
        import numpy as np

        return replace(self, values=np.concatenate([self.values, np.zeros(n, np.uint8)]))


def arrow_messages(selection: Selection, batch: pa.RecordBatch) -> ArrowMessages:
    """The messages of a batch. Columns of unusual types, lists of parts and broken text are read row by row."""
    names = set(batch.schema.names)
    groups = [group for group in selection.groups if not group.paths[0].below or group.paths[0].keys[0] in names]
    groups = groups or list(selection.groups[:1])
    try:
        pieces = [_piece(group, batch) for group in groups]
    except UnusualColumn:
        return _row_by_row(selection, batch)
    return _together(pieces, batch.num_rows)


class _Piece(NamedTuple):
    """The messages of one group; turns count from 0 in each row, of which the group takes `size`."""

    texts: Texts
    row: Ints
    turn: Ints
    where: NDArray[Any]
    size: Ints


class _Items(NamedTuple):
    """The items of a list column in order: row, place in the list, place in `child`; and the length of each list."""

    child: pa.Array
    row: Ints
    at: Ints
    spot: Ints
    size: Ints


def _together(pieces: Sequence[_Piece], n_rows: int) -> ArrowMessages:
    import numpy as np

    first = np.zeros(n_rows, np.int64)
    turns, shifts, shift = [], [], 0
    for piece in pieces:
        turns.append(piece.turn + first[piece.row])
        first += piece.size
    held = [piece for piece in pieces if len(piece.row)]
    values = held[0].texts.values if len(held) == 1 else np.concatenate([p.texts.values for p in held] or [no_bytes()])
    for piece in pieces:
        shifts.append(shift)
        shift += len(piece.texts.values) if len(held) > 1 and len(piece.row) else 0
    row, turn = np.concatenate([piece.row for piece in pieces]), np.concatenate(turns)
    starts = np.concatenate([p.texts.starts + s for p, s in zip(pieces, shifts, strict=True)])
    stops = np.concatenate([p.texts.stops + s for p, s in zip(pieces, shifts, strict=True)])
    where = np.concatenate([p.where for p in pieces])
    order = np.lexsort((turn, row)) if len(held) > 1 else slice(None)
    turn, where = turn[order].astype(np.int32), where[order].astype(np.int8)
    return ArrowMessages(values, starts[order], stops[order], row[order], turn, where)


def _piece(group: Group, batch: pa.RecordBatch) -> _Piece:
    import numpy as np

    for path in group.paths:
        if len(batch.schema.get_all_field_indices(path.keys[0])) > 1:
            raise UnusualColumn  # which of the columns of that name counts is for the row to say
    rows = np.arange(batch.num_rows)
    if len(group.paths) > 1:
        texts = joined_texts([_descend(path, batch)[0] for path in group.paths])
        return _kept(texts, rows, rows * 0, np.full(len(rows), group.where), np.ones_like(rows))
    path = group.paths[0]
    if path.below:
        return _below(path, group.where, batch)
    if path.lists == 0:
        array, where = _descend(path, batch, group.where)
        return _kept(texts_of(array, len(rows)), rows, rows * 0, where, np.ones_like(rows))
    if path.lists > 1 or not path.steps[0].filters:
        raise UnusualColumn
    items = _items(_column(path.keys[0], batch), batch.num_rows)
    array, where = _into(items.child, path.keys[1:], np.full(len(items.child), group.where))
    picked = _picked(items, group.picks)
    texts = taken(texts_of(array, len(items.child)), items.spot[picked])
    return _kept(texts, items.row[picked], items.at[picked], where[items.spot[picked]], items.size)


def _below(path: Path, default: int, batch: pa.RecordBatch) -> _Piece:
    """All texts below a column: of a text, of a list of texts, of a list of structs with one text each."""
    import numpy as np
    import pyarrow as pa

    if len(path.steps) > 1 or path.lists:
        raise UnusualColumn
    array = _column(path.keys[0], batch)
    rows = np.arange(batch.num_rows)
    kind = pa.null() if array is None else array.type
    if is_textless(kind) or is_text(kind):
        texts = texts_of(None if is_textless(kind) else array, len(rows))
        return _kept(texts, rows, rows * 0, np.full(len(rows), default), texts.valid.astype(np.int64))
    items = _items(array, batch.num_rows)
    child, where = items.child, np.full(len(items.child), default)
    if pa.types.is_struct(child.type):
        fields = [child.type.field(i) for i in range(child.type.num_fields)]
        told = [field.name for field in fields if field.name not in NOT_TEXT and not is_textless(field.type)]
        if len(told) != 1:
            raise UnusualColumn
        child, where = _into(child, told, where)
    texts = taken(texts_of(child, len(child)), items.spot)
    found = _kept(texts, items.row, items.at, where[items.spot], items.size)
    size = np.bincount(found.row, minlength=len(rows))
    return found._replace(turn=np.arange(len(found.row)) - (np.cumsum(size) - size)[found.row], size=size)


def _kept(texts: Texts, row: Ints, turn: Ints, where: NDArray[Any], size: Ints) -> _Piece:
    """Without the nulls."""
    valid = texts.valid
    if valid.all():
        return _Piece(texts, row, turn, where, size)
    kept = Texts(texts.values, texts.starts[valid], texts.stops[valid], valid[valid])
    return _Piece(kept, row[valid], turn[valid], where[valid], size)


def _picked(items: _Items, picks: Sequence[tuple[Filter, ...]]) -> Ints:
    """Which items pass all filters of one of the picks, in order."""
    import numpy as np

    kept = []
    for filters in picks:
        left = np.arange(len(items.row))
        for each in filters:
            if each.key:
                left = left[_equal(items.child, each.key, each.value)[items.spot[left]]]
            elif each.index is not None:
                size = np.bincount(items.row[left], minlength=len(items.size))
                place = each.index + size if each.index < 0 else np.full_like(size, each.index)
                inside = (place >= 0) & (place < size)
                left = left[(np.cumsum(size) - size + place)[inside]]
        kept.append(left)
    return kept[0] if len(kept) == 1 else np.unique(np.concatenate(kept))


def _column(name: str, batch: pa.RecordBatch) -> pa.Array | None:
    """The checked column of that name."""
    import pyarrow as pa

    index = batch.schema.get_field_index(name)
    if index < 0:
        return None
    column = batch.column(index)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        raise UnusualColumn from None  # text that is not UTF-8 breaks its row only
    return column


def _descend(path: Path, batch: pa.RecordBatch, default: int = 0) -> tuple[pa.Array | None, NDArray[Any]]:
    import numpy as np

    return _into(_column(path.keys[0], batch), path.keys[1:], np.full(batch.num_rows, default))


def _into(array: pa.Array | None, keys: Sequence[str], where: NDArray[Any]) -> tuple[pa.Array | None, NDArray[Any]]:
    """The field that the keys lead to, null below nulls, None where there is none; and `where` as the structs tell."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    for key in keys:
        if array is None or pa.types.is_null(array.type):
            return None, where
        if not pa.types.is_struct(array.type):
            raise UnusualColumn
        for tag in reversed(TAGS):
            speaker = strings_of(_field(array, tag))
            if speaker is not None:
                assistant = pc.is_in(speaker, pa.array(sorted(ASSISTANTS), speaker.type))
                where = np.where(as_mask(speaker.is_valid()), as_mask(assistant), where)
        array = _field(array, key)
    return array, where


def _field(array: pa.StructArray, key: str) -> pa.Array | None:
    import pyarrow.compute as pc

    if len(array.type.get_all_field_indices(key)) > 1:
        raise UnusualColumn
    index = array.type.get_field_index(key)
    return None if index < 0 else pc.struct_field(array, [index])


def _equal(array: pa.StructArray, key: str, value: str) -> Bools:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    strings = strings_of(_field(array, key)) if pa.types.is_struct(array.type) else None
    if strings is None:
        return np.zeros(len(array), np.bool_)
    return as_mask(pc.equal(strings, pa.scalar(value, strings.type)).fill_null(False))


def _items(array: pa.Array | None, n_rows: int) -> _Items:
    import numpy as np
    import pyarrow as pa

    if array is None or pa.types.is_null(array.type) or not len(array):
        none = np.zeros(0, np.int64)
        return _Items(pa.nulls(0), none, none, none, np.zeros(n_rows, np.int64))
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        raise UnusualColumn
    offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    starts, size = offsets[:-1] - offsets[0], np.diff(offsets)
    if array.null_count:
        size = np.where(as_mask(array.is_valid()), size, 0)  # a null list may still span items
    at = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    child = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    return _Items(child, np.repeat(np.arange(n_rows), size), at, np.repeat(starts, size) + at, size)


def _row_by_row(selection: Selection, batch: pa.RecordBatch) -> ArrowMessages:
    import numpy as np

    batch = batch.select([i for i, name in enumerate(batch.schema.names) if name in selection.columns])
    texts, places, broken = [], [], []
    for number, row in _rows(batch):
        try:
            if row is None:
                raise BrokenRow("its text is not UTF-8")
            for message in selection.messages(row):
                texts.append(message.text.encode())
                places.append((number, message.turn, message.where))
        except BrokenRow as error:
            broken.append((number, str(error)))
    ends = np.cumsum([0, *map(len, texts)])
    rows, turn, where = np.array(places, np.int64).reshape(-1, 3).T
    values = np.frombuffer(b"".join(texts), np.uint8)
    small = turn.astype(np.int32), where.astype(np.int8)
    return ArrowMessages(values, ends[:-1], ends[1:], rows, *small, tuple(broken))


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The rows with their numbers, None for one whose text is not UTF-8."""
    for start in range(0, batch.num_rows, SLICE):
        part = batch.slice(start, SLICE)
        try:
            rows = part.to_pylist()
        except UnicodeDecodeError:
            rows = [_row(part.slice(i, 1)) for i in range(part.num_rows)]
        yield from enumerate(rows, start)


def _row(alone: pa.RecordBatch) -> dict[str, Any] | None:
    try:
        return dict(alone.to_pylist()[0])
    except UnicodeDecodeError:
        return None
