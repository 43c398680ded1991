"""Prompts of rows: what makes two the same, and the small file of hashes that a run keeps of what it trained on."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError

_QUOTES = "'\"“”‘’«»„¿¡"
_ENDS = f".,!?;:…。、！？{_QUOTES}"
SIZE = 16  # bytes of a hash
SUFFIX = ".prompts"


def turns(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The messages of a row: `messages`, of a pair those of the chosen side."""
    found: list[Mapping[str, Any]] = list(row.get("messages") or row.get("chosen") or ())
    return found


def user_turns(row: Mapping[str, Any]) -> Iterator[str]:
    """The texts of the user, in order; of a pair those that both sides share."""
    return (str(turn.get("content") or "") for turn in turns(row) if turn.get("role") == "user")


def normalised(text: str) -> str:
    """NFKC, case folded, single spaces, without punctuation that ends a word or a quote: "Why?" is "why".

    Signs within and between words stay, for 5*3 and 5/3 are two questions.
    """
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    words = folded.split()
    return " ".join([bare for word in words if (bare := word.rstrip(_ENDS).lstrip(_QUOTES))]) or " ".join(words)


def prompt_hash(text: str) -> bytes:
    """16 bytes of the sha256 of the normalised text."""
    return hashlib.sha256(normalised(text).encode("utf-8", "surrogatepass")).digest()[:SIZE]


def conversation_hash(row: Mapping[str, Any]) -> bytes:
    """One hash over all user turns: rows that share it ask the same."""
    parts = (normalised(text).encode("utf-8", "surrogatepass") for text in user_turns(row))
    return hashlib.sha256(b"\0".join(parts)).digest()[:SIZE]


def write_prompts(path: Path, hashes: Iterable[bytes]) -> int:
    """Writes each hash once, sorted, without anything between; returns how many. The file is whole or not there."""
    chosen = sorted(set(hashes))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(b"".join(chosen))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return len(chosen)


def read_prompts(path: Path) -> frozenset[bytes]:
    """The hashes of a file; raises DataError where it is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if len(content) % SIZE:
        raise DataError(f"{path}: {len(content)} bytes are no hashes of {SIZE} bytes; mix the data again")
    return frozenset(content[i : i + SIZE] for i in range(0, len(content), SIZE))


def trained_on(path: Path, prompts: Mapping[str, str]) -> tuple[str, ...]:
    """Ids of the given prompts (id to text) whose hash stands in the file: a benchmark against an old training set."""
    known = read_prompts(path)
    return tuple(name for name, text in prompts.items() if prompt_hash(text) in known)
