"""Coverage: which instances a decoded message holds, how much of them, and where.

Words are looked up in the vocabulary by hash and compared as strings; phrases are then compared as word ids. So nothing
is decided by a hash alone. Each phrase counts where it first stands in the message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.bits import load64
from decontam.kernel.gate import in_table, keys_of, sieve
from decontam.kernel.words import HIGHS, MASKS, U, lower8, slow_word, tokenise

COVERAGE, ANY, IDF, WHOLE = 0, 1, 2, 3
UNSURE = 1e-9  # distance from the threshold within which a mean over several fields is decided by exact fractions
EXACT, CAPPED, SHORT = 1, 2, 4  # bits of a match's flags


@njit(cache=True, nogil=True)
def same_word(
    buf: Any, start: Any, stop: Any, separators: Any, lower: Any, side: Any, text: Any, at: Any, size: Any
) -> Any:
    """Whether the word buf[start:stop], lowered, is text[at:at+size]. Both buffers are padded."""
    if stop - start == size:
        i, left, equal = start, size, True
        while left > 0:
            mask = MASKS[min(left, 8)]
            w = load64(buf, i) & mask
            if w & HIGHS:
                break
            if lower8(w) != load64(text, at + i - start) & mask:
                equal = False
                break
            i += 8
            left -= 8
        if left <= 0 or not equal:
            return equal
    _, length, _ = slow_word(buf, start, stop, False, separators, lower, side)
    if length != size or length > side.size:
        return False
    for j in range(length):
        if side[j] != text[at + j]:
            return False
    return True


@njit(cache=True, nogil=True)
def word_ids(
    buf: Any, hashes: Any, begins: Any, ends: Any, n: Any, separators: Any, lower: Any, side: Any,
    vocab_table: Any, vocab_ids: Any, vocab_starts: Any, vocab_text: Any, ids: Any,
) -> None:  # fmt: skip
    """ids[j] of each word, -1 for one that no phrase holds."""
    mask = U(vocab_table.size - 1)
    for j in range(n):
        ids[j] = -1
        key = hashes[j] | U(1)
        slot = (key >> U(20)) & mask
        while vocab_table[slot]:
            if vocab_table[slot] == key:
                word = np.int64(vocab_ids[slot])
                at = vocab_starts[word]
                if same_word(
                    buf, begins[j], ends[j], separators, lower, side, vocab_text, at, vocab_starts[word + 1] - at
                ):
                    ids[j] = word
                    break
            slot = (slot + U(1)) & mask


@njit(cache=True, nogil=True)
def find_phrases(
    ids: Any, keys: Any, left: Any, order: Any, hashes: Any, n: Any, bitmap: Any, table: Any, group: Any,
    group_starts: Any, group_phrases: Any, phrase_starts: Any, phrase_words: Any,
    state: Any, stamp: Any, phrase_hits: Any, most_hits: Any, found: Any, n_found: Any,
) -> Any:  # fmt: skip
    """Adds each phrase whose first `order` words are a window of the message, where it stands first; the new number.

    state[phrase] becomes stamp << 32 | index of its first word. With `most_hits` a phrase counts in so many messages
    only, as in an Elasticsearch that returns so many hits.
    """
    if not table.size:
        return n_found
    first_last = min(order - 1, n)
    keys_of(hashes, first_last, n, order, keys)
    for c in range(sieve(keys, first_last, n, bitmap, left)):
        last = np.int64(left[c])
        slot = in_table(table, keys[last])
        if slot < 0:
            continue
        at = last - order + 1
        g = np.int64(group[slot])
        for m in range(group_starts[g], group_starts[g + 1]):
            phrase = np.int64(group_phrases[m])
            if state[phrase] >> 32 == stamp:
                continue
            first = phrase_starts[phrase]
            size = phrase_starts[phrase + 1] - first
            if at + size > n:
                continue
            equal = True
            for w in range(size):
                if ids[at + w] != phrase_words[first + w]:
                    equal = False
                    break
            if not equal:
                continue
            if most_hits:
                phrase_hits[phrase] += 1
                if phrase_hits[phrase] > most_hits:
                    continue
            state[phrase] = (stamp << 32) | at
            found[n_found] = phrase
            n_found += 1
    return n_found


@njit(cache=True, nogil=True)
def characters(buf: Any, start: Any, begins: Any, ends: Any, n: Any, froms: Any, tos: Any) -> None:
    """Character offsets of each word in the text that starts at buf[start]."""
    i, seen = start, 0
    for j in range(n):
        while i < begins[j]:
            seen += (buf[i] & 0xC0) != 0x80
            i += 1
        froms[j] = seen
        while i < ends[j]:
            seen += (buf[i] & 0xC0) != 0x80
            i += 1
        tos[j] = seen


@njit(cache=True, nogil=True)
def measure(
    field: Any, state: Any, stamp: Any, field_windows: Any, window_phrase: Any, window_from: Any, window_to: Any,
    window_weight: Any, phrase_common: Any, field_common: Any, span_starts: Any, common_before: Any, row: Any,
) -> None:  # fmt: skip
    """What the found phrases cover of a field, into row[:6]: positions, positions by uncommon windows, positions that
    are common, weight, weight of uncommon windows, matching uncommon windows."""
    covered, uncommon, shared, weight, kept_weight, n_kept = 0, 0, 0, 0, 0, 0
    upto, kept_upto = 0, 0
    base = span_starts[field]
    has_common = field_common[field] > 0
    for w in range(field_windows[field], field_windows[field + 1]):
        phrase = np.int64(window_phrase[w])
        if state[phrase] >> 32 != stamp:
            continue
        start, stop = np.int64(window_from[w]), np.int64(window_to[w])
        a = max(start, upto)
        covered += stop - a
        upto = stop
        weight += window_weight[w]
        if has_common:
            shared += np.int64(common_before[base + stop]) - np.int64(common_before[base + a])
        if phrase_common[phrase]:
            continue
        a = max(start, kept_upto)
        uncommon += stop - a
        kept_upto = stop
        kept_weight += window_weight[w]
        n_kept += 1
        if has_common:
            uncommon -= np.int64(common_before[base + stop]) - np.int64(common_before[base + a])
    row[0], row[1], row[2], row[3], row[4], row[5] = covered, uncommon, shared, weight, kept_weight, n_kept


@njit(cache=True, nogil=True)
def held(
    instance: Any, rows: Any, instance_fields: Any, instance_counted: Any, instance_short: Any, field_n: Any,
    field_common: Any, field_total: Any, mode: Any, numerator: Any, denominator: Any,
) -> Any:  # fmt: skip
    """Flags of an instance whose fields were measured into `rows`; 0 where the message does not hold it.

    The mean of several fields that is within UNSURE of the threshold is flagged: fractions decide it later.
    """
    first, n_fields = instance_fields[instance], instance_fields[instance + 1] - instance_fields[instance]
    if mode == COVERAGE and not instance_short[instance]:
        if n_fields == 1:
            n, common = field_n[first], np.int64(field_common[first])
            if rows[0, 0] * denominator <= numerator * n:
                return 0
            return EXACT | (CAPPED if rows[0, 1] * denominator > numerator * (n - common) else 0)
        score, kept = 0.0, 0.0
        for f in range(n_fields):
            n, common = field_n[first + f], np.int64(field_common[first + f])
            score += rows[f, 0] / n if n else 0.0
            kept += rows[f, 1] / (n - common) if n > common else 0.0
        limit = (numerator / denominator - UNSURE) * instance_counted[instance]
        if score <= limit:
            return 0
        return EXACT | (CAPPED if kept > limit else 0)
    if mode == ANY and not instance_short[instance]:
        kept_windows = 0
        for f in range(n_fields):
            kept_windows += rows[f, 5]
        return EXACT | (CAPPED if kept_windows else 0)
    if mode == IDF and not instance_short[instance]:
        weight, kept_weight, total = 0, 0, 0
        for f in range(n_fields):
            weight += rows[f, 3]
            kept_weight += rows[f, 4]
            total += field_total[first + f]
        if total == 0 or weight * denominator < numerator * total:
            return 0
        return EXACT | (CAPPED if kept_weight * denominator >= numerator * total else 0)
    kept_whole = True
    for f in range(n_fields):
        n = field_n[first + f]
        if n == 0 and instance_counted[instance] < n_fields:  # an empty field that is left out
            continue
        if rows[f, 0] < n or n == 0:
            return 0
        kept_whole &= rows[f, 5] > 0
    return SHORT if instance_short[instance] else EXACT | (CAPPED if kept_whole else 0)


@njit(cache=True, nogil=True)
def write_runs(
    field: Any, number: Any, state: Any, stamp: Any, field_windows: Any, window_phrase: Any, window_from: Any,
    window_to: Any, phrase_starts: Any, froms: Any, tos: Any, runs: Any, n: Any,
) -> Any:  # fmt: skip
    """Writes the maximal runs of matching windows of a field from index n on; the new n, -1 where there is no room."""
    eval_from, eval_to, word_from, word_to, last_from = 0, -1, 0, 0, 0
    for w in range(field_windows[field], field_windows[field + 1] + 1):
        over = w == field_windows[field + 1]
        place, size, start, stop = 0, 0, 0, 0
        if not over:
            phrase = np.int64(window_phrase[w])
            if state[phrase] >> 32 != stamp:
                continue
            place = state[phrase] & 0xFFFFFFFF
            size = phrase_starts[phrase + 1] - phrase_starts[phrase]
            start, stop = np.int64(window_from[w]), np.int64(window_to[w])
            if eval_to >= 0 and start <= eval_to and last_from <= place <= word_to:
                eval_to, last_from = stop, place
                word_to = max(word_to, place + size)
                continue
        if eval_to >= 0:
            if n == runs.shape[0]:
                return -1
            runs[n, 0], runs[n, 1], runs[n, 2] = froms[word_from], tos[word_to - 1], number
            runs[n, 3], runs[n, 4] = eval_from, eval_to
            n += 1
        eval_from, eval_to, word_from, word_to, last_from = start, stop, place, place + size, place
    return n


@njit(cache=True, nogil=True)
def find_all(
    ids: Any, keys: Any, left: Any, hashes: Any, n: Any,
    bitmap5: Any, table5: Any, group5: Any, bitmap4: Any, table4: Any, group4: Any, bitmap3: Any, table3: Any,
    group3: Any, bitmap2: Any, table2: Any, group2: Any, bitmap1: Any, table1: Any, group1: Any,
    group_starts: Any, group_phrases: Any, phrase_starts: Any, phrase_words: Any,
    state: Any, stamp: Any, phrase_hits: Any, most_hits: Any, found: Any,
) -> Any:  # fmt: skip
    """Every phrase of the index that stands in the message; how many."""
    k = 0
    k = find_phrases(ids, keys, left, 5, hashes, n, bitmap5, table5, group5, group_starts, group_phrases, phrase_starts,
                     phrase_words, state, stamp, phrase_hits, most_hits, found, k)  # fmt: skip
    k = find_phrases(ids, keys, left, 4, hashes, n, bitmap4, table4, group4, group_starts, group_phrases, phrase_starts,
                     phrase_words, state, stamp, phrase_hits, most_hits, found, k)  # fmt: skip
    k = find_phrases(ids, keys, left, 3, hashes, n, bitmap3, table3, group3, group_starts, group_phrases, phrase_starts,
                     phrase_words, state, stamp, phrase_hits, most_hits, found, k)  # fmt: skip
    k = find_phrases(ids, keys, left, 2, hashes, n, bitmap2, table2, group2, group_starts, group_phrases, phrase_starts,
                     phrase_words, state, stamp, phrase_hits, most_hits, found, k)  # fmt: skip
    return find_phrases(ids, keys, left, 1, hashes, n, bitmap1, table1, group1, group_starts, group_phrases,
                        phrase_starts, phrase_words, state, stamp, phrase_hits, most_hits, found, k)  # fmt: skip


@njit(cache=True, nogil=True)
def cover(
    buf: Any, text_starts: Any, text_stops: Any, first_text: Any, separators: Any, lower: Any, by_characters: Any,
    vocab_table: Any, vocab_ids: Any, vocab_starts: Any, vocab_text: Any,
    bitmap5: Any, table5: Any, group5: Any, bitmap4: Any, table4: Any, group4: Any, bitmap3: Any, table3: Any,
    group3: Any, bitmap2: Any, table2: Any, group2: Any, bitmap1: Any, table1: Any, group1: Any,
    group_starts: Any, group_phrases: Any, phrase_starts: Any, phrase_words: Any, phrase_common: Any,
    kept_starts: Any, kept_instance: Any, instance_fields: Any, instance_counted: Any, instance_short: Any,
    field_n: Any, field_windows: Any, field_common: Any, field_total: Any, span_starts: Any, common_before: Any,
    window_phrase: Any, window_from: Any, window_to: Any, window_weight: Any,
    mode: Any, numerator: Any, denominator: Any, phrase_hits: Any, most_hits: Any,
    gaps: Any, hashes: Any, begins: Any, ends: Any, keys: Any, left: Any, side: Any, ids: Any, froms: Any, tos: Any,
    state: Any, stamps: Any, found: Any, instance_stamp: Any, candidates: Any, rows: Any,
    out: Any, out_score: Any, out_fields: Any, out_runs: Any, counts: Any,
) -> Any:  # fmt: skip
    """Judges the texts from `first_text` on; returns the number of the first one that is not judged.

    counts = [matches, fields, runs] written so far, then what is full (0 nothing, 1 words, 2 matches) and the room that
    is needed. A row of `out` is text, instance, flags, first field, first run, runs.
    """
    for t in range(first_text, text_starts.size):
        start, stop = text_starts[t], text_stops[t]
        if stop - start + 1 > gaps.size:
            counts[3], counts[4] = 1, stop - start + 1
            return t
        n = tokenise(buf, start, stop, False, separators, lower, gaps, side, hashes, begins, ends, 0)
        word_ids(buf, hashes, begins, ends, n, separators, lower, side, vocab_table, vocab_ids, vocab_starts,
                 vocab_text, ids)  # fmt: skip
        stamps[0] += 1
        stamp = stamps[0]
        n_found = find_all(
            ids, keys, left, hashes, n, bitmap5, table5, group5, bitmap4, table4, group4, bitmap3, table3, group3,
            bitmap2, table2, group2, bitmap1, table1, group1, group_starts, group_phrases, phrase_starts, phrase_words,
            state, stamp, phrase_hits, most_hits, found,
        )  # fmt: skip

        # A flagged instance has matched one of its kept windows.
        n_candidates = 0
        for f in range(n_found):
            for k in range(kept_starts[found[f]], kept_starts[found[f] + 1]):
                instance = np.int64(kept_instance[k])
                if instance_stamp[instance] != stamp:
                    instance_stamp[instance] = stamp
                    candidates[n_candidates] = instance
                    n_candidates += 1
        candidates[:n_candidates].sort()

        before = (counts[0], counts[1], counts[2])
        placed, full = False, False
        for c in range(n_candidates):
            instance = candidates[c]
            first, last = instance_fields[instance], instance_fields[instance + 1]
            for field in range(first, last):
                measure(field, state, stamp, field_windows, window_phrase, window_from, window_to, window_weight,
                        phrase_common, field_common, span_starts, common_before, rows[field - first])  # fmt: skip
            flags = held(instance, rows, instance_fields, instance_counted, instance_short, field_n, field_common,
                         field_total, mode, numerator, denominator)  # fmt: skip
            if not flags:
                continue
            if counts[0] == out.shape[0] or counts[1] + last - first > out_fields.shape[0]:
                full = True
                break
            if not placed:
                placed = True
                if by_characters:
                    characters(buf, start, begins, ends, n, froms, tos)
                else:
                    for j in range(n):
                        froms[j], tos[j] = j, j + 1
            match = counts[0]
            out[match, 0], out[match, 1], out[match, 2], out[match, 3] = t, instance, flags, counts[1]
            out[match, 4] = counts[2]
            score, kept_score, n_covered, n_shared = 0.0, 0.0, 0, 0
            for field in range(first, last):
                row = rows[field - first]
                size, common = field_n[field], np.int64(field_common[field])
                score += row[0] / size if size else 0.0
                kept_score += row[1] / (size - common) if size > common else 0.0
                n_covered += row[0]
                n_shared += row[2]
                told = out_fields[counts[1]]
                told[0], told[1], told[2], told[3] = row[0], size, row[1], size - common
                told[4], told[5], told[6] = row[3], row[4], field_total[field]
                counts[1] += 1
                if row[0]:
                    n_runs = write_runs(field, field - first, state, stamp, field_windows, window_phrase, window_from,
                                        window_to, phrase_starts, froms, tos, out_runs, counts[2])  # fmt: skip
                    if n_runs < 0:
                        full = True
                        break
                    counts[2] = n_runs
            if full:
                break
            out[match, 5] = counts[2] - out[match, 4]
            out_score[match, 0] = score / instance_counted[instance]
            out_score[match, 1] = kept_score / instance_counted[instance]
            out_score[match, 2] = n_shared / n_covered if n_covered else 0.0
            counts[0] += 1
        if full:  # this text again, in an emptier array
            counts[0], counts[1], counts[2] = before
            counts[3], counts[4] = 2, 0
            return t
    counts[3] = 0
    return text_starts.size
