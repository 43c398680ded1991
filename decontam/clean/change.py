"""What becomes of one training row, said without regard to the format that it is kept in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]  # keys and list positions from the row down to a value
TAG = "contamination"


@dataclass(frozen=True, slots=True)
class Tag:
    """One eval instance that a row holds, as `--how tag` writes it. `score` is 0..1, for near-duplicates too."""

    eval: str
    instance: str
    score: float

    def as_dict(self) -> dict[str, str | float]:
        return {"eval": self.eval, "instance": self.instance, "score": self.score}


@dataclass(frozen=True, slots=True)
class Change:
    """Either `drop` says why the row goes, or the rest says what is written in its place.

    `texts` are the new strings by path, `removed` the positions to take out of the list at a path; all paths are those
    of the row as it was.
    """

    drop: str = ""
    texts: Mapping[Path, str] = field(default_factory=dict)
    removed: Mapping[Path, frozenset[int]] = field(default_factory=dict)
    tags: tuple[Tag, ...] = ()


@dataclass(slots=True)
class Node:
    """The changes at one value and below it."""

    text: str | None = None
    removed: frozenset[int] = frozenset()
    children: dict[str | int, Node] = field(default_factory=dict)


def tree(change: Change) -> Node:
    """The changes of `texts` and `removed` as a tree, so that each value is visited once."""
    root = Node()
    for path, text in change.texts.items():
        _at(root, path).text = text
    for path, removed in change.removed.items():
        _at(root, path).removed = removed
    return root


def changed(value: Any, node: Node) -> Any:
    """A copy of a decoded value with the changes of `node`."""
    if node.text is not None:
        return node.text
    if isinstance(value, Mapping):
        return {key: changed(v, node.children[key]) if key in node.children else v for key, v in value.items()}
    if not isinstance(value, list):
        return value
    kept = ((i, v) for i, v in enumerate(value) if i not in node.removed)
    return [changed(v, node.children[i]) if i in node.children else v for i, v in kept]


def tags_of(found: Iterable[Tag]) -> tuple[Tag, ...]:
    """One tag an (eval, instance), with the best of its scores, in the order they came."""
    best: dict[tuple[str, str], Tag] = {}
    for tag in found:
        key = (tag.eval, tag.instance)
        if key not in best or best[key].score < tag.score:
            best[key] = tag
    return tuple(best.values())


def _at(node: Node, path: Path) -> Node:
    for key in path:
        node = node.children.setdefault(key, Node())
    return node
