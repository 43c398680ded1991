"""The index: evals under a rule as memory-mapped arrays, named by what they were built from and built once.

`build` returns the folder of an index and `open_index` reads it. Processes share its pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from decontam.errors import DecontamError
from decontam.rules import RULES, Rule
from decontam.types import EvalSet

FORMAT = 6
META = "meta.json"


@dataclass(frozen=True)
class Index:
    """An opened index. `arrays` are read-only and mapped; `meta` says what it was built from."""

    folder: Path
    meta: Mapping[str, Any]
    arrays: Mapping[str, Any]

    @cached_property
    def rule(self) -> Rule:
        return RULES[self.meta["rule"]["name"]]

    @cached_property
    def evals(self) -> tuple[EvalSet, ...]:
        from decontam.evals import from_jsonl

        return tuple(from_jsonl(self.folder / "evals.jsonl"))

    @property
    def digest(self) -> str:
        return str(self.meta["digest"])

    @property
    def n_mapped(self) -> int:
        """Bytes of the arrays that the gate touches for every text: bitmaps and key tables."""
        return sum(array.nbytes for name, array in self.arrays.items() if name.startswith("gate"))


def digest_of(evals: Sequence[EvalSet], rule: Rule, **settings: Any) -> tuple[str, dict[str, Any]]:
    """sha256 hex of everything that decides what an index holds, and that as a dict."""
    from decontam.windows import SPACY_VERSION

    told = {
        "format": FORMAT,
        "rule": {"name": rule.name, "version": rule.version, "digest": rule.digest},
        "spacy": SPACY_VERSION if rule.positions == "spacy" or settings.get("short") else "",
        "evals": [
            {"name": e.name, "kind": e.kind, "fields": list(e.fields), "digest": e.digest, "content": content_digest(e)}
            for e in evals
        ],
        **settings,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest(), told


def content_digest(evals: EvalSet) -> str:
    """sha256 hex over ids and texts."""
    told = json.dumps([evals.ids, evals.texts]).encode()  # escapes lone surrogates too
    return hashlib.sha256(told).hexdigest()


def build(
    evals: Sequence[EvalSet],
    rule: Rule,
    *,
    cap: int = 50,
    short: bool = False,
    near: bool = False,
    drop_empty_fields: bool = False,
    cache: Path,
    rebuild: bool = False,
) -> Path:
    """The folder of the index in `cache`, built when it is not there yet (or with `rebuild`, anew)."""
    digest, told = digest_of(evals, rule, cap=cap, short=short, near=near, drop_empty_fields=drop_empty_fields)
    folder = cache / digest[:24]
    if folder.is_dir() and not rebuild:
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{digest[:12]}-", dir=cache))
    try:
        _write(made, evals, rule, digest, told)
        made.chmod(0o755)  # others may read a cache that is shared
        _put(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def _put(made: Path, folder: Path) -> None:
    """Moves what was made to its place; whoever came first stays, unless what stands there is broken."""
    try:
        os.rename(made, folder)
    except OSError:
        if not folder.is_dir():
            raise
        old = made.with_name(f"{made.name}.old")
        os.rename(folder, old)
        os.rename(made, folder)
        shutil.rmtree(old, ignore_errors=True)


def _write(folder: Path, evals: Sequence[EvalSet], rule: Rule, digest: str, told: Mapping[str, Any]) -> None:
    import numpy as np

    from decontam.evals import to_jsonl
    from decontam.index.arrays import arrays_of, boilerplate_only

    arrays = arrays_of(evals, rule, cap=told["cap"], short=told["short"], drop_empty_fields=told["drop_empty_fields"])
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    to_jsonl(evals, folder / "evals.jsonl")
    if told["near"]:
        from decontam.near import build as build_near

        build_near(evals).save(folder / "near")
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
    counts = dict(zip(("windows", "kept_windows", "keys"), map(int, arrays["gate_counts"]), strict=True))
    counts |= {"phrases": int(arrays["phrase_starts"].size) - 1, "instances": int(arrays["instance_fields"].size) - 1}
    meta = {
        **told,
        "digest": digest,
        "counts": counts,
        "files": sizes,
        "boilerplate_only": boilerplate_only(arrays),
    }
    (folder / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def open_index(folder: Path) -> Index:
    """The index in a folder; raises DecontamError for one of another format or one that is not whole."""
    import numpy as np

    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DecontamError(f"{folder}: not an index ({error}); build it again with --rebuild-index") from error
    if meta.get("format") != FORMAT:
        raise DecontamError(
            f"{folder}: index format {meta.get('format')!r}, this version reads {FORMAT}; --rebuild-index"
        )
    rule = RULES.get(meta["rule"]["name"])
    if rule is None or rule.digest != meta["rule"]["digest"]:
        raise DecontamError(f"{folder}: built by another version of rule {meta['rule']['name']!r}; --rebuild-index")
    for name, size in meta["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise DecontamError(f"{path}: {'another size' if path.is_file() else 'missing'}; use --rebuild-index")
    arrays = {path.stem: _mapped(np, path) for path in sorted(folder.glob("*.npy"))}
    return Index(folder, meta, arrays)


open = open_index


def _mapped(np: Any, path: Path) -> Any:
    try:
        array = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError:  # an empty array cannot be mapped
        array = np.load(path, allow_pickle=False)
        array.setflags(write=False)
    return array
