"""Rewards of responses: which verifiers a row names, what they say, and when too many of them failed.

Verifiers of ours that are known to be cheap and pure are called in this process; all others in a pool of processes,
where a call that hangs or dies costs nobody but itself. The rows are never changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from evalsuite.errors import DataError, EvalsuiteError, UsageError
from train_plugins.rlvr.rollouts import Reward
from train_plugins.rlvr.verify_pool import Call, VerifyPool
from train_plugins.rlvr.verify_worker import FINDER, Answer, Setting, ask, load_finder

MOST_WORKERS = 8
MOST_INLINE = 50_000  # characters: a cheap verifier of a text that is longer is no longer cheap
CODE_TIMES = 6  # the sandbox times the model's program itself, and repeats it where the machine was too busy
SHOWN = 20

Dataset = str | Sequence[str]
Item = tuple[Dataset, str, Mapping[str, Any]]
"""A row's `dataset`, the text of a response without special tokens, the row."""


def names_of(dataset: Dataset, mapping: Mapping[str, str]) -> tuple[str, ...]:
    """The verifiers of a row: each name of its `dataset` (a list, or a text with commas) as the mapping has it."""
    if isinstance(dataset, str) and dataset in mapping:
        return _split(mapping[dataset])
    parts = _split(dataset) if isinstance(dataset, str) else [str(part) for part in dataset]
    return tuple(dict.fromkeys(name for part in parts for name in _split(mapping.get(part, part))))


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


# -- before the first step --


def check_rows(
    rows: Iterable[Mapping[str, Any]], mapping: Mapping[str, str], extra: Sequence[Path] = (), finder: str = FINDER
) -> None:
    """Refuses rows that no verifier could judge. `extra` are folders with benchmarks of the user's own.

    Raises UsageError for every unknown verifier with its near miss, DataError for labels that a verifier cannot use:
    how many, and the first rows.
    """
    known = _Known(mapping, extra, finder)
    nowhere: Counter[str] = Counter()
    first: dict[str, str] = {}
    labels: list[str] = []
    for target in mapping.values():
        nowhere.update({name: 0 for name in _split(target) if known.verifier(name) is None})
    for number, row in enumerate(rows):
        names = names_of(row["dataset"], mapping)
        if not names:
            labels.append(f"{_place(number, row)}: dataset is {row['dataset']!r}; expected the name of a verifier")
        for name in names:
            if known.verifier(name) is None:
                nowhere[name] += 1
                first.setdefault(name, _place(number, row))
            else:
                label = _row_for(name, names, row).get("ground_truth")
                if problem := known.verifier(name).label_problem(label):
                    labels.append(f"{_place(number, row)}: ground_truth is {label!r:.60}; {name} expects {problem}")
    unknown = [f"{known.why[name]}{_of_rows(n, first.get(name, ''))}" for name, n in nowhere.items()]
    if first and not extra:
        unknown[-1] += "; one of your own is found by options.benchmarks"
    if unknown:
        raise UsageError("\n".join([*unknown, *_shortened(labels)]))
    if labels:
        raise DataError("\n".join(_shortened(labels)))
    known.require_sandbox()


def _place(number: int, row: Mapping[str, Any]) -> str:
    return f"row {number + 1}" + (f" ({row['id']})" if "id" in row else "")


def _of_rows(n: int, first: str) -> str:
    return f" ({n} row{'s' * (n != 1)}, the first is {first})" if n else " (in options.verifiers)"


def _shortened(problems: Sequence[str]) -> list[str]:
    more = [f"and {len(problems) - SHOWN} more rows"] if len(problems) > SHOWN else []
    head = [f"{len(problems)} label{'s' * (len(problems) != 1)} that a verifier cannot use:"] if problems else []
    return [*head, *problems[:SHOWN], *more]


class _Known:
    """Verifiers by name, each looked for once; `why` there is none."""

    def __init__(self, mapping: Mapping[str, str], extra: Sequence[Path], finder: str) -> None:
        self.mapping, self.extra = mapping, tuple(extra)
        self.why: dict[str, str] = {}
        self.found: dict[str, Any] = {}
        self._find = load_finder(finder)

    def verifier(self, name: str) -> Any:
        """The verifier; None when there is none of that name."""
        if name not in self.found:
            try:
                self.found[name] = self._find(name, self.extra)
            except EvalsuiteError as error:
                self.found[name], self.why[name] = None, str(error)
        return self.found[name]

    def inline(self, name: str) -> bool:
        """Whether it is called in this process. Of benchmarks only ours may say that they are cheap."""
        return self.found[name].cheap and not self.found[name].runs_code

    def require_sandbox(self) -> None:
        """Raises SandboxError where model-written code would have to run and cannot be held."""
        if any(verifier.runs_code for verifier in self.found.values() if verifier is not None):
            from evalsuite.sandbox import Policy, require

            require(Policy())


# -- while training --


class Rewarder:
    """Verifies responses. `datasets` are the values that rows have under `dataset`, `timeout_s` is for one call.

    Raises UsageError, a line for each, for names that no verifier has. Close it, or use it in a `with`.
    """

    def __init__(
        self, mapping: Mapping[str, str], datasets: Iterable[Dataset], *, workers: int | None = None,
        timeout_s: float = 10.0, extra: Sequence[Path] = (), finder: str = FINDER,
    ) -> None:  # fmt: skip
        self._mapping, self._known = mapping, _Known(mapping, extra, finder)
        names = tuple(dict.fromkeys(name for each in datasets for name in names_of(each, mapping)))
        unknown = [name for name in names if self._known.verifier(name) is None]
        if unknown:
            raise UsageError("\n".join(self._known.why[name] for name in unknown))
        self._known.require_sandbox()
        self._inline = {name: self._known.found[name].verify for name in names if self._known.inline(name)}
        self._limits = {n: timeout_s * (CODE_TIMES if self._known.found[n].runs_code else 1) for n in names}
        self._setting = Setting(names, tuple(map(str, extra)), finder, max(self._limits.values(), default=timeout_s))
        self._workers, self._pool = workers, None if len(self._inline) == len(names) else self._start(workers)

    def submit(self, items: Sequence[Item]) -> Verifying:
        """Begins to verify; what is slow goes on by itself until `result()` is asked for."""
        answers: dict[tuple[int, str], Answer] = {}
        calls: list[Call] = []
        places: list[tuple[int, str]] = []
        for number, (dataset, text, row) in enumerate(items):
            names = names_of(dataset, self._mapping)
            for name in names:
                own = _row_for(name, names, row)
                if name in self._inline and len(text) <= MOST_INLINE:
                    answers[number, name] = ask(self._inline[name], text, own)
                else:
                    calls.append(Call(name, text, own, self._limits[name]))
                    places.append((number, name))
        if calls and self._pool is None:
            self._pool = self._start(self._workers)
        slow = self._pool.submit(calls) if self._pool is not None and calls else None
        return Verifying(len(items), answers, tuple(places), slow)

    def __call__(self, items: Sequence[Item]) -> list[Reward]:
        return self.submit(items).result()

    def close(self) -> None:
        """Ends the processes of the pool."""
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> Rewarder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, workers: int | None) -> VerifyPool:
        from evalsuite.models.cores import usable_cores

        return VerifyPool(self._setting, workers or min(MOST_WORKERS, usable_cores()))


def _row_for(name: str, names: Sequence[str], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row as one of several verifiers sees it: of as many labels as there are verifiers each gets its own."""
    label = row.get("ground_truth")
    if len(names) > 1 and isinstance(label, list | tuple) and len(label) == len(names):
        return {**row, "ground_truth": label[names.index(name)], "dataset": name}
    return row


@dataclass(frozen=True, slots=True)
class Verifying:
    """Responses that are being verified."""

    n: int
    known: dict[tuple[int, str], Answer]
    places: tuple[tuple[int, str], ...]
    slow: Future[list[Answer]] | None

    def done(self) -> bool:
        return self.slow is None or self.slow.done()

    def result(self) -> list[Reward]:
        """The rewards in the order of the items; waits for them. Raises UsageError when the pool cannot work."""
        found = dict(self.known)
        if self.slow is not None:
            found |= zip(self.places, self.slow.result(), strict=True)
        by_item: list[dict[str, Answer]] = [{} for _ in range(self.n)]
        for (number, name), answer in found.items():
            by_item[number][name] = answer
        return [_reward(answers) for answers in by_item]


def _reward(answers: Mapping[str, Answer]) -> Reward:
    """With several verifiers `why` says of whom it speaks."""
    values = {name: answer.value for name, answer in answers.items()}
    whys = {name: answer.why for name, answer in answers.items() if answer.why}
    told = "; ".join(whys.values() if len(answers) == 1 else (f"{name}: {why}" for name, why in whys.items()))
    return Reward(values, told, any(answer.failed for answer in answers.values()))


# -- what failed --


def error_share(rewards: Sequence[Reward]) -> float:
    """The share of responses of which a verifier failed, 0 to 1; 0 for none."""
    return sum(reward.failed for reward in rewards) / len(rewards) if rewards else 0.0


def refuse_errors(rewards: Sequence[Reward], most: float) -> None:
    """Raises UsageError when more than the share `most` of the responses has no verdict."""
    if error_share(rewards) <= most:
        return
    raise UsageError(
        f"verifiers failed on {error_share(rewards):.1%} of {len(rewards)} responses (at most {most:.1%}, "
        f"options.max_verifier_errors): {failures_told(rewards)}"
    )


def failures_told(rewards: Sequence[Reward]) -> str:
    """Which verifiers failed, how often, and why first; empty where none did."""
    return "; ".join(f"{name} {n} times, the first: {why}" for name, (n, why) in _failures(rewards).items())


def _failures(rewards: Sequence[Reward]) -> dict[str, tuple[int, str]]:
    """Verifiers, or those of one response together: how often they failed, and the first reason."""
    found: dict[str, tuple[int, str]] = {}
    for name, why in _failed(rewards):
        n, first = found.get(name, (0, why))
        found[name] = (n + 1, first)
    return found


def _failed(rewards: Sequence[Reward]) -> Iterator[tuple[str, str]]:
    for reward in rewards:
        if reward.failed:
            yield " and ".join(reward.values), reward.why
