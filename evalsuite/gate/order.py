"""Which items a gate looks at first: an order that only the inputs decide, cut into looks.

The order is a keyed hash of the sample ids, so a gate repeated on the same inputs asks the same items and says the
same: there are no lucky second draws. File order would not do: BBH, MMLU and MATH files are sorted by subject.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise

MIN_CLUSTERS = 10  # a look at fewer clusters decides nothing: their spread is not known


@dataclass(frozen=True, slots=True)
class Order:
    """The items of one benchmark in the order they are looked at. Look k is the first `sizes[k]` of `ids`.

    `times` is the share of the items that each look holds; a look that does not `count` decides nothing. `clusters` has
    the cluster of each item, empty when items are independent; with `strata` these are fixed groups, and items are
    independent inside them.
    """

    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    sizes: tuple[int, ...]
    counts: tuple[bool, ...]
    strata: bool = False

    @property
    def n(self) -> int:
        return len(self.ids)

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(size / self.n for size in self.sizes)


def order(
    benchmark: str,
    ids: Sequence[str],
    clusters: Mapping[str, str],
    gate_id: str,
    n_looks: int,
    *,
    strata: bool = False,
) -> Order:
    """The items in the gate's order: ascending blake2b-128 keyed by the gate's id, ties by the id itself.

    With clusters whole clusters are ordered, by the hash of their names; look k is then the shortest prefix of whole
    clusters that holds k/L of the items. `strata` are fixed groups: they are kept, and items are ordered by themselves.
    """
    key = bytes.fromhex(gate_id)
    base = blake2b(benchmark.encode() + b"\0", digest_size=16, key=key)

    def rank(name: str) -> bytes:
        digest = base.copy()
        digest.update(name.encode("utf-8", "surrogatepass"))
        return digest.digest()

    if not clusters or strata:
        ordered = tuple(i for _, i in sorted((rank(i), i) for i in ids))
        sizes = [math.ceil(k * len(ids) / n_looks) for k in range(1, n_looks + 1)]
        labels = tuple(clusters.get(i, "") for i in ordered) if clusters else ()
        return Order(ordered, labels, tuple(sizes), tuple(b > a for a, b in pairwise([0, *sizes])), strata)
    members: dict[str, list[str]] = {}
    for i in ids:
        members.setdefault(clusters.get(i, i), []).append(i)
    names = [name for _, name in sorted((rank(name), name) for name in members)]
    ordered = tuple(i for name in names for _, i in sorted((rank(i), i) for i in members[name]))
    labels = tuple(name for name in names for _ in members[name])
    return Order(ordered, labels, *_whole_clusters([len(members[name]) for name in names], len(ordered), n_looks))


def _whole_clusters(lengths: Sequence[int], n: int, n_looks: int) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """(items, whether the look counts) for each look. A look that adds no cluster to the one before does not count."""
    sizes, counts = [], []
    held = used = 0
    for k in range(1, n_looks + 1):
        before = used
        while held * n_looks < k * n:
            held += lengths[used]
            used += 1
        sizes.append(held)
        counts.append(used > before and used >= MIN_CLUSTERS)
    last = next(k for k in range(n_looks) if sizes[k] == n)
    return tuple(sizes), tuple((c and k < last) or k == last for k, c in enumerate(counts))
