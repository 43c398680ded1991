"""Canonical rows of training data: the door to reading, checking and writing them.

A row has `id` and `source`, and by kind: sft `messages`; preference `chosen` and `rejected`, equal but for the last
message; rlvr `messages` that end with the user, `ground_truth` and `dataset`, the name of a verifier.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError
from train_plugins.data.badrows import BadRow as BadRow
from train_plugins.data.checks import check_row as check_row
from train_plugins.data.checks import merge_turns as merge_turns
from train_plugins.data.containers import read_lines as read_lines
from train_plugins.data.kinds import KINDS as KINDS
from train_plugins.data.kinds import RULES as RULES
from train_plugins.data.kinds import Kind as Kind
from train_plugins.data.kinds import RowRules as RowRules
from train_plugins.data.kinds import content_id as content_id
from train_plugins.data.kinds import kind_of as kind_of
from train_plugins.data.kinds import rules_meta as rules_meta
from train_plugins.data.kinds import rules_of as rules_of
from train_plugins.data.texts import TEMPLATE_TOKENS as TEMPLATE_TOKENS
from train_plugins.data.writing import DatasetWriter as DatasetWriter
from train_plugins.data.writing import Written as Written
from train_plugins.data.writing import read_meta as read_meta
from train_plugins.data.writing import write_dataset as write_dataset


def read_rows(path: Path, kind: Kind | None = None, rules: RowRules | None = None) -> Iterator[dict[str, Any]]:
    """Canonical rows of a file, all of one kind (None: that of the first); a missing id or source is filled in.

    `rules` None: those that its sidecar says it was made by. Raises DataError with file:line at the first row that
    cannot be used, and for a file without rows.
    """
    rules = rules_of(read_meta(path)) if rules is None else rules
    stem = path.name.split(".")[0]
    n = 0
    for line, row in read_lines(path):
        if isinstance(row, BadRow):
            raise DataError(str(row))
        kind = kind or (kind_of(row) if isinstance(row, Mapping) else "sft")
        for problem in check_row(row, kind, rules):
            raise DataError(str(BadRow(str(path), line, *problem)))
        n += 1
        yield row if "id" in row and "source" in row else {"id": content_id(row), "source": stem, **row}
    if not n:
        raise DataError(f"{path} has no rows; expected one {kind or 'training'} row a line")
