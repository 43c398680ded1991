"""Where a masked message still holds the instances that were found in it: the rule, asked again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from decontam.clean.decide import Hit
from decontam.clean.spans import Span
from decontam.reference import (
    Instance,
    Phrase,
    document_frequency,
    find,
    idf_weights,
    instances_of,
    short_instances,
)
from decontam.rules import RULES, Rule
from decontam.types import EvalSet

if TYPE_CHECKING:
    from decontam.near import NearIndex

Key = tuple[str, str]  # eval, instance


class Held:
    """Asks the reference of the rule, one message and instance at a time; windows are made when first needed."""

    def __init__(
        self, rule: Rule, evals: Sequence[EvalSet], drop_empty_fields: bool = False, profile: str = ""
    ) -> None:
        self.rule, self.evals, self.drop_empty_fields, self.profile = rule, evals, drop_empty_fields, profile
        self._texts: dict[Key, list[tuple[str | None, ...]]] = {}
        for each in evals:
            for id_, texts in zip(each.ids, each.texts, strict=True):
                self._texts.setdefault((each.name, id_), []).append(texts)
        self._whole: dict[Key, list[Instance | None]] = {}
        self._short: dict[Key, list[Instance | None]] = {}

    def __call__(self, message: str, hits: Sequence[Hit]) -> list[Span]:
        """Characters of the message that make it hold one of the instances."""
        spans = [span for hit in hits for span in self._spans(message, hit)]
        near = {(hit.eval, hit.instance) for hit in hits if "near" in hit.by}
        return spans + self._near_spans(message, near) if near else spans

    def _spans(self, message: str, hit: Hit) -> Iterator[Span]:
        key = (hit.eval, hit.instance)
        if "exact" in hit.by:
            if key not in self._whole:
                self._whole[key] = self._instances(self._texts[key])
            yield from _runs(self.rule, self._whole[key], message, self._weights)
        if "short" in hit.by:
            if key not in self._short:
                self._short[key] = short_instances(self._texts[key])
            yield from _runs(RULES["exact"], self._short[key], message, None)

    def _near_spans(self, message: str, keys: set[Key]) -> list[Span]:
        from decontam.near import find_profile

        found = self._near.find([message], find_profile(self.profile))
        return [(each.train_from, each.train_to) for each in found if self._names[each.inst] in keys]

    def _instances(self, texts: Sequence[tuple[str | None, ...]]) -> list[Instance | None]:
        return instances_of(self.rule, texts, drop_empty_fields=self.drop_empty_fields)

    @cached_property
    def _near(self) -> NearIndex:
        from decontam.near.building import build

        return build(self.evals)

    @cached_property
    def _names(self) -> list[Key]:
        return [(each.name, id_) for each in self.evals for id_ in each.ids]

    @cached_property
    def _weights(self) -> Mapping[Phrase, int] | None:
        if self.rule.score != "idf":
            return None
        everything = self._instances([texts for each in self.evals for texts in each.texts])
        return idf_weights(document_frequency(everything), sum(each is not None for each in everything))


def _runs(
    rule: Rule, instances: Sequence[Instance | None], message: str, weights: Mapping[Phrase, int] | None
) -> Iterator[Span]:
    for instance in instances:
        if instance is not None and (found := find(rule, instance, message, weights=weights)):
            yield from ((run.train_from, run.train_to) for run in found.runs)
