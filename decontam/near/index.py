"""The near-duplicate index: the seeds of all texts, mapped from a folder, and the search of messages against them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from decontam.errors import DecontamError
from decontam.near.profiles import WIDTH, Near, Profile
from decontam.near.score import Shared, Shingle, Words, score

FORMAT = 1
META = "meta.json"
ARRAYS = (
    "keys", "table", "bits", "posting_starts", "postings", "n_words", "place_starts", "places", "text", "text_starts",
    "owner",
)  # fmt: skip
ROOM = 4096  # pairs that the kernel can hand over at a time, beside one message's
_OWN = threading.local()
LAST_STAMP = 2**32 - 1


class Candidate(NamedTuple):
    """A message and a text of the index that share enough seeds. `message` is an index of the texts given."""

    message: int
    text: int
    shared: Sequence[Shared]


class NearIndex:
    """Seeds of the texts of all instances. Reading is safe from several threads.

    `uncovered` names the instances of each eval that have too few seeds to be ever found.
    """

    def __init__(self, arrays: Mapping[str, Any], uncovered: Mapping[str, Sequence[str]]) -> None:
        self.arrays = {name: _fixed(array) for name, array in arrays.items()}
        self.uncovered = uncovered
        self._words = lru_cache(maxsize=1024)(self._read_words)
        self._instances: list[list[int]] | None = None
        self._needs: dict[Profile, Any] = {}

    def save(self, folder: Path) -> None:
        """Writes the index; `folder` appears at once and whole, or takes the place of what stood there."""
        import numpy as np

        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for name in ARRAYS:
                np.save(made / f"{name}.npy", self.arrays[name], allow_pickle=False)
            meta = {
                "format": FORMAT,
                "unicode": unicodedata.unidata_version,
                "bytes": {name: (made / f"{name}.npy").stat().st_size for name in ARRAYS},
                "uncovered": self.uncovered,
            }
            (made / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
            _put(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    @staticmethod
    def load(folder: Path) -> NearIndex:
        """The index in a folder, mapped; raises DecontamError for one of another format or one that is not whole."""
        import numpy as np

        try:
            meta = json.loads((folder / META).read_text(encoding="utf-8"))
            told = (meta["format"], meta["unicode"])
            expected = {name: int(meta["bytes"][name]) for name in ARRAYS}
            sizes = {name: (folder / f"{name}.npy").stat().st_size for name in ARRAYS}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DecontamError(
                f"{folder}: no near-duplicate index can be read here ({error}); rebuild with --rebuild-index"
            ) from error
        # Another Unicode lowers other letters, so seeds would be missed.
        if told != (FORMAT, unicodedata.unidata_version):
            raise DecontamError(
                f"{folder}: near-duplicate index of format {told[0]} and Unicode {told[1]}, expected {FORMAT} and "
                f"{unicodedata.unidata_version}; rebuild with --rebuild-index"
            )
        for name, size in sizes.items():
            if size != expected[name]:
                raise DecontamError(
                    f"{folder}/{name}.npy: {size} bytes, expected {expected[name]}; rebuild with --rebuild-index"
                )
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ARRAYS}
        return NearIndex(arrays, {name: tuple(ids) for name, ids in meta["uncovered"].items()})

    def find(self, texts: Sequence[str], profile: Profile) -> list[Near]:
        """The near-duplicates among these messages, in order of message and instance."""
        found = []
        for message, candidate in self._candidates(texts, profile):
            instance = self._words(candidate.text)
            scored = score(instance, message, candidate.shared, profile.cutoff)
            if scored is not None:
                found += [
                    Near(candidate.message, inst, scored.score, *scored.train, *scored.eval)
                    for inst in self.instances_of(candidate.text)
                ]
        return sorted(found, key=lambda near: (near.message, near.inst))

    def candidates(self, texts: Sequence[str], profile: Profile) -> list[Candidate]:
        """The pairs that are scored, in order of message and text."""
        return [candidate for _, candidate in self._candidates(texts, profile)]

    def text(self, text: int) -> str:
        """A text of the index: an instance's fields joined by newlines."""
        return self._words(text).text

    def instances_of(self, text: int) -> Sequence[int]:
        """The instances that own a text."""
        if self._instances is None:
            owners: list[list[int]] = [[] for _ in range(self.arrays["n_words"].size)]
            for inst, owned in enumerate(self.arrays["owner"].tolist()):
                if owned >= 0:
                    owners[owned].append(inst)
            self._instances = owners
        return self._instances[text]

    def unreachable(self, profile: Profile) -> list[int]:
        """The instances whose seeds, all of them together, are fewer than the profile asks for: the uncovered, and
        those that are made of common shingles for the most part."""
        import numpy as np

        weak = np.diff(self.arrays["place_starts"]) < self._need(profile)
        return [inst for inst, text in enumerate(self.arrays["owner"].tolist()) if text >= 0 and weak[text]]

    def _candidates(self, texts: Sequence[str], profile: Profile) -> Iterator[tuple[Words, Candidate]]:
        need = self._need(profile)
        for m, pairs in groupby(self._hashed(texts, need), key=lambda pair: pair[0]):
            message = Words(texts[m])
            seeds = {text: self._seeds(text) for _, text in pairs}
            places = message.places({shingle for own in seeds.values() for shingle in own})
            for text, own in seeds.items():
                shared = [Shared(at, *places[shingle]) for shingle, at in own.items() if shingle in places]
                if len(shared) >= need[text]:  # else their hashes were equal and their words were not
                    yield message, Candidate(m, text, shared)

    def _seeds(self, text: int) -> dict[Shingle, int]:
        """The seeds of a text, in order of their first places in it, and these places."""
        words = self._words(text).words
        start, stop = self.arrays["place_starts"][text : text + 2].tolist()
        return {tuple(words[at : at + WIDTH]): at for at in self.arrays["places"][start:stop].tolist()}

    def _hashed(self, texts: Sequence[str], need: Any) -> Iterator[tuple[int, int]]:
        """Pairs (message, text) that share enough hashes of seeds, in order."""
        import numpy as np

        from decontam.near.kernel import alphabet, candidates

        data, offsets = encode(texts)
        scratch = self._scratch()
        words = np.empty(int(np.diff(offsets).max(initial=0)) // 2 + 1, np.uint64)
        index = [self.arrays[name] for name in ("keys", "table", "bits", "posting_starts", "postings")]
        room = scratch.touched.size + ROOM
        pairs: list[tuple[int, int]] = []
        m = 0
        while m < len(texts):
            messages, found = np.empty(room, np.int64), np.empty(room, np.int64)
            n, m = candidates(
                data, offsets, m, *alphabet(), *index, need, words, scratch.key_seen, scratch.text_seen,
                scratch.shared, scratch.touched, scratch.stamps(len(texts)), messages, found,
            )  # fmt: skip
            order = np.lexsort((found[:n], messages[:n]))
            pairs += zip(messages[order].tolist(), found[order].tolist(), strict=True)
        return iter(pairs)

    def _need(self, profile: Profile) -> Any:
        """For each text how many seeds a candidate must share."""
        import numpy as np

        if profile not in self._needs:
            self._needs[profile] = np.array([profile.need(n) for n in self.arrays["n_words"].tolist()], np.int64)
        return self._needs[profile]

    def _read_words(self, text: int) -> Words:
        start, stop = self.arrays["text_starts"][text : text + 2].tolist()
        return Words(self.arrays["text"][start:stop].tobytes().decode("utf-8", "surrogatepass"))

    def _scratch(self) -> _Scratch:
        """This thread's counters for this index."""
        own: _Scratch | None = getattr(_OWN, "scratch", None)
        if own is None or own.index is not self:
            own = _OWN.scratch = _Scratch(self)
        return own


class _Scratch:
    """Counters that need no clearing: what bears an old stamp counts as zero."""

    def __init__(self, index: NearIndex) -> None:
        import numpy as np

        n_texts = index.arrays["n_words"].size
        self.index = index
        self.key_seen = np.zeros(index.arrays["keys"].size, np.uint32)
        self.text_seen = np.zeros(n_texts, np.uint32)
        self.shared = np.zeros(n_texts, np.int32)
        self.touched = np.zeros(n_texts, np.int64)
        self.next = 1

    def stamps(self, n: int) -> int:
        """The first of n stamps that nothing bears."""
        if self.next + n > LAST_STAMP:
            self.key_seen[:] = self.text_seen[:] = 0
            self.next = 1
        self.next += n
        return self.next - n


def _fixed(array: Any) -> Any:
    """A read-only plain array, mapped or not, so that the kernel is compiled for one kind."""
    import numpy as np

    plain = np.asarray(array).view()
    plain.flags.writeable = False
    return plain


def encode(texts: Sequence[str]) -> tuple[Any, Any]:
    """(all texts one after the other in UTF-8, where each begins and the end of the last)."""
    import numpy as np

    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(each) for each in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def _put(made: Path, folder: Path) -> None:
    """Moves what was made to its place. What another process still maps there stays readable to it."""
    try:
        os.rename(made, folder)
    except OSError:
        if not folder.is_dir():
            raise
        old = made.with_name(f"{made.name}.old")
        os.rename(folder, old)
        os.rename(made, folder)
        shutil.rmtree(old, ignore_errors=True)
