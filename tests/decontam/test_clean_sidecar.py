"""What is known of a data file goes with its clean copy, and only where it is of that very file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decontam.clean.decide import way_of
from decontam.clean.run import clean
from decontam.inputs import file_digest
from tests.decontam.clean_outs import QUESTION, chat, scan, write_lines

KNOWN = {"schema": 1, "licence": "MIT", "origin": "ours", "report": {"rows": 2}, "decontamination": ["of before"]}


def cleaned_with(tmp_path: Path, known: Any) -> Path:
    train = tmp_path / "train.jsonl"
    write_lines(train, [chat("Name a colour.", "Blue.", id="a"), chat(QUESTION, "Sixteen.", id="b")])
    if isinstance(known, dict):
        known = json.dumps({**known, "digest": known.get("digest", file_digest(str(train)))})
    if known:
        (tmp_path / "train.jsonl.meta.json").write_text(known)
    scan(str(train), tmp_path / "out")
    clean(tmp_path / "out", tmp_path / "new", way_of("drop-row"))
    return tmp_path / "new" / "train.jsonl.meta.json"


def test_licence_and_origin_stay_and_the_source_is_named(tmp_path: Path) -> None:
    made = json.loads(cleaned_with(tmp_path, KNOWN).read_text())
    after, before = (file_digest(str(tmp_path / f)) for f in ("new/train.jsonl", "train.jsonl"))
    assert made == {
        "schema": 1,
        "licence": "MIT",
        "origin": "ours",
        "digest": after,
        "rows": 1,
        "cleaned": {
            "of": before, "how": "drop-row", "by": "exact", "also": [], "rule": "tulu3", "n_dropped": 1, "n_changed": 0
        },
    }  # fmt: skip


@pytest.mark.parametrize("known", ["", {**KNOWN, "digest": "of another file"}, "[1]", "{not JSON"])
def test_without_one_of_this_file_there_is_none(tmp_path: Path, known: Any) -> None:
    assert not cleaned_with(tmp_path, known).exists()
