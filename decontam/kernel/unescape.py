"""Raw JSON strings as the UTF-8 that they stand for."""

from __future__ import annotations

from typing import Any

from numba import njit

from decontam.kernel.words import BACKSLASH, hex4


@njit(cache=True, nogil=True)
def unescape(buf: Any, spans: Any, out: Any, starts: Any, stops: Any) -> Any:
    """Writes the UTF-8 of the raw JSON strings `spans` one after the other, and where each starts and stops; the bytes
    written. Halves of surrogate pairs that stand alone become three bytes, as Python's "surrogatepass" has them."""
    at = 0
    for s in range(spans.shape[0]):
        i, stop = spans[s, 0], spans[s, 1]
        starts[s] = at
        while i < stop:
            c = buf[i]
            if c != BACKSLASH:
                out[at] = c
                at += 1
                i += 1
                continue
            e = buf[i + 1]
            i += 2
            if e != 117:
                control = 10 if e == 110 else 9 if e == 116 else 13 if e == 114 else 8 if e == 98 else 0
                out[at] = control or (12 if e == 102 else e)
                at += 1
                continue
            code = hex4(buf, i)
            i += 4
            if 0xD800 <= code < 0xDC00 and i + 6 <= stop and buf[i] == BACKSLASH and buf[i + 1] == 117:
                second = hex4(buf, i + 2)
                if 0xDC00 <= second < 0xE000:
                    code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00)
                    i += 6
            at = put_code(out, at, code)
        stops[s] = at
    return at


@njit(cache=True, nogil=True)
def put_code(out: Any, at: Any, code: Any) -> Any:
    """Writes a code point as UTF-8; the index after it."""
    if code < 0x80:
        out[at] = code
        return at + 1
    if code < 0x800:
        out[at] = 0xC0 | (code >> 6)
        out[at + 1] = 0x80 | (code & 0x3F)
        return at + 2
    if code < 0x10000:
        out[at] = 0xE0 | (code >> 12)
        out[at + 1] = 0x80 | ((code >> 6) & 0x3F)
        out[at + 2] = 0x80 | (code & 0x3F)
        return at + 3
    out[at] = 0xF0 | (code >> 18)
    out[at + 1] = 0x80 | ((code >> 12) & 0x3F)
    out[at + 2] = 0x80 | ((code >> 6) & 0x3F)
    out[at + 3] = 0x80 | (code & 0x3F)
    return at + 4
