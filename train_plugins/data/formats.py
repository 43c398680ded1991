"""Formats of training data that people have, and which one the rows of a file are of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalsuite.errors import DataError, UsageError, did_you_mean
from train_plugins.data.badrows import BadRow
from train_plugins.data.kinds import OPTIONAL
from train_plugins.data.mappings import (
    Reading,
    Row,
    from_alpaca,
    from_completion,
    from_hh,
    from_messages,
    from_oasst,
    from_pair,
    from_sharegpt,
    from_text,
    missing_field,
)

DETECTED_BY = 100  # rows that `auto` looks at


@dataclass(frozen=True, slots=True)
class Format:
    """One format: whether a row is of it by its fields, what it becomes, and the fields that are used up thereby."""

    name: str
    fits: Callable[[Row], bool]
    convert: Callable[[Row, Reading], dict[str, Any]]
    fields: frozenset[str]
    needs: tuple[str, ...]  # the fields without which a row is not of it


def detect(rows: Sequence[tuple[int, Any]], name: str) -> Format:
    """The one format of the rows. Raises DataError when they have two or none, naming the near miss of a field."""
    seen: dict[str, int] = {}
    for line, row in rows:
        if isinstance(row, Mapping) and (found := format_of(row)):
            seen.setdefault(found.name, line)
    if len(seen) > 1:
        told = " and ".join(f"{format} (line {line})" for format, line in seen.items())
        raise DataError(f"{name}: rows of two formats, {told}; split the file, or name the one to read with --from")
    if not seen:
        raise DataError(f"{name}: {_nothing_fits(rows)}")
    return refuse_text(FORMATS[next(iter(seen))], name)


def refuse_text(format: Format, name: str) -> Format:
    """The format, unless it has nobody who speaks; then raises DataError."""
    if format.name == "text":
        raise DataError(f"{name}: rows of `text`, which has no roles; use continued pre-training elsewhere")
    return format


def format_of(row: Row) -> Format | None:
    """The first format whose fields the row has."""
    return next((format for format in FORMATS.values() if format.fits(row)), None)


def find_format(name: str) -> Format:
    """The format of that name; raises UsageError with the near miss."""
    if name not in FORMATS:
        raise UsageError(f"no format named {name!r}{did_you_mean(name, FORMATS)}; there are auto, {', '.join(FORMATS)}")
    return FORMATS[name]


def _nothing_fits(rows: Sequence[tuple[int, Any]]) -> str:
    line, row = next(((line, row) for line, row in rows if isinstance(row, Mapping)), (0, None))
    if row is None:
        bad = next((str(row) for _, row in rows if isinstance(row, BadRow)), "")
        return f"none of its first rows is an object{f' ({bad})' if bad else ''}; expected one JSON object a line"
    nearest = min(FORMATS.values(), key=lambda form: (_distance(row, form), -len(form.needs)))
    if _distance(row, nearest) >= len(nearest.needs):
        has, known = ", ".join(map(str, row)), ", ".join(FORMATS)
        return f"no format has the fields {has} (line {line}); expected one of {known}"
    _, found, expected = missing_field(row, nearest.needs)
    return f"no format fits; line {line} is nearest to {nearest.name} and has {found} (expected {expected})"


def _distance(row: Row, form: Format) -> float:
    """How many needed fields the row lacks; one that is spelled nearly right counts half."""
    lacking = [need for need in form.needs if not any(option in row for option in need.split("|"))]
    return sum(0.5 if missing_field(row, [need])[1].endswith("?") else 1.0 for need in lacking)


def _has_strings(row: Row, *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


def _is_messages(row: Row) -> bool:
    # Some preference data has the chosen conversation once more under this name.
    return "messages" in row and not ("chosen" in row and "rejected" in row)


def _is_hh(row: Row) -> bool:
    return _has_strings(row, "chosen", "rejected") and str(row["chosen"]).startswith("\n\nHuman:")


def _is_pair(row: Row) -> bool:
    if "chosen" not in row or "rejected" not in row or _is_hh(row):
        return False
    return row.get("prompt") is not None or isinstance(row["chosen"], list)


_PAIR = (*OPTIONAL["preference"], "chosen", "rejected")
# In the order in which they are tried.
FORMATS: Mapping[str, Format] = {
    each.name: each
    for each in (
        Format(
            "messages",
            _is_messages,
            from_messages,
            frozenset({"messages", "ground_truth", "dataset", *OPTIONAL["rlvr"]}),
            ("messages",),
        ),
        Format(
            "oasst-pref",
            lambda row: "messages" in row and _has_strings(row, "chosen", "rejected"),
            from_oasst,
            frozenset({"messages", *_PAIR}),
            ("messages", "chosen", "rejected"),
        ),
        Format(
            "sharegpt",
            lambda row: "conversations" in row,
            from_sharegpt,
            frozenset({"conversations", "system", *_PAIR}),
            ("conversations",),
        ),
        Format("hh", _is_hh, from_hh, frozenset(_PAIR), ("chosen", "rejected")),
        Format(
            "prompt-chosen-rejected",
            _is_pair,
            from_pair,
            frozenset({"prompt", *_PAIR}),
            ("prompt", "chosen", "rejected"),
        ),
        Format(
            "prompt-completion",
            lambda row: "prompt" in row and "completion" in row,
            from_completion,
            frozenset({"prompt", "completion"}),
            ("prompt", "completion"),
        ),
        Format(
            "alpaca",
            lambda row: "instruction" in row and ("output" in row or "response" in row),
            from_alpaca,
            frozenset({"instruction", "input", "output", "response", "system", "history"}),
            ("instruction", "output|response"),
        ),
        Format("text", lambda row: "text" in row, from_text, frozenset({"text"}), ("text",)),
    )
}
