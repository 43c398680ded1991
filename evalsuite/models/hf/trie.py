"""The prefix tree of a benchmark's token sequences: every shared stretch of tokens becomes one node. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Line:
    """One option to be scored. `fed` is context + option without its last token, `targets` the option's tokens.

    The last `len(targets)` rows of `fed` predict the targets. `slot` is the place of the first target among all the
    values of the document. `fed` is packed: a benchmark of 14,000 prompts of 1,000 tokens takes 56 MB, not 500.
    """

    doc: int
    slot: int
    fed: bytes
    targets: tuple[int, ...]

    @property
    def n_fed(self) -> int:
        return len(self.fed) // 4

    @property
    def first(self) -> int:
        """The row of `fed` that predicts the first target."""
        return self.n_fed - len(self.targets)


class Read(NamedTuple):
    """One number to be read: the row after the token at depth `at` predicts `token`, for place `slot` of `doc`."""

    at: int
    token: int
    doc: int
    slot: int


def pack(tokens: Sequence[int]) -> bytes:
    """Big-endian bytes, 4 per token: they sort as the tokens do, and compare at the speed of memcmp."""
    return np.asarray(tokens, dtype=">u4").tobytes()


def unpack(packed: bytes) -> Tokens:
    return np.frombuffer(packed, dtype=">u4").astype(np.int32)


class Node:
    """A stretch of tokens, depths `start` to `stop`, that every sequence below shares.

    `contexts` counts the distinct contexts that end here or below, `size` the tokens of the whole subtree.
    """

    __slots__ = ("children", "contexts", "key", "parent", "reads", "size", "start", "stop", "tokens")

    def __init__(self, key: bytes, start: int, stop: int, parent: Node | None) -> None:
        self.key, self.start, self.stop, self.parent = key, start, stop, parent
        self.children: list[Node] = []
        self.reads: list[Read] = []
        self.contexts = 0
        self.size = 0
        self.tokens: Tokens = np.zeros(0, np.int32)

    def down(self) -> Iterator[Node]:
        """This node and all below, parents first, in the order of their tokens."""
        todo = [self]
        while todo:
            node = todo.pop()
            yield node
            todo += reversed(node.children)


def build_trie(lines: Sequence[Line]) -> Node:
    """The radix tree of all `fed` sequences, with every read attached. The root is empty."""
    root, leaves = _radix(sorted({line.fed for line in lines}))
    ends: set[tuple[int, int]] = set()
    for line in lines:
        node = leaves[line.fed]
        for offset in reversed(range(len(line.targets))):
            at = line.first + offset
            while node.start > at:
                assert node.parent is not None
                node = node.parent
            node.reads.append(Read(at, line.targets[offset], line.doc, line.slot + offset))
        if (id(node), line.first) not in ends:  # the same context twice is one context
            ends.add((id(node), line.first))
            node.contexts += 1
    for node in reversed(list(root.down())):
        node.tokens, node.key = unpack(node.key[4 * node.start : 4 * node.stop]), b""
        node.size += node.stop - node.start
        if node.parent is not None:
            node.parent.size += node.size
            node.parent.contexts += node.contexts
    return root


def _radix(keys: Sequence[bytes]) -> tuple[Node, dict[bytes, Node]]:
    """The tree of sorted distinct keys, and the node in which each key ends."""
    root = Node(b"", 0, 0, None)
    leaves: dict[bytes, Node] = {}
    tip, previous = root, b""
    for key in keys:
        shared = _common(previous, key)
        while tip.start >= shared and tip.parent is not None:
            tip = tip.parent
        if tip.stop > shared:
            tip = _split(tip, shared)
        node = Node(key, shared, len(key) // 4, tip)
        tip.children.append(node)
        tip = leaves[key] = node
        previous = key
    return root, leaves


def _split(node: Node, at: int) -> Node:
    """Cuts a node that is the last child of its parent in two; returns the new upper half."""
    assert node.parent is not None
    upper = Node(node.key, node.start, at, node.parent)
    node.parent.children[-1] = upper
    upper.children = [node]
    node.parent, node.start = upper, at
    return upper


def _common(a: bytes, b: bytes) -> int:
    """How many leading tokens two keys share."""
    n = min(len(a), len(b))
    differ = np.frombuffer(a, np.uint32, n // 4) != np.frombuffer(b, np.uint32, n // 4)
    first = int(differ.argmax()) if n else 0
    return first if n and differ[first] else n // 4
