"""What makes a reply a prompt or an answer: prefixes, final answers, code that does what its example says, doubles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from train_plugins.data.persona_checks import (
    Refused,
    check_code,
    check_grade_math,
    check_math,
    final_number,
    find_doubles,
    find_example,
    read_prompt,
)
from train_plugins.data.persona_constraints import Dice


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Math problem: How many?", "How many?"),
        ("  **Math Problem:**\n\nHow many?\n", "How many?"),
        ("Sure! Math problem: How many?", Refused("no_prefix")),
        ("How many?", Refused("no_prefix")),
        ("Math problem:", Refused("empty")),
    ],
)
def test_the_prefix_is_required_and_goes(reply: str, found: Any) -> None:
    assert read_prompt(reply, "Math problem:") == found


@pytest.mark.parametrize(
    ("check", "reply", "good"),
    [
        (check_math, "So.\nFinal Answer: The final answer is $3$. I hope it is correct.", True),
        (check_math, "So.\nFinal Answer: The final answer is $$. I hope it is correct.", False),
        (check_math, "The answer is 3.", False),
        (check_math, "Final Answer: The final answer is $3$. I hope it is correct.\nOr is it?", False),
        (check_grade_math, "2 and 2.\n#### 4", True),
        (check_grade_math, "2 and 2.\n#### $1,204.50", True),
        (check_grade_math, "2 and 2.\n#### four", False),
        (check_grade_math, "#### 3\nNo:\n#### 4", False),
        (check_grade_math, "2 and 2.\n#### 4 apples", False),
    ],
)
def test_math_must_end_in_a_final_answer(check: Callable[[str], Any], reply: str, good: bool) -> None:
    assert check(reply) == (reply if good else Refused("no_final_answer"))


def test_the_label_is_the_number_without_its_dress() -> None:
    assert final_number("so\n#### $1,204.50.") == "1204.50"
    assert final_number("#### -7") == "-7"


@pytest.mark.parametrize(
    ("line", "call", "value"),
    [
        ("Example: f(1) == 2", "f(1)", "2"),
        ("Example: `f([1, 'a'], k={2: None}) == (3, -4.5)`", "f([1, 'a'], k={2: None})", "(3, -4.5)"),
        ("Example: f(g(1)) == 2", None, None),
        ("Example: f(1) == open('x')", None, None),
        ("Example: __import__('os').system('x') == 0", None, None),
        ("Example: f(**{'a': 1}) == 2", None, None),
        ("Example: f(1) is 2", None, None),
        ("for example f(1) == 2", None, None),
    ],
)
def test_an_example_is_a_call_with_plain_values_or_none(line: str, call: str | None, value: str | None) -> None:
    found = find_example(f"Write f.\n{line}")
    assert (found and found.call, found and found.value) == (call, value)


FENCED = "```python\n{}\n```"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f(n):\n    return 2 * n", ""),
        ("import math\n\ndef f(n):\n    return math.floor(2 * n)", ""),
        ("def f(n):\n    return n", "example_fails"),
        ("def g(n):\n    return 2 * n", "example_fails"),
        ("def f(n):\n    while True: pass", "example_fails"),
        ("def f(n):\n    return 2 * n\n\nprint(f(4))", "not_one_function"),
        ("def f(n):\n    return g(n)\n\ndef g(n):\n    return 2 * n", "not_one_function"),
        ("def f(n:\n    return", "does_not_parse"),
        ("x = 3", "not_one_function"),
    ],
)
def test_code_is_one_function_that_does_what_the_example_says(
    monkeypatch: pytest.MonkeyPatch, code: str, found: str
) -> None:
    monkeypatch.setattr("train_plugins.data.persona_checks.CODE_S", 1.0)
    reply = FENCED.format(code)
    assert check_code(reply, "Write f.\nExample: f(4) == 8") == (Refused(found) if found else reply)


def test_code_without_an_example_need_only_parse() -> None:
    assert check_code("def f(n):\n    return n", "Write f.") == "def f(n):\n    return n"


def test_code_cannot_reach_this_process(tmp_path: Path) -> None:
    spy = f"def f(n):\n    open({str(tmp_path / 'x')!r}, 'w').write('here')\n    return 8"
    assert check_code(spy, "Example: f(4) == 8") == Refused("example_fails")
    assert list(tmp_path.iterdir()) == []


def test_doubles_are_found_in_the_order_of_the_rows() -> None:
    long = "A baker has twelve trays with thirty rolls on each and sells a third of them before noon."
    texts = [long, "Another text that is not like it.", f"  {long.upper()} ", long.replace("noon", "ten"), "", ""]
    assert list(find_doubles(texts)) == ["", "", "duplicate", "near_duplicate", "", "duplicate"]


def test_the_near_duplicates_found_are_those_of_comparing_all_with_all() -> None:
    from rapidfuzz import fuzz

    sentence = "the old man by the sea had seven boats and a net of blue rope that he mended at night in spring"
    known = sentence.split()
    texts, dice = [], Dice("near")
    for _ in range(60):
        changed = [dice.pick(known) if dice.below(20) == 0 else word for word in known]
        texts.append(" ".join(changed[: 10 + dice.below(11)]))
    expected: list[str] = []
    kept: list[str] = []
    for text in texts:
        near = any(fuzz.ratio(text, other) >= 95 for other in kept)
        expected.append("duplicate" if text in kept else "near_duplicate" if near else "")
        kept += [] if expected[-1] else [text]
    assert list(find_doubles(texts)) == expected
    assert expected.count("near_duplicate") > 5
