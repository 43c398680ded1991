"""What every rule decides, written down: each instance, each window, one message; no hash and no index.

It is slow and it is the specification: the index, the kernel and the reports decide, count and place as it does.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from decontam.rules import IDF_UNIT, Rule
from decontam.text import spans_of, words_of
from decontam.types import Field, Window
from decontam.windows import fields_of, short_field

Phrase = tuple[str, ...]
Instance = tuple[Field | None, ...]  # None: a field that is left out, which keeps its number but counts for nothing
Texts = Sequence[Sequence[str | None]]


class Placed(NamedTuple):
    """A window that stands in the message, first at its `at`-th word."""

    window: Window
    at: int


Held = tuple[tuple[Placed, ...], ...]  # of each field


@dataclass(frozen=True, slots=True)
class Coverage:
    """Positions covered, of how many, one number a field; `score` is the mean over the fields that count."""

    covered: tuple[int, ...]
    n: tuple[int, ...]
    score: Fraction


class Run(NamedTuple):
    """Windows that follow one another on both sides; offsets in characters, `k` positions of the eval field."""

    train_from: int
    train_to: int
    field: int
    eval_from: int
    eval_to: int
    k: int


@dataclass(frozen=True, slots=True)
class Found:
    """An instance that a message holds.

    `capped` is over the positions that no common window owns, covered by uncommon windows alone. `survives`: flagged
    under the cap too. `common_share` is the part of the covered positions that common windows own.
    """

    exact: Coverage
    capped: Coverage
    survives: bool
    common_share: Fraction
    runs: tuple[Run, ...]


def matches(
    rule: Rule, instances: Sequence[Instance | None], message: str, weights: Mapping[Phrase, int] | None = None
) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """{instance: (covered positions, positions) of each field} of those that the message holds."""
    found = {i: find(rule, one, message, weights=weights) for i, one in enumerate(instances) if one is not None}
    return {i: (hit.exact.covered, hit.exact.n) for i, hit in found.items() if hit}


def find(
    rule: Rule,
    instance: Instance,
    message: str,
    *,
    common: Collection[Phrase] = (),
    weights: Mapping[Phrase, int] | None = None,
) -> Found | None:
    """The instance as the message holds it, None where the rule does not flag it.

    The cap may acquit, never accuse: it judges what is flagged already. Coverage is taken anew over the positions that
    no common window owns; the other scores leave common windows out of what was found, and of nothing else.
    """
    words = words_of(rule.analyzer, message)
    held = tuple(_standing(field, words) for field in instance)
    if not flagged(rule, instance, held, weights):
        return None
    uncommon = tuple(tuple(p for p in placed if p.window.phrase not in common) for placed in held)
    owned = [_positions(w for w in _windows(field) if w.phrase in common) for field in instance]
    exact = coverage(instance, held)
    capped = coverage(instance, uncommon, owned)
    by_coverage = rule.score == "coverage"
    n_common = sum(len(_covered(placed) & own) for placed, own in zip(held, owned, strict=True))
    return Found(
        exact=exact,
        capped=capped,
        survives=capped.score > rule.threshold if by_coverage else flagged(rule, instance, uncommon, weights),
        common_share=Fraction(n_common, sum(exact.covered)),
        runs=tuple(run for number, placed in enumerate(held) for run in _runs(rule, instance, number, placed, message)),
    )


def flagged(rule: Rule, instance: Instance, held: Held, weights: Mapping[Phrase, int] | None = None) -> bool:
    """Whether the rule flags an instance of which these windows stand in one message."""
    match rule.score:
        case "coverage":
            return coverage(instance, held).score > rule.threshold
        case "any":
            return any(held)
        case "whole":
            counted = [placed for field, placed in zip(instance, held, strict=True) if field is not None]
            return bool(counted) and all(counted)
        case "idf":
            assert weights is not None, "idf needs weights: idf_weights(document_frequency(instances), n)"
            total = sum(weights[phrase] for phrase in phrases(instance))
            have = sum(weights[phrase] for phrase in {p.window.phrase for placed in held for p in placed})
            return total > 0 and Fraction(have, total) >= rule.threshold


def coverage(instance: Instance, held: Held, without: Sequence[set[int]] = ()) -> Coverage:
    """The positions of the windows held, `without` these; a field of no positions scores 0 and still counts."""
    owned = without or [set()] * len(instance)
    covered = tuple(len(_covered(placed) - own) for placed, own in zip(held, owned, strict=True))
    n = tuple(field.n - len(own) if field else 0 for field, own in zip(instance, owned, strict=True))
    shares = [Fraction(c, size) if size else Fraction(0) for c, size in zip(covered, n, strict=True)]
    counted = sum(field is not None for field in instance)
    return Coverage(covered, n, sum(shares, Fraction(0)) / max(1, counted))


def instances_of(rule: Rule, texts: Texts, *, drop_empty_fields: bool = False) -> list[Instance | None]:
    """Each instance under a rule; None for one that lacks a field, which is skipped.

    An empty text is a field of no positions and pulls the mean down; `drop_empty_fields` leaves it out.
    """
    return [_instance(rule, one, drop_empty_fields) for one in texts]


def short_instances(texts: Texts) -> list[Instance | None]:
    """What `--short exact` looks for, under the rule `exact`: the instances of which each field is short."""
    fields = [[None if text is None else short_field(text) for text in one] for one in texts]
    return [tuple(one) if one and None not in one else None for one in fields]


def phrases(instance: Instance) -> set[Phrase]:
    """The distinct phrases of an instance. One without words matches nothing and is left out."""
    return {window.phrase for field in instance for window in _windows(field) if window.phrase}


def document_frequency(instances: Iterable[Instance | None]) -> Counter[Phrase]:
    """In how many instances, of all evals loaded, each phrase stands. A repetition within one does not count."""
    return Counter(phrase for one in instances if one is not None for phrase in phrases(one))


def common_phrases(frequency: Mapping[Phrase, int], cap: int) -> frozenset[Phrase]:
    """Those that more than `cap` instances own."""
    return frozenset(phrase for phrase, df in frequency.items() if df > cap)


def idf_weights(frequency: Mapping[Phrase, int], n_instances: int) -> dict[Phrase, int]:
    """ln(N / df) in whole units of 1/IDF_UNIT, where N counts the instances that are not skipped."""
    return {phrase: round(math.log(n_instances / df) * IDF_UNIT) for phrase, df in frequency.items()}


def _instance(rule: Rule, texts: Sequence[str | None], drop_empty_fields: bool) -> Instance | None:
    present = [text for text in texts if text is not None]
    if len(present) < len(texts):
        return None
    fields = fields_of(rule, present)
    return tuple(field if field.n or not drop_empty_fields else None for field in fields)


def _windows(field: Field | None) -> tuple[Window, ...]:
    return field.windows if field else ()


def _standing(field: Field | None, words: Sequence[str]) -> tuple[Placed, ...]:
    """The windows of a field whose phrase stands in `words` in one piece, each at its first place."""
    # No analyzer leaves a newline in a word, so lines are words and a run of lines is a run of words.
    text = "\n".join(["", *words, ""])
    found = []
    for window in _windows(field):
        at = text.find("\n".join(["", *window.phrase, ""])) if window.phrase else -1
        if at >= 0:
            found.append(Placed(window, text.count("\n", 0, at)))
    return tuple(found)


def _covered(placed: Iterable[Placed]) -> set[int]:
    return _positions(window for window, _ in placed)


def _positions(windows: Iterable[Window]) -> set[int]:
    return {position for window in windows for position in range(window.start, window.stop)}


def _runs(rule: Rule, instance: Instance, number: int, placed: Iterable[Placed], message: str) -> list[Run]:
    """The windows of a field in order, joined while both sides go on without a gap and the message not backwards."""
    field, words = instance[number], spans_of(rule.analyzer, message)
    if field is None:
        return []
    joined: list[tuple[int, int, int, int]] = []  # words from, to; positions from, to
    previous = 0
    for window, at in placed:
        end = at + len(window.phrase)
        if joined and window.start <= joined[-1][3] and previous <= at <= joined[-1][1]:
            first, last, start, stop = joined.pop()
            joined.append((first, max(last, end), start, max(stop, window.stop)))
        else:
            joined.append((at, end, window.start, window.stop))
        previous = at
    return [
        Run(words[a][0], words[b - 1][1], number, field.spans[start][0], field.spans[stop - 1][1], stop - start)
        for a, b, start, stop in joined
    ]
