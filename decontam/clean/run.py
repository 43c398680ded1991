"""Cleaning as one act: what a scan found goes, everything else is written again as it was, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from decontam.clean.data import clean_data
from decontam.clean.decide import Hit, StillHeld, Way
from decontam.clean.found import Also, By, Data, Scan, read_hits, read_scan, refuse_changed
from decontam.clean.output import new_folder
from decontam.clean.report import REPORT, as_json
from decontam.clean.sidecar import carry_over
from decontam.errors import DecontamError


def clean(
    out: Path,
    cleaned: Path,
    way: Way,
    by: By = "exact",
    also: Collection[Also] = (),
    *,
    incomplete: bool = False,
    root: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes the data of the scan in `out` to the new folder `cleaned`, and returns what cleaning.json says of it.

    Raises DecontamError, with nothing left at `cleaned`, when the scan is not whole, a file changed since, `cleaned`
    holds something or the disk refuses.
    """
    scan = read_scan(out, root)
    if not scan.complete and not incomplete:
        raise DecontamError(
            f"{out}: the scan is not complete, so what is left may still hold evaluation text; finish it, or clean what"
            " was found with --incomplete"
        )
    names = _folders(scan.data, cleaned)
    for source in (source for data in scan.data for source in data.sources):
        refuse_changed(source)
    hits = read_hits(out, by, also)
    unknown = hits.keys() - {(data.name, source.file) for data in scan.data for source in data.sources}
    if unknown:
        raise DecontamError(f"{out}: matches in {min(unknown)[1]!r}, a file that manifest.json lacks; scan again")
    held = _held(scan) if way.how in ("mask-span", "gpt3") else _never
    with new_folder(cleaned) as part:
        written = []
        for data in scan.data:
            files = clean_data(data, part / names[data.name], hits, way, held, say)
            written.append((data, files))
            for file in files:
                about = {"how": way.how, "by": by, "also": sorted(also), "rule": scan.rule["name"]}
                carry_over(file, part / names[data.name] / file.source.name, about)
        report = as_json(scan, written, names, way, by, also)
        (part / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    return report


def _folders(data: Sequence[Data], cleaned: Path) -> dict[str, str]:
    """The folder of each data set below the cleaned data: none when there is only one."""
    here = cleaned.resolve()
    for each in data:
        inside = len(each.sources) > 1 or any("/" in source.name for source in each.sources)
        if inside and here.is_relative_to(each.folder.resolve()):
            raise DecontamError(f"{cleaned}: lies within the data, {each.folder}; the next scan would read both")
    if len(data) == 1:
        return {data[0].name: ""}
    names = {each.name: re.sub(r"[^\w.-]+", "_", each.name).strip("._") or "data" for each in data}
    if len(set(names.values())) < len(data):
        raise DecontamError(f"data sets {', '.join(map(repr, names))} need folders of one name; scan them as NAME=PATH")
    return names


def _held(scan: Scan) -> StillHeld:
    from decontam.clean.held import Held

    return Held(scan.find_rule(), scan.evals(), scan.drop_empty_fields, scan.near)


def _never(message: str, hits: Sequence[Hit]) -> Sequence[tuple[int, int]]:
    return ()
