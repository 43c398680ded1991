"""Training files: found, cut, read in blocks of whole lines, fetched by number, and known again by digest."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.errors import BrokenRow, DecontamError
from decontam.inputs import (
    TruncatedInput,
    dataset_digest,
    discover,
    fetch_rows,
    file_digest,
    fingerprint,
    first_row_of,
    first_rows,
    line_numbers,
    parse_line,
    read_batches,
    read_blocks,
    shards_of,
    why_no_rows,
)
from decontam.types import Shard

ROWS = [{"id": i, "text": f"row {i} " + "x" * (i % 7)} for i in range(200)]
LINES = [json.dumps(row).encode() for row in ROWS]


def zstd(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def shard_of(path: Path, format: Any = "jsonl", start: int = 0, stop: int = -1) -> Shard:
    return Shard(0, "data", path.name, str(path), format, start, stop)


def read(shard: Shard, block: int = 1 << 20) -> bytes:
    """All blocks of a shard, each checked: whole lines, followed by zeros, at the offset it says."""
    found, offset = b"", None
    for each in read_blocks(shard, block):
        assert not each.data[each.length : each.length + 64].any()
        assert len(each.data) >= each.length + 64
        assert offset is None or each.offset == offset
        assert not found or found.endswith(b"\n")
        found += each.data[: each.length].tobytes()
        offset = each.offset + each.length
    return found


def until_error(items: Iterable[Any]) -> tuple[list[Any], Exception | None]:
    """What an iterator gives before it raises, and what it raises."""
    found = []
    try:
        for each in items:
            found.append(each)
    except (TruncatedInput, DecontamError) as error:
        return found, error
    return found, None


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"\r")), max_size=30),
    st.booleans(),
    st.integers(1, 40),
    st.integers(1, 200),
)
def test_shards_share_out_the_lines_whatever_their_size(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ends: bool, block: int, shard_bytes: int
) -> None:
    data = b"\n".join(lines) + b"\n" * ends
    path = write(tmp_path_factory.getbasetemp() / "cut" / "data.jsonl", data)
    shards = shards_of(discover(str(path)), shard_bytes)
    assert (shards[0].start, shards[-1].stop) == (0, len(data))
    assert [shard.start for shard in shards[1:]] == [shard.stop for shard in shards[:-1]]
    parts = [read(shard, block) for shard in shards]
    assert b"".join(parts) == data.removeprefix(b"\xef\xbb\xbf")
    assert all(part.endswith(b"\n") for part in [part for part in parts if part][:-1])
    assert read(shard_of(path), block) == data.removeprefix(b"\xef\xbb\xbf")


def test_a_line_belongs_to_the_shard_in_which_it_starts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"aa\nbb\ncc\n")  # lines start at 0, 3 and 6
    assert [read(shard_of(path, start=a, stop=b)) for a, b in ((0, 3), (3, 4), (4, 9))] == [b"aa\n", b"bb\n", b"cc\n"]
    assert [read(shard_of(path, start=a, stop=b)) for a, b in ((0, 1), (1, 3), (7, 9))] == [b"aa\n", b"", b""]


def test_a_line_longer_than_a_block_comes_whole(tmp_path: Path) -> None:
    long = b'{"text": "' + b"x" * 100_000 + b'"}'
    data = b"\n".join([LINES[0], long, LINES[1], long, LINES[2]])
    path = write(tmp_path / "a.jsonl", data)
    assert read(shard_of(path), block=64) == data
    sizes = [block.length for block in read_blocks(shard_of(path), 64)]
    assert max(sizes) < 2 * len(long) + 200
    assert read(shard_of(path, start=20, stop=50_000), block=64) == data[len(LINES[0]) + 1 :][: len(long) + 1]


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n \n", b"\xef\xbb\xbf", b"\xef\xbb", b"{}\r\n{}\r\n"])
@pytest.mark.parametrize(
    ("format", "pack"), [("jsonl", bytes), ("jsonl.gz", gzip.compress), ("jsonl.zst", zstd)], ids=["plain", "gz", "zst"]
)
def test_odd_files_are_read_as_they_are(
    tmp_path: Path, data: bytes, format: Any, pack: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / f"a.{format}", pack(data))
    assert read(shard_of(path, format)) == data.removeprefix(b"\xef\xbb\xbf")
    assert [shard.format for shard in shards_of(discover(str(path)))] == [format]


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"\xef\xbb\xbf" + LINES[0] + b"\n\xef\xbb\xbf" + LINES[1])
    [block] = read_blocks(shard_of(path))
    assert (block.offset, block.data[: block.length].tobytes()) == (3, LINES[0] + b"\n\xef\xbb\xbf" + LINES[1])
    assert first_rows(discover(str(path))) == ROWS[:1]  # in the middle of a file it is no JSON


@pytest.mark.parametrize(("format", "pack"), [("jsonl.gz", gzip.compress), ("jsonl.zst", zstd)])
def test_compressed_files_are_read_in_whole_lines(tmp_path: Path, format: Any, pack: Callable[[bytes], bytes]) -> None:
    data = b"\n".join(LINES)
    path = write(tmp_path / f"a.{format}", pack(data))
    for block in (16, 1000, 1 << 20):
        assert read(shard_of(path, format), block) == data


@pytest.mark.parametrize(("format", "pack"), [("jsonl.gz", gzip.compress), ("jsonl.zst", zstd)])
def test_members_of_a_compressed_file_follow_each_other(tmp_path: Path, format: Any, pack: Any) -> None:
    data = b"\n".join(LINES)
    path = write(tmp_path / f"a.{format}", pack(data[:999]) + pack(b"") + pack(data[999:]))
    assert read(shard_of(path, format), 1000) == data


@pytest.mark.parametrize(("format", "pack"), [("jsonl.gz", gzip.compress), ("jsonl.zst", zstd)])
def test_a_compressed_file_cut_anywhere_gives_whole_lines_and_says_so(tmp_path: Path, format: Any, pack: Any) -> None:
    data = b"".join(hashlib.sha256(bytes([i])).hexdigest().encode() + b"\n" for i in range(120))
    packed = pack(data)
    for cut in [*range(1, len(packed), 97), len(packed) - 1]:
        path = write(tmp_path / f"a.{format}", packed[:cut])
        shard = shard_of(path, format)
        blocks, error = until_error(block.data[: block.length].tobytes() for block in read_blocks(shard, 500))
        assert isinstance(error, TruncatedInput)
        assert str(error).startswith("cannot be read beyond byte ")
        found = b"".join(blocks)
        assert data.startswith(found)
        assert not found or found.endswith(b"\n")


def test_all_that_a_cut_file_holds_is_read(tmp_path: Path) -> None:
    data = b"\n".join(os.urandom(8).hex().encode() for _ in range(20_000)) + b"\n"
    packed = gzip.compress(data)
    path = write(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2])
    held = zlib.decompressobj(wbits=31).decompress(path.read_bytes())  # 31: a gzip header is expected
    blocks, error = until_error(
        block.data[: block.length].tobytes() for block in read_blocks(shard_of(path, "jsonl.gz"))
    )
    assert isinstance(error, TruncatedInput)
    assert b"".join(blocks) == held[: held.rfind(b"\n") + 1]


def test_a_file_that_is_not_compressed_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", b"\n".join(LINES))
    with pytest.raises(TruncatedInput, match=r"cannot be read beyond byte 0 of its text"):
        read(shard_of(path, "jsonl.gz"))


def test_a_file_that_shrinks_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"\n".join(LINES))
    blocks = read_blocks(shard_of(path), 1000)
    next(blocks)
    os.truncate(path, 3000)
    with pytest.raises(TruncatedInput, match="it was cut while it was read"):
        list(blocks)


def test_readers_side_by_side_do_not_share_buffers(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.jsonl", bytes([97 + i]) * 5_000_000 + b"\n" + b"end\n") for i in range(3)]
    for _ in range(2):  # the second time over buffers of the first
        for blocks in zip(*(read_blocks(shard_of(path)) for path in paths), strict=True):
            assert [block.data[0] for block in blocks] == [97, 98, 99]


def test_blocks_are_read_faster_than_they_can_be_scanned(tmp_path: Path) -> None:
    """2 GB a CPU-second are asked for, and are seen threefold; half of it passes on a busy machine."""
    path = write(tmp_path / "a.jsonl", (b"x" * 1199 + b"\n") * 100_000)
    best = np.inf
    for _ in range(4):
        started = time.process_time()
        n = sum(block.length for shard in shards_of(discover(str(path))) for block in read_blocks(shard))
        best = min(best, time.process_time() - started)
    assert n == 120_000_000
    assert n / best > 1e9


# --- rows


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b' {"a": 1}\r', {"a": 1}),
        (b'"\\ud800"', "\ud800"),
        (b"[NaN, Infinity, -Infinity]", [pytest.approx(float("nan"), nan_ok=True), float("inf"), float("-inf")]),
        (b"1e999", float("inf")),
        (b'"\\u0000"', "\0"),
    ],
)
def test_a_line_is_parsed_as_json_does(line: bytes, value: Any) -> None:
    assert parse_line(line) == value


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "not JSON: Expecting value at character 1"),
        (b'{"a": }', "not JSON: Expecting value at character 7"),
        (b"{} {}", "not JSON: Extra data at character 4"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 8"),
        (b'"\xed\xa0\x80"', "not UTF-8: byte 0xed at byte 2"),
        (b'"a\x00b"', "not JSON: Invalid control character at character 3"),
        (b"\x00", "not JSON: Expecting value at character 1"),
        (b"[" * 100_000 + b"]" * 100_000, "not readable: nested too deeply"),
        (b"1" * 5000, "not readable: Exceeds the limit"),
    ],
)
def test_a_line_that_is_not_json_says_why(line: bytes, why: str) -> None:
    with pytest.raises(BrokenRow) as caught:
        parse_line(line)
    assert str(caught.value).startswith(why)


def parquet(path: Path, rows: list[dict[str, Any]] = ROWS, group: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def arrow(path: Path, stream: bool = True, compression: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(ROWS)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=30)
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "a.jsonl": lambda path: write(path, b"\xef\xbb\xbf" + b"\r\n\n \t\n".join(LINES)),
    "a.json": lambda path: write(path, b"\n".join(LINES) + b"\n"),
    "a.jsonl.gz": lambda path: write(path, gzip.compress(b"\n".join(LINES))),
    "a.ndjson.zst": lambda path: write(path, zstd(b"\n".join(LINES))),
    "a.parquet": parquet,
    "stream.arrow": arrow,
    "file.arrow": lambda path: arrow(path, stream=False),
    "lz4.arrow": lambda path: arrow(path, compression="lz4"),
}


@pytest.mark.parametrize("name", FILES)
def test_rows_come_first_and_by_number_from_every_format(tmp_path: Path, name: str) -> None:
    path = FILES[name](tmp_path / name)
    dataset = discover(str(path))
    assert first_rows(dataset, 5) == ROWS[:5]
    assert first_rows(dataset, 1000) == ROWS
    format = dataset.files[0].format
    assert fetch_rows(str(path), format, {0, 31, 199}) == {i: ROWS[i] for i in (0, 31, 199)}
    assert fetch_rows(str(path), format, set()) == {}
    with pytest.raises(DecontamError, match="has no row 200: it changed since it was scanned"):
        fetch_rows(str(path), format, {1, 200})


def test_the_first_rows_pass_over_what_is_broken(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.jsonl", b'{"a": 1}\n[]\n{"a": \n"x"\n\xff\n{"a": 2}')
    write(tmp_path / "d" / "b.jsonl.gz", gzip.compress(b"\n".join(LINES))[:-1])
    found = first_rows(discover(str(tmp_path / "d")))
    assert found[:2] == [{"a": 1}, {"a": 2}]
    assert found[2:] == ROWS[:98]


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "file.arrow", "lz4.arrow"])
def test_groups_of_rows_are_shared_out_in_order(tmp_path: Path, name: str) -> None:
    path = FILES[name](tmp_path / name)  # 7 groups of 30 rows, the last of 20
    shards = shards_of(discover(str(path)), 1)
    assert [(shard.start, shard.stop) for shard in shards] == [(i, i + 1) for i in range(7)]
    assert [first_row_of(shard) for shard in shards] == [0, 30, 60, 90, 120, 150, 180]
    found = [row for shard in shards for batch in read_batches(shard) for row in batch.to_pylist()]
    assert found == ROWS
    assert [(shard.start, shard.stop) for shard in shards_of(discover(str(path)))] == [(0, 7)]
    [batch] = list(read_batches(shards[1], ["text", "absent"]))
    assert batch.schema.names == ["text"]
    assert batch.to_pylist() == [{"text": row["text"]} for row in ROWS[30:60]]


def test_batches_hold_fewer_rows_where_rows_are_long(tmp_path: Path) -> None:
    rows = [{"text": os.urandom(500_000).hex()} for _ in range(40)]  # a million characters each
    path = parquet(tmp_path / "a.parquet", rows, group=40)
    [shard] = shards_of(discover(str(path)))
    batches = list(read_batches(shard))
    assert [row for batch in batches for row in batch.to_pylist()] == rows
    assert max(batch.num_rows for batch in batches) <= 16


@pytest.mark.parametrize("write_it", [lambda path: parquet(path.with_suffix(".parquet"), [{"a": "x"}][:0]), arrow])
def test_files_of_row_groups_may_be_empty_or_cut(tmp_path: Path, write_it: Any) -> None:
    path = write_it(tmp_path / "a.arrow")
    if path.suffix == ".parquet":
        [shard] = shards_of(discover(str(path)))
        assert [batch.num_rows for batch in read_batches(shard)] in ([], [0])
        return
    os.truncate(path, path.stat().st_size * 2 // 3)
    batches = (batch for shard in shards_of(discover(str(path)), 1) for batch in read_batches(shard))
    rows, error = until_error(row for batch in batches for row in batch.to_pylist())
    assert isinstance(error, TruncatedInput)
    assert str(error).startswith("is damaged: ")
    assert rows == ROWS[: len(rows)]
    assert 60 <= len(rows) < 200


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.jsonl", b"", "a.jsonl: no rows; expected training data with at least one"),
        ("a.jsonl", b"\n[1]\n", "a.jsonl line 2: the row is a list, not an object"),
        ("a.jsonl", '{"text": "x"}\n'.encode("utf-16"), "a.jsonl line 1: not UTF-8: byte 0xff at byte 1"),
        ("a.jsonl", b'{"text": 1}\r{"text": 2}', "a.jsonl line 1: not JSON: Extra data at character 13"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz cannot be read beyond byte 0 of its text: "),
    ],
)
def test_a_file_of_which_no_row_can_be_read_says_why(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    dataset = discover(str(write(tmp_path / name, data)))
    assert first_rows(dataset) == []
    assert why_no_rows(dataset).startswith(f"{tmp_path}/{why}")


@pytest.mark.parametrize(("name", "packed"), [("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd)])
def test_rows_stand_in_lines_that_count_blank_ones(tmp_path: Path, name: str, packed: Callable[[bytes], bytes]) -> None:
    # lines 1 to 9: blank, row 0, blank, blank (CR), row 1, row 2, blank (spaces), row 3, row 4 without a newline
    path = write(tmp_path / name, packed(b"\xef\xbb\xbf\n{}\n\n\r\n{}\n{\n  \t\n{}\n{}"))
    format = discover(str(path)).files[0].format
    assert line_numbers(str(path), format, [4, 2, 0, 9]) == {0: 2, 2: 6, 4: 9}
    assert line_numbers(str(path), format, []) == {}


def test_lines_are_counted_through_blocks(tmp_path: Path) -> None:
    line = b'{"text": "' + b"x" * 3000 + b'"}\n\n'  # every row is followed by a blank line
    path = write(tmp_path / "a.jsonl", line * 9000)  # 27 MB: more than three blocks
    assert line_numbers(str(path), "jsonl", [0, 4000, 8999]) == {0: 1, 4000: 8001, 8999: 17999}


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, b"no such thing " * 20)
    with pytest.raises(DecontamError, match=f"{name} cannot be read as "):
        shards_of(discover(str(path)))


# --- discover


def names(argument: Path | str) -> list[str]:
    return [file.relative for file in discover(str(argument)).files]


def test_a_folder_means_all_its_files_in_order(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl.gz", "a/y.parquet", ".cache/x.jsonl", "notes.txt", "meta.json"):
        write(tmp_path / "mix" / name, b"")
    dataset = discover(str(tmp_path / "mix") + "/")
    assert [file.relative for file in dataset.files] == ["a/y.parquet", "a/z.jsonl.gz", "b.jsonl"]
    assert [file.name for file in dataset.files] == [f"{tmp_path}/mix/{each}" for each in names(tmp_path / "mix")]
    assert (dataset.name, dataset.note) == (f"{tmp_path}/mix", "")


def test_data_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b"")
    assert discover(f"mix={path}").name == "mix"
    assert discover(str(path)).name == str(path)
    odd = write(tmp_path / "a=b.jsonl", b"")
    assert discover(str(odd)).files[0].path == str(odd)


def test_a_pattern_means_the_files_it_matches(tmp_path: Path) -> None:
    for name in ("a-2.jsonl", "a-1.jsonl", "b.jsonl"):
        write(tmp_path / name, b"")
    assert [Path(file.path).name for file in discover(f"{tmp_path}/a-*.jsonl").files] == ["a-1.jsonl", "a-2.jsonl"]
    with pytest.raises(DecontamError, match=r"no file matches the pattern '.*c-\*'"):
        discover(f"{tmp_path}/c-*")


CARD = """---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*.jsonl
  - split: test
    path: [main/test.jsonl]
- config_name: more
  data_files: more/all.jsonl
---
# Data
"""


def test_a_folder_like_a_hub_repository_means_its_train_splits(tmp_path: Path) -> None:
    write(tmp_path / "README.md", CARD.encode())
    for name in ("main/train-2.jsonl", "main/train-1.jsonl", "main/test.jsonl", "more/all.jsonl", "stray.jsonl"):
        write(tmp_path / name, b"")
    assert names(tmp_path) == ["main/train-1.jsonl", "main/train-2.jsonl", "more/all.jsonl"]
    assert discover(str(tmp_path)).note == "only its train split is read, not test (give a file to read that one)"


def test_a_folder_like_a_hub_repository_without_a_card(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"):
        write(tmp_path / "data" / name, b"")
    assert names(tmp_path) == ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]


def test_a_repository_without_a_train_split_is_read_whole(tmp_path: Path) -> None:
    write(
        tmp_path / "README.md", b"---\nconfigs:\n- config_name: a\n  data_files: [{split: test, path: x.jsonl}]\n---\n"
    )
    write(tmp_path / "x.jsonl", b"")
    assert names(tmp_path) == ["x.jsonl"]


@pytest.mark.parametrize("splits", [("train", "test"), ("dev", "test"), ()])
def test_a_folder_saved_by_datasets_is_read_in_its_order(tmp_path: Path, splits: tuple[str, ...]) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    if splits:
        datasets.DatasetDict(dict.fromkeys(splits, data)).save_to_disk(
            tmp_path / "d", num_shards=dict.fromkeys(splits, 2)
        )
    else:
        data.save_to_disk(tmp_path / "d", num_shards=2)
    dataset = discover(str(tmp_path / "d"))
    expected = [split for split in splits if split == "train"] or splits or [""]
    assert [str(Path(name).parent) for name in names(tmp_path / "d")] == [s or "." for s in expected for _ in range(2)]
    assert first_rows(dataset, 1000) == ROWS * len(expected)
    assert ("not test" in dataset.note) == ("train" in splits)


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.csv", b"", r"its name does not end in \.jsonl"),
        ("a.jsonl.xz", b"", r"its name does not end in \.jsonl"),
        ("a.json", b' [\n{"a": 1}]', "is one JSON list; write one object a line instead"),
        ("d/readme.txt", b"", "no file in it ends in"),
        (
            "d/README.md",
            b"---\nconfigs:\n- config_name: a\n  data_files: x.jsonl\n---\n",
            "names 'x.jsonl' for the split 'train'",
        ),
        ("d/README.md", b"---\nconfigs: [{data_files: {split: a}}]\n---\n", "cannot tell which files it holds"),
        ("d/README.md", b"---\na: [\n---\n", "cannot tell which files it holds"),
        ("d/state.json", b"{", "cannot tell which files it holds"),
        ("d/state.json", b'{"_data_files": [], "_indices_data_files": [1]}', "save it again with flatten_indices"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(DecontamError, match=why):
        discover(str(path.parent if "/" in name else path))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DecontamError, match=r"a\.jsonl is no file that can be read twice"):
        discover(str(tmp_path / "a.jsonl"))


def test_a_path_that_is_not_there_has_a_near_miss(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", b"")
    with pytest.raises(DecontamError, match=r"no file or folder '.*/trian.jsonl'; did you mean 'train.jsonl'\?"):
        discover(str(tmp_path / "trian.jsonl"))
    with pytest.raises(DecontamError, match="no file or folder"):
        discover(str(tmp_path / "absent" / "x"))


def test_shards_are_numbered_through_the_files(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b"x" * 100)
    write(tmp_path / "b.jsonl", b"")
    write(tmp_path / "c.jsonl.gz", gzip.compress(b""))
    found = shards_of(discover(f"mix={tmp_path}"), 40)
    assert [(s.number, s.dataset, s.format, s.start, s.stop) for s in found] == [
        (0, "mix", "jsonl", 0, 50),  # 100 bytes are nearest to two shards of 40
        (1, "mix", "jsonl", 50, 100),
        (2, "mix", "jsonl", 0, 0),
        (3, "mix", "jsonl.gz", 0, -1),
    ]


# --- digests


def test_digests_are_of_bytes_and_of_names_below_the_folder(tmp_path: Path) -> None:
    a, b = write(tmp_path / "d" / "a.jsonl", b"one"), write(tmp_path / "d" / "s" / "b.jsonl", b"two")
    one, two = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest()
    assert (file_digest(str(a)), file_digest(str(b))) == (one, two)
    assert dataset_digest(discover(str(a))) == one
    expected = hashlib.sha256(f"a.jsonl\0{one}\ns/b.jsonl\0{two}\n".encode()).hexdigest()
    assert dataset_digest(discover(str(tmp_path / "d"))) == expected
    (tmp_path / "d").rename(tmp_path / "e")
    assert dataset_digest(discover(str(tmp_path / "e"))) == expected


@pytest.mark.parametrize("size", [0, 10, 1 << 20, (1 << 20) + 5, 3 << 20])
def test_a_fingerprint_is_of_both_ends(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = write(tmp_path / "a", data)
    found = fingerprint(str(path))
    ends = data if size <= 2 << 20 else data[: 1 << 20] + data[-1 << 20 :]
    assert found == {
        "size": size,
        "mtime_ns": path.stat().st_mtime_ns,
        "sha256": hashlib.sha256(ends).hexdigest(),
    }


def test_the_digest_of_a_file_that_is_gone_is_an_error_of_the_user(tmp_path: Path) -> None:
    for digest in (file_digest, fingerprint):
        with pytest.raises(DecontamError, match="No such file"):
            digest(str(tmp_path / "gone.jsonl"))


def test_real_folders_are_read(hub_data: Path) -> None:
    dataset = discover(str(hub_data / "openai" / "gsm8k"))
    assert [file.relative for file in dataset.files] == ["main/train.jsonl"]
    assert "not test" in dataset.note
    assert list(first_rows(dataset, 1)[0]) == ["question", "answer"]
