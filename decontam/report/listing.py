"""The matches of a folder as a list that reads a line when it is asked for: there may be millions."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

from decontam.errors import DecontamError
from decontam.report.facts import Texts
from decontam.report.match import Match, parse

AHEAD = 100  # matches whose texts are fetched together


class Listing(Sequence[Match]):
    """Lines of matches.jsonl, and of near.jsonl behind them, that `keep` keeps."""

    def __init__(self, paths: Sequence[Path], keep: Callable[[Match], bool] | None = None) -> None:
        self._paths = tuple(paths)
        self._file = array("b")
        self._start = array("Q")
        for number, path in enumerate(paths):
            for start in _starts(path, keep):
                self._file.append(number)
                self._start.append(start)

    def __len__(self) -> int:
        return len(self._start)

    @overload
    def __getitem__(self, at: int) -> Match: ...
    @overload
    def __getitem__(self, at: slice) -> list[Match]: ...
    def __getitem__(self, at: int | slice) -> Match | list[Match]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        path = self._paths[self._file[at]]
        with path.open("rb") as lines:
            lines.seek(self._start[at])
            return parse(lines.readline(), str(path))


def _starts(path: Path, keep: Callable[[Match], bool] | None) -> Iterator[int]:
    """Where the lines that are kept begin."""
    try:
        with path.open("rb") as lines:
            start = 0
            for number, line in enumerate(lines, 1):
                if keep is None or keep(parse(line, f"{path}:{number}")):
                    yield start
                start += len(line)
    except OSError as error:
        raise DecontamError(f"{path}: cannot be read ({error.strerror}); expected the folder of a scan") from error


@dataclass
class Ahead:
    """Messages of matches, fetched for the next ones too: finding rows of a file means reading it."""

    matches: Sequence[Match]
    texts: Texts
    _at: range = range(0)
    _found: dict[tuple[str, str, int], Mapping[int, str]] = field(default_factory=dict)

    def message(self, at: int) -> str | None:
        """The message of the match at this place, None when it cannot be read."""
        if at not in self._at:
            self._fetch(range(at, min(at + AHEAD, len(self.matches))))
        match = self.matches[at]
        return self._found.get((match.dataset, match.file, match.row), {}).get(match.turn)

    def _fetch(self, at: range) -> None:
        wanted: dict[tuple[str, str], dict[int, int]] = {}
        for match in self.matches[at.start : at.stop]:
            wanted.setdefault((match.dataset, match.file), {})[match.row] = -1
        self._at = at
        self._found = {
            (dataset, file, row): turns
            for (dataset, file), rows in wanted.items()
            for row, turns in self.texts(dataset, file, rows).items()
        }
