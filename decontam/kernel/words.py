"""Words of a text and their 64-bit hashes, from decoded UTF-8 or straight from a raw JSON line.

A word is a run of bytes that are no separators, lower-cased code point by code point; its hash is over those UTF-8
bytes, eight at a time. In raw mode the text is JSON: escapes of separators separate, all others are part of a word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.bits import load64, rotate, trailing_zeros
from decontam.text import SEPARATORS

U = np.uint64
SEED, PRIME, FINAL = U(0x9E3779B97F4A7C15), U(0xD6E8FEB86659FD93), U(0xCA5A826395121157)
HIGHS, LOW7 = U(0x8080808080808080), U(0x7F7F7F7F7F7F7F7F)
TO_A, TO_Z = U(0x3F3F3F3F3F3F3F3F), U(0x2525252525252525)  # 0x80 - 'A', 0x7f - 'Z'
MASKS = np.array([(1 << (8 * n)) - 1 for n in range(8)] + [0xFFFFFFFFFFFFFFFF], np.uint64)  # of the first n bytes
BACKSLASH, QUOTE = 92, 34
SPACE = np.uint8(32)
S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11, S12 = (np.uint8(ord(c)) for c in SEPARATORS if c != " ")
MASK_ROOM = 128  # bytes of the mask beyond the text
PACK = U(0x0102040810204080)  # gathers the lowest bits of eight bytes in the highest byte
STEP = 13  # bits by which each word of a window is turned before the sum


@njit(cache=True, nogil=True, inline="always")
def lower8(word: Any) -> Any:
    """Eight ASCII bytes with A–Z lowered, all at once."""
    low = word & LOW7
    upper = ((low + TO_A) ^ (low + TO_Z)) & ~word & HIGHS
    return word | (upper >> U(2))


@njit(cache=True, nogil=True, inline="always")
def mix(state: Any, chunk: Any) -> Any:
    state = (state ^ chunk) * PRIME
    return state ^ (state >> U(32))


@njit(cache=True, nogil=True, inline="always")
def finish(state: Any, length: Any) -> Any:
    state = (state ^ U(length)) * FINAL
    return state ^ (state >> U(29))


@njit(cache=True, nogil=True, inline="always")
def hex_value(byte: Any) -> Any:
    """0–15, or -1 for a byte that is no hexadecimal digit."""
    if 48 <= byte <= 57:
        return byte - 48
    if 97 <= byte <= 102:
        return byte - 87
    if 65 <= byte <= 70:
        return byte - 55
    return -1


@njit(cache=True, nogil=True)
def hex4(buf: Any, at: Any) -> Any:
    """The code unit of four hexadecimal digits, -1 where one of them is none."""
    value = 0
    for i in range(at, at + 4):
        digit = hex_value(np.int64(buf[i]))
        if digit < 0:
            return -1
        value = value * 16 + digit
    return value


@njit(cache=True, nogil=True)
def decode(buf: Any, i: Any, end: Any) -> Any:
    """(code point, bytes used) of UTF-8 at i; an invalid byte is a code point of its own above Unicode's."""
    c = np.int64(buf[i])
    if c < 0x80:
        return c, 1
    n = 2 if 0xC2 <= c < 0xE0 else 3 if 0xE0 <= c < 0xF0 else 4 if 0xF0 <= c < 0xF5 else 0
    if n == 0 or i + n > end:
        return 0x110000 + c, 1
    value = c & (0x7F >> n)
    for j in range(i + 1, i + n):
        d = np.int64(buf[j])
        if d & 0xC0 != 0x80:
            return 0x110000 + c, 1
        value = (value << 6) | (d & 0x3F)
    return value, n


@njit(cache=True, nogil=True)
def slow_word(buf: Any, i: Any, end: Any, raw: Any, separators: Any, lower: Any, side: Any) -> Any:
    """(hash, length, where the next word may start) of the word at i, of any code points and escapes.

    The lowered UTF-8 bytes go to `side` as far as there is room; the length counts all of them.
    """
    state, chunk, shift, length = SEED, U(0), 0, 0
    room = side.size
    following = end
    while i < end:
        c = np.int64(buf[i])
        if raw and c == BACKSLASH:
            e = np.int64(buf[i + 1]) if i + 1 < end else 0
            if e == 110 or e == QUOTE or e == BACKSLASH:  # \n \" \\ separate
                following = i + 2
                break
            if e == 117 and i + 6 <= end and hex4(buf, i + 2) >= 0:
                code = hex4(buf, i + 2)
                i += 6
                if 0xD800 <= code < 0xDC00 and i + 6 <= end and buf[i] == BACKSLASH and buf[i + 1] == 117:
                    second = hex4(buf, i + 2)
                    if 0xDC00 <= second < 0xE000:
                        code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00)
                        i += 6
                if code < 128 and separators[code]:
                    following = i
                    break
            elif e == 116 or e == 114 or e == 98 or e == 102 or e == 47:  # t r b f /
                code = 9 if e == 116 else 13 if e == 114 else 8 if e == 98 else 12 if e == 102 else 47
                i += 2
            else:  # no JSON: the line is not judged by this
                following = i + 1
                break
        elif separators[c]:
            following = i + 1
            break
        else:
            code, used = decode(buf, i, end)
            i += used
        if code < lower.size:
            code = np.int64(lower[code])
        if code < 0x80:
            n, packed = 1, code
        elif code < 0x800:
            n, packed = 2, (0xC0 | (code >> 6)) | ((0x80 | (code & 0x3F)) << 8)
        elif code < 0x10000:
            n = 3
            packed = (0xE0 | (code >> 12)) | ((0x80 | ((code >> 6) & 0x3F)) << 8) | ((0x80 | (code & 0x3F)) << 16)
        elif code < 0x110000:
            n = 4
            packed = (0xF0 | (code >> 18)) | ((0x80 | ((code >> 12) & 0x3F)) << 8)
            packed |= ((0x80 | ((code >> 6) & 0x3F)) << 16) | ((0x80 | (code & 0x3F)) << 24)
        else:
            n, packed = 1, code - 0x110000
        for _ in range(n):
            byte = U(packed & 0xFF)
            packed >>= 8
            if length < room:
                side[length] = byte
            length += 1
            chunk |= byte << U(shift)
            shift += 8
            if shift == 64:
                state = mix(state, chunk)
                chunk, shift = U(0), 0
    if shift:
        state = mix(state, chunk)
    return finish(state, length), length, following


@njit(cache=True, nogil=True)
def mark_separators(text: Any, mask: Any, pattern: Any) -> None:
    """mask[i] = 1 for each byte that separates: those of the analyzer `pattern`, or spaces. Compiles to vector code."""
    if not pattern:
        for i in range(text.size):
            mask[i] = np.uint8(text[i] == SPACE)
        return
    for i in range(text.size):
        c = text[i]
        found = np.uint8(c == SPACE) | np.uint8(c == S1) | np.uint8(c == S2) | np.uint8(c == S3) | np.uint8(c == S4)
        found |= np.uint8(c == S5) | np.uint8(c == S6) | np.uint8(c == S7) | np.uint8(c == S8) | np.uint8(c == S9)
        mask[i] = found | np.uint8(c == S10) | np.uint8(c == S11) | np.uint8(c == S12)


@njit(cache=True, nogil=True)
def tokenise(
    buf: Any, start: Any, end: Any, raw: Any, separators: Any, lower: Any, mask: Any, side: Any,
    hashes: Any, begins: Any, ends: Any, n: Any,
) -> Any:  # fmt: skip
    """Writes hash, first byte and end of each word of buf[start:end] from index n on; the new n.

    `mask` needs room for end - start + MASK_ROOM bytes. In raw mode neither `start` nor `end` may lie inside an escape.
    """
    size = end - start
    mark_separators(buf[start:end], mask[:size], separators[10] != 0)
    mask[size] = 1
    for i in range(size + 1, size + MASK_ROOM):
        mask[i] = 0
    first = start
    for group in range(0, size + 1, 64):
        bits = U(0)
        for w in range(8):
            bits |= ((load64(mask, group + 8 * w) * PACK) >> U(56)) << U(8 * w)
        while bits:
            stop = start + group + trailing_zeros(bits)
            bits &= bits - U(1)
            length = stop - first
            if length < 0:  # inside an escape that is done
                continue
            following = stop + 1
            if raw and stop < end and buf[stop] == BACKSLASH:
                e = buf[stop + 1]
                following = stop + 2
                if e != 110 and e != QUOTE and e != BACKSLASH:
                    h, length, following = slow_word(buf, first, end, raw, separators, lower, side)
                    if length:
                        hashes[n], begins[n], ends[n] = h, first, following
                        n += 1
                    first = following
                    continue
            if length == 0:
                first = following
                continue
            state = SEED
            high = U(0)
            i = first
            left = length
            while left > 8:
                w8 = load64(buf, i)
                high |= w8
                state = mix(state, lower8(w8))
                i += 8
                left -= 8
            w8 = load64(buf, i) & MASKS[U(left)]
            high |= w8
            if high & HIGHS:
                h, length, _ = slow_word(buf, first, stop, raw, separators, lower, side)
            else:
                h = finish(mix(state, lower8(w8)), length)
            hashes[n], begins[n], ends[n] = h, first, stop
            n += 1
            first = following
    return n


@njit(cache=True, nogil=True, inline="always")
def window_key(hashes: Any, last: Any, n: Any) -> Any:
    """Key of the n words that end at index `last`: the sum of their hashes, each turned by its place."""
    key = U(0)
    for back in range(n):
        key += rotate(hashes[last - back], 1 + STEP * back) if back else hashes[last]
    return key * PRIME | U(1)
