"""Proves without a model that benchmarks are sound: YAML, verifier, hand-written cases, gold answers of real rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from evalsuite.benchmark import Benchmark, known_benchmarks, load_module, read_benchmark
from evalsuite.data import DatasetSpec, Resolved, go_offline_when_local, resolve_all
from evalsuite.errors import BenchmarkError, DataError, EvalsuiteError
from evalsuite.harness import build_plan, datasets_of, documents, indexed_names
from evalsuite.suite import known_aliases
from evalsuite.types import Doc, GenerateRequest, Score
from evalsuite.verify.judge import Verdict

FUNCTION = re.compile(r"!function (\w+)\.(\w+)")
NO_DATA = "golds not checked: the data is in no data root"
OPTIONS = ("variant", "quirks", "extraction")  # what a case may say of how it is graded
ALMOST_ONE = 1 - 1e-9


@dataclass(frozen=True, slots=True)
class Finding:
    """What was proved of one benchmark. `n_golds` is None when there was no data to check them on.

    `rejected` are sample ids whose own gold answer gets no full score; there may be `known_rejects` of them.
    """

    benchmark: str
    problems: tuple[str, ...]
    n_cases: int = 0
    n_golds: int | None = None
    rejected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems


def check(
    names: Sequence[str] | None, extra: Sequence[Path], roots: Sequence[Path], *, hub: bool = False
) -> Iterator[Finding]:
    """One Finding for each benchmark. Data comes from the data roots, and from the hub only when asked for."""
    known = known_benchmarks(extra)
    for name in names if names is not None else known:
        try:
            benchmark = read_benchmark(known[name])
        except BenchmarkError as error:
            yield Finding(name, tuple(str(error).splitlines()))
            continue
        yield check_benchmark(benchmark, roots, hub=hub)


def check_benchmark(benchmark: Benchmark, roots: Sequence[Path], *, hub: bool = False) -> Finding:
    """Everything that can be proved of one benchmark with the data at hand."""
    problems = [*_unindexed(benchmark), *_missing_functions(benchmark)]
    if not (benchmark.folder / "README.md").is_file():
        problems.append(f"{benchmark.folder}: README.md is missing")
    n_cases, case_problems = _cases(benchmark)
    problems += case_problems
    if problems:
        return Finding(benchmark.name, tuple(problems), n_cases)
    try:
        resolved = resolve_all(datasets_of(benchmark), roots, offline=not hub, aliases=known_aliases())
    except DataError as error:
        if _has_folder(benchmark, roots):
            return Finding(benchmark.name, tuple(str(error).splitlines()), n_cases)
        return Finding(benchmark.name, (), n_cases, notes=(_unreached(error) if hub else NO_DATA,))
    go_offline_when_local(resolved.values())
    return _with_data(benchmark, resolved, n_cases)


def prompts(benchmark: Benchmark, roots: Sequence[Path], render: Any, n: int) -> Iterator[tuple[str, str]]:
    """(sample id, exact prompt) of the first n requests, as a model would be given them."""
    resolved = resolve_all(datasets_of(benchmark), roots, offline=True, aliases=known_aliases())
    go_offline_when_local(resolved.values())
    for planned in build_plan(benchmark, resolved, render).planned[:n]:
        request = planned.request
        yield planned.sample, (request.prompt if isinstance(request, GenerateRequest) else request.context).text


def _with_data(benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved], n_cases: int) -> Finding:
    try:
        docs = documents(benchmark, resolved)
    except EvalsuiteError as error:
        return Finding(benchmark.name, tuple(str(error).splitlines()), n_cases)
    notes = tuple(note for r in resolved.values() for note in r.notes)
    rejected = tuple(_rejected(benchmark, docs))
    problems = list(_row_problems(benchmark, resolved, len(docs)))
    if len(rejected) > benchmark.meta.known_rejects:
        shown = ", ".join(rejected[:3])
        problems.append(
            f"{benchmark.folder}: {len(rejected)} of {len(docs)} gold answers are not accepted by their own verifier,"
            f" {benchmark.meta.known_rejects} are known (metadata.known_rejects); the first are {shown}"
        )
    return Finding(benchmark.name, tuple(problems), n_cases, len(docs), rejected, notes)


def _row_problems(benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved], n: int) -> Iterator[str]:
    """The hub's copy must have the rows that the regime counts; a local one may be a part, which is noted elsewhere."""
    expected, sure = benchmark.meta.n_expected, "n_expected" not in benchmark.meta.unconfirmed
    from_hub = bool(resolved) and all(r.origin == "hub" for r in resolved.values())
    if from_hub and expected is not None and n != expected and sure:
        yield f"{benchmark.folder}: the hub's data gives {n} rows, metadata.n_expected says {expected}"


def _unreached(error: DataError) -> str:
    """Why the data could not be had, in one line: gated, missing, no network."""
    reasons = [line.strip() for line in str(error).splitlines()[1:-1]] or str(error).splitlines()
    return f"golds not checked: {reasons[0]}"


def _rejected(benchmark: Benchmark, docs: Mapping[str, Doc]) -> Iterator[str]:
    module: Any = benchmark.module
    if module is None:
        return
    if benchmark.meta.judge:
        yield from _unaskable(benchmark, docs)
        return
    if hasattr(module, "verify_many"):
        scores = module.verify_many([(module.gold_response(doc), doc) for doc in docs.values()])
        yield from (sample for sample, score in zip(docs, scores, strict=True) if score.value < ALMOST_ONE)
        return
    gold = module.gold_response if benchmark.kind == "generate_until" else module.gold_totals
    for sample, doc in docs.items():
        try:
            accepted = module.verify(gold(doc), doc).value >= ALMOST_ONE
        except Exception as error:
            raise BenchmarkError(
                f"{benchmark.folder}: the verifier raised on the gold of {sample!r} ({type(error).__name__}: {error})"
            ) from error
        if not accepted:
            yield sample


def _unaskable(benchmark: Benchmark, docs: Mapping[str, Doc]) -> Iterator[str]:
    """Samples of a judged benchmark whose question to the judge cannot be put together."""
    module: Any = benchmark.module
    for sample, doc in docs.items():
        try:
            module.asks("A response.", doc)
        except Exception as error:
            raise BenchmarkError(
                f"{benchmark.folder}: nothing can be asked of a judge on {sample!r} ({type(error).__name__}: {error})"
            ) from error
    yield from ()


def _unindexed(benchmark: Benchmark) -> Iterator[str]:
    """lm-eval skips files that it cannot read without a word; a task that its index does not list is one of them."""
    known = indexed_names(benchmark.folder)
    for name in {benchmark.name, *(t.name for t in benchmark.tasks)} - known:
        yield f"{benchmark.folder}: lm-eval does not find the task {name!r}"


def _missing_functions(benchmark: Benchmark) -> Iterator[str]:
    for module_name, function in sorted(set(FUNCTION.findall(json.dumps([dict(t.config) for t in benchmark.tasks])))):
        path = benchmark.folder / f"{module_name}.py"
        candidates = [path, *(t.path.parent / f"{module_name}.py" for t in benchmark.tasks)]
        found = next((p for p in candidates if p.is_file()), None)
        if found is None or not hasattr(load_module(found), function):
            yield f"{benchmark.folder}: !function {module_name}.{function} does not exist"


def _cases(benchmark: Benchmark) -> tuple[int, list[str]]:
    path = benchmark.folder / "cases.jsonl"
    if benchmark.module is None or not path.is_file():
        return 0, [] if benchmark.module is None else [
            f"{path}: is missing; give hand-written responses and their scores"
        ]
    problems = []
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            case = json.loads(line)
            score = _case_score(benchmark, case)
        except Exception as error:
            problems.append(f"{path}: line {number}: {type(error).__name__}: {error}")
            continue
        problems += [f"{path}: line {number}: {p}" for p in _differences(case, score)]
    return len(lines), problems


def _case_score(benchmark: Benchmark, case: Mapping[str, Any]) -> Score:
    """The score of a hand-written case; that of a judged benchmark brings what the judge said (`judge`)."""
    module: Any = benchmark.module
    if not benchmark.meta.judge:
        asked = case["totals"] if "totals" in case else case["response"]
        options = {k: frozenset(case[k]) if k == "quirks" else case[k] for k in OPTIONS if k in case}
        return cast("Score", module.verify(asked, case["doc"], **options))
    from evalsuite.protocol import load_protocol, verdicts_of

    if "preference" in case:
        return cast("Score", module.verify_judged(case["response"], case["doc"], (Verdict(case["preference"]),)))
    protocol = load_protocol(case.get("protocol", benchmark.meta.judge), (benchmark.folder,))
    asks = module.asks(case["response"], case["doc"])
    verdicts = verdicts_of(protocol, asks, case.get("judge", ()))
    return cast("Score", module.verify_judged(case["response"], case["doc"], verdicts))


def _differences(case: Mapping[str, Any], score: Score) -> Iterator[str]:
    if abs(score.value - float(case["value"])) > 1e-6:
        yield f"score is {score.value}, expected {case['value']} (extracted {score.extracted!r})"
    elif "extracted" in case and case["extracted"] != score.extracted:
        yield f"extracted {score.extracted!r}, expected {case['extracted']!r}"


def _has_folder(benchmark: Benchmark, roots: Sequence[Path]) -> bool:
    return any((root / spec.id).is_dir() for root in roots for spec in datasets_of(benchmark))
