"""Coverage: which instances a decoded message holds, how much of them, and where.

Words are looked up in the vocabulary by hash and compared as strings; phrases are then compared as word ids. So nothing
is decided by a hash alone. Each phrase counts where it first stands in the message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.bits import count_ones, load64
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
    ids: Any, keys: Any, left: Any, k: Any, order: Any, n: Any,
    table: Any, group: Any, group_starts: Any, group_phrases: Any, phrase_starts: Any, phrase_words: Any,
    seen: Any, stamp: Any, hits: Any, most_hits: Any, found: Any, places: Any, n_found: Any,
) -> Any:  # fmt: skip
    """Adds each phrase that stands at one of the sieved windows, where it stands first; the new number found.

    With `most_hits` a phrase counts in so many messages only, as in an Elasticsearch that returns so many hits.
    """
    for c in range(k):
        last = np.int64(left[c])
        slot = in_table(table, keys[last])
        if slot < 0:
            continue
        at = last - order + 1
        g = np.int64(group[slot])
        for m in range(group_starts[g], group_starts[g + 1]):
            phrase = np.int64(group_phrases[m])
            if seen[phrase] == stamp:
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
            if equal:
                seen[phrase] = stamp
                if most_hits:
                    hits[phrase] += 1
                    if hits[phrase] > most_hits:
                        continue
                found[n_found] = phrase
                places[n_found] = at
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
def sort_hits(hits: Any, n: Any) -> None:
    """Sorts rows of hits by window start. They come in reverse order of the text, mostly: heap sort bounds the rest."""
    for i in range(n // 2):
        for c in range(4):
            hits[i, c], hits[n - 1 - i, c] = hits[n - 1 - i, c], hits[i, c]
    moves = 0
    for i in range(1, n):
        j = i
        while j > 0 and (hits[j - 1, 0] > hits[j, 0]):
            for c in range(4):
                hits[j, c], hits[j - 1, c] = hits[j - 1, c], hits[j, c]
            j -= 1
            moves += 1
        if moves > 64 * n + 1000:
            break
    else:
        return
    order = np.argsort(hits[:n, 0])
    copy = hits[:n].copy()
    for i in range(n):
        hits[i] = copy[order[i]]


@njit(cache=True, nogil=True)
def cover(
    buf: Any, text_starts: Any, text_stops: Any, first_text: Any, separators: Any, lower: Any, by_characters: Any,
    vocab_table: Any, vocab_ids: Any, vocab_starts: Any, vocab_text: Any,
    bitmap5: Any, table5: Any, group5: Any, bitmap4: Any, table4: Any, group4: Any, bitmap3: Any, table3: Any,
    group3: Any, bitmap2: Any, table2: Any, group2: Any, bitmap1: Any, table1: Any, group1: Any,
    group_starts: Any, group_phrases: Any, phrase_starts: Any, phrase_words: Any,
    post_starts: Any, post_field: Any, post_from: Any, post_to: Any, post_weight: Any, post_common: Any,
    field_instance: Any, field_n: Any, field_bits: Any, common_bits: Any, field_total: Any, instance_fields: Any,
    instance_short: Any, mode: Any, numerator: Any, denominator: Any, phrase_hits: Any, most_hits: Any,
    gaps: Any, hashes: Any, begins: Any, ends: Any, keys: Any, left: Any, side: Any, ids: Any, froms: Any, tos: Any,
    seen: Any, stamps: Any, found: Any, places: Any,
    field_stamp: Any, field_head: Any, bits: Any, kept_bits: Any, field_weight: Any, kept_weight: Any, touched: Any,
    instance_stamp: Any, flagged: Any, node_next: Any, node: Any, hits: Any,
    out: Any, out_score: Any, out_fields: Any, out_runs: Any, counts: Any,
) -> Any:  # fmt: skip
    """Judges the texts from `first_text` on; returns the number of the first one that is not judged.

    counts = [matches, fields, runs] written so far, then the kind of array that is full (0 none, 1 words, 2 nodes,
    3 matches) and the room that is needed. A row of `out` is text, instance, flags, first field, first run, runs.
    `bits` and `kept_bits` must be as long as `common_bits`; `stamps` holds the last stamp that was used.
    """
    for t in range(first_text, text_starts.size):
        start, stop = text_starts[t], text_stops[t]
        if stop - start + 1 > gaps.size:
            counts[3], counts[4] = 1, stop - start + 1
            return t
        n = tokenise(buf, start, stop, False, separators, lower, gaps, side, hashes, begins, ends, 0)
        word_ids(
            buf, hashes, begins, ends, n, separators, lower, side, vocab_table, vocab_ids, vocab_starts, vocab_text, ids
        )
        stamps[0] += 1
        stamp = stamps[0]
        n_found = 0
        if table5.size:
            keys_of(hashes, min(4, n), n, 5, keys)
            k = sieve(keys, min(4, n), n, bitmap5, left)
            n_found = find_phrases(
                ids, keys, left, k, 5, n, table5, group5, group_starts, group_phrases, phrase_starts, phrase_words,
                seen, stamp, phrase_hits, most_hits, found, places, n_found,
            )  # fmt: skip
        if table4.size:
            keys_of(hashes, min(3, n), n, 4, keys)
            k = sieve(keys, min(3, n), n, bitmap4, left)
            n_found = find_phrases(
                ids, keys, left, k, 4, n, table4, group4, group_starts, group_phrases, phrase_starts, phrase_words,
                seen, stamp, phrase_hits, most_hits, found, places, n_found,
            )  # fmt: skip
        if table3.size:
            keys_of(hashes, min(2, n), n, 3, keys)
            k = sieve(keys, min(2, n), n, bitmap3, left)
            n_found = find_phrases(
                ids, keys, left, k, 3, n, table3, group3, group_starts, group_phrases, phrase_starts, phrase_words,
                seen, stamp, phrase_hits, most_hits, found, places, n_found,
            )  # fmt: skip
        if table2.size:
            keys_of(hashes, min(1, n), n, 2, keys)
            k = sieve(keys, min(1, n), n, bitmap2, left)
            n_found = find_phrases(
                ids, keys, left, k, 2, n, table2, group2, group_starts, group_phrases, phrase_starts, phrase_words,
                seen, stamp, phrase_hits, most_hits, found, places, n_found,
            )  # fmt: skip
        if table1.size:
            keys_of(hashes, 0, n, 1, keys)
            k = sieve(keys, 0, n, bitmap1, left)
            n_found = find_phrases(
                ids, keys, left, k, 1, n, table1, group1, group_starts, group_phrases, phrase_starts, phrase_words,
                seen, stamp, phrase_hits, most_hits, found, places, n_found,
            )  # fmt: skip
        if not n_found:
            continue

        # Every window of every found phrase covers its positions.
        n_touched, n_nodes = 0, 0
        for f in range(n_found):
            phrase = np.int64(found[f])
            n_nodes += post_starts[phrase + 1] - post_starts[phrase]
        if n_nodes > node_next.size:
            counts[3], counts[4] = 2, n_nodes
            return t
        n_nodes = 0
        for f in range(n_found):
            phrase = np.int64(found[f])
            common = post_common[phrase]
            for p in range(post_starts[phrase], post_starts[phrase + 1]):
                field = np.int64(post_field[p])
                base = field_bits[field]
                if field_stamp[field] != stamp:
                    field_stamp[field] = stamp
                    touched[n_touched] = field
                    n_touched += 1
                    field_head[field] = -1
                    field_weight[field] = 0
                    kept_weight[field] = 0
                    for w in range(base, field_bits[field + 1]):
                        bits[w] = U(0)
                        kept_bits[w] = U(0)
                field_weight[field] += post_weight[p]
                if not common:
                    kept_weight[field] += post_weight[p]
                node_next[n_nodes] = field_head[field]
                field_head[field] = n_nodes
                node[n_nodes, 0], node[n_nodes, 1] = post_from[p], post_to[p]
                node[n_nodes, 2], node[n_nodes, 3] = places[f], phrase_starts[phrase + 1] - phrase_starts[phrase]
                n_nodes += 1
                a, b = np.int64(post_from[p]), np.int64(post_to[p])
                while a < b:
                    word = base + (a >> 6)
                    upto = min(b, ((a >> 6) + 1) << 6)
                    ones = (~U(0) >> U(64 - (upto - a))) << U(a & 63)
                    bits[word] |= ones
                    if not common:
                        kept_bits[word] |= ones
                    a = upto

        # Which instances are held.
        n_flagged = 0
        for f in range(n_touched):
            instance = np.int64(field_instance[touched[f]])
            if instance_stamp[instance] == stamp:
                continue
            instance_stamp[instance] = stamp
            first, last = instance_fields[instance], instance_fields[instance + 1]
            score, kept_score = 0.0, 0.0
            whole, any_hit, any_kept, matched, kept, total = True, False, False, 0, 0, 0
            single, single_n = 0, 0
            for field in range(first, last):
                size = np.int64(field_n[field])
                total += field_total[field]
                if field_stamp[field] != stamp:
                    whole = False
                    continue
                covered, uncommon, n_common = 0, 0, 0
                for w in range(field_bits[field], field_bits[field + 1]):
                    covered += count_ones(bits[w])
                    uncommon += count_ones(kept_bits[w] & ~common_bits[w])
                    n_common += count_ones(common_bits[w])
                    if kept_bits[w]:
                        any_kept = True
                any_hit = True
                single, single_n = covered, size
                whole &= covered == size
                score += covered / size
                if size > n_common:
                    kept_score += uncommon / (size - n_common)
                matched += field_weight[field]
                kept += kept_weight[field]
            n_fields = last - first
            limit = numerator / denominator
            if mode == COVERAGE and not instance_short[instance]:
                flag = (
                    single * denominator > numerator * single_n if n_fields == 1 else score / n_fields > limit - UNSURE
                )
                capped = flag and kept_score / n_fields > limit + (UNSURE if n_fields == 1 else -UNSURE)
                if n_fields == 1 and flag:
                    c, m = np.int64(0), np.int64(0)
                    for w in range(field_bits[first], field_bits[first + 1]):
                        c += count_ones(kept_bits[w] & ~common_bits[w])
                        m += count_ones(common_bits[w])
                    capped = c * denominator > numerator * (single_n - m)
            elif mode == ANY:
                flag, capped = any_hit, any_kept
            elif mode == IDF:
                flag = total > 0 and matched * denominator >= numerator * total
                capped = flag and kept * denominator >= numerator * total
            else:
                flag = whole
                capped = flag and any_kept
            if flag:
                flagged[n_flagged] = instance * 2 + np.int64(capped)
                n_flagged += 1
        if not n_flagged:
            continue
        flagged[:n_flagged].sort()
        if by_characters:
            characters(buf, start, begins, ends, n, froms, tos)
        else:
            for j in range(n):
                froms[j], tos[j] = j, j + 1

        before = (counts[0], counts[1], counts[2])
        for f in range(n_flagged):
            instance, capped = flagged[f] >> 1, flagged[f] & 1
            first, last = instance_fields[instance], instance_fields[instance + 1]
            if counts[0] >= out.shape[0] or counts[1] + last - first > out_fields.shape[0]:
                counts[0], counts[1], counts[2] = before
                counts[3], counts[4] = 3, 0
                return t
            row = counts[0]
            flags = SHORT if instance_short[instance] else EXACT | (CAPPED if capped else 0)
            out[row, 0], out[row, 1], out[row, 2], out[row, 3], out[row, 4] = t, instance, flags, counts[1], counts[2]
            score, kept_score, n_covered, n_shared = 0.0, 0.0, 0, 0
            for field in range(first, last):
                covered, uncommon, n_common = 0, 0, 0
                for w in range(field_bits[field], field_bits[field + 1]):
                    n_common += count_ones(common_bits[w])
                    if field_stamp[field] == stamp:
                        covered += count_ones(bits[w])
                        uncommon += count_ones(kept_bits[w] & ~common_bits[w])
                        n_shared += count_ones(bits[w] & common_bits[w])
                size = np.int64(field_n[field])
                n_covered += covered
                if size:
                    score += covered / size
                if size > n_common:
                    kept_score += uncommon / (size - n_common)
                written = counts[1]
                out_fields[written, 0], out_fields[written, 1] = covered, size
                out_fields[written, 2], out_fields[written, 3] = uncommon, size - n_common
                out_fields[written, 4], out_fields[written, 5] = field_weight[field], kept_weight[field]
                if field_stamp[field] != stamp:
                    out_fields[written, 4], out_fields[written, 5] = 0, 0
                out_fields[written, 6] = field_total[field]
                counts[1] += 1
                if field_stamp[field] != stamp:
                    continue
                n_hits, at = 0, field_head[field]
                while at >= 0:
                    if n_hits == hits.shape[0]:
                        counts[0], counts[1], counts[2] = before
                        counts[3], counts[4] = 2, 2 * hits.shape[0]
                        return t
                    for c in range(4):
                        hits[n_hits, c] = node[at, c]
                    n_hits += 1
                    at = node_next[at]
                sort_hits(hits, n_hits)
                h = 0
                while h < n_hits:
                    eval_from, eval_to = hits[h, 0], hits[h, 1]
                    word_from, word_to = hits[h, 2], hits[h, 2] + hits[h, 3]
                    last_from = word_from
                    h += 1
                    while h < n_hits and hits[h, 0] <= eval_to and last_from <= hits[h, 2] <= word_to:
                        eval_to = max(eval_to, hits[h, 1])
                        last_from = hits[h, 2]
                        word_to = max(word_to, last_from + hits[h, 3])
                        h += 1
                    if counts[2] == out_runs.shape[0]:
                        counts[0], counts[1], counts[2] = before
                        counts[3], counts[4] = 3, 0
                        return t
                    r = counts[2]
                    out_runs[r, 0], out_runs[r, 1], out_runs[r, 2] = froms[word_from], tos[word_to - 1], field - first
                    out_runs[r, 3], out_runs[r, 4] = eval_from, eval_to
                    counts[2] += 1
            out[row, 5] = counts[2] - out[row, 4]
            out_score[row, 0] = score / (last - first)
            out_score[row, 1] = kept_score / (last - first)
            out_score[row, 2] = n_shared / n_covered if n_covered else 0.0
            counts[0] += 1
    counts[3] = 0
    return text_starts.size
