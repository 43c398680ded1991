"""The plainest reward: a response is right when it is the label, spaces around both aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalsuite.types import Score


def verify(response: str, row: Mapping[str, Any]) -> Score:
    said = response.strip()
    return Score(float(said == str(row["ground_truth"]).strip()), extracted=said)


def label_problem(label: Any) -> str:
    """What was expected, where the label is not it; else the empty string."""
    return "" if isinstance(label, str) and label.strip() else "a text that is not blank"
