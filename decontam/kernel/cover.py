"""Coverage: which instances a decoded message holds, how much of them, and where.

Words are looked up in the vocabulary by hash and compared as strings; phrases are then compared as word ids. So nothing
is decided by a hash alone. Each phrase counts where it first stands in the message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.bits import load64, trailing_zeros
from decontam.kernel.gate import COUNT, LOW32, SHIFT, in_table, keys_of, sieve
from decontam.kernel.words import HIGHS, MASKS, U, lower8, slow_word, tokenise

COVERAGE, ANY, IDF, WHOLE = 0, 1, 2, 3
UNSURE = 1e-9  # distance from the threshold within which a mean over several fields is decided by exact fractions
EXACT, CAPPED, SHORT = 1, 2, 4  # bits of a match's flags
UNKNOWN = -2  # the id of a word that was not looked up yet
# Columns of `fields`: first window and the one after the last, positions, common positions, weight, first position
# among all. Columns of `instances`: first field and the one after the last, fields that count, whether it is short.
WINDOWS, SIZE, COMMON, TOTAL, SPANS = 0, 2, 3, 4, 5
FIRST, COUNTED, BRIEF = 0, 2, 3


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
def word_id(
    buf: Any, hashed: Any, start: Any, stop: Any, separators: Any, lower: Any, side: Any,
    vocab_table: Any, vocab_ids: Any, vocab_starts: Any, vocab_text: Any,
) -> Any:  # fmt: skip
    """The number of the word buf[start:stop] in the vocabulary, -1 for one that no phrase holds."""
    mask = U(vocab_table.size - 1)
    key = hashed | U(1)
    slot = (key >> U(20)) & mask
    while vocab_table[slot]:
        if vocab_table[slot] == key:
            word = np.int64(vocab_ids[slot])
            at = vocab_starts[word]
            if same_word(buf, start, stop, separators, lower, side, vocab_text, at, vocab_starts[word + 1] - at):
                return word
        slot = (slot + U(1)) & mask
    return np.int64(-1)


@njit(cache=True, nogil=True, inline="always")
def is_set(bits: Any, i: Any) -> Any:
    return (bits[i >> 6] >> U(i & 63)) & U(1) != 0


@njit(cache=True, nogil=True)
def find_phrases(
    buf: Any, begins: Any, ends: Any, separators: Any, lower: Any, side: Any,
    vocab_table: Any, vocab_ids: Any, vocab_starts: Any, vocab_text: Any,
    ids: Any, hashes: Any, n: Any, orders: Any, bitmap: Any, table: Any, entries: Any, phrase_words: Any,
    keys: Any, left: Any,
    stands: Any, place: Any, phrase_hits: Any, most_hits: Any, found: Any,
) -> Any:  # fmt: skip
    """Writes each phrase of the index that stands in the message, where it stands first; how many.

    A row of `entries` is words of a phrase << 32 | its last word, and the phrase << 32 | where its words begin. A row
    of `found` is phrase, index of its first word, number of words. The bit of the phrase in `stands` is set, all of
    which a second cache holds, and place[phrase] becomes its row. With `most_hits` a phrase counts in so many messages
    only, as in an Elasticsearch that returns so many hits. The vocabulary is asked for words near a key alone.
    """
    n_found = 0
    for j in range(n):
        ids[j] = UNKNOWN
    for o in range(orders.shape[0]):
        order = np.int64(orders[o, 0])
        begin = min(order - 1, n)
        keys_of(hashes, begin, n, order, keys)
        n_left = sieve(keys, begin, n, bitmap, orders[o, 1], orders[o, 2], left)
        # All slots first: the table is far larger than a cache, and loads that do not wait for each other overlap.
        for c in range(n_left):
            keys[c] = U(in_table(table, orders[o, 3], orders[o, 4], keys[np.int64(left[c])]))
        for c in range(n_left):
            slot = np.int64(keys[c])
            if slot < 0:
                continue
            at = np.int64(left[c]) - order + 1
            upto = at
            of_key = np.int64(table[slot, 1] >> SHIFT)
            for m in range(of_key, of_key + np.int64(table[slot, 1] & COUNT)):
                # Phrases that begin alike are many where boilerplate ends: most differ in length or last word.
                size = np.int64(entries[m, 0] >> U(32))
                if at + size > n:
                    continue
                for j in range(upto, at + size):
                    if ids[j] == UNKNOWN:
                        ids[j] = word_id(buf, hashes[j], begins[j], ends[j], separators, lower, side, vocab_table,
                                         vocab_ids, vocab_starts, vocab_text)  # fmt: skip
                upto = max(upto, at + size)
                if ids[at + size - 1] != np.int64(entries[m, 0] & LOW32):
                    continue
                phrase = np.int64(entries[m, 1] >> U(32))
                if is_set(stands, phrase):
                    continue
                first = np.int64(entries[m, 1] & LOW32)
                equal = True
                for w in range(size - 1):
                    if ids[at + w] != phrase_words[first + w]:
                        equal = False
                        break
                if not equal:
                    continue
                if most_hits:
                    if phrase_hits[phrase] >= most_hits:
                        continue
                    phrase_hits[phrase] += 1
                stands[phrase >> 6] |= U(1) << U(phrase & 63)
                place[phrase] = n_found
                found[n_found, 0], found[n_found, 1], found[n_found, 2] = phrase, at, size
                n_found += 1
    return n_found


@njit(cache=True, nogil=True)
def in_order(
    found: Any, n_found: Any, kept_starts: Any, kept_instance: Any, bits: Any, summary: Any, candidates: Any
) -> Any:
    """Writes the instances of which a kept window stands in the message, in ascending order; how many.

    `bits` has a bit an instance and `summary` one for each 64 of those; both are clear before and after.
    """
    for f in range(n_found):
        for k in range(kept_starts[found[f, 0]], kept_starts[found[f, 0] + 1]):
            instance = np.int64(kept_instance[k])
            bits[instance >> 6] |= U(1) << U(instance & 63)
            summary[instance >> 12] |= U(1) << U((instance >> 6) & 63)
    n = 0
    for s in range(summary.size):
        of_summary = summary[s]
        summary[s] = U(0)
        while of_summary:
            word = s * 64 + trailing_zeros(of_summary)
            of_summary &= of_summary - U(1)
            of_word = bits[word]
            bits[word] = U(0)
            while of_word:
                candidates[n] = word * 64 + trailing_zeros(of_word)
                of_word &= of_word - U(1)
                n += 1
    return n


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
    field: Any, stands: Any, fields: Any, window_phrase: Any, window_weight: Any, phrase_common: Any,
    common_before: Any, rows: Any, r: Any,
) -> None:  # fmt: skip
    """What the found phrases cover of a field, into rows[r]: positions, positions by uncommon windows, positions that
    are common, weight, weight of uncommon windows, matching uncommon windows.

    The windows of a field begin at its positions 0, 1, 2, …
    """
    covered, uncommon, shared, weight, kept_weight, n_kept = 0, 0, 0, 0, 0, 0
    upto, kept_upto = 0, 0
    first, last, n, base = fields[field, WINDOWS], fields[field, WINDOWS + 1], fields[field, SIZE], fields[field, SPANS]
    width = n - (last - first) + 1
    has_common = fields[field, COMMON] > 0
    weighted = window_weight.size > 0
    for w in range(first, last):
        phrase = np.int64(window_phrase[w])
        if not is_set(stands, phrase):
            continue
        start = w - first
        stop = start + width
        a = max(start, upto)
        covered += stop - a
        upto = stop
        if weighted:
            weight += window_weight[w]
        if has_common:
            shared += np.int64(common_before[base + stop]) - np.int64(common_before[base + a])
            if phrase_common[phrase]:
                continue
        a = max(start, kept_upto)
        uncommon += stop - a
        kept_upto = stop
        n_kept += 1
        if weighted:
            kept_weight += window_weight[w]
        if has_common:
            uncommon -= np.int64(common_before[base + stop]) - np.int64(common_before[base + a])
    rows[r, 0], rows[r, 1], rows[r, 2] = covered, uncommon, shared
    rows[r, 3], rows[r, 4], rows[r, 5] = weight, kept_weight, n_kept


@njit(cache=True, nogil=True)
def held(instance: Any, rows: Any, instances: Any, fields: Any, mode: Any, numerator: Any, denominator: Any) -> Any:
    """Flags of an instance whose fields were measured into `rows`; 0 where the message does not hold it.

    The mean of several fields that is within UNSURE of the threshold is flagged: fractions decide it later.
    """
    first, n_fields = instances[instance, FIRST], instances[instance, FIRST + 1] - instances[instance, FIRST]
    counted, short = instances[instance, COUNTED], instances[instance, BRIEF]
    if mode == COVERAGE and not short:
        if n_fields == 1:
            n, common = fields[first, SIZE], fields[first, COMMON]
            if rows[0, 0] * denominator <= numerator * n:
                return 0
            return EXACT | (CAPPED if rows[0, 1] * denominator > numerator * (n - common) else 0)
        score, kept = 0.0, 0.0
        for f in range(n_fields):
            n, common = fields[first + f, SIZE], fields[first + f, COMMON]
            score += rows[f, 0] / n if n else 0.0
            kept += rows[f, 1] / (n - common) if n > common else 0.0
        limit = (numerator / denominator - UNSURE) * counted
        if score <= limit:
            return 0
        return EXACT | (CAPPED if kept > limit else 0)
    if mode == ANY and not short:
        kept_windows = 0
        for f in range(n_fields):
            kept_windows += rows[f, 5]
        return EXACT | (CAPPED if kept_windows else 0)
    if mode == IDF and not short:
        weight, kept_weight, total = 0, 0, 0
        for f in range(n_fields):
            weight += rows[f, 3]
            kept_weight += rows[f, 4]
            total += fields[first + f, TOTAL]
        if total == 0 or weight * denominator < numerator * total:
            return 0
        return EXACT | (CAPPED if kept_weight * denominator >= numerator * total else 0)
    kept_whole = True
    for f in range(n_fields):
        n = fields[first + f, SIZE]
        if n == 0 and counted < n_fields:  # an empty field that is left out
            continue
        if rows[f, 0] < n or n == 0:
            return 0
        kept_whole &= rows[f, 5] > 0
    return SHORT if short else EXACT | (CAPPED if kept_whole else 0)


@njit(cache=True, nogil=True)
def write_runs(
    field: Any, number: Any, stands: Any, place: Any, fields: Any, window_phrase: Any, found: Any, froms: Any,
    tos: Any, runs: Any, n: Any,
) -> Any:  # fmt: skip
    """Writes the maximal runs of matching windows of a field from index n on; the new n, -1 where there is no room."""
    first, last = fields[field, WINDOWS], fields[field, WINDOWS + 1]
    width = fields[field, SIZE] - (last - first) + 1
    eval_from, eval_to, word_from, word_to, last_from = 0, -1, 0, 0, 0
    for w in range(first, last + 1):
        word, size, start, stop = 0, 0, 0, 0
        if w < last:
            phrase = np.int64(window_phrase[w])
            if not is_set(stands, phrase):
                continue
            word, size = found[place[phrase], 1], found[place[phrase], 2]
            start = w - first
            stop = start + width
            if eval_to >= 0 and start <= eval_to and last_from <= word <= word_to:
                eval_to, last_from = stop, word
                word_to = max(word_to, word + size)
                continue
        if eval_to >= 0:
            if n == runs.shape[0]:
                return -1
            runs[n, 0], runs[n, 1], runs[n, 2] = froms[word_from], tos[word_to - 1], number
            runs[n, 3], runs[n, 4] = eval_from, eval_to
            n += 1
        eval_from, eval_to, word_from, word_to, last_from = start, stop, word, word + size, word
    return n


@njit(cache=True, nogil=True)
def cover(
    buf: Any, text_starts: Any, text_stops: Any, first_text: Any, separators: Any, lower: Any, by_characters: Any,
    vocab_table: Any, vocab_ids: Any, vocab_starts: Any, vocab_text: Any,
    orders: Any, bitmap: Any, table: Any, entries: Any, phrase_words: Any, phrase_common: Any,
    kept_starts: Any, kept_instance: Any, instances: Any, fields: Any, common_before: Any, window_phrase: Any,
    window_weight: Any, mode: Any, numerator: Any, denominator: Any, phrase_hits: Any, most_hits: Any,
    mask: Any, hashes: Any, begins: Any, ends: Any, keys: Any, left: Any, side: Any, ids: Any, froms: Any, tos: Any,
    stands: Any, place: Any, found: Any, instance_bits: Any, summary: Any, candidates: Any, rows: Any,
    out: Any, out_score: Any, out_fields: Any, out_runs: Any, counts: Any,
) -> Any:  # fmt: skip
    """Judges the texts from `first_text` on; returns the number of the first one that is not judged.

    counts = [matches, fields, runs] written so far, then what is full (0 nothing, 1 words, 2 matches) and the room that
    is needed. A row of `out` is text, instance, flags, first field, first run, runs.
    """
    for t in range(first_text, text_starts.size):
        start, stop = text_starts[t], text_stops[t]
        if stop - start + 1 > hashes.size:
            counts[3], counts[4] = 1, stop - start + 1
            return t
        n = tokenise(buf, start, stop, False, separators, lower, mask, side, hashes, begins, ends, 0)
        n_found = find_phrases(
            buf, begins, ends, separators, lower, side, vocab_table, vocab_ids, vocab_starts, vocab_text,
            ids, hashes, n, orders, bitmap, table, entries, phrase_words, keys, left, stands, place, phrase_hits,
            most_hits, found,
        )  # fmt: skip
        # A flagged instance has matched one of its kept windows.
        n_candidates = in_order(found, n_found, kept_starts, kept_instance, instance_bits, summary, candidates)

        before = (counts[0], counts[1], counts[2])
        placed, full = False, False
        for c in range(n_candidates):
            instance = candidates[c]
            first, last = instances[instance, FIRST], instances[instance, FIRST + 1]
            for field in range(first, last):
                measure(field, stands, fields, window_phrase, window_weight, phrase_common, common_before,
                        rows, field - first)  # fmt: skip
            flags = held(instance, rows, instances, fields, mode, numerator, denominator)
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
                r, told = field - first, counts[1]
                size, common = fields[field, SIZE], fields[field, COMMON]
                score += rows[r, 0] / size if size else 0.0
                kept_score += rows[r, 1] / (size - common) if size > common else 0.0
                n_covered += rows[r, 0]
                n_shared += rows[r, 2]
                out_fields[told, 0], out_fields[told, 1] = rows[r, 0], size
                out_fields[told, 2], out_fields[told, 3] = rows[r, 1], size - common
                out_fields[told, 4], out_fields[told, 5] = rows[r, 3], rows[r, 4]
                out_fields[told, 6] = fields[field, TOTAL]
                counts[1] += 1
                if rows[r, 0]:
                    n_runs = write_runs(field, r, stands, place, fields, window_phrase, found, froms,
                                        tos, out_runs, counts[2])  # fmt: skip
                    if n_runs < 0:
                        full = True
                        break
                    counts[2] = n_runs
            if full:
                break
            out[match, 5] = counts[2] - out[match, 4]
            out_score[match, 0] = score / instances[instance, COUNTED]
            out_score[match, 1] = kept_score / instances[instance, COUNTED]
            out_score[match, 2] = n_shared / n_covered if n_covered else 0.0
            counts[0] += 1
        for f in range(n_found):
            stands[found[f, 0] >> 6] = U(0)
        if full:  # this text again, in an emptier array
            counts[0], counts[1], counts[2] = before
            counts[3], counts[4] = 2, 0
            return t
    counts[3] = 0
    return text_starts.size
