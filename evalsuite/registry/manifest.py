"""What the registry keeps about a checkpoint: digests of its files, and what its trainer said of its origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evalsuite.checkpoint import Checkpoint, digest_of
from evalsuite.checkpoint.files import TOKENIZERS, read_json


def manifest_of(checkpoint: Checkpoint, evidence: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """What a checkpoint is and where it comes from, for the registry; the weights themselves stay where they are.

    Parent, data and decontamination are what the trainer wrote into evalsuite.json, null where there is none.
    """
    training = read_json(checkpoint.path / "evalsuite.json")
    return {
        "schema": "manifest/1",
        "checkpoint": {"name": checkpoint.name, "digest": checkpoint.digest, "path": str(checkpoint.path)},
        "files": {
            name: {"size": (checkpoint.path / name).stat().st_size, "sha256": sha256}
            for name, sha256 in checkpoint.files.items()
        },
        "architecture": checkpoint.architecture,
        "dtype": checkpoint.dtype,
        "n_parameters": checkpoint.n_parameters,
        "tokenizer": _tokenizer_digest(checkpoint),
        "chat_template": chat_template_digest(checkpoint.path),
        "stage": training.get("stage"),
        "parent": training.get("parent"),
        "data": training.get("data"),
        "decontamination": training.get("decontamination"),
        "training": training or None,
        "evidence": dict(evidence) if evidence else None,
    }


def chat_template_digest(folder: Path) -> str | None:
    """sha256 of the chat template's text, wherever it is kept; None when there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return hashlib.sha256(file.read_bytes()).hexdigest()
    template = read_json(folder / "tokenizer_config.json").get("chat_template")
    return hashlib.sha256(str(template).encode("utf-8", "surrogatepass")).hexdigest() if template else None


def _tokenizer_digest(checkpoint: Checkpoint) -> str:
    beside = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
    names = {*TOKENIZERS, *beside}
    chosen = {
        name: h for name, h in checkpoint.files.items() if name in names or name.endswith((".tiktoken", ".model"))
    }
    return digest_of(chosen)


DECLARED = ("data", "decontamination_waived", "stage")


def declared_digest(raw: Mapping[str, object]) -> str:
    """sha256 of what a gate reads of a checkpoint's evalsuite.json; "" where that says nothing.

    The rest of the file (paths, metrics) may differ between two runs that are the same to a gate.
    """
    said = {key: raw[key] for key in DECLARED if raw.get(key)}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() if said else ""
