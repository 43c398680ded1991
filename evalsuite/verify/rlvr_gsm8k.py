"""The reward for grade-school mathematics: the last number of a response is the label (Tülu 3, arXiv 2411.15124).

Thousands separators are deleted, in the label too, and numbers are compared as lower-cased text: `18.0` is not `18`.
A response without a number is compared as a whole. `sign`: "release" reads integers without their sign, as the code did
that trained Tülu 3, so `-5` is right where the label is 5; "keep" reads a sign that no number or bracket stands before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from evalsuite.types import Score
from evalsuite.verify.numbers import QUIRKS, last_number

Sign = Literal["keep", "release"]

_READING: Mapping[Sign, frozenset[str]] = {"keep": frozenset({"gsm8k-decimal-string"}), "release": QUIRKS}
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"[-+]?(?:\d*\.\d+|\d+)", re.ASCII)
_SEPARATOR = re.compile(r"(?<=\d),(?=\d)")


def verify(response: str, row: Mapping[str, Any], sign: Sign = "keep") -> Score:
    number = last_number(response, _READING[sign])
    answer = response if number is None else number
    return Score(
        float(answer.lower() == _plain(row["ground_truth"]).lower()),
        extracted=number,
        why="" if number is not None else "no number in the response",
    )


def label_problem(label: Any) -> str:
    """What was expected, where the label is none that a response can match; else the empty string."""
    if not isinstance(label, str) or not _DIGIT.search(label):
        return "a text that holds a number"
    return "" if _NUMBER.fullmatch(_plain(label)) else "a text that holds a number and nothing else"


def _plain(label: Any) -> str:
    return _SEPARATOR.sub("", str(label).strip())
