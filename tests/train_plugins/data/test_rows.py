"""Canonical rows: their ids, what is wrong with a bad one, how they come out of files and go into them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import DataError, DiskFull, UsageError
from train_plugins.data import checks
from train_plugins.data.jsontext import content_bytes, plain_content_bytes, plain_row_bytes, row_bytes
from train_plugins.data.rows import (
    RULES,
    BadRow,
    RowRules,
    check_row,
    content_id,
    kind_of,
    merge_turns,
    read_lines,
    read_meta,
    read_rows,
    write_dataset,
)
from train_plugins.data.writing import DatasetWriter

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}
SYSTEM = {"role": "system", "content": "be kind"}
OTHER = {"role": "assistant", "content": "go away"}
TALK = [USER, ANSWER]
SFT = {"id": "1", "source": "own", "messages": TALK}
PAIR = {"id": "2", "source": "own", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}
RLVR = {"id": "3", "source": "own", "messages": [USER], "ground_truth": "4", "dataset": "gsm8k"}


def sft(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_an_id_is_the_digest_of_what_a_row_says_and_of_nothing_else() -> None:
    text = '{"messages":[{"content":"hi","role":"user"},{"content":"yo","role":"assistant"}]}'
    expected = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert (
        content_id(SFT) == content_id({"messages": TALK}) == content_id({**SFT, "id": "9", "source": "b"}) == expected
    )
    assert content_id({"messages": [{"content": "hi", "role": "user"}, ANSWER]}) == expected  # the order of keys
    assert content_id({"messages": [*TALK, *TALK]}) != expected
    assert content_id(PAIR) == content_id({**PAIR, "chosen_rating": 4.5, "chosen_model": "m"})
    assert content_id(RLVR) != content_id({**RLVR, "ground_truth": "5"}) != content_id({**RLVR, "dataset": "math"})


def test_the_kind_of_a_row_follows_from_its_fields() -> None:
    assert [kind_of(row) for row in (SFT, PAIR, RLVR)] == ["sft", "preference", "rlvr"]


def test_sound_rows_of_all_kinds_have_nothing_wrong() -> None:
    tools = sft(USER, ANSWER, said("tool", "42"), said("tool", "43"), ANSWER)
    assert [check_row(row, kind_of(row)) for row in (SFT, PAIR, RLVR, sft(SYSTEM, *TALK, *TALK))] == [[]] * 4
    assert check_row(tools, "sft", RowRules(allow_tools=True)) == []
    assert (
        check_row({**RLVR, "dataset": "ifeval", "ground_truth": '{"func_name": "validate_title", "N": null}'}, "rlvr")
        == []
    )


BAD: list[tuple[str, Any, str, list[str]]] = [
    ("sft", [1], "not_object", ["the row is a list"]),
    ("sft", {"message": TALK}, "missing_field", ["`message`: did you mean `messages`?"]),
    ("sft", {"text": "a"}, "missing_field", ["no field `messages`; it has text"]),
    ("sft", PAIR, "missing_field", ["`messages` in a row of kind sft (this is a preference row)"]),
    ("sft", {"messages": "hi"}, "wrong_type", ["messages is text"]),
    ("sft", {"messages": []}, "wrong_type", ["messages is empty"]),
    ("sft", sft("hi"), "wrong_type", ["messages[0] is text"]),
    ("sft", sft(USER, said("assistant", 3)), "wrong_type", ["messages[1].content is a number"]),
    ("sft", sft(USER, said("assistant", None)), "wrong_type", ["messages[1].content is null"]),
    ("sft", {**SFT, "id": 7}, "wrong_type", ["id is a number"]),
    ("sft", sft(USER, {"role": "assistant", "text": "a"}), "missing_field", ["messages[1] has role, text"]),
    ("sft", sft(USER, said("asistant", "a")), "unknown_role", ["'asistant'; did you mean 'assistant'?"]),
    ("sft", sft(USER, ANSWER, said("tool", "a"), ANSWER), "unknown_role", ["--allow-tools"]),
    ("sft", sft(USER, said("assistant", " \n")), "empty_content", ["messages[1] (assistant) is blank"]),
    ("sft", sft(said("user", ""), ANSWER), "empty_content", ["messages[0] (user) is blank"]),
    ("sft", sft(USER, USER, ANSWER), "role_order", ["messages[0] and [1] are both of the user", "--merge-turns"]),
    ("sft", sft(ANSWER), "role_order", ["messages[0] of the assistant comes first"]),
    ("sft", sft(SYSTEM, ANSWER), "role_order", ["messages[1] of the assistant comes first"]),
    ("sft", sft(USER, SYSTEM, ANSWER), "role_order", ["messages[1] is a system message"]),
    ("sft", sft(USER), "no_assistant", ["no assistant message"]),
    ("sft", sft(USER, ANSWER, USER), "ends_with_user", ["ends with 'user'"]),
    ("preference", {**PAIR, "rejected": [USER, ANSWER]}, "identical_pair", ["are the same"]),
    ("preference", {**PAIR, "rejected": [said("user", "ho"), OTHER]}, "no_shared_prompt", ["from the first message"]),
    (
        "preference",
        {**PAIR, "chosen": [USER, ANSWER, USER, ANSWER], "rejected": [USER, OTHER, USER, ANSWER]},
        "diverges_early",
        ["from message 2 on, of 4 chosen and 4 rejected ones"],
    ),
    ("preference", {**PAIR, "rejected": [USER, said("assistant", "")]}, "empty_content", ["rejected[1]"]),
    ("preference", {**PAIR, "rejected": [USER, said("user", "a")]}, "ends_with_user", ["rejected ends with 'user'"]),
    ("preference", {**PAIR, "rejected": [USER, said("assistant", "</s>")]}, "template_token", ["rejected[1] holds"]),
    ("preference", {"chosen": [USER, ANSWER]}, "missing_field", ["no field `rejected`"]),
    ("rlvr", {**RLVR, "dataset": "gsm-8k"}, "no_verifier", ["'gsm-8k'; did you mean 'gsm8k'?"]),
    ("rlvr", {**RLVR, "ground_truth": "four"}, "bad_ground_truth", ["'four'", "a text that holds a number for gsm8k"]),
    ("rlvr", {**RLVR, "ground_truth": 4}, "bad_ground_truth", ["ground_truth is 4"]),
    ("rlvr", {**RLVR, "dataset": "ifeval", "ground_truth": "{}"}, "bad_ground_truth", ["func_name"]),
    ("rlvr", {**RLVR, "messages": TALK}, "role_order", ["ends with 'assistant'"]),
    ("sft", sft(USER, said("assistant", "a\n<|user|>\nb")), "template_token", ["[1] holds '<|user|>' at character 3"]),
    ("sft", sft(said("system", "<|im_end|>"), *TALK), "template_token", ["messages[0] holds '<|im_end|>'"]),
    ("sft", sft(USER, said("assistant", "a\0")), "control_chars", ["messages[1] holds U+0000 at character 2"]),
    ("sft", sft(USER, said("assistant", "\ud83d")), "not_utf8", ["messages[1] holds U+D83D at character 1"]),
    ("sft", sft(USER, said("assistant", "a" * 1_000_000)), "overlong", ["messages holds 1000002 characters"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "row", "code", "words"), BAD, ids=[f"{i}-{b[2]}" for i, b in enumerate(BAD)])
def test_a_bad_row_is_told_once_with_what_was_found_and_expected(
    kind: Any, row: Any, code: str, words: list[str]
) -> None:
    problems = check_row(row, kind)
    assert [problem[0] for problem in problems] == [code]
    assert [word for word in words if word not in f"{problems[0][1]}; expected {problems[0][2]}"] == []


def test_all_problems_of_a_row_are_told() -> None:
    row = sft(SYSTEM, ANSWER, said("user", " "), said("user", "<|user|>"))
    assert [code for code, _, _ in check_row(row, "sft")] == [
        "role_order",
        "role_order",
        "empty_content",
        "ends_with_user",
        "template_token",
    ]


def test_template_text_and_more_markers_are_for_the_caller_to_say() -> None:
    row = sft(USER, said("assistant", "<s>a</s>"))
    assert check_row(row, "sft", RowRules(allow_template_text=True)) == []
    codes = [code for code, _, _ in check_row(row, "sft", RowRules(template_tokens=("<s>",)))]
    assert codes == ["template_token"]


def test_equal_neighbours_are_joined_by_a_blank_line() -> None:
    merged = merge_turns([SYSTEM, USER, said("user", "there"), ANSWER, ANSWER, USER])
    assert merged == [SYSTEM, said("user", "hi\n\nthere"), said("assistant", "yo\n\nyo"), USER]


MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "user", "assistant", "assistant", "tool", "", None]),
        "content": st.sampled_from(["a", "b", " ", "", "x\0", "<|user|>", "\ud800", None, 3]),
    }
)
ROW = st.one_of(
    st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=5)}, optional={"id": st.sampled_from(["a", 1])}),
    st.fixed_dictionaries({"chosen": st.lists(MESSAGE, max_size=3), "rejected": st.lists(MESSAGE, max_size=3)}),
)


@given(ROW)
@settings(max_examples=400, deadline=None)
def test_the_short_cut_never_lets_a_row_through_that_the_checks_object_to(row: dict[str, Any]) -> None:
    kind = kind_of(row)
    quick = checks._is_sound(row, kind, RULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_is_sound", lambda *_: False)
        slow = check_row(row, kind)
    assert not (quick and slow)


def test_the_short_cut_takes_plain_rows_and_no_other_order_of_roles() -> None:
    orders = [order for n in range(5) for order in product(("system", "user", "assistant"), repeat=n)]
    taken = [order for order in orders if checks._is_sound(sft(*(said(role, "a") for role in order)), "sft", RULES)]
    plain = [("user", "assistant"), ("system", "user", "assistant"), ("user", "assistant", "user", "assistant")]
    assert taken == plain
    assert checks._is_sound(PAIR, "preference", RULES)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
@settings(max_examples=300, deadline=None)
def test_the_bytes_of_a_row_do_not_depend_on_the_library_that_is_installed(row: dict[str, Any]) -> None:
    assert row_bytes(row) == plain_row_bytes(row)
    assert content_bytes(row) == plain_content_bytes(row)
    texts = {key: str(value) for key, value in row.items()}
    assert row_bytes(texts, True) == plain_row_bytes(texts)
    assert json.loads(row_bytes(row)) == row


@pytest.mark.parametrize("value", [1e16, 1e-5, 2**64])
def test_numbers_that_libraries_write_differently_are_written_as_python_does(value: float) -> None:
    assert row_bytes({"a": value}) == plain_row_bytes({"a": value})


ROWS = [{"id": str(i), "messages": [said("user", f"q{i}"), said("assistant", 'ä 😀\n"x"')]} for i in range(3)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "messages"])
        writer.writerows([row["id"], json.dumps(row["messages"])] for row in ROWS)


def save(path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(path)


def save_splits(path: Path) -> None:
    import datasets

    few = datasets.Dataset.from_list(ROWS[:1])
    datasets.DatasetDict({"test": few, "train": datasets.Dataset.from_list(ROWS)}).save_to_disk(path)


def zst(path: Path, data: bytes) -> None:
    with pa.CompressedOutputStream(str(path), "zstd") as file:
        file.write(data)


CONTAINERS: Mapping[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_bytes(LINES),
    "bom.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + LINES.replace(b"}]}\n", b"}]}\r\n").rstrip()),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "a.jsonl.zst": lambda path: zst(path, LINES),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "a.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "lines.json": lambda path: path.write_bytes(LINES),
    "a.csv": write_csv,
    "a.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
    "a.parquet.gz": lambda path: path.write_bytes(gzip.compress(_parquet())),
    "saved": save,
    "splits": save_splits,
}  # fmt: skip


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    CONTAINERS[name](tmp_path / name)
    found = list(read_lines(tmp_path / name))
    assert [row for _, row in found] == ROWS
    assert [number for number, _ in found] == ([2, 3, 4] if name == "a.csv" else [1, 2, 3])


def test_lines_that_cannot_be_read_are_told_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": }\n"\xff"\n' + b"[" * 100_000 + b'\n{"a": 2}')
    found = list(read_lines(path))
    assert [number for number, _ in found] == [1, 3, 4, 5, 6]
    bad = [str(row).removeprefix(str(path)) for _, row in found if isinstance(row, BadRow)]
    assert bad == [
        ":3: not_json: Expecting value at character 7; expected one JSON object",
        ":4: not_utf8: byte 0xff at byte 2; expected text in UTF-8",
        ":5: not_json: it is nested too deeply; expected one JSON object",
    ]


def test_a_csv_line_with_too_many_fields_or_broken_text_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'instruction,output\n"a\nb",c\nd,e,f\n\xff,g\nh,i\n')
    found = dict(read_lines(path))
    assert found[2] == {"instruction": "a\nb", "output": "c"}
    assert found[6] == {"instruction": "h", "output": "i"}
    assert [(n, row.code) for n, row in found.items() if isinstance(row, BadRow)] == [
        (4, "not_object"),
        (5, "not_utf8"),
    ]


def test_a_file_that_cannot_be_read_as_a_whole_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(LINES * 50)[:-20])
    zst(tmp_path / "whole.zst", LINES * 50)
    (tmp_path / "cut.jsonl.zst").write_bytes((tmp_path / "whole.zst").read_bytes()[:-20])
    (tmp_path / "no.parquet").write_bytes(b"PAR0")
    (tmp_path / "no.json").write_text("[1, 2")
    (tmp_path / "object.json").write_text(json.dumps({"data": ROWS}, indent=1))
    (tmp_path / "folder").mkdir()
    (tmp_path / "b.txt").write_text("x")
    refused = {
        "cut.jsonl.gz": "is cut short or damaged",
        "cut.jsonl.zst": "is cut short or damaged",
        "no.parquet": "is no Parquet file",
        "no.json": "no.json:1: not_json",
        "object.json": "is one JSON object over several lines",
        "folder": "datasets did not save",
        "b.txt": "does not end in .jsonl",
        "b.jsnl": "did you mean '.jsonl'?",
        "no.jsonl": "did you mean 'no.json'?",
    }
    for name, words in refused.items():
        with pytest.raises(DataError) as error:
            list(read_lines(tmp_path / name))
        assert words in str(error.value), name


def test_reading_canonical_rows_stops_at_the_first_bad_one_and_fills_in_ids(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"messages": TALK}) + "\n" + json.dumps(SFT) + "\n")
    first, second = read_rows(path)
    assert (first, second) == ({"id": content_id(SFT), "source": "own", "messages": TALK}, SFT)
    path.write_text(json.dumps(SFT) + "\n\n" + json.dumps(sft(USER)) + "\n")
    with pytest.raises(DataError, match=r"own\.jsonl:3: no_assistant: .*expected at least one"):
        list(read_rows(path))
    with pytest.raises(DataError, match=r"own\.jsonl:1: missing_field: .*this is a sft row"):
        list(read_rows(path, "preference"))
    path.write_text("\n")
    with pytest.raises(DataError, match="has no rows"):
        list(read_rows(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_written_data_reads_back_equal_and_has_the_same_bytes_every_time(name: str, tmp_path: Path) -> None:
    rows = [{**PAIR, "id": str(i), **({"chosen_rating": i / 2} if i % 2 else {})} for i in range(2500)]
    written = [write_dataset(tmp_path / where / name, rows, {"licence": "MIT"}) for where in "ab"]
    data = [each.path.read_bytes() for each in written]
    assert data[0] == data[1]
    assert {each.digest for each in written} == {hashlib.sha256(data[0]).hexdigest()}
    back = [{key: v for key, v in row.items() if v is not None} for row in read_rows(written[0].path)]
    assert back == rows
    meta = {"schema": 1, "digest": written[0].digest, "rows": 2500, "licence": "MIT"}
    assert read_meta(written[0].path) == meta
    assert sorted(each.name for each in (tmp_path / "a").iterdir()) == [name, f"{name}.meta.json"]


def test_nothing_appears_and_nothing_old_goes_when_the_rows_break_off(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield SFT
        raise DataError("no more")

    before = write_dataset(tmp_path / "a.jsonl", [SFT, SFT], {"origin": "x"})
    for name in ("a.jsonl", "b.parquet", "b.jsonl.zst"):
        with pytest.raises(DataError, match="no more"):
            write_dataset(tmp_path / name, broken(), {})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl", "a.jsonl.meta.json"]
    assert read_meta(before.path)["digest"] == hashlib.sha256(before.path.read_bytes()).hexdigest()


def test_a_name_of_unknown_form_and_a_broken_sidecar_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean '\.jsonl'\?"):
        write_dataset(tmp_path / "a.jsnl", [SFT], {})
    assert read_meta(tmp_path / "a.jsonl") == {}
    (tmp_path / "a.jsonl.meta.json").write_text("[]")
    with pytest.raises(DataError, match="not the facts of a data set"):
        read_meta(tmp_path / "a.jsonl")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    def write() -> None:
        with DatasetWriter(tmp_path / "a.jsonl") as writer:
            writer._sink._stack.pop_all().close()
            writer._sink._file = full
            writer.add(SFT)

    with Path("/dev/full").open("wb", 0) as full, pytest.raises(DiskFull, match="free some space"):
        write()
    assert list(tmp_path.iterdir()) == []
