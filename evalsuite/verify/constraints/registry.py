"""Which constraints exist: the file that implements a check registers it here under its instruction id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from evalsuite.errors import DataError, did_you_mean

Variant = Literal["tulu3", "ifbench"]
"""Whose reading of an id counts where the public checkers differ. IFEval's 25 ids mean the same in both."""

CheckText = Callable[..., str | None]
"""`(text, **params)` to the objection in plain words, None when the text does as it was asked. Total and pure."""

Parse = Callable[[Any], Any]
"""Turns a raw parameter into what the check takes; raises ValueError with what was expected."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One checkable instruction. `agree` looks at all parameters together and names what is wrong with them."""

    id: str
    about: str
    params: Mapping[str, Parse]
    tools: tuple[str, ...] = ()
    checks: Mapping[Variant, CheckText] = field(default_factory=dict)
    agree: Callable[..., str | None] | None = None

    @property
    def category(self) -> str:
        """`keywords` of `keywords:existence`."""
        return self.id.partition(":")[0]

    def objection(self, text: str, params: Mapping[str, Any], variant: Variant) -> str | None:
        """Why `text` does not follow the instruction; None when it does."""
        return self.checks[variant](text, **params)


_REGISTRY: dict[str, Constraint] = {}


def constraint(
    id: str,
    params: Mapping[str, Parse] | None = None,
    *,
    tools: Sequence[str] = (),
    variants: Sequence[Variant] = get_args(Variant),
    agree: Callable[..., str | None] | None = None,
) -> Callable[[CheckText], CheckText]:
    """Registers a check under an id, for some or all variants; the first line of its docstring says what it checks."""

    def register(check: CheckText) -> CheckText:
        known = _REGISTRY.get(id)
        about = (check.__doc__ or "").partition("\n")[0]
        known = known or Constraint(id, about, dict(params or {}), tuple(tools), {}, agree)
        taken = [v for v in variants if v in known.checks]
        assert not taken, f"{id} has two checks for {taken}"
        _REGISTRY[id] = replace(known, checks={**known.checks, **dict.fromkeys(variants, check)})
        return check

    return register


def all_constraints() -> dict[str, Constraint]:
    """Every registered constraint by id, sorted."""
    return dict(sorted(_REGISTRY.items()))


def find_constraint(id: str, variant: Variant = "tulu3") -> Constraint:
    """The constraint of that id; raises DataError with the near miss when the variant has none."""
    found = _REGISTRY.get(id)
    if found is None or variant not in found.checks:
        known = [c.id for c in _REGISTRY.values() if variant in c.checks]
        raise DataError(f"no instruction id {id!r}{did_you_mean(str(id), known)} (see: evalsuite list --constraints)")
    return found
