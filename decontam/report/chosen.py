"""The matches that a page shows: for each data set and eval the best of each instance, at most so many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from decontam.report.facts import CAPPED, EXACT, SHORT, Scan, ShardTables, Texts
from decontam.report.lines import Known, chosen_lines, chosen_near_lines
from decontam.report.match import Match, parse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Group = Literal["confirmed", "boilerplate", "near"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Matches of one group of a cell, best first, with how many instances and matches the group has in all."""

    matches: tuple[Match, ...]
    n_instances: int
    n_matches: int


@dataclass(frozen=True, slots=True)
class _Columns:
    """All matches of one data set, one after the other: where each stands and what it is."""

    shard: NDArray[np.int64]
    place: NDArray[np.int64]  # row of the shard's table
    instance: NDArray[np.int64]
    eval: NDArray[np.int64]
    score: NDArray[np.float64]
    group: NDArray[np.int64]  # index of _GROUPS, -1 for none


_GROUPS: tuple[Group, ...] = ("confirmed", "boilerplate", "near")


def choose(scan: Scan, limit: int) -> dict[tuple[int, int], dict[Group, Chosen]]:
    """For each (data set, eval) that has matches, up to `limit` of each group.

    An instance counts once, in the first group it belongs to: it is boilerplate only when no match of it survives the
    cap, and a near-duplicate only when the exact rule found nothing.
    """
    import numpy as np

    known = Known.of(scan.evals)
    lengths = [len(facts.eval.ids) for facts in scan.evals]
    eval_of = np.repeat(np.arange(len(lengths)), lengths)
    found: dict[tuple[int, int], dict[Group, Chosen]] = {}
    for d, facts in enumerate(scan.datasets):
        shards = [shard for shard in scan.shards if shard.dataset == facts.name]
        columns = _columns(shards, eval_of)
        picks = [(e, *pick) for e in np.unique(columns.eval).tolist() for pick in _picks(columns, e)]
        wanted = [place for _, _, best, _ in picks for place in best[:limit].tolist()]
        read = _read(shards, columns, wanted, known, scan.rule.name)
        for e, group, best, n_matches in picks:
            shown = tuple(read[place] for place in best[:limit].tolist())
            found.setdefault((d, e), {})[group] = Chosen(shown, len(best), n_matches)
    return found


def texts_of(matches: Sequence[Match], scan: Scan, texts: Texts) -> dict[tuple[str, str, int, int], str]:
    """The messages of matches, by (data set, file, row, turn); one look-up a file."""
    wanted: dict[tuple[str, str], set[int]] = {}
    for match in matches:
        wanted.setdefault((match.dataset, match.file), set()).add(match.row)
    found = {}
    for (dataset, file), rows in wanted.items():
        offsets = _offsets([s for s in scan.shards if (s.dataset, s.file) == (dataset, file)], rows)
        for row, turns in texts(dataset, file, offsets).items():
            found.update({(dataset, file, row, turn): text for turn, text in turns.items()})
    return found


def _offsets(shards: Sequence[ShardTables], wanted: set[int]) -> dict[int, int]:
    """Row of the file to the byte offset of its line, in order of rows."""
    import numpy as np

    found: dict[int, int] = {}
    numbers = np.fromiter(wanted, np.int64)
    for shard in shards:
        for table in (shard.matches, shard.near):
            if table is not None:
                rows = table["row"].to_numpy() + shard.first_row
                here = np.isin(rows, numbers)
                found.update(zip(rows[here].tolist(), table["offset"].to_numpy()[here].tolist(), strict=True))
    return dict(sorted(found.items()))


def _columns(shards: Sequence[ShardTables], eval_of: NDArray[np.int64]) -> _Columns:
    import numpy as np

    parts: list[tuple[Any, ...]] = []
    for s, shard in enumerate(shards):
        for table in (shard.matches, shard.near):
            if table is None or not table.num_rows:
                continue
            instances = table["inst"].to_numpy().astype(np.int64)
            n = len(instances)
            group = np.full(n, 2) if table is shard.near else _groups(table["flags"].to_numpy())
            score = table["score"].to_numpy()
            parts.append((np.full(n, s), np.arange(n), instances, eval_of[instances], score, group))
    empty = np.zeros(0, np.int64)
    if not parts:
        return _Columns(empty, empty, empty, empty, np.zeros(0), empty)
    return _Columns(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _groups(flags: NDArray[np.uint8]) -> NDArray[np.int64]:
    import numpy as np

    survives = (flags & (CAPPED | SHORT)) != 0
    return np.where(survives, 0, np.where((flags & EXACT) != 0, 1, -1)).astype(np.int64)


def _picks(columns: _Columns, e: int) -> Iterator[tuple[Group, NDArray[np.int64], int]]:
    """(group, the best match of each instance with the best first, how many matches) of one eval."""
    import numpy as np

    mask = columns.eval == e
    taken = np.zeros(0, np.int64)
    for g, name in enumerate(_GROUPS):
        here = np.flatnonzero(mask & (columns.group == g) & ~np.isin(columns.instance, taken))
        taken = np.concatenate([taken, columns.instance[here]])
        # Of equal scores the first in the order of the data.
        here = here[np.lexsort((here, -columns.score[here], columns.instance[here]))]
        _, first = np.unique(columns.instance[here], return_index=True)
        best = here[first]
        if len(best):
            yield name, best[np.lexsort((columns.instance[best], -columns.score[best]))], len(here)


def _read(
    shards: Sequence[ShardTables], columns: _Columns, wanted: Sequence[int], known: Known, rule: str
) -> dict[int, Match]:
    """The matches at these places, as matches.jsonl and near.jsonl have them."""
    by_table: dict[tuple[int, bool], list[int]] = {}
    for each in wanted:
        by_table.setdefault((int(columns.shard[each]), bool(columns.group[each] == 2)), []).append(each)
    read: dict[int, Match] = {}
    for (s, near), own in by_table.items():
        places = columns.place[own].tolist()
        lines = chosen_near_lines(shards[s], places, known) if near else chosen_lines(shards[s], places, known, rule)
        read.update(zip(own, map(parse, lines), strict=True))
    return read
