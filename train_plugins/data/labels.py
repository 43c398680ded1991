"""RLVR rows: the verifier is known, and takes the row's label."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from evalsuite.errors import EvalsuiteError, did_you_mean
from evalsuite.verify.rewards import OWN, find_reward, known_rewards

Check = Callable[[Any], str]
"""What was expected of a label, where it is not that; else the empty string."""


def label_problems(dataset: str, label: Any, verifiers: frozenset[str] | None) -> list[tuple[str, str, str]]:
    """no_verifier or bad_ground_truth. `verifiers` None: the reward verifiers and the benchmarks of evalsuite.

    A row may name several verifiers, with commas between them; each takes the label.
    """
    known = verifiers if verifiers is not None else known_verifiers()
    return [problem for name in dataset.split(",") for problem in _problems(name.strip(), label, known)]


def _problems(name: str, label: Any, known: frozenset[str]) -> Iterator[tuple[str, str, str]]:
    if name not in known:
        found = f"no verifier named {name!r}{did_you_mean(name, known)}"
        ours = ", ".join(sorted({*LABELS, *OWN}))
        yield "no_verifier", found, f"one of {ours}, or a benchmark (see: evalsuite list)"
        return
    try:
        check = check_of(name)
    except EvalsuiteError as error:
        yield "no_verifier", str(error), "a verifier of responses"
        return
    if expected := check(label):
        yield "bad_ground_truth", f"ground_truth is {label!r:.60}", f"{expected} for {name}"


@cache
def known_verifiers() -> frozenset[str]:
    return frozenset({*LABELS, *known_rewards()})


def check_of(name: str) -> Check:
    """The check of labels under a name: of the data of Tülu 3, of a reward verifier, or of a recipe (any text)."""
    if name in LABELS:
        return LABELS[name]
    return find_reward(name).label_problem if name in known_verifiers() else find_reward("exact").label_problem


def _of(name: str) -> Check:
    return lambda label: find_reward(name).label_problem(label)


def _constraints(label: Any) -> str:
    """Either form of a label: what is wrong with the one that it looks like."""
    old, new = find_reward("ifeval_old"), find_reward("ifeval")
    as_old, as_new = old.label_problem(label), new.label_problem(label)
    if not (as_old and as_new):
        return ""
    looks_new = isinstance(label, list) or (isinstance(label, str) and label.lstrip().startswith("["))
    return f"{as_new}, or an object with func_name" if looks_new else f"{as_old}, or a list as of ifeval"


# Names that rows of RLVR data carry; a recipe maps them to verifiers. In the data of Tülu 3 ifeval means the old form.
LABELS: Mapping[str, Check] = {"gsm8k": _of("rlvr_gsm8k"), "math": _of("rlvr_math"), "ifeval": _constraints}
