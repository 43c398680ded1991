"""What the kernel must know of a selection to take messages out of JSON lines that nobody parsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from decontam.kernel import PADDING
from decontam.row import ASSISTANTS, PROMPT, TAGS
from decontam.types import Need

if TYPE_CHECKING:
    from decontam.select import Selection

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """`apart`: every text to be matched is a string of its own, so that nothing else of a line need be read.

    `choosing`: a text counts only where its object has the value that a need asks for. `depth` is that of the objects
    that hold texts (1 the row, 3 the turns of a list), 0 where only a parser can tell. `listing` is the number of the
    need of that list, `heads` the keys of a row whose texts are matched in other ways, which the kernel leaves alone.
    """

    apart: bool = False
    choosing: bool = False
    depth: int = 0
    listing: int = -1
    where: int = PROMPT
    heads: tuple[str, ...] = ()

    def arrays(self) -> tuple[Any, ...]:
        """The arguments of `kernel.jsonl.lines` after the needs."""
        told = np.array([self.depth, self.listing, self.where], np.int64)
        return (self.choosing, told, *packed(self.heads), *packed(tuple(sorted(ASSISTANTS))))


def shape_of(selection: Selection) -> Shape:
    """The shape of a selection whose lines may stay unparsed."""
    needs = selection.needs or ()
    first, *others = selection.groups
    plain = [group for group in others if not group.paths[0].below]
    heads = tuple(group.paths[0].keys[0] for group in others if group.paths[0].below)
    if plain or first.paths[0].below or any(len(g.paths[0].keys) > 1 for g in others if g.paths[0].below):
        return Shape(apart=not heads and not first.paths[0].below)
    path = first.paths[0]
    if not path.lists and len(path.steps) == 1:  # of several fields only one may have text, see select.needs
        return Shape(True, False, 1, -1, first.where, heads)
    in_list = len(path.steps) == 2 and bool(path.steps[0].filters) and len(first.picks) == 1 == len(first.picks[0])
    only = first.picks[0][0] if in_list else None
    if only is None or only.index is not None or (only.key and only.key not in TAGS):
        return Shape(apart=not heads)
    return Shape(True, bool(only.key), 3, _number(needs, path.steps[0].key, "["), first.where, heads)


def _number(needs: tuple[Need, ...], key: str, follow: str) -> int:
    return next(i for i, need in enumerate(needs) if need.key == key and follow in need.follow)


def packed(texts: tuple[str, ...]) -> tuple[Array, Array]:
    """Padded UTF-8 of the texts, and where each begins in it and the last ends."""
    encoded = [text.encode() for text in texts]
    places = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    return np.frombuffer(b"".join(encoded) + bytes(PADDING), np.uint8), places
