"""What names the content of training data: digests, and a fingerprint that tells whether a file changed."""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING, TypedDict

from decontam.errors import DecontamError

if TYPE_CHECKING:
    from decontam.inputs.discover import Dataset

MIB = 1 << 20


class Fingerprint(TypedDict):
    """Size, time of the last write, and sha256 hex of the first and the last MiB together."""

    size: int
    mtime_ns: int
    sha256: str


def file_digest(path: str) -> str:
    """sha256 hex of the bytes of a file."""
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def dataset_digest(dataset: Dataset) -> str:
    """The digest of its file; of several, sha256 hex over their names below the folder and their digests, sorted."""
    if len(dataset.files) == 1:
        return file_digest(dataset.files[0].path)
    lines = sorted(f"{file.relative}\0{file_digest(file.path)}\n" for file in dataset.files)
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def fingerprint(path: str) -> Fingerprint:
    """What changes when a file is written, without reading all of it."""
    with _open(path) as file:
        status = os.fstat(file.fileno())
        ends = file.read(MIB)
        if status.st_size > MIB:
            file.seek(max(MIB, status.st_size - MIB))
            ends += file.read(MIB)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": hashlib.sha256(ends).hexdigest()}


def _open(path: str) -> io.BufferedReader:
    try:
        return open(path, "rb")
    except OSError as error:
        raise DecontamError(f"{path}: {error.strerror or error}") from error
