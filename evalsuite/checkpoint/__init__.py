"""A folder becomes a Checkpoint: content digest, and checks that it is whole and safe before an engine starts."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.checkpoint.files import Files, find_files, read_json
from evalsuite.checkpoint.memory import facts
from evalsuite.checkpoint.weights import FileFacts, Tensor, examine_bytes, examine_weights, read_tensors
from evalsuite.errors import CheckpointError

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_STEP = re.compile(
    r"((checkpoint|ckpt|step|global_step|iter|epoch)[-_.]?\d+|final|last|best|latest)(-a\d+)?", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that was found whole and safe.

    `digest` is of the content alone: a copy, a move or a new name leaves it as it is. `files` maps every file that it
    covers to its sha256. `n_parameters` counts the stored elements (0 for pickled weights, which are not opened).
    `dtype` is torch's name for it, as config.json says or else as most of the bytes are stored.
    """

    path: Path
    name: str
    digest: str
    files: Mapping[str, str]
    has_chat_template: bool
    dtype: str
    architecture: str
    n_parameters: int


def open_checkpoint(path: Path | str, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Checkpoint:
    """The checkpoint in a folder, after every check that needs no engine. Raises CheckpointError, one line.

    Cheap checks come first; reading all weights (sha256, NaN) comes last and is remembered for large files. Nothing in
    the folder is run or unpickled; neither torch nor transformers is imported.
    """
    folder = Path(os.path.abspath(Path(path).expanduser()))  # not resolved: a link's own name is the name
    try:
        return _open(folder, allow_pickle, trust_remote_code)
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or folder}: cannot be read ({error.strerror}); copy it again or check its permissions"
        ) from error


def digest_of(hashes: Mapping[str, str]) -> str:
    """sha256 over the sorted (relative name, sha256) pairs: the identity of a checkpoint."""
    lines = [f"{name}\0{sha256}\n" for name, sha256 in sorted(hashes.items())]
    return hashlib.sha256("".join(["evalsuite checkpoint 1\n", *lines]).encode("utf-8", "surrogateescape")).hexdigest()


def name_of(folder: Path) -> str:
    """What a person calls a checkpoint: the folder's name, with its parent's where that is only a step.

    run/checkpoint-500 → "run/checkpoint-500", and dpo/checkpoints/step-000100, where a stage of a loop keeps them, →
    "dpo/step-000100"; the hub cache's models--org--name/snapshots/… → "org/name".
    """
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    parent = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
    if _STEP.fullmatch(folder.name) and parent.name:
        return f"{parent.name}/{folder.name}"
    return folder.name


def _open(folder: Path, allow_pickle: bool, trust_remote_code: bool) -> Checkpoint:
    files = find_files(folder, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    _check_vocabulary(folder, files.config)
    tensors = () if files.pickled else _check_tensors(folder, files)
    hashes = _examine(folder, files)
    return Checkpoint(
        path=folder,
        name=name_of(folder),
        digest=digest_of(hashes),
        files=hashes,
        has_chat_template=_has_chat_template(folder),
        dtype=_dtype(files.config, tensors),
        architecture=_architecture(files.config),
        n_parameters=sum(tensor.n_elements for tensor in tensors),
    )


def _check_vocabulary(folder: Path, config: Mapping[str, Any]) -> None:
    """The model must have a row for every id that the tokenizer can produce."""
    nested = config.get("text_config")
    rows = config.get("vocab_size", nested.get("vocab_size") if isinstance(nested, dict) else None)
    token, largest = _largest_id(folder / "tokenizer.json")
    if isinstance(rows, int) and largest >= rows:
        raise CheckpointError(
            f"{folder / 'config.json'}: vocab_size {rows} is too small for the tokenizer, whose largest id is "
            f"{largest} ({token!r}); use the tokenizer of this model, or resize the embeddings and save again"
        )


def _largest_id(file: Path) -> tuple[str, int]:
    """(token, id) of the largest id in a tokenizer.json; ("", -1) without that file. Raises CheckpointError."""
    content = read_json(file)
    if not content:
        return "", -1
    try:
        vocabulary = content["model"]["vocab"]
        # A Unigram model has a list of (token, log-probability) in the order of the ids.
        ids = vocabulary if isinstance(vocabulary, dict) else {str(row[0]): i for i, row in enumerate(vocabulary)}
        added = {str(token["content"]): int(token["id"]) for token in content.get("added_tokens") or []}
        return max([*ids.items(), *added.items()], key=lambda item: item[1])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{file}: no vocabulary in it ({error!r}); copy the file again or save the tokenizer again"
        ) from error


def _check_tensors(folder: Path, files: Files) -> tuple[Tensor, ...]:
    """All tensors of all weight files, from their headers; the index must agree with them."""
    by_file = {name: read_tensors(folder / name) for name in files.weights}
    held = {name: {tensor.name for tensor in tensors} for name, tensors in by_file.items()}
    for tensor, name in files.weight_map.items():
        if tensor not in held[name]:
            raise CheckpointError(
                f"{folder / name}: tensor {tensor!r} is not in it, though the index says so: shards of two different "
                "saves, or a half-written one; copy the whole checkpoint again"
            )
    return tuple(tensor for tensors in by_file.values() for tensor in tensors)


def _examine(folder: Path, files: Files) -> dict[str, str]:
    """sha256 of every file. Raises CheckpointError when a weight file holds NaN or Inf."""
    weights = set() if files.pickled else set(files.weights)

    def examine(name: str) -> FileFacts:
        return facts(folder / name, examine_weights if name in weights else examine_bytes)

    names = sorted({*files.weights, *files.others})
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing and scanning leave the interpreter's lock
        found = dict(zip(names, pool.map(examine, names), strict=True))
    for name, one in found.items():
        if one.not_finite:
            raise CheckpointError(
                f"{folder / name}: NaN or Inf in tensor {one.not_finite!r}; the training diverged or the file is "
                "damaged, so score an earlier checkpoint or copy the file again"
            )
    return {name: one.sha256 for name, one in found.items()}


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or any(folder.glob("additional_chat_templates/*.jinja")):
        return True
    return bool(read_json(folder / "tokenizer_config.json").get("chat_template"))


def _dtype(config: Mapping[str, Any], tensors: Sequence[Tensor]) -> str:
    nested = config.get("text_config")
    for source in (config, nested) if isinstance(nested, dict) else (config,):
        said = source.get("dtype") or source.get("torch_dtype")
        if isinstance(said, str):
            return said.removeprefix("torch.")
    stored: Counter[str] = Counter()
    for tensor in tensors:
        stored[tensor.dtype] += tensor.end - tensor.begin
    most = stored.most_common(1)
    return DTYPES.get(most[0][0], most[0][0].lower()) if most else "unknown"


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else config.get("model_type")
    return str(first) if first is not None else "unknown"
