"""Stages of plugins: other judges of the candidates, such as embeddings or a model that reads both texts.

A package offers one under the entry point group `decontam.stages`; nothing of the kind ships here:

    [project.entry-points."decontam.stages"]
    cosine = "my_package.near:cosine"

    def cosine(pairs: Sequence[Pair]) -> Sequence[float | None]: ...

It is called once with all candidates of a batch of messages, those below the profile's cut-off too, and returns one
number from 0 to 100 a pair, in their order, or None where it has no opinion. What it says is reported under its name
and changes no verdict. `judged` runs the stages:

    stages = load_stages(["cosine"])
    opinions = judged(stages, index, messages, PROFILES["wide"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from numbers import Real
from typing import NamedTuple, Protocol

from decontam.errors import DecontamError, did_you_mean
from decontam.near.index import NearIndex
from decontam.near.profiles import Profile

GROUP = "decontam.stages"


class Pair(NamedTuple):
    """A candidate. `train` is the whole message, `eval` the instance's fields joined by newlines; `n_shared` seeds
    stand in both. `message` is an index of the texts given, `inst` the number of the instance over all evals."""

    message: int
    inst: int
    train: str
    eval: str
    n_shared: int


class Stage(Protocol):
    def __call__(self, pairs: Sequence[Pair], /) -> Sequence[float | None]: ...


class Opinion(NamedTuple):
    """What a stage says of a pair, 0–100."""

    stage: str
    message: int
    inst: int
    score: float


def known_stages() -> dict[str, str]:
    """Stage name to `module:attribute`, of all installed packages."""
    return {point.name: point.value for point in entry_points(group=GROUP)}


def load_stages(names: Sequence[str]) -> dict[str, Stage]:
    """The stages of these names; raises DecontamError for one that is not installed or cannot be loaded."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    loaded: dict[str, Stage] = {}
    for name in names:
        if name not in points:
            known = ", ".join(sorted(points)) or "none"
            raise DecontamError(
                f"no stage named {name!r}{did_you_mean(name, points)} (installed: {known}); "
                f"a package offers one as an entry point of the group {GROUP!r}"
            )
        try:
            stage = points[name].load()
        except (ImportError, AttributeError) as error:
            raise DecontamError(f"stage {name!r}: {points[name].value!r} cannot be loaded: {error}") from error
        if not callable(stage):
            raise DecontamError(
                f"stage {name!r}: {points[name].value!r} is a {type(stage).__name__}, expected a callable"
            )
        loaded[name] = stage
    return loaded


def judged(stages: Mapping[str, Stage], index: NearIndex, texts: Sequence[str], profile: Profile) -> list[Opinion]:
    """What each stage says of the candidates among these messages, in order of stage, message and instance."""
    pairs = pairs_of(index, texts, profile)
    if not pairs:
        return []
    return [
        Opinion(name, pair.message, pair.inst, score)
        for name, stage in stages.items()
        for pair, score in zip(pairs, _scores(name, stage, pairs), strict=True)
        if score is not None
    ]


def pairs_of(index: NearIndex, texts: Sequence[str], profile: Profile) -> list[Pair]:
    """The candidates among these messages, one pair an instance, in order of message and instance."""
    return sorted(
        Pair(each.message, inst, texts[each.message], index.text(each.text), len(each.shared))
        for each in index.candidates(texts, profile)
        for inst in index.instances_of(each.text)
    )


def _scores(name: str, stage: Stage, pairs: Sequence[Pair]) -> list[float | None]:
    scores = list(stage(pairs))
    if len(scores) != len(pairs):
        raise DecontamError(f"stage {name!r} gave {len(scores)} scores for {len(pairs)} pairs, expected one a pair")
    for score in scores:
        if score is not None and not (isinstance(score, Real) and 0 <= score <= 100):
            raise DecontamError(f"stage {name!r} gave the score {score!r}, expected a number from 0 to 100 or None")
    return [None if score is None else float(score) for score in scores]
