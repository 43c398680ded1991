"""Tables of characters that the kernels take as arrays: what separates words, what lower case is."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from decontam.rules import Analyzer
from decontam.text import SEPARATORS

LAST_UPPER = 0x1E944  # no code point from here on has a lower case


@cache
def separator_table(analyzer: Analyzer) -> np.ndarray[Any, Any]:
    """1 for each byte that separates words. Analyzers other than `pattern` are given words joined by spaces."""
    table = np.zeros(256, np.uint8)
    table[[ord(c) for c in (SEPARATORS if analyzer == "pattern" else " ")]] = 1
    return table


@cache
def lower_table(analyzer: Analyzer) -> np.ndarray[Any, Any]:
    """The simple lower case of each code point below LAST_UPPER; empty where words come lowered."""
    if analyzer != "pattern":
        return np.zeros(0, np.uint32)
    table = np.arange(LAST_UPPER, dtype=np.uint32)
    for code in range(LAST_UPPER):
        lowered = "i" if code == 0x130 else chr(code).lower()
        table[code] = ord(lowered) if len(lowered) == 1 else code
    return table
