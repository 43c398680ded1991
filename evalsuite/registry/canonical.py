"""One value, one byte string: the JSON whose sha256 names an object and links an event to the one before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def canonical(obj: Any) -> bytes:
    """UTF-8 JSON, keys sorted, no spaces, shortest round-trip floats. Raises TypeError or ValueError for the rest.

    Refused: NaN and Infinity, keys that are no strings (JSON would make "1" of 1 and of "1"), and types without a JSON
    form. A lone surrogate, as in a file name that is not UTF-8, is written as its `\\udcXX` escape and comes back.
    """
    text = json.dumps(_plain(obj), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def digest(obj: Any) -> str:
    """sha256 of the canonical form, in hex."""
    return hashlib.sha256(canonical(obj)).hexdigest()


def _plain(obj: Any) -> Any:
    if obj is None or isinstance(obj, (str, bool, int, float)):
        return obj
    if isinstance(obj, Mapping):
        for key in obj:
            if not isinstance(key, str):
                raise TypeError(f"a key of canonical JSON is a string, not {key!r}")
        return {key: _plain(value) for key, value in obj.items()}
    if isinstance(obj, Sequence) and not isinstance(obj, (bytes, bytearray, memoryview)):
        return [_plain(value) for value in obj]
    raise TypeError(f"no canonical JSON for {type(obj).__name__}: {obj!r}")
