"""The reward for several instructions at once: the share of them that the response follows, strictly.

The label is a list of one object, `[{"instruction_id": […], "kwargs": […]}]`, or its text as JSON or a Python literal,
with IFEval's 25 ids (allenai/open-instruct @e6c3044aa, `IFEvalVerifier`; its 29 further training ids are refused).
With `aggregate` "all" the reward is 1 when all are followed, else 0. A blank response follows nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from evalsuite.errors import DataError, did_you_mean
from evalsuite.types import Score
from evalsuite.verify.constraints import IFEVAL_IDS, followed, row_problems
from evalsuite.verify.rlvr_text import parsed, prepared

EXPECTED = "a list of one object with instruction_id and kwargs, or its JSON"


def verify(response: str, row: Mapping[str, Any], aggregate: Literal["mean", "all"] = "mean") -> Score:
    """Raises DataError for a label that is none."""
    ids, kwargs = _instructions(row["ground_truth"])
    if foreign := next(_foreign(ids), ""):
        raise DataError(foreign)
    checks = followed(prepared(response), ids, kwargs, mode="strict")
    share = sum(check.ok for check in checks) / len(checks)
    why = "; ".join(f"{check.id}: {check.why}" for check in checks if not check.ok)
    return Score(share if aggregate == "mean" else float(share == 1.0), why=why)


def label_problem(label: Any) -> str:
    """What was expected, where the label is not it; else the empty string."""
    try:
        ids, kwargs = _instructions(label)
    except DataError:
        return EXPECTED
    problem = next((p for problems in (_foreign(ids), row_problems(ids, kwargs)) for p in problems), "")
    return f"constraints that can be checked ({problem})" if problem else ""


def _instructions(label: Any) -> tuple[list[str], list[Mapping[str, Any]]]:
    """The ids and their parameters; DataError where the label does not have that shape."""
    try:
        found = parsed(label)
        found = [parsed(each) for each in found] if isinstance(found, list) else found
    except ValueError:
        found = None
    if not (isinstance(found, list) and len(found) == 1 and isinstance(found[0], Mapping)):
        raise DataError(f"the label is {label!r:.60}; expected {EXPECTED}")
    ids, kwargs = found[0].get("instruction_id"), found[0].get("kwargs")
    if not isinstance(ids, list | tuple) or not isinstance(kwargs, list | tuple) or not ids:
        raise DataError(f"the label is {label!r:.60}; expected {EXPECTED}")
    if not all(isinstance(i, str) for i in ids) or not all(isinstance(given, Mapping | None) for given in kwargs):
        raise DataError(f"the label is {label!r:.60}; expected {EXPECTED}")
    return list(ids), [given or {} for given in kwargs]


def _foreign(ids: list[str]) -> Iterator[str]:
    """Other ids may be registered in this process, but those of IFEval-OOD belong to the unseen suite."""
    yield from (
        f"no instruction id {id!r} to train on{did_you_mean(id, IFEVAL_IDS)}; expected one of IFEval's 25: "
        f"{' '.join(IFEVAL_IDS)}"
        for id in ids
        if id not in IFEVAL_IDS
    )
