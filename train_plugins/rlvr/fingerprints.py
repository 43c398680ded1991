"""Prompts of benchmarks as hashes: what rows of rewards may not ask. No prompt is kept or shown.

Two texts are equal when letters, digits and signs of arithmetic are, in whatever case; texts of fewer than five words
must be equal but for white space, since in these every sign may be the whole question.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.benchmark import Benchmark, TaskFile, known_benchmarks, read_benchmark
from evalsuite.checkpoint.memory import cache_folder
from evalsuite.errors import DataError
from evalsuite.trainers.files import load_json, replace_json
from evalsuite.types import Doc, Split

SCHEMA = 1  # raise it when the same rows get other hashes
SHORT = 5  # words
KEPT = b"+-*/=<>^%$"
_BLANK = bytes(range(128)).translate(None, b"abcdefghijklmnopqrstuvwxyz0123456789" + KEPT)
_TO_BLANK = bytes.maketrans(_BLANK, b" " * len(_BLANK))
_SEPARATORS = re.compile(rf"(?:(?![{re.escape(KEPT.decode())}])[\W_])+")
_HEAD = re.compile(r"\A\s*(?:question|problem|instruction|task|q)\s*:\s*", re.IGNORECASE)
_TAIL = re.compile(r"\s*\b(?:answer|solution|a)\s*:\s*(?:let's think step by step\.?)?\s*\Z", re.IGNORECASE)
_TAIL_LENGTH = 80

Prompts = frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Held:
    """The prompts of one benchmark."""

    benchmark: str
    split: Split
    prompts: Prompts


def fingerprint(text: str) -> bytes:
    """Eight bytes that equal texts share."""
    words = text.split()
    if len(words) < SHORT:
        plain = b"=" + " ".join(words).encode("utf-8", "surrogatepass")
    else:
        lowered = text.lower()
        lowered = lowered if lowered.isascii() else _SEPARATORS.sub(" ", lowered)
        plain = b" ".join(lowered.encode("utf-8", "surrogatepass").translate(_TO_BLANK).split())
    return hashlib.blake2b(plain, digest_size=8).digest()


def asked(messages: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Of all that the user says in a row: whole messages, and the last question where others stand before it."""
    for message in messages:
        if message.get("role") == "user" and isinstance(text := message.get("content"), str):
            yield fingerprint(text)
            last = text.rpartition("\n\n")[2]
            question = _HEAD.sub("", last)
            question = question[:-_TAIL_LENGTH] + _TAIL.sub("", question[-_TAIL_LENGTH:])
            if len(question) < len(text) and len(question.split()) >= SHORT:
                yield fingerprint(question)


def held_prompts(extra: Sequence[Path] = (), roots: Sequence[Path] = ()) -> tuple[Held, ...]:
    """The prompts of the benchmarks that make their own rows, and of those whose test data a data root holds."""
    aliases = _aliases()
    found = []
    for folder in known_benchmarks(extra).values():
        benchmark = read_benchmark(folder)
        prompts = set(_own(benchmark)) if not any(task.dataset for task in benchmark.tasks) else set()
        if roots:
            prompts |= _local(benchmark, roots, aliases)
        if prompts:
            found.append(Held(benchmark.name, benchmark.meta.split, frozenset(prompts)))
    return tuple(found)


def _aliases() -> Mapping[str, tuple[str, ...]]:
    from evalsuite.suite import known_aliases

    return known_aliases()


# -- rows that a benchmark makes --


def _own(benchmark: Benchmark) -> Prompts:
    return _remembered(f"own {benchmark.digest}", lambda: _made(benchmark))


def _made(benchmark: Benchmark) -> Iterator[str]:
    module: Any = benchmark.module
    for task in benchmark.tasks:
        if hasattr(module, "test_rows"):
            docs = module.test_rows()
        elif task.config.get("custom_dataset") == "!function verify.dataset":
            docs = module.dataset(**task.config.get("dataset_kwargs") or {})[task.splits[0]]
        else:
            continue
        for doc in docs:
            yield from _texts(benchmark, doc)
            yield from _rendered(module, task, doc)


def _rendered(module: Any, task: TaskFile, doc: Doc) -> Iterator[str]:
    """The prompt by the benchmark's own function, where it has one."""
    name = str(task.config.get("doc_to_text", "")).removeprefix("!function verify.")
    if callable(function := getattr(module, name, None)):
        yield str(function(doc))


def _texts(benchmark: Benchmark, doc: Doc) -> Iterator[str]:
    from evalsuite.decontamination import text_fields

    values = [doc[field] for field in text_fields(benchmark, {"": doc}, {}) if isinstance(doc.get(field), str)]
    yield from values
    if len(values) > 1:
        yield "\n".join(values)


# -- rows of a data root --


def _local(benchmark: Benchmark, roots: Sequence[Path], aliases: Mapping[str, Sequence[str]]) -> set[bytes]:
    from evalsuite.data import resolve_all
    from evalsuite.harness import datasets_of

    found: set[bytes] = set()
    for spec in datasets_of(benchmark):
        # What is not there, or is broken, is what scoring and the decontamination scan tell of.
        with suppress(DataError):
            resolved = resolve_all([spec], roots, offline=True, aliases=aliases)[spec]
            if resolved.origin != "hub" and spec.splits:
                files = _files(Path(resolved.path), spec.config, spec.splits[0])
                key = f"local {resolved.digest} {spec.splits[0]} {benchmark.meta.decontam_fields}"
                found |= _remembered(key, lambda files=files: _read(benchmark, files))
    return found


def _files(folder: Path, config: str | None, split: str) -> tuple[Path, ...]:
    from evalsuite.data.folder import read_folder, split_files

    described = read_folder(folder)
    return split_files(described, described.config(config))[split]


def _read(benchmark: Benchmark, files: Sequence[Path]) -> Iterator[str]:
    from train_plugins.data.rows import read_lines

    for file in files:
        for _, row in read_lines(file):
            if isinstance(row, Mapping):
                yield from _texts(benchmark, row)


# -- memory --


def _remembered(key: str, texts: Any) -> Prompts:
    """The hashes of `texts()`, worked out once for each content: some benchmarks take seconds to load."""
    digest = hashlib.sha256(f"{SCHEMA} {key}".encode()).hexdigest()
    memory = cache_folder() / "prompts" / f"{digest}.json"
    with suppress(OSError, ValueError, KeyError):
        return frozenset(bytes.fromhex(each) for each in (load_json(memory) or {})["prompts"])
    found = frozenset(fingerprint(text) for text in texts() if text.strip())
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        replace_json(memory, json.loads(json.dumps({"prompts": sorted(each.hex() for each in found)})))
    return found
