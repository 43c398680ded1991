"""The training texts of a finished scan, read again from the files that it read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from decontam.errors import BrokenRow, DecontamError
from decontam.rules import RULES

if TYPE_CHECKING:
    from decontam.clean.found import Scan, Source
    from decontam.inputs.discover import Format
    from decontam.select import Selection


@dataclass
class TrainingTexts:
    """Fetches messages of the files of a scan. A file that is gone or has changed gives none, and is told of once."""

    scan: Scan
    files: Mapping[tuple[str, str], tuple[Source, Selection]]
    tell: Callable[[str], None]
    _refused: dict[str, bool] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """What the scan's rule is, in words; empty when this version knows another."""
        rule = RULES.get(str(self.scan.rule["name"]))
        return rule.about if rule is not None and rule.digest == self.scan.rule["digest"] else ""

    def __call__(self, dataset: str, file: str, rows: Mapping[int, int]) -> dict[int, dict[int, str]]:
        from decontam.inputs import fetch_rows

        source, selection = self.files.get((dataset, file), (None, None))
        if source is None or selection is None or not self._readable(source):
            return {}
        found: dict[int, dict[int, str]] = {}
        for row, content in fetch_rows(str(source.path), cast("Format", source.format), rows).items():
            try:
                found[row] = {message.turn: message.text for message in selection.messages(content)}
            except BrokenRow:
                continue
        return found

    def _readable(self, source: Source) -> bool:
        from decontam.clean.found import refuse_changed

        if source.file not in self._refused:
            self._refused[source.file] = False
            try:
                refuse_changed(source)
            except DecontamError as error:
                self._refused[source.file] = True
                self.tell(str(error))
        return not self._refused[source.file]


def training_texts(out: Path, root: Path | None, tell: Callable[[str], None]) -> TrainingTexts:
    """For the scan in `out`; relative paths of its files count from `root`, else from here."""
    from decontam.clean.found import read_scan

    scan = read_scan(out, root)
    files = {(data.name, source.file): (source, data.selection) for data in scan.data for source in data.sources}
    return TrainingTexts(scan, files, tell)
