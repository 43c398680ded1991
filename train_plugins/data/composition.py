"""What a file of preference pairs is made of: whose answers, how far they lie apart, and whether length decides."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True, slots=True)
class Length:
    """Whether longer answers are chosen: lengths in characters; `correlation` is Pearson's of length and rating."""

    chosen: float
    rejected: float
    chosen_longer: float
    correlation: float | None


@dataclass(frozen=True, slots=True)
class Composition:
    """Shares are fractions of pairs. `models` has (chosen, rejected) for each; `aspects` is over all rated answers.

    `with_on_policy` pairs have an answer of the model to be trained on one side or both, `on_policy` is its share of
    all sides.
    """

    n_pairs: int
    on_policy: float | None
    with_on_policy: float | None
    models: Mapping[str, tuple[int, int]]
    margin: float | None
    length: Length | None
    aspects: Mapping[str, float]
    sources: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        length = self.length
        return {
            "pairs": self.n_pairs,
            "on_policy_share": self.on_policy,
            "pairs_with_on_policy": self.with_on_policy,
            "models": {
                name: {"pairs": chosen + rejected, "chosen": chosen, "rejected": rejected}
                for name, (chosen, rejected) in self.models.items()
            },
            "mean_margin": self.margin,
            "length": None
            if length is None
            else {
                "mean_chosen": length.chosen,
                "mean_rejected": length.rejected,
                "chosen_longer": length.chosen_longer,
                "correlation_with_rating": length.correlation,
            },
            "aspect_means": dict(self.aspects),
            "sources": dict(self.sources),
        }


def compose(rows: Sequence[Mapping[str, Any]], on_policy: Collection[str] = ()) -> Composition:
    """The composition of canonical preference rows; what they do not say (models, ratings) is left out."""
    sides = [(row.get("chosen_model"), row.get("rejected_model")) for row in rows]
    known = [side for side in sides if side != (None, None)]
    chosen, rejected = (Counter(str(side[i]) for side in known) for i in (0, 1))
    ours = [sum(name in on_policy for name in side) for side in known]
    margins = [r["chosen_rating"] - r["rejected_rating"] for r in rows if _is_rated(r)]
    return Composition(
        n_pairs=len(rows),
        on_policy=sum(ours) / (2 * len(ours)) if ours and on_policy else None,
        with_on_policy=fmean(n > 0 for n in ours) if ours and on_policy else None,
        models={name: (chosen[name], rejected[name]) for name in sorted({*chosen, *rejected})},
        margin=fmean(margins) if margins else None,
        length=_length(rows) if rows else None,
        aspects=_aspects(rows),
        sources=dict(sorted(Counter(str(row.get("source", "")) for row in rows).items())),
    )


def lines_of(found: Composition) -> list[tuple[str, str]]:
    """(what, value) for a table."""
    lines = [("pairs", f"{found.n_pairs:,}")]
    if found.on_policy is not None and found.with_on_policy is not None:
        lines.append(("answers on-policy", f"{found.on_policy:.1%}"))
        lines.append(("pairs with an on-policy answer", f"{found.with_on_policy:.1%}"))
    for name, (chosen, rejected) in found.models.items():
        lines.append((f"model {name}", f"{chosen + rejected:,} pairs: {chosen:,} chosen, {rejected:,} rejected"))
    if found.margin is not None:
        lines.append(("mean margin", f"{found.margin:.2f}"))
    if (length := found.length) is not None:
        lines.append(("mean length, chosen / rejected", f"{length.chosen:,.0f} / {length.rejected:,.0f} characters"))
        lines.append(("chosen is longer", f"{length.chosen_longer:.1%}"))
        if length.correlation is not None:
            lines.append(("correlation of length and rating", f"{length.correlation:+.2f}"))
    return lines + [(f"mean {name.replace('_', ' ')}", f"{mean:.2f}") for name, mean in found.aspects.items()]


def _length(rows: Sequence[Mapping[str, Any]]) -> Length:
    lengths = [(len(row["chosen"][-1]["content"]), len(row["rejected"][-1]["content"])) for row in rows]
    points = [
        point
        for row, (chosen, rejected) in zip(rows, lengths, strict=True)
        if _is_rated(row)
        for point in ((chosen, row["chosen_rating"]), (rejected, row["rejected_rating"]))
    ]
    return Length(
        fmean(chosen for chosen, _ in lengths),
        fmean(rejected for _, rejected in lengths),
        fmean(chosen > rejected for chosen, rejected in lengths),
        _pearson(points),
    )


def _is_rated(row: Mapping[str, Any]) -> bool:
    return all(isinstance(row.get(f"{side}_rating"), int | float) for side in ("chosen", "rejected"))


def _aspects(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of each aspect over all answers that were rated in it, chosen or not."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for rated in row.get("ratings") or ():
            if isinstance(rated, Mapping):
                for name, value in rated.items():
                    if name not in ("model", "mean") and isinstance(value, int | float):
                        found.setdefault(name, []).append(value)
    return {name: fmean(values) for name, values in sorted(found.items())}


def _pearson(points: Sequence[tuple[float, float]]) -> float | None:
    """None where one of the two does not vary."""
    if len(points) < 2:
        return None
    mean_x, mean_y = (fmean(point[i] for point in points) for i in (0, 1))
    covariance = math.fsum((x - mean_x) * (y - mean_y) for x, y in points)
    spread = math.sqrt(
        math.fsum((x - mean_x) ** 2 for x, _ in points) * math.fsum((y - mean_y) ** 2 for _, y in points)
    )
    return covariance / spread if spread else None
