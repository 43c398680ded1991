"""From a prefix tree to work: which stretches keep their keys and values, which rows are computed together below.

A plan is a function of the full request set and the limits alone, so a resumed run repeats the arithmetic of an
uninterrupted one: the same stretches, the same rows, the same shapes. No torch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evalsuite.models.hf.trie import Line, Node, Read, Tokens, build_trie

Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is computed at once, in tokens.

    A shared stretch of `min_stretch` tokens or more keeps its keys and values when that saves `min_saving` tokens or
    more; `path_tokens` is what the memory for keys and values holds from the root down. Rows are filled with several
    units up to one of the lengths `fill_to`. `branching` false means one sequence per row (models that cannot take a
    tree mask). `start_tokens` is what starting a forward costs besides.
    """

    batch_tokens: int = 1024
    max_rows: int = 32
    row_tokens: int = 1024
    fill_to: tuple[int, ...] = (64, 96, 128, 192, 256)
    min_saving: int = 64
    min_stretch: int = 1
    path_tokens: int = 1 << 60
    branching: bool = True
    start_tokens: int = 32


@dataclass(slots=True)
class Unit:
    """One document's tokens below a segment, or one branch of them, in tree order.

    Token i is seen by the tokens from i up to `ends[i]`: its own subtree. `Read.at` is a column here.
    """

    tokens: Tokens
    positions: Tokens
    ends: Tokens
    reads: list[Read]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_chain(self) -> bool:
        return bool((self.ends == len(self.ends)).all())


@dataclass(slots=True)
class Batch:
    """Rows computed in one forward below a segment whose path holds `prefix` tokens."""

    rows: list[list[Unit]]
    prefix: int
    docs: frozenset[int]

    @property
    def width(self) -> int:
        return max(sum(map(len, row)) for row in self.rows)

    @property
    def n_tokens(self) -> int:
        return len(self.rows) * self.width

    @property
    def is_causal(self) -> bool:
        """True when an ordinary causal mask says the same: every row is one chain."""
        return all(len(row) == 1 and row[0].is_chain for row in self.rows)

    def arrays(self) -> tuple[Array, Array, Array]:
        """Tokens, positions and ends, each (B, T). A padding column is token 0 that sees, and is seen by, itself."""
        shape = (len(self.rows), self.width)
        tokens, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        ends = np.broadcast_to(np.arange(1, self.width + 1, dtype=np.int64), shape).copy()
        for b, row in enumerate(self.rows):
            column = 0
            for unit in row:
                there = slice(column, column + len(unit))
                tokens[b, there], positions[b, there] = unit.tokens, unit.positions
                ends[b, there] = unit.ends + column
                column += len(unit)
        return tokens, positions, ends

    def reads(self) -> Iterator[tuple[int, Read]]:
        """Every read with its row; `at` is the column in the row."""
        for b, row in enumerate(self.rows):
            column = 0
            for unit in row:
                for read in unit.reads:
                    yield b, read._replace(at=read.at + column)
                column += len(unit)


@dataclass(slots=True)
class Segment:
    """Consecutive tokens whose keys and values are kept while everything below is computed. The root has none."""

    tokens: Tokens
    start: int
    reads: list[Read]
    steps: list[Segment | Batch] = field(default_factory=list)
    docs: frozenset[int] = frozenset()

    @property
    def stop(self) -> int:
        return self.start + len(self.tokens)

    def below(self) -> Iterator[Segment | Batch]:
        """This segment and all steps below it, depth first."""
        todo: list[Segment | Batch] = [self]
        while todo:
            step = todo.pop()
            yield step
            if isinstance(step, Segment):
                todo += reversed(step.steps)


@dataclass(frozen=True, slots=True)
class Plan:
    """All the work of one benchmark. `n_reads[doc]` numbers make a document complete."""

    root: Segment
    n_reads: dict[int, int]

    @property
    def n_tokens(self) -> int:
        """Tokens that a full pass forwards, padding included."""
        return sum(len(s.tokens) if isinstance(s, Segment) else s.n_tokens for s in self.root.below())


def make_plan(lines: Sequence[Line], limits: Limits, first: int | None = None) -> Plan:
    """The plan for all lines; the steps that complete document `first` stand first."""
    n_reads: dict[int, int] = {}
    for line in lines:
        n_reads[line.doc] = n_reads.get(line.doc, 0) + len(line.targets)
    root = Segment(np.zeros(0, np.int32), 0, [])
    for segment, units in _place(build_trie(lines), root, limits):
        segment.steps += _batches(units, segment.stop, limits)
    for segment in reversed([s for s in root.below() if isinstance(s, Segment)]):
        own = {read.doc for read in segment.reads}
        segment.docs = frozenset(own.union(*(step.docs for step in segment.steps)))
        segment.steps.sort(key=lambda step: first not in step.docs)
    return Plan(root, n_reads)


def _place(trie: Node, root: Segment, limits: Limits) -> Iterable[tuple[Segment, list[Unit]]]:
    """Decides what becomes a segment and what is repeated in units; every segment with the units right below it."""
    units: dict[int, list[Unit]] = {id(root): []}
    segments = [root]
    todo: list[tuple[Node, Segment, tuple[Node, ...]]] = [(n, root, ()) for n in reversed(trie.children)]
    while todo:
        node, segment, above = todo.pop()
        carried = (*above, node)
        n_carried = node.stop - segment.stop
        if not _is_shared(node, n_carried - (node.stop - node.start), limits):
            units[id(segment)].append(_unit(node, above, segment.stop))
            continue
        parts = node.contexts if node.contexts > 1 else len(node.children)
        saves = n_carried >= limits.min_stretch and (parts - 1) * n_carried >= limits.min_saving
        if saves and node.stop <= limits.path_tokens:
            tokens = np.concatenate([n.tokens for n in carried])
            reads = [r._replace(at=r.at - segment.stop) for n in carried for r in _take_reads(n)]
            child = Segment(tokens, segment.stop, reads)
            segment.steps.append(child)
            segments.append(child)
            units[id(child)] = []
            segment, carried = child, ()
        todo += [(n, segment, carried) for n in reversed(node.children)]
    return [(segment, units[id(segment)]) for segment in segments]


def _is_shared(node: Node, n_above: int, limits: Limits) -> bool:
    """True when the subtree is more than one unit: several contexts, too long for a row, or not allowed to branch."""
    if not node.children:
        return False
    return node.contexts > 1 or not limits.branching or n_above + node.size > limits.row_tokens


def _unit(node: Node, above: Sequence[Node], start: int) -> Unit:
    """The subtree of a node, behind the tokens of the nodes above it that are repeated here."""
    n_above = node.start - start
    total = n_above + node.size
    tokens, positions, ends, reads = [], [], [], []
    column = 0
    for part in (*above, *node.down()):
        n = part.stop - part.start
        is_above = column < n_above
        tokens.append(part.tokens)
        positions.append(np.arange(part.start, part.stop, dtype=np.int32))
        ends.append(np.full(n, total if is_above else column + part.size, np.int32))
        reads += [r._replace(at=r.at - part.start + column) for r in _take_reads(part)]
        column += n
    return Unit(np.concatenate(tokens), np.concatenate(positions), np.concatenate(ends), reads)


def _take_reads(node: Node) -> list[Read]:
    """A node's reads, once: where its tokens are repeated, only the first copy is read."""
    reads, node.reads = node.reads, []
    return reads


def _batches(units: Sequence[Unit], prefix: int, limits: Limits) -> Sequence[Batch]:
    """Units in rows and rows in batches, at the row length that costs least."""
    if not units:
        return ()
    if not limits.branching:
        return _packed(units, prefix, limits, 1, fills=False)
    # Chains behind nothing need no mask of ours, and the model's own causal one is faster than filling rows saves.
    if not prefix and all(unit.is_chain for unit in units):
        return _packed(units, prefix, limits, limits.fill_to[0], fills=False)
    packings = [_packed(units, prefix, limits, n, fills=True) for n in limits.fill_to]
    return min(packings, key=lambda batches: _cost(batches, limits))


def _packed(units: Sequence[Unit], prefix: int, limits: Limits, fill_to: int, *, fills: bool) -> Sequence[Batch]:
    """Longest units first, so that running out of memory comes early; room in a row goes to the largest that fit.

    Rows are as long as the longest unit of their batch, at least `fill_to`. Without `fills` only units shorter than
    that share a row.
    """
    rest = sorted(units, key=len)
    sizes = [len(unit) for unit in rest]
    batches = []
    while rest:
        width = max(sizes[-1], fill_to)
        rows: list[list[Unit]] = []
        while rest and len(rows) < limits.max_rows and (not rows or (len(rows) + 1) * width <= limits.batch_tokens):
            row, size = [rest.pop()], sizes.pop()
            room = width - size if fills or size < fill_to else 0
            while (fit := bisect_right(sizes, room)) > 0:
                row.append(rest.pop(fit - 1))
                room -= sizes.pop(fit - 1)
            rows.append(row)
        batches.append(_batch(rows, prefix))
    return batches


def _cost(batches: Sequence[Batch], limits: Limits) -> float:
    """In tokens: those computed, more for long rows (attention), and what the forwards cost to start."""
    return sum(batch.n_tokens * (1 + batch.width / 4096) + limits.start_tokens for batch in batches)


def _batch(rows: list[list[Unit]], prefix: int) -> Batch:
    return Batch(rows, prefix, frozenset(read.doc for row in rows for unit in row for read in unit.reads))
