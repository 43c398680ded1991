"""Labels of RLVR rows: each is checked by the verifier that its row names, before anything is trained."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from train_plugins.data.labels import label_problems

OLD = {"func_name": "validate_no_commas", "N": None}
NEW = [{"instruction_id": ["punctuation:no_comma"], "kwargs": [None]}]


@pytest.mark.parametrize(
    ("dataset", "label"),
    [
        ("gsm8k", "1,234"),
        ("math", r"\frac12"),
        *(("ifeval", form) for label in (OLD, NEW) for form in (label, json.dumps(label), repr(label))),
        ("ifeval_old", OLD),
        ("ifeval@all", NEW),
        ("rlvr_gsm8k@release", "5"),
        ("exact", "edah"),
        ("code", "assert f(1) == 2"),
        ("demo_reverse", "edah"),
        ("demo_reverse", {"question": "reverse hade", "answer": "edah"}),
        ("exact, demo_reverse", "edah"),  # both take it
    ],
)
def test_a_label_that_its_verifier_takes_has_no_problem(dataset: str, label: Any) -> None:
    assert label_problems(dataset, label, None) == []


@pytest.mark.parametrize(
    ("dataset", "label", "codes", "said"),
    [
        ("gsm-8k", "4", ["no_verifier"], "did you mean 'gsm8k'"),
        ("mmlu_mc", "A", ["no_verifier"], "no verifier named 'mmlu_mc'"),  # scored by log-likelihoods
        ("gsm8k", "four", ["bad_ground_truth"], "a text that holds a number for gsm8k"),
        ("gsm8k", "4 eggs", ["bad_ground_truth"], "a number and nothing else for gsm8k"),
        ("math", " ", ["bad_ground_truth"], "not blank for math"),
        ("ifeval", {**OLD, "N": 3}, ["bad_ground_truth"], "unknown argument 'N'"),
        ("ifeval", {"func_name": "validate_no_comma"}, ["bad_ground_truth"], "did you mean 'validate_no_commas'"),
        ("ifeval", [{**NEW[0], "kwargs": []}], ["bad_ground_truth"], "1 instruction ids but 0 kwargs"),
        ("ifeval_old", NEW, ["bad_ground_truth"], "func_name"),  # the old form alone
        ("demo_reverse", {"question": "q"}, ["bad_ground_truth"], "it has no 'answer'"),
        ("exact, rlvr_gsm8k", "edah", ["bad_ground_truth"], "for rlvr_gsm8k"),
        ("gsm8k, nothing_like_it", "four", ["bad_ground_truth", "no_verifier"], "a number for gsm8k"),
    ],
)
def test_a_label_or_name_that_cannot_be_used_is_told(dataset: str, label: Any, codes: list[str], said: str) -> None:
    problems = label_problems(dataset, label, None)
    assert [code for code, *_ in problems] == codes
    assert said in " ".join(problems[0][1:])


def test_names_of_a_recipe_are_known_and_take_any_text() -> None:
    known = frozenset({"ours"})
    assert label_problems("ours", "x", known) == []
    assert [code for code, *_ in label_problems("ours", " ", known)] == ["bad_ground_truth"]
    assert [code for code, *_ in label_problems("gsm8k", "4", known)] == ["no_verifier"]


def test_importing_the_checks_loads_nothing_heavy() -> None:
    heavy = "torch", "datasets", "numpy", "sympy", "evalsuite.sandbox", "evalsuite.verify.constraints"
    code = f"import sys, train_plugins.data.labels; sys.exit(sum(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
