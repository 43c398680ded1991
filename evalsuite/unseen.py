"""The unseen ledger: every look at an unseen suite is written down before it begins, counted, and answered in steps.

`peeks.jsonl` of the registry holds an `intent` before the first prompt is built, then a `result`; `decontam` and
`unseal` are written there too. Tamper-evident, not secret: the rows lie on the user's own disk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from evalsuite.errors import RegistryError, UnseenBudget

if TYPE_CHECKING:
    from evalsuite.benchmark import Benchmark
    from evalsuite.gate.policy import Unseen
    from evalsuite.registry import Event, Registry
    from evalsuite.scorecard import Scorecard
    from evalsuite.suite import Suite

WINDOW = timedelta(days=90)
MIN_ETA = 0.005
_FUZZ = 1e-12  # a gain of exactly one step is no more than one step, whatever binary fractions make of it


# -- who may not look --


def refuse(suite: Suite, columns: Mapping[str, Benchmark]) -> None:
    """Raises UnseenBudget when the suite, or one of the benchmarks asked for, is unseen. Opens no data."""
    unseen = [name for name, benchmark in columns.items() if benchmark.meta.split == "unseen"]
    # A suite file of a user's may declare what it holds unseen.
    unseen = unseen or (list(columns) if suite.split == "unseen" else [])
    if unseen:
        raise UnseenBudget(
            f"suite {suite.name!r} has unseen benchmarks ({', '.join(unseen)}): looking at them while developing would "
            "make them development benchmarks. Only `evalsuite release` may read it"
        )


def refuse_cards(cards: Iterable[Scorecard]) -> None:
    """Raises UnseenBudget for a scorecard with unseen results."""
    for card in cards:
        unseen = [result.benchmark for result in card.results if result.split == "unseen"]
        if unseen:
            raise UnseenBudget(
                f"the scorecard of {card.checkpoint.name!r} on {card.suite.name!r} has unseen benchmarks "
                f"({', '.join(unseen)}), and comparing it sample by sample would show them. Only `evalsuite release` "
                "may read them (see: evalsuite release --status)"
            )


# -- who has looked --


@dataclass(frozen=True, slots=True)
class Peek:
    """One look: what was intended and, once it is over, what came of it.

    `at` is never before a time that the ledger has seen earlier: a clock that was set back frees no budget.
    """

    intent: Event
    result: Event | None
    at: datetime

    @property
    def candidate(self) -> str:
        return str(self.intent.id)

    @property
    def suite(self) -> Mapping[str, str]:
        """Name and digest."""
        found: Mapping[str, str] = self.intent.detail["suite"]
        return found


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left: looks in the window, looks of one candidate, and when the next look of the window comes free."""

    in_window: int
    of_candidate: int
    free_at: datetime | None

    @property
    def left(self) -> int:
        return min(self.in_window, self.of_candidate)


@dataclass(frozen=True, slots=True)
class Released:
    """A number that was let out: in whole steps of `eta`, of the checkpoint `candidate`."""

    value: float
    eta: float
    candidate: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What the Ladder lets out. `value` is the new number, None where the one before, `last`, still stands."""

    value: float | None
    eta: float
    last: Released | None


def peeks(registry: Registry) -> tuple[Peek, ...]:
    """Every look, oldest first. Raises RegistryError when the ledger was edited or its end was cut off."""
    events = registry.peeks.read()
    _refuse_cut(registry, events)
    results = {event.detail["intent"]: event for event in events if event.event == "result"}
    return tuple(
        Peek(event, results.get(event.hash), at)
        for event, at in zip(events, _times(events), strict=True)
        if event.event == "intent"
    )


def _refuse_cut(registry: Registry, events: Sequence[Event]) -> None:
    """A chain does not show that its last lines are gone; the audit log repeats the hash of every intent."""
    known = {event.hash for event in events}
    for event in registry.events():
        if event.event == "peek" and event.detail["intent"] not in known:
            raise RegistryError(
                f"{registry.peeks.path}: the intent that event {event.seq} of the audit log repeats is gone; the "
                "ledger was cut, restore it from a copy (evalsuite registry verify lists every fault)"
            )


def _times(events: Sequence[Event]) -> list[datetime]:
    """The time of each event, raised to the latest that any event before it has: seq orders, not the clock."""
    times: list[datetime] = []
    for event in events:
        ts = datetime.fromisoformat(event.ts).astimezone(UTC)
        times.append(max(ts, times[-1]) if times else ts)
    return times


def latest(registry: Registry, now: datetime) -> datetime:
    """The latest time that clock and ledger have seen."""
    return max([now.astimezone(UTC), *_times(registry.peeks.read())[-1:]])


def budget(seen: Sequence[Peek], rule: Unseen, candidate: str, now: datetime) -> Budget:
    """What is left at `now` (see `latest`) by the rule of a policy. Every intent counts, finished or not."""
    recent = sorted(peek.at for peek in seen if now - peek.at < WINDOW)
    n_own = sum(peek.candidate == candidate for peek in seen)
    spent = len(recent) >= rule.per_90_days
    free_at = recent[-rule.per_90_days] + WINDOW if spent else None
    return Budget(max(0, rule.per_90_days - len(recent)), max(0, rule.per_candidate - n_own), free_at)


def unfinished(seen: Sequence[Peek], candidate: str, suite_digest: str) -> Peek | None:
    """The look of this candidate that was begun and not ended: it is continued, not opened again."""
    return next(
        (p for p in seen if p.result is None and p.candidate == candidate and p.suite["digest"] == suite_digest), None
    )


@dataclass(frozen=True, slots=True)
class Ask:
    """A look that somebody wants: at which suite (name and digest), by which policy (digest), at which candidate."""

    candidate: str
    name: str
    suite: Mapping[str, str]
    policy: str
    reason: str = ""


def begin(registry: Registry, rule: Unseen, ask: Ask, now: datetime) -> Peek:
    """The look that this candidate has open, else a new one, on disk when this returns.

    Raises UnseenBudget when the budget is spent. Nothing unseen may be opened before.
    """
    from evalsuite.registry.faults import reached

    with registry.locked():
        seen = peeks(registry)
        peek = unfinished(seen, ask.candidate, ask.suite["digest"])
        if peek is None:
            left = affordable(seen, rule, ask, latest(registry, now))
            registry.peeks.append("intent", id=ask.candidate, reason=ask.reason, detail=_facts(ask, left))
            peek = peeks(registry)[-1]
        _repeat(registry, peek.intent)
    reached("intent")
    return peek


def _facts(ask: Ask, left: Budget) -> dict[str, Any]:
    facts = {"name": ask.name, "suite": dict(ask.suite), "policy": ask.policy}
    return {**facts, "left": {"in_90_days": left.in_window - 1, "of_candidate": left.of_candidate - 1}}


def _repeat(registry: Registry, intent: Event) -> None:
    """Says the intent in the audit log too, once: whoever was killed in between says it when it goes on."""
    if not any(e.event == "peek" and e.detail["intent"] == intent.hash for e in registry.events()):
        registry.record("peek", id=intent.id, reason=intent.reason, detail={"intent": intent.hash, "seq": intent.seq})


def affordable(seen: Sequence[Peek], rule: Unseen, ask: Ask, now: datetime) -> Budget:
    """The budget before this look. Raises UnseenBudget when it is spent, with the date of the next free slot."""
    left = budget(seen, rule, ask.candidate, now)
    if left.left > 0:
        return left
    whole = f"{rule.per_90_days} looks in 90 days"
    when = f"the next one is free on {left.free_at:%Y-%m-%d %H:%M} UTC" if left.free_at else "free now"
    if left.of_candidate > 0:
        raise UnseenBudget(f"the unseen budget of {whole} is spent; {when} (see: evalsuite release --status)")
    times = "once" if rule.per_candidate == 1 else f"{rule.per_candidate} times"
    raise UnseenBudget(
        f"{ask.name} was looked at {times}{_came_of(seen, ask)}, which is all that a checkpoint gets; of {whole} for "
        f"other checkpoints {left.in_window} are left, {when} (see: evalsuite release --status)"
    )


def _came_of(seen: Sequence[Peek], ask: Ask) -> str:
    """In brackets, what the last look at a candidate came to."""
    last = [peek for peek in seen if peek.candidate == ask.candidate][-1]
    if last.result is None:
        return f" (begun on suite {last.suite['name']} {last.suite['digest'][:12]}, now {ask.suite['digest'][:12]})"
    numbers = [f"{100 * float(n['value']):.4g}" for n in last.result.detail["released"].values()]
    return f" ({'passed' if last.result.detail['passed'] else 'failed'}, {', '.join(numbers) or 'no new number'})"


def finish(registry: Registry, peek: Peek, detail: Mapping[str, Any]) -> Event:
    """Writes what came of a look, once: where another process has written it, that stands and is returned."""
    with registry.locked():
        for each in peeks(registry):
            if each.intent.hash == peek.intent.hash and each.result is not None:
                return each.result
        return registry.peeks.append("result", id=peek.candidate, detail={"intent": peek.intent.hash, **detail})


def note(registry: Registry, event: str, candidate: str, reason: str, detail: Mapping[str, Any]) -> Event:
    """Writes an event that is no look: `decontam` or `unseal`."""
    with registry.locked():
        return registry.peeks.append(event, id=candidate, reason=reason, detail=dict(detail))


# -- how little is told --


def last_released(seen: Iterable[Peek], suite_digest: str) -> Released | None:
    """The number that was let out last for exactly this suite."""
    last = None
    for peek in seen:
        if peek.result is None or peek.suite["digest"] != suite_digest:
            continue
        number = peek.result.detail["released"].get(peek.suite["name"])
        if number is not None:
            last = Released(float(number["value"]), float(number["eta"]), peek.candidate)
    return last


def ladder(value: float, stderr: float | None, last: Released | None, eta: float | None = None) -> Step:
    """Lets a number out only when it beats the last one by more than η, and then to the nearest η.

    The Ladder of Blum & Hardt (2015, arXiv 1502.04585, algorithm 1) for scores, where more is better. η is `eta`, else
    max(0.5 points, the standard error).
    """
    step = eta if eta is not None else max(MIN_ETA, stderr or 0.0)
    if last is not None and value - last.value <= step + _FUZZ:
        return Step(None, step, last)
    # The half goes up; `round` would send it to the even step.
    return Step(min(1.0, max(0.0, math.floor(value / step + 0.5 + _FUZZ) * step)), step, last)
