"""Which two texts of a prompt become a pair: the best against one that is strictly worse, drawn by the seed.

Tülu 3 takes the first of the best and any of the others, so that two equally good texts can become a pair. Here a
shared first place drops the prompt, or is drawn by the seed (`ties: seeded`); rejected is always strictly lower.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from train_plugins.data.asking import seed_of
from train_plugins.data.ratings import Rated

Ties = Literal["drop", "seeded"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Names of two texts of one prompt."""

    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Why a prompt gives no pair: `code` is what is counted, `why` a sentence."""

    code: str
    why: str


@dataclass(frozen=True, slots=True)
class PairRules:
    """`least` ratings make a text's mean count; `min_margin` is how far apart the means of a pair are at least."""

    seed: int
    least: int
    ties: Ties = "drop"
    min_margin: float = 0.0


def choose_pair(rated: Rated, rules: PairRules) -> Pair | Dropped:
    """The pair of a prompt. Depends on names, texts, ratings and the seed, and on no order."""
    if lacking := rated.lacking(rules.least):
        return _too_few(rated, lacking, rules)
    means = {name: mean for name in rated.order if (mean := rated.mean(name)) is not None}
    if len(means) < 2:
        return Dropped("few_ratings", f"{len(means)} of {len(rated.order)} texts have a rating; a pair needs two")
    best = max(means.values())
    first = [name for name, mean in means.items() if mean == best]
    if len(first) > 1 and (rules.ties == "drop" or len(first) == len(means)):
        return Dropped("tie", f"{', '.join(sorted(first))} share the highest mean, {float(best):.2f}")
    chosen = _drawn(first, rules.seed, rated.item.id, "chosen")
    lower = [name for name, mean in means.items() if mean < best]
    far = [name for name in lower if best - means[name] >= _exact(rules.min_margin)]
    if not far:
        gap = float(best - max(means[name] for name in lower))
        return Dropped("margin", f"no text is {rules.min_margin:g} below the best; the next is {gap:.2f} below")
    texts = {name: " ".join(text.split()) for name, text in rated.item.texts.items()}
    other = [name for name in far if texts[name] != texts[chosen]]
    if not other:
        return Dropped("identical_pair", f"the texts of {chosen} and {', '.join(sorted(far))} are the same")
    return Pair(chosen, _drawn(other, rules.seed, rated.item.id, "rejected"))


def pair_row(rated: Rated, pair: Pair) -> dict[str, Any]:
    """The fields of a canonical preference row that the ratings decide (training data, preference)."""
    prompt = [{"role": message.role, "content": message.content} for message in rated.item.messages]
    texts = rated.item.texts
    return {
        "chosen": [*prompt, {"role": "assistant", "content": texts[pair.chosen]}],
        "rejected": [*prompt, {"role": "assistant", "content": texts[pair.rejected]}],
        "chosen_rating": _mean(rated, pair.chosen),
        "rejected_rating": _mean(rated, pair.rejected),
        "chosen_model": pair.chosen,
        "rejected_model": pair.rejected,
        "ratings": [
            {"model": name, "mean": _mean(rated, name), **_plain(rated.ratings[name])} for name in sorted(rated.order)
        ],
        "order": [*rated.order],
    }


def _too_few(rated: Rated, lacking: tuple[str, ...], rules: PairRules) -> Dropped:
    missing = [r for name in lacking for r in rated.ratings[name].values() if isinstance(r, str)]
    n_aspects = len(rated.ratings[lacking[0]])
    kinds = ", ".join(f"{missing.count(kind)} {kind}" for kind in sorted(set(missing)))
    why = f"{', '.join(lacking)}: fewer than {rules.least} of {n_aspects} ratings, after asking again ({kinds})"
    if "request_failed" in missing:
        return Dropped("judge_failed", f"{why}; {rated.why or 'no answer'}")
    return Dropped("few_ratings", why)


def _drawn(names: Iterable[str], seed: int, item: str, purpose: str) -> str:
    """One of the names, each as likely as the others."""
    return min(names, key=lambda name: seed_of(seed, item, purpose, name))


def _exact(margin: float) -> Fraction:
    return Fraction(str(margin))  # as it was written: 0.1 is a tenth


def _mean(rated: Rated, name: str) -> float | None:
    mean = rated.mean(name)
    return None if mean is None else float(mean)


def _plain(ratings: Mapping[str, int | str]) -> dict[str, int | None]:
    return {aspect: value if isinstance(value, int) else None for aspect, value in ratings.items()}
