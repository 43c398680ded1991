"""Which lines of a block are surely JSON objects of the expected shape, without parsing them.

A line that passes is JSON that every parser accepts; any other line is marked and parsed by a real parser, which has
the last word. Strings are skipped eight bytes at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.bits import load64, trailing_zeros
from decontam.kernel.words import BACKSLASH, HIGHS, QUOTE, U, decode, hex4

PLAIN, PARSE, HIT = 0, 1, 2  # status of a line; HIT is set by the gate
ONES, BLANKS = U(0x0101010101010101), U(0x2020202020202020)
QUOTES, BACKSLASHES, NEWLINES = U(0x2222222222222222), U(0x5C5C5C5C5C5C5C5C), U(0x0A0A0A0A0A0A0A0A)
DEEPEST = 60
LEAF, CHOSEN, LISTED = 1, 2, 4  # what a value is, see `meets`
NEWLINE, COMMA, COLON = 10, 44, 58
# Columns of what is known of an open bracket: start and stop of its text, whether it is wanted, who speaks by `role`
# and by `from` (0 unknown, else 1 + a place of types.WHERE), which of the two keys it has, whether it is the list of
# turns, whether a parser has to read it.
TEXT, TEXT_END, WANTED, BY_ROLE, BY_FROM, TAGS, TURNS, BAD = range(8)
ROLE, FROM = 1, 2
OBJECT, END_OBJECT, LIST, END_LIST = 123, 125, 91, 93
KEY, KEY_OR_END, VALUE, VALUE_OR_END, AFTER = 0, 1, 2, 3, 4


@njit(cache=True, nogil=True, inline="always")
def next_newline(buf: Any, i: Any, end: Any) -> Any:
    """Index of the first newline from i on, or `end`."""
    while i < end:
        x = load64(buf, i) ^ NEWLINES
        found = (x - ONES) & ~x & HIGHS
        if found:
            i += trailing_zeros(found) >> 3
            return i if i < end else end
        i += 8
    return end


@njit(cache=True, nogil=True)
def skip_string(buf: Any, i: Any) -> Any:
    """(index of the quote that ends the string whose text starts at i, -1 where it is no JSON; whether it may hold
    bytes above ASCII)."""
    high = U(0)
    while True:
        w = load64(buf, i)
        q, b = w ^ QUOTES, w ^ BACKSLASHES
        # The lowest marked byte is exact; a borrow can mark only bytes above a true one.
        found = (((q - ONES) & ~q) | ((b - ONES) & ~b) | ((w - BLANKS) & ~w)) & HIGHS
        if not found:
            high |= w
            i += 8
            continue
        high |= w
        i += trailing_zeros(found) >> 3
        c = buf[i]
        if c == QUOTE:
            return i, (high & HIGHS) != 0
        if c != BACKSLASH:
            return np.int64(-1), False
        e = buf[i + 1]
        if e == 117:
            if hex4(buf, i + 2) < 0:
                return np.int64(-1), False
            i += 6
        elif e == QUOTE or e == BACKSLASH or e == 47 or e == 98 or e == 102 or e == 110 or e == 114 or e == 116:
            i += 2
        else:
            return np.int64(-1), False


@njit(cache=True, nogil=True, inline="always")
def skip_blank(buf: Any, i: Any) -> Any:
    while buf[i] == 32 or buf[i] == 9 or buf[i] == 13:
        i += 1
    return i


@njit(cache=True, nogil=True)
def skip_number(buf: Any, i: Any) -> Any:
    """Index after the JSON number at i, or -1."""
    if buf[i] == 45:
        i += 1
    if buf[i] == 48:
        i += 1
    elif 49 <= buf[i] <= 57:
        while 48 <= buf[i] <= 57:
            i += 1
    else:
        return np.int64(-1)
    if buf[i] == 46:
        i += 1
        first = i
        while 48 <= buf[i] <= 57:
            i += 1
        if i == first:
            return np.int64(-1)
    if buf[i] == 101 or buf[i] == 69:
        i += 1
        if buf[i] == 43 or buf[i] == 45:
            i += 1
        first = i
        while 48 <= buf[i] <= 57:
            i += 1
        if i == first:
            return np.int64(-1)
    return i


@njit(cache=True, nogil=True)
def is_text(buf: Any, i: Any, text: Any, start: Any, stop: Any) -> Any:
    """Whether the bytes at i are text[start:stop]."""
    for j in range(start, stop):
        if buf[i + j - start] != text[j]:
            return False
    return True


@njit(cache=True, nogil=True)
def literal(buf: Any, i: Any) -> Any:
    """Index after true, false or null at i, or -1."""
    if buf[i] == 116 and buf[i + 1] == 114 and buf[i + 2] == 117 and buf[i + 3] == 101:
        return i + 4
    if buf[i] == 110 and buf[i + 1] == 117 and buf[i + 2] == 108 and buf[i + 3] == 108:
        return i + 4
    if buf[i] == 102 and buf[i + 1] == 97 and buf[i + 2] == 108 and buf[i + 3] == 115 and buf[i + 4] == 101:
        return i + 5
    return np.int64(-1)


@njit(cache=True, nogil=True)
def is_utf8(buf: Any, i: Any, end: Any) -> Any:
    """Whether buf[i:end] is UTF-8 as Python decodes it: no overlong forms, no surrogates."""
    while i < end:
        if buf[i] < 0x80:
            i += 1
            continue
        code, used = decode(buf, i, end)
        shortest = 0x80 if used == 2 else 0x800 if used == 3 else 0x10000
        if code >= 0x110000 or code < shortest or 0xD800 <= code < 0xE000:
            return False
        i += used
    return True


@njit(cache=True, nogil=True)
def meets(
    buf: Any, start: Any, stop: Any, value: Any, texts: Any, places: Any, follow: Any, seen: Any, listing: Any
) -> Any:
    """Whether the value after the key buf[start:stop] is as every need of that key asks: -1 where not, else bits.

    LEAF says that the value is a text to be matched, CHOSEN that it is what a need asks its objects to have, LISTED
    that it is the list of turns, which the need of number `listing` asks for. `places` has key start, key stop, value
    start, value stop in `texts` for each need. Needs that are met are noted in `seen`.
    """
    found = 0
    if places.shape[0]:
        for i in range(start, stop):
            if buf[i] == BACKSLASH:  # a key that is spelled otherwise
                return -1
    for r in range(places.shape[0]):
        if places[r, 1] - places[r, 0] != stop - start or not is_text(buf, start, texts, places[r, 0], places[r, 1]):
            continue
        c = buf[value]
        if not follow[r, 256]:  # an empty string or null
            if not (c == QUOTE and buf[value + 1] == QUOTE) and literal(buf, value) != value + 4:
                return -1
            if c == 116:
                return -1
        elif not follow[r, c]:
            return -1
        size = places[r, 3] - places[r, 2]
        if size == 0:
            seen[r] = 1
            if r == listing:
                found |= LISTED
            if c == QUOTE and follow[r, 256]:  # an empty text is nothing to be matched
                found |= LEAF
        elif is_text(buf, value + 1, texts, places[r, 2], places[r, 3]) and buf[value + 1 + size] == QUOTE:
            seen[r] = 1
            found |= CHOSEN
        else:
            end, _ = skip_string(buf, value + 1)
            if end < 0 or has_backslash(buf, value + 1, end):  # the same value may be spelled otherwise
                return -1
    return found


@njit(cache=True, nogil=True)
def one_of(buf: Any, start: Any, stop: Any, texts: Any, places: Any) -> Any:
    """Whether buf[start:stop] is one of the texts; text i is texts[places[i]:places[i + 1]]."""
    for t in range(places.size - 1):
        if places[t + 1] - places[t] == stop - start and is_text(buf, start, texts, places[t], places[t + 1]):
            return True
    return False


@njit(cache=True, nogil=True, inline="always")
def tag_of(buf: Any, start: Any, stop: Any) -> Any:
    """ROLE or FROM for the keys that say who speaks, else 0."""
    if stop - start != 4:
        return 0
    a, b, c, d = buf[start], buf[start + 1], buf[start + 2], buf[start + 3]
    if a == 114 and b == 111 and c == 108 and d == 101:
        return ROLE
    return FROM if a == 102 and b == 114 and c == 111 and d == 109 else 0


@njit(cache=True, nogil=True)
def has_backslash(buf: Any, start: Any, stop: Any) -> Any:
    for i in range(start, stop):
        if buf[i] == BACKSLASH:
            return True
    return False


@njit(cache=True, nogil=True)
def note_id(buf: Any, value: Any, ids: Any, line: Any) -> Any:
    """Writes where the row's id stands, 0 and 0 where the value is neither text nor whole number; False where only a
    parser knows how it reads."""
    ids[line, 0], ids[line, 1] = 0, 0
    c = buf[value]
    if c == QUOTE:
        stop, _ = skip_string(buf, value + 1)
        if stop < 0 or has_backslash(buf, value + 1, stop):
            return False
        ids[line, 0], ids[line, 1] = value + 1, stop
    elif c == 45 or 48 <= c <= 57:
        stop = skip_number(buf, value)
        if stop < 0 or (c == 45 and buf[value + 1] == 48):
            return False
        for i in range(value, stop):
            if buf[i] == 46 or buf[i] == 101 or buf[i] == 69:
                return True
        ids[line, 0], ids[line, 1] = value, stop
    return True


@njit(cache=True, nogil=True)
def plain_object(
    buf: Any, i: Any, end: Any, texts: Any, places: Any, follow: Any, required: Any, seen: Any, choosing: Any,
    shape: Any, heads: Any, head_places: Any, speakers: Any, speaker_places: Any,
    objects: Any, line: Any, spans: Any, n_spans: Any, ids: Any,
) -> Any:  # fmt: skip
    """Number of spans written, or -1 where the line buf[i:end] is not surely one JSON object that meets the needs.

    A row of `spans` is the start and stop of a text to be matched, the line, the turn and where it stands (see
    types.WHERE); a turn of -1 means that a parser has to tell what of the line is matched. `choosing` leaves out texts
    whose object has no key that a need chooses by. `shape` is the depth of the objects that hold texts, 0 where only a
    parser knows, the number of the need of the list of turns, and what a text is whose object does not say who speaks.
    A line with a key of `heads` is one span, whole. A row of `objects`, one an open bracket, has columns TEXT to BAD.
    """
    first, high, first_span = i, False, n_spans
    seen[:] = 0
    if buf[i] != OBJECT:
        return -1
    i += 1
    depth, kinds, expect = 1, U(1), KEY_OR_END  # kinds: a bit for each open bracket, the lowest is the innermost
    leaf, tag, listed, lists, turn, whole, with_id, odd = False, 0, False, 0, -1, False, False, False
    objects[1, :] = 0
    ids[line, 0], ids[line, 1] = 0, 0
    while depth:
        i = skip_blank(buf, i)
        if i >= end:
            return -1
        c = buf[i]
        if expect <= KEY_OR_END:
            if c == QUOTE:
                start = i + 1
                i, more = skip_string(buf, start)
                if i < 0:
                    return -1
                high |= more
                stop = i
                i = skip_blank(buf, i + 1)
                if buf[i] != COLON:
                    return -1
                i = skip_blank(buf, i + 1)
                found = meets(buf, start, stop, i, texts, places, follow, seen, shape[1])
                if found < 0:
                    return -1
                leaf = (found & LEAF) != 0
                if found & CHOSEN:
                    objects[depth, WANTED] = 1
                listed = False
                tag = tag_of(buf, start, stop)
                if tag:
                    objects[depth, BAD] |= objects[depth, TAGS] & tag
                    objects[depth, TAGS] |= tag
                if depth == 1:
                    listed = (found & LISTED) != 0
                    lists += listed
                    if stop - start == 2 and buf[start] == 105 and buf[start + 1] == 100:
                        odd |= with_id or not note_id(buf, i, ids, line)
                        with_id = True
                    whole |= head_places.size > 1 and one_of(buf, start, stop, heads, head_places)
                expect = VALUE
                continue
            if c != END_OBJECT or expect == KEY:
                return -1
            expect = AFTER
        elif expect <= VALUE_OR_END:
            if depth == 2 and c != END_LIST and lists == 1 and not kinds & U(1) and objects[2, TURNS]:
                turn += 1
            if c == QUOTE:
                start = i + 1
                i, more = skip_string(buf, start)
                if i < 0:
                    return -1
                high |= more
                if leaf:
                    if objects[depth, TEXT]:  # a key twice: a parser knows which one counts
                        return -1
                    objects[depth, TEXT], objects[depth, TEXT_END] = start, i
                    leaf = False
                if tag:
                    where = 1 + np.int64(one_of(buf, start, i, speakers, speaker_places))
                    objects[depth, BY_ROLE if tag == ROLE else BY_FROM] = where
                    objects[depth, BAD] |= has_backslash(buf, start, i)
                    tag = 0
                i += 1
                expect = AFTER
                continue
            tag = 0
            if c == OBJECT or c == LIST:
                if depth == DEEPEST:
                    return -1
                depth += 1
                kinds = (kinds << U(1)) | U(c == OBJECT)
                objects[depth, :] = 0
                objects[depth, TURNS] = listed
                listed = False
                i += 1
                expect = KEY_OR_END if c == OBJECT else VALUE_OR_END
                continue
            if c != END_LIST or expect == VALUE:
                i = skip_number(buf, i) if c == 45 or 48 <= c <= 57 else literal(buf, i)
                if i < 0:
                    return -1
                expect = AFTER
                continue
        elif c == COMMA:
            expect = KEY if kinds & U(1) else VALUE
            i += 1
            continue
        elif c != (END_OBJECT if kinds & U(1) else END_LIST):
            return -1
        # A bracket closes.
        if objects[depth, TEXT] and (objects[depth, WANTED] or not choosing):
            if n_spans < spans.shape[0]:
                known = depth == shape[0] and not objects[depth, BAD] and (depth == 1 or objects[2, TURNS] != 0)
                where = shape[2] + 1
                if depth > 1 and objects[depth, BY_ROLE] + objects[depth, BY_FROM]:
                    where = objects[depth, BY_ROLE] or objects[depth, BY_FROM]
                spans[n_spans, 0], spans[n_spans, 1] = objects[depth, TEXT], objects[depth, TEXT_END]
                spans[n_spans, 2] = line
                spans[n_spans, 3], spans[n_spans, 4] = (max(turn, 0) if known else -1), where - 1
            n_spans += 1
        depth -= 1
        kinds >>= U(1)
        i += 1
        expect = AFTER
    stop = i
    i = skip_blank(buf, i)
    if i < end or (high and not is_utf8(buf, first, end)):
        return -1
    for r in range(required.size):
        if required[r] and not seen[r]:
            return -1
    if whole:
        n_spans = first_span + 1
        if n_spans <= spans.shape[0]:
            spans[first_span, 0], spans[first_span, 1], spans[first_span, 2] = first, stop, line
            spans[first_span, 3] = -1
    elif (odd or lists > 1) and first_span < min(n_spans, spans.shape[0]):
        spans[first_span, 3] = -1
    return n_spans


@njit(cache=True, nogil=True)
def lines(
    buf: Any, end: Any, texts: Any, places: Any, follow: Any, required: Any, choosing: Any,
    shape: Any, heads: Any, head_places: Any, speakers: Any, speaker_places: Any,
    starts: Any, stops: Any, status: Any, spans: Any, ids: Any, counts: Any,
) -> Any:  # fmt: skip
    """Writes start, stop (without the newline) and status of each line of buf[:end] that is not blank, and of those
    that are plain the texts to be matched (see `plain_object`) and where the row's id stands.

    counts = [lines, texts]; False where there is no room for them.
    """
    n, n_spans, i = 0, 0, 0
    seen = np.zeros(required.size, np.uint8)
    objects = np.zeros((DEEPEST + 1, 8), np.int64)
    while i < end:
        stop = next_newline(buf, i, end)
        first = i
        while first < stop and (buf[first] == 32 or buf[first] == 9 or buf[first] == 13):
            first += 1
        if first < stop:
            if n == starts.size:
                return False
            known = plain_object(buf, first, stop, texts, places, follow, required, seen, choosing, shape, heads,
                                 head_places, speakers, speaker_places, objects, n, spans, n_spans, ids)  # fmt: skip
            if known > spans.shape[0]:
                return False
            starts[n], stops[n], status[n] = i, stop, PARSE if known < 0 else PLAIN
            n_spans = max(n_spans, known)
            n += 1
        i = stop + 1
    counts[0], counts[1] = n, n_spans
    return True
