"""Turns what a model answered into a Result: verify each sample, count what went wrong, average with errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from evalsuite.benchmark import Benchmark
from evalsuite.errors import BenchmarkError, EvalsuiteError
from evalsuite.harness import lm_eval_score
from evalsuite.journal import Answer
from evalsuite.plan import Plan, Planned
from evalsuite.scorecard import Metric, Result
from evalsuite.stats import macro_stderr, mean_stderr, ratio_stderr
from evalsuite.types import Doc, Failed, LogLikelihood, Ratio, Response, Score, Verifier
from evalsuite.verify.judge import NoVerdict, Unjudged
from evalsuite.verify.summary import JudgedRow, Summary, SummaryContext

if TYPE_CHECKING:
    from evalsuite.judging import Judged

NEAR_TIE = {"float32": 1e-3}  # by dtype; log-probabilities of half precision move by about 0.05
EMPTY_SHARE = 0.02
MAX_UNJUDGED = 0.05  # share of questions without a verdict above which a judged benchmark has no value
TOO_LONG = "window"  # every engine's reason for a prompt that does not fit names the model's window


@dataclass(slots=True)
class _Tally:
    """What is counted while the answers of a benchmark are graded."""

    scores: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    parts: dict[str, dict[str, float | Ratio]] = field(default_factory=dict)
    full: dict[str, Score] = field(default_factory=dict)
    unjudged: dict[str, NoVerdict] = field(default_factory=dict)
    format_ok: list[bool] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def grade(
    plan: Plan,
    answers: Mapping[tuple[str, int], Answer],
    *,
    dtype: str = "float32",
    judged: Judged | None = None,
    context: SummaryContext | None = None,
    whole: bool = True,
) -> Result:
    """The Result of a benchmark over the samples that have all their answers; works on any part of a plan.

    A part (`whole` is false) has scores, and none of the numbers that only the whole benchmark has.

    A verifier that raises makes a failed sample, never a zero. Samples that were not answered are failures too, and so
    are those whose judge gave no verdict.
    """
    tally = _Tally()
    complete: dict[str, list[Answer]] = {}
    for sample, asked in _by_sample(plan.planned):
        found = [answers.get((sample, p.number), Response("", "error", why="not answered")) for p in asked]
        why = next((w for w in map(_failure, found) if w), "")
        if why:
            tally.failures[sample] = why
            tally.counts["too_long"] += TOO_LONG in why
        else:
            complete[sample] = found
    for sample, score in _scores(plan, complete, judged):
        if isinstance(score, NoVerdict):
            tally.failures[sample], tally.unjudged[sample] = str(Unjudged(score)), score
        elif isinstance(score, str):
            tally.failures[sample] = score
        else:
            _count(tally, sample, score, complete[sample], NEAR_TIE.get(dtype, 0.05))
    result = _result(plan, tally)
    result = replace(result, judge=judged.identity, notes=(*result.notes, *judged.notes)) if judged else result
    if not whole:
        return result
    return _limited(_summarised(plan, complete, tally, result, context or SummaryContext()), judged)


def score_response(benchmark: Benchmark, response: str, doc: Doc) -> Score:
    """What a benchmark's verifier says of one response; BenchmarkError when it is scored by log-likelihoods."""
    if benchmark.kind != "generate_until" or benchmark.module is None:
        raise BenchmarkError(f"{benchmark.name} is scored by log-likelihoods; there is no response to verify")
    if benchmark.meta.judge:
        raise BenchmarkError(f"{benchmark.name} is scored by a judge: evalsuite score … --judge ENGINE")
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


def _scores(
    plan: Plan, complete: Mapping[str, list[Answer]], judged: Judged | None
) -> Iterator[tuple[str, Score | NoVerdict | str]]:
    """(sample, its Score or why it has none). What a benchmark grades all at once is graded before the first yield."""
    module: Any = plan.benchmark.module
    if module is not None and hasattr(module, "verify_many"):
        yield from _scored_together(plan, complete)
        return
    together = _unasked(plan, complete, judged) if judged is not None else {}
    for sample, found in complete.items():
        try:
            if sample in together:
                score: Score | NoVerdict = together[sample]
            elif judged is not None:
                score = _judged_score(plan, sample, found, judged)
            else:
                score = _score(plan, sample, found)
        except Unjudged as error:
            yield sample, error.failure
        except Exception as error:
            yield sample, f"the verifier raised {type(error).__name__}: {error}"
        else:
            yield sample, score if isinstance(score, NoVerdict) else _headlined(plan.benchmark, score)


def _scored_together(plan: Plan, complete: Mapping[str, list[Answer]]) -> Iterator[tuple[str, Score | str]]:
    """Samples of a benchmark that grades all its responses in one go, on all cores (programs in a sandbox)."""
    module: Any = plan.benchmark.module
    pairs = [(cast("Response", a).text, plan.docs[sample]) for sample, found in complete.items() for a in found]
    options = _known(module.verify_many, plan.benchmark.options)
    try:
        scores: Iterator[Score | str] = iter(module.verify_many(pairs, **options))
    except EvalsuiteError:
        raise
    except Exception:  # one of them has a bug; asked alone, the others are not lost with it
        scores = (_alone(module, pair, options) for pair in pairs)
    for sample, found in complete.items():
        own = [next(scores) for _ in found]
        why = next((s for s in own if isinstance(s, str)), "")
        try:
            yield sample, why or _headlined(plan.benchmark, _combined(module, cast("list[Score]", own)))
        except Exception as error:
            yield sample, f"the verifier raised {type(error).__name__}: {error}"


def _alone(module: Any, pair: tuple[str, Doc], options: Mapping[str, Any]) -> Score | str:
    """The score of one response, or what its verifier raised."""
    try:
        [score] = module.verify_many([pair], **options)
    except EvalsuiteError:
        raise
    except Exception as error:
        return f"the verifier raised {type(error).__name__}: {error}"
    return cast("Score", score)


def _unasked(plan: Plan, complete: Mapping[str, list[Answer]], judged: Judged) -> Mapping[str, Score | NoVerdict]:
    """Scores of the samples that need no judge, in a benchmark that scores these in another way (BERTScore)."""
    module: Any = plan.benchmark.module
    samples = [s for s in complete if not judged.verdicts.get((s, 0), ())]
    if not samples or not hasattr(module, "verify_unasked"):
        return {}
    pairs = [(cast("Response", complete[s][0]).text, plan.docs[s]) for s in samples]
    return dict(zip(samples, module.verify_unasked(pairs), strict=True))


def _judged_score(plan: Plan, sample: str, answers: list[Answer], judged: Judged) -> Score:
    module: Any = plan.benchmark.module
    scores = [
        module.verify_judged(cast("Response", a).text, plan.docs[sample], judged.verdicts[sample, number])
        for number, a in enumerate(answers)
    ]
    return _combined(module, scores)


def _score(plan: Plan, sample: str, answers: list[Answer]) -> Score:
    doc = plan.docs[sample]
    module: Any = plan.benchmark.module
    if module is None:
        return lm_eval_score(plan, sample, answers)
    options = _known(module.verify, plan.benchmark.options)
    if isinstance(answers[0], Response):
        return _combined(module, [module.verify(cast("Response", a).text, doc, **options) for a in answers])
    likelihoods = [cast("tuple[LogLikelihood, ...]", a) for a in answers]
    totals = [o.total for group in likelihoods for o in group]
    return cast("Score", module.verify(totals, doc, **options))


def _known(verify: Callable[..., Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that a verifier takes; a quirk of the prompt alone is none of its business."""
    return {k: v for k, v in options.items() if k in signature(verify).parameters} if options else {}


def _combined(module: Any, scores: list[Score]) -> Score:
    """One score of several responses to one prompt: as the benchmark says (pass@k), else their mean."""
    if hasattr(module, "combine"):
        return cast("Score", module.combine(scores))
    if len(scores) == 1:
        return scores[0]
    return replace(scores[0], value=sum(s.value for s in scores) / len(scores))


def _headlined(benchmark: Benchmark, score: Score) -> Score:
    """The score with the regime's number as its value, where that is one of the parts; the value becomes a part."""
    wanted = benchmark.meta.metric
    if wanted == benchmark.own_metric or wanted not in score.parts:
        return score
    value = score.parts[wanted]
    parts = {k: v for k, v in score.parts.items() if k != wanted} | {benchmark.own_metric: score.value}
    if isinstance(value, Ratio):
        value = value.hits / value.of if value.of else 0.0
    return replace(score, value=value, parts=parts)


def _summarised(
    plan: Plan, complete: Mapping[str, list[Answer]], tally: _Tally, result: Result, context: SummaryContext
) -> Result:
    """The result with the numbers that only the whole benchmark has (a length-controlled win rate)."""
    module: Any = plan.benchmark.module
    if module is None or not hasattr(module, "summary"):
        return result
    rows = [
        JudgedRow(s, cast("Response", found[0]).text, plan.docs[s], tally.full.get(s), tally.unjudged.get(s))
        for s, found in complete.items()
        if s in tally.full or s in tally.unjudged
    ]
    summary: Summary = module.summary(rows, context)
    parts = {name: Metric(*part) for name, part in summary.parts.items()}
    return replace(
        result,
        value=summary.value,
        stderr=summary.stderr,
        parts={**result.parts, **parts},
        notes=(*result.notes, *summary.notes),
    )


def _limited(result: Result, judged: Judged | None) -> Result:
    """No number where the judge too often gave no verdict: the samples that are left are not a sample of anything."""
    if judged is None or not judged.n_asked:
        return result
    n_lost = sum(judged.failures.values())
    if n_lost <= MAX_UNJUDGED * judged.n_asked:
        return result
    note = f"failed: the judge gave no verdict on {n_lost} of {judged.n_asked} (more than {MAX_UNJUDGED:.0%})"
    return replace(result, value=None, stderr=None, notes=(*result.notes, note))


def _count(tally: _Tally, sample: str, score: Score, answers: list[Answer], near: float) -> None:
    tally.scores[sample] = float(score.value)
    tally.full[sample] = score
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
    lost = _lost_categories(plan, tally)
    headline = _metric(tally.scores, plan) if tally.scores and not lost else None
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
        notes=(*plan.notes, *_empty_note(plan, tally), *lost),
        dataset=plan.dataset,
    )


def _lost_categories(plan: Plan, tally: _Tally) -> tuple[str, ...]:
    """A macro average over fewer categories than were asked is another number; the note that says so instead of it."""
    if plan.benchmark.meta.aggregate != "macro" or not tally.scores:
        return ()
    lost = sorted(set(plan.categories.values()) - {plan.categories[sample] for sample in tally.scores})
    return (f"absent: no sample of {', '.join(lost)} has a score",) if lost else ()


def _empty_note(plan: Plan, tally: _Tally) -> Iterator[str]:
    """A bug that empties responses looks like perfect safety."""
    share = tally.counts["empty"] / len(tally.scores) if tally.scores else 0.0
    if plan.benchmark.meta.split == "safety" and share > EMPTY_SHARE:
        yield f"warning: {share:.0%} of the responses are empty, which can look like safety"


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
