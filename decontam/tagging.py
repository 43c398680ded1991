"""Rows of Arrow tables tagged with the eval instances that they hold, for data that stand in no file."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from decontam.errors import DecontamError

if TYPE_CHECKING:
    import pyarrow as pa

    from decontam.index import Index

By = Literal["exact", "capped"]
TAG = "contamination"  # the column of `decontam clean --how tag`


class Tagger:
    """Gives tables one more column: what each row holds, as lists of {eval, instance, score}.

    The list is empty for a row that holds nothing, and null for a row that cannot be read, of which nothing is known.
    An index is mapped once a process; pickled is only where it stands.
    """

    def __init__(self, index: str | Path, selectors: Sequence[str], by: By = "exact", column: str = TAG) -> None:
        from decontam.select import parse_selectors

        if by not in ("exact", "capped"):
            raise DecontamError(f"by is {by!r}; expected 'exact' or 'capped'")
        self.index, self.by, self.column = Path(index), by, column
        self.selection = parse_selectors(selectors)

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with the column; raises DecontamError where it has one of that name."""
        import pyarrow as pa

        if self.column in table.schema.names:
            raise DecontamError(f"column {self.column!r} is there already; name another with column=NAME")
        index = _opened(str(self.index))
        tags = [each for batch in table.to_batches() for each in self._tags(index, batch)]
        kind = pa.list_(pa.struct([("eval", pa.string()), ("instance", pa.string()), ("score", pa.float64())]))
        return table.append_column(self.column, pa.array(tags, kind))

    def _tags(self, index: Index, batch: pa.RecordBatch) -> list[list[dict[str, Any]] | None]:
        from decontam.clean.change import Tag, tags_of
        from decontam.report.facts import CAPPED, EXACT
        from decontam.scan import scan_batch

        matches, broken = scan_batch(index, self.selection, batch)
        bit = EXACT if self.by == "exact" else CAPPED
        score = "score" if self.by == "exact" else "capped_score"
        names = [(each.name, id_) for each in index.evals for id_ in each.ids]
        found: dict[int, list[Tag]] = {}
        for match in matches.select(["row", "inst", "flags", score]).to_pylist():
            if match["flags"] & bit:
                eval_, instance = names[match["inst"]]
                found.setdefault(match["row"], []).append(Tag(eval_, instance, match[score]))
        tags: list[list[dict[str, Any]] | None] = [[] for _ in range(batch.num_rows)]
        for row, held in found.items():
            tags[row] = [dict(each.as_dict()) for each in tags_of(held)]
        for row in broken:
            tags[row] = None
        return tags


def select_from(first: pa.Table, selectors: Sequence[str]) -> list[str]:
    """The selectors given, else those that the first rows suggest; raises DecontamError where none of them has any."""
    from collections import Counter
    from contextlib import suppress

    from decontam.errors import BrokenRow
    from decontam.select import auto_select, nothing_selected, parse_selectors

    rows = first.to_pylist()
    selection = parse_selectors(selectors) if selectors else auto_select(rows)
    for row in rows:
        with suppress(BrokenRow):
            if selection.messages(row):
                return list(selection.spec)
    fields = Counter(key for row in rows for key, value in row.items() if value is not None)
    raise nothing_selected(selection, fields, "the first rows")


_OPENED: dict[str, Index] = {}
_OPENING = threading.Lock()


def _opened(folder: str) -> Index:
    from decontam.index import open_index

    with _OPENING:
        if folder not in _OPENED:
            _OPENED[folder] = open_index(Path(folder))
        return _OPENED[folder]
