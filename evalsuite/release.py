"""The one look at the unseen suite: preconditions, intent, a sealed run, then pass or fail and one rounded number."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from evalsuite import scorecard, unseen
from evalsuite.checkpoint import Checkpoint, open_checkpoint
from evalsuite.errors import CheckpointError, Incomplete, RegistryError, UsageError
from evalsuite.gate.facts import Facts, Items, Training
from evalsuite.gate.policy import Floor, Policy, Unseen
from evalsuite.gate.verdict import Finding
from evalsuite.registry import Event, Registry
from evalsuite.registry.chain import utc_now
from evalsuite.registry.manifest import manifest_of
from evalsuite.scorecard import Result, Scorecard
from evalsuite.suite import Suite
from evalsuite.tables.collect import SEALED
from evalsuite.unseen import Ask, Budget, Peek, Step

REFS = ("candidate", "champion")
"""Refs whose checkpoint may be released."""

NOTICE = "tamper-evident, not secret: the unseen questions and the answers (results/sealed) lie on this disk"

MakeScorecard = Callable[[Suite, Path], Scorecard]
"""Scores a suite with its journal and scorecards under a folder."""


@dataclass(frozen=True)
class Planned:
    """What a release would do. `peek` is the look it goes on with; None when it opens a new one, which is counted."""

    ref: str
    verdict: str
    peek: Peek | None
    budget: Budget
    findings: tuple[Finding, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(f.why for f in self.findings if f.outcome != "pass")


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is told of a look. `value` is None where the Ladder lets no new number out and `last` still stands.

    `generation` is that of the release ref when the checkpoint passed, `left` how many looks the next 90 days have.
    """

    checkpoint: Mapping[str, str]
    suite: Mapping[str, str]
    policy: str
    passed: bool
    value: float | None
    eta: float
    last: float | None
    generation: int | None
    left: int
    warnings: tuple[str, ...] = ()
    notice: str = NOTICE

    @property
    def exit_code(self) -> int:
        return 0 if self.passed else 1


@dataclass(frozen=True)
class Release:
    """What is to be released, and how: the checkpoint as it was opened, the unseen suite, the release policy.

    `reopen` opens the checkpoint's folder again, the same way as the first time.
    """

    registry: Registry
    checkpoint: Checkpoint
    suite: Suite
    policy: Policy
    results: Path
    training: Training = field(default_factory=Training)
    reason: str = ""
    clock: Callable[[], datetime] = utc_now
    reopen: Callable[[Path], Checkpoint] = open_checkpoint

    @property
    def ask(self) -> Ask:
        suite = {"name": self.suite.name, "digest": self.suite.digest, "regime": self.suite.regime}
        return Ask(self.checkpoint.digest, self.checkpoint.name, suite, self.policy.digest, self.reason)

    @property
    def sealed(self) -> Path:
        return self.results / SEALED


def release(wanted: Release, make_scorecard: MakeScorecard) -> Outcome:
    """Looks once, and makes the checkpoint the release when the policy passes.

    A killed release goes on with the same look when it is called again. Raises UnseenBudget when the budget is spent,
    UsageError or RegistryError when a precondition fails (nothing is counted then), Incomplete while samples are
    missing.
    """
    with wanted.registry.locked():
        # Locked once at the start, because that finishes a move of the ref that was killed half-way.
        done = _unmoved(wanted)
    if done is not None:
        _cleared(wanted)
        return _moved(wanted, *done, ())
    plan = planned(wanted)
    folder = _make_sealed(wanted.sealed)
    if plan.peek is None and plan.findings:
        _note_decontam(wanted, plan.findings)
    peek = unseen.begin(wanted.registry, wanted.policy.unseen, wanted.ask, wanted.clock())
    card = make_scorecard(wanted.suite, folder)
    _check_card(wanted, card)
    kept = _keep(folder, peek, card)
    with wanted.registry.locked():
        # Looked up while nobody else can release: two numbers at once would each beat the one before.
        result = unseen.finish(wanted.registry, peek, _result(wanted, card) | {"card": kept})
    return _moved(wanted, peek, result, plan.warnings)


# -- may it be looked at? --


def planned(wanted: Release) -> Planned:
    """What `release` would do; writes nothing and opens no data. Raises what it would raise."""
    _check_suite(wanted)
    ref, verdict = _cleared(wanted)
    seen = unseen.peeks(wanted.registry)
    now = unseen.latest(wanted.registry, wanted.clock())
    peek = unseen.unfinished(seen, wanted.checkpoint.digest, wanted.suite.digest)
    left = unseen.budget(seen, wanted.policy.unseen, wanted.checkpoint.digest, now)
    if peek is None:
        unseen.affordable(seen, wanted.policy.unseen, wanted.ask, now)
    findings = tuple(_contamination(wanted))
    _refuse_contaminated(wanted, findings)
    return Planned(ref, verdict, peek, left, findings)


def _check_suite(wanted: Release) -> None:
    suite = wanted.suite
    if suite.split != "unseen" and all(b.meta.split != "unseen" for b in suite.columns.values()):
        raise UsageError(
            f"suite {suite.name!r} is no unseen suite; score it with: evalsuite score --suite {suite.name}"
        )


def _cleared(wanted: Release) -> tuple[str, str]:
    """(ref, digest of the verdict) that make this checkpoint one to be released."""
    checkpoint, registry = wanted.checkpoint, wanted.registry
    refs = registry.refs()
    ref = next((name for name in REFS if name in refs and refs[name].id == checkpoint.digest), None)
    if ref is None:
        held = ", ".join(f"{name} {refs[name].id[:12]}" for name in REFS if name in refs) or "neither is set"
        raise UsageError(
            f"{checkpoint.name} ({checkpoint.digest[:12]}) is neither candidate nor champion ({held}); gate and "
            f"promote it first: evalsuite gate {checkpoint.path}, evalsuite promote {checkpoint.path}"
        )
    found = registry.verdict_of(checkpoint.digest)
    if found is None:
        raise UsageError(f"{checkpoint.name}: no verdict on development; run: evalsuite gate {checkpoint.path}")
    digest, verdict, _ = found
    if not verdict["final"] or verdict["outcome"] != "promote":
        said = repr(verdict["outcome"]) if verdict["final"] else "not final"
        raise UsageError(
            f"{checkpoint.name}: its verdict on {verdict['suite']['name']} is {said}; only what the gate promotes is "
            f"worth a look at the unseen suite (see: evalsuite gate explain {digest[:12]})"
        )
    return ref, digest


def _contamination(wanted: Release) -> Iterator[Finding]:
    """What is known of the training data and this suite."""
    from evalsuite.gate.evidence import standing

    names = [b.name for b in wanted.suite.columns.values()]
    facts = Facts(dict.fromkeys(names, Items(())), {}, training=wanted.training)
    yield from (f for f in standing(wanted.policy, facts) if f.rule == "decontamination")


def _refuse_contaminated(wanted: Release, findings: Sequence[Finding]) -> None:
    bad = [f for f in findings if f.outcome not in ("pass", "warn")]
    if bad:
        told = "; ".join(f"{f.benchmark}: {f.why}" if f.benchmark else f.why for f in bad)
        raise UsageError(f"{wanted.checkpoint.name}: {told}. Nothing was looked at; see: evalsuite decontam --help")


def _note_decontam(wanted: Release, findings: Sequence[Finding]) -> None:
    told = [{"benchmark": f.benchmark, "outcome": f.outcome, "why": f.why} for f in findings]
    detail = {"suite": dict(wanted.ask.suite), "findings": told}
    unseen.note(wanted.registry, "decontam", wanted.checkpoint.digest, "", detail)


def refuse_raised(rule: Unseen, allowed: Unseen) -> None:
    """Raises UsageError where a rule, changed on the command line, gives more than the policy allows.

    A step of one's own is refused where the policy has none: it could be finer than max(0.5 points, standard error).
    """
    finer = rule.eta is None if allowed.eta is not None else rule.eta is not None
    if rule.eta is not None and allowed.eta is not None:
        finer = rule.eta < allowed.eta
    wrong = [
        f"unseen.{name} is {_word(getattr(rule, name))}, the policy allows {_word(getattr(allowed, name))}"
        for name, more in {
            "per_candidate": rule.per_candidate > allowed.per_candidate,
            "per_90_days": rule.per_90_days > allowed.per_90_days,
            "eta": finer,
        }.items()
        if more
    ]
    if wrong:
        raise UsageError(f"--set: {'; '.join(wrong)}. Here it may only be lowered; what is allowed is said by --policy")


def _word(value: float | None) -> str:
    return "auto" if value is None else f"{value:g}"


# -- what was seen --


def _make_sealed(folder: Path) -> Path:
    """The folder, open to its owner alone."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as error:
        raise RegistryError(f"{folder}: cannot be sealed ({error.strerror}); nothing was looked at") from error
    return folder


def _check_card(wanted: Release, card: Scorecard) -> None:
    """Only a whole run of this checkpoint on this suite has a number."""
    if card.checkpoint.digest != wanted.checkpoint.digest or card.suite.digest != wanted.suite.digest:
        raise UsageError(
            f"the scorecard is of checkpoint {card.checkpoint.digest[:12]} and suite {card.suite.digest[:12]}, "
            f"expected {wanted.checkpoint.digest[:12]} and {wanted.suite.digest[:12]}; the look stays open"
        )
    again = "type the same command again: it goes on with the same look"
    absent = [c for c, b in wanted.suite.table.items() if (r := card.result(b)) is None or r.value is None]
    n_failed = sum(result.n_failed for result in card.results)
    if n_failed or absent:
        what = f"{n_failed} samples failed" if n_failed else f"no score for {', '.join(absent)}"
        raise Incomplete(f"{wanted.suite.name}: {what}, so nothing is released; {again}")


def _keep(folder: Path, peek: Peek, card: Scorecard) -> dict[str, str]:
    """Stores the card where only `--unseal` reads it; (file, sha256) so that a changed one is found out."""
    path = folder / "released" / f"{peek.candidate[:12]}-{peek.intent.seq}.json"
    scorecard.write(card, path)
    return {"file": str(path.relative_to(folder)), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _result(wanted: Release, card: Scorecard) -> dict[str, Any]:
    last = unseen.last_released(unseen.peeks(wanted.registry), wanted.suite.digest)
    step = unseen.ladder(*suite_number(card), last, wanted.policy.unseen.eta)
    new = {} if step.value is None else {wanted.suite.name: {"value": step.value, "eta": step.eta}}
    told = {"passed": passes(wanted.policy.safety, card), "released": new, "eta": step.eta, "last": _last(step)}
    return {"suite": dict(wanted.ask.suite), "policy": wanted.policy.digest, **told}


def _last(step: Step) -> dict[str, Any] | None:
    return {"value": step.last.value, "candidate": step.last.candidate} if step.last else None


def suite_number(card: Scorecard) -> tuple[float, float | None]:
    """(mean of the columns, its standard error √(Σ SE²) / B, None when a column has none)."""
    columns = [result for b in card.suite.columns.values() if (result := card.result(b))]
    errors = [result.stderr for result in columns if result.stderr is not None]
    value = math.fsum(result.value or 0.0 for result in columns) / len(columns)
    if len(errors) < len(columns):
        return value, None
    return value, math.sqrt(math.fsum(error * error for error in errors)) / len(columns)


def passes(floors: Mapping[str, Floor], card: Scorecard) -> bool:
    """Whether every score is inside its bounds; one that is not there is not."""
    return all(_inside(_score(card, name), bounds) for name, bounds in floors.items())


def _score(card: Scorecard, name: str) -> float | None:
    benchmark, _, category = name.partition("/")
    result = card.result(benchmark)
    if result is None or not category:
        return result.value if result else None
    part = result.by_category.get(category)
    return part.value if part else None


def _inside(value: float | None, bounds: Floor) -> bool:
    if value is None:
        return False
    above = bounds.floor is None or value >= bounds.floor
    return above and (bounds.ceiling is None or value <= bounds.ceiling)


# -- what becomes of it --


def _unmoved(wanted: Release) -> tuple[Peek, Event] | None:
    """A look that passed while the ref was not moved: the release was killed between the two."""
    moved = {event.detail.get("peek") for event in wanted.registry.events() if event.ref == "release"}
    for peek in unseen.peeks(wanted.registry):
        same = peek.candidate == wanted.checkpoint.digest and peek.suite["digest"] == wanted.suite.digest
        if same and peek.result and peek.result.detail["passed"] and peek.result.hash not in moved:
            return peek, peek.result
    return None


def _moved(wanted: Release, peek: Peek, result: Event, warnings: Sequence[str]) -> Outcome:
    """The outcome, after the release ref was moved where the policy passed."""
    generation = _move(wanted, result) if result.detail["passed"] else None
    now = unseen.latest(wanted.registry, wanted.clock())
    left = unseen.budget(unseen.peeks(wanted.registry), wanted.policy.unseen, peek.candidate, now)
    new, last = result.detail["released"].get(peek.suite["name"]), result.detail["last"]
    return Outcome(
        checkpoint={"name": wanted.checkpoint.name, "digest": peek.candidate},
        suite=peek.suite,
        policy=result.detail["policy"],
        passed=result.detail["passed"],
        value=new["value"] if new else None,
        eta=result.detail["eta"],
        last=last["value"] if last else None,
        generation=generation,
        left=left.in_window,
        warnings=tuple(warnings),
    )


def _move(wanted: Release, result: Event) -> int:
    checkpoint = wanted.checkpoint

    def check() -> None:
        if wanted.reopen(checkpoint.path).digest != checkpoint.digest:
            raise CheckpointError(f"{checkpoint.path}: changed since it was looked at; it was not released")

    found = wanted.registry.verdict_of(checkpoint.digest)
    ref = wanted.registry.promote(
        "release",
        checkpoint_id=checkpoint.digest,
        manifest=manifest_of(checkpoint, {"peek": result.hash, "suite": dict(wanted.ask.suite)}),
        expected_generation=None,
        verdict=found[0] if found else None,
        reason=wanted.reason,
        detail={"peek": result.hash},
        check=check,
    )
    return ref.generation


# -- the seal broken, and the history --


def unseal(registry: Registry, results: Path, candidate: str, suite_digest: str, reason: str) -> Scorecard:
    """The whole scorecard of a finished look, after the ledger has taken down who opened it and why."""
    if not reason.strip():
        raise UsageError("the ledger keeps why a seal was broken; add --reason TEXT")
    done = [
        peek.result
        for peek in unseen.peeks(registry)
        if peek.candidate == candidate and peek.suite["digest"] == suite_digest and peek.result
    ]
    if not done:
        raise UsageError("nothing to unseal: this checkpoint has not been looked at (see: evalsuite release --status)")
    kept = done[-1].detail["card"]
    path = results / SEALED / kept["file"]
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != kept["sha256"]:
        raise RegistryError(f"{path}: gone, or changed since event {done[-1].seq} of {registry.peeks.path} was written")
    unseen.note(registry, "unseal", candidate, reason, {"result": done[-1].hash})
    return scorecard.read(path)


def status(registry: Registry, policy: Policy, now: datetime) -> dict[str, Any]:
    """Budget and history of the ledger, as plain data."""
    latest, seen = unseen.latest(registry, now), unseen.peeks(registry)
    left = unseen.budget(seen, policy.unseen, "", latest)
    return {
        "budget": {
            "per_90_days": policy.unseen.per_90_days,
            "per_candidate": policy.unseen.per_candidate,
            "left": left.in_window,
            "free_at": left.free_at.isoformat() if left.free_at else None,
        },
        "history": [_told(event) for event in registry.peeks.read()],
        "notice": NOTICE,
    }


def _told(event: Event) -> dict[str, Any]:
    """An event without where its card lies."""
    detail = {key: value for key, value in event.detail.items() if key != "card"}
    kept = ("seq", "ts", "actor", "host", "event", "id", "reason")
    return {**{name: getattr(event, name) for name in kept}, "detail": detail}


class SealedObserver:
    """Passes on how far a run is, and no score."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def say(self, line: str) -> None:
        self._inner.say(line)

    def planned(self, benchmark: str, n_requests: int, n_reused: int, at_most: bool = False) -> None:
        self._inner.planned(benchmark, n_requests, n_reused)

    def answered(self, benchmark: str, answer: Any) -> None:
        self._inner.answered(benchmark, answer)

    def done(self, result: Result) -> None:
        self._inner.say(f"{result.benchmark}: done")

    def close(self) -> None:
        self._inner.close()
