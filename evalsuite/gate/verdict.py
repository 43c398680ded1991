"""What a gate says: one outcome, and a finding for every line of the policy, passed or failed.

A verdict holds no time of day and nothing that depends on how often the run was interrupted, so that the same inputs
give the same bytes.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from evalsuite.errors import UsageError

SCHEMA = "gate/1"
INDENT = " " * 7
EARLY = "~"  # behind a difference over a part of the items: it decides, and is biased as an estimate
Outcome = Literal["promote", "block", "hold"]
FindingOutcome = Literal["pass", "warn", "hold", "block", "error"]
EXIT_CODES: Mapping[str, int] = {"promote": 0, "block": 1, "hold": 3}
ORDER: Mapping[str, int] = {"block": 0, "error": 1, "hold": 2, "warn": 3, "pass": 4}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a verdict. Scores, differences and limits are 0 to 1; what does not apply is None.

    `was` and `now` are means over the items that both sides were scored on, `difference` is now − was with its 95 %
    interval, `limit` the allowed drop (or the floor). `look` counts from 1. `blind` is the drop that could not have
    been seen. `variance` and `icc` of the differences stand where the whole benchmark was looked at; they plan the next
    gate.
    """

    benchmark: str
    rule: str
    outcome: FindingOutcome
    why: str
    reference: str = ""
    tier: str = "standard"
    was: float | None = None
    now: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    z: float | None = None
    n: int = 0
    n_planned: int = 0
    k: int = 1
    look: int | None = None
    looks: int | None = None
    early: bool = False
    blind: float | None = None
    variance: float | None = None
    icc: float | None = None


@dataclass(frozen=True, slots=True)
class Party:
    """One side of a gate. `generation` is that of the ref it came from; None for a checkpoint named by its path."""

    name: str
    digest: str
    generation: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided and why. While not `final`, `needs` says up to which item each benchmark must be scored next.

    `cost` counts (item, sample) responses of the candidate that were used, of a full run with one sample per item, and
    what was used of the references. `blind` has for each benchmark the smallest drop that could have been seen. `again`
    counts other gates of this candidate against this champion, `partial` says how much of the suite was gated,
    `declared` is the digest of what the checkpoint's evalsuite.json says of its data (`facts.declared_digest`).
    """

    gate_id: str
    policy: str
    policy_name: str
    suite: Mapping[str, str]
    ref: str | None
    candidate: Party
    champion: Party | None
    anchor: Party | None
    attempt: int
    outcome: Outcome
    findings: tuple[Finding, ...]
    cost: Mapping[str, float]
    blind: Mapping[str, float]
    pairs: int
    bootstrap: bool = False
    claim: bool = False
    again: int = 0
    partial: str = ""
    engine: Mapping[str, str] = field(default_factory=dict)
    declared: str = ""
    settings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    final: bool = True
    needs: Mapping[str, int] = field(default_factory=dict)
    schema: str = SCHEMA

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that keep the checkpoint from being promoted, worst first."""
        stopping = [f for f in self.findings if f.outcome in ("block", "error", "hold")]
        return tuple(sorted(stopping, key=lambda f: ORDER[f.outcome]))


def outcome_of(findings: Iterable[Finding]) -> Outcome:
    """Block when anything blocks, else hold when anything holds or is in error, else promote."""
    outcomes = {f.outcome for f in findings}
    return "block" if "block" in outcomes else "hold" if outcomes & {"hold", "error"} else "promote"


def to_raw(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data for JSON and the registry."""
    return asdict(verdict)


def to_json(verdict: Verdict) -> str:
    """Sorted keys, shortest floats, a newline at the end: equal verdicts give equal bytes."""
    return json.dumps(to_raw(verdict), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def from_raw(raw: Mapping[str, Any]) -> Verdict:
    """The verdict in plain data; raises UsageError for another schema or a missing field."""
    if raw.get("schema") != SCHEMA:
        raise UsageError(f"not a verdict: schema {raw.get('schema')!r}, this version reads {SCHEMA!r}")
    known = {f.name for f in fields(Verdict)}
    try:
        return Verdict(
            **{
                k: v for k, v in raw.items() if k in known - {"findings", "candidate", "champion", "anchor", "settings"}
            },
            findings=tuple(Finding(**f) for f in raw["findings"]),
            candidate=Party(**raw["candidate"]),
            champion=Party(**raw["champion"]) if raw["champion"] else None,
            anchor=Party(**raw["anchor"]) if raw["anchor"] else None,
            settings=tuple(raw["settings"]),
        )
    except (KeyError, TypeError) as error:
        raise UsageError(f"not a verdict ({type(error).__name__}: {error})") from error


def headline(verdict: Verdict) -> str:
    """`promote: step-300 may replace step-200 (champion, generation 2) on demo; 0.31 of a full run used`."""
    mine = verdict.candidate.name
    rival = verdict.champion
    who = f"{rival.name} ({verdict.ref}, generation {rival.generation})" if rival and verdict.ref else ""
    goal = f"replace {who or rival.name}" if rival else "become the first champion"
    words = {
        "promote": f"{mine} may {goal}",
        "block": f"{mine} may not {goal}",
        "hold": f"cannot tell whether {mine} may {goal}",
    }[verdict.outcome]
    where = verdict.suite["name"] + (f" ({verdict.partial})" if verdict.partial else "")
    told = [f"{verdict.outcome}: {words} on {where}"]
    told += [f"{verdict.cost['share']:.2f} of a full run used ({verdict.cost['candidate']:,.0f} responses)"]
    told += [f"policy {verdict.policy_name}" + (f" with {', '.join(verdict.settings)}" if verdict.settings else "")]
    told += [f"gate {verdict.again + 1} of this pair: each is another chance to pass"] if verdict.again else []
    told += ["a part of a suite promotes nobody"] if verdict.partial else []
    return "; ".join(told)


def lines(findings: Sequence[Finding], width: int | None = None) -> list[str]:
    """One aligned line for each finding, worst first; in a terminal of `width` columns the reason folds below.

    `pass  gsm8k  0.762 → 0.760  −0.002 [−0.019, +0.015]  allowed −0.030  clear at look 4 of 10, 528 of 1319 items`
    """
    ordered = sorted(findings, key=lambda f: ORDER[f.outcome])
    named = [_name(f) for f in ordered]
    longest = max((len(name) for name in named), default=0)
    found = []
    for f, name in zip(ordered, named, strict=True):
        head = f"{f.outcome:<5}  {name:<{longest}}  {_numbers(f)}"
        if width is None or len(head) + len(f.why) <= width:
            found.append(f"{head}{f.why}")
        else:
            found += _folded(head.rstrip(), width)
            found += textwrap.wrap(f.why, width, initial_indent=INDENT, subsequent_indent=INDENT)
    return found


def _folded(head: str, width: int) -> list[str]:
    """The head in lines that keep an interval, and a limit with its word, in one piece."""
    glued = "  ".join(part.replace(" ", "\xa0") for part in head.split("  "))
    return [line.replace("\xa0", " ") for line in textwrap.wrap(glued, width, subsequent_indent=INDENT)]


def _name(f: Finding) -> str:
    """The benchmark, against whom where that is not the champion, and the rule where there is no benchmark."""
    rule = "" if f.rule in ("must_not_regress", "floor", "ceiling", "slice") else f" ({f.rule})"
    other = f" vs {f.reference}" if f.reference not in ("", "champion", "candidate") else ""
    return f"{f.benchmark}{other}{rule}" if f.benchmark else f.rule


def _numbers(f: Finding) -> str:
    words = []
    if f.now is not None:
        words.append(f"{f.was:.3f} → {f.now:.3f}" if f.was is not None else f"{f.now:.3f}")
    if f.difference is not None:
        interval = f" [{signed(f.low)}, {signed(f.high)}]" if f.low is not None and f.high is not None else ""
        words.append(signed(f.difference) + interval + (EARLY if f.early else ""))
    if f.limit is not None:
        words.append(f"{_LIMITS.get(f.rule, 'limit')} {_limit(f)}")
    return "  ".join(words) + ("  " if words else "")


_LIMITS = {"must_not_regress": "allowed", "floor": "floor", "ceiling": "ceiling", "must_improve": "at least"}


def _limit(f: Finding) -> str:
    limit = f.limit or 0.0
    return (
        signed(-limit)
        if f.rule == "must_not_regress"
        else signed(limit)
        if f.rule == "must_improve"
        else f"{limit:.3f}"
    )


def signed(value: float | None) -> str:
    """`+0.015`, `−0.002`: three decimals with a true minus sign; a dash for nothing."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")
