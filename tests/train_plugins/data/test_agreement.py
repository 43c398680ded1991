"""A judge against people's choices: ties and failures are counted apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import DataError
from evalsuite.types import Response
from tests.train_plugins.data.judging import FAILED, as_json, instruction_in, texts_in
from tests.train_plugins.data.preferring import World
from train_plugins.data.agreement import Agreement, measure_agreement, read_judged
from train_plugins.data.preferences import grading_of


def judged(n: int) -> list[dict[str, Any]]:
    """Rows whose better output says "good"; it is output 1 in even rows."""
    rows = []
    for i in range(n):
        good, bad = f"good {i}", f"bad {i}"
        first = i % 2 == 0
        texts = {"output_1": good if first else bad, "output_2": bad if first else good}
        rows.append({"input": f"q {i}", **texts, "label": 1 if first else 2, "subset": "even" if first else "odd"})
    return rows


def test_agreement_is_counted_by_subset_with_ties_and_failures_apart(tmp_path: Path) -> None:
    def said(question: str) -> str | Response:
        number = int(instruction_in(question).split()[1])
        if number == 0:
            return as_json(dict.fromkeys(texts_in(question), 3))  # a tie
        if number == 2:
            return FAILED
        right = number not in (4, 5)
        return as_json({n: 5 if t.startswith("good") == right else 1 for n, t in texts_in(question).items()})

    world = World(tmp_path)
    world.judge.say = said
    found = measure_agreement(judged(10), grading_of(world.file(), world.judge.engine(), tmp_path / "j"))
    assert found["all"] == Agreement(10, 6, 2, 1, 1)
    assert found["even"] == Agreement(5, 2, 1, 1, 1)
    assert found["odd"] == Agreement(5, 4, 1, 0, 0)
    assert found["all"].share == 6 / 8
    # Wilson, p 0.75, n 8, z 1.95996: (0.75 + z²/16 ± z √(0.1875/8 + (z/16)²)) / (1 + z²/8)
    # = (0.990091 ± 0.384290) / 1.480182
    assert found["all"].interval == pytest.approx((0.409275, 0.928521), abs=1e-5)


def test_a_judge_that_prefers_the_first_it_sees_agrees_by_chance(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.judge.say = lambda question: as_json({1: 5, 2: 1})
    found = measure_agreement(judged(200), grading_of(world.file(), world.judge.engine(), tmp_path / "j"))
    low, high = found["all"].interval or (0, 0)
    assert low < 0.5 < high


def test_no_decided_row_has_no_share() -> None:
    assert Agreement(2, 0, 0, 1, 1).as_json() == {
        "n": 2, "agree": 0, "disagree": 0, "ties": 1, "failed": 1, "agreement": None, "low": None, "high": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"input": "q", "output_1": "a", "label": 1}, "no output_2"),
        ({"input": "q", "output_1": "a", "output_2": "b", "label": 3}, "label is 3"),
        ({"input": "q", "output_1": "a", "output_2": 4, "label": 1}, "output_2 is no text"),
        ([], "no object"),
    ],
)
def test_a_file_without_choices_is_refused(tmp_path: Path, row: Any, why: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(json.dumps(judged(1)[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"j\.jsonl:2: .*{why}"):
        read_judged(path)
