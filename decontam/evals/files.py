"""Evals in files: rows of JSON lines and Parquet."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decontam.errors import DecontamError
from decontam.evals.sets import SHOWN, eval_set
from decontam.types import EvalSet, Kind

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def load_path(spec: str, fields: Sequence[str], kind: Kind) -> list[EvalSet]:
    """The eval in a file, or those in a folder's files; `NAME=PATH` names them."""
    name, path = _named(spec)
    if path.is_file():
        return [eval_set(name or stem(path), read_rows(path), fields, kind=kind, source=path.name)]
    if not path.is_dir():
        raise DecontamError(f"no evals at {spec!r}; expected a file ({', '.join(SUFFIXES)}), a folder, or a scheme")
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name.endswith(SUFFIXES))
    if not files:
        raise DecontamError(f"{spec}: no file of it ends in {', '.join(SUFFIXES)}")
    evals, faults = [], []
    for file in files:
        below = file.relative_to(path)
        called = "-".join(filter(None, (name, *below.parts[:-1], stem(file))))
        try:
            evals.append(eval_set(called, read_rows(file), fields, kind=kind, source=below.as_posix()))
        except DecontamError as error:
            faults.append(str(error))
    counts = Counter(each.name for each in evals)
    faults += [f"{spec}: {n} evals named {called!r}; name them as NAME=FILE" for called, n in counts.items() if n > 1]
    if faults:
        raise DecontamError("\n".join(faults))
    return evals


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a file; raises DecontamError naming each line that is no JSON object."""
    if not path.name.endswith(SUFFIXES):
        raise DecontamError(f"{path}: unknown format; expected a name that ends in {', '.join(SUFFIXES)}")
    try:
        return _parquet(path) if path.suffix == ".parquet" else _json_lines(path)
    except OSError as error:
        raise DecontamError(f"{path}: cannot be read: {error.strerror or error}") from None


def stem(path: Path) -> str:
    """The file's name without what says its format."""
    return next(path.name.removesuffix(end) for end in SUFFIXES if path.name.endswith(end))


def _named(spec: str) -> tuple[str, Path]:
    """(name, path); a path that exists is one, whatever signs it has."""
    name, equals, rest = spec.partition("=")
    return (name, Path(rest)) if equals and not Path(spec).exists() else ("", Path(spec))


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.lib.ArrowInvalid as error:
        raise DecontamError(f"{path}: no Parquet file: {error}") from None
    return rows


def _json_lines(path: Path) -> list[dict[str, Any]]:
    import pyarrow

    # "detect" goes by the name's ending.
    with pyarrow.input_stream(str(path), compression="detect") as stream:
        data: bytes = stream.read()
    rows, faults = [], []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            faults.append(f"{path}:{number}: not JSON: {error}")
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            faults.append(f"{path}:{number}: {type(row).__name__}, expected an object")
    if faults:
        more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
        raise DecontamError("\n".join(faults[:SHOWN] + more))
    return rows
