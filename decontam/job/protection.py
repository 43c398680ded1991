"""What the rule cannot protect: instances that their own copy is no match of, and those that are boilerplate only."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from decontam.job.work import PLAIN, Scanner
from decontam.types import EvalSet, Shard

if TYPE_CHECKING:
    from decontam.report.facts import EvalFacts

EXACT = 1  # bit of a match table's `flags`
FOUND = "own.json"  # in the index folder: instances that a message of their own text matches

Reason = Literal["short", "empty field", "own score", "boilerplate only"]


def eval_facts(index: Any, evals: Sequence[EvalSet], own: frozenset[int]) -> list[EvalFacts]:
    """Sizes, skipped and unprotected instances of each eval. `own` has the instances that their own text matches."""
    from decontam.report.facts import EvalFacts

    boilerplate = frozenset(index.meta["boilerplate_only"])
    all_sizes, all_uncommon = _sizes(index)
    facts, first = [], 0
    for each in evals:
        sizes: list[list[int]] = []
        uncommon: list[list[int]] = []
        skipped: list[int] = []
        unprotected: dict[str, list[int]] = {}
        for i, texts in enumerate(each.texts):
            number = first + i
            sizes.append(all_sizes[number] or [0] * len(texts))  # a skipped instance has no fields in the index
            uncommon.append(all_uncommon[number] or [0] * len(texts))
            if None in texts:
                skipped.append(i)
            elif number not in own:
                unprotected.setdefault(_reason(texts, sizes[-1], index.rule.n), []).append(i)
            if number in boilerplate:
                unprotected.setdefault("boilerplate only", []).append(i)
        facts.append(EvalFacts(each, sizes, uncommon, skipped, dict(sorted(unprotected.items()))))
        first += len(each.ids)
    return facts


def _reason(texts: Sequence[str | None], sizes: Sequence[int], n: int) -> Reason:
    """Why a message that holds nothing but the instance is no match of it."""
    with_text = [size for size, text in zip(sizes, texts, strict=True) if text]
    if with_text and all(size < max(n, 1) for size in with_text):
        return "short"
    return "empty field" if "" in texts else "own score"


def _sizes(index: Any) -> tuple[list[list[int]], list[list[int]]]:
    """For each instance the positions of its fields, and of these the ones that no common window covers."""
    first, n = index.arrays["instance_fields"], index.arrays["field_n"]
    sizes, left = n.tolist(), (n - index.arrays["field_common"]).tolist()
    bounds = list(pairwise(first.tolist()))
    return [sizes[a:b] for a, b in bounds], [left[a:b] for a, b in bounds]


def own_matches(scanner: Scanner, folder: Path, evals: Sequence[EvalSet]) -> frozenset[int]:
    """Instances, numbered over all evals, that a message with nothing but their own fields is a match of.

    Remembered in the index folder, as it hangs on nothing else, and found out again where what is remembered is not of
    this very index and these texts, or not as it was written.
    """
    known = _remembered(folder, evals)
    if known is None:
        known = sorted(_scan_own(scanner, folder, evals))
        text = json.dumps({"own": known, "sha256": _seal(folder, evals, known)})
        _remember(folder / FOUND, text)
    return frozenset(known)


def _remembered(folder: Path, evals: Sequence[EvalSet]) -> list[int] | None:
    try:
        told = json.loads((folder / FOUND).read_bytes())
        own = [int(number) for number in told["own"]]
        return own if told["sha256"] == _seal(folder, evals, own) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seal(folder: Path, evals: Sequence[EvalSet], own: Sequence[int]) -> str:
    """sha256 hex over what was found, what the index says it was built from and holds, and the texts looked for."""
    from decontam.index import META, content_digest

    meta = (folder / META).read_text(encoding="utf-8") if (folder / META).is_file() else folder.name
    told = [list(own), meta, [content_digest(each) for each in evals]]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _scan_own(scanner: Scanner, folder: Path, evals: Sequence[EvalSet]) -> set[int]:
    from decontam.select import parse_selectors

    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="ascii") as lines:
        # One row an instance, so that row and instance are the same number.
        for texts in (texts for each in evals for texts in each.texts):
            lines.write(json.dumps({"text": "\n".join(text for text in texts if text)}) + "\n")
        lines.flush()
        shard = Shard(0, "evals", "evals", lines.name, "jsonl", 0, Path(lines.name).stat().st_size)
        table, _, _ = scanner.scan(scanner.open(folder), parse_selectors(["text"]), shard, PLAIN)
    columns: Mapping[str, list[int]] = table.select(["row", "inst", "flags"]).to_pydict()
    return {
        row
        for row, instance, flags in zip(columns["row"], columns["inst"], columns["flags"], strict=True)
        if row == instance and flags & EXACT
    }


def _remember(path: Path, text: str) -> None:
    from decontam.job.folder import write

    try:
        write(path, text.encode())
    except OSError:  # a cache that others own: found out again next time
        return
