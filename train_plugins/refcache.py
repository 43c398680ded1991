"""Reference log-probabilities by content: computed once for a pair, shared by every run that asks for the same one.

A folder of Arrow segments for each set of reference weights. Segments are written whole under a temporary name, then
renamed, and never changed: any number of processes may read and add at once, and a killed pass keeps what it wrote.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from array import array
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite.errors import DataError
from evalsuite.trainers.files import digest_of_json, sync_folder

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint
    from evalsuite.trainers.types import TrainJob

SCHEMA = 1
FOLDER = "ref-logprobs"
ENVIRONMENT = "EVALSUITE_REF_LOGPROBS"  # a folder to share between loops
STALE_S = 3600.0  # a temporary file that old belongs to no living writer: one takes well under a second
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece")


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the log-probabilities of a pair depend on beside its ids; any difference is a miss.

    `weights` and `tokenizer` are digests (`weights_digest`, `tokenizer_digest`), `attention` names the kernel and the
    layout, `response` the rule for which tokens count.
    """

    weights: str
    tokenizer: str
    dtype: str
    attention: str
    response: str


@dataclass(frozen=True, slots=True)
class ReferenceLogprobs:
    """The reference on one pair: summed log-probabilities of the two responses and their numbers of tokens."""

    chosen: float
    rejected: float
    n_chosen: int
    n_rejected: int


def cache_folder(job: TrainJob, weights: str) -> Path:
    """Where the values of these weights lie: beside the stages of a loop, so that its runs and sweeps share them."""
    root = os.environ.get(ENVIRONMENT)
    return (Path(root) if root else job.out.absolute().parent / FOLDER) / weights


def weights_digest(checkpoint: Checkpoint) -> str:
    """sha256 hex of the weight files and the configuration, which says what the weights mean."""
    chosen = {n: sha for n, sha in checkpoint.files.items() if n.endswith(".safetensors") or n == "config.json"}
    return digest_of_json(chosen)


def tokenizer_digest(checkpoint: Checkpoint, template: str) -> str:
    """sha256 hex of the tokenizer's files and the chat template in use."""
    chosen = {n: sha for n, sha in checkpoint.files.items() if n.startswith(_TOKENIZER)}
    return digest_of_json({"files": chosen, "template": template})


def pair_key(conditions: Conditions, parts: Iterable[Sequence[int]]) -> bytes:
    """32 bytes that stand for a pair under these conditions; `parts` are its id and label sequences in fixed order."""
    key = hashlib.sha256(digest_of_json([SCHEMA, *astuple(conditions)]).encode())
    for part in parts:
        key.update(len(part).to_bytes(8, "little"))  # so that no id can move from one part to the next unseen
        key.update(array("q", part).tobytes())
    return key.digest()


class ReferenceCache:
    """The values below one folder. `found` holds those that were asked for and are known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found: dict[bytes, ReferenceLogprobs] = {}
        self.damaged: list[Path] = []  # segments that cannot be read: their pairs are computed again
        self._read: set[str] = set()

    def look_up(self, wanted: Collection[bytes]) -> tuple[bytes, ...]:
        """Reads segments that are new since the last call; returns the keys still unknown, each once, in order."""
        keys = set(wanted) - self.found.keys()
        for segment in sorted(self.folder.glob("*.arrow")) if keys else ():
            if segment.name not in self._read:
                self.found.update((key, value) for key, value in self._values(segment) if key in keys)
        return tuple(key for key in dict.fromkeys(wanted) if key not in self.found)

    def add(self, values: Mapping[bytes, ReferenceLogprobs]) -> Path | None:
        """Writes one segment; its values are known from then on. Raises DataError at a value that is no number."""
        if not values:
            return None
        for value in values.values():
            require_finite(value, "a pair")
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid()}-{os.urandom(8).hex()}"
        temporary = self.folder / f".tmp-{name}"
        _write(temporary, values)
        final = self.folder / f"{name}.arrow"
        os.rename(temporary, final)
        sync_folder(self.folder)
        self.found.update(values)
        return final

    def of(self, key: bytes, n_chosen: int, n_rejected: int, where: str) -> ReferenceLogprobs:
        """The value of a known pair. Raises DataError when it was computed over another number of tokens."""
        value = self.found[key]
        if (value.n_chosen, value.n_rejected) != (n_chosen, n_rejected):
            raise DataError(
                f"{where}: the cached reference counts {value.n_chosen} and {value.n_rejected} response tokens, the "
                f"pair has {n_chosen} and {n_rejected}; delete {self.folder} and run the same command again"
            )
        return value

    def remove_leftovers(self) -> None:
        """Deletes what killed writers left half-written."""
        for path in self.folder.glob(".tmp-*"):
            try:
                if time.time() - path.stat().st_mtime > STALE_S:
                    path.unlink()
            except FileNotFoundError:  # another process cleans up too
                continue

    def _values(self, segment: Path) -> list[tuple[bytes, ReferenceLogprobs]]:
        self._read.add(segment.name)
        try:
            columns = _read(segment)
        except (OSError, ValueError, KeyError):  # pyarrow's ArrowInvalid is a ValueError
            self.damaged.append(segment)
            return []
        numbers = zip(*(columns[name] for name in ReferenceLogprobs.__slots__), strict=True)
        return [(key, ReferenceLogprobs(*row)) for key, row in zip(columns["key"], numbers, strict=True)]


def require_finite(value: ReferenceLogprobs, where: str) -> None:
    """Raises DataError, naming the pair, unless both sums are numbers."""
    if not (math.isfinite(value.chosen) and math.isfinite(value.rejected)):
        raise DataError(
            f"{where}: the reference gives it log-probabilities {value.chosen} and {value.rejected}; "
            "check the reference checkpoint, or use dtype: float32"
        )


def _write(path: Path, values: Mapping[bytes, ReferenceLogprobs]) -> None:
    import pyarrow as pa

    kinds = {"chosen": pa.float32(), "rejected": pa.float32(), "n_chosen": pa.int32(), "n_rejected": pa.int32()}
    columns = {"key": pa.array(list(values), pa.binary(32))}
    columns |= {name: pa.array([getattr(v, name) for v in values.values()], kind) for name, kind in kinds.items()}
    table = pa.table(columns)
    with path.open("wb") as file:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa

    with path.open("rb") as file:
        return dict(pa.ipc.open_file(file).read_all().to_pydict())
