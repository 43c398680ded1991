"""Input and places that nobody means: told in one line, and no file of the user is lost to them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalsuite.__main__ import main
from evalsuite.errors import DataError, UsageError
from tests.train_plugins.data.mixing import make, read, row, source, write_mix, write_rows
from train_plugins.data.card import plain
from train_plugins.data.collect import CHUNK, WINDOW, _mapper
from train_plugins.data.licences import joined
from train_plugins.data.persona_config import read_personas
from train_plugins.data.ratings import read_ratings
from train_plugins.data.rows import BadRow, read_lines
from train_plugins.data.tally import aligned
from train_plugins.data.writing import DatasetWriter, part_of

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ALPACA = '{"instruction": "q", "output": "a"}\n'


def convert(*arguments: object) -> int:
    return main(["data", "convert", *map(str, arguments)])


# -- reading --


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_no_json(constant: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"a": {constant}}}\n')
    ((_, bad),) = read_lines(tmp_path / "a.jsonl")
    assert isinstance(bad, BadRow)
    assert (bad.code, bad.found, bad.text) == ("not_json", f"{constant} is no JSON", f'{{"a": {constant}}}')


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'instruction,output\na,"b is cut', "a.csv:2: not CSV"),  # else the rest of the file is one field
        (b"instruction,output,output\na,b,c\n", "a.csv:1: the column 'output' is there twice"),
    ],
)
def test_a_csv_file_that_would_lose_text_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=told):
        list(read_lines(tmp_path / "a.csv"))


def test_a_link_to_nowhere_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl is a link to 'gone\.jsonl', where there is no file"):
        list(read_lines(tmp_path / "a.jsonl"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"instruction": "é"}\n'.encode("latin-1"), "a.jsonl:1: not_utf8: byte 0xe9 at byte 18"),
        (ALPACA.encode("utf-16"), "a.jsonl:1: not_utf8: byte 0xff at byte 1"),
        (b'{"instruction": }\n', "a.jsonl:1: not_json: Expecting value at character 17"),
        (b"", "a.jsonl: no rows"),
    ],
)
def test_a_file_without_one_row_says_why(
    content: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    assert convert(tmp_path / "a.jsonl", "-o", tmp_path / "out.jsonl") == 2
    assert told in capsys.readouterr().err


def test_one_empty_file_of_two_is_not_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_text(ALPACA)
    (tmp_path / "b.jsonl").touch()
    assert convert(tmp_path / "a.jsonl", tmp_path / "b.jsonl", "-o", tmp_path / "out.jsonl") == 2
    assert "b.jsonl: no rows; expected at least one" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


# -- writing --


@pytest.fixture
def one_bad(tmp_path: Path) -> Path:
    rows = [json.dumps({"instruction": f"q{i}", "output": f"a{i}"}) for i in range(150)]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join([*rows, '{"instruction": "q", "output"\n']))
    return path


def test_rejects_go_over_no_file_and_into_a_folder_that_is_made(
    one_bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rejects.jsonl").write_text("mine")
    typed = [one_bad, "-o", tmp_path / "out.jsonl", "--skip-bad"]
    assert convert(*typed) == 2
    assert "rejects.jsonl is there already; name another file with --rejects" in capsys.readouterr().err
    for name in ("out.jsonl", "out.jsonl.meta.json"):
        assert convert(*typed, "--rejects", tmp_path / name) == 2
        assert "is where the rows or their facts go" in capsys.readouterr().err
    assert convert(*typed, "--rejects", tmp_path / "new" / "r.jsonl") == 0
    assert (tmp_path / "rejects.jsonl").read_text() == "mine"
    (reject,) = read(tmp_path / "new" / "r.jsonl")
    assert (reject["line"], reject["code"], reject["row"]) == (151, "not_json", '{"instruction": "q", "output"')


def test_a_kept_field_that_json_does_not_have_is_a_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import datetime

    table = pa.table({"instruction": ["q"], "output": ["a"], "day": [datetime.date(2020, 1, 1)]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert convert(tmp_path / "a.parquet", "-o", tmp_path / "out.jsonl", "--keep", "day") == 2
    assert "a.parquet:1: wrong_type: a field that JSON does not have" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--licence", "Apche-2.0", "did you mean 'Apache-2.0'?"),
        ("--skill", "chta", "no skill 'chta'; did you mean 'chat'?"),
        ("-o", f"{'a' * 300}.jsonl", "File name too long"),
        ("-o", "in.jsonl/out.jsonl", "in.jsonl/out.jsonl: File exists"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(
    option: str,
    value: str,
    told: str,
    one_bad: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(one_bad.parent)
    assert convert(one_bad, "-o", "out.jsonl", option, value) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_what_a_killed_run_was_writing_goes_and_what_a_live_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, live, other = (tmp_path / f".{n}.part" for n in (f"a.jsonl.{gone.pid}", "a.jsonl.1", f"b.jsonl.{gone.pid}"))
    for each in (dead, live, other):
        each.touch()
    with DatasetWriter(path) as writer:
        assert part_of(path).name == f".a.jsonl.{os.getpid()}.part"
        writer.add({"a": 1})
        writer.finish({})
    assert sorted(each.name for each in tmp_path.glob(".*.part")) == sorted([live.name, other.name])


# -- mixes --


def test_a_mix_writes_over_none_of_its_sources_and_no_file_of_others(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [row(str(i), f"question {i}") for i in range(3)])
    path = write_mix(tmp_path, source("a.jsonl", count=2))
    (tmp_path / "notes.jsonl").write_text("mine")
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    for name, told in (("a", "is one of the sources"), ("link", "is one of the sources"), ("notes", "no mix has made")):
        with pytest.raises(UsageError, match=told):
            make(path, f"{name}.jsonl")
    assert (len(read(tmp_path / "a.jsonl")), (tmp_path / "notes.jsonl").read_text()) == (3, "mine")
    assert make(path)["rows"] == 2
    write_mix(tmp_path, source("a.jsonl", count=3))
    assert make(path)["rows"] == 3  # of another mix: that is what working on a mix file looks like


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_field_of_a_source_that_json_does_not_have_is_a_bad_row(processes: int, tmp_path: Path) -> None:
    rows = [row(str(i), f"question {i}") for i in range(5)]
    write_rows(tmp_path / "a.jsonl", [*rows, row("strange", "why", note="\ud800")])
    with pytest.raises(DataError, match=r"a: row 'strange': it cannot be written"):
        make(write_mix(tmp_path, source("a.jsonl")), processes=processes)
    (told,) = make(write_mix(tmp_path, source("a.jsonl", max_bad=0.2)), processes=processes)["sources"]
    assert (told["rows_in"], told["dropped"], told["rows_out"]) == (6, {"bad_row": 1}, 5)
    with pytest.raises(DataError, match=r"1 of 6 rows cannot be used, more than max_bad: 0\.1"):  # 1 / 6 = 0.17
        make(write_mix(tmp_path, source("a.jsonl", max_bad=0.1)), processes=processes)


def test_a_source_without_rows_is_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [row("1", "Why?")])
    (tmp_path / "b.jsonl").touch()
    with pytest.raises(DataError, match=r"b: no rows in b\.jsonl; leave it out"):
        make(write_mix(tmp_path, source("a.jsonl"), source("b.jsonl")))


@pytest.mark.slow
def test_processes_are_given_rows_as_they_work_and_not_all_at_once() -> None:
    given: list[int] = []

    def rows() -> Iterator[int]:
        for number in range(20 * CHUNK * WINDOW):
            given.append(number)
            yield number

    with _mapper(2) as run:
        results = run(abs, rows())
        assert [next(results) for _ in range(10)] == list(range(10))
        # Four chunks for each of two processes, and one row for each result that was taken.
        assert len(given) <= WINDOW * CHUNK * 2 + 11


@pytest.mark.parametrize(
    ("licences", "expression"),
    [
        (["MIT", "mit"], "MIT"),
        (["MIT OR Apache-2.0"], "MIT OR Apache-2.0"),
        (["MIT", "MIT OR Apache-2.0"], "MIT AND (MIT OR Apache-2.0)"),  # without brackets: (MIT AND MIT) OR Apache-2.0
    ],
)
def test_the_licence_of_a_mix_is_that_of_all_its_parts(licences: list[str], expression: str) -> None:
    assert joined(licences) == expression


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a | b\n\n# Big", r"a \| b # Big"),
        ("# Big", r"\# Big"),
        ("1. one", r"\1. one"),
        ("<b>x</b>", r"\<b>x\</b>"),
        ("[x](http://y) `z`", r"\[x\](http://y) \`z\`"),
        ("synthetic:gpt_4, a_b", "synthetic:gpt_4, a_b"),
    ],
)
def test_nothing_in_a_card_is_markup_but_its_own(text: str, told: str) -> None:
    assert plain(text) == told


def test_a_cell_on_a_terminal_is_one_line_without_control_characters() -> None:
    assert aligned([("name", "n"), ("a\x1b[2J\nb", "1")]) == "name    n\na[2J b  1"


# -- answers of models --


@pytest.mark.parametrize(
    "answer",
    [
        "\n" * 50_000,
        " #*" * 16_000,
        "Text 1 " + "Rating " * 7_000,
        "rating" + " " * 50_000,
        "Text 1\nrating: n" + " " * 40_000,
    ],
)
def test_an_answer_of_nothing_but_signs_is_read_at_once(answer: str) -> None:
    start = time.process_time()
    assert read_ratings(answer, 2) == {1: "unreadable", 2: "unreadable"}
    assert time.process_time() - start < 2  # 575 seconds for all of them, as long as a sign could begin anywhere


def test_json_as_deep_as_can_be_read_at_all_is_unreadable_and_no_crash() -> None:
    for depth in range(850, 1000):
        answer = '{"a":' * depth + "1" + "}" * depth
        assert read_ratings(answer, 1) == {1: "unreadable"}
        try:
            json.loads(answer)
        except RecursionError:
            break
    else:
        raise AssertionError("nothing was too deep")


def test_personas_that_are_no_utf8_are_told_by_their_byte(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"caf\xe9 owner\n")
    with pytest.raises(DataError, match=r"p\.txt: byte 0xe9 at byte 4 is no UTF-8"):
        read_personas("p.txt", tmp_path)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"skills": {"math": 0}}, "skills asks for no row"),
        ({"licence": "Apche-2.0"}, "'Apche-2.0' is no SPDX id known here; did you mean 'Apache-2.0'?"),
    ],
)
def test_a_personas_file_that_asks_for_nothing_or_names_no_licence_is_refused(
    more: dict[str, object], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = {"model": "api:http://127.0.0.1:9/v1", "served_model": "m"}
    content = {"schema": 1, "name": "p", "seed": 1, "personas": "shipped", "skills": {"math": 1}, "engine": engine}
    (tmp_path / "p.yaml").write_text(json.dumps(content | more))
    assert main(["data", "personas", str(tmp_path / "p.yaml"), "--dry-run"]) == 2
    assert told in capsys.readouterr().err
