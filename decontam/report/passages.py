"""A text as it is shown: cut to what surrounds its runs, split where runs begin and end, safe to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from decontam.report.match import Match, Run
from decontam.types import EvalSet

CONTEXT = 160  # characters kept on each side of a run
LONGEST_RUN = 1600  # a longer stretch is shown by its two ends


class Piece(NamedTuple):
    """A stretch of a text, with the numbers of the runs it belongs to; `cut` characters are left out after it."""

    text: str
    runs: tuple[int, ...] = ()
    cut: int = 0


class Passage(NamedTuple):
    """One text of one side: the message, or a field of the instance."""

    title: str
    pieces: tuple[Piece, ...]


Instances = Mapping[tuple[str, str], tuple[tuple[str, ...], tuple[str | None, ...]]]


def instances_of(evals: Iterable[EvalSet]) -> Instances:
    """(names, texts) of the fields of every instance, by eval and id."""
    found: dict[tuple[str, str], tuple[tuple[str, ...], tuple[str | None, ...]]] = {}
    for each in evals:
        for i, texts in zip(each.ids, each.texts, strict=True):
            found.setdefault((each.name, i), (each.fields, texts))
    return found


def sides(match: Match, message: str | None, instances: Instances) -> tuple[list[Passage], list[Passage]]:
    """(training side, eval side) of a match. A run has the same number, from 1, on both sides."""
    spans = [run.train for run in match.runs]
    gone = (Piece("(the text cannot be read: the file has changed or is gone)"),)
    training = [Passage("", tuple(pieces(message, spans)) if message is not None else gone)]
    return training, list(_fields(match, instances))


def pieces(text: str, spans: Sequence[tuple[int, int]], context: int = CONTEXT) -> Iterator[Piece]:
    """The text around its spans; without spans, its beginning. Spans may overlap; what lies outside is ignored."""
    inside = [(max(a, 0), min(b, len(text)), i) for i, (a, b) in enumerate(spans, 1)]
    inside = [each for each in inside if each[0] < each[1]]
    if not inside:
        yield Piece(text[: 2 * context], cut=max(0, len(text) - 2 * context))
        return
    starts: dict[int, list[int]] = {}
    stops: dict[int, list[int]] = {}
    for a, b, i in inside:
        starts.setdefault(a, []).append(i)
        stops.setdefault(b, []).append(i)
    bounds = sorted({0, len(text), *starts, *stops})
    active: set[int] = set()
    for a, b in pairwise(bounds):
        active = (active - set(stops.get(a, ()))) | set(starts.get(a, ()))
        keep = LONGEST_RUN // 2 if active else context
        before = 0 if a == 0 and not active else keep
        after = 0 if b == len(text) and not active else keep
        yield from _shortened(text, a, b, before, after, tuple(sorted(active)))


def _shortened(text: str, a: int, b: int, before: int, after: int, runs: tuple[int, ...]) -> Iterator[Piece]:
    """text[a:b], without its middle where that is longer than the sum of what is kept at its ends."""
    if b - a <= before + after + 20:  # the words that say what is missing take as much room
        yield Piece(text[a:b], runs)
        return
    yield Piece(text[a : a + before], runs, b - a - before - after)
    yield Piece(text[b - after : b], runs)


def _fields(match: Match, instances: Instances) -> Iterator[Passage]:
    if (match.eval, match.instance) not in instances:
        yield Passage("", (Piece("(the eval's text is not in evals.jsonl)"),))
        return
    fields, texts = instances[match.eval, match.instance]
    numbered = list(enumerate(match.runs, 1))
    if any(not run.field for run in match.runs):
        joined = "\n".join(text or "" for text in texts)
        yield Passage(" + ".join(fields), tuple(_numbered(joined, numbered)))
        return
    for name, text in zip(fields, texts, strict=True):
        own = [(i, run) for i, run in numbered if run.field == name]
        yield Passage(name, tuple(_numbered(text or "", own)))


def _numbered(text: str, runs: Sequence[tuple[int, Run]]) -> Iterator[Piece]:
    """Pieces with the numbers that the runs have in the match."""
    numbers = [i for i, _ in runs]
    for piece in pieces(text, [run.eval for _, run in runs]):
        yield piece._replace(runs=tuple(numbers[i - 1] for i in piece.runs))


def visible(text: str) -> str:
    """The text on one line, with every unseen character (controls, direction marks, surrogates) spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _spelled(c) for c in text)


def visible_lines(text: str) -> str:
    """The same with its line breaks and tabs kept, tabs as four spaces."""
    return "\n".join(visible(line.replace("\t", "    ")) for line in text.replace("\r\n", "\n").split("\n"))


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
