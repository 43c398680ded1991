"""A scanner that finds whole texts in whole messages, without an index or a compiler, and jobs made with it."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from decontam.errors import BrokenRow
from decontam.evals import eval_set, from_jsonl, to_jsonl
from decontam.inputs import TruncatedInput, parse_line, read_blocks
from decontam.job import Job, Options, in_threads, prepare, run
from decontam.job.progress import Observer, Silent
from decontam.job.reduce import Finished
from decontam.job.work import PLAIN, Kernel, Scanner
from decontam.rules import Rule
from decontam.text import analyze
from decontam.types import EvalSet, Shard, ShardCounts

LISTS = ("covered", "capped", "runs")
KINDS = {
    "row": pa.int64(),
    "offset": pa.int64(),
    "id": pa.string(),
    "turn": pa.int32(),
    "where": pa.int8(),
    "inst": pa.int32(),
    "covered": pa.list_(pa.int32()),
    "score": pa.float64(),
    "capped": pa.list_(pa.int32()),
    "capped_score": pa.float64(),
    "flags": pa.uint8(),
    "common_share": pa.float64(),
    "text": pa.int64(),
    "runs": pa.list_(pa.int32()),
}


@dataclass(frozen=True, slots=True)
class Plain:
    """An instance is in a message when its words stand there one after the other. Each shard takes `pause_s` more."""

    pause_s: float = 0.0

    def where(self, evals: Sequence[EvalSet], rule: Rule, *, cache: Path, **settings: Any) -> Path:
        told = to_jsonl(evals) + json.dumps([rule.digest, {**settings, "rebuild": None}], sort_keys=True)
        return cache / hashlib.sha256(told.encode()).hexdigest()

    def build(self, evals: Sequence[EvalSet], rule: Rule, *, cache: Path, **settings: Any) -> Path:
        folder = self.where(evals, rule, cache=cache, **settings)
        folder.mkdir(parents=True, exist_ok=True)
        to_jsonl(evals, folder / f"evals-{os.getpid()}")
        (folder / f"evals-{os.getpid()}").replace(folder / "evals.jsonl")
        return folder

    def open(self, index: Path) -> Any:
        words = [
            [analyze(text or "") for text in texts] for e in from_jsonl(index / "evals.jsonl") for texts in e.texts
        ]
        sizes = [len(field) for fields in words for field in fields]
        first = np.cumsum([0, *(len(fields) for fields in words)])
        arrays = {
            "instance_fields": first,
            "field_n": np.array(sizes),
            "field_common": np.zeros(len(sizes), np.int64),
        }
        meta = {"boilerplate_only": []}
        return SimpleNamespace(words=words, arrays=arrays, meta=meta, rule=SimpleNamespace(n=1))

    def scan(
        self, index: Any, selection: Any, shard: Shard, options: Options
    ) -> tuple[pa.Table, pa.Table | None, ShardCounts]:
        time.sleep(self.pause_s)
        found: list[dict[str, Any]] = []
        broken: list[tuple[int, str]] = []
        row = n_bytes = unselected = 0
        fields: dict[str, int] = {}
        why = ""
        try:
            for offset, line in lines_of(shard):
                n_bytes += len(line)
                try:
                    value = parse_line(line)
                    messages = selection.messages(value)
                    unselected += not messages
                    for key in value if not messages else ():
                        fields[key] = fields.get(key, 0) + 1
                    found += [hit | {"row": row, "offset": offset} for hit in self._hits(index, messages)]
                except BrokenRow as error:
                    broken.append((row, str(error)))
                row += 1
        except TruncatedInput as error:
            why = str(error)
        table = pa.table({name: pa.array([hit[name] for hit in found], kind) for name, kind in KINDS.items()})
        counts = ShardCounts(row, row, unselected, len(broken), n_bytes, tuple(broken[:20]), not why, why, fields)
        return table, None, counts

    def _hits(self, index: Any, messages: Any) -> Iterator[dict[str, Any]]:
        for message in messages:
            padded = f" {' '.join(analyze(message.text))} "
            for number, texts in enumerate(index.words):
                if all(words and f" {' '.join(words)} " in padded for words in texts):
                    sizes = [len(words) for words in texts]
                    yield {
                        "id": None,
                        "turn": message.turn,
                        "where": message.where,
                        "inst": number,
                        "covered": sizes,
                        "score": 1.0,
                        "capped": sizes,
                        "capped_score": 1.0,
                        "flags": 3,
                        "common_share": 0.0,
                        "text": zlib.crc32(message.text.encode("utf-8", "surrogatepass")),
                        "runs": [0, len(message.text), 0, 0, 5, sizes[0]],
                    }


def lines_of(shard: Shard) -> Iterator[tuple[int, bytes]]:
    for block in read_blocks(shard):
        offset = block.offset
        for line in bytes(block.data[: block.length]).splitlines(keepends=True):
            if line.strip():
                yield offset, line
            offset += len(line)


def replace_kernel(patch: Callable[[type, str, Any], None] = setattr) -> None:
    """Lets commands use the plain scanner."""
    patch(Kernel, "where", lambda self, *given, **named: Plain().where(*given, **named))
    patch(Kernel, "build", lambda self, *given, **named: Plain().build(*given, **named))
    patch(Kernel, "open", lambda self, index: Plain().open(index))
    patch(Kernel, "scan", lambda self, *given: Plain().scan(*given))


SUMS = tuple(f"what is the sum of number {i} and number {i + 1} in this short riddle" for i in range(100))


def sums(n: int = 100, name: str = "sums") -> EvalSet:
    """An eval of n questions."""
    return eval_set(name, [{"question": text} for text in SUMS[:n]])


def write_rows(path: Path, n: int = 200, every: int = 10, start: int = 0) -> Path:
    """n rows of `{"text": …}`; each `every`th carries a question of `sums`, in turn."""
    rows = [
        {
            "text": f"please: {SUMS[i // every % 100].upper()}? row {i}"
            if i % every == 0
            else f"nothing to see in row {i}"
        }
        for i in range(start, start + n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_job(
    train: Sequence[Path | str], cache: Path, *evals: EvalSet, scanner: Scanner = Plain(), **settings: Any
) -> Job:
    """A job over the files, cut into shards of 500 bytes."""
    settings = {"shard_bytes": 500, "options": PLAIN, "say": lambda line: None} | settings
    return prepare([str(each) for each in train], evals or (sums(),), cache=cache, scanner=scanner, **settings)


def scan(job: Job, out: Path, workers: int = 2, observer: Observer | None = None, **settings: Any) -> Finished:
    """Runs a job in threads."""
    return run(job, out, in_threads(workers), observer or Silent(), **settings)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
