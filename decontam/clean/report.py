"""cleaning.json: what was written, by which rule and in which way, and which rows are not what they were."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from decontam.clean.data import Cleaned, digest_after, digest_before
from decontam.clean.decide import Way
from decontam.clean.found import Also, By, Data, Scan
from decontam.report.passages import visible

SCHEMA = "decontam-cleaning/1"
REPORT = "cleaning.json"
_COLUMNS = ("n_rows_before", "n_rows_after", "n_dropped", "n_changed")


def as_json(
    scan: Scan,
    written: Sequence[tuple[Data, Sequence[Cleaned]]],
    names: Mapping[str, str],
    way: Way,
    by: By,
    also: Collection[Also],
) -> dict[str, Any]:
    masks = way.how in ("mask-span", "gpt3")
    return {
        "schema": SCHEMA,
        "how": way.how,
        "by": by,
        "also": sorted(also),
        **({"window": way.window, "min_slice": way.min_slice, "most_cuts": way.most_cuts} if masks else {}),
        "rule": dict(scan.rule),
        "complete": scan.complete,
        "datasets": [
            {
                "name": data.name,
                "selectors": list(data.selection.spec),
                "digest_before": digest_before(files),
                "digest_after": digest_after(files),
                **_counts(files),
            }
            for data, files in written
        ],
        "files": [
            {
                "dataset": data.name,
                "file": file.source.file,
                "written": os.path.join(names[data.name], file.source.name),
                "digest_before": file.digest_before,
                "digest_after": file.digest_after,
                **_counts([file]),
                "dropped": file.dropped,
                "changed": file.changed,
            }
            for data, files in written
            for file in files
        ],
    }


def _counts(files: Sequence[Cleaned]) -> dict[str, int]:
    return {
        "n_rows_before": sum(file.n_rows for file in files),
        "n_rows_after": sum(file.n_left for file in files),
        "n_dropped": sum(len(file.dropped) for file in files),
        "n_changed": sum(len(file.changed) for file in files),
    }


def as_text(report: Mapping[str, Any], cleaned: Path) -> str:
    """One line a file, and one for where it all lies."""
    rows = [(visible(each["file"]), *(f"{each[key]:,}" for key in _COLUMNS)) for each in report["files"]]
    table = [("file", "rows", "left", "dropped", "changed"), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    ]
    how = f"{report['how']} by {' and '.join([report['by'], *report['also']])}"
    return "\n".join(
        [*lines, f"{visible(str(cleaned))}: written, {how}, rule {report['rule']['name']}; rows in {REPORT}"]
    )
