"""The only file that knows lm-eval: builds what a model is asked (plan) and turns what it answered into a Result (grade).

Tasks are driven one by one through lm-eval's task objects, never through `simple_evaluate`: its chat settings are global
to a call, it makes one blocking backend call for each request type, and results exist only at its end.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import groupby
from typing import Any, Literal, cast

from evalsuite.benchmark import Benchmark, TaskFile
from evalsuite.data import DatasetSpec, Resolved, sample_ids, translate
from evalsuite.errors import BenchmarkError, DataError
from evalsuite.journal import Answer
from evalsuite.scorecard import Metric, Result
from evalsuite.stats import macro_stderr, mean_stderr, ratio_stderr
from evalsuite.types import (
    ChoiceVerifier,
    Doc,
    Failed,
    GenerateRequest,
    LogLikelihood,
    LoglikRequest,
    Message,
    Prompt,
    Ratio,
    Response,
    Sampling,
    Score,
    Verifier,
)

Render = Callable[..., str]
Request = GenerateRequest | LoglikRequest

# One meaning, several spellings; the first that is present wins (lm-eval's order).
MAX_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
GENERATION_KEYS = {*MAX_TOKENS, "until", "do_sample", "temperature", "top_p", "top_k", "min_p"}
NEAR_TIE = {"float32": 1e-3}  # by dtype; log-probabilities of half precision move by about 0.05
TOO_LONG = "window"  # every engine's reason for a prompt that does not fit names the model's window


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing to ask: request `number` of a sample (repeat of a generation, or context of a choice)."""

    sample: str
    number: int
    request: Request


@dataclass(slots=True)
class Plan:
    """Everything a benchmark asks, in dataset order, with what grading needs to know of each sample."""

    benchmark: Benchmark
    planned: list[Planned]
    docs: dict[str, Doc]
    categories: dict[str, str]
    clusters: dict[str, str]
    notes: tuple[str, ...]
    dataset: Mapping[str, Any]
    sources: dict[str, tuple[Any, list[Any]]] = field(default_factory=dict)  # sample -> lm-eval task, its instances

    @property
    def kind(self) -> Literal["generate", "loglikelihood"]:
        return "generate" if isinstance(self.planned[0].request, GenerateRequest) else "loglikelihood"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which samples of a benchmark are asked: all, `limit` drawn by seed (a larger limit contains a smaller), or ids."""

    limit: int | None = None
    samples: frozenset[str] | None = None
    seed: int = 1234

    def choose(self, ids: Sequence[str]) -> frozenset[str] | None:
        """The chosen ids; None for all of them. Raises DataError for ids that the data does not have."""
        if self.samples is not None:
            missing = sorted(self.samples - set(ids))
            if missing:
                raise DataError(f"--samples: {len(missing)} ids are not in the data, the first is {missing[0]!r}")
            return self.samples
        if self.limit is None or self.limit >= len(ids):
            return None
        return frozenset(
            sorted(ids, key=lambda i: blake2b(f"{self.seed}:{i}".encode(), digest_size=8).digest())[: self.limit]
        )


# -- plan --


def datasets_of(benchmark: Benchmark) -> tuple[DatasetSpec, ...]:
    """What a benchmark reads, one entry for each (hub id, config) of its tasks."""
    specs = {}
    for task in benchmark.tasks:
        if task.dataset:
            spec = _spec(benchmark, task)
            specs[spec.id, spec.config] = spec
    return tuple(specs.values())


def _spec(benchmark: Benchmark, task: TaskFile) -> DatasetSpec:
    meta = benchmark.meta
    per_config = len({t.config.get("dataset_name") for t in benchmark.tasks}) == 1
    return DatasetSpec(
        id=str(task.dataset),
        config=task.config.get("dataset_name"),
        splits=task.splits,
        columns=meta.columns,
        n_expected=meta.n_expected if per_config else None,
        revision=meta.dataset_revision,
    )


def load_tasks(benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved]) -> list[Any]:
    """lm-eval's task objects of a benchmark, in the order of its YAML, reading the resolved data.

    Raises DataError when the data cannot be loaded and BenchmarkError when lm-eval refuses the YAML.
    """
    _quiet()
    from lm_eval.tasks import TaskManager

    # The default index would cost 26 s of every start.
    manager = TaskManager(include_path=[str(benchmark.folder)], include_defaults=False)
    wanted = [_override(benchmark, task, resolved) for task in benchmark.tasks]
    try:
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


def _override(benchmark: Benchmark, task: TaskFile, resolved: Mapping[DatasetSpec, Resolved]) -> dict[str, Any]:
    # A group's inline entry inherits the registered YAML; an inline task by itself would not.
    entry: dict[str, Any] = {"task": task.name}
    if task.dataset:
        found = resolved[_spec(benchmark, task)]
        entry["dataset_path"] = found.path
        kwargs = dict(task.config.get("dataset_kwargs") or {})
        if found.cache_dir:
            kwargs["cache_dir"] = found.cache_dir
        if found.origin == "hub" and found.spec.revision:
            kwargs["revision"] = found.spec.revision
        if kwargs:
            entry["dataset_kwargs"] = kwargs
    return entry


def build_plan(
    benchmark: Benchmark,
    resolved: Mapping[DatasetSpec, Resolved],
    render: Render | None,
    selection: Selection = Selection(),
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
    if chosen is not None:
        notes.append(
            f"{len(chosen)} of {len(every)} samples"
            + ("" if selection.samples else f", drawn by seed {selection.seed}")
        )
    return tuple(dict.fromkeys(notes))


def _provenance(benchmark: Benchmark, resolved: Mapping[DatasetSpec, Resolved]) -> Mapping[str, Any]:
    found = [dict(resolved[spec].provenance) for spec in datasets_of(benchmark)]
    return found[0] if len(found) == 1 else {"parts": found} if found else {"origin": "generated"}


# -- grade --


@dataclass(slots=True)
class _Tally:
    """What is counted while the answers of a benchmark are graded."""

    scores: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    parts: dict[str, dict[str, float | Ratio]] = field(default_factory=dict)
    format_ok: list[bool] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def grade(plan: Plan, answers: Mapping[tuple[str, int], Answer], *, dtype: str = "float32") -> Result:
    """The Result of a benchmark over the samples that have all their answers; works on any part of a plan.

    A verifier that raises makes a failed sample, never a zero. Samples that were not answered are failures too.
    """
    tally = _Tally()
    for sample, asked in _by_sample(plan.planned):
        found = [answers.get((sample, p.number), Response("", "error", why="not answered")) for p in asked]
        why = next((w for w in map(_failure, found) if w), "")
        if why:
            tally.failures[sample] = why
            tally.counts["too_long"] += TOO_LONG in why
            continue
        try:
            score = _score(plan, sample, found)
        except Exception as error:
            tally.failures[sample] = f"the verifier raised {type(error).__name__}: {error}"
            continue
        _count(tally, sample, score, found, NEAR_TIE.get(dtype, 0.05))
    return _result(plan, tally)


def score_response(benchmark: Benchmark, response: str, doc: Doc) -> Score:
    """What a benchmark's verifier says of one response; BenchmarkError when it is scored by log-likelihoods."""
    if benchmark.kind != "generate_until" or benchmark.module is None:
        raise BenchmarkError(f"{benchmark.name} is scored by log-likelihoods; there is no response to verify")
    return cast("Verifier", benchmark.module.verify)(response, doc)


def _by_sample(planned: Iterable[Planned]) -> Iterator[tuple[str, list[Planned]]]:
    for sample, group in groupby(planned, key=lambda p: p.sample):
        yield sample, list(group)


def _failure(answer: Answer) -> str:
    if isinstance(answer, Failed):
        return answer.why
    return (
        (answer.why or "the engine gave no reason") if isinstance(answer, Response) and answer.finish == "error" else ""
    )


def _score(plan: Plan, sample: str, answers: list[Answer]) -> Score:
    doc = plan.docs[sample]
    module = plan.benchmark.module
    if module is None:
        return _lm_eval_score(plan, sample, answers)
    if isinstance(answers[0], Response):
        verify = cast("Verifier", module.verify)
        return _mean_score([verify(cast("Response", a).text, doc) for a in answers])
    options = [cast("tuple[LogLikelihood, ...]", a) for a in answers]
    return cast("ChoiceVerifier", module.verify)([o.total for group in options for o in group], doc)


def _mean_score(scores: list[Score]) -> Score:
    if len(scores) == 1:
        return scores[0]
    return replace(scores[0], value=sum(s.value for s in scores) / len(scores))


def _lm_eval_score(plan: Plan, sample: str, answers: list[Answer]) -> Score:
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


def _count(tally: _Tally, sample: str, score: Score, answers: list[Answer], near: float) -> None:
    tally.scores[sample] = float(score.value)
    for name, part in score.parts.items():
        tally.parts.setdefault(name, {})[sample] = part
    if score.format_ok is not None:
        tally.format_ok.append(score.format_ok)
    responses = [a for a in answers if isinstance(a, Response)]
    tally.counts["truncated"] += any(r.finish == "length" for r in responses)
    tally.counts["shrunk"] += any(r.shrunk for r in responses)
    tally.counts["empty"] += any(not r.text.strip() for r in responses)
    for options in answers:
        if not isinstance(options, Response | Failed) and len(options) > 1:
            first, second = sorted((o.total for o in options), reverse=True)[:2]
            tally.counts["near_ties"] += first - second < near


def _result(plan: Plan, tally: _Tally) -> Result:
    meta, counts = plan.benchmark.meta, tally.counts
    headline = _metric(tally.scores, plan) if tally.scores else None
    return Result(
        benchmark=plan.benchmark.name,
        split=meta.split,
        metric=meta.metric,
        aggregate=meta.aggregate,
        digest=plan.benchmark.digest,
        value=headline.value if headline else None,
        stderr=headline.stderr if headline else None,
        scores=tally.scores,
        failures=tally.failures,
        n_planned=len(plan.docs),
        categories=plan.categories,
        clusters=plan.clusters,
        parts={name: _metric(values, plan) for name, values in sorted(tally.parts.items())},
        by_category=_by_category(tally.scores, plan),
        n_truncated=counts["truncated"],
        n_shrunk=counts["shrunk"],
        n_prompt_too_long=counts["too_long"],
        n_empty=counts["empty"],
        n_near_ties=counts["near_ties"],
        format_ok=sum(tally.format_ok) / len(tally.format_ok) if tally.format_ok else None,
        notes=plan.notes,
        dataset=plan.dataset,
    )


def _metric(values: Mapping[str, float | Ratio], plan: Plan) -> Metric:
    clusters = [plan.clusters.get(s, s) for s in values] if plan.clusters else None
    if any(isinstance(v, Ratio) for v in values.values()):
        return ratio_stderr([cast("Ratio", v) for v in values.values()], clusters)
    plain = [cast("float", v) for v in values.values()]
    if plan.benchmark.meta.aggregate == "macro":
        return macro_stderr(plain, [plan.categories[s] for s in values], clusters)
    return mean_stderr(plain, clusters)


def _by_category(scores: Mapping[str, float], plan: Plan) -> dict[str, Metric]:
    grouped: dict[str, list[float]] = {}
    for sample, value in scores.items():
        if sample in plan.categories:
            grouped.setdefault(plan.categories[sample], []).append(value)
    return {name: mean_stderr(values) for name, values in sorted(grouped.items())}


# -- lm-eval's manners --


def _quiet() -> None:
    """Silences lm-eval's progress bars and log lines: ours say what a user needs."""
    import lm_eval.api.task

    lm_eval.api.task.tqdm = lambda items, **_: items
    for name in ("lm_eval", "lm-eval", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets

    datasets.disable_progress_bars()
