"""AlpacaEval's two files are read as they are meant, and refused with what is wrong when they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import DataError
from evalsuite.verify.gamed import read_difficulties, read_gamed
from tests.evalsuite.verify.lc_oracle import made, write_gamed

ROWS = made(9).gamed  # two baselines on 150 instructions


def changed(change: Callable[[list[dict[str, Any]]], Any], path: Path) -> Path:
    rows = [dict(row) for row in ROWS]
    change(rows)
    return write_gamed(tuple(rows), path / "df_gamed.csv")


def test_difficulties_are_those_of_the_first_row_of_each_instruction(tmp_path: Path) -> None:
    path = changed(lambda rows: rows[150].update(instruction_difficulty=99.0), tmp_path)  # index 0 of the second one
    gamed = read_gamed(path)
    assert len(gamed.preference) == 300
    assert gamed.difficulties == {row["index"]: row["instruction_difficulty"] for row in ROWS[:150]}
    assert gamed.difficulty[150] == 99.0


def test_rows_without_a_preference_teach_nothing_but_keep_their_difficulty(tmp_path: Path) -> None:
    gamed = read_gamed(changed(lambda rows: rows[3].update(preference=""), tmp_path))
    assert (len(gamed.preference), len(gamed.difficulties)) == (299, 150)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: [row.pop("std_delta_len") for row in rows], "lacks std_delta_len; it has model, preference"),
        (lambda rows: rows[7].update(index=6), "index 6 is there twice for one model"),
        (lambda rows: rows.pop(7), "index 7 is missing for one model"),
        (lambda rows: rows.pop(), "index 149 is missing for one model"),
        (lambda rows: rows[7].update(preference=1.5), "a preference is not between 0 and 1"),
        (lambda rows: rows[7].update(std_delta_len="long"), "line 9: not numbers"),
        (lambda rows: rows[7].update(not_gamed_baseline=True), "not_gamed_baseline is not False in every row"),
        (lambda rows: rows.__delitem__(slice(150, None)), "1 models, expected 2 gamed baselines"),
    ],
)
def test_a_file_that_is_not_as_promised_is_refused(change: Callable[..., Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=why):
        read_gamed(changed(change, tmp_path))


def test_instruction_difficulties_are_read_by_position(tmp_path: Path) -> None:
    path = tmp_path / "instruction_difficulty.csv"
    path.write_text(",instruction_difficulty\n0,0.5\n1,-2\n")
    assert read_difficulties(path) == {0: 0.5, 1: -2.0}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (",d\n0,1\n0,2\n", "line 3: position 0 is there twice"),
        (",d\n0,1\n2,2\n", "index 1 is missing"),
        (",d\n0,hard\n", "line 2: .* expected a position and a difficulty"),
        (",d\n", "no rows"),
    ],
)
def test_difficulties_that_are_not_complete_are_refused(text: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "instruction_difficulty.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=why):
        read_difficulties(path)
