"""Constraints are drawn so that they can be met together, and an instruction that lost one is told."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from evalsuite.verify.constraints import IFEVAL_IDS, followed, row_problems
from evalsuite.verify.constraints.ifeval_answers import answer
from evalsuite.verify.constraints.ood import OOD_IDS
from train_plugins.data.persona_constraints import DRAWS, Dice, draw, draw_constraints, missing_marks, settled
from train_plugins.data.rows import check_row


def test_the_constraints_are_the_25_of_ifeval_and_none_of_the_unseen_52() -> None:
    assert set(DRAWS) == set(IFEVAL_IDS)
    assert not set(DRAWS) & set(OOD_IDS)
    assert len(OOD_IDS) == 52
    drawn = {one.id for i in range(300) for one in draw_constraints(Dice("all", i))}
    assert drawn == set(IFEVAL_IDS)


def test_constraints_that_are_drawn_together_can_be_met_together_and_are_stated_in_full() -> None:
    sizes: Counter[int] = Counter()
    for i in range(150):
        found = draw_constraints(Dice(3, i))
        text = "Say what a river is.\n" + "\n".join(one.words for one in found)
        assert missing_marks(text, found) == []
        known = settled(text, found)
        ids, kwargs = [one.id for one in known], [one.kwargs for one in known]
        assert list(row_problems(ids, kwargs)) == []
        assert [c for c in followed(answer(ids, kwargs), ids, kwargs, mode="strict") if not c.ok] == [], ids
        sizes[len(found)] += 1
    assert set(sizes) == {1, 2, 3}
    assert min(sizes.values()) > 30  # a third each


def test_an_instruction_that_lost_a_number_or_a_word_is_told_from_one_that_spells_it() -> None:
    bullets = draw("detectable_format:number_bullet_lists", Dice(0))
    n = str(bullets.kwargs["num_bullets"])
    word = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}[bullets.kwargs["num_bullets"]]
    assert missing_marks(f"Give me {word} bullet points.", [bullets]) == []
    assert missing_marks("Give me some bullet points.", [bullets]) == [n]
    assert missing_marks(f"Give me {n}5 bullet points.", [bullets]) == [n]


def test_the_first_line_is_what_is_to_be_repeated() -> None:
    repeat = draw("combination:repeat_prompt", Dice(0))
    assert settled("Say why.\nRepeat the first line.", [repeat])[0].kwargs == {"prompt_to_repeat": "Say why."}
    with pytest.raises(ValueError, match="no line of its own"):
        settled("Say why and repeat the first line.", [repeat])


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ([{"instruction_id": ["punctuation:no_comma"], "kwargs": [{}]}], None),
        ([{"instruction_id": ["punctuation:no_comma"], "kwargs": [None]}], None),
        ([{"instruction_id": ["punctuation:no_commas"], "kwargs": [{}]}], "did you mean 'punctuation:no_comma'"),
        ([{"instruction_id": ["punctuation:no_comma"], "kwargs": []}], "1 instruction ids but 0 kwargs"),
        ([{"instruction_id": "punctuation:no_comma", "kwargs": [{}]}], "a list of one object"),
        ([], "a list of one object"),
        ({"func_name": "validate_no_commas"}, None),
    ],
)
def test_a_label_of_several_constraints_is_checked(label: Any, found: str | None) -> None:
    messages = [{"role": "user", "content": "Say why."}]
    row = {"messages": messages, "ground_truth": json.dumps(label), "dataset": "ifeval"}
    problems = check_row(row, "rlvr")
    assert [code for code, *_ in problems] == ([] if found is None else ["bad_ground_truth"])
    assert found is None or found in problems[0][2]
