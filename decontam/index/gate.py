"""Which windows the gate must know: a set that no flagged message can do without, and a run of words for each.

For each instance windows are left out, short and common ones first, as long as the left-out windows together could not
flag it. Any message that is flagged then matches a kept window. A kept window is known by a run of five of its words,
or three, two, one where it has fewer; one run serves all windows that hold it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from decontam.kernel.bits import rotate
from decontam.kernel.cover import ANY, COVERAGE, IDF, UNSURE
from decontam.kernel.gate import check_of
from decontam.kernel.words import PRIME, STEP, U

Array = np.ndarray[Any, Any]
COMMON = 8  # instances that own a window above which it is better left out
KEY_WORDS = np.array([0, 1, 2, 3, 3, 5], np.int64)  # words of a key by words of the phrase, 5 above


def left_out_order(words: Array, owners: Array, instance: Array, start: Array) -> Array:
    """Indices of windows by instance, those first that are better left out. All arrays are by window."""
    shortness = np.where(words < 3, 2, np.where(words < 5, 1, 0))
    commonness = np.where(owners > COMMON, owners, 0)
    return np.lexsort((start, -commonness, -shortness, instance))


@njit(cache=True, nogil=True)
def keep(
    order: Any, window_instance: Any, window_field: Any, window_from: Any, window_to: Any, window_weight: Any,
    window_words: Any, instance_fields: Any, instance_counted: Any, instance_short: Any, field_n: Any, field_total: Any,
    mode: Any, numerator: Any, denominator: Any, kept: Any,
) -> None:  # fmt: skip
    """Sets kept[w] for the windows of the sufficient set. `order` has the windows grouped by instance."""
    n = order.size
    longest = 0
    for f in range(field_n.size):
        longest = max(longest, field_n[f])
    most_fields = 1
    for i in range(instance_fields.size - 1):
        most_fields = max(most_fields, instance_fields[i + 1] - instance_fields[i])
    covered = np.zeros((most_fields, longest), np.uint8)
    a = 0
    while a < n:
        instance = window_instance[order[a]]
        b = a
        while b < n and window_instance[order[b]] == instance:
            b += 1
        first, last = instance_fields[instance], instance_fields[instance + 1]
        if mode == ANY and not instance_short[instance]:
            for c in range(a, b):
                kept[order[c]] = window_words[order[c]] > 0
        elif mode == IDF and not instance_short[instance]:
            total, out = 0, 0
            for f in range(first, last):
                total += field_total[f]
            for c in range(a, b):
                w = order[c]
                if (out + window_weight[w]) * denominator < numerator * total:
                    out += window_weight[w]
                else:
                    kept[w] = total > 0
        elif mode == COVERAGE and not instance_short[instance]:
            for f in range(first, last):
                covered[f - first, : field_n[f]] = 0
            counts = np.zeros(last - first, np.int64)
            for c in range(a, b):
                w = order[c]
                f = window_field[w]
                new = 0
                for p in range(window_from[w], window_to[w]):
                    new += covered[f - first, p] == 0
                counts[f - first] += new
                if last - first == 1:
                    flagged = counts[0] * denominator > numerator * field_n[first]
                else:
                    score = 0.0
                    for g in range(first, last):
                        if field_n[g]:
                            score += counts[g - first] / field_n[g]
                    flagged = score / instance_counted[instance] > numerator / denominator - UNSURE
                if flagged and window_words[w]:
                    counts[f - first] -= new
                    kept[w] = 1
                elif window_words[w]:
                    for p in range(window_from[w], window_to[w]):
                        covered[f - first, p] = 1
                else:  # a window without words matches nothing
                    counts[f - first] -= new
        else:
            # The whole text must stand there: its longest window suffices.
            best = order[a]
            for c in range(a, b):
                if window_words[order[c]] > window_words[best]:
                    best = order[c]
            kept[best] = window_words[best] > 0
        a = b


@njit(cache=True, nogil=True)
def key_of(word_hashes: Any, phrase_words: Any, last: Any, n: Any) -> Any:
    """The window key of the n words of `phrase_words` that end at index `last`."""
    key = word_hashes[phrase_words[last]]
    for back in range(1, n):
        key += rotate(word_hashes[phrase_words[last - back]], 1 + STEP * back)
    return key * PRIME | U(1)


@njit(cache=True, nogil=True)
def choose_keys(
    windows: Any, window_phrase: Any, phrase_starts: Any, phrase_words: Any, word_hashes: Any, table: Any, numbers: Any,
    chosen: Any, orders: Any, served: Any, places: Any,
) -> Any:  # fmt: skip
    """Writes keys and their number of words so that each of `windows`, in order of text, holds one; how many.

    The last run of a window is taken, as it serves the windows after it; a run that is taken already serves too.
    served[i] is the number of the key of windows[i], places[i] the place in its phrase of the last word of the key.
    """
    count = 0
    mask = U(table.size - 1)
    for i in range(windows.size):
        phrase = window_phrase[windows[i]]
        first, stop = phrase_starts[phrase], phrase_starts[phrase + 1]
        n = KEY_WORDS[min(5, stop - first)]
        found = False
        slot = U(0)
        for last in range(first + n - 1, stop):
            key = key_of(word_hashes, phrase_words, last, n)
            slot = (key >> U(20)) & mask
            while table[slot] and table[slot] != key:
                slot = (slot + U(1)) & mask
            places[i] = last - first
            if table[slot]:
                found = True
                break
        if not found:  # the slot is the empty one where the last run belongs
            table[slot], numbers[slot] = key, count
            chosen[count], orders[count] = key, n
            count += 1
        served[i] = numbers[slot]
    return count


@njit(cache=True, nogil=True)
def keys_of_phrases(phrases: Any, phrase_starts: Any, phrase_words: Any, word_hashes: Any, n: Any) -> Any:
    """The window key of the first n words of each phrase."""
    keys = np.zeros(phrases.size, np.uint64)
    for i in range(phrases.size):
        keys[i] = key_of(word_hashes, phrase_words, phrase_starts[phrases[i]] + n - 1, n)
    return keys


@njit(cache=True, nogil=True)
def checks_of_phrases(phrases: Any, phrase_starts: Any, phrase_words: Any, word_hashes: Any) -> Any:
    """A hash over all words of each phrase, as kernel.gate.check_of takes it of a text."""
    checks = np.zeros(phrases.size, np.uint64)
    for i in range(phrases.size):
        first, stop = phrase_starts[phrases[i]], phrase_starts[phrases[i] + 1]
        checks[i] = check_of(word_hashes[phrase_words[first:stop]], 0, stop - first)
    return checks
