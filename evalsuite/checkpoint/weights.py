"""Safetensors files read without torch: is the file whole, what is in it, its sha256, and is every number finite."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.errors import CheckpointError

MAX_HEADER = 100_000_000  # bytes; the format's own limit
CHUNK = 1 << 20  # bytes per step: the hash and the scan then find it in the processor's cache
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

# The smallest bit pattern that is Inf or NaN, sign bit off. In sign-magnitude formats everything above it is NaN.
NOT_FINITE = {"F64": 0x7FF0 << 48, "F32": 0x7F80_0000, "F16": 0x7C00, "BF16": 0x7F80, "F8_E5M2": 0x7C, "F8_E4M3": 0x7F}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: its bytes are `begin` to `end` of the whole file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What reading a file once says: sha256 in hex, and the first tensor that holds NaN or Inf (empty: none does)."""

    sha256: str
    not_finite: str = ""


def read_tensors(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a safetensors file in file order, from its header alone.

    Raises CheckpointError when the header is torn or makes no sense, or when the file is not exactly as long as the
    header says (the usual sign of a save or a copy that was cut off).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or 8 + length > size or length > MAX_HEADER:
            raise _half_written(path, f"its header is cut off: {size:,} bytes in all")
        raw = file.read(length)
    try:
        tensors = _parse(json.loads(raw), 8 + length)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _half_written(path, f"its header is not a safetensors header ({error})") from error
    expected = tensors[-1].end if tensors else 8 + length
    if size != expected:
        raise _half_written(path, f"{size:,} bytes where its header promises {expected:,}")
    return tensors


def examine_weights(path: Path) -> FileFacts:
    """sha256 and NaN verdict of a safetensors file, in one pass over its bytes. Raises like `read_tensors`.

    Read into one small buffer, not mapped: a file that shrinks meanwhile is an error then, not a bus error.
    """
    import numpy as np

    tensors = read_tensors(path)
    digest = hashlib.sha256()
    not_finite = ""
    buffer = bytearray(CHUNK)
    numbers = np.frombuffer(buffer, dtype=np.uint8)
    with path.open("rb", buffering=0) as file:
        digest.update(file.read(tensors[0].begin if tensors else -1))
        for tensor in tensors:
            for begin in range(tensor.begin, tensor.end, CHUNK):
                size = min(CHUNK, tensor.end - begin)
                if file.readinto(memoryview(buffer)[:size]) != size:
                    raise _half_written(path, "it became shorter while it was read")
                digest.update(memoryview(buffer)[:size])
                if not not_finite and _holds_not_finite(numbers[:size], tensor.dtype):
                    not_finite = tensor.name
    return FileFacts(digest.hexdigest(), not_finite)


def examine_bytes(path: Path) -> FileFacts:
    """sha256 of any file."""
    with path.open("rb") as file:
        return FileFacts(hashlib.file_digest(file, "sha256").hexdigest())


def _parse(header: Mapping[str, Any], start: int) -> tuple[Tensor, ...]:
    tensors = []
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            shape = tuple(int(n) for n in entry["shape"])
            tensors.append(Tensor(name, str(entry["dtype"]), shape, start + int(begin), start + int(end)))
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    at = start
    for tensor in tensors:
        bits = BITS.get(tensor.dtype)
        if tensor.begin != at or tensor.end < at:
            raise ValueError(f"tensor {tensor.name!r} does not start where the one before it ends")
        if bits is not None and (tensor.end - tensor.begin) * 8 != tensor.n_elements * bits:
            raise ValueError(f"tensor {tensor.name!r} has {tensor.end - tensor.begin} bytes for shape {tensor.shape}")
        at = tensor.end
    return tuple(tensors)


def _holds_not_finite(piece: Any, dtype: str) -> bool:
    """Whether any float in these bytes is NaN or Inf, by bit pattern, with no copy.

    As signed integers the largest non-negative float is the largest integer; as unsigned ones the largest negative.
    """
    pattern = NOT_FINITE.get(dtype)
    if pattern is None:
        return False
    width = BITS[dtype] // 8
    sign = 1 << (8 * width - 1)
    return bool(piece.view(f"<i{width}").max() >= pattern or piece.view(f"<u{width}").max() >= pattern + sign)


def _half_written(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: half-written weights, {what}; copy the file again, or take a checkpoint whose save was completed"
    )
