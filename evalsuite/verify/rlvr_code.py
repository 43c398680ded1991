"""The reward for code: the last code block of a response passes the tests that are the label.

The label is Python (asserts), as one text or a list of texts. The response's code runs in evalsuite.sandbox alone,
apart from the tests: nothing that it does to itself makes it pass. A response without a block is taken as code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalsuite.errors import DataError
from evalsuite.types import Score
from evalsuite.verify import code
from evalsuite.verify.rlvr_text import BLANK, parsed

TIMEOUT_S = 3.0  # of a program; the machine may make it wait longer for a core


def verify(response: str, row: Mapping[str, Any]) -> Score:
    """Raises DataError for a label that holds no tests, SandboxError where nothing isolates the code."""
    tests = _tests(row["ground_truth"])
    if tests is None:
        raise DataError(f"the label {row['ground_truth']!r:.60} holds no Python tests; expected asserts")
    written = last_block(response)
    if not written.strip():
        return Score(0.0, why=BLANK)
    calls, _ = code.wanted_names(tests, "")
    [score] = code.run([code.Program(written, TIMEOUT_S, tests=tests, calls=calls)])
    return score


def last_block(response: str) -> str:
    """The inside of the last code fence, which a cut response need not close; the whole response without any."""
    block: list[str] | None = None
    inside = False
    for line in response.split("\n"):
        if line.lstrip().startswith(code.FENCE):
            inside = not inside
            block = [] if inside else block
        elif inside and block is not None:
            block.append(line)
    return response if block is None else "\n".join(block)


def label_problem(label: Any) -> str:
    """What was expected, where the label is not it; else the empty string."""
    expected = "Python tests that call what the response has to define, as a text or a list of texts"
    tests = _tests(label)
    if tests is None:
        return expected
    try:
        calls, _ = code.wanted_names(tests, "")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{expected} ({error})"
    return "" if calls else expected


def _tests(label: Any) -> str | None:
    if isinstance(label, str) and label.lstrip().startswith("["):
        try:
            label = parsed(label)
        except ValueError:
            return None
    lines = [label] if isinstance(label, str) else label
    if not isinstance(lines, list | tuple) or not all(isinstance(line, str) for line in lines):
        return None
    tests = "\n".join(lines).replace("\r\n", "\n")
    return tests if tests.strip() else None
