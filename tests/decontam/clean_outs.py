"""Folders as a scan leaves them, made by the reference over a few rows, for the tests of cleaning."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from decontam.evals import to_jsonl
from decontam.inputs import dataset_digest, discover, fingerprint
from decontam.near import find_profile
from decontam.near.building import build
from decontam.reference import find, instances_of
from decontam.rules import find_rule
from decontam.select import parse_selectors
from decontam.types import WHERE, EvalSet, Message

QUESTION = "A farmer sells seven baskets of plums and nine jars of honey at the market every single morning."
OTHER = "Which of the following rivers runs through the capital of the smallest country in the region today?"
CHAT = "messages[role=user].content"


def eval_of(*texts: str, name: str = "quiz") -> EvalSet:
    ids = tuple(f"{name}-{i}" for i in range(len(texts)))
    return EvalSet(name, "development", ("question",), ids, tuple((text,) for text in texts), f"digest-{name}")


QUIZ = eval_of(QUESTION, OTHER)


def scan(
    train: Mapping[str, str] | str,
    out: Path,
    select: Sequence[str] = (CHAT,),
    evals: Sequence[EvalSet] = (QUIZ,),
    rule: str = "tulu3",
    complete: bool = True,
    near: str = "",
) -> list[dict[str, Any]]:
    """Writes OUT for the data at `train` (a path, or names to paths) and returns the matches, and what is near."""
    named = {train: train} if isinstance(train, str) else dict(train)
    datasets = [discover(f"{name}={path}" if name != path else path) for name, path in named.items()]
    matches = [match for dataset in datasets for match in _matches(dataset, select, evals, rule)]
    files = [(dataset, file, fingerprint(file.path)) for dataset in datasets for file in dataset.files]
    manifest = {
        "schema": "decontam-manifest/2",
        "drop_empty_fields": False,
        "options": {"near": near},
        "datasets": [{"name": d.name, "selectors": list(select)} for d in datasets],
        "files": [
            {
                "dataset": dataset.name,
                "file": file.name,
                "format": file.format,
                "size": found["size"],
                "mtime_ns": found["mtime_ns"],
                "ends": found["sha256"],
            }
            for dataset, file, found in files
        ],
    }
    verdict = {
        "schema": "decontam/1",
        "complete": complete,
        "rule": {"name": rule, "digest": find_rule(rule).digest},
        "training": [
            {"name": d.name, "digest": dataset_digest(d), "path": path}
            for d, path in zip(datasets, named.values(), strict=True)
        ],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "verdict.json").write_text(json.dumps(verdict))
    (out / "evals.jsonl").write_text(to_jsonl(evals))
    write_lines(out / "matches.jsonl", matches)
    if near:
        nears = [each for dataset in datasets for each in _near(dataset, select, evals, near)]
        write_lines(out / "near.jsonl", nears)
        return [*matches, *nears]
    return matches


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of any format."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".arrow":
        return list(arrow_table(path).to_pylist())
    lines = text_bytes(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [json.loads(line) for line in lines if line.strip()]


def arrow_table(path: Path) -> pa.Table:
    data = path.read_bytes()
    return (pa.ipc.open_file if data[:6] == b"ARROW1" else pa.ipc.open_stream)(data).read_all()


def text_bytes(path: Path) -> bytes:
    """The bytes of a JSONL file, unpacked."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read()
    return path.read_bytes()


def chat(*turns: str, **more: Any) -> dict[str, Any]:
    """A row of alternating user and assistant turns."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]
    return {"messages": messages, **more}


def _matches(dataset: Any, select: Sequence[str], evals: Sequence[EvalSet], rule: str) -> Iterator[dict[str, Any]]:
    known = [(each, instances_of(find_rule(rule), each.texts)) for each in evals]
    for head, message in _messages(dataset, select):
        for each, instances in known:
            for id_, instance in zip(each.ids, instances, strict=True):
                found = instance and find(find_rule(rule), instance, message.text)
                if found:
                    runs = [
                        {
                            "train": [r.train_from, r.train_to],
                            "field": each.fields[r.field],
                            "eval": [r.eval_from, r.eval_to],
                        }
                        for r in found.runs
                    ]
                    about = {"eval": each.name, "kind": each.kind, "instance": id_, "score": float(found.exact.score)}
                    flags = ["exact", "capped"] if found.survives else ["exact"]
                    yield head | about | {"flags": flags, "rule": rule, "runs": runs}


def _near(dataset: Any, select: Sequence[str], evals: Sequence[EvalSet], profile: str) -> Iterator[dict[str, Any]]:
    index = build(evals)
    names = [(each, id_) for each in evals for id_ in each.ids]
    for head, message in _messages(dataset, select):
        for near in index.find([message.text], find_profile(profile)):
            each, id_ = names[near.inst]
            runs = [{"train": [near.train_from, near.train_to], "eval": [near.eval_from, near.eval_to]}]
            about = {"eval": each.name, "kind": each.kind, "instance": id_, "score": near.score}
            yield head | about | {"flags": ["near"], "runs": runs}


def _messages(dataset: Any, select: Sequence[str]) -> Iterator[tuple[dict[str, Any], Message]]:
    """Each message with the beginning of its line in matches.jsonl."""
    selection = parse_selectors(select)
    for file in dataset.files:
        for number, row in enumerate(rows_of(Path(file.path))):
            own = row.get("id")
            head = {
                "dataset": dataset.name,
                "file": file.name,
                "row": number,
                "id": str(own) if isinstance(own, str | int) else None,
            }
            for message in selection.messages(row):
                yield head | {"turn": message.turn, "where": WHERE[message.where]}, message
