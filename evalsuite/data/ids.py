"""Ids of samples that do not depend on how, where from or in which order the rows were loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evalsuite.errors import DataError


def sample_ids(docs: Iterable[Mapping[str, Any]], id_rule: str | Sequence[str]) -> list[str]:
    """One unique id per row: the native field named by a string, or 16 hex of the sha256 of the listed fields.

    The k-th repetition of an id gets `#k` (the first occurrence stays bare). Raises DataError when a row lacks a field.
    """
    fields = (id_rule,) if isinstance(id_rule, str) else tuple(id_rule)
    ids: list[str] = []
    seen: set[str] = set()
    repeats: dict[str, int] = {}
    for index, doc in enumerate(docs):
        try:
            bare = str(doc[id_rule]) if isinstance(id_rule, str) else _digest({f: doc[f] for f in fields})
        except KeyError as error:
            found = ", ".join(map(str, doc))
            raise DataError(f"row {index} has no field {error.args[0]!r}, which its id needs; it has {found}") from None
        name = bare
        while name in seen:  # a loop, because a native id may itself look like "x#1"
            repeats[bare] = repeats.get(bare, 0) + 1
            name = f"{bare}#{repeats[bare]}"
        seen.add(name)
        ids.append(name)
    return ids


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(_ENCODE(_without_nulls(fields)).encode("ascii")).hexdigest()[:16]


def _without_nulls(value: Any) -> Any:
    """Drops keys whose value is None: some loaders fill ragged dicts with them, and an id must not see that."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)  # arrays become lists; dates their text


# ASCII escapes, so that a lone surrogate cannot break the hash; made once, because json.dumps makes an encoder a call.
_ENCODE = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain).encode
