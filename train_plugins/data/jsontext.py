"""Rows as JSON bytes that do not depend on which library made them."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

try:
    import orjson
except ImportError:  # slower, and the same bytes
    orjson = None  # type: ignore[assignment]

_PLAIN = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
# Keys in order: equal content has equal bytes, whichever file it came from.
_SORTED = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str).encode
_TEXT = frozenset({str})
_ALIKE = frozenset({str, bool, type(None)})


def row_bytes(row: Any, texts_only: bool = False) -> bytes:
    """One line: keys as they come, no spaces, no escapes but those JSON asks for.

    Raises ValueError for a surrogate or a number that is none, TypeError for what JSON does not have.

    `texts_only` promises that there is no number in it, which saves looking.
    """
    if orjson is not None and (texts_only or is_alike(row)):
        try:
            line: bytes = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
            return line
        except TypeError:  # a lone surrogate, a key that is no text
            pass
    return plain_row_bytes(row)


def content_bytes(content: Any, texts_only: bool = False) -> bytes:
    """The same with keys in order, for digests; takes everything."""
    if orjson is not None and (texts_only or is_alike(content)):
        try:
            line: bytes = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
            return line
        except TypeError:
            pass
    return plain_content_bytes(content)


def plain_row_bytes(row: Any) -> bytes:
    """What `row_bytes` gives, by the standard library alone."""
    return f"{_PLAIN(row)}\n".encode()


def plain_content_bytes(content: Any) -> bytes:
    return _SORTED(content).encode("utf-8", "surrogatepass")


def is_alike(value: Any) -> bool:
    """Whether both libraries write a value alike: they differ in numbers, large ones and fractions."""
    kind = type(value)
    if kind is list:
        try:  # messages: all of it in one loop without a frame
            if _TEXT.issuperset(map(type, chain.from_iterable(map(dict.values, value)))):
                return True
        except TypeError:
            pass
        return all(map(is_alike, value))
    if kind is dict:
        return all(type(each) is str or is_alike(each) for each in value.values())
    return kind in _ALIKE or (kind is int and -(2**53) < value < 2**53)
