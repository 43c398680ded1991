"""Two scans compared: which matches appeared, vanished or changed, and which data sets crossed the limit."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decontam.errors import DecontamError
from decontam.report.match import Match, read_matches
from decontam.report.matrix import percent
from decontam.report.passages import visible

SCHEMA = "decontam-diff/1"
SHOWN = 10  # matches of a kind that text names

# A row with an id is the same wherever it stands now; one without is known by its place.
Name = tuple[str, str, str, int, str, str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """A match in both scans whose score or flags differ."""

    before: Match
    after: Match

    @property
    def moved(self) -> bool:
        """Whether a threshold lies between the two: the cap acquits one and not the other, or another rule flags it."""
        return set(self.before.flags) != set(self.after.flags)


@dataclass(frozen=True, slots=True)
class Rate:
    """The share of an eval's instances that a data set holds, in both scans; None where a scan lacks either."""

    dataset: str
    eval: str
    before: float | None
    after: float | None
    action_before: str
    action_after: str

    @property
    def crossed(self) -> bool:
        """Whether the action is another one now."""
        return self.action_before != self.action_after


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that differs; `settings` are lines on rule, cap, evals and completeness."""

    appeared: tuple[Match, ...]
    vanished: tuple[Match, ...]
    changed: tuple[Change, ...]
    rates: tuple[Rate, ...]
    settings: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether both scans found the same and judged the same."""
        return not (self.appeared or self.vanished or self.changed or self.rates or self.settings)


def difference(a: Path, b: Path) -> Difference:
    """From the scan in folder `a` to that in `b`; raises DecontamError for a folder without reports."""
    before, after = _verdict(a), _verdict(b)
    old, new = _named(_every(a)), _named(_every(b))
    appeared = tuple(match for name, match in new.items() if name not in old)
    vanished = tuple(match for name, match in old.items() if name not in new)
    both = (Change(old[name], match) for name, match in new.items() if name in old)
    changed = tuple(c for c in both if (c.before.score, c.before.flags) != (c.after.score, c.after.flags))
    return Difference(appeared, vanished, changed, tuple(_rates(before, after)), tuple(_settings(before, after)))


def _every(out: Path) -> Iterator[Match]:
    yield from read_matches(out / "matches.jsonl")
    if (out / "near.jsonl").is_file():
        yield from read_matches(out / "near.jsonl")


def _named(matches: Iterable[Match]) -> dict[Name, Match]:
    """Matches by name; where a name comes twice, such as that of two rows with one id, they are told apart by order."""
    times: Counter[tuple[Any, ...]] = Counter()
    found: dict[Name, Match] = {}
    for match in matches:
        row = f"id {match.id}" if match.id is not None else f"{match.file} row {match.row}"
        stage = "near" if "near" in match.flags else ""
        name = (match.dataset, row, stage, match.turn, match.eval, match.instance)
        found[(*name, times[name])] = match
        times[name] += 1
    return found


def _rates(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Rate]:
    old, new = _by_name(a), _by_name(b)
    for key in dict.fromkeys((*old, *new)):
        (before, was), (after, now) = old.get(key, (None, "absent")), new.get(key, (None, "absent"))
        if (before, was) != (after, now):
            yield Rate(*key, before, after, was, now)


def _by_name(verdict: Mapping[str, Any]) -> dict[tuple[str, str], tuple[float | None, str]]:
    """(rate, action) by names of data set and eval."""
    return {
        (str(data["name"]), name): (rate, str(verdict["actions"][data["digest"]][name]))
        for data in verdict["training"]
        for name, rate in verdict["rates"][data["digest"]].items()
    }


def _settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*a["rule"], *b["rule"]}):
        was, now = a["rule"].get(key), b["rule"].get(key)
        if was != now:
            yield f"rule {key}: {was} → {now}"
    for key in ("limit", "complete"):
        if a.get(key) != b.get(key):
            yield f"{key}: {json.dumps(a.get(key))} → {json.dumps(b.get(key))}"
    for name in dict.fromkeys((*a["evals"], *b["evals"])):
        was, now = a["evals"].get(name), b["evals"].get(name)
        if was is None or now is None:
            yield f"eval {name}: {'added' if was is None else 'gone'}"
        elif differs := [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]:
            yield f"eval {name}: another {', '.join(differs)}"
    was, now = ({str(t["name"]): t["digest"] for t in v["training"]} for v in (a, b))
    for name in dict.fromkeys((*was, *now)):
        if was.get(name) != now.get(name):
            yield f"data {name}: {'added' if name not in was else 'gone' if name not in now else 'another digest'}"


def _verdict(out: Path) -> dict[str, Any]:
    path = out / "verdict.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != "decontam/1":
            raise ValueError(f"schema {raw['schema']!r}, this version reads 'decontam/1'")
        for key in ("rule", "training", "evals", "rates", "actions"):
            raw[key]
    except OSError as error:
        raise DecontamError(f"{path}: cannot be read ({error.strerror}); expected the folder of a scan") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DecontamError(f"{path}: not a verdict ({type(error).__name__}: {error}); scan again") from error
    return raw


# -- as text and as JSON --


def text(found: Difference, shown: int = SHOWN) -> str:
    """What changed, counts first, then up to `shown` matches of each kind."""
    if found.same:
        return "the same matches and the same verdict\n"
    lines = [*(visible(line) for line in found.settings)]
    lines += [visible(_rate(rate)) for rate in found.rates]
    moved = [c for c in found.changed if c.moved]
    rescored = [c for c in found.changed if not c.moved]
    lines += _block("appeared", [(_told(m), m) for m in found.appeared], shown)
    lines += _block("vanished", [(_told(m), m) for m in found.vanished], shown)
    lines += _block("moved across a threshold", [(_moved(c), c.after) for c in moved], shown)
    lines += _block("with another score", [(_moved(c), c.after) for c in rescored], shown)
    return "\n".join(lines) + "\n"


def _block(what: str, told: Sequence[tuple[str, Match]], shown: int) -> list[str]:
    """A heading with counts per data set and eval, then the first lines."""
    if not told:
        return []
    counts = Counter((match.dataset, match.eval) for _, match in told)
    groups = ", ".join(f"{dataset} × {name} {n:,}" for (dataset, name), n in counts.items())
    lines = [visible(f"{len(told):,} {what}: {groups}"), *(visible(f"  {line}") for line, _ in told[:shown])]
    return lines + ([f"  and {len(told) - shown:,} more (--json has all)"] if len(told) > shown else [])


def _rate(rate: Rate) -> str:
    was, now = ("absent" if r is None else f"{percent(r)} %" for r in (rate.before, rate.after))
    crossed = f": {_words(rate.action_before)} → {_words(rate.action_after)}" if rate.crossed else ""
    return f"{'! ' if rate.crossed else ''}{rate.dataset} × {rate.eval}: {was} → {now} of the instances{crossed}"


def _words(action: str) -> str:
    return action.replace("_", " ")


def _told(match: Match) -> str:
    where = f"{match.file} row {match.row:,}" + (f" (id {match.id})" if match.id is not None else "")
    turn = f" turn {match.turn}" if match.turn else ""
    return f"{match.eval} {match.instance} · {match.dataset}, {where}{turn} · {match.score:.3g} {'+'.join(match.flags)}"


def _moved(change: Change) -> str:
    before = change.before
    return f"{_told(change.after)}, before {before.score:.3g} {'+'.join(before.flags)}"


def as_json(found: Difference) -> dict[str, Any]:
    """Everything that differs, in the order of the scans."""
    return {
        "schema": SCHEMA,
        "same": found.same,
        "settings": list(found.settings),
        "rates": [
            {
                "dataset": r.dataset,
                "eval": r.eval,
                "before": r.before,
                "after": r.after,
                "action_before": r.action_before,
                "action_after": r.action_after,
                "crossed": r.crossed,
            }
            for r in found.rates
        ],
        "appeared": [_match(m) for m in found.appeared],
        "vanished": [_match(m) for m in found.vanished],
        "changed": [{"before": _match(c.before), "after": _match(c.after), "moved": c.moved} for c in found.changed],
    }


def _match(match: Match) -> dict[str, Any]:
    return {
        "dataset": match.dataset,
        "file": match.file,
        "row": match.row,
        "id": match.id,
        "turn": match.turn,
        "eval": match.eval,
        "instance": match.instance,
        "score": match.score,
        "capped_score": match.capped_score,
        "flags": list(match.flags),
    }
