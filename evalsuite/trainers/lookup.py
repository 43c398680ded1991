"""Finds trainers by name: ours, and those that other distributions register as entry points."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import cast

from evalsuite.errors import UsageError, did_you_mean
from evalsuite.trainers.types import Trainer

GROUP = "evalsuite.trainers"
BUILT_IN = {
    "exec": "train_plugins.exec:Exec",
    "sft": "train_plugins.sft:SFT",
    "rm": "train_plugins.rm:RM",
    "dpo": "train_plugins.dpo:DPO",
    "rlvr": "train_plugins.rlvr.plugin:RLVR",
}
OURS = "evalsuite"


@dataclass(frozen=True, slots=True)
class Offer:
    """One distribution's trainer: `target` is `module:class`."""

    name: str
    target: str
    distribution: str
    version: str


def known_trainers() -> dict[str, Offer]:
    """Trainers by name. Imports none. Raises UsageError when two distributions offer one name."""
    from evalsuite import __version__

    found = {name: [Offer(name, target, OURS, __version__)] for name, target in BUILT_IN.items()}
    for point in entry_points(group=GROUP):
        distribution, version = (point.dist.name, point.dist.version) if point.dist else ("?", "?")
        offers = found.setdefault(point.name, [])
        if all((o.distribution, o.target) != (distribution, point.value) for o in offers):
            offers.append(Offer(point.name, point.value, distribution, version))
    twice = [offers for offers in found.values() if len(offers) > 1]
    if twice:
        told = "; ".join(f"{o[0].name!r}: {' and '.join(x.distribution for x in o)}" for o in twice)
        raise UsageError(
            f"a trainer's name must be unique, two distributions offer one ({told}); uninstall one of them"
        )
    return {name: offers[0] for name, offers in sorted(found.items())}


def find_trainer(name: str) -> Trainer:
    """The trainer of that name. Raises UsageError with the near miss, or with why it cannot be imported."""
    known = known_trainers()
    if name not in known:
        raise UsageError(f"no trainer named {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    offer = known[name]
    try:
        return _made(offer)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"trainer {name!r} of {offer.distribution} {offer.version} does not import: {error}"
        ) from error


def why_not(offer: Offer) -> str:
    """What keeps a trainer from being imported, one line; empty when nothing does."""
    try:
        _made(offer)
    except Exception as error:  # somebody else's module may raise anything
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


def _made(offer: Offer) -> Trainer:
    module, _, attribute = offer.target.partition(":")
    return cast("Trainer", getattr(importlib.import_module(module), attribute)())
