"""One eval from rows: which fields are its texts, what its instances are called, and the digest of it all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from decontam.errors import DecontamError, did_you_mean
from decontam.types import EvalSet, Kind

DEFAULT_FIELDS = ("question", "problem", "prompt", "instruction", "input", "Question", "Behavior", "text")
SHOWN = 20  # of the faults found

Row = Mapping[str, Any]


def eval_set(
    name: str,
    rows: Sequence[Row],
    fields: Sequence[str] = (),
    *,
    kind: Kind = "development",
    ids: Sequence[str] | None = None,
    source: str = "",
) -> EvalSet:
    """The texts of `fields` in each row; a dotted name reaches into objects, a row without the field has None.

    Ids are `ids`, else each row's `id`, else its number from 0. Raises DecontamError naming every fault: no rows, a
    field that no row has, a text that is none.
    """
    where = source or name
    if not name or name.startswith(".") or set("/\\\0\r\n\t") & set(name):
        raise DecontamError(f"{where}: {name!r} cannot name an eval; reports have a file of that name (NAME=PATH)")
    if not rows:
        raise DecontamError(f"{where}: no instances; expected at least one row")
    chosen = tuple(fields) or _default(rows, where)
    _check(rows, chosen, where)
    texts = tuple(tuple(_text(row, field) for field in chosen) for row in rows)
    names = tuple(ids) if ids is not None else tuple(_id(row, number) for number, row in enumerate(rows))
    return EvalSet(name, kind, chosen, names, texts, digest_of(chosen, names, texts), source)


def digest_of(fields: Sequence[str], ids: Sequence[str], texts: Sequence[Sequence[str | None]]) -> str:
    """sha256 hex of what an eval is to a scan, but for its name."""
    digest = hashlib.sha256()
    for line in (fields, *zip(ids, texts, strict=True)):
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()


def _default(rows: Sequence[Row], where: str) -> tuple[str]:
    for field in DEFAULT_FIELDS:
        if any(isinstance(row.get(field), str) for row in rows):
            return (field,)
    raise DecontamError(f"{where}: no text field; it has {_names(rows)}; name one with --eval-field")


def _check(rows: Sequence[Row], fields: Sequence[str], where: str) -> None:
    for field in fields:
        if all(_get(row, field) is None for row in rows):
            has = f"{where} has {_names(rows)}{did_you_mean(field, _keys(rows))}"
            raise DecontamError(f"no row has a text in field {field!r}; {has} (--eval-field)")
    wrong = [
        f"{where}: row {number}: field {field!r} is {type(value).__name__}, expected text"
        for number, row in enumerate(rows)
        for field in fields
        if not isinstance(value := _get(row, field), str | None)
    ]
    if wrong:
        more = [f"and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
        raise DecontamError("\n".join(wrong[:SHOWN] + more))


def _get(row: Row, field: str) -> Any:
    """The value of a field, None where there is none; a key that holds dots itself comes first."""
    if field in row:
        return row[field]
    value: Any = row
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(row: Row, field: str) -> str | None:
    value = _get(row, field)
    return None if value is None else str(value)


def _id(row: Row, number: int) -> str:
    value = row.get("id")
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else str(number)


def _keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows[:100] for key in row))


def _names(rows: Sequence[Row]) -> str:
    return ", ".join(_keys(rows)) or "no fields"
