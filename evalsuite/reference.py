"""Published numbers as data (results/reference/*.csv): read them, find a model, say whether a score reproduces one.

None of them was measured here. `unconfirmed` marks what was read in secondary notes; it is shown and never relied on.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from evalsuite.errors import UsageError, did_you_mean
from evalsuite.scorecard import PARTIAL, Result, SuiteRef

AVERAGE = "average"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Published:
    """One number of a published table; `value` is 0 to 1 (the file has it ×100)."""

    table: str
    model: str
    size: str
    stage: str
    suite: str
    benchmark: str
    metric: str
    regime: str
    value: float
    source: str
    unconfirmed: bool
    note: str


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a reproduction may be off, 0 to 1; None with the reason in `not_comparable` where none can be judged."""

    benchmark: str
    kind: str
    tolerance: float | None
    not_comparable: str
    note: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a score says of a published one; `text` is "reproduced", "off by x" or "not comparable (reason)"."""

    outcome: Literal["reproduced", "off", "not comparable"]
    text: str


def find_reference(folder: Path | None = None) -> Path:
    """The folder of published tables: beside the scorecards, else ./results/reference; UsageError without one."""
    near = [folder, *folder.absolute().parents[:2]] if folder else []
    places = [*(place / "reference" for place in near), Path("results/reference")]
    found = next((place for place in places if (place / "published.csv").is_file()), None)
    if found is None:
        looked = ", ".join(dict.fromkeys(map(str, places)))
        raise UsageError(f"no published tables: published.csv is in none of {looked}; leave --reference out")
    return found


def read_published(folder: Path) -> tuple[Published, ...]:
    """All rows of published.csv; raises UsageError listing every bad row."""
    return _read(folder / "published.csv", _published)


def read_tolerances(folder: Path) -> dict[str, Tolerance]:
    """Benchmark to tolerance, from tolerance.csv; raises UsageError listing every bad row."""
    return {row.benchmark: row for row in _read(folder / "tolerance.csv", _tolerance)}


def pick(
    rows: Sequence[Published], models: Iterable[str], suite: SuiteRef, *, allow_mixed: bool = False
) -> tuple[tuple[Published, ...], ...]:
    """The rows of each named model that may stand beside scores of this suite and regime; letter case does not matter.

    "all" is every model with numbers of the regime (of any, when mixing is allowed). A model's numbers of the same
    regime are preferred; those of another need `allow_mixed`. Raises UsageError for an unknown model (with the near
    miss), for one without numbers on the suite, and for another regime, naming both.
    """
    of_suite: dict[str, list[Published]] = {}
    for row in rows:
        if row.suite == suite.name:
            of_suite.setdefault(row.model, []).append(row)
    every = {name: group for name, group in of_suite.items() if allow_mixed or any(_fits(r, suite) for r in group)}
    wanted: dict[str, None] = {}
    for name in models:
        if name == "all":
            if not every:
                raise UsageError(f"no published numbers on suite {suite.name!r} of regime {suite.regime}")
            wanted |= dict.fromkeys(every)
        else:
            wanted[_model(name, rows, suite, of_suite)] = None
    return tuple(_of_one_regime(of_suite[model], suite, allow_mixed) for model in wanted)


def _model(name: str, rows: Sequence[Published], suite: SuiteRef, of_suite: Collection[str]) -> str:
    known = {row.model.casefold(): row.model for row in rows}
    model = known.get(name.casefold())
    if model is None:
        raise UsageError(f"no published numbers of {name!r}{did_you_mean(name, known.values())} (or: all)")
    if model not in of_suite:
        suites = sorted({row.suite for row in rows if row.model == model})
        raise UsageError(f"no published numbers of {model!r} on suite {suite.name!r}, only on {', '.join(suites)}")
    return model


def _of_one_regime(rows: Sequence[Published], suite: SuiteRef, allow_mixed: bool) -> tuple[Published, ...]:
    same = tuple(row for row in rows if _fits(row, suite))
    if same:
        return same
    others = list(dict.fromkeys(row.regime for row in rows))
    if not allow_mixed:
        raise UsageError(
            f"the published numbers of {rows[0].model!r} are of regime {', '.join(others)}, the scorecards of "
            f"{suite.regime}: not comparable; --allow-mixed shows them with a mark"
        )
    return tuple(row for row in rows if row.regime == others[0])


def _fits(row: Published, suite: SuiteRef) -> bool:
    return row.suite == suite.name and row.regime == suite.regime


def incomplete(result: Result) -> str:
    """Why a result does not stand for its whole benchmark, in a few words; empty when it does."""
    return "; ".join(note for note in result.notes if PARTIAL.match(note))


def judge(
    result: Result | None,
    suite: SuiteRef,
    published: Published,
    tolerance: Tolerance | None,
    deviations: Collection[str] = (),
) -> Judgement:
    """Whether a measured benchmark reproduces a published number, and if that cannot be said, why.

    `deviations` are differences from the published settings that the scorecard admits; any of them makes the numbers
    not comparable (regime decision 4).
    """
    reason = _incomparable(result, suite, published, tolerance, deviations)
    if reason or result is None or result.value is None or tolerance is None or tolerance.tolerance is None:
        return Judgement("not comparable", f"not comparable ({reason})")
    off = result.value - published.value
    # Published numbers have one decimal, so half a unit of it is not the measurement's fault.
    if abs(off) <= tolerance.tolerance + 0.0005 + 1e-9:
        return Judgement("reproduced", "reproduced")
    return Judgement("off", f"off by {100 * off:+.1f}".replace("-", "−"))


def _incomparable(
    result: Result | None,
    suite: SuiteRef,
    published: Published,
    tolerance: Tolerance | None,
    deviations: Collection[str],
) -> str:
    if result is None or result.value is None:
        return "not scored"
    if published.suite != suite.name:
        return f"suite {suite.name}, published {published.suite}"
    if published.regime != suite.regime:
        return f"regime {suite.regime}, published {published.regime}"
    if published.metric != result.metric:
        return f"metric {result.metric}, published {published.metric}"
    if partial := incomplete(result):
        return partial
    if result.n_failed:
        return f"{result.n_failed} of {result.n_planned} samples failed"
    if deviations:
        return "; ".join(sorted(deviations))
    if tolerance is None:
        return "no tolerance in tolerance.csv"
    return tolerance.not_comparable


def _read(path: Path, parse: Callable[[dict[str, str]], T]) -> tuple[T, ...]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    rows, problems = [], []
    for number, line in enumerate(lines, start=2):
        try:
            rows.append(parse(line))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            problems.append(f"{path}, row {number}: {_why(error)}")
    if problems:
        raise UsageError("\n".join(problems))
    return tuple(rows)


def _why(error: Exception) -> str:
    return f"no column {error}" if isinstance(error, KeyError) else str(error)


def _published(line: dict[str, str]) -> Published:
    texts = ("table", "model", "size", "stage", "suite", "benchmark", "metric", "regime")
    fields = {name: line[name].strip() for name in texts}
    empty = [name for name in ("model", "suite", "benchmark", "regime") if not fields[name]]
    if empty:
        raise ValueError(f"{', '.join(empty)} is empty")
    value = _points(line["value"])
    return Published(**fields, value=value, source=line["source"], unconfirmed=_flag(line), note=line["note"])


def _tolerance(line: dict[str, str]) -> Tolerance:
    points = _points(line["tolerance"]) if line["tolerance"].strip() else None
    if points is None and not line["not_comparable"].strip():
        raise ValueError("tolerance is empty and not_comparable gives no reason")
    return Tolerance(line["benchmark"].strip(), line["kind"], points, line["not_comparable"].strip(), line["note"])


def _points(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:
        raise ValueError(f"{text!r} is not a number of points from 0 to 100")
    return value / 100


def _flag(line: dict[str, str]) -> bool:
    word = line["unconfirmed"].strip()
    if word not in {"true", "false"}:
        raise ValueError(f"unconfirmed is {word!r}; use true or false")
    return word == "true"
