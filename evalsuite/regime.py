"""Regimes are data: at which settings a benchmark is asked and graded in one version of the published evaluation.

A regime file has one entry for each benchmark, complete: reading it tells what is asked without reading any code. The
benchmark folders hold the same settings for stock lm-eval; where a regime differs from the folder, the regime counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from evalsuite.benchmark import Benchmark, read_yaml, with_settings
from evalsuite.errors import BenchmarkError, UsageError, did_you_mean
from evalsuite.scorecard import Aggregate

FOLDER = Path(__file__).parent / "suites" / "regimes"
KEYS = {"regime", "description", "extends", "benchmarks", "columns", "without", "unconfirmed"}
SUBKEYS = {
    "dataset": ("id", "config", "split", "revision"),
    "shots": ("n", "source", "seed", "ids", "split"),
    "sampling": ("do_sample", "temperature", "top_p", "repeats"),
    "aggregate": ("kind", "over"),
    "upstream": ("repo", "commit", "path", "spec"),
}
NEEDED = {"dataset": ("id", "split"), "shots": ("n",), "aggregate": ("kind",)}
NO_QUIRKS = "/noquirks"
GENERATES = ("stops", "max_gen_toks", "sampling")


@dataclass(frozen=True, slots=True)
class Entry:
    """How one benchmark is asked and graded. None means that the setting does not apply (no judge, no prefill).

    `prompt` names another wording of the same benchmark (`doc_to_text_<prompt>` of its verify.py), `extraction` another
    way of reading its answers, `metric` the number that goes into the table. `unconfirmed` lists fields, and facts such
    as "n_expected", that were read in secondary notes only.
    """

    task: str
    dataset: Mapping[str, Any]
    chat: bool
    shots: Mapping[str, Any]
    metric: str
    aggregate: Mapping[str, Any]
    n_expected: int | None = None
    multiturn: bool = False
    prefill: str | None = None
    stops: tuple[str, ...] | None = None
    max_gen_toks: int | None = None
    truncate_context: bool | None = None
    sampling: Mapping[str, Any] | None = None
    prompt: str | None = None
    extraction: str | None = None
    quirks: tuple[str, ...] = ()
    judge: str | None = None
    upstream: Mapping[str, str] | None = None
    unconfirmed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Regime:
    """One version of the published evaluation.

    `columns` says, suite by suite, where a column is another benchmark than usual; `without` which columns it lacks.
    """

    name: str
    description: str
    benchmarks: Mapping[str, Entry]
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unconfirmed: tuple[str, ...] = ()

    def apply(self, benchmark: Benchmark) -> Benchmark:
        """The benchmark at this regime's settings; as it is when the regime says nothing of it."""
        entry = self.benchmarks.get(benchmark.name)
        if entry is not None:
            return _applied(self.name, benchmark, entry)
        return _repaired(benchmark) if self.name.endswith(NO_QUIRKS) else benchmark

    def without_quirks(self) -> Regime:
        """The same regime with every grader's quirks repaired, under a name of its own."""
        repaired = {name: replace(entry, quirks=()) for name, entry in self.benchmarks.items()}
        return replace(self, name=f"{self.name}{NO_QUIRKS}", benchmarks=repaired)


def known_regimes() -> dict[str, Path]:
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load_regime(name: str) -> Regime:
    """A shipped regime by name, or a regime file by path; raises BenchmarkError with every problem of the file.

    Raises UsageError with the near miss for an unknown name.
    """
    known = known_regimes()
    path = known.get(name) or Path(name)
    if name not in known and not (path.suffix in {".yaml", ".yml"} and path.is_file()):
        raise UsageError(f"no regime named {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return _read(path)


@cache
def _read(path: Path) -> Regime:
    raw = read_yaml(path)
    problems = [f"{path}: {key}: unknown key{did_you_mean(key, KEYS)}" for key in raw if key not in KEYS]
    problems += [f"{path}: {key} is missing" for key in ("regime", "benchmarks") if key not in raw]
    if problems:
        raise BenchmarkError("\n".join(problems))
    if not isinstance(raw["benchmarks"], Mapping):
        raise BenchmarkError(f"{path}: benchmarks: expected a mapping of benchmark to settings")
    base = load_regime(raw["extends"]) if raw.get("extends") else None
    entries: dict[str, Entry] = dict(base.benchmarks) if base else {}
    for name, given in raw["benchmarks"].items():
        where = f"{path}: benchmarks.{name}"
        whole = {**(_raw(entries[name]) if name in entries else {}), **given} if isinstance(given, Mapping) else given
        found = list(_entry_problems(where, whole))
        problems += found
        if not found:
            entries[name] = Entry(**{key: _frozen(value) for key, value in whole.items()})
    if problems:
        raise BenchmarkError("\n".join(problems))
    return Regime(
        name=raw["regime"],
        description=raw.get("description", ""),
        benchmarks=entries,
        columns=raw.get("columns", base.columns if base else {}),
        without={suite: tuple(names) for suite, names in raw.get("without", base.without if base else {}).items()},
        unconfirmed=tuple(raw.get("unconfirmed", base.unconfirmed if base else ())),
    )


def _raw(entry: Entry) -> dict[str, Any]:
    return {f.name: getattr(entry, f.name) for f in fields(Entry)}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _entry_problems(where: str, entry: Any) -> Iterator[str]:
    """Everything that is wrong with one entry, a line each."""
    if not isinstance(entry, Mapping):
        yield f"{where}: expected a mapping of settings"
        return
    known = {f.name: f for f in fields(Entry)}
    yield from (f"{where}.{key}: unknown key{did_you_mean(key, known)}" for key in entry if key not in known)
    needed = [n for n in ("task", "dataset", "chat", "shots", "metric", "aggregate") if n not in entry]
    yield from (f"{where}.{key} is missing" for key in needed)
    for key, parts in SUBKEYS.items():
        value = entry.get(key)
        if value is None:
            continue
        if not isinstance(value, Mapping):
            yield f"{where}.{key}: expected a mapping of {', '.join(parts)}"
            continue
        yield from (f"{where}.{key}.{k}: unknown key{did_you_mean(k, parts)}" for k in value if k not in parts)
        yield from (f"{where}.{key}.{k} is missing" for k in NEEDED.get(key, ()) if k not in value)
    yield from _value_problems(where, entry)


def _value_problems(where: str, entry: Mapping[str, Any]) -> Iterator[str]:
    aggregate = entry.get("aggregate")
    kind, over = (aggregate.get("kind"), aggregate.get("over")) if isinstance(aggregate, Mapping) else (None, None)
    if kind is not None and kind not in get_args(Aggregate):
        yield f"{where}.aggregate.kind is {kind!r}; use {', '.join(get_args(Aggregate))}"
    if kind == "macro" and not over:
        yield f"{where}.aggregate.over is missing; a macro average is one over something"
    yield from (
        f"{where}.{key} is {entry[key]!r}; use true or false"
        for key in ("chat", "multiturn")
        if key in entry and not isinstance(entry[key], bool)
    )
    given = [key for key in GENERATES if entry.get(key) is not None]
    if given and len(given) < len(GENERATES):
        missing = next(key for key in GENERATES if key not in given)
        yield f"{where}.{missing} is missing; what generates has stops, max_gen_toks and sampling"
    metric, sampling = str(entry.get("metric", "")), entry.get("sampling") or {}
    k = metric.removeprefix("pass@")
    if k != metric and k.isdigit() and isinstance(sampling, Mapping) and int(sampling.get("repeats", 1)) < int(k):
        yield f"{where}.sampling.repeats is {sampling.get('repeats', 1)}; {metric} needs at least {k}"
    unknown = [u for u in entry.get("unconfirmed", ()) if u not in {f.name for f in fields(Entry)}]
    yield from (f"{where}.unconfirmed names {u!r}, which is no field" for u in unknown)


def _applied(regime: str, benchmark: Benchmark, entry: Entry) -> Benchmark:
    """The settings of the entry laid over those of the folder; BenchmarkError for what cannot be laid over them."""
    if problems := list(_unfit(benchmark, entry)):
        raise BenchmarkError("\n".join(f"regime {regime}: {benchmark.name}.{problem}" for problem in problems))
    settings: dict[str, Any] = {}
    if entry.stops is not None and entry.sampling is not None:
        settings["generation_kwargs"] = generation(entry)
        settings["repeats"] = entry.sampling.get("repeats", 1)
    if benchmark.tasks[0].dataset:
        settings["dataset_path"] = entry.dataset["id"]
    settings |= _repairs(benchmark, entry.quirks)
    n_expected = settings.pop("n_expected", entry.n_expected)
    if entry.prompt is not None:
        settings["doc_to_text"] = f"!function verify.doc_to_text_{entry.prompt}"
    options: dict[str, Any] = {}
    if entry.extraction != benchmark.meta.extraction:
        options["extraction"] = entry.extraction
    if set(entry.quirks) != set(benchmark.meta.quirks):
        options["quirks"] = frozenset(entry.quirks)
    meta = replace(
        benchmark.meta,
        chat=entry.chat,
        multiturn=entry.multiturn,
        metric=entry.metric,
        aggregate=entry.aggregate["kind"],
        quirks=entry.quirks,
        extraction=entry.extraction,
        judge=entry.judge,
        n_expected=n_expected,
        unconfirmed=entry.unconfirmed,
    )
    return with_settings(benchmark, meta, settings, options)


def _repaired(benchmark: Benchmark) -> Benchmark:
    """A benchmark that no regime speaks of, without its quirks."""
    settings = _repairs(benchmark, ())
    n_expected = settings.pop("n_expected", benchmark.meta.n_expected)
    meta = replace(benchmark.meta, quirks=(), n_expected=n_expected)
    options = {"quirks": frozenset[str]()} if benchmark.meta.quirks else {}
    return with_settings(benchmark, meta, settings, options)


def _repairs(benchmark: Benchmark, kept: Collection[str]) -> dict[str, Any]:
    """What the prompts are without the quirks that are not kept."""
    found: dict[str, Any] = {}
    for quirk, settings in benchmark.meta.repairs.items():
        found |= {} if quirk in kept else settings
    return found


def _unfit(benchmark: Benchmark, entry: Entry) -> Iterator[str]:
    """What an entry asks for that the folder cannot do or does not know: a typo must not pass in silence."""
    first, meta = benchmark.tasks[0].config, benchmark.meta
    for quirk in set(entry.quirks) - set(meta.quirks):
        yield f"quirks: {quirk!r} is no quirk of this benchmark{did_you_mean(quirk, meta.quirks)}"
    metrics = {m["metric"] for m in first.get("metric_list") or () if isinstance(m, Mapping)} | {benchmark.own_metric}
    if entry.metric not in metrics:
        yield f"metric is {entry.metric!r}{did_you_mean(entry.metric, metrics)}; it has {', '.join(sorted(metrics))}"
    if entry.judge is not None and entry.judge != meta.judge:
        yield f"judge is {entry.judge!r}; the benchmark is judged by {meta.judge!r}"
    known = _choices(benchmark, "extraction") if entry.extraction != meta.extraction else ()
    if entry.extraction != meta.extraction and entry.extraction not in known:
        yield f"extraction is {entry.extraction!r}; it has {', '.join(known) or 'only one way'}"
    splits = {first.get("test_split"), first.get("validation_split")} - {None}
    fixed = [
        ("dataset.split", entry.dataset["split"], splits),
        ("truncate_context", entry.truncate_context, {None, False}),
    ]
    if "config" in entry.dataset and not benchmark.is_group and not meta.configs:
        fixed.append(("dataset.config", entry.dataset["config"], {first.get("dataset_name")}))
    if entry.shots["n"] != first.get("num_fewshot", 0) and not benchmark.is_group and first.get("num_fewshot"):
        fixed.append(("shots.n", entry.shots["n"], {first.get("num_fewshot")}))
    yield from (
        f"{field} is {value!r}, and only {allowed} can be had"
        for field, value, allowed in fixed
        if value not in allowed
    )
    if entry.aggregate["kind"] == "macro" and not (meta.category or benchmark.is_group):
        yield "aggregate.kind is 'macro', and its documents have no categories"


def _choices(benchmark: Benchmark, option: str) -> tuple[str, ...]:
    """The words that an option of the verifier may be."""
    hints = get_type_hints(benchmark.module.verify) if benchmark.module else {}
    return get_args(hints.get(option))


def generation(entry: Entry) -> dict[str, Any]:
    """The `generation_kwargs` of lm-eval for an entry that generates."""
    sampling = dict(entry.sampling or {})
    kwargs: dict[str, Any] = {"until": list(entry.stops or ()), "max_gen_toks": entry.max_gen_toks}
    kwargs["do_sample"] = bool(sampling.get("do_sample", False))
    if kwargs["do_sample"]:
        kwargs |= {"temperature": float(sampling["temperature"]), "top_p": float(sampling.get("top_p", 1.0))}
    return kwargs
