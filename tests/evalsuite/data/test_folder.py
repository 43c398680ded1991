"""A folder's splits, rows and columns are read as `datasets` reads them; a malformed row is named by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from evalsuite.data import DatasetSpec, load
from evalsuite.data.folder import read_folder, split_files
from evalsuite.errors import DataError
from tests.evalsuite.data.resolving import ROWS, refusal, resolve
from tests.hub import write_repo


def test_without_a_readme_splits_are_guessed_as_datasets_guesses_them(tmp_path: Path) -> None:
    import datasets

    layouts: list[tuple[str, ...]] = [
        ("test.jsonl", "train.jsonl", "notes.md"),
        ("train/a.jsonl", "train/b.jsonl", "dev/c.jsonl"),
        ("data/train-00000-of-00001.jsonl", "data/odd-00000-of-00001.jsonl", "test.jsonl"),
        ("rows.jsonl", "more.jsonl"),
        ("my-eval-set.jsonl", "my_training_set.jsonl"),
        ("latest.jsonl", "trainer.jsonl"),
    ]
    for number, names in enumerate(layouts):
        folder = tmp_path / str(number)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps({"file": name}) + "\n")
        ours = split_files(read_folder(folder), "default")
        theirs = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "arrow" / str(number)))
        assert {s: sorted(p.relative_to(folder).as_posix() for p in files) for s, files in ours.items()} == {
            s: sorted(rows["file"]) for s, rows in theirs.items()
        }, names


@pytest.mark.parametrize(
    ("matter", "files"),
    [
        ("- config_name: c\n  data_files: a.jsonl\n", {"train": ["a.jsonl"]}),
        ("- config_name: c\n  data_files: ['a.jsonl', 'sub/*.jsonl']\n", {"train": ["a.jsonl", "sub/b.jsonl"]}),
        ("- config_name: c\n  data_dir: sub\n", {"train": ["sub/b.jsonl"]}),
        (
            "- config_name: c\n  data_files:\n  - split: test\n    path: '**/*.jsonl'\n",
            {"test": ["a.jsonl", "sub/b.jsonl"]},
        ),
        (
            "- config_name: c\n  data_files:\n  - split: dev\n    path: [a.jsonl, sub/b.jsonl]\n",
            {"dev": ["a.jsonl", "sub/b.jsonl"]},
        ),
    ],
)
def test_every_form_of_data_files_is_read_as_datasets_reads_it(
    tmp_path: Path, matter: str, files: dict[str, list[str]]
) -> None:
    import datasets

    folder = tmp_path / "d"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jsonl", "sub/b.jsonl"):
        (folder / name).write_text(json.dumps({"file": name}) + "\n")
    (folder / "README.md").write_text(f"---\nconfigs:\n{matter}---\n")
    found = split_files(read_folder(folder), "c")
    assert {s: [p.relative_to(folder).as_posix() for p in paths] for s, paths in found.items()} == files
    theirs = datasets.load_dataset(str(folder), "c", cache_dir=str(tmp_path / "arrow"))
    assert {split: list(rows["file"]) for split, rows in theirs.items()} == files


@pytest.mark.parametrize(
    ("readme", "says"),
    [
        ("---\nconfigs: [\n---\n", "README.md: the front matter is not YAML"),
        ("---\n- a\n- b\n---\n", "README.md: the front matter is a list"),
        ("---\nconfigs: main\n---\n", "README.md: configs is not a list of entries"),
        ("---\nconfigs:\n- config_name: main\n  data_files: 3\n---\n", "README.md: data_files of config 'main'"),
        (
            "---\nconfigs:\n- config_name: main\n  data_files: no.jsonl\n---\n",
            "no.jsonl is missing; the README names it",
        ),
        ("---\nconfigs:\n- config_name: main\n  data_files: 'x/*'\n---\n", "no file matches 'x/*'"),
        ("---\nconfigs:\n- config_name: main\n  data_files: 'https://h/a'\n---\n", "points to 'https://h/a'"),
        ("nothing", "holds no data files; expected <split>.jsonl"),
    ],
)
def test_a_folder_that_cannot_be_used_says_what_is_wrong_with_it(tmp_path: Path, readme: str, says: str) -> None:
    (tmp_path / "some/data").mkdir(parents=True)
    (tmp_path / "some/data/README.md").write_text(readme)
    config = "default" if readme == "nothing" else "main"
    if not readme.startswith("---\nconfigs:\n"):
        config = "default"
    assert says in refusal(tmp_path, DatasetSpec("some/data", None if "---" in readme else config, ("test",)))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([b'{"a": 1}', b'{"a": '], "test.jsonl line 2 is not JSON"),
        ([b'{"a": 1}', b"", b"[1]"], "test.jsonl line 3 holds a list; expected one JSON object per line"),
        ([b'{"a": "\xff"}'], "test.jsonl line 1 is not JSON"),
        ([b'{"a": "\\ud800"}'], "test.jsonl line 1 is not JSON"),
        ([b"[" * 100_000], "test.jsonl line 1 is not JSON"),
        ([b'{"a": 1, "b": 2}', b'{"b": 2}'], "main/test.jsonl line 2 has no 'a'"),
        ([], "split 'test' has no rows"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(tmp_path: Path, lines: list[bytes], says: str) -> None:
    folder = write_repo(tmp_path, "some/data", {"main": {"test": []}})
    (folder / "main/test.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    assert says in refusal(tmp_path, DatasetSpec("some/data", "main", ("test",), ("a",) if lines else ()))


def test_a_malformed_row_of_a_split_that_is_not_asked_for_counts_too_because_datasets_reads_it(root: Path) -> None:
    (root / "some/data/main/train.jsonl").write_text('{"question": ')
    assert "train.jsonl line 1 is not JSON" in refusal(root, DatasetSpec("some/data", "main", ("test",)))


def test_rows_and_columns_are_counted_in_every_format_that_is_looked_into(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y, z\n"}, {"a": 3, "b": ""}]
    folder = tmp_path / "some/data"
    folder.mkdir(parents=True)
    (folder / "test.json").write_text(json.dumps(rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    text = 'a,b\n1,x\n2,"y, z\n"\n3,\n'
    for name, content in (("t.csv", text), ("t.tsv", text.replace(",", "\t").replace("y\t", "y,"))):
        (tmp_path / "csv" / name).mkdir(parents=True)
        (tmp_path / "csv" / name / name.replace("t.", "test.")).write_text(content)
    (tmp_path / "csv/lines").mkdir()
    (tmp_path / "csv/lines/test.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    cases = [("some/data", "test"), ("some/data", "train"), ("csv/t.csv", "test"), ("csv/t.tsv", "test")]
    for name, split in [*cases, ("csv/lines", "test")]:
        (found,) = resolve(tmp_path, DatasetSpec(name, None, (split,), ("a", "b")))
        assert found.rows == 3, name
        assert "lacks c" in refusal(tmp_path, DatasetSpec(name, None, (split,), ("a", "c")))


def test_a_compressed_file_is_not_looked_into_but_checked_when_it_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "some/data").mkdir(parents=True)
    packed = gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode())
    (tmp_path / "some/data/test.jsonl.gz").write_bytes(packed)
    (found,) = resolve(tmp_path, DatasetSpec("some/data", None, ("test",), ("question",)))
    assert found.rows is None
    assert load(found, "test").num_rows == 4
    (found,) = resolve(tmp_path, DatasetSpec("some/data", None, ("test",), ("solution",)))
    with pytest.raises(DataError, match="split 'test' lacks solution; it has question, answer"):
        load(found, "test")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "some/data").mkdir(parents=True)
    (tmp_path / "some/data/test.parquet").write_bytes(b"PAR1 and then nothing")
    assert "test.parquet is not a readable Parquet file" in refusal(tmp_path, DatasetSpec("some/data"))
