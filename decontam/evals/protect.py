"""What a rule cannot protect: instances that it would not flag even in a message that holds nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from decontam import reference
from decontam.reference import Held, Instance, Placed
from decontam.rules import Rule
from decontam.text import words_of
from decontam.types import EvalSet, Field

Reason = Literal["short", "own score", "empty field"]


class Unprotected(NamedTuple):
    """`short`: no field is long enough to have a window. `empty field`: one has no text and holds the mean down.
    `own score`: a verbatim copy would not be flagged."""

    id: str
    reason: Reason


def unprotected(
    evals: Sequence[EvalSet], rule: Rule, *, drop_empty_fields: bool = False
) -> dict[str, tuple[Unprotected, ...]]:
    """The instances of each eval that the rule never flags, in order; those that lack a field are skipped.

    Each is judged by a message of its own fields, one a line. What the cap acquits is not looked at: that is the
    index's knowledge.
    """
    instances = [reference.instances_of(rule, each.texts, drop_empty_fields=drop_empty_fields) for each in evals]
    everyone = [one for of_eval in instances for one in of_eval if one is not None]
    weights = None
    if rule.score == "idf":
        weights = reference.idf_weights(reference.document_frequency(everyone), len(everyone))
    found = {}
    for each, of_eval in zip(evals, instances, strict=True):
        listed = []
        for name, texts, one in zip(each.ids, each.texts, of_eval, strict=True):
            if one is not None and not reference.flagged(rule, one, own_windows(rule, one, texts), weights):
                listed.append(Unprotected(name, _reason(one, texts)))
        found[each.name] = tuple(listed)
    return found


def own_windows(rule: Rule, instance: Instance, texts: Sequence[str | None]) -> Held:
    """The windows of each field that stand in a message of the instance's own texts.

    As `reference` finds them, but in time that grows with the text's length alone.
    """
    words = words_of(rule.analyzer, "\n".join(text or "" for text in texts))
    sizes = {len(window.phrase) for field in instance if field for window in field.windows} - {0}
    places: dict[tuple[str, ...], int] = {}
    for size in sizes:
        for at in range(len(words) - size + 1):
            places.setdefault(tuple(words[at : at + size]), at)
    return tuple(_standing(field, places) for field in instance)


def _standing(field: Field | None, places: dict[tuple[str, ...], int]) -> tuple[Placed, ...]:
    windows = field.windows if field else ()
    return tuple(Placed(window, places[window.phrase]) for window in windows if window.phrase in places)


def _reason(instance: Instance, texts: Sequence[str | None]) -> Reason:
    with_text = [field for field, text in zip(instance, texts, strict=True) if text]
    if with_text and not any(field and field.windows for field in with_text):
        return "short"
    return "own score" if "" not in texts else "empty field"
