"""Obeys the control file and holds training back until verdicts have come. For the worker process.

Process 0 reads the file and tells the others, so that all act at the same step: each reading it for itself could leave
some of them waiting for gradients that never come.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evalsuite.trainers import ControlReader
from evalsuite.trainers.control import Control
from train_plugins.saving import Point, fault, read_name, rolled_back

if TYPE_CHECKING:
    from train_plugins.worker import Run

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done now. `point` is where a rollback goes."""

    kind: Literal["go", "wait", "stop", "rollback"]
    point: Point | None = None


GO = Action("go")


class Steering:
    """A run's view of the loop. Which checkpoints were judged is told from the events, so it outlives a kill."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.stopped = False
        obeyed = [event for event in run.events if event["kind"] in ("gate", "rollback")]
        self._reader = ControlReader(run.out, max((int(event["seq"]) for event in obeyed), default=0))
        self._judged = max((self._place(str(event["about"])) for event in obeyed), default=0)
        self.promoted = next((str(e["about"]) for e in reversed(obeyed) if e.get("why") == "promoted"), "")

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Names of the published checkpoints that no decision has come for; they are judged in order."""
        return self._published[self._judged :]

    @property
    def may_be_needed(self) -> frozenset[str]:
        """Names of the states that a rollback may go to."""
        coupled = self.run.job.coupling.mode != "off"
        return frozenset((*(self.unjudged if coupled else ()), self.promoted))

    def look(self) -> Action:
        """Obeys a new decision, if there is one; on all processes alike."""
        return self._agreed(self._look(0.0) if self.run.is_main else GO)

    def wait(self, *, final: bool) -> Action:
        """Looks, and goes on looking for as long as the coupling holds training back; on all processes alike.

        `final`: training is over, so the last verdicts are waited for, as any of them may send it back.
        """
        began, told = time.monotonic(), False
        while True:
            # Process 0 sleeps, so the others never wait in one exchange for longer than that.
            action = self._look(time.monotonic() - began) if self.run.is_main else GO
            if self.run.is_main and action.kind == "go" and self._holds(final):
                action = Action("wait")
            action = self._agreed(action)
            if action.kind != "wait":
                self.run.pause_clock(time.monotonic() - began)
                return action
            if not told and self.run.is_main:
                told = True
                self.run.add("waiting", step=self.run.step_now, name=self.unjudged[-1])
            if self.run.is_main:
                time.sleep(POLL_S)

    def _agreed(self, action: Action) -> Action:
        told: Action = self.run.ranks.agree(action)
        return told

    def _holds(self, final: bool) -> bool:
        coupling, n = self.run.job.coupling, len(self.unjudged)
        if coupling.mode == "off":
            return False
        return n > (0 if final or coupling.mode == "wait" else coupling.lag)

    def _look(self, waited_s: float) -> Action:
        control = self._reader.next()
        if self._reader.is_broken:
            self.run.warn("control", f"{self.run.out / 'control.json'} cannot be understood; the last decision stays")
        if control is None:
            return GO
        self._judged = max(self._judged, self._place(control.about))
        if control.why == "promoted":
            self.promoted = control.about
        action = self._obey(control)
        self.run.add(
            "gate", step=self.run.step_now, about=control.about, decision=control.decision, seq=control.seq,
            why=control.why, waited_s=round(waited_s, 3),
        )  # fmt: skip
        fault("control-obeyed")
        return action

    def _obey(self, control: Control) -> Action:
        if control.decision == "stop":
            return Action("stop")
        if control.decision == "continue":
            return GO
        about = read_name(control.about)
        if about is not None and about[1] < self.run.attempt:
            self.run.warn("rollback_late", f"{control.about} was left behind by an earlier rollback; going on")
            return GO
        return self._roll_back(control)

    def _roll_back(self, control: Control) -> Action:
        """Writes the event first: a kill after it only repeats what it says."""
        run, adjust = self.run, dict(control.adjust or {})
        target = next(
            (e for e in reversed(run.events) if e["kind"] == "checkpoint" and e["digest"] == control.to), None
        )
        name = str(target["path"]).rpartition("/")[2] if target else ""
        if target is None or not (run.out / "state" / name).is_dir():
            run.warn("no_state", f"told to go back to {name or control.to}, of which no state is left; stopping")
            return Action("stop")
        if adjust.get("lr_scale", 1.0) == 1.0 and adjust.get("seed", run.shuffles[-1][1]) == run.shuffles[-1][1]:
            run.warn("unchanged_rollback", "a rollback without another seed or lr_scale repeats itself; stopping")
            return Action("stop")
        for name_of_unknown in sorted(set(adjust) - {"lr_scale", "seed"}):
            run.warn("unknown_adjustment", f"a rollback cannot adjust {name_of_unknown}; it knows lr_scale and seed")
        run.add(
            "rollback", seq=control.seq, about=control.about, from_step=run.step_now, to=control.to, to_name=name,
            adjust=adjust, attempt=run.attempt + 1, why=control.why,
        )  # fmt: skip
        fault("rollback-logged")
        return Action("rollback", rolled_back(run.out, run.events[-1]))

    @property
    def _published(self) -> tuple[str, ...]:
        paths = [str(event["path"]) for event in self.run.events if event["kind"] == "checkpoint"]
        return tuple(path.rpartition("/")[2] for path in paths)

    def _place(self, about: str) -> int:
        """How many checkpoints a decision about this one leaves judged."""
        names = self._published
        return names.index(about) + 1 if about in names else 0
