"""Were the instructions followed? Strict judges the response as it stands, loose forgives outer lines and stars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from evalsuite.verify.constraints.language_tools import backend, needed
from evalsuite.verify.constraints.loose import loose_texts
from evalsuite.verify.constraints.registry import Variant
from evalsuite.verify.constraints.rows import Instruction, read_instructions
from evalsuite.verify.constraints.stop import Stop

Mode = Literal["strict", "loose"]

_Instructions = tuple[Instruction, ...]

BLANK = "the response is blank"


@dataclass(frozen=True, slots=True)
class Check:
    """The verdict on one instruction. `why` is the first reason when it was not followed, `backend` the language tools
    that answered ("sentences: rules"), empty when the check needs none."""

    id: str
    ok: bool
    why: str = ""
    backend: str = ""


def followed(
    text: str,
    ids: Sequence[str],
    kwargs: Sequence[Mapping[str, Any]],
    *,
    variant: Variant = "tulu3",
    mode: Mode,
) -> tuple[Check, ...]:
    """One Check per instruction, in order. Raises DataError when the ids or kwargs themselves are wrong.

    A blank response follows nothing. In loose mode every instruction may pass on another of the eight texts, but where
    upstream's code raises on one of them, its `tulu3` variant tries no more for that instruction.
    """
    instructions = _read(text, ids, kwargs, variant)
    strict = tuple(_strict(text, one, variant) for one in instructions)
    return strict if mode == "strict" else _loose(text, instructions, strict, variant)


def followed_both(
    text: str, ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]], *, variant: Variant = "tulu3"
) -> tuple[tuple[Check, ...], tuple[Check, ...]]:
    """(strict, loose) at the cost of loose alone: its first text is the response itself."""
    instructions = _read(text, ids, kwargs, variant)
    strict = tuple(_strict(text, one, variant) for one in instructions)
    return strict, _loose(text, instructions, strict, variant)


def _read(text: str, ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]], variant: Variant) -> _Instructions:
    if not isinstance(text, str):
        raise TypeError(f"a response is text, not {type(text).__name__}")
    return read_instructions(ids, kwargs, variant)


def _strict(text: str, one: Instruction, variant: Variant) -> Check:
    constraint = one.constraint
    why = constraint.objection(text, one.params, variant) if text.strip() else BLANK
    answered = ", ".join(f"{tool}: {backend(tool)}" for tool in needed(constraint, variant))
    return Check(constraint.id, why is None, why or "", answered)


def _loose(text: str, instructions: _Instructions, strict: tuple[Check, ...], variant: Variant) -> tuple[Check, ...]:
    return tuple(c if c.ok else _rescued(text, one, c, variant) for one, c in zip(instructions, strict, strict=True))


def _rescued(text: str, one: Instruction, strict: Check, variant: Variant) -> Check:
    """The loose verdict after the strict one failed: `strict` itself, unless another of the texts passes."""
    if _ends_search(strict.why, variant):
        return strict
    for other in islice(loose_texts(text), 1, None):
        why = one.constraint.objection(other, one.params, variant)
        if why is None:
            return Check(strict.id, True, backend=strict.backend)
        if _ends_search(why, variant):
            break
    return strict


def _ends_search(why: str, variant: Variant) -> bool:
    """Upstream's `tulu3` code wraps the whole loop over the texts in one `try`; its `ifbench` code catches nothing."""
    return variant == "tulu3" and isinstance(why, Stop)
