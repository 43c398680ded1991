"""Rows of tables tagged in memory, as a scan of a file would find them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from decontam.errors import DecontamError
from decontam.index import build
from decontam.rules import RULES
from decontam.tagging import Tagger, select_from
from tests.decontam.job.plain import SUMS, sums

ROWS: list[dict[str, Any]] = [
    {"id": 0, "messages": [{"role": "user", "content": f"please: {SUMS[0].upper()}?"}]},
    {"id": 1, "messages": [{"role": "user", "content": "nothing to see"}]},
    {"id": 2, "messages": [{"role": "assistant", "content": SUMS[1]}]},  # no prompt
    {"id": 3, "messages": None},
    # the same question twice is one tag, by its better score
    {"id": 4, "messages": [{"role": "user", "content": text} for text in (SUMS[50], "so: " + SUMS[50][:-7], "and")]},
]
PROMPTS = ["messages[role=user].content"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build([sums(1, "one"), sums(100)], RULES["fixed-8"], cap=1, cache=tmp_path_factory.mktemp("tagging"))


def tags(table: pa.Table) -> list[list[tuple[str, str]] | None]:
    """(eval, instance) of the tags that are whole copies, of each row."""
    return [
        None if held is None else [(tag["eval"], tag["instance"]) for tag in held if tag["score"] == 1.0]
        for held in table.column("contamination").to_pylist()
    ]


def test_rows_are_tagged_with_what_they_hold(index: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    tagged = Tagger(index, PROMPTS)(table)
    assert tagged.drop_columns("contamination").equals(table)
    assert tags(tagged) == [[("one", "0"), ("sums", "0")], [], [], [], [("sums", "50")]]
    names = [tag["instance"] for tag in tagged.column("contamination")[4].as_py()]
    assert len(names) == len(set(names))


def test_a_table_of_many_chunks_is_tagged_row_by_row(index: Path) -> None:
    whole = pa.Table.from_pylist(ROWS * 3)
    parts = pa.concat_tables([whole.slice(i, n) for i, n in ((0, 1), (1, 0), (1, 7), (8, 7))])
    assert tags(Tagger(index, PROMPTS)(parts)) == tags(Tagger(index, PROMPTS)(whole))
    assert tags(Tagger(index, PROMPTS)(whole.slice(0, 0))) == []


def test_common_phrases_acquit_where_that_is_asked_for(index: Path) -> None:
    """Question 0 stands in both evals, so with a cap of 1 all its words are common."""
    tagged = Tagger(index, PROMPTS, "capped")(pa.Table.from_pylist(ROWS))
    assert tagged.column("contamination")[0].as_py() == []


def test_a_row_that_cannot_be_read_has_no_tags_rather_than_none(index: Path) -> None:
    table = pa.table({"text": pa.array([7, 8])})
    assert tags(Tagger(index, ["text"])(table)) == [None, None]


def test_a_tagger_travels_by_where_its_index_stands(index: Path) -> None:
    again = pickle.loads(pickle.dumps(Tagger(index, PROMPTS, "capped", "held")))
    assert (again.index, again.by, again.column) == (index, "capped", "held")
    assert again.selection == Tagger(index, PROMPTS).selection


def test_a_column_that_is_there_is_not_written_over(index: Path) -> None:
    table = pa.table({"text": ["a"], "contamination": ["b"]})
    with pytest.raises(DecontamError, match="'contamination' is there already; name another with column=NAME"):
        Tagger(index, ["text"])(table)
    with pytest.raises(DecontamError, match="by is 'near'; expected 'exact' or 'capped'"):
        Tagger(index, ["text"], "near")  # type: ignore[arg-type]


def test_selectors_come_from_the_first_rows_or_must_fit_them() -> None:
    first = pa.Table.from_pylist(ROWS)
    assert select_from(first, []) == PROMPTS
    assert select_from(first, ["messages[*].content"]) == ["messages[*].content"]
    with pytest.raises(DecontamError, match=r"no row has text at 'txet'.*messages \(4\)"):
        select_from(first, ["txet"])
