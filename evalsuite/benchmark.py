"""Reads a benchmark folder: its lm-eval YAML without running it, its verifier by path, and what identifies it.

A folder `<name>/` holds `<name>.yaml` (an lm-eval task, or a group whose subtasks are YAMLs of the same folder),
`verify.py`, `README.md` and `cases.jsonl`. lm-eval skips a file that it cannot parse without a word, so every file is
parsed here first and every problem of a folder is reported at once.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import yaml

from evalsuite.errors import BenchmarkError, did_you_mean
from evalsuite.scorecard import Aggregate
from evalsuite.types import Split

# What only the scoring of a response reads: editing these must not make a stored response useless.
METRIC_FIELDS = frozenset({"metric_list", "process_results", "filter_list", "metadata", "should_decontaminate"})
GROUP_METRIC_FIELDS = frozenset({"aggregate_metric_list", "metadata", "group_alias"})


@dataclass(frozen=True, slots=True)
class Meta:
    """The `metadata:` of a benchmark's YAML. `id` is a native id field, or the fields that are hashed into an id."""

    split: Split
    chat: bool
    metric: str
    id: str | tuple[str, ...]
    aggregate: Aggregate = "mean"
    multiturn: bool = False
    version: float = 1
    category: str | None = None
    cluster: str | None = None
    gate_cluster: str | None = None  # what paired differences go together by: a field, or `category`
    n_expected: int | None = None  # samples of the complete data
    n_rows: int | None = None  # rows of the split, where a selection of them are the samples
    columns: tuple[str, ...] = ()
    dataset_revision: str | None = None
    license: str = ""
    paper: str = ""
    quirks: tuple[str, ...] = ()
    repairs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # quirk of a prompt -> settings without it
    extraction: str | None = None  # which of several ways the answers are read, where verify() has an `extraction`
    upstream_sha256: Mapping[str, str] = field(default_factory=dict)
    known_rejects: int = 0
    unconfirmed: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()  # configs of the dataset that verify.dataset puts into one table, in this order
    judge: str | None = None  # protocol of the judge that scores the responses
    files: tuple[str, ...] = ()  # of the dataset's repository, read where they are there (regression data)
    runs_code: bool = False  # whether grading executes what the model wrote
    decontam_fields: str | tuple[str, ...] = ()  # of its documents: the text that training data must not hold


@dataclass(frozen=True, slots=True)
class TaskFile:
    """One lm-eval task of a benchmark: its registered name, its resolved YAML and the dataset it reads."""

    name: str
    path: Path
    config: Mapping[str, Any]
    overrides: Mapping[str, Any] = field(default_factory=dict)  # what a regime lays over the file, in `config` too

    @property
    def dataset(self) -> str | None:
        """Hub id of the dataset; None when the task makes its own rows."""
        return self.config.get("dataset_path")

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that is read: the evaluated one and the one the shots come from."""
        shots = self.config.get("fewshot_config") or {}
        found = [self.config.get(k) for k in ("test_split", "validation_split", "fewshot_split")]
        found += [shots.get("split")] if isinstance(shots, Mapping) else []
        return tuple(dict.fromkeys(s for s in found if s))


@dataclass(frozen=True)
class Benchmark:
    """A benchmark folder, read. `prompt_digest` identifies what a model is asked, `digest` also how it is graded.

    `options` are keyword arguments of the verifier, and `own_metric` is what its value is called: where a regime puts
    another number into the table, `meta.metric` names one of the parts of a score.
    """

    name: str
    folder: Path
    meta: Meta
    tasks: tuple[TaskFile, ...]
    prompt_digest: str
    own_metric: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_group(self) -> bool:
        return len(self.tasks) > 1 or self.tasks[0].name != self.name

    @property
    def kind(self) -> str:
        """lm-eval's output type: `generate_until` or `multiple_choice`."""
        return str(self.tasks[0].config.get("output_type", "generate_until"))

    @cached_property
    def module(self) -> ModuleType | None:
        """The loaded verify.py; None for a folder without one, which is graded by lm-eval's own metrics."""
        path = self.folder / "verify.py"
        return load_module(path) if path.is_file() else None

    @cached_property
    def grader_modules(self) -> tuple[Path, ...]:
        """Files of evalsuite.verify (and evalsuite.exemplars) that verify.py and the modules beside it use."""
        return _used(_beside(self.folder / "verify.py"))

    @cached_property
    def digest(self) -> str:
        """sha256 hex over prompts, grading fields, verify.py and every module of evalsuite.verify that it uses."""
        sources = [*_sources(self.folder / "verify.py"), *_tables(self.folder, self.tasks)]
        return _sha256([self.prompt_digest, _canonical(self._grading()), *sources])

    def _grading(self) -> Mapping[str, Any]:
        files = {t.name: {k: _graded(t.config[k]) for k in sorted(METRIC_FIELDS & set(t.config))} for t in self.tasks}
        options = {k: sorted(v) if isinstance(v, frozenset) else v for k, v in self.options.items()}
        grading = {"tasks": files, "aggregate": self.meta.aggregate, "metric": self.meta.metric}
        grading |= {"judge": self.meta.judge} if self.meta.judge else {}
        return grading | ({"options": options} if options else {})


def _graded(value: Any) -> Any:
    """A setting without what grading does not read."""
    return {k: v for k, v in value.items() if k != "decontam_fields"} if isinstance(value, Mapping) else value


def benchmarks_folder() -> Path:
    """Where the shipped benchmark folders are: beside the package in a checkout, inside it in a wheel."""
    inside = Path(__file__).parent / "_benchmarks"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "benchmarks"


def known_benchmarks(extra: Sequence[Path] = ()) -> dict[str, Path]:
    """Name to folder of everything that can be scored; a user's folder hides a shipped one of the same name."""
    found: dict[str, Path] = {}
    for root in (benchmarks_folder(), *extra):
        if not root.is_dir():
            raise BenchmarkError(f"no benchmark folder at {str(root)!r}; expected a folder of <name>/<name>.yaml")
        found |= {p.name: p for p in sorted(root.iterdir()) if (p / f"{p.name}.yaml").is_file()}
    return found


def find_benchmark(name: str, extra: Sequence[Path] = ()) -> Benchmark:
    """The benchmark of that name; raises BenchmarkError with the near miss when there is none."""
    known = known_benchmarks(extra)
    if name not in known:
        raise BenchmarkError(f"no benchmark named {name!r}{did_you_mean(name, known)} (see: evalsuite list)")
    return read_benchmark(known[name])


def read_benchmark(folder: Path) -> Benchmark:
    """Parses the folder's YAML files; raises BenchmarkError that lists every problem found in them."""
    name = folder.name
    top = read_yaml(folder / f"{name}.yaml")
    tasks = tuple(_tasks(folder, name, top))
    problems = [p for t in tasks for p in _task_problems(t)]
    meta, meta_problems = _meta(folder / f"{name}.yaml", top)
    if meta is None or problems or meta_problems:
        raise BenchmarkError("\n".join(dict.fromkeys([*meta_problems, *problems])))
    return Benchmark(name, folder, meta, tasks, _prompt_digest(name, tasks, meta), meta.metric)


def with_settings(
    benchmark: Benchmark, meta: Meta, settings: Mapping[str, Any], options: Mapping[str, Any]
) -> Benchmark:
    """The same folder asked and graded otherwise: `settings` go over every task's YAML, `options` to the verifier.

    A setting that says what the file says already changes nothing, so the digests stay those of the folder.
    """
    tasks = tuple(_overridden(task, settings) for task in benchmark.tasks)
    digest = _prompt_digest(benchmark.name, tasks, meta)
    return replace(benchmark, meta=meta, tasks=tasks, prompt_digest=digest, options=dict(options))


def _overridden(task: TaskFile, settings: Mapping[str, Any]) -> TaskFile:
    own = {"repeats": 1, **task.config}
    overrides = {k: v for k, v in settings.items() if _meaning(v) != _meaning(own.get(k))}
    if not overrides:
        return task
    return replace(task, config={**task.config, **overrides}, overrides={**task.overrides, **overrides})


def _meaning(value: Any) -> Any:
    """Generation settings without what greedy decoding does not read; anything else as it is."""
    if not isinstance(value, Mapping):
        return value
    kept = {k: v for k, v in value.items() if value.get("do_sample") or k not in ("do_sample", "temperature", "top_p")}
    return kept | {"until": _as_list(value.get("until"))}


def _prompt_digest(name: str, tasks: Sequence[TaskFile], meta: Meta) -> str:
    asked = [{k: v for k, v in t.config.items() if k not in METRIC_FIELDS} for t in tasks]
    settings = {"chat": meta.chat, "multiturn": meta.multiturn, "id": meta.id}
    return _sha256([name, _canonical(asked), _canonical(settings)])


def load_module(path: Path) -> ModuleType:
    """Runs a verify.py under a name made from its place; raises BenchmarkError when it does not load."""
    name = f"evalsuite_benchmark_{path.parent.name}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BenchmarkError(f"{path}: does not load ({type(error).__name__}: {error})") from error
    return module


# -- YAML --


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """lm-eval's dialect: `!function module.name` is kept as a string and never executed."""


_Loader.add_constructor("!function", lambda loader, node: f"!function {loader.construct_scalar(node)}")


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, `include:` merged in as lm-eval does (shallow). BenchmarkError names file, line."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise BenchmarkError(f"{path}: {where}{getattr(error, 'problem', None) or error}") from error
    if not isinstance(raw, dict):
        raise BenchmarkError(f"{path}: expected a mapping, found {type(raw).__name__}")
    merged: dict[str, Any] = {}
    for include in _as_list(raw.pop("include", None)):
        merged |= read_yaml(path.parent / include)
    return merged | raw


def _tasks(folder: Path, name: str, top: Mapping[str, Any]) -> Iterator[TaskFile]:
    if "group" not in top:
        yield TaskFile(str(top.get("task", name)), folder / f"{name}.yaml", top)
        return
    by_name = {}
    for path in sorted(folder.rglob("*.yaml")):
        config = read_yaml(path) if path.name != f"{name}.yaml" else {}
        if isinstance(config.get("task"), str):
            by_name[config["task"]] = TaskFile(config["task"], path, config)
    missing = [t for t in top.get("task", []) if t not in by_name]
    if missing:
        raise BenchmarkError(
            f"{folder / name}.yaml: task: no YAML in this folder defines {', '.join(map(repr, missing))}"
        )
    yield from (by_name[t] for t in top["task"])


def _task_problems(task: TaskFile) -> Iterator[str]:
    config = task.config
    generation = config.get("generation_kwargs") or {}
    if config.get("output_type", "generate_until") == "generate_until":
        # lm-eval's own defaults (until blank line, 256 tokens) cut chat answers in silence.
        for key in ("until", "max_gen_toks"):
            if key not in generation:
                yield f"{task.path}: generation_kwargs.{key} is missing; write it, [] included for no stop string"
    if not config.get("dataset_path") and not config.get("custom_dataset"):
        yield f"{task.path}: dataset_path is missing"
    if not any(config.get(k) for k in ("test_split", "validation_split")):
        yield f"{task.path}: test_split is missing"
    if "num_fewshot" not in config:
        yield f"{task.path}: num_fewshot is missing; write 0 for none"


def _meta(path: Path, top: Mapping[str, Any]) -> tuple[Meta | None, list[str]]:
    raw = top.get("metadata")
    if not isinstance(raw, Mapping):
        return None, [f"{path}: metadata is missing; expected split, chat, metric, id, …"]
    known = {f.name: f for f in fields(Meta)}
    problems = [f"{path}: metadata.{k}: unknown key{did_you_mean(k, known)}" for k in raw if k not in known]
    required = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    problems += [f"{path}: metadata.{k} is missing" for k in required if k not in raw]
    for key, allowed in (("split", get_args(Split)), ("aggregate", get_args(Aggregate))):
        if key in raw and raw[key] not in allowed:
            problems.append(f"{path}: metadata.{key} is {raw[key]!r}; use {', '.join(allowed[:-1])} or {allowed[-1]}")
    problems += [
        f"{path}: metadata.{k} is {raw[k]!r}; use true or false"
        for k in ("chat", "multiturn")
        if k in raw and not isinstance(raw[k], bool)
    ]
    if problems:
        return None, problems
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    return Meta(**values), []


def _as_list(value: Any) -> list[str]:
    return [] if value is None else value if isinstance(value, list) else [value]


# -- digests --


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)


def _sha256(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _tables(folder: Path, tasks: Sequence[TaskFile]) -> Iterator[str]:
    """Text of the YAML and CSV files of a folder that are no tasks: what its functions look things up in."""
    known = {task.path for task in tasks} | {folder / f"{folder.name}.yaml"}
    yield from (
        p.read_text(encoding="utf-8") for p in sorted([*folder.glob("*.yaml"), *folder.glob("*.csv")]) if p not in known
    )


def _sources(verify: Path) -> Iterator[str]:
    """Text of the grader: verify.py, the modules beside it, and what they use of evalsuite.verify."""
    if not verify.is_file():
        return
    beside = _beside(verify)
    yield from (path.read_text(encoding="utf-8") for path in [*beside, *_used(beside)])


def _beside(verify: Path) -> list[Path]:
    return sorted(p for p in verify.parent.glob("*.py") if p.name != "generate.py")


def _used(beside: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(sorted({module for path in beside for module in _grader_modules(path)}))


@cache
def _grader_modules(path: Path) -> frozenset[Path]:
    """Files of evalsuite.verify (and evalsuite.exemplars) that a file imports, directly or through one another."""
    package = Path(__file__).parent
    found: set[Path] = set()
    todo = [path]
    while todo:
        for name in _imported(todo.pop()):
            file = package.joinpath(*name.split(".")[1:])
            for candidate in (file.with_suffix(".py"), file / "__init__.py"):
                if (
                    name.startswith(("evalsuite.verify", "evalsuite.exemplars"))
                    and candidate.is_file()
                    and candidate not in found
                ):
                    found.add(candidate)
                    todo.append(candidate)
    return frozenset(found)


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
