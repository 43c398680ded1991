"""Hash tables and bitmaps of an index, built once and mapped by every reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.words import U

Array = np.ndarray[Any, Any]
EMPTY = np.zeros(0, np.uint64)


def power_above(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def table_of(keys: Array) -> tuple[Array, Array]:
    """Open-addressing table of distinct keys, at most half full, and the index of the key in each used slot."""
    if not keys.size:
        return EMPTY, np.zeros(0, np.uint32)
    table = np.zeros(power_above(2 * keys.size), np.uint64)
    values = np.zeros(table.size, np.uint32)
    _insert(keys, table, values)
    return table, values


def bitmap_of(keys: Array, most: int = 1 << 24) -> Array:
    """Bits of a first sieve: about 24 a key, `most` at most (2^22 bits are 512 KiB, which a second cache holds)."""
    if not keys.size:
        return EMPTY
    bitmap = np.zeros(min(most, power_above(max(4096, 24 * keys.size))) // 64, np.uint64)
    _set_bits(keys, bitmap)
    return bitmap


def by_order(keys: Mapping[int, tuple[Array, Array]], most: int = 1 << 24) -> tuple[Array, Array, Array, Array]:
    """Bitmaps and tables of keys of several orders, each kind in one array: (orders, bitmap, table, values).

    `keys` has for each number of words the distinct keys and a value of each. A row of `orders` is words of a key,
    first word of its bitmap, number of its bits - 1, first slot of its table, number of its slots - 1; orders without
    keys have no row.
    """
    orders, bitmaps, tables, values = [], [], [], []
    n_words = n_slots = 0
    for order, (of_order, told) in keys.items():
        if not of_order.size:
            continue
        bitmap = bitmap_of(of_order, most)
        table, at = table_of(of_order)
        orders.append((order, n_words, bitmap.size * 64 - 1, n_slots, table.size - 1))
        bitmaps.append(bitmap)
        tables.append(table)
        values.append(told.astype(np.uint32)[at])
        n_words += bitmap.size
        n_slots += table.size
    rows = np.array(orders, np.uint64).reshape(-1, 5)
    joined = (
        np.concatenate([*parts, np.zeros(0, kind)]) for parts, kind in ((bitmaps, np.uint64), (tables, np.uint64))
    )
    return rows, *joined, np.concatenate([*values, np.zeros(0, np.uint32)])


@njit(cache=True, nogil=True)
def _insert(keys: Any, table: Any, values: Any) -> None:
    mask = U(table.size - 1)
    for i in range(keys.size):
        slot = (keys[i] >> U(20)) & mask
        while table[slot]:
            slot = (slot + U(1)) & mask
        table[slot] = keys[i]
        values[slot] = i


@njit(cache=True, nogil=True)
def _set_bits(keys: Any, bitmap: Any) -> None:
    mask = U(bitmap.size * 64 - 1)
    for i in range(keys.size):
        bit = (keys[i] >> U(40)) & mask
        bitmap[bit >> U(6)] |= U(1) << (bit & U(63))
