"""Suites are data: which benchmarks make a table, at the settings of which regime, and what identifies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from evalsuite.benchmark import Benchmark, _canonical, _sha256, find_benchmark, known_benchmarks, read_yaml
from evalsuite.errors import BenchmarkError, UsageError, did_you_mean
from evalsuite.scorecard import SuiteRef
from evalsuite.types import Split

FOLDER = Path(__file__).parent / "suites"
KEYS = {"suite", "regime", "split", "columns", "published_columns", "aliases", "description"}


@dataclass(frozen=True)
class Suite:
    """Benchmarks in table order. `missing` are columns of the published suite for which no benchmark is shipped yet."""

    name: str
    regime: str
    split: Split
    columns: Mapping[str, Benchmark]
    missing: tuple[str, ...] = ()
    aliases: Mapping[str, tuple[str, ...]] | None = None
    description: str = ""

    @cached_property
    def digest(self) -> str:
        """sha256 hex over the regime and every benchmark's digest: equal digests ask and grade alike."""
        return _sha256([self.name, self.regime, _canonical({c: b.digest for c, b in self.columns.items()})])

    def ref(self, scored: Sequence[str]) -> SuiteRef:
        """What a scorecard says of the suite when the columns `scored` were asked for."""
        missing = [c for c in self.columns if c not in scored] + list(self.missing)
        return SuiteRef(
            self.name,
            self.regime,
            self.digest,
            {c: b.name for c, b in self.columns.items() if c in scored},
            tuple(missing),
        )

    def select(self, tasks: Sequence[str] | None) -> dict[str, Benchmark]:
        """Column to benchmark for the asked-for tasks (a column or a benchmark name each); all when None."""
        if tasks is None:
            return dict(self.columns)
        by_name = {name: c for c, b in self.columns.items() for name in (b.name, c)}
        unknown = [t for t in tasks if t not in by_name]
        if unknown:
            listed = "; ".join(
                f"no benchmark named {t!r} in suite {self.name!r}{did_you_mean(t, by_name)}" for t in unknown
            )
            raise UsageError(f"{listed} (see: evalsuite list)")
        chosen = {by_name[t] for t in tasks}
        return {c: b for c, b in self.columns.items() if c in chosen}


def known_suites() -> dict[str, Path]:
    return {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}


def load_suite(name: str, extra: Sequence[Path] = ()) -> Suite:
    """A shipped suite by name, or a suite file by path; raises BenchmarkError listing every problem at once."""
    known = known_suites()
    path = known.get(name) or Path(name)
    if name not in known and not (path.suffix in {".yaml", ".yml"} and path.is_file()):
        raise UsageError(f"no suite named {name!r}{did_you_mean(name, known)} (see: evalsuite list)")
    return _read(path, extra)


def adhoc_suite(tasks: Sequence[str], extra: Sequence[Path] = ()) -> Suite:
    """A suite of just these benchmarks, for `--tasks` without `--suite`."""
    benchmarks = {t: find_benchmark(t, extra) for t in tasks}
    split = next(iter(benchmarks.values())).meta.split
    return Suite(f"tasks:{'+'.join(tasks)}", "adhoc", split, benchmarks)


def _read(path: Path, extra: Sequence[Path]) -> Suite:
    raw = read_yaml(path)
    problems = [f"{path}: {k}: unknown key{did_you_mean(k, KEYS)}" for k in raw if k not in KEYS]
    problems += [f"{path}: {k} is missing" for k in ("suite", "regime", "split", "columns") if k not in raw]
    columns: dict[str, Any] = raw.get("columns") or {}
    known = known_benchmarks(extra)
    for column, benchmark in columns.items():
        if benchmark not in known:
            problems.append(
                f"{path}: columns.{column}: no benchmark named {benchmark!r}{did_you_mean(benchmark, known)}"
            )
    if raw.get("split", "development") not in get_args(Split):
        problems.append(f"{path}: split is {raw['split']!r}; use development, unseen or safety")
    if problems:
        raise BenchmarkError("\n".join(problems))
    return Suite(
        raw["suite"],
        raw["regime"],
        raw["split"],
        {c: find_benchmark(b, extra) for c, b in columns.items()},
        tuple(c for c in raw.get("published_columns", ()) if c not in columns),
        {k: tuple(v) for k, v in (raw.get("aliases") or {}).items()},
        raw.get("description", ""),
    )
