"""Hash tables and bitmaps of an index, built once and mapped by every reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit

from decontam.errors import DecontamError
from decontam.kernel.words import U

Array = np.ndarray[Any, Any]
EMPTY = np.zeros(0, np.uint64)
COUNT_BITS = 20  # of how many entries a key has


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
    """Bits of a first sieve, two of one word a key: about 24 a key, `most` at most (a second cache holds 2^22)."""
    if not keys.size:
        return EMPTY
    bitmap = np.zeros(min(most, power_above(max(4096, 24 * keys.size))) // 64, np.uint64)
    _set_bits(keys, bitmap)
    return bitmap


def by_order(keys: Mapping[int, tuple[Array, Array, Array]], most: int = 1 << 24) -> tuple[Array, Array, Array]:
    """Bitmaps and tables of keys of several orders, each kind in one array: (orders, bitmap, table).

    `keys` has for each number of words the distinct keys, the first entry of each and how many it has. A row of
    `orders` is words of a key, first word of its bitmap, number of its bits - 1, first slot of its table, number of its
    slots - 1; orders without keys have no row. A slot of the table is a key and first << 20 | how many.
    """
    orders = []
    bitmaps, tables = [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.uint64)]
    n_words = n_slots = 0
    for order, (of_order, first, many) in keys.items():
        if not of_order.size:
            continue
        if int(many.max()) >= 1 << COUNT_BITS:
            raise DecontamError(f"more than {1 << COUNT_BITS:,} phrases begin with the same words; use fewer evals")
        bitmap = bitmap_of(of_order, most)
        slots, at = table_of(of_order)
        told = first.astype(np.uint64) << np.uint64(COUNT_BITS) | many.astype(np.uint64)
        orders.append((order, n_words, bitmap.size * 64 - 1, n_slots, slots.size - 1))
        bitmaps.append(bitmap)
        tables.append(np.stack([slots, told[at]], axis=1))
        n_words += bitmap.size
        n_slots += slots.size
    return np.array(orders, np.uint64).reshape(-1, 5), np.concatenate(bitmaps), np.concatenate(tables)


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
        bitmap[bit >> U(6)] |= U(1) << (bit & U(63)) | U(1) << ((keys[i] >> U(34)) & U(63))
