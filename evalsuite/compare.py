"""Two scorecards, sample by sample: what changed from A to B, and whether it can be told from noise."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from evalsuite.errors import UsageError
from evalsuite.scorecard import Result, Scorecard, group_result
from evalsuite.stats import Paired, average_difference, holm, paired
from evalsuite.tables.collect import engine_of

ALPHA = 0.05
NEAR = 1e-9


@dataclass(frozen=True, slots=True)
class Compared:
    """One benchmark on both sides. `first` and `second` are the scores on the shared samples alone.

    `pair` is B minus A: its wins are samples where B is higher. `p_holm` is adjusted over the benchmarks compared.
    """

    column: str
    benchmark: str
    metric: str
    first: float
    second: float
    pair: Paired
    p_holm: float
    n_only_first: int
    n_only_second: int
    same_digest: bool

    @property
    def better(self) -> str:
        """The side that is proven better, "A" or "B"; the empty string when neither is."""
        if self.p_holm >= ALPHA or self.pair.difference == 0:
            return ""
        return "B" if self.pair.difference > 0 else "A"


@dataclass(frozen=True, slots=True)
class Clean:
    """What a comparison without touched samples left out, by column.

    `n_left_out` counts shared samples. `emptied` are columns of which nothing is left, `unchecked` those with
    benchmarks that no report is about: all their samples count.
    """

    n_left_out: Mapping[str, int]
    emptied: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All benchmarks that both sides have. `average` is None unless both sides have every column of the suite.

    `clean` is None where all samples count.
    """

    first: Scorecard
    second: Scorecard
    benchmarks: tuple[Compared, ...]
    average: Paired | None
    n_columns: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    clean: Clean | None = None


def compare(
    first: Scorecard,
    second: Scorecard,
    *,
    allow_mixed: bool = False,
    touched: Mapping[str, Collection[str]] | None = None,
) -> Comparison:
    """The paired comparison of two scorecards, without the samples in `touched` (benchmark to ids).

    Raises UsageError naming every difference in regime, suite, suite digest or benchmark digest, unless `allow_mixed`;
    and when no benchmark has shared samples.
    """
    differences = list(_differences(first, second))
    if differences and not allow_mixed:
        raise UsageError(f"not comparable: {'; '.join(differences)} (--allow-mixed compares and marks them)")
    columns = {**dict(first.suite.columns), **dict(second.suite.columns)}
    pairs = {
        c: (a, b)
        for c, name in columns.items()
        if (a := first.result(name)) and (b := second.result(name)) and _comparable(a, b)
    }
    if not pairs:
        raise UsageError(
            f"{first.checkpoint.name!r} and {second.checkpoint.name!r} share no scored sample of any benchmark"
        )
    clean = None
    if touched is not None:
        pairs, clean = _cleaned(pairs, touched)
    tests = {c: test for c, (a, b) in pairs.items() if (test := compare_results(b, a))}
    adjusted = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    compared = tuple(_compared(c, *pairs[c], tests[c], adjusted[c]) for c in tests)
    total = len({*columns, *first.suite.missing, *second.suite.missing})
    told = {*tests, *(clean.emptied if clean else ())}
    return Comparison(
        first,
        second,
        compared,
        average_difference([c.pair for c in compared])
        if len(compared) == total and all(is_mean(a) and is_mean(b) for a, b in pairs.values())
        else None,
        total,
        tuple(c for c in dict(first.suite.columns) if c not in told),
        tuple(c for c in dict(second.suite.columns) if c not in told),
        clean,
    )


def _cleaned(
    pairs: Mapping[str, tuple[Result, Result]], touched: Mapping[str, Collection[str]]
) -> tuple[dict[str, tuple[Result, Result]], Clean]:
    """The pairs without touched samples, and what that left out. Raises UsageError when it is everything."""
    kept = {c: (without(a, touched), without(b, touched)) for c, (a, b) in pairs.items()}
    n_shared = {c: len(a.scores.keys() & b.scores.keys()) for c, (a, b) in pairs.items()}
    n_kept = {c: len(a.scores.keys() & b.scores.keys()) for c, (a, b) in kept.items()}
    left = {c: pair for c, pair in kept.items() if _comparable(*pair)}
    if not left:
        raise UsageError(f"training data touches every shared sample of {', '.join(pairs)}; nothing is left to compare")
    unchecked = tuple(c for c, (a, _) in pairs.items() if {m.benchmark for m in a.members or (a,)} - touched.keys())
    emptied = tuple(c for c in pairs if c not in left)
    return left, Clean({c: n_shared[c] - n_kept[c] for c in pairs}, emptied, unchecked)


def without(result: Result, touched: Mapping[str, Collection[str]]) -> Result:
    """The result on its samples that are not touched; its value is None when none is left."""
    if result.members:
        return group_result(result.benchmark, [without(m, touched) for m in result.members])
    ids = frozenset(touched.get(result.benchmark, ()))
    scores = {i: score for i, score in result.scores.items() if i not in ids}
    # A number that is no mean of samples stays as it is, so that it is told apart from one that is.
    value = value_on(result, scores) if scores and is_mean(result) else result.value if scores else None
    return replace(result, scores=scores, value=value)


def _comparable(first: Result, second: Result) -> bool:
    """Both sides have a number, and samples in common: a column that says failed is not compared behind its back."""
    return first.value is not None and second.value is not None and bool(first.scores.keys() & second.scores.keys())


def is_mean(result: Result) -> bool:
    """Whether the column's number is the aggregate of its samples' scores; a length-controlled win rate is not."""
    if result.members:
        return all(map(is_mean, result.members))
    if result.value is None or not result.scores:
        return False
    return abs(value_on(result, result.scores.keys()) - result.value) < NEAR


def compare_results(first: Result, second: Result) -> Paired | None:
    """First minus second on their shared samples, aggregated and clustered as the benchmark is; None without any.

    A column that averages several benchmarks is compared benchmark by benchmark, and needs shared samples of each.
    """
    if first.members and second.members:
        others = {m.benchmark: m for m in second.members}
        parts = [compare_results(m, others[m.benchmark]) for m in first.members if m.benchmark in others]
        there = [part for part in parts if part is not None]
        return average_difference(there) if len(there) == len(first.members) else None
    return paired(
        first.scores,
        second.scores,
        aggregate=first.aggregate,
        categories=dict(second.categories) | dict(first.categories),
        clusters=dict(second.clusters) | dict(first.clusters),
    )


def to_json(comparison: Comparison) -> str:
    """The comparison for programs: numbers 0 to 1, sides by name and digest."""
    document = {
        "a": _side(comparison.first),
        "b": _side(comparison.second),
        "benchmarks": [
            asdict(c) | {"difference": c.pair.difference, "better": c.better or None} for c in comparison.benchmarks
        ],
        "average": asdict(comparison.average) if comparison.average else None,
        "n_columns": comparison.n_columns,
        "only_a": list(comparison.only_first),
        "only_b": list(comparison.only_second),
    }
    if comparison.clean is not None:
        document["clean"] = asdict(comparison.clean)
    return json.dumps(document, indent=1) + "\n"


def judge_of(result: Result) -> str:
    """Who judged a benchmark, for people, told apart by the digest of all that verdicts depend on; "" for nobody."""
    judge = result.judge
    if not judge:
        return ""
    return f"{judge.get('model', judge.get('protocol'))} ({judge.get('protocol')}, {str(judge.get('digest', ''))[:12]})"


def _differences(first: Scorecard, second: Scorecard) -> Iterator[str]:
    """What keeps two scorecards from being compared, one phrase each."""
    a, b = first.suite, second.suite
    for what, x, y in (("suite", a.name, b.name), ("regime", a.regime, b.regime)):
        if x != y:
            yield f"{what} {x} and {y}"
    changed = [r.benchmark for r in first.results if (o := second.result(r.benchmark)) and o.digest != r.digest]
    for name in changed:
        digests = [card.result(name) for card in (first, second)]
        yield f"{name} has digests {' and '.join(r.digest[:12] for r in digests if r)}"
    for result in first.results:
        other = second.result(result.benchmark)
        if other and judge_of(result) != judge_of(other):
            sides = " and by ".join(judge_of(r) or "nobody" for r in (result, other))
            yield f"{result.benchmark} was judged by {sides}"
    if a.digest != b.digest and a.name == b.name and a.regime == b.regime and not changed:
        yield f"suite digests {a.digest[:12]} and {b.digest[:12]}"


def _compared(column: str, first: Result, second: Result, pair: Paired, p_holm: float) -> Compared:
    shared = first.scores.keys() & second.scores.keys()
    return Compared(
        column,
        first.benchmark,
        first.metric if is_mean(first) and is_mean(second) else f"mean score, not {first.metric}",
        value_on(first, shared),
        value_on(second, shared),
        pair,
        p_holm,
        len(first.scores.keys() - shared),
        len(second.scores.keys() - shared),
        first.digest == second.digest,
    )


def value_on(result: Result, samples: Collection[str]) -> float:
    """The benchmark's aggregate over some of its samples."""
    if result.members:
        parts = [(m, [i for i in m.scores if f"{m.benchmark}/{i}" in samples]) for m in result.members]
        values = [value_on(m, shared) for m, shared in parts if shared]
        return sum(values) / len(values)
    if result.aggregate == "macro" and result.categories:
        groups: dict[str, list[float]] = defaultdict(list)
        for sample in samples:
            groups[result.categories.get(sample, "")].append(result.scores[sample])
        return math.fsum(math.fsum(g) / len(g) for g in groups.values()) / len(groups)
    return math.fsum(map(result.scores.__getitem__, samples)) / len(samples)


def _side(card: Scorecard) -> dict[str, str]:
    return {
        "checkpoint": card.checkpoint.name,
        "digest": card.checkpoint.digest,
        "suite": card.suite.name,
        "regime": card.suite.regime,
        "suite_digest": card.suite.digest,
        "engine": engine_of(card),
    }
