"""Texts of an Arrow column as ranges of its bytes, for every type of text that Arrow has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


class UnusualColumn(Exception):
    """A column that has no fast way."""


class Texts(NamedTuple):
    """Byte ranges of the texts of a column, and which are not null."""

    values: NDArray[np.uint8]
    starts: Ints
    stops: Ints
    valid: Bools


def texts_of(array: pa.Array | None, n: int) -> Texts:
    """The n texts of an array of any type of text, of which None has none."""
    import numpy as np
    import pyarrow as pa

    if array is None or pa.types.is_null(array.type):
        return Texts(no_bytes(), np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.bool_))
    if pa.types.is_dictionary(array.type) and is_text(array.type):
        words = texts_of(array.dictionary, len(array.dictionary))
        valid = as_mask(array.indices.is_valid())
        index = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
        texts = taken(words, index) if len(words.starts) else texts_of(None, n)
        return texts._replace(valid=texts.valid & valid)
    if not is_text(array.type):
        raise UnusualColumn
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    _, offsets, data = array.buffers()
    width = np.int64 if pa.types.is_large_string(array.type) else np.int32
    ends = np.zeros(1, width) if offsets is None or not offsets.size else np.frombuffer(offsets, width)
    ends64: Ints = ends[array.offset : array.offset + n + 1].astype(np.int64)
    values = no_bytes() if data is None else np.frombuffer(data, np.uint8)
    valid = as_mask(array.is_valid()) if array.null_count else np.ones(n, np.bool_)
    return Texts(values, ends64[:n], ends64[1:], valid)


def joined_texts(arrays: Sequence[pa.Array | None]) -> Texts:
    """The texts that are not empty, joined by newline; null where all are null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    held = [array for array in arrays if array is not None and not pa.types.is_null(array.type)]
    whole = [each.cast(pa.large_string()) for each in map(strings_of, held) if each is not None]
    if not whole or len(whole) < len(held):
        raise UnusualColumn
    empty, none = pa.scalar("", pa.large_string()), pa.scalar(None, pa.large_string())
    told = [pc.if_else(pc.equal(each, empty), none, each) for each in whole]
    # A row of nulls alone is left out of the join of pyarrow 26, so that the rows after it would move up.
    told[0] = pc.coalesce(told[0], pc.if_else(pc.is_null(pc.coalesce(*told)), empty, none))
    joined = pc.binary_join_element_wise(*told, pa.scalar("\n", pa.large_string()), null_handling="skip")
    valid = np.logical_or.reduce([as_mask(each.is_valid()) for each in whole])
    return texts_of(joined, len(joined))._replace(valid=valid)


def taken(texts: Texts, index: Ints) -> Texts:
    return Texts(texts.values, texts.starts[index], texts.stops[index], texts.valid[index])


def strings_of(array: pa.Array | None) -> pa.Array | None:
    """An array of text as one that can be compared; None for other types."""
    import pyarrow as pa

    if array is None or not is_text(array.type):
        return None
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.large_string()) if pa.types.is_string_view(array.type) else array


def is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_textless(kind: pa.DataType) -> bool:
    """Whether values of this type have no text below them."""
    import pyarrow as pa

    return bool(pa.types.is_null(kind) or (pa.types.is_primitive(kind)))


def as_mask(array: pa.Array) -> Bools:
    found: Bools = array.to_numpy(zero_copy_only=False)
    return found


def no_bytes() -> NDArray[np.uint8]:
    import numpy as np

    return np.zeros(0, np.uint8)
