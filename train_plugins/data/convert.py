"""Data of any known format becomes canonical rows: every row is checked, and nothing appears unless all can be used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from evalsuite.errors import UsageError, did_you_mean
from train_plugins.data.badrows import BadRow, Tally
from train_plugins.data.checks import check_row, merge_turns, name_of
from train_plugins.data.exports import EXPORTS
from train_plugins.data.formats import DETECTED_BY, Format, detect, find_format, refuse_text
from train_plugins.data.kinds import REQUIRED, RULES, Kind, Problem, RowRules, content_id, kind_of, rules_meta
from train_plugins.data.mappings import Malformed, Reading
from train_plugins.data.sources import Source
from train_plugins.data.writing import DatasetWriter, Written, part_of, remove_parts, sidecar

REPORT_EVERY = 10_000  # rows between two calls of `progress`


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """How data is converted. `max_bad` is the fraction of bad rows up to which `skip_bad` goes on.

    `source` is given to rows that name none, `keep` are fields that stay besides those of canonical rows, `new_ids`
    gives every row an id by its content. `meta` goes into the sidecar.
    """

    format: str = "auto"
    to: str = "messages"
    rules: RowRules = RULES
    alpaca_preamble: bool = False
    skip_bad: bool = False
    max_bad: float = 0.01
    source: str = ""
    keep: tuple[str, ...] = ()
    new_ids: bool = False
    rejects: Path | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Converted:
    """What came of it. `written` is None where bad rows left nothing to be written; then `why` says so in a line."""

    tally: Tally
    formats: Mapping[str, str]
    dropped_fields: tuple[str, ...]
    written: Written | None
    rejects: Path | None = None
    why: str = ""


def convert(
    sources: Sequence[Source], out: Path, options: ConvertOptions, progress: Callable[[int], None] = lambda n: None
) -> Converted:
    """Converts all sources into one file and its sidecar, or into nothing.

    Raises DataError for a source that cannot be read or whose format is unclear, UsageError for a name without format.
    """
    _refuse(sources, out, options)
    work = _Work(options)
    with ExitStack() as stack:
        writer = stack.enter_context(DatasetWriter(out))
        rejects = stack.enter_context(_Rejects(_rejects(out, options)))
        for source in sources:
            for line, row, bad in work.rows(source):
                problems = bad or _written(writer, row, work, source.name, line)
                if problems:
                    work.tally.add(problems)
                    if options.skip_bad:
                        rejects.add(problems, row)
                if work.tally.n_rows % REPORT_EVERY == 0:
                    progress(work.tally.n_rows)
        if why := _why_not(work.tally, work.empty, options):
            return Converted(work.tally, work.formats, work.dropped, None, None, why)
        written = writer.finish(work.meta(sources))
        return Converted(work.tally, work.formats, work.dropped, written, rejects.finish())


def _written(writer: DatasetWriter, row: Any, work: _Work, file: str, line: int) -> Sequence[BadRow]:
    """Nothing, or why the row cannot be written: checks look at messages, not at an id or a field that is kept."""
    try:
        writer.add(row, work.texts_only)
    except UnicodeEncodeError as error:
        found = f"U+{ord(error.object[error.start]):04X} in a field"
        return [BadRow(file, line, "not_utf8", found, "text without lone surrogates")]
    except (TypeError, ValueError) as error:  # a field that is kept, of a column store: a date, bytes
        return [BadRow(file, line, "wrong_type", f"a field that JSON does not have ({error})", "JSON values")]
    return ()


def _refuse(sources: Sequence[Source], out: Path, options: ConvertOptions) -> None:
    if _rejects(out, options).absolute() in (out.absolute(), sidecar(out).absolute()):
        raise UsageError(f"--rejects {_rejects(out, options)} is where the rows or their facts go; name another file")
    for path in (out, _rejects(out, options)):
        if path.exists() and any(source.path is not None and source.path.samefile(path) for source in sources):
            raise UsageError(f"{path} is what is read; name another file")
    if options.to not in EXPORTS:
        raise UsageError(f"no format to write named {options.to!r}{did_you_mean(options.to, EXPORTS)}; "
                         f"there are {', '.join(EXPORTS)}")  # fmt: skip
    if options.format != "auto":
        find_format(options.format)
    if not 0 <= options.max_bad <= 1:
        raise UsageError(f"max_bad is {options.max_bad}; a fraction from 0 to 1")


def _rejects(out: Path, options: ConvertOptions) -> Path:
    return options.rejects or out.with_name("rejects.jsonl")


def _why_not(tally: Tally, empty: Sequence[str], options: ConvertOptions) -> str:
    if empty:
        return f"{', '.join(empty)}: no rows; expected at least one, nothing was written"
    if not tally.n_bad:
        return ""
    if not options.skip_bad:
        return f"{tally.n_bad} of {tally.n_rows} rows cannot be used, nothing was written (--skip-bad leaves them out)"
    if tally.n_bad > options.max_bad * tally.n_rows:
        share = f"{100 * tally.n_bad / tally.n_rows:.3g} %"
        return (
            f"{tally.n_bad} of {tally.n_rows} rows cannot be used: {share} is more than --max-bad "
            f"{100 * options.max_bad:.3g} %, nothing was written"
        )
    return "every row was bad, nothing was written" if tally.n_bad == tally.n_rows else ""


class _Work:
    """What is known across rows: their kind, the ids that were seen, the fields that were left out."""

    def __init__(self, options: ConvertOptions) -> None:
        self.options, self.tally = options, Tally()
        self.formats: dict[str, str] = {}
        self.empty: list[str] = []  # sources without rows
        self._reading = Reading(options.alpaca_preamble, options.rules.allow_tools)
        self.texts_only = False  # the row at hand holds texts and no number
        self._kind: Kind | None = None
        self._seen: dict[str, tuple[str, int]] = {}  # id: content, row
        self._known: frozenset[str] = frozenset()
        self._dropped: set[str] = set()
        self._export = EXPORTS.get(options.to, dict)

    @property
    def dropped(self) -> tuple[str, ...]:
        return tuple(sorted(self._dropped))

    def rows(self, source: Source) -> Iterator[tuple[int, Any, Sequence[BadRow]]]:
        """(line, row to be written, ()) or (line, row as it was read, problems) for every row of a source."""
        rows = source.rows()
        head = list(islice(rows, DETECTED_BY))
        if not head:
            self.empty.append(source.name)
            return
        named = self.options.format
        form = detect(head, source.name) if named == "auto" else refuse_text(find_format(named), source.name)
        self.formats[source.name] = form.name
        self._known = form.fields | {"id", "source", *self.options.keep}
        default = self.options.source or source.default
        for line, row in chain(head, rows):
            self.tally.n_rows += 1
            if isinstance(row, BadRow):
                yield line, None, (row,)
                continue
            made, problems = self._made(row, form, default)
            if problems:
                yield line, row, [BadRow(source.name, line, *problem) for problem in problems]
            else:
                yield line, made, ()

    def _made(self, row: Any, form: Format, source: str) -> tuple[Any, Sequence[Problem]]:
        """The row to be written, or what is wrong with it."""
        if not isinstance(row, dict):
            return None, [("not_object", f"the row is {name_of(row)}", "an object with fields")]
        try:
            content = form.convert(row, self._reading)
            if self.options.rules.merge_turns:
                content = _merged(content)
            self._kind = kind = self._kind or kind_of(content)
            if problems := check_row(content, kind, self.options.rules):
                return None, problems
            self.texts_only = kind != "rlvr" and len(content) == len(REQUIRED[kind]) and not self.options.keep
            canonical, problems = self._named(row, content, source)
            if problems:
                return None, problems
            self._dropped |= row.keys() - self._known
            return self._export(canonical), ()
        except Malformed as error:
            return None, [error.problem]

    def _named(self, row: Mapping[str, Any], content: dict[str, Any], source: str) -> tuple[Any, list[Problem]]:
        """The row with id and source before its content, and what is wrong with the id."""
        digest = content_id(content, self.texts_only)
        own = None if self.options.new_ids else row.get("id")
        if own is not None and (isinstance(own, bool | float) or not isinstance(own, str | int) or own == ""):
            return None, [("wrong_type", f"id is {name_of(own)}", "a text or a whole number (--new-ids ignores ids)")]
        name = digest if own is None else str(own)
        before = self._seen.setdefault(name, (digest, self.tally.n_rows)) if own is not None else (digest, 0)
        if before[0] != digest:
            found = f"id {name!r} is that of row {before[1]}, which says something else"
            return None, [("duplicate_id", found, "one id for one content (--new-ids ignores ids)")]
        given = row.get("source")
        kept = {key: row[key] for key in self.options.keep if key in row and key not in content}
        return {"id": name, "source": given if given and isinstance(given, str) else source, **content, **kept}, []

    def meta(self, sources: Sequence[Source]) -> dict[str, Any]:
        """The sidecar: what was given by hand, what was read, and what was left out of it."""
        origins = dict.fromkeys(source.origin for source in sources if source.origin)
        return {
            "kind": self._kind,
            "format": self.options.to,
            "origin": ", ".join(origins),
            **self.options.meta,
            **rules_meta(self.options.rules),
            "sources": [self._about(source) for source in sources],
            "bad_rows": self.tally.as_json()["codes"],
            "dropped_fields": list(self.dropped),
        }

    def _about(self, source: Source) -> dict[str, Any]:
        name = source.path.name if source.path else source.name  # never a folder of this machine
        return {"name": name, "digest": source.digest, "format": self.formats.get(source.name)}


def _merged(content: Mapping[str, Any]) -> dict[str, Any]:
    """With equal neighbours joined, where the messages have the right shape; the check tells of the others."""
    try:
        return {
            key: merge_turns(value) if key in ("messages", "chosen", "rejected") else value
            for key, value in content.items()
        }
    except (TypeError, KeyError, AttributeError):
        return dict(content)


class _Rejects:
    """The rows that were left out, one JSON object a line; there only once `finish` was called."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = part_of(path)
        self._file: Any = None

    def __enter__(self) -> _Rejects:
        return self

    def add(self, problems: Sequence[BadRow], row: Any) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            remove_parts(self._path)
            self._file = self._part.open("w", encoding="ascii")
        first = problems[0]
        about = {"file": first.file, "line": first.line, "code": first.code, "found": first.found}
        # ASCII escapes: a row may be here because its text has no UTF-8.
        shown = first.text if row is None and first.text else row
        self._file.write(json.dumps({**about, "row": shown}, default=str) + "\n")

    def finish(self) -> Path | None:
        """Where they are; None when there are none."""
        if self._file is None:
            return None
        self._file.close()
        os.replace(self._part, self._path)
        return self._path

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)
