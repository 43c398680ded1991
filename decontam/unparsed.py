"""Messages of JSON lines that nobody parsed: their texts are taken from where the validator saw them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from decontam.kernel import PADDING
from decontam.kernel.jsonl import HIT
from decontam.kernel.unescape import unescape

if TYPE_CHECKING:
    from decontam.matcher import Lines

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Unparsed:
    """Texts of lines of a block that the gate passed. `lines` tells which lines they are, `line` the line of each.

    `buf` holds the texts as UTF-8 from `starts` to `stops`; `turn` and `where` are those of a Message.
    """

    lines: Array
    buf: Array
    starts: Array
    stops: Array
    line: Array
    turn: Array
    where: Array

    def ids(self, data: Array, places: Array, wanted: Array) -> Iterator[tuple[int, str]]:
        """(line, id of its row) of those of the wanted lines that have one; `places` are `Lines.ids`."""
        for line in np.intersect1d(wanted, self.line).tolist():
            start, stop = places[line].tolist()
            if start:
                yield line, bytes(data[start:stop]).decode()


def unparsed(data: Array, found: Lines) -> Unparsed:
    """What can be told without parsing of the lines that the gate has passed."""
    line, turn = found.spans[:, 2], found.spans[:, 3]
    plain = np.zeros(found.status.size, np.bool_)
    plain[line] = True
    plain[line[turn < 0]] = False
    plain &= found.status == HIT
    spans = found.spans[plain[line]]
    buf = np.zeros(int((spans[:, 1] - spans[:, 0]).sum()) + PADDING, np.uint8)
    starts, stops = np.zeros(len(spans), np.int64), np.zeros(len(spans), np.int64)
    unescape(data, spans, buf, starts, stops)
    return Unparsed(plain, buf, starts, stops, spans[:, 2], spans[:, 3], spans[:, 4])
