"""Turns what a model answered into a Result: verify each sample, count what went wrong, average with errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import cast

from evalsuite.benchmark import Benchmark
from evalsuite.errors import BenchmarkError
from evalsuite.harness import lm_eval_score
from evalsuite.journal import Answer
from evalsuite.plan import Plan, Planned
from evalsuite.scorecard import Metric, Result
from evalsuite.stats import macro_stderr, mean_stderr, ratio_stderr
from evalsuite.types import ChoiceVerifier, Doc, Failed, LogLikelihood, Ratio, Response, Score, Verifier

NEAR_TIE = {"float32": 1e-3}  # by dtype; log-probabilities of half precision move by about 0.05
TOO_LONG = "window"  # every engine's reason for a prompt that does not fit names the model's window


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
        return lm_eval_score(plan, sample, answers)
    if isinstance(answers[0], Response):
        verify = cast("Verifier", module.verify)
        return _mean_score([verify(cast("Response", a).text, doc) for a in answers])
    options = [cast("tuple[LogLikelihood, ...]", a) for a in answers]
    return cast("ChoiceVerifier", module.verify)([o.total for group in options for o in group], doc)


def _mean_score(scores: list[Score]) -> Score:
    if len(scores) == 1:
        return scores[0]
    return replace(scores[0], value=sum(s.value for s in scores) / len(scores))


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
