"""RLVR rows: the verifier is known, and takes the row's label."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from evalsuite.errors import did_you_mean

_NUMBER = re.compile(r"\d")


def label_problems(dataset: str, label: Any, verifiers: frozenset[str] | None) -> list[tuple[str, str, str]]:
    """no_verifier or bad_ground_truth. `verifiers` None: the reward verifiers and the benchmarks of evalsuite."""
    known = verifiers if verifiers is not None else known_verifiers()
    if dataset not in known:
        found = f"no verifier named {dataset!r}{did_you_mean(dataset, known)}"
        return [("no_verifier", found, f"one of {', '.join(sorted(LABELS))}, or a benchmark (see: evalsuite list)")]
    expected = LABELS.get(dataset, _text)(label)
    return [("bad_ground_truth", f"ground_truth is {label!r:.60}", f"{expected} for {dataset}")] if expected else []


@cache
def known_verifiers() -> frozenset[str]:
    from evalsuite.benchmark import known_benchmarks

    return frozenset({*LABELS, *known_benchmarks()})


def _text(label: Any) -> str:
    """What is expected, where the label is not it; else the empty string."""
    return "" if isinstance(label, str) and label.strip() else "a text that is not blank"


def _number(label: Any) -> str:
    return "" if isinstance(label, str) and _NUMBER.search(label) else "a text that holds a number"


def _constraints(label: Any) -> str:
    """`{"func_name": …, arguments}` as in the data of Tülu 3, or `[{"instruction_id": […], "kwargs": […]}]` with ids of
    IFEval; either may be its JSON."""
    expected = "an object with func_name, or a list of one object with instruction_id and kwargs, or the JSON of either"
    if isinstance(label, str):
        try:
            label = json.loads(label)
        except ValueError:
            return expected
    if isinstance(label, Mapping):
        return "" if isinstance(label.get("func_name"), str) else expected
    if not (isinstance(label, list) and len(label) == 1 and isinstance(label[0], Mapping)):
        return expected
    ids, kwargs = label[0].get("instruction_id"), label[0].get("kwargs")
    if not (isinstance(ids, list) and isinstance(kwargs, list) and all(isinstance(k, Mapping | None) for k in kwargs)):
        return expected
    return next(_unknown(ids, kwargs), "")


def _unknown(ids: list[Any], kwargs: list[Any]) -> Iterator[str]:
    from evalsuite.verify.constraints import row_problems

    yield from (f"constraints that can be checked ({problem})" for problem in row_problems(ids, kwargs))


# Names that rows of RLVR data carry; a recipe maps them to verifiers.
LABELS: Mapping[str, Callable[[Any], str]] = {"gsm8k": _number, "math": _text, "ifeval": _constraints}
