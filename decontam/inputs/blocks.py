"""JSON lines as blocks of whole lines, read into two buffers that take turns."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from decontam.errors import DecontamError
from decontam.inputs import meter
from decontam.types import Shard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PADDING = 64  # readable zero bytes after the last line of a block
PROBE = 16 << 10  # bytes read at a time to find where a line starts
SPARE, MOST_SPARE = 2 << 20, 64  # buffers of this size are used again, up to so many
BOM = b"\xef\xbb\xbf"
CODECS = {"jsonl.gz": "gzip", "jsonl.zst": "zstd"}

Fill = Callable[[memoryview], int]  # reads bytes into the front of the view; 0 at the end

_spare: list[bytearray] = []


class TruncatedInput(Exception):
    """A file that ends early or is damaged; what stood before that place was read. Says why, not which file."""


class Block(NamedTuple):
    """Whole lines: data[:length] ends at a newline or at the end of the file, and 64 zero bytes follow.

    `data` is written over once the next block is asked for.
    """

    data: NDArray[np.uint8]
    length: int
    offset: int  # of the first byte, in the uncompressed file


def read_blocks(shard: Shard, block: int = SPARE) -> Iterator[Block]:
    """The lines that start in the shard, in blocks of up to `block` bytes, or one line where that is longer.

    A byte order mark at the start of the file is left out. A compressed file that ends early gives all its whole lines,
    then raises TruncatedInput.
    """
    if shard.format == "jsonl":
        return _plain(shard, block)
    if shard.format in CODECS:
        return _compressed(shard, block)
    raise ValueError(f"{shard.file} is {shard.format}: it has no lines")


def _plain(shard: Shard, block: int) -> Iterator[Block]:
    with _opened(shard) as file:
        start = _line_start(file, shard.start)
        stop = file.seek(0, io.SEEK_END) if shard.stop < 0 else _line_start(file, shard.stop)
        file.seek(start)
        left = stop - start

        def fill(view: memoryview) -> int:
            nonlocal left
            n = file.readinto(view[:left]) or 0
            left -= n
            return n

        yield from _whole_lines(fill, start, min(block, left + 1))
        if left:
            raise TruncatedInput(f"ends {left} bytes early: it was cut while it was read")


def _opened(shard: Shard) -> io.FileIO:
    try:
        return open(shard.path, "rb", buffering=0)
    except OSError as error:
        raise DecontamError(f"{shard.file}: {error.strerror or error}") from error


def _line_start(file: io.FileIO, at: int) -> int:
    """Offset of the first line that starts at `at` or after it; the end of the file where none does."""
    if at <= 0:
        return 0
    place = file.seek(at - 1)  # a line starts at `at` where the byte before is a newline
    while chunk := file.read(PROBE):
        found = chunk.find(b"\n")
        if found >= 0:
            return place + found + 1
        place += len(chunk)
    return place


def _compressed(shard: Shard, block: int) -> Iterator[Block]:
    source = _Decompressed(shard)
    try:
        yield from _whole_lines(source.fill, 0, block, source)
    finally:
        source.close()
        meter.left(source)
    if source.why:
        raise TruncatedInput(source.why)


class _Decompressed:
    """The bytes of a compressed file. `why` tells how it broke, once all bytes before that place are read."""

    def __init__(self, shard: Shard) -> None:
        self.shard, self.done, self.why = shard, 0, ""
        self._files: tuple[Any, ...] = ()
        self._open()

    def fill(self, view: memoryview) -> int:
        if self.why:
            return 0
        try:
            n = int(self._files[0].readinto(view))
        except OSError as error:
            # What a failing read had already decompressed is lost: it is fetched again in small reads, then in smaller.
            n = 0
            for size in (4096, 1):
                self._open()
                n += self._fetch(view[n:], size)
            if n == 0:
                self.why = f"cannot be read beyond byte {self.done:,} of its text: {error}"
        else:
            self.done += n
            meter.reached(self, self._files[1].tell())
        return n

    def _fetch(self, view: memoryview, size: int) -> int:
        """Reads on after the bytes done, `size` at a time, up to the broken place."""
        n = 0
        try:
            while n < len(view) and (more := self._files[0].readinto(view[n : n + size])):
                n += more
        except OSError:
            pass
        self.done += n
        return n

    def _open(self) -> None:
        """Opens the file again, after the bytes done."""
        import pyarrow as pa

        self.close()
        try:
            raw = pa.OSFile(self.shard.path)
        except OSError as error:
            raise DecontamError(f"{self.shard.file}: {error}") from error
        self._files = (pa.CompressedInputStream(raw, CODECS[self.shard.format]), raw)
        left = self.done
        while left:
            left -= len(self._files[0].read(min(left, 1 << 20)))

    def close(self) -> None:
        for file in self._files:
            file.close()


def _whole_lines(fill: Fill, offset: int, block: int, source: _Decompressed | None = None) -> Iterator[Block]:
    import numpy as np

    now, then = _buffer(block), _buffer(block)
    have, ended = 0, False  # bytes in `now`: first those of a line that the last block left over
    while not ended:
        seen = have
        view = memoryview(now)[: len(now) - PADDING]
        while have < len(view) and not ended:
            n = fill(view[have:])
            have, ended = have + n, n == 0
        whole = ended and not (source and source.why)
        cut = have if whole else now.rfind(b"\n", seen, have) + 1
        if cut == 0 and not ended:  # one line, longer than the buffer
            now = bytearray(2 * have + PADDING)
            now[:have] = view
            continue
        rest = have - cut
        if len(then) != block + PADDING or 2 * rest > block:
            then = _buffer(max(block, 2 * rest))
        then[:rest] = view[cut:have]
        now[cut : cut + PADDING] = bytes(PADDING)
        mark = len(BOM) if offset == 0 and now.startswith(BOM, 0, cut) else 0
        if cut > mark:
            yield Block(np.frombuffer(now, np.uint8)[mark:], cut - mark, offset + mark)
        offset += cut
        now, then, have = then, now, rest
    _spare.extend(each for each in (now, then) if len(each) == SPARE + PADDING and len(_spare) < MOST_SPARE)


def _buffer(size: int) -> bytearray:
    """A used buffer where one is free: the pages of a new one cost as much as reading a file into it."""
    with suppress(IndexError):
        if size == SPARE:
            return _spare.pop()
    return bytearray(size + PADDING)
