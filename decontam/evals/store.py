"""Evals in one file: a line on each eval, then one on each of its instances."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from decontam.errors import DecontamError
from decontam.types import EvalSet


def to_jsonl(evals: Iterable[EvalSet], path: Path | None = None) -> str:
    """The text that `from_jsonl` reads; with `path` it is written there as well, under another name first."""
    text = "".join(f"{json.dumps(line)}\n" for each in evals for line in _lines(each))
    if path is not None:
        part = path.with_name(f"{path.name}.part")
        part.write_text(text, encoding="ascii")
        part.replace(path)
    return text


def from_jsonl(path: Path) -> list[EvalSet]:
    """The evals of a file that `to_jsonl` wrote; raises DecontamError for any other."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        evals, at = [], 0
        while at < len(lines):
            head, stop = lines[at], at + 1 + lines[at]["n"]
            evals.append(_eval(head, lines[at + 1 : stop]))
            at = stop
    except OSError as error:
        raise DecontamError(f"{path}: {error.strerror}; expected a file of evals") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DecontamError(f"{path} is no file of evals, or was cut short ({error!r}); write it anew") from None
    return evals


def _lines(each: EvalSet) -> Iterator[dict[str, Any]]:
    about = {"kind": each.kind, "fields": each.fields, "digest": each.digest, "source": each.source}
    yield {"eval": each.name, **about, "n": len(each.ids)}
    for name, texts in zip(each.ids, each.texts, strict=True):
        yield {"id": name, "texts": texts}


def _eval(head: dict[str, Any], lines: Sequence[dict[str, Any]]) -> EvalSet:
    if len(lines) != head["n"]:
        raise ValueError(f"{head['eval']} has {len(lines)} of {head['n']} instances")
    return EvalSet(
        head["eval"],
        head["kind"],
        tuple(head["fields"]),
        tuple(line["id"] for line in lines),
        tuple(tuple(line["texts"]) for line in lines),
        head["digest"],
        head["source"],
    )
