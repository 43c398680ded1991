"""The loop: train, judge every checkpoint, promote what is better, tell the trainer what to do, start the next stage.

Every step is logged after it was done and done again when it is not in the log: gating and promoting the same
checkpoint twice is harmless (see `evalsuite.loop.hooks`), so a kill at any point costs nothing but the step itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evalsuite.checkpoint import name_of
from evalsuite.errors import CheckpointError, LostRace, TrainerFailed, UsageError
from evalsuite.loop.hooks import Gated, Hooks
from evalsuite.loop.keep import dispensable, remove
from evalsuite.loop.log import LoopLog, StageState, fault, only_one
from evalsuite.loop.plan import Plan, make_job, resolve
from evalsuite.loop.view import Silent, View
from evalsuite.recipe import GateRule, Stage
from evalsuite.trainers import process
from evalsuite.trainers.control import Control, read_control, write_control
from evalsuite.trainers.types import Decision

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint

RACES = 3  # times that a checkpoint is judged again because the champion changed meanwhile


@dataclass(frozen=True, slots=True)
class Ended:
    """`code` is the exit code: 0 the last stage promoted (or judged nothing), 1 all blocked, 3 undecided."""

    code: int
    line: str
    stages: Mapping[str, StageState]


def run_loop(plan: Plan, hooks: Hooks, view: View | None = None) -> Ended:
    """Goes through the stages of the plan; those that the log says have ended are not begun again."""
    view = view or Silent()
    with only_one(plan.out):
        log = LoopLog(plan.out)
        for stage in plan.stages:
            if log.stage(stage.name).ended is None:
                hooks.check(stage, False)
        log.open_recipe(plan.recipe)
        for stage in plan.stages:
            state = log.stage(stage.name)
            if state.ended is not None:
                view.say(f"{stage.name}: done before ({_summary(state)})")
                continue
            short = _nothing_to_start_from(plan, stage, log)
            if short is not None:
                return _ended(plan, log, short)
            _Runner(plan, stage, hooks, view, log).run()
        return _ended(plan, log)


class _Runner:
    """One stage of one call."""

    def __init__(self, plan: Plan, stage: Stage, hooks: Hooks, view: View, log: LoopLog) -> None:
        self.plan, self.stage, self.hooks, self.view, self.log = plan, stage, hooks, view, log
        self.state = log.stage(stage.name)
        self.out = plan.folder(stage)

    def run(self) -> None:
        self.hooks.check(self.stage, True)
        start, inputs = self._starts()
        job = make_job(self.plan, self.stage, start, inputs)
        self.out.mkdir(parents=True, exist_ok=True)
        self._repair_control()
        if self._was_stopped():
            # Killed after the decision: the trainer may not have obeyed yet, and must not be started again.
            self._end("stopped")
            return
        self.view.stage(self.stage.name, self.out)
        checkpoints = self.plan.trainers[self.stage.name].train(job)
        with closing(cast("Any", checkpoints)):
            reason = self._judge_all(checkpoints)
        self._end(reason)

    def _starts(self) -> tuple[Checkpoint | None, dict[str, Checkpoint]]:
        """The start and the inputs; those of a stage that was begun are what they were then."""
        from evalsuite.checkpoint import open_checkpoint

        texts = {"start": self.stage.start, **{f"inputs.{k}": v for k, v in self.stage.inputs.items()}}
        if self.plan.start is not None and not self.state.begun:
            texts["start"] = str(self.plan.start)
        known = cast("Mapping[str, Mapping[str, str]]", self.state.start or {})
        opened: dict[str, Checkpoint] = {}
        for where, text in texts.items():
            if where in known:
                path = Path(known[where]["path"])
            elif text is not None:
                path = resolve(self.plan, self.stage, text, self.log, self.hooks.champion)
            else:
                continue
            opened[where] = open_checkpoint(path)
            if where in known and opened[where].digest != known[where]["digest"]:
                raise UsageError(
                    f"{path}: stage {self.stage.name!r} began with content {known[where]['digest'][:12]}, now it is "
                    f"{opened[where].digest[:12]}; put the checkpoint back, or use another --out"
                )
        if not self.state.begun:
            told = {where: {"path": str(c.path), "digest": c.digest} for where, c in opened.items()}
            self.log.add("stage", stage=self.stage.name, start=told)
        return opened.get("start"), {k.removeprefix("inputs."): c for k, c in opened.items() if k != "start"}

    def _repair_control(self) -> None:
        """A decision that was logged but not yet told is told now, under its own number."""
        if self.state.controls:
            event = list(self.state.controls.values())[-1]
            write_control(self.out, _control(event))

    def _was_stopped(self) -> bool:
        return any(event["decision"] == "stop" for event in self.state.controls.values())

    def _judge_all(self, checkpoints: Iterator[Checkpoint]) -> str:
        for checkpoint in checkpoints:
            if checkpoint.digest not in self.state.seen:
                self._add("checkpoint", checkpoint.digest, name=checkpoint.path.name, path=str(checkpoint.path))
            rule = self.stage.gate
            decision: Decision = "continue"
            if rule is not None and checkpoint.digest not in self.state.controls:
                decision = self._judge(checkpoint, rule)
            self._remove_dispensable()
            if decision == "stop":
                return "stopped"
        return "finished"

    def _remove_dispensable(self) -> None:
        """Deletes what the stage's `keep` lets go of the folders in our own care; foreign ones are left alone."""
        keep, gated = self.plan.keep or self.stage.keep, self.stage.gate is not None
        refs = self.hooks.refs() if keep != "all" else ()
        for folder in dispensable(keep, self.state, refs, gated=gated):
            if folder.parent.absolute() != (self.out / "checkpoints").absolute() or not folder.is_dir():
                continue
            try:
                remove(folder)
                self.view.say(f"{name_of(folder)}: removed (keep: {keep})")
            except OSError as error:
                self.view.say(f"warning: {folder} could not be removed ({error.strerror})")

    def _judge(self, checkpoint: Checkpoint, rule: GateRule) -> Decision:
        """Gate, promote, decide; each part only if the log does not have it."""
        digest = checkpoint.digest
        for _ in range(RACES):
            if digest not in self.state.gated:
                self._gate(checkpoint)
            if digest in self.state.void or self.state.gated[digest]["outcome"] != "promote":
                break
            try:
                self._promote(checkpoint)
                break
            except LostRace as error:
                self.view.say(f"{checkpoint.name}: {error}; judging it again")
                self._add("lost_race", digest)
        else:
            raise LostRace(f"{checkpoint.path}: the champion changed {RACES} times while it was judged; run it again")
        return self._decide(checkpoint, rule)

    def _gate(self, checkpoint: Checkpoint) -> None:
        self.view.gating(checkpoint.name)
        changed, gated = "", Gated("hold", "", "")
        try:
            gated = self.hooks.gate(checkpoint.path, self.stage)
        except CheckpointError:
            changed = _changed(checkpoint)
            if not changed:
                raise
        fault("gate-returned")
        self._add(
            "gated", checkpoint.digest, outcome=gated.outcome, verdict=gated.verdict, line=gated.line,
            cost=dict(gated.cost), void=changed or _changed(checkpoint),
        )  # fmt: skip
        self.view.gated(checkpoint.name, gated)

    def _promote(self, checkpoint: Checkpoint) -> None:
        if checkpoint.digest in self.state.promoted:
            return
        generation = self.hooks.promote(checkpoint.path, self.state.gated[checkpoint.digest]["verdict"])
        fault("promote-returned")
        self._add("promoted", checkpoint.digest, generation=generation)
        self.view.say(f"{checkpoint.name}: promoted, generation {generation}")

    def _decide(self, checkpoint: Checkpoint, rule: GateRule) -> Decision:
        digest = checkpoint.digest
        decision, why, to = decide(rule, self.state, digest)
        told = read_control(self.out)
        seq = max(self.log.seq, told.seq if told else 0) + 1
        adjust = None
        if decision == "rollback":
            # Another seed each time: a deterministic run that is rolled back unchanged repeats itself.
            adjust = {"seed": self.stage.seed + self.state.n_rollbacks + 1, **rule.adjust}
        name = checkpoint.path.name
        self._add("control", digest, name=name, seq=seq, decision=decision, to=to, adjust=adjust, why=why)
        write_control(self.out, _control(self.state.controls[digest]))
        fault("control-written")
        if decision != "continue":
            self.view.say(f"{checkpoint.name}: {decision} ({why})")
        return decision

    def _end(self, reason: str) -> None:
        running = process.find(self.out)
        if running is not None:
            self.view.say(f"{self.stage.name}: stopping the training command")
            running.stop()
        if not self.state.seen:
            raise TrainerFailed(
                f"{self.out}: stage {self.stage.name!r} ended without a checkpoint; see its events and log"
            )
        self.log.add("stage_end", stage=self.stage.name, reason=reason)
        self.view.say(f"{self.stage.name}: {reason} ({_summary(self.state)})")

    def _add(self, kind: str, digest: str, **fields: Any) -> None:
        self.log.add(kind, stage=self.stage.name, digest=digest, **fields)


def decide(rule: GateRule, state: StageState, digest: str) -> tuple[Decision, str, str | None]:
    """(decision, why, digest to go back to) after a checkpoint's verdict. A void verdict decides nothing."""
    outcome = state.gated[digest]["outcome"]
    if digest in state.void:
        return "continue", "the checkpoint changed while it was judged", None
    if outcome == "promote":
        return rule.on_promote, "promoted", None
    if outcome == "hold":
        return rule.on_hold, "inconclusive", None
    in_a_row = state.blocked_in_a_row()
    if rule.on_block == "continue" or in_a_row < rule.patience:
        return "continue", f"blocked, {in_a_row} in a row", None
    if rule.on_block == "stop":
        return "stop", f"{in_a_row} blocked in a row", None
    if state.n_rollbacks >= rule.max_rollbacks:
        return "stop", f"{in_a_row} blocked in a row after {state.n_rollbacks} rollbacks", None
    if not state.promoted:
        return "stop", f"{in_a_row} blocked in a row and nothing promoted to roll back to", None
    return "rollback", f"{in_a_row} blocked in a row", list(state.promoted)[-1]


def _control(event: Mapping[str, Any]) -> Control:
    adjust, why = event.get("adjust"), event.get("why", "")
    return Control(event["seq"], event["name"], event["decision"], event.get("to"), adjust, why)


def _changed(checkpoint: Checkpoint) -> str:
    """What happened to the judged folder since it was opened; empty when it is what it was."""
    from evalsuite.checkpoint import open_checkpoint

    try:
        now = open_checkpoint(checkpoint.path).digest
    except CheckpointError as error:
        return str(error)
    return "" if now == checkpoint.digest else f"{checkpoint.path}: its content changed while it was judged"


def _nothing_to_start_from(plan: Plan, stage: Stage, log: LoopLog) -> str | None:
    """The earlier stage that had to promote something for this one, and did not."""
    from evalsuite.recipe import split_reference

    if log.stage(stage.name).begun:
        return None
    start = None if plan.start is not None else stage.start
    for text in (start, *stage.inputs.values()):
        reference = split_reference(text) if text else None
        if reference is None or reference[1] != "promoted":
            continue
        source = reference[0] or plan.previous(stage) or ""
        if log.stage(source).ended is not None and not log.stage(source).promoted:
            return source
    return None


def _ended(plan: Plan, log: LoopLog, short: str | None = None) -> Ended:
    """What the whole call comes to, from the last stage or from the one that left the next without a start."""
    name = short or plan.stages[-1].name
    state = log.stage(name)
    gate = next(s.gate for s in plan.recipe.stages if s.name == name)
    undecided = "hold" in state.outcomes or not state.outcomes
    code = 0 if gate is None or state.promoted else 3 if undecided else 1
    line = f"{name}: {_summary(state)}"
    if short is not None:
        line += "; the next stage starts from what it promotes, so the loop ends here"
    return Ended(code, line, {s.name: log.stage(s.name) for s in plan.recipe.stages})


def _summary(state: StageState) -> str:
    n, outcomes = len(state.seen), state.outcomes
    words = [f"{n} checkpoint{'s' * (n != 1)}", f"{len(state.promoted)} promoted"]
    words += [f"{outcomes.count(o)} {w}" for o, w in (("block", "blocked"), ("hold", "undecided")) if o in outcomes]
    words += [f"{len(state.void)} void"] if state.void else []
    return ", ".join(words)
