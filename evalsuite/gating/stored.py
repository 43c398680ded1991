"""A gate over scorecards alone: nothing can be asked, so what a card lacks is missing, and a part of one is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evalsuite.errors import BenchmarkError, UsageError
from evalsuite.gate.facts import Check, Items
from evalsuite.gate.naming import benchmarks_of, refuse_categories
from evalsuite.gate.policy import Policy
from evalsuite.gating.sides import Side, Stored
from evalsuite.progress import Observer
from evalsuite.regime import NO_QUIRKS, known_regimes
from evalsuite.scorecard import PARTIAL, Result, Scorecard, SuiteRef
from evalsuite.suite import Suite, adhoc_suite, load_suite

if TYPE_CHECKING:
    from evalsuite.gating import GateJob, _Gate

ADHOC = "tasks:"  # how the name of a suite begins that `score --tasks` made up


def stored(job: GateJob, candidate: Scorecard, observer: Observer) -> _Gate:
    """The gate on scorecards as they are, one sample an item.

    Raises UsageError for cards that are not of whole benchmarks or were judged by different judges, and PolicyError for
    a floor on a category that no item has.
    """
    from evalsuite.gating import _facts, _Gate  # the package imports this file

    cards = {"candidate": candidate}
    for role, source in (("champion", job.champion), ("anchor", job.anchor)):
        if source is not None and not isinstance(source, Scorecard):
            raise UsageError("a scorecard is compared with another scorecard: --against FILE")
        if source is not None:
            cards[role] = source
    _refuse(cards)
    suite = suite_of(candidate.suite) if any(card.suite.missing for card in cards.values()) else None
    cards = {role: completed(card, suite) for role, card in cards.items()}
    items = {name: found for name in _wanted(cards) if (found := _items(job.policy, name, cards))}
    refuse_categories(job.policy, {name: set(found.categories.values()) for name, found in items.items()})
    sides: dict[str, Side] = {role: Stored(role, card) for role, card in cards.items()}
    facts, prepared = _facts(job, cards["candidate"].suite, sides, items, infra=tuple(_absent(cards, items)))
    facts = replace(facts, exhausted=True, versions=dict(candidate.provenance.get("versions", {})))
    return _Gate(job, sides, facts, prepared, dict.fromkeys(items, 1), observer)


def suite_of(
    ref: SuiteRef, named: str | None = None, extra: Sequence[Path] = (), regime: str | None = None
) -> Suite | None:
    """The suite that a scorecard is of; None when it is not known here, or is another by now.

    `named` is what the user calls it, a name or a file; then it must be the scorecard's, else UsageError.
    """
    tag = ref.regime.partition("+")[0]
    plain = tag.removesuffix(NO_QUIRKS)
    wanted, quirks = regime or (plain if plain in known_regimes() else None), plain == tag
    try:
        if named is None and ref.name.startswith(ADHOC):
            found = adhoc_suite(ref.name.removeprefix(ADHOC).split("+"), extra, wanted, quirks)
        else:
            found = load_suite(named or ref.name, extra, wanted, quirks)
    except (BenchmarkError, UsageError):
        if named is not None:
            raise
        return None
    if named is not None and found.digest != ref.digest:
        raise UsageError(
            f"--suite {named}: it is {found.name}@sha256:{found.digest[:12]} at {found.regime} here, and the scorecard "
            f"is of {ref.name}@sha256:{ref.digest[:12]} at {ref.regime}; score again, or leave --suite out"
        )
    return found if found.digest == ref.digest else None


def completed(card: Scorecard, suite: Suite | None) -> Scorecard:
    """The card with every column of its suite, scored or not; as it is for another suite, or one that is not known.

    `missing` is empty then: columns that were published and are not shipped can be in no scorecard.
    """
    if suite is None or suite.digest != card.suite.digest:
        return card
    whole = suite.ref(list(suite.columns))
    return replace(card, suite=replace(card.suite, columns=whole.columns, missing=(), groups=whole.groups))


# -- what is refused --


def _refuse(cards: Mapping[str, Scorecard]) -> None:
    """Raises UsageError with everything that makes the cards no fair comparison."""
    problems = [line for role, card in cards.items() for line in (*_doubled(role, card), *_partial(role, card))]
    for role, card in cards.items():
        if role != "candidate":
            problems += _judged_otherwise(cards["candidate"], card, role)
    if problems:
        raise UsageError("\n".join(problems))


def _doubled(role: str, card: Scorecard) -> Iterator[str]:
    for name, n in Counter(r.benchmark for r in card.results).items():
        if n > 1:
            yield f"{name}: the scorecard of the {role} has {n} results of it; score {card.checkpoint.name} again"


def _partial(role: str, card: Scorecard) -> Iterator[str]:
    """Where the card is of less, or of more, than the whole benchmark: two such cards hide what neither has."""
    limit = card.provenance.get("limit")
    notes = [f"{r.benchmark}: {note}" for r in card.results for note in r.notes if PARTIAL.match(note)]
    chosen = [f"--limit {limit}"] if limit else ["--samples"] if card.provenance.get("samples") else []
    if chosen or notes:
        yield (
            f"the scorecard of the {role}, {card.checkpoint.name}, is not of whole benchmarks "
            f"({'; '.join([*chosen, *notes])}); a gate needs a full one (evalsuite score)"
        )


def _judged_otherwise(candidate: Scorecard, other: Scorecard, role: str) -> Iterator[str]:
    for mine in candidate.results:
        theirs = other.result(mine.benchmark)
        if theirs is not None and _judge(mine) != _judge(theirs):
            yield (
                f"{mine.benchmark}: candidate and {role} were judged by {_named(mine)} and {_named(theirs)}; "
                "judge both by the same one (evalsuite score --judge)"
            )


def _judge(result: Result) -> str:
    return str(result.judge.get("digest") or "")


def _named(result: Result) -> str:
    digest = _judge(result)
    return f"{result.judge.get('model')} ({digest[:12]})" if digest else "no judge"


# -- what is compared --


def _wanted(cards: Mapping[str, Scorecard]) -> tuple[str, ...]:
    """Benchmarks of the suite and of every card: what one of them lacks must be seen to be missing."""
    named = [b for card in cards.values() for b in benchmarks_of(card.suite).values()]
    return tuple(dict.fromkeys([*named, *(r.benchmark for card in cards.values() for r in card.results)]))


def _items(policy: Policy, name: str, cards: Mapping[str, Scorecard]) -> Items | None:
    """Every sample that one of the cards has; None for a benchmark that is in no card."""
    results = [result for card in cards.values() if (result := card.result(name)) is not None]
    if not results:
        return None
    ids: set[str] = set()
    categories: dict[str, str] = {}
    clusters: dict[str, str] = {}
    for result in reversed(results):  # the candidate's word counts
        ids |= result.scores.keys() | result.failures.keys()
        categories |= result.categories
        clusters |= result.clusters
    cluster = policy.rule(name).cluster
    grouped = categories if cluster == "category" else clusters if cluster != "none" else {}
    macro, safety = results[0].aggregate == "macro", any(r.split == "safety" for r in results)
    return Items(tuple(sorted(ids)), dict(grouped), categories, macro=macro, safety=safety)


def _absent(cards: Mapping[str, Scorecard], items: Mapping[str, Items]) -> Iterator[Check]:
    """One check that fails when no card has a column of the suite; what one card lacks is a finding of its own."""
    absent = [name for name in _wanted(cards) if name not in items]
    if absent:
        words = f"no scorecard has {', '.join(absent)} of the suite (complete them: evalsuite score)"
        yield Check("columns", False, words)
