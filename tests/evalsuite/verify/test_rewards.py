"""Rewards by name: what each says of a response and of a label, and that neither changes the row."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import DataError, UsageError
from evalsuite.sandbox import SandboxError, require
from evalsuite.verify.hendrycks import same_text
from evalsuite.verify.math import judge_math
from evalsuite.verify.math_text import last_box, normalize
from evalsuite.verify.rewards import OWN, doc_of, find_reward, known_rewards
from evalsuite.verify.rlvr_code import last_block

HUB = Path(__file__).parents[4] / "shared" / "data" / "hub"


def row(label: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "1", "messages": [{"role": "user", "content": "q"}], "ground_truth": label, "dataset": "d", **fields}


def reward(name: str, response: str, label: Any) -> float:
    """The value, asked twice of one row that must not change."""
    once, before = row(label), row(copy.deepcopy(label))
    verifier = find_reward(name)
    first, second = verifier.verify(response, once), verifier.verify(response, once)
    assert first == second
    assert once == before
    return first.value


@pytest.mark.parametrize(
    ("response", "label", "keep", "release"),
    [
        ("so it is 18", "18", 1, 1),
        ("1,234 apples", "1234", 1, 1),
        ("1234 apples", "1,234", 1, 1),  # the label is read like the response
        ("2 and then 3", "2", 0, 0),  # the last one counts
        ("it is -5", "-5", 1, 0),  # the release reads 5
        ("it is -5", "5", 0, 1),
        ("7-3 = 7-3", "3", 1, 1),  # that minus is no sign
        ("it is 18.0", "18", 0, 0),
        ("it is 18.50.", "18.50", 1, 1),
        ("-2.5", "-2.5", 1, 1),
        ("$-2.50", "-2.50", 1, 1),
        ("no number", "18", 0, 0),
        ("", "18", 0, 0),
        ("the price is $1,000,000!", "1000000", 1, 1),
    ],
)
def test_gsm8k_is_the_last_number(response: str, label: str, keep: float, release: float) -> None:
    assert reward("rlvr_gsm8k", response, label) == keep
    assert reward("rlvr_gsm8k@release", response, label) == release


@pytest.mark.parametrize(
    ("response", "label", "value"),
    [
        (r"so \boxed{\frac{1}{2}}", r"\frac12", 1),  # Hendrycks
        (r"so \boxed{0.5}", r"\frac{1}{2}", 1),  # Hendrycks
        (r"so \boxed{\frac{3}{6}}", r"\frac{1}{2}", 1),  # sympy
        (r"so \boxed{1} or \boxed{2}", "1", 0),  # the last box counts
        (r"\boxed{3}. Final Answer: The final answer is $4$. I hope it is correct.", "4", 1),  # either counts
        (r"\boxed{3}. Final Answer: The final answer is $4$. I hope it is correct.", "3", 1),
        (r"\boxed{3}. Final Answer: The final answer is $4$. I hope it is correct.", "5", 0),
        (r"it is $x$, so $7$ it is", "7", 1),  # between the last two dollars
        (r"it is $7$ and \boxed{8}", "7", 0),  # which only count without a box
        ("7", "7", 1),  # everything
        ("the answer is 7", "7", 0),
        (r"\boxed{\left(1,2\right)}", "(1,2)", 1),  # as it is written; the normal form spoils \left
        (r"\boxed{12\text{ cm}}", "12", 1),
        (r"\boxed{3}", "3, 5, 7", 0),
        (r"\boxed{x+1}", "1+x", 1),
        (r"\boxed{}", "0", 0),
        ("", "x", 0),
        (" \n", r"\text{}", 0),  # blank, and so is the label's normal form
    ],
)
def test_math_takes_any_answer_by_either_equality(response: str, label: str, value: float) -> None:
    assert reward("rlvr_math", response, label) == value


def test_math_agrees_with_its_parts_on_the_rows_of_math_500() -> None:
    file = HUB / "HuggingFaceH4" / "MATH-500" / "default" / "test.jsonl"
    if not file.is_file():
        pytest.skip(f"no MATH-500 at {file}")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    verifier = find_reward("rlvr_math")
    labels = [last_box(each["solution"]) or "" for each in rows]
    assert not [label for label in labels if verifier.label_problem(label)]
    for each, label in zip(rows, labels, strict=True):
        said = f"Final Answer: The final answer is ${label}$. I hope it is correct."
        assert verifier.verify(each["solution"], row(label)).value == 1.0, label
        assert verifier.verify(said, row(label)).value == 1.0, label
    verdicts = set()
    for each, label in list(zip(rows, labels[1:], strict=False))[:25]:  # sympy is asked for each of them
        box, theirs = last_box(each["solution"]), judge_math(each["solution"], normalize(label))
        right = theirs.flex or same_text(box, label)
        assert verifier.verify(each["solution"], row(label)).value == float(right), label
        verdicts.add(right)
    assert False in verdicts


def test_gsm8k_takes_the_labels_and_solutions_of_its_training_rows() -> None:
    file = HUB / "openai" / "gsm8k" / "main" / "train.jsonl"
    if not file.is_file():
        pytest.skip(f"no GSM8K at {file}")
    answers = [json.loads(line)["answer"] for line in file.read_text(encoding="utf-8").split("\n") if line]
    verifier = find_reward("rlvr_gsm8k")
    labels = [answer.rpartition("####")[2].strip() for answer in answers]
    assert [label for label in labels if verifier.label_problem(label)] == []
    rejected = [a for a, label in zip(answers, labels, strict=True) if not verifier.verify(a, row(label)).value]
    assert rejected == []


@pytest.mark.parametrize(
    ("response", "label", "value"), [(" edah\n", "edah", 1), ("edah", " edah ", 1), ("Edah", "edah", 0), ("", "e", 0)]
)
def test_exact_is_the_label_itself(response: str, label: str, value: float) -> None:
    assert reward("exact", response, label) == value


TWO = [{"instruction_id": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, None]}]


@pytest.mark.parametrize(
    ("response", "share", "every"),
    [
        ("this is a plain english sentence without any marks", 1.0, 1.0),
        ("This is a plain english sentence without any marks", 0.5, 0.0),
        ("This is a plain english sentence, and it has a mark", 0.0, 0.0),
        ("<think>Well, well</think> this is a plain english sentence without any marks", 1.0, 1.0),
        ("", 0.0, 0.0),
    ],
)
def test_several_instructions_pay_by_share_or_only_together(response: str, share: float, every: float) -> None:
    for label in (TWO, json.dumps(TWO), repr(TWO), [json.dumps(TWO[0])]):
        assert reward("ifeval", response, label) == share
        assert reward("ifeval@all", response, label) == every


def test_ids_beyond_ifeval_are_refused_even_where_they_are_registered() -> None:
    import evalsuite.verify.constraints.ood  # noqa: F401  (registers the ids of the unseen suite)

    label = [{"instruction_id": ["count:numbers"], "kwargs": [{"N": 1}]}]
    assert "no instruction id 'count:numbers' to train on" in find_reward("ifeval").label_problem(label)
    with pytest.raises(DataError, match="to train on"):
        find_reward("ifeval").verify("one 1", row(label))


@pytest.mark.parametrize(
    ("name", "label", "problem"),
    [
        ("rlvr_gsm8k", "18", ""),
        ("rlvr_gsm8k", "-1,234.50", ""),
        ("rlvr_gsm8k", "four", "a text that holds a number"),
        ("rlvr_gsm8k", 4, "a text that holds a number"),
        ("rlvr_gsm8k", "4 eggs", "a text that holds a number and nothing else"),  # no response could equal it
        ("rlvr_gsm8k", "5.", "a text that holds a number and nothing else"),
        ("rlvr_math", r"\frac12", ""),
        ("rlvr_math", " ", "a text that is not blank"),
        ("rlvr_math", 2, "a text that is not blank"),
        ("exact", "x", ""),
        ("exact", None, "a text that is not blank"),
        ("ifeval", TWO, ""),
        ("ifeval", {"func_name": "validate_no_commas"}, "a list of one object"),
        ("ifeval", [], "a list of one object"),
        ("ifeval", "[", "a list of one object"),
        ("ifeval", [{"instruction_id": ["punctuation:no_comma"], "kwargs": [{"N": 1}]}], "unknown parameter 'N'"),
        ("ifeval", [{"instruction_id": ["copy:copy"], "kwargs": [{}]}], "punctuation:no_comma"),  # what there is
        ("ifeval_old", {"func_name": "validate_no_commas"}, ""),
        ("ifeval_old", TWO, "an object with func_name"),
        ("code", "assert f(1) == 2", ""),
        ("code", ["assert f(1) == 2", "assert f(2) == 3"], ""),
        ("code", '["assert f(1) == 2"]', ""),
        ("code", "assert True", "Python tests that call"),  # would pass whatever is written
        ("code", "assert f(", "Python tests that call"),
        ("code", "", "Python tests that call"),
        ("code", {"tests": 1}, "Python tests that call"),
        ("demo_reverse", "edah", ""),
        ("demo_reverse", {"question": "reverse hade", "answer": "edah"}, ""),
        ("demo_reverse", {"question": "reverse hade"}, "it has no 'answer'"),
        ("demo_reverse", '{"question": "reverse hade"}', "it has no 'answer'"),
        ("demo_reverse", "", "a document of demo_reverse"),
        ("demo_reverse", 3, "expected an object or a text"),
        ("gsm8k", "18", ""),
        ("gsm8k", "no number", "a document of gsm8k"),
        ("mbpp", "def f(): pass", "it has no 'code'"),
    ],
)
def test_a_label_problem_says_what_was_expected(name: str, label: Any, problem: str) -> None:
    found = find_reward(name).label_problem(label)
    assert problem in found
    assert bool(found) == bool(problem)


def test_a_benchmark_rewards_by_its_own_verifier() -> None:
    for label in ("edah", {"question": "reverse hade", "answer": "edah"}, '{"answer": "edah"}'):
        assert reward("demo_reverse", "edah ", label) == 1.0
        assert reward("demo_reverse", "edaa", label) == 0.0
    assert reward("gsm8k", "it is 18", "work #### 18") == 1.0
    assert find_reward("demo_reverse").benchmark == "demo_reverse"
    assert find_reward("ifeval").benchmark is None  # ours, not the benchmark of that name


def test_a_text_that_opens_like_an_object_and_is_none_is_a_text() -> None:
    assert doc_of("{1, 2}") == {"answer": "{1, 2}"}
    assert doc_of(' {"a": 1}') == {"a": 1}
    with pytest.raises(DataError, match="expected an object or a text"):
        doc_of(["a"])


def test_the_document_of_a_verifier_that_pops_is_not_the_row(tmp_path: Path) -> None:
    folder = tmp_path / "popping"
    folder.mkdir()
    (folder / "popping.yaml").write_text(
        "task: popping\ncustom_dataset: !function verify.dataset\ntest_split: test\nnum_fewshot: 0\n"
        "output_type: generate_until\ngeneration_kwargs: {until: [], max_gen_toks: 8}\n"
        "metadata: {split: development, chat: true, metric: exact_match, id: question}\n"
    )
    (folder / "verify.py").write_text(
        "from evalsuite.types import Score\n"
        "def verify(response, doc):\n    return Score(float(response == doc.pop('answer')))\n"
    )
    verifier, label = find_reward("popping", [tmp_path]), row({"answer": "x"})
    assert [verifier.verify("x", label).value for _ in range(2)] == [1.0, 1.0]
    assert label["ground_truth"] == {"answer": "x"}
    assert not verifier.cheap  # not a shipped one: it might do anything
    assert "popping" in known_rewards([tmp_path])


def test_which_are_cheap_and_which_run_code() -> None:
    facts = {name: find_reward(name) for name in ("demo_reverse", "gsm8k", "math", "mbpp", *OWN)}
    cheap = {name for name, each in facts.items() if each.cheap}
    assert cheap == {"demo_reverse", "gsm8k", "rlvr_gsm8k", "rlvr_gsm8k@release", "exact"}
    assert {name for name, each in facts.items() if each.runs_code} == {"mbpp", "code"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rlvr_gms8k", r"no reward verifier named 'rlvr_gms8k'; did you mean 'rlvr_gsm8k'\?; expected one of"),
        ("demo_revers", "did you mean 'demo_reverse'"),
        ("mmlu_mc", "'mmlu_mc' is no reward: it is scored by log-likelihoods"),
        ("xstest", "'xstest' is no reward: its responses are not verified by code alone"),
    ],
)
def test_a_name_that_is_no_reward_is_refused(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_reward(name)


def test_names_begin_with_ours_and_leave_out_what_cannot_reward() -> None:
    names = known_rewards()
    assert names[: len(OWN)] == tuple(OWN)
    assert {"gsm8k", "demo_reverse", "mbpp", "bbh"} < set(names)
    assert not {"mmlu_mc", "truthfulqa", "xstest", "alpaca_eval"} & set(names)
    assert len(set(names)) == len(names)


def test_importing_the_names_loads_no_verifier() -> None:
    heavy = "torch", "datasets", "numpy", "sympy", "yaml", "evalsuite.sandbox", "evalsuite.verify.constraints"
    code = f"import sys, evalsuite.verify.rewards; sys.exit(sum(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


# -- code --


@pytest.mark.parametrize(
    ("response", "block"),
    [
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1"),
        ("```\na\n```\nbetter:\n```py\nb\n```", "b"),
        ("```python\nx = 1\ny = 2", "x = 1\ny = 2"),  # cut before its end
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```\n```", ""),  # a new one was opened
    ],
)
def test_the_last_block_is_the_code(response: str, block: str) -> None:
    assert last_block(response) == block


@pytest.fixture(scope="module")
def _sandbox() -> None:
    try:
        require()
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("_sandbox")
@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("def f(x):\n    return x + 1", 1),
        ("def f(x):\n    return x + 2", 0),
        ("def g(x):\n    return x + 1", 0),
        ("import sys\nsys.exit(0)", 0),
        ("class Any:\n    def __eq__(self, other):\n        return True\ndef f(x):\n    return Any()", 0),
        ("def f(x:\n    return x + 1", 0),
        ("", 0),
    ],
)
def test_code_is_run_against_the_tests_of_its_label(code: str, value: float) -> None:
    tests = ["assert f(1) == 2", "assert f(-1) == 0"]
    assert reward("code", f"Like this:\n```python\n{code}\n```\nDone.", tests) == value


@pytest.mark.usefixtures("_sandbox")
def test_code_that_never_ends_is_wrong_and_no_error() -> None:
    found = find_reward("code").verify("```python\ndef f(x):\n    while True: pass\n```", row("assert f(1) == 2"))
    assert found.value == 0.0
    assert found.why


def test_a_label_without_tests_raises() -> None:
    with pytest.raises(DataError, match="holds no Python tests"):
        find_reward("code").verify("x", row({}))
