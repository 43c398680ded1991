"""Matches as JSON lines: the bytes of a batch of matches, put together without an object for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

MOST_DIGITS = 20  # of a 64-bit integer with its sign
SCORE, COVERED = np.frombuffer(b',"score":', np.uint8), np.frombuffer(b',"covered":[', np.uint8)
CAPPED_SCORE, CAPPED = np.frombuffer(b'],"capped_score":', np.uint8), np.frombuffer(b',"capped":[', np.uint8)
FLAGS, SHARE = np.frombuffer(b'],"flags":', np.uint8), np.frombuffer(b',"common_share":', np.uint8)
RUNS, END = np.frombuffer(b',"runs":[', np.uint8), np.frombuffer(b"]}\n", np.uint8)
TRAIN, FIELD = np.frombuffer(b'{"train":[', np.uint8), np.frombuffer(b'],"field":', np.uint8)
EVAL, POSITIONS = np.frombuffer(b',"eval":[', np.uint8), np.frombuffer(b'],"k":', np.uint8)
ROW, ID = np.frombuffer(b'"row":', np.uint8), np.frombuffer(b',"id":', np.uint8)
TURN, WHERE = np.frombuffer(b',"turn":', np.uint8), np.frombuffer(b',"where":', np.uint8)
FIXED = 512  # bytes that cover all of the above, once a line
A_RUN = 64 + 5 * MOST_DIGITS  # of a run without the name of its field
COMMA, OPEN, CLOSE, OPEN_OBJECT, CLOSE_OBJECT = 44, 91, 93, 123, 125


@njit(cache=True, nogil=True)
def put(out: Any, at: Any, data: Any, start: Any, stop: Any) -> Any:
    for i in range(start, stop):
        out[at] = data[i]
        at += 1
    return at


@njit(cache=True, nogil=True)
def put_number(out: Any, at: Any, value: Any) -> Any:
    if value < 0:
        out[at] = 45
        at += 1
        value = -value
    digits = 1
    rest = value // 10
    while rest:
        digits += 1
        rest //= 10
    end = at + digits
    i = end
    while i > at:
        i -= 1
        out[i] = 48 + value % 10
        value //= 10
    return end


@njit(cache=True, nogil=True)
def put_pairs(out: Any, at: Any, values: Any, first: Any, wholes: Any, place: Any, n: Any) -> Any:
    """`[part,whole],[part,whole]`."""
    for f in range(n):
        if f:
            out[at] = COMMA
            at += 1
        out[at] = OPEN
        at = put_number(out, at + 1, np.int64(values[first + f]))
        out[at] = COMMA
        at = put_number(out, at + 1, np.int64(wholes[place + f]))
        out[at] = CLOSE
        at += 1
    return at


@njit(cache=True, nogil=True)
def match_lines(
    first: Any, head: Any, rule: Any, rows: Any, ids: Any, id_places: Any, turns: Any, wheres: Any, where_words: Any,
    where_places: Any, instances: Any, names: Any, name_places: Any, first_field: Any, sizes: Any, uncommon: Any,
    field_names: Any, field_places: Any, numbers: Any, number_places: Any, score: Any, capped_score: Any, share: Any,
    flags: Any, flag_words: Any, flag_places: Any, covered: Any, capped: Any, field_starts: Any, runs: Any,
    run_starts: Any, out: Any,
) -> Any:  # fmt: skip
    """(bytes written, number of the first match that found no room) of the lines of the matches from `first` on.

    Texts come as bytes with places: text i is data[places[i]:places[i + 1]]. `score`, `capped_score` and `share` are
    numbers of texts of `numbers`.
    """
    at = 0
    for m in range(first, rows.size):
        instance = np.int64(instances[m])
        n_fields = field_starts[m + 1] - field_starts[m]
        place = first_field[instance]
        need = FIXED + head.size + rule.size + (id_places[m + 1] - id_places[m])
        need += name_places[instance + 1] - name_places[instance] + n_fields * 4 * (MOST_DIGITS + 2)
        for r in range(run_starts[m], run_starts[m + 1]):
            field = place + np.int64(runs[r, 2])
            need += A_RUN + np.int64(field_places[field + 1] - field_places[field])
        if at + need > out.size:
            return at, m
        at = put(out, at, head, 0, head.size)
        at = put(out, at, ROW, 0, ROW.size)
        at = put_number(out, at, rows[m])
        at = put(out, at, ID, 0, ID.size)
        at = put(out, at, ids, id_places[m], id_places[m + 1])
        at = put(out, at, TURN, 0, TURN.size)
        at = put_number(out, at, np.int64(turns[m]))
        at = put(out, at, WHERE, 0, WHERE.size)
        at = put(out, at, where_words, where_places[wheres[m]], where_places[wheres[m] + 1])
        out[at] = COMMA
        at = put(out, at + 1, names, name_places[instance], name_places[instance + 1])
        at = put(out, at, SCORE, 0, SCORE.size)
        at = put(out, at, numbers, number_places[score[m]], number_places[score[m] + 1])
        at = put(out, at, COVERED, 0, COVERED.size)
        at = put_pairs(out, at, covered, field_starts[m], sizes, place, n_fields)
        at = put(out, at, CAPPED_SCORE, 0, CAPPED_SCORE.size)
        at = put(out, at, numbers, number_places[capped_score[m]], number_places[capped_score[m] + 1])
        at = put(out, at, CAPPED, 0, CAPPED.size)
        at = put_pairs(out, at, capped, field_starts[m], uncommon, place, n_fields)
        at = put(out, at, FLAGS, 0, FLAGS.size)
        at = put(out, at, flag_words, flag_places[flags[m]], flag_places[flags[m] + 1])
        at = put(out, at, rule, 0, rule.size)
        at = put(out, at, SHARE, 0, SHARE.size)
        at = put(out, at, numbers, number_places[share[m]], number_places[share[m] + 1])
        at = put(out, at, RUNS, 0, RUNS.size)
        for r in range(run_starts[m], run_starts[m + 1]):
            if r > run_starts[m]:
                out[at] = COMMA
                at += 1
            at = put(out, at, TRAIN, 0, TRAIN.size)
            at = put_number(out, at, np.int64(runs[r, 0]))
            out[at] = COMMA
            at = put_number(out, at + 1, np.int64(runs[r, 1]))
            at = put(out, at, FIELD, 0, FIELD.size)
            field = place + np.int64(runs[r, 2])
            at = put(out, at, field_names, field_places[field], field_places[field + 1])
            at = put(out, at, EVAL, 0, EVAL.size)
            at = put_number(out, at, np.int64(runs[r, 3]))
            out[at] = COMMA
            at = put_number(out, at + 1, np.int64(runs[r, 4]))
            at = put(out, at, POSITIONS, 0, POSITIONS.size)
            at = put_number(out, at, np.int64(runs[r, 5]))
            out[at] = CLOSE_OBJECT
            at += 1
        at = put(out, at, END, 0, END.size)
    return at, rows.size
