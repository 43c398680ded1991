"""What the registry knows of the checkpoints in a table: champion, verdicts, overrides, released unseen numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalsuite.registry.chain import Event

CHAMPION, ANCHOR, RELEASE = "champion", "anchor", "release"
FLAG = "⚑"
MOVES = {"promote", "bootstrap", "rollback", "anchor"}
JUDGED = {"promote": "cleared", "block": "blocked", "hold": "held"}


@dataclass(frozen=True, slots=True)
class Badge:
    """How the gate judged a checkpoint, as a table says it: `text` and, for ever, who overrode a verdict of it.

    `n` of `n_planned` samples were used at the newest verdict, with up to `k` answers to each; None without a verdict.
    """

    text: str
    overridden_by: tuple[str, ...] = ()
    verdict: str = ""
    outcome: str = ""
    suite: str = ""
    n: int | None = None
    n_planned: int | None = None
    k: int | None = None
    title: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.text, overridden(self.overridden_by)]))


@dataclass(frozen=True, slots=True)
class Released:
    """An unseen score that `evalsuite release` let out: `value` is in whole `step`s."""

    suite: str
    value: float
    step: float


@dataclass(frozen=True, slots=True)
class GateMarks:
    """By checkpoint digest. Nothing is marked where there is no registry."""

    champion: str = ""
    generation: int = 0
    badges: Mapping[str, Badge] = field(default_factory=dict)
    released: Mapping[str, tuple[Released, ...]] = field(default_factory=dict)

    def overrides(self, checkpoint: str) -> str:
        """`⚑ overridden by NAME`, or the empty string."""
        badge = self.badges.get(checkpoint)
        return overridden(badge.overridden_by) if badge is not None else ""


NO_MARKS = GateMarks()


def overridden(names: tuple[str, ...]) -> str:
    return f"{FLAG} overridden by {', '.join(names)}" if names else ""


def gate_marks(registry: Path) -> GateMarks:
    """The marks of a registry folder; none where it is absent. Raises RegistryError for a damaged one."""
    if not registry.is_dir():
        return GateMarks()
    from evalsuite.registry import Registry

    known = Registry(registry)
    return marks_of(known.events(), known.get, known.peeks.read())


def marks_of(
    events: Iterable[Event], get: Callable[[str], Mapping[str, Any]], peeks: Iterable[Event] = ()
) -> GateMarks:
    """The marks of a history. `get` returns the object of a digest: a verdict."""
    history = _History()
    for event in events:
        history.add(event)
    released: dict[str, dict[str, Released]] = {}
    for peek in peeks:
        for each in _released(peek):
            released.setdefault(peek.id or "", {})[each.suite] = each
    return GateMarks(
        history.holders.get(CHAMPION, ""),
        history.generation,
        {checkpoint: history.badge(checkpoint, get) for checkpoint in history.checkpoints()},
        {checkpoint: tuple(suites.values()) for checkpoint, suites in released.items()},
    )


class _History:
    """What the events said so far, in their order."""

    def __init__(self) -> None:
        self.generation = 0
        self.holders: dict[str, str] = {}
        self._states: dict[str, str] = {}
        self._verdicts: dict[str, str] = {}
        self._judged: dict[str, str] = {}
        self._overrides: dict[str, dict[str, None]] = {}

    def add(self, event: Event) -> None:
        checkpoint, ref = event.id or "", event.ref or CHAMPION
        if event.event == "verdict" and event.verdict:
            self._verdicts[checkpoint] = event.verdict
            self._judged[event.verdict] = checkpoint
        elif event.event == "override":
            of = checkpoint or self._judged.get(event.verdict or "", "")
            self._overrides.setdefault(of, {})[str(event.detail.get("by") or event.actor)] = None
        elif event.event in MOVES:
            self._moved(ref, checkpoint, event)

    def _moved(self, ref: str, checkpoint: str, event: Event) -> None:
        before = self.holders.get(ref, "")
        self.holders[ref] = checkpoint
        if ref != CHAMPION:
            return
        self.generation = event.generation or 0
        if event.event == "rollback" and before in self._states:
            self._states[before] = self._states[before].replace("promoted", "rolled back")
        self._states[checkpoint] = f"promoted g{self.generation}"

    def checkpoints(self) -> Iterator[str]:
        known = {*self._states, *self._verdicts, *self._overrides, *self.holders.values()}
        yield from sorted(known - {""})

    def badge(self, checkpoint: str, get: Callable[[str], Mapping[str, Any]]) -> Badge:
        digest = self._verdicts.get(checkpoint, "")
        verdict = get(digest) if digest else {}
        outcome = str(verdict.get("outcome", ""))
        state = self._states.get(checkpoint) or JUDGED.get(outcome, outcome)
        if checkpoint == self.holders.get(CHAMPION):
            state = f"champion g{self.generation}"
        others = [ref for ref in (ANCHOR, RELEASE) if checkpoint == self.holders.get(ref)]
        text = ", ".join(filter(None, [state, *others]))
        suite = str(dict(verdict.get("suite") or {}).get("name", ""))
        n, n_planned, k = _extent(verdict)
        said = [f"newest verdict {digest[:12]}: {outcome}"] if digest else ["no verdict"]
        said += [f"{n} of {n_planned} samples of {suite}, up to {k} answers to each"] if n is not None else []
        names = tuple(self._overrides.get(checkpoint, ()))
        return Badge(text, names, digest, outcome, suite, n, n_planned, k, "; ".join(said))


def _extent(verdict: Mapping[str, Any]) -> tuple[int | None, int | None, int | None]:
    """(samples used, samples planned, most answers to one) of a verdict, each benchmark once."""
    used: dict[str, tuple[int, int, int]] = {}
    for finding in verdict.get("findings", ()):
        if finding.get("n") is not None and finding.get("n_planned"):
            now = int(finding["n"]), int(finding["n_planned"]), int(finding.get("k") or 1)
            used[finding["benchmark"]] = max(used.get(finding["benchmark"], now), now)
    if not used:
        return None, None, None
    n, n_planned, k = zip(*used.values(), strict=True)
    return sum(n), sum(n_planned), max(k)


def _released(peek: Event) -> Iterator[Released]:
    """What a `result` line of the ledger lets out: detail.released maps a suite to its value and step."""
    if peek.event == "result":
        for suite, number in dict(peek.detail.get("released") or {}).items():
            yield Released(str(suite), float(number["value"]), float(number["eta"]))
