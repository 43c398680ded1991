"""What numba lacks: unaligned eight-byte loads, trailing zeros, set bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic


@intrinsic
def load64(typing: Any, array: Any, index: Any) -> Any:
    """Eight bytes of a uint8 array from `index` on, little-endian, without a check of bounds."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = cgutils.pointer_add(builder, data, arguments[1], ir.IntType(64).as_pointer())
        loaded = builder.load(place, typ=ir.IntType(64))
        loaded.align = 1
        return loaded

    return types.uint64(array, types.int64), generate


@intrinsic
def trailing_zeros(typing: Any, word: Any) -> Any:
    """Number of zero bits below the lowest set one; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def count_ones(typing: Any, word: Any) -> Any:
    """Number of set bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@njit(cache=True, nogil=True, inline="always")
def rotate(word: Any, by: Any) -> Any:
    """`word` rotated left by `by` bits, 0 < by < 64."""
    return (word << np.uint64(by)) | (word >> np.uint64(64 - by))
