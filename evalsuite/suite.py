"""Suites are data: which benchmarks make a table, at the settings of which regime, and what identifies them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from evalsuite.benchmark import Benchmark, _canonical, _sha256, find_benchmark, known_benchmarks, read_yaml
from evalsuite.errors import BenchmarkError, UsageError, did_you_mean
from evalsuite.regime import Regime, known_regimes, load_regime
from evalsuite.scorecard import SuiteRef, fold
from evalsuite.types import Split

FOLDER = Path(__file__).parent / "suites"
DEFAULT_REGIME = "tulu3@v5"  # the settings that the benchmark folders hold
KEYS = {"suite", "regime", "split", "columns", "published_columns", "aliases", "description"}


@dataclass(frozen=True)
class Suite:
    """Benchmarks in table order. `missing` are columns of the published suite for which no benchmark is shipped.

    `groups` are columns that average several benchmarks (`safety`): name to its benchmarks, which stand in `columns`
    too, each under its own name.
    """

    name: str
    regime: str
    split: Split
    columns: Mapping[str, Benchmark]
    missing: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] | None = None
    description: str = ""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """sha256 hex over the regime and every benchmark's digest: equal digests ask and grade alike."""
        return _sha256([self.name, self.regime, _canonical({c: b.digest for c, b in self.columns.items()})])

    @property
    def table(self) -> dict[str, str]:
        """Column to benchmark of the whole table: a group's benchmarks are one column."""
        return fold({c: b.name for c, b in self.columns.items()}, self.groups)

    def ref(self, scored: Sequence[str]) -> SuiteRef:
        """What a scorecard says of the suite when the columns `scored` were asked for."""
        columns = fold({c: b.name for c, b in self.columns.items() if c in scored}, self.groups)
        missing = tuple(c for c in [*self.table, *self.missing] if c not in columns)
        return SuiteRef(self.name, self.regime, self.digest, columns, missing, self.groups)

    def select(self, tasks: Sequence[str] | None) -> dict[str, Benchmark]:
        """Column to benchmark for the asked-for tasks (a column or a benchmark name each); all when None."""
        if tasks is None:
            return dict(self.columns)
        by_name = {name: (c,) for c, b in self.columns.items() for name in (b.name, c)} | dict(self.groups)
        unknown = [t for t in tasks if t not in by_name]
        if unknown:
            listed = "; ".join(
                f"no benchmark named {t!r} in suite {self.name!r}{did_you_mean(t, by_name)}" for t in unknown
            )
            raise UsageError(f"{listed} (see: evalsuite list)")
        chosen = {column for t in tasks for column in by_name[t]}
        return {c: b for c, b in self.columns.items() if c in chosen}


def known_suites() -> dict[str, Path]:
    return {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}


def load_suite(name: str, extra: Sequence[Path] = (), regime: str | None = None, quirks: bool = True) -> Suite:
    """A shipped suite by name, or a suite file by path; raises BenchmarkError listing every problem at once.

    `regime` is another version of the settings than the suite's own; without `quirks` its graders are repaired.
    """
    known = known_suites()
    path = known.get(name) or Path(name)
    if name not in known and not (path.suffix in {".yaml", ".yml"} and path.is_file()):
        raise UsageError(f"no suite named {name!r}{did_you_mean(name, known)} (see: evalsuite list)")
    return _read(path, extra, regime, quirks)


def adhoc_suite(
    tasks: Sequence[str], extra: Sequence[Path] = (), regime: str | None = None, quirks: bool = True
) -> Suite:
    """A suite of just these benchmarks, for `--tasks` without `--suite`; unseen as soon as one of them is."""
    settings = _regime(regime, None if quirks else DEFAULT_REGIME, quirks)
    _refuse_columns(tasks, extra)
    benchmarks = {t: _benchmark(t, extra, settings) for t in tasks}
    splits = [b.meta.split for b in benchmarks.values()]
    split = "unseen" if "unseen" in splits else splits[0]
    tag = settings.name if settings else "adhoc"
    return Suite(f"tasks:{'+'.join(tasks)}", tag, split, benchmarks, aliases=known_aliases())


def _refuse_columns(tasks: Sequence[str], extra: Sequence[Path]) -> None:
    """A column that is no benchmark (`safety`, `mmlu`) needs its suite; UsageError that says what to type."""
    known = known_benchmarks(extra)
    for suite, path in known_suites().items():
        columns = read_yaml(path)["columns"]
        named = [t for t in tasks if t in columns and t not in known]
        if named:
            raise UsageError(
                f"{named[0]!r} is a column of {suite}, no benchmark: --suite {suite} --tasks {','.join(tasks)}"
            )


def known_aliases() -> dict[str, tuple[str, ...]]:
    """Dataset ids under which a data root may hold what a benchmark reads, of all shipped suites."""
    listed = [read_yaml(path).get("aliases") or {} for path in known_suites().values()]
    return {key: tuple(names) for aliases in listed for key, names in aliases.items()}


def _read(path: Path, extra: Sequence[Path], regime_name: str | None = None, quirks: bool = True) -> Suite:
    raw = read_yaml(path)
    problems = [f"{path}: {k}: unknown key{did_you_mean(k, KEYS)}" for k in raw if k not in KEYS]
    problems += [f"{path}: {k} is missing" for k in ("suite", "regime", "split", "columns") if k not in raw]
    if raw.get("split", "development") not in get_args(Split):
        problems.append(f"{path}: split is {raw['split']!r}; use development, unseen or safety")
    regime = _regime(regime_name, raw.get("regime"), quirks)
    columns, groups, unknown = _columns(path, raw, regime, known_benchmarks(extra))
    if problems or unknown:
        raise BenchmarkError("\n".join([*problems, *unknown]))
    return Suite(
        raw["suite"],
        regime.name if regime else raw["regime"],
        raw["split"],
        {c: _benchmark(b, extra, regime) for c, b in columns.items()},
        tuple(c for c in raw.get("published_columns", ()) if c not in raw["columns"]),
        {k: tuple(v) for k, v in (raw.get("aliases") or {}).items()},
        raw.get("description", ""),
        groups,
    )


def _regime(named: str | None, own: str | None, quirks: bool) -> Regime | None:
    """The regime asked for, else the suite's own; None where a suite file of a user's has a tag without a file."""
    name = named or (own if own in known_regimes() else None)
    if name is not None:
        regime = load_regime(name)
        return regime if quirks else regime.without_quirks()
    near = did_you_mean(str(own), known_regimes()) if own else ""
    if near:
        raise BenchmarkError(f"no regime named {own!r}{near}; a tag of your own must not look like a shipped one")
    if not quirks:
        raise UsageError(f"--no-quirks needs a regime whose quirks are known, and {own!r} has no file (give --regime)")
    return None


def _columns(
    path: Path, raw: Mapping[str, Any], regime: Regime | None, known: Collection[str]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]], list[str]]:
    """Column to benchmark with groups spread out, the groups, and what is wrong with the columns."""
    suite = raw.get("suite", "")
    moved: Mapping[str, str] = regime.columns.get(suite, {}) if regime else {}
    without = regime.without.get(suite, ()) if regime else ()
    columns: dict[str, str] = {}
    groups: dict[str, tuple[str, ...]] = {}
    problems = []
    listed = raw.get("columns") or {}
    if not isinstance(listed, Mapping):
        return {}, {}, [f"{path}: columns: expected a mapping of column to benchmark, found {type(listed).__name__}"]
    for column, wanted in {**listed, **moved}.items():
        if column in without:
            continue
        members = _members(wanted)
        if members is not None:
            columns |= {b: b for b in members}
            groups[column] = members
        elif isinstance(wanted, str) and wanted in known:
            columns[column] = wanted
        else:
            near = did_you_mean(str(wanted), known)
            problems.append(f"{path}: columns.{column}: no benchmark named {wanted!r}{near}")
    twice = sorted(b for b, n in Counter(columns.values()).items() if n > 1)
    problems += [f"{path}: columns: benchmark {b!r} stands in two columns" for b in twice]
    return columns, groups, problems


def _members(wanted: Any) -> tuple[str, ...] | None:
    """The benchmarks of `{suite: NAME}`, when that is a suite of plain benchmarks; None for anything else."""
    if not isinstance(wanted, Mapping) or set(wanted) != {"suite"} or wanted["suite"] not in known_suites():
        return None
    inner = read_yaml(known_suites()[wanted["suite"]])["columns"].values()
    return tuple(inner) if all(isinstance(b, str) for b in inner) else None


def _benchmark(name: str, extra: Sequence[Path], regime: Regime | None) -> Benchmark:
    found = find_benchmark(name, extra)
    return regime.apply(found) if regime else found
