"""Doubles across the sources of a mix. Which row stays depends on sources and seeds, never on the order of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from train_plugins.data.mixfile import Dedup, Near

PIECE = 40  # characters at the start, the middle and the end; prompts that are alike share one of them, or are missed
READ = 2_000  # characters of a prompt that are compared


@dataclass(frozen=True, slots=True)
class Facts:
    """What a row is known by: its place in the order of the mix, hashes of its prompt and content, and where it lies.

    `text` is the normalised prompt, kept only where near-duplicates are looked for.
    """

    key: bytes
    prompt: bytes
    content: bytes
    offset: int
    text: str = ""


def sort_key(seed: int, identity: str, copy: int = 0) -> bytes:
    """Where a row comes in the order of a mix: sha256 over seed and id; repeats of a row have places of their own."""
    more = f"\0{copy}" if copy else ""
    return hashlib.sha256(f"{seed}\0{identity}{more}".encode("utf-8", "surrogatepass")).digest()


@dataclass(slots=True)
class Seen:
    """What earlier sources hold. Each call of `keep` is the next source."""

    dedup: Dedup
    near: Near | None = None
    _known: set[bytes] = field(default_factory=set)
    _pieces: dict[bytes, list[str]] = field(default_factory=dict)

    def keep(self, rows: Sequence[Facts]) -> tuple[list[Facts], dict[str, int]]:
        """The rows that stay, in the order of the mix, and how many went by reason."""
        kept: list[Facts] = []
        dropped: dict[str, int] = {}
        for row in sorted(rows, key=lambda each: (each.key, each.content)):
            if why := self._why(row):
                dropped[why] = dropped.get(why, 0) + 1
            else:
                kept.append(row)
        return kept, dropped

    def _why(self, row: Facts) -> str:
        if self.dedup != "none":
            mark = row.prompt if self.dedup == "prompt" else row.content
            if mark in self._known:
                return f"duplicate_{self.dedup}"
            self._known.add(mark)
        if self.near is not None and row.text:
            pieces = _pieces(row.text)
            if self._is_near(row.text, pieces, self.near):
                return "near_duplicate"
            for piece in pieces:
                self._pieces.setdefault(piece, []).append(row.text)
        return ""

    def _is_near(self, text: str, pieces: Sequence[bytes], near: Near) -> bool:
        from rapidfuzz import fuzz

        # The rarest piece first: a common beginning must not use up what may be compared.
        sharing = sorted((self._pieces.get(piece, []) for piece in pieces), key=len)
        others = [other for some in sharing for other in some[: near.most]]
        return any(fuzz.ratio(text, other, score_cutoff=near.ratio) > 0 for other in others[: near.most])


def _pieces(text: str) -> list[bytes]:
    """Short hashes of the start, the middle and the end of a text."""
    middle = max(0, len(text) // 2 - PIECE // 2)
    cuts = (("a", text[:PIECE]), ("b", text[middle : middle + PIECE]), ("c", text[-PIECE:]))
    return [hashlib.blake2b(f"{where}{cut}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
            for where, cut in cuts]  # fmt: skip
