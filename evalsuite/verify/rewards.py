"""Reward verifiers by name: what a rollout's response is worth, by the label of its row.

    reward = find_reward("rlvr_gsm8k")
    reward.label_problem(row["ground_truth"])   "" or what was expected; ask before the first step
    reward.verify(text, row)                    a Score; pure, and the row is never changed

Besides the names of `OWN` every benchmark whose verify.py holds `verify(response, doc)` is one: the label is the doc,
as an object or as its JSON, or a text, which stands for `{"answer": text}`. A name that is in both means the reward.
Importing this loads no verifier.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite.errors import DataError, UsageError, did_you_mean
from evalsuite.types import Doc, Score

if TYPE_CHECKING:
    from evalsuite.benchmark import Benchmark


@dataclass(frozen=True, slots=True)
class RewardVerifier:
    """A verifier of rollouts. `verify` takes the response and the row with its `ground_truth`, and may raise.

    `label_problem` says what was expected where a label cannot be used, and the empty string where it can. `benchmark`
    is the benchmark whose verifier it is. `runs_code`: it executes what the model wrote, in the sandbox. `cheap`: it
    cannot hang and takes far less than a millisecond for a usual response, so no other process is needed for it.
    """

    name: str
    verify: Callable[[str, Mapping[str, Any]], Score]
    label_problem: Callable[[Any], str]
    benchmark: str | None = None
    runs_code: bool = False
    cheap: bool = False


@dataclass(frozen=True, slots=True)
class _Own:
    """Where a reward of ours is: a module of evalsuite.verify with `verify` and `label_problem`, and its options."""

    module: str
    options: Mapping[str, str] = field(default_factory=dict)
    runs_code: bool = False
    cheap: bool = False


OWN: Mapping[str, _Own] = {
    "rlvr_gsm8k": _Own("rlvr_gsm8k", cheap=True),
    "rlvr_gsm8k@release": _Own("rlvr_gsm8k", {"sign": "release"}, cheap=True),
    "rlvr_math": _Own("rlvr_math"),
    "ifeval_old": _Own("ifeval_old"),
    "ifeval": _Own("rlvr_ifeval"),
    "ifeval@all": _Own("rlvr_ifeval", {"aggregate": "all"}),
    "exact": _Own("rlvr_exact", cheap=True),
    "code": _Own("rlvr_code", runs_code=True),
}

# What compares text in linear time and starts nothing (exemplars are for prompts alone). A shipped benchmark whose
# verifier uses nothing else is cheap.
_CHEAP_MODULES = frozenset({"__init__", "drawn", "exemplars", "lmeval", "numbers", "text"})


def known_rewards(extra: Sequence[Path] = ()) -> tuple[str, ...]:
    """Our rewards, then the benchmarks that verify responses by code; `extra` are folders with more benchmarks.

    A benchmark with `verify` may still be refused by `find_reward`, which reads it.
    """
    from evalsuite.benchmark import known_benchmarks

    found = known_benchmarks(tuple(extra))
    return (*OWN, *sorted(name for name, folder in found.items() if name not in OWN and _may_verify(folder)))


def find_reward(name: str, extra: Sequence[Path] = ()) -> RewardVerifier:
    """The verifier of that name; raises UsageError with the near miss, or with why a benchmark cannot be a reward."""
    return _find(name, tuple(extra))


@cache
def _find(name: str, extra: tuple[Path, ...]) -> RewardVerifier:
    if name in OWN:
        return _own(name, OWN[name])
    from evalsuite.benchmark import known_benchmarks, read_benchmark

    folder = known_benchmarks(extra).get(name)
    if folder is not None:
        return _of_benchmark(read_benchmark(folder))
    near = did_you_mean(name, known_rewards(extra))
    raise UsageError(
        f"no reward verifier named {name!r}{near}; expected one of {', '.join(OWN)}, or a benchmark whose responses "
        "are verified by code (see: evalsuite list)"
    )


def _own(name: str, own: _Own) -> RewardVerifier:
    module = import_module(f"evalsuite.verify.{own.module}")
    verify = partial(module.verify, **own.options) if own.options else module.verify
    return RewardVerifier(name, verify, module.label_problem, runs_code=own.runs_code, cheap=own.cheap)


# -- the verifiers of benchmarks --


def _may_verify(folder: Path) -> bool:
    """Whether a benchmark's verify.py, unread, has what verifies a response: the log-likelihood ones have it too."""
    path = folder / "verify.py"
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    return "def verify(response" in text or "def verify(\n    response" in text or "\nverify = " in text


def _of_benchmark(benchmark: Benchmark) -> RewardVerifier:
    name, module, meta = benchmark.name, benchmark.module, benchmark.meta
    if benchmark.kind != "generate_until":
        raise UsageError(f"{name!r} is no reward: it is scored by log-likelihoods; use a benchmark with responses")
    if meta.judge or module is None or not hasattr(module, "verify"):
        raise UsageError(f"{name!r} is no reward: its responses are not verified by code alone")

    def verify(response: str, row: Mapping[str, Any]) -> Score:
        score: Score = module.verify(response, doc_of(row["ground_truth"]))
        return score

    problem = partial(_doc_problem, benchmark)
    return RewardVerifier(name, verify, problem, name, meta.runs_code, cheap=_is_cheap(benchmark))


def doc_of(label: Any) -> Doc:
    """The document that a label stands for, which belongs to the caller; DataError where it stands for none."""
    if isinstance(label, Mapping):
        return dict(label)
    if not isinstance(label, str):
        raise DataError(f"the label is {label!r:.60}; expected an object or a text")
    if label.lstrip().startswith("{"):
        try:
            found = json.loads(label)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict):
            return found
    return {"answer": label}


def _doc_problem(benchmark: Benchmark, label: Any) -> str:
    """What was expected, where a label is no document of the benchmark; found out with its own right response."""
    module: Any = benchmark.module
    expected = f"a document of {benchmark.name} as an object or its JSON, or the text of its field answer"
    if not (label if not isinstance(label, str) else label.strip()):
        return expected
    try:
        doc = doc_of(label)
        gold = module.gold_response(doc) if hasattr(module, "gold_response") else ""
        if not benchmark.meta.runs_code:
            module.verify(gold, doc)
        elif hasattr(module, "program"):
            module.program(gold, doc)
    except KeyError as error:
        return f"{expected} (it has no {error})"
    except Exception as error:
        return f"{expected} ({type(error).__name__}: {error})"
    return ""


def _is_cheap(benchmark: Benchmark) -> bool:
    from evalsuite.benchmark import benchmarks_folder

    if benchmark.folder.parent != benchmarks_folder() or benchmark.meta.runs_code:
        return False
    return {path.stem for path in benchmark.grader_modules} <= _CHEAP_MODULES
