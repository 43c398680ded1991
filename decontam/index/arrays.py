"""Evals under a rule as arrays: vocabulary, phrases, who owns them, and the keys of the gate."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from decontam.index.gate import checks_of_phrases, choose_keys, keep, keys_of_phrases, left_out_order
from decontam.index.tables import by_order, power_above, table_of
from decontam.kernel import PADDING
from decontam.kernel.cover import ANY, COVERAGE, IDF, WHOLE
from decontam.kernel.gate import ORDERS
from decontam.kernel.tables import lower_table, separator_table
from decontam.kernel.words import MASK_ROOM, tokenise
from decontam.rules import IDF_UNIT, Rule
from decontam.types import EvalSet, Field

Array = np.ndarray[Any, Any]
MODES = {"coverage": COVERAGE, "any": ANY, "idf": IDF, "whole": WHOLE}
LEFT_OUT = (
    "window_field",
    "window_instance",
    "window_from",
    "window_to",
    "field_windows",
    "instance_short",
    "field_total",
)
GATE_BITS = 1 << 23  # of the gate's bitmap at most


@dataclass(frozen=True, slots=True)
class Instances:
    """All fields of all instances in order. `of` has the instance of each field, `first` the first field of each.

    `counted` is how many fields the mean is over: a dropped empty field keeps its place and counts for nothing.
    """

    fields: list[Field]
    of: list[int]
    first: list[int]
    short: list[bool]
    skipped: list[bool]
    counted: list[int]


def arrays_of(
    evals: Sequence[EvalSet], rule: Rule, *, cap: int, short: bool, drop_empty_fields: bool
) -> dict[str, Array]:
    """Every array of an index, by name. Instances are numbered in the order of `evals`."""
    instances = read_instances(evals, rule, short=short, drop_empty_fields=drop_empty_fields)
    found = _windows(instances)
    found |= _fields(instances)
    found |= _owners(found, cap, rule, len(instances.short) - sum(instances.skipped))
    found |= _words(found.pop("vocabulary"), rule)
    found |= _phrase_tables(found)
    found |= _gate(found, rule)
    found |= _rows(found)
    found["window_phrase"] = found["window_phrase"].astype(np.uint32)
    if rule.score != "idf":
        found["window_weight"] = np.zeros(0, np.int64)
    return {name: array for name, array in found.items() if name not in LEFT_OUT}


def _rows(found: dict[str, Any]) -> dict[str, Array]:
    """What the kernel asks of a field, and of an instance, in one place each (see kernel.cover for the columns)."""
    windows, spans, first = found["field_windows"], found["span_starts"], found["instance_fields"]
    fields = np.zeros((found["field_n"].size, 8), np.int64)  # a cache line each
    columns = (windows[:-1], windows[1:], found["field_n"], found["field_common"], found["field_total"], spans[:-1])
    for number, column in enumerate(columns):
        fields[:, number] = column
    instances = np.zeros((first.size - 1, 4), np.int64)
    for number, column in enumerate((first[:-1], first[1:], found["instance_counted"], found["instance_short"])):
        instances[:, number] = column
    return {"fields": fields, "instances": instances}


def read_instances(evals: Sequence[EvalSet], rule: Rule, *, short: bool, drop_empty_fields: bool) -> Instances:
    """The instances with their fields under the rule. One that lacks a field has none and is marked as skipped."""
    from decontam.windows import fields_of, short_field

    rows = [row for each in evals for row in each.texts]
    texts = list(dict.fromkeys(text for row in rows for text in row if text is not None))
    gc.disable()  # millions of small tuples and no cycles: collecting takes as long as making them
    try:
        by_text = dict(zip(texts, fields_of(rule, texts), strict=True))
    finally:
        gc.enable()
    read = Instances([], [], [], [], [], [])
    for number, row in enumerate(rows):
        own = [by_text[text] for text in row if text is not None]
        skipped = len(own) < len(row)
        unseen = short and not skipped and not any(field.windows for field in own)
        whole = [short_field(text) for text in row if text is not None] if unseen else []
        is_short = bool(whole) and all(field is not None for field in whole)
        read.first.append(len(read.fields))
        read.short.append(is_short)
        read.skipped.append(skipped)
        read.counted.append(sum(1 for field in own if field.n) if drop_empty_fields else len(row))
        if not skipped:
            read.fields.extend([field for field in whole if field is not None] if is_short else own)
            read.of.extend([number] * len(row))
    read.first.append(len(read.fields))
    return read


def _fields(instances: Instances) -> dict[str, Array]:
    n = np.array([field.n for field in instances.fields], np.int64)
    spans = np.array([place for field in instances.fields for place in field.spans], np.uint32).reshape(-1, 2)
    return {
        "field_instance": np.array(instances.of, np.uint32),
        "field_n": n,
        "instance_fields": np.array(instances.first, np.int64),
        "instance_short": np.array(instances.short, np.uint8),
        "instance_counted": np.maximum(1, np.array(instances.counted, np.int64)),
        "instance_skipped": np.array(instances.skipped, np.uint8),
        "span_starts": np.concatenate([[0], np.cumsum(n)]).astype(np.int64),
        "span_from": np.ascontiguousarray(spans[:, 0]),
        "span_to": np.ascontiguousarray(spans[:, 1]),
    }


def _windows(instances: Instances) -> dict[str, Any]:
    """Windows with the number of their phrase; phrases as word numbers; the vocabulary. Phrase 0 has no words."""
    phrases: dict[tuple[str, ...], int] = {(): 0}
    of_field = [(number, w) for number, field in enumerate(instances.fields) for w in field.windows]
    phrase = [phrases.setdefault(w.phrase, len(phrases)) for _, w in of_field]
    vocabulary: dict[str, int] = {}
    words = [vocabulary.setdefault(word, len(vocabulary)) for known in phrases for word in known]
    field = np.array([number for number, _ in of_field], np.int64)
    return {
        "vocabulary": list(vocabulary),
        "phrase_starts": np.concatenate([[0], np.cumsum([len(p) for p in phrases])]).astype(np.int64),
        "phrase_words": np.array(words, np.uint32),
        "field_windows": np.concatenate([[0], np.cumsum([len(f.windows) for f in instances.fields])]).astype(np.int64),
        "window_phrase": np.array(phrase, np.int64),
        "window_field": field,
        "window_instance": np.array(instances.of, np.int64)[field] if field.size else field,
        "window_from": np.array([w.start for _, w in of_field], np.int64),
        "window_to": np.array([w.stop for _, w in of_field], np.int64),
    }


def _n_phrases(found: dict[str, Any]) -> int:
    return int(found["phrase_starts"].size) - 1


def _owners(found: dict[str, Any], cap: int, rule: Rule, n_instances: int) -> dict[str, Any]:
    """How many instances own each phrase, what is common, and the weights of the idf rule."""
    phrase, instance = found["window_phrase"], found["window_instance"]
    n_phrases = _n_phrases(found)
    _, at = np.unique(phrase * (int(instance.max(initial=0)) + 1) + instance, return_index=True)
    # A whole short text is no window of the rule, and phrase 0, without words, stands nowhere.
    at = at[(found["instance_short"][instance[at]] == 0) & (phrase[at] > 0)]
    owners = np.bincount(phrase[at], minlength=n_phrases)
    common = (owners > cap).astype(np.uint8)
    weight = np.zeros(phrase.size, np.int64)
    if rule.score == "idf":
        of_phrase = np.array([round(math.log(n_instances / n) * IDF_UNIT) if n else 0 for n in owners], np.int64)
        weight[at] = of_phrase[phrase[at]]  # once an instance, at its first window
    fields = found["field_n"].size
    return {
        "phrase_owners": owners.astype(np.uint32),
        "phrase_common": common,
        "window_weight": weight,
        "field_total": np.bincount(found["window_field"], weights=weight, minlength=fields).astype(np.int64),
    } | _common(found, common)


def _common(found: dict[str, Any], common: Array) -> dict[str, Array]:
    """For each position how many before it are covered by common windows of its field, counted through all fields."""
    covered = np.zeros(int(found["span_starts"][-1]), np.bool_)
    base = found["span_starts"][:-1]
    for w in np.flatnonzero(common[found["window_phrase"]]):
        start = base[found["window_field"][w]]
        covered[start + found["window_from"][w] : start + found["window_to"][w]] = True
    before = np.concatenate([[0], np.cumsum(covered)]).astype(np.uint32)
    return {"common_before": before, "field_common": np.diff(before[found["span_starts"]])}


def _words(vocabulary: list[str], rule: Rule) -> dict[str, Array]:
    """The vocabulary as padded bytes, its hashes, and the table that finds a word by its hash."""
    encoded = [word.encode("utf-8", "surrogatepass") for word in vocabulary]
    starts = np.concatenate([[0], np.cumsum([len(word) for word in encoded])]).astype(np.int64)
    hashes = hash_words(encoded, rule)
    order = np.argsort(hashes | np.uint64(1), kind="stable")
    table, at = table_of((hashes | np.uint64(1))[order])
    return {
        "word_hashes": hashes,
        "vocab_starts": starts,
        "vocab_text": np.frombuffer(b"".join(encoded) + bytes(PADDING), np.uint8),
        "vocab_table": table,
        "vocab_ids": order.astype(np.uint32)[at] if table.size else at,
    }


def hash_words(encoded: Sequence[bytes], rule: Rule) -> Array:
    """The kernel's hash of each word."""
    text = np.frombuffer(b" ".join(encoded) + bytes(PADDING), np.uint8)
    room = text.size + 1
    begins, ends = np.zeros(room, np.int32), np.zeros(room, np.int32)
    mask = np.zeros(room + MASK_ROOM, np.uint8)
    hashes, side = np.zeros(room, np.uint64), np.zeros(256, np.uint8)
    separators, lower = separator_table(rule.analyzer), lower_table(rule.analyzer)
    n = tokenise(text, 0, text.size - PADDING, False, separators, lower, mask, side, hashes, begins, ends, 0)
    assert n == len(encoded)
    return hashes[:n]


def _phrase_tables(found: dict[str, Any]) -> dict[str, Array]:
    """For phrases of one to four words a table each, one by the first five words for longer ones; phrases by key."""
    starts, words, hashes = found["phrase_starts"], found["phrase_words"], found["word_hashes"]
    size = np.diff(starts)
    keys, members = {}, []
    n_members = 0
    for order in (5, 4, 3, 2, 1):
        of_order = np.flatnonzero(np.minimum(size, 5) == order)
        unique, inverse = np.unique(keys_of_phrases(of_order, starts, words, hashes, order), return_inverse=True)
        many = np.bincount(inverse, minlength=unique.size)
        keys[order] = unique, n_members + np.cumsum(many) - many, many
        members.append(of_order[np.argsort(inverse, kind="stable")])
        n_members += of_order.size
    phrases = np.concatenate(members)
    high = np.uint64(32)
    ends = size[phrases].astype(np.uint64) << high | words[starts[1:][phrases] - 1].astype(np.uint64)
    begins = phrases.astype(np.uint64) << high | starts[phrases].astype(np.uint64)
    tables = dict(zip(("orders", "bitmap", "table"), by_order(keys), strict=True))
    return tables | {"entries": np.stack([ends, begins], axis=1)}


def _gate(found: dict[str, Any], rule: Rule) -> dict[str, Array]:
    """The keys of the gate by their number of words."""
    phrase, instance = found["window_phrase"], found["window_instance"]
    size = np.diff(found["phrase_starts"])[phrase]
    order = left_out_order(size, found["phrase_owners"][phrase].astype(np.int64), instance, found["window_from"])
    kept = np.zeros(phrase.size, np.uint8)
    keep(
        order, instance, found["window_field"], found["window_from"], found["window_to"], found["window_weight"], size,
        found["instance_fields"], found["instance_counted"], found["instance_short"], found["field_n"],
        found["field_total"], MODES[rule.score], rule.threshold.numerator, rule.threshold.denominator, kept,
    )  # fmt: skip
    windows = np.flatnonzero(kept)
    chosen, orders = np.zeros(windows.size, np.uint64), np.zeros(windows.size, np.int64)
    served, places = np.zeros(windows.size, np.int64), np.zeros(windows.size, np.int64)
    room = power_above(max(2, 2 * windows.size))
    table, numbers = np.zeros(room, np.uint64), np.zeros(room, np.int64)
    count = choose_keys(
        windows, phrase, found["phrase_starts"], found["phrase_words"], found["word_hashes"], table, numbers, chosen,
        orders, served, places,
    )  # fmt: skip
    by_phrase = windows[np.argsort(phrase[windows], kind="stable")]
    owned = np.bincount(phrase[by_phrase], minlength=_n_phrases(found))
    made: dict[str, Array] = {
        "kept_starts": np.concatenate([[0], np.cumsum(owned)]).astype(np.int64),
        "kept_instance": instance[by_phrase].astype(np.uint32),
    }
    # What a key must stand in: each phrase that it serves, once.
    whole = np.unique(np.stack([served, phrase[windows], places], axis=1), axis=0)
    served, phrases, place = whole.T
    starts, size = found["phrase_starts"], np.diff(found["phrase_starts"])
    shape = place.astype(np.uint64) << np.uint64(32) | size[phrases].astype(np.uint64)
    checks = checks_of_phrases(phrases, starts, found["phrase_words"], found["word_hashes"])
    made["gate_entries"] = np.stack([checks, shape], axis=1)
    many = np.bincount(served, minlength=count)
    of_order = {n: np.flatnonzero(orders[:count] == n) for n in ORDERS}
    first = np.cumsum(many) - many
    tables = by_order({n: (chosen[at], first[at], many[at]) for n, at in of_order.items()}, GATE_BITS)
    made |= zip(("gate_orders", "gate_bitmap", "gate_table"), tables, strict=True)
    made["gate_counts"] = np.array([phrase.size, windows.size, count], np.int64)
    return made


def boilerplate_only(arrays: dict[str, Array]) -> list[int]:
    """Instances all of whose positions are common: the cap acquits every match of theirs."""
    first = arrays["instance_fields"]
    totals = [np.concatenate([[0], np.cumsum(arrays[name])])[first] for name in ("field_n", "field_common")]
    n, common = (np.diff(total) for total in totals)
    found: list[int] = np.flatnonzero((n > 0) & (n == common)).tolist()
    return found
