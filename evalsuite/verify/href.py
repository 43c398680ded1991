"""HREF: win rates over the baseline with intervals, ranks of several models, agreement of a judge with people.

The rules are those of Alrope123/humanIF @395bdb6, precursor of allenai/href (`href/evaluation/evaluate.py`,
`calculate_human_agreement_rate.py`, `scripts/build_leaderboard.py`). Two differ: resamples are seeded, and where the
annotations have several modes the expectation over them is taken instead of a random draw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from evalsuite.errors import DataError
from evalsuite.verify.pairwise import TIE

TASKS = (
    "Generation",
    "Open QA",
    "Brainstorm",
    "Rewrite",
    "Summarize",
    "Classify",
    "Closed QA",
    "Extract",
    "Reasoning Over Numerical Data",
    "Multi-Document Synthesis",
    "Fact Checking or Attributed QA",
)
DEV_TASKS = TASKS[:8]  # those of the public split
AVERAGE = "Average"
N_RESAMPLES = 5000
SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Tally:
    """Judged rows by preference for the candidate (1 a win, 0.5 a tie, 0 a loss), and rows whose judgement failed."""

    counts: tuple[tuple[float, int], ...] = ()
    n_failed: int = 0

    @property
    def n(self) -> int:
        return sum(count for _, count in self.counts)

    @property
    def win_rate(self) -> float | None:
        """(wins + ties/2) over the judged rows; None when there are none."""
        return self._points() / self.n if self.n else None

    @property
    def win_rate_official(self) -> float | None:
        """The same over all rows: upstream counts a failed judgement as neither a win nor a tie."""
        rows = self.n + self.n_failed
        return self._points() / rows if rows else None

    def __add__(self, other: Tally) -> Tally:
        both = Counter(dict(self.counts)) + Counter(dict(other.counts))
        return Tally(tuple(sorted(both.items())), self.n_failed + other.n_failed)

    def _points(self) -> float:
        return sum(value * count for value, count in self.counts)


@dataclass(frozen=True, slots=True)
class Cell:
    """A win rate with its 95 % interval, over `n` judged rows."""

    value: float
    low: float
    high: float
    n: int

    @property
    def spread(self) -> str:
        """ "+x / -y" in percentage points, as the public leaderboard writes it."""
        return f"+{100 * (self.high - self.value):.1f} / -{100 * (self.value - self.low):.1f}"


@dataclass(frozen=True, slots=True)
class RankTable:
    """Several models side by side. `cells` and `ranks` are by model, then by column; models stand best first."""

    label: str
    columns: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Cell]]
    ranks: Mapping[str, Mapping[str, int]]


def key_of(task: str) -> str:
    """The form of a task's label in file and metric names."""
    return task.lower().replace(" ", "_")


def label_of(tasks: Iterable[str]) -> str:
    """`HREF` for all 11 tasks, else a name that cannot be taken for it."""
    found = set(tasks) & set(TASKS)
    if len(found) == len(TASKS):
        return "HREF"
    return f"href-dev ({len(found)} tasks)" if found <= set(DEV_TASKS) else f"href ({len(found)} of 11 tasks)"


def tally(values: Iterable[float | None]) -> Tally:
    """Counts preferences; None stands for a failed judgement."""
    counts = Counter(values)
    n_failed = counts.pop(None, 0)
    return Tally(tuple(sorted((float(v), n) for v, n in counts.items() if v is not None)), n_failed)


def tallies(judged: Iterable[tuple[str, float | None]]) -> dict[str, Tally]:
    """One Tally per task from (task, preference or None) of each row; tasks in the order of TASKS, only those there."""
    by_task: dict[str, list[float | None]] = {}
    for task, preference in judged:
        by_task.setdefault(task, []).append(preference)
    return {task: tally(by_task[task]) for task in TASKS if task in by_task}


def pooled(tasks: Mapping[str, Tally]) -> Tally:
    """All prompts of all tasks as one: the micro average."""
    return reduce(Tally.__add__, tasks.values(), Tally())


def macro(tasks: Mapping[str, Tally]) -> float | None:
    """The unweighted mean of the tasks' win rates; None when a task has no judged row."""
    rates = [t.win_rate for t in tasks.values()]
    known = [r for r in rates if r is not None]
    return sum(known) / len(known) if known and len(known) == len(rates) else None


def interval(tally: Tally, seed: int, n_resamples: int = N_RESAMPLES) -> tuple[float, float]:
    """Percentile bootstrap of the win rate, 2.5 and 97.5 points. Raises ValueError without judged rows.

    The win rate of a resample depends only on how often each preference was drawn, so those counts are drawn from a
    multinomial: the distribution of upstream's loop over rows, without the loop.
    """
    import numpy as np

    if not tally.n:
        raise ValueError("an interval over no judged rows does not exist")
    values, counts = np.array([v for v, _ in tally.counts]), np.array([c for _, c in tally.counts])
    # A fresh generator each time: a cell's interval must not depend on which other models are in the table.
    drawn = np.random.default_rng(seed).multinomial(tally.n, counts / tally.n, size=n_resamples)
    low, high = np.percentile(drawn @ values / tally.n, [2.5, 97.5])
    return float(low), float(high)


def cell(tally: Tally, seed: int, n_resamples: int = N_RESAMPLES) -> Cell | None:
    """A tally's win rate with its interval; None when nothing was judged."""
    value = tally.win_rate
    return None if value is None else Cell(value, *interval(tally, seed, n_resamples), tally.n)


def ranks(cells: Mapping[str, Cell]) -> dict[str, int]:
    """Rank by model: the best unranked model heads a group that takes in those after it whose interval overlaps the
    head's; the first that does not heads the next group, with its own position as rank (so 1, 1, 3).
    """
    order = sorted(cells, key=lambda model: cells[model].value, reverse=True)
    found: dict[str, int] = {}
    head, rank = None, 0
    for position, model in enumerate(order, 1):
        this = cells[model]
        if head is None or this.high < head.low or this.low > head.high:
            head, rank = this, position
        found[model] = rank
    return found


def rank_table(models: Mapping[str, Mapping[str, Tally]], seed: int, n_resamples: int = N_RESAMPLES) -> RankTable:
    """Models (name to tallies by task) side by side, with the micro average as last column.

    Raises DataError unless all models have the same tasks: a rank over different tasks compares nothing.
    """
    tasks = {model: tuple(t for t in TASKS if t in found) for model, found in models.items()}
    if len(set(tasks.values())) > 1:
        listed = "; ".join(f"{model}: {', '.join(found) or 'none'}" for model, found in tasks.items())
        raise DataError(f"the models were not judged on the same tasks ({listed}); score them on the same data")
    columns = (*next(iter(tasks.values()), ()), AVERAGE)
    cells = {model: _cells(found, columns, seed, n_resamples) for model, found in models.items()}
    by_column = {c: ranks({m: row[c] for m, row in cells.items() if c in row}) for c in columns}
    best_first = sorted(cells, key=lambda m: cells[m][AVERAGE].value if AVERAGE in cells[m] else -1.0, reverse=True)
    return RankTable(
        label_of(columns),
        columns,
        {m: cells[m] for m in best_first},
        {m: {c: by_column[c][m] for c in columns if m in by_column[c]} for m in best_first},
    )


def _cells(tasks: Mapping[str, Tally], columns: Sequence[str], seed: int, n_resamples: int) -> dict[str, Cell]:
    every = {**tasks, AVERAGE: pooled(tasks)}
    made = {column: cell(every[column], seed, n_resamples) for column in columns}
    return {column: found for column, found in made.items() if found is not None}


def export(table: RankTable) -> list[dict[str, Any]]:
    """The table as the public leaderboard's JSON: one object per model, rates 0 to 1.

    Task rates are rounded to 3 decimals, the average to 4; `<task>_rank` and `<task>_confi` stand beside each. A task
    without a judged row is left out.
    """
    return [_exported(model, row, table.ranks[model]) for model, row in table.cells.items()]


def _exported(model: str, row: Mapping[str, Cell], ranks: Mapping[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {"model": model}
    for column, this in row.items():
        key = key_of(column)
        found[key] = round(this.value, 4 if column == AVERAGE else 3)
        found |= {f"{key}_rank": ranks[column], f"{key}_confi": this.spread}
    return found


# -- agreement with people (allenai/href_preference) --


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean agreement over `n` rows: of each annotator with the others, and of the judge with all but one."""

    inner: float
    outer: float
    n: int


def agreement(rows: Sequence[Mapping[str, Any]], preferences: Sequence[float | None]) -> dict[str, Agreement]:
    """Agreement by task, and over all rows under `overall`. `preferences[i]` is the judge's for `output_a` of row i.

    None is a failed judgement, which agrees with nobody. Rows are matched by position: upstream looks verdicts up by
    instruction and generators, where duplicates collapse. Raises DataError for annotations other than 0, 1 and 2.
    """
    check_annotations(rows)
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row, preference in zip(rows, preferences, strict=True):
        annotations = list(row["annotations"])
        both = inner_agreement(annotations), outer_agreement(annotations, label_of_preference(preference))
        pairs.setdefault(str(row["category"]), []).append(both)
    by_task = {task: _mean(pairs[task]) for task in [*TASKS, *sorted(pairs.keys() - set(TASKS))] if task in pairs}
    return by_task | ({"overall": _mean([p for found in pairs.values() for p in found])} if pairs else {})


def inner_agreement(annotations: Sequence[int]) -> float:
    """How often an annotator agrees with the most frequent label of the others, averaged over the annotators."""
    return sum(_mode_is(_without(annotations, i), own) for i, own in enumerate(annotations)) / len(annotations)


def outer_agreement(annotations: Sequence[int], label: int | None) -> float:
    """How often a label agrees with the most frequent one of all annotators but one, averaged over who is left out."""
    return sum(_mode_is(_without(annotations, i), label) for i in range(len(annotations))) / len(annotations)


def label_of_preference(preference: float | None) -> int | None:
    """A preference in the annotators' labels: 1 for `output_a` (shown as candidate), 2 for `output_b`, 0 for a tie."""
    if preference is None:
        return None
    return 0 if preference == TIE else 1 if preference > TIE else 2


def pair_of(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A row of people's preferences as (response, document) of the benchmark: `output_a` against `output_b`."""
    doc = {name: row[name] for name in ("category", "instruction", "reference")}
    return str(row["output_a"]), {**doc, "output": row["output_b"], "generator": row["generator_b"]}


def check_annotations(rows: Iterable[Mapping[str, Any]]) -> None:
    """Raises DataError that lists the first rows whose annotations are not two or more of 0, 1 and 2."""
    bad = []
    for number, row in enumerate(rows):
        annotations = row.get("annotations")
        if not isinstance(annotations, list | tuple) or len(annotations) < 2 or not {0, 1, 2}.issuperset(annotations):
            bad.append(f"row {number}: annotations are {annotations!r:.60}")
    refuse(bad, "each row needs two or more annotations of 0 (tie), 1 (output_a) or 2 (output_b)")


def refuse(problems: Sequence[str], expected: str) -> None:
    """Raises DataError with the first 20 problems and their count; does nothing when there are none."""
    if problems:
        more = f"\n  … {len(problems)} rows in all" if len(problems) > SHOWN_PROBLEMS else ""
        listed = "".join(f"\n  {p}" for p in problems[:SHOWN_PROBLEMS])
        raise DataError(f"{len(problems)} rows cannot be used; {expected}{listed}{more}")


def _without(annotations: Sequence[int], i: int) -> list[int]:
    return [*annotations[:i], *annotations[i + 1 :]]


def _mode_is(others: Sequence[int], label: int | None) -> float:
    """The chance that a mode of `others`, drawn evenly from its modes, is the label."""
    counts = Counter(others)
    highest = max(counts.values())
    modes = [value for value, count in counts.items() if count == highest]
    return (label in modes) / len(modes)


def _mean(pairs: Sequence[tuple[float, float]]) -> Agreement:
    n = len(pairs)
    return Agreement(sum(inner for inner, _ in pairs) / n, sum(outer for _, outer in pairs) / n, n)
