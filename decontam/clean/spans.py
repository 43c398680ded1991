"""Which characters of a message go when some of them are held by an eval."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]  # characters from..to-1
MASK = "[…]"


def merge(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that overlap or touch made one."""
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def widened(spans: Iterable[Span], length: int, window: int, min_slice: int) -> list[Span]:
    """What is cut from a text of `length` characters: each span with `window` more on both sides, and whatever would be
    left in a slice shorter than `min_slice`."""
    wide = merge((max(0, start - window), min(length, stop + window)) for start, stop in spans)
    edges = [0, *(at for span in wide for at in span), length]
    slices = zip(edges[::2], edges[1::2], strict=True)
    return merge([*wide, *((start, stop) for start, stop in slices if 0 < stop - start < min_slice)])


def cut(text: str, spans: Iterable[Span], mask: str = MASK) -> str:
    """The text with each of the merged spans replaced."""
    parts: list[str] = []
    at = 0
    for start, stop in spans:
        parts += text[at:start], mask
        at = stop
    return "".join([*parts, text[at:]])


def hidden(text: str, spans: Iterable[Span]) -> str:
    """The text as `cut` leaves it, with every offset where it was: no mask is a word of an eval or parts two words."""
    parts: list[str] = []
    at = 0
    for start, stop in spans:
        parts += text[at:start], "…" * (stop - start)
        at = stop
    return "".join([*parts, text[at:]])


def is_empty(text: str, spans: Iterable[Span]) -> bool:
    """True where no letter or digit is left."""
    return not any(c.isalnum() for c in cut(text, spans, ""))
