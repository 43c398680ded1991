"""The generated tasks of the demo ladder: rows, what is held out, and what counts as right."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pytest

from evalsuite.benchmark import find_benchmark
from evalsuite.checking import check_benchmark
from evalsuite.gate.reading import load_policy
from evalsuite.suite import load_suite
from evalsuite.verify.drawn import held_out, held_out_rows
from evalsuite.verify.rewards import find_reward

TRAINED = ("ladder_reverse", "ladder_sort", "ladder_copy", "ladder_format")
NAMES = (*TRAINED, "ladder_unseen")


def module(name: str) -> Any:
    return find_benchmark(name).module


@pytest.mark.parametrize("name", NAMES)
def test_five_hundred_different_questions_are_held_out_and_always_the_same(name: str) -> None:
    rows = module(name).test_rows()
    questions = [row["question"] for row in rows]
    assert (len(rows), len({*questions})) == (500, 500)
    assert all(held_out(q) for q in questions)
    assert module(name).test_rows() == rows


@pytest.mark.parametrize("name", NAMES)
def test_cases_and_golds_are_graded_as_written(name: str) -> None:
    assert check_benchmark(find_benchmark(name), ()).problems == ()


@pytest.mark.parametrize(
    ("name", "question", "answer"),
    [
        ("ladder_reverse", r"r[a-h]{3,4}\?", r"[a-h]{3,4}"),
        ("ladder_sort", r"s[a-h]{3,4}\?", r"a*b*c*d*e*f*g*h*"),
        ("ladder_copy", r"c([a-h]{2}[234]|[a-h]{3,4}2)\?", r"([a-h]{2,4})\1{1,3}"),
        (
            "ladder_format",
            r"F[a-h]{2,4}(\[|\^|[!.;]|\[[!.]|\^[.;])\?",
            r"\[[a-h]{2,4}\][!.]?|[A-H]{2,4}[.;]?|[a-h]{2,4}[!.;]",
        ),
    ],
)
def test_questions_and_answers_have_the_form_that_the_readme_tells(name: str, question: str, answer: str) -> None:
    for row in module(name).test_rows():
        assert re.fullmatch(question, row["question"]), row
        assert re.fullmatch(answer, row["answer"]), row


def test_no_answer_takes_more_tokens_than_a_response_may_have() -> None:
    longest = max(len(row["answer"]) for name in NAMES for row in module(name).test_rows())
    assert longest == 8  # a token a letter: "abcdabcd"; 12 tokens leave room for the end of the text
    assert {find_benchmark(n).tasks[0].config["generation_kwargs"]["max_gen_toks"] for n in NAMES} == {12}


def test_every_kind_of_unseen_constraint_is_one_that_format_never_asks() -> None:
    def marks_and_length(question: str) -> tuple[str, int]:
        word = question[1:-1].rstrip("[^!.;")
        return question[1 + len(word) : -1], len(word)

    rng, form = random.Random(0), module("ladder_format")
    trained = {marks_and_length(form.draw(rng)["question"]) for _ in range(3000)}
    assert len(trained) == 22  # five single marks about two lengths each, four pairs about three
    unseen = module("ladder_unseen").test_rows()
    assert {marks_and_length(row["question"]) for row in unseen} & trained == set()
    kinds = Counter(row["kind"] for row in unseen)
    assert kinds.keys() == {"two", "length", "order"}
    assert min(kinds.values()) > 130


@pytest.mark.parametrize(
    ("response", "answer", "parts"),
    [
        ("[ba]", "[ab]", {"letters": 1, "form": 1}),
        ("[ab", "[ab]", {"letters": 1, "form": 0}),
        ("[ab]!", "[ab]", {"letters": 1, "form": 0}),
        ("[aab]", "[ab]", {"letters": 0, "form": 1}),
        ("a[b]", "[ab]", {"letters": 1, "form": 0}),
        ("[a]b", "[ab]", {"letters": 1, "form": 0}),
        ("BA!", "AB!", {"letters": 1, "form": 1}),
        ("", "AB", {"letters": 0, "form": 0}),
    ],
)
def test_format_asks_for_the_constraint_and_all_letters_in_any_order(
    response: str, answer: str, parts: dict[str, float]
) -> None:
    for name in ("ladder_format", "ladder_unseen"):
        score = module(name).verify(response, {"answer": answer})
        assert (score.value, score.parts) == (parts["letters"] * parts["form"], parts)


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_task_is_a_cheap_reward_whose_label_is_the_answer(name: str) -> None:
    reward = find_reward(name)
    row = module(name).test_rows()[0]
    asked = {"messages": [], "dataset": name, "ground_truth": row["answer"]}
    assert reward.cheap
    assert reward.label_problem(row["answer"]) == ""
    assert reward.verify(f" {row['answer']}\n", asked).value == 1
    assert reward.verify(f"{row['answer']}a", asked).value == 0


def test_draws_are_held_out_by_their_question_alone() -> None:
    rows = held_out_rows(lambda rng: {"question": str(rng.randrange(10_000))}, "seed", 100)
    assert [held_out(row["question"]) for row in rows] == [True] * 100
    assert 0.22 < sum(held_out(str(n)) for n in range(10_000)) / 10_000 < 0.28  # one in four


def test_the_suites_keep_the_unseen_set_apart_and_the_policy_is_about_the_development_suite() -> None:
    suite, unseen = load_suite("ladder"), load_suite("ladder-unseen")
    assert [b.name for b in suite.columns.values()] == list(TRAINED)
    assert (suite.split, unseen.split) == ("development", "unseen")
    assert [b.name for b in unseen.columns.values()] == ["ladder_unseen"]
    assert load_policy("ladder", suite=suite).suite == "ladder"
