"""The only file that knows lm-eval: loads tasks, builds what a model is asked, calls its metrics where we have none.

Tasks are driven one by one through lm-eval's task objects, never through `simple_evaluate`: its chat settings are
global to a call, it makes one blocking backend call for each request type, and results exist only at its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from evalsuite.benchmark import Benchmark, TaskFile
from evalsuite.data import DatasetSpec, Resolved, sample_ids, translate
from evalsuite.errors import BenchmarkError, DataError
from evalsuite.journal import Answer
from evalsuite.plan import Plan, Planned, Request, Selection
from evalsuite.types import (
    Doc,
    GenerateRequest,
    LogLikelihood,
    LoglikRequest,
    Message,
    Prompt,
    Response,
    Sampling,
    Score,
)

Render = Callable[..., str]
EVERYTHING = Selection()
FUNCTION = "!function verify."
FEWSHOT_SEED = 1234  # lm-eval's default

# One meaning, several spellings; the first that is present wins (lm-eval's order).
MAX_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
GENERATION_KEYS = {*MAX_TOKENS, "until", "do_sample", "temperature", "top_p", "top_k", "min_p"}


def datasets_of(benchmark: Benchmark) -> tuple[DatasetSpec, ...]:
    """What a benchmark reads, one entry for each (hub id, config) of its tasks."""
    specs = {}
    for task in benchmark.tasks:
        for spec in _specs(benchmark, task):
            specs[spec.id, spec.config] = spec
    return tuple(specs.values())


def _specs(benchmark: Benchmark, task: TaskFile) -> list[DatasetSpec]:
    if not task.dataset:
        return []
    configs = benchmark.meta.configs or (task.config.get("dataset_name"),)
    return [_spec(benchmark, task, config) for config in configs]


def _spec(benchmark: Benchmark, task: TaskFile, config: str | None) -> DatasetSpec:
    meta = benchmark.meta
    per_config = not meta.configs and len({t.config.get("dataset_name") for t in benchmark.tasks}) == 1
    return DatasetSpec(
        id=str(task.dataset),
        config=config,
        splits=task.splits,
        columns=meta.columns,
        n_expected=(meta.n_rows or meta.n_expected) if per_config else None,
        revision=meta.dataset_revision,
    )


def load_tasks(benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved], *, shots: bool = True) -> list[Any]:
    """lm-eval's task objects of a benchmark, in the order of its YAML, reading the resolved data.

    Without `shots` the few-shot examples are left out: enough to grade, and possible where only a part of the data is.
    Raises DataError when the data cannot be loaded and BenchmarkError when lm-eval refuses the YAML.
    """
    _quiet()
    from lm_eval.tasks import TaskManager

    # The default index would cost 26 s of every start.
    manager = TaskManager(include_path=[str(benchmark.folder)], include_defaults=False)
    wanted = [_override(benchmark, task, resolved, shots) for task in benchmark.tasks]
    try:
        with _datasets_loaded_once():
            loaded = manager.load([{"group": f"{benchmark.name}:resolved", "task": wanted}])["tasks"]
    except (DataError, BenchmarkError):
        raise
    except Exception as error:
        spec = next(iter(datasets_of(benchmark)), None)
        translated = translate(error, spec) if spec is not None else None
        if translated is not None:
            raise translated from error
        raise BenchmarkError(f"{benchmark.folder}: lm-eval cannot load it ({type(error).__name__}: {error})") from error
    return [loaded[task.name] for task in benchmark.tasks]


def indexed_names(folder: Path) -> set[str]:
    """Tasks and groups that lm-eval's index finds below a folder; a file it cannot read is missing without a word."""
    _quiet()
    from lm_eval.tasks import TaskManager

    return set(TaskManager(include_path=[str(folder)], include_defaults=False).all_tasks)


def _override(
    benchmark: Benchmark, task: TaskFile, resolved: Mapping[DatasetSpec, Resolved], shots: bool
) -> dict[str, Any]:
    # A group's inline entry inherits the registered YAML; an inline task by itself would not.
    entry: dict[str, Any] = {"task": task.name, **_resolved_functions(benchmark, task.overrides)}
    if not shots:
        entry |= {"num_fewshot": 0, "fewshot_config": {}}
    found = [resolved[spec] for spec in _specs(benchmark, task)]
    kwargs = dict(task.config.get("dataset_kwargs") or {})
    if benchmark.meta.configs:
        kwargs["places"] = {f.spec.config: {"path": f.path, **f.dataset_kwargs} for f in found}
    elif found:
        entry["dataset_path"] = found[0].path
        kwargs |= found[0].dataset_kwargs
    if kwargs:
        entry["dataset_kwargs"] = kwargs
    return entry


def _resolved_functions(benchmark: Benchmark, value: Any) -> Any:
    """`!function verify.name` in a setting becomes the function: inline settings pass no YAML loader of lm-eval's."""
    if isinstance(value, Mapping):
        return {key: _resolved_functions(benchmark, inner) for key, inner in value.items()}
    if not isinstance(value, str) or not value.startswith(FUNCTION):
        return value
    found = getattr(benchmark.module, value.removeprefix(FUNCTION), None)
    if found is None:
        raise BenchmarkError(f"{benchmark.folder}/verify.py has no function {value!r}, which the regime asks for")
    return found


@contextmanager
def _datasets_loaded_once() -> Iterator[None]:
    """The 57 subtasks of one dataset load it 57 times; here once. Nothing writes to the rows, so they can be shared."""
    import datasets

    plain, known = datasets.load_dataset, {}

    def load(*args: Any, **kwargs: Any) -> Any:
        key = repr((args, sorted(kwargs.items())))
        if key not in known:
            known[key] = plain(*args, **kwargs)
        return known[key]

    datasets.load_dataset = load
    try:
        yield
    finally:
        datasets.load_dataset = plain


def build_plan(
    benchmark: Benchmark,
    resolved: Mapping[DatasetSpec, Resolved],
    render: Render | None,
    selection: Selection = EVERYTHING,
) -> Plan:
    """Every request of a benchmark, byte for byte the same on every run.

    Prompts come from lm-eval; `render` is the checkpoint's chat template (None is fine for a benchmark without chat).
    """
    tasks = load_tasks(benchmark, resolved)
    ids_by_task = [_ids(benchmark, file, task) for file, task in zip(benchmark.tasks, tasks, strict=True)]
    every = [i for ids in ids_by_task for i in ids]
    chosen = selection.choose(every)
    plan = Plan(
        benchmark,
        [],
        {},
        {},
        {},
        _notes(selection, chosen, every, benchmark, resolved),
        _provenance(benchmark, resolved),
    )
    for file, task, ids in zip(benchmark.tasks, tasks, ids_by_task, strict=True):
        category = file.name.removeprefix(f"{benchmark.name}_") if benchmark.is_group else None
        for sample, instances in _instances(benchmark, task, ids, chosen, render):
            _add(plan, sample, instances, task, category, selection.seed)
    if not plan.planned:
        raise DataError(f"{benchmark.name}: no samples are left to score")
    return plan


def documents(benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved]) -> dict[str, Doc]:
    """Sample id to document of the whole benchmark, in dataset order, without building a prompt."""
    tasks = load_tasks(benchmark, resolved, shots=False)
    return {
        i: doc
        for file, task in zip(benchmark.tasks, tasks, strict=True)
        for i, doc in zip(_ids(benchmark, file, task), task.eval_docs, strict=True)
    }


def _ids(benchmark: Benchmark, file: TaskFile, task: Any) -> list[str]:
    rule = benchmark.meta.id
    docs = task.eval_docs
    names = [rule] if isinstance(rule, str) else list(rule)
    columns = getattr(docs, "column_names", None)
    missing = [] if columns is None else [n for n in names if n not in columns]
    if columns is not None and missing:
        raise BenchmarkError(f"{file.path}: metadata.id names {missing[0]!r}; the documents have {', '.join(columns)}")
    rows = docs.select_columns(names) if columns is not None else docs
    ids = sample_ids(rows, rule)
    # Subtasks of a group may ask the same question; their samples are still different ones.
    return [f"{file.name.removeprefix(benchmark.name + '_')}/{i}" for i in ids] if benchmark.is_group else ids


def _instances(
    benchmark: Benchmark, task: Any, ids: Sequence[str], chosen: frozenset[str] | None, render: Render | None
) -> Iterator[tuple[str, list[Any]]]:
    """(sample id, its lm-eval instances). Only chosen rows are rendered where that cannot change a prompt."""
    rows = [n for n, i in enumerate(ids) if chosen is None or i in chosen]
    if not rows:
        return
    subset = chosen is not None and _shots_are_fixed(task)
    chat = benchmark.meta.chat
    # What `lm-eval run` does too; unseeded, the default sampler would draw other shots on every run.
    task.set_fewshot_seed(FEWSHOT_SEED)
    task.build_all_requests(
        limit=None,
        samples=set(rows) if subset else None,
        rank=0,
        world_size=1,
        cache_requests=False,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat and benchmark.meta.multiturn,
        chat_template=render if chat else None,
        tokenizer_name="",
    )
    position = dict(enumerate(rows)) if subset else {n: n for n in rows}
    for doc_id, instances in groupby(task.instances, key=lambda i: i.doc_id):
        if doc_id in position:
            yield ids[position[doc_id]], list(instances)


def _shots_are_fixed(task: Any) -> bool:
    """Whether a document's prompt is the same whichever documents stand before it (the default sampler's is not)."""
    return not task.config.num_fewshot or task.fewshot_cfg.sampler == "first_n"


def _add(plan: Plan, sample: str, instances: list[Any], task: Any, category: str | None, seed: int) -> None:
    meta, doc = plan.benchmark.meta, instances[0].doc
    plan.docs[sample] = doc
    if category is None and meta.category:
        category = str(doc[meta.category])
    if category is not None:
        plan.categories[sample] = category
    if meta.cluster:
        plan.clusters[sample] = str(doc[meta.cluster])
    if plan.benchmark.module is None:
        plan.sources[sample] = (task, instances)
    for number, request in enumerate(_requests(plan.benchmark, sample, instances, seed)):
        plan.planned.append(Planned(sample, number, request))


def _requests(benchmark: Benchmark, sample: str, instances: list[Any], seed: int) -> Iterator[Request]:
    first = instances[0]
    chat = benchmark.meta.chat
    if first.request_type == "generate_until":
        sampling = _sampling(benchmark, first.args[1])
        prompt = _prompt(first.args[0], chat)
        for number in range(first.repeats or 1):
            yield GenerateRequest(prompt, _seeded(sampling, seed, benchmark.name, sample, number))
    elif first.request_type == "loglikelihood":
        for _, same in groupby(instances, key=lambda i: i.args[0]):
            alike = list(same)
            yield LoglikRequest(_prompt(alike[0].args[0], chat), tuple(str(i.args[1]) for i in alike))
    else:
        raise BenchmarkError(f"{benchmark.folder}: output_type {first.request_type!r} cannot be scored")


def _prompt(context: str, chat: bool) -> Prompt:
    messages = cast("tuple[Message, ...] | None", getattr(context, "messages", None))
    return Prompt(str(context), chat, messages, getattr(context, "prefill", ""))


def _sampling(benchmark: Benchmark, kwargs: Mapping[str, Any]) -> Sampling:
    unknown = sorted(set(kwargs) - GENERATION_KEYS)
    if unknown:
        raise BenchmarkError(f"{benchmark.folder}: generation_kwargs.{unknown[0]}: unknown key")
    until = kwargs.get("until") or []
    temperature = float(kwargs.get("temperature") or 0.0)
    if kwargs.get("do_sample") is False:
        temperature = 0.0
    return Sampling(
        max_tokens=int(next(kwargs[k] for k in MAX_TOKENS if k in kwargs)),
        stop=(until,) if isinstance(until, str) else tuple(until),
        temperature=temperature,
        top_p=float(kwargs.get("top_p", 1.0)),
        top_k=int(kwargs.get("top_k", 0)),
        min_p=float(kwargs.get("min_p", 0.0)),
    )


def _seeded(sampling: Sampling, seed: int, benchmark: str, sample: str, number: int) -> Sampling:
    if sampling.temperature == 0.0:
        return sampling
    name = f"{seed}\0{benchmark}\0{sample}\0{number}".encode()
    # 63 bits: engines take a signed integer.
    return replace(sampling, seed=int.from_bytes(blake2b(name, digest_size=8).digest(), "big") >> 1)


def _notes(
    selection: Selection,
    chosen: frozenset[str] | None,
    every: Sequence[str],
    benchmark: Benchmark,
    resolved: Mapping[DatasetSpec, Resolved],
) -> tuple[str, ...]:
    notes = [n for spec in datasets_of(benchmark) for n in resolved[spec].notes]
    expected = benchmark.meta.n_expected
    if expected is not None and len(every) != expected and not any(n.startswith("partial") for n in notes):
        notes.append(f"partial dataset {len(every)}/{expected}")
    if benchmark.meta.upstream_sha256:
        # Our own wording of an instruction: the same meaning and the same answer phrase, another string.
        notes.append("prompt: paraphrased")
    if chosen is not None:
        notes.append(
            f"{len(chosen)} of {len(every)} samples"
            + ("" if selection.samples else f", drawn by seed {selection.seed}")
        )
    return tuple(dict.fromkeys(notes))


def _provenance(benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved]) -> Mapping[str, Any]:
    found = [dict(resolved[spec].provenance) for spec in datasets_of(benchmark)]
    return found[0] if len(found) == 1 else {"parts": found} if found else {"origin": "generated"}


def lm_eval_score(plan: Plan, sample: str, answers: list[Answer]) -> Score:
    """A folder without verify.py: lm-eval's filters and metrics, on the instances of this document alone."""
    task, instances = plan.sources[sample]
    if isinstance(answers[0], Response):
        instances[0].resps = [cast("Response", a).text for a in answers]
    else:
        flat = [o for group in answers for o in cast("tuple[LogLikelihood, ...]", group)]
        for instance, option in zip(instances, flat, strict=True):
            instance.resps = [(option.total, option.greedy)]
    for ensemble in task._filters:
        ensemble.apply(instances)
    name = task._filters[0].name
    metrics = task.process_results(
        instances[0].doc, [i.filtered_resps[name] for i in sorted(instances, key=lambda i: i.idx)]
    )
    metric = plan.benchmark.meta.metric
    if metric not in metrics:
        raise BenchmarkError(
            f"{plan.benchmark.folder}: metadata.metric is {metric!r}; the task gives {', '.join(metrics)}"
        )
    others = {k: float(v) for k, v in metrics.items() if k != metric and isinstance(v, int | float)}
    return Score(float(metrics[metric]), others)


def _quiet() -> None:
    """Silences lm-eval's progress bars and log lines: ours say what a user needs."""
    import lm_eval.api.task

    lm_eval.api.task.tqdm = lambda items, **_: items
    for name in ("lm_eval", "lm-eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets

    datasets.disable_progress_bars()
