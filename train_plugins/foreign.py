"""Follows a training program that knows nothing of us: starts it, finds its checkpoints, keeps and yields them."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from evalsuite.checkpoint import Checkpoint, name_of, open_checkpoint
from evalsuite.errors import CheckpointError, DiskFull, UsageError
from evalsuite.trainers import process
from evalsuite.trainers.control import Control, ControlReader
from evalsuite.trainers.events import Event, append_event, cut_torn_line, read_events
from evalsuite.trainers.files import load_json
from evalsuite.trainers.job import write_job
from evalsuite.trainers.process import Exit, Process
from evalsuite.trainers.types import TrainJob
from train_plugins.exec import ExecOptions
from train_plugins.pinning import convert, pin, publish, remove_leftovers, require_room, size_of, temporary_folder
from train_plugins.watching import Complete, Look, Signature, Watch, render, sign

CANNOT_WAIT = (
    "this trainer cannot be paused: it trains on while a checkpoint is judged, checkpoints are judged in order and a "
    "stop comes late"
)
DATA_NOT_KEPT = (
    "pin is 'none', so nothing is kept beside the weights: the gate takes the data that is declared here for undeclared"
)


class ForeignRun:
    """One call of `train`. What is remembered between calls stands in <out>/events.jsonl."""

    def __init__(self, job: TrainJob, options: ExecOptions) -> None:
        self.job, self.options, self.out = job, options, job.out
        self.out.mkdir(parents=True, exist_ok=True)
        self._job_digest = write_job(job)
        cut_torn_line(self.out / "events.jsonl")
        self._events = list(read_events(self.out / "events.jsonl"))
        self._values = _values(job, options)
        complete = dataclasses.replace(options.complete, file=self._fill(options.complete.file))
        if Path(self._values["watch"]).absolute() == (self.out / "checkpoints").absolute():
            raise UsageError(f"{self.out / 'checkpoints'} is where judged checkpoints are kept; watch another folder")
        self._watch = _watch(self._values["watch"], options, complete)
        # Folders that were yielded or passed over, as they looked then: a changed one may hold new content.
        self._done = {e["key"]: e["signature"] for e in self._of("checkpoint", "passed")}
        self._digests = {e["digest"] for e in self._of("checkpoint")}
        self._control = ControlReader(self.out, max((e["seq"] for e in self._of("rollback")), default=0))
        self._running: Process | None = None
        self._idle_since = time.monotonic()

    def checkpoints(self) -> Iterator[Checkpoint]:
        """Earlier ones first, then new ones as they appear, until the program has ended and nothing is left."""
        remove_leftovers(self.out / "checkpoints")
        self._warn_of_limits()
        self._running = self._begin()
        try:
            for event in self._of("checkpoint"):
                yield from self._pausing(self._again(event))
            while True:
                ended = self._ended()
                found = self._next(ended)
                if found is not None:
                    self._idle_since = time.monotonic()
                    yield from self._pausing(found)
                elif ended is not None and not self._obey():
                    break
                else:
                    self._obey()
                    time.sleep(self.options.poll_s)
        finally:
            if self._running is not None and self._running.poll() is None:
                self._add("end", reason="stopped")
                self._running.stop()
        if ended.code != 0:
            raise process.failure(self.out, ended, "the training command")
        if not self._has_finished():
            self._add("end", reason="finished")

    def _warn_of_limits(self) -> None:
        if self.job.coupling.mode != "off" and not self.options.pause:
            self._warn_once("cannot_wait", CANNOT_WAIT)
        if self.job.data and self.options.pin == "none" and not self.options.convert:
            self._warn_once("data_not_kept", DATA_NOT_KEPT)

    # -- the program --

    def _begin(self) -> Process | None:
        """The program: found running, started, or None where it has finished or is somebody else's."""
        if not self.options.command:
            return None
        running = process.find(self.out)
        kinds = [e["kind"] for e in self._events if e["kind"] in ("start", "rollback")]
        rolled_back = bool(kinds) and kinds[-1] == "rollback"
        if running is not None and not rolled_back:
            running.signal("CONT")  # a killed loop may have left it paused
            return running
        if running is not None:
            running.stop()
        return None if not rolled_back and self._has_finished() else self._start()

    def _start(self) -> Process:
        rollbacks = self._of("rollback")
        template, values = self.options.command, dict(self._values)
        if rollbacks:
            template = self.options.restart or template
            values |= {k: str(v) for k, v in (rollbacks[-1]["adjust"] or {}).items()} | {"src": rollbacks[-1]["path"]}
        command = [render(word, values) for word in template]
        run = len(self._of("start")) + 1
        self._add("start", job=self._job_digest, run=run, command=command)
        cwd = Path(self._fill(self.options.cwd) or ".")
        return process.start(
            self.out,
            command,
            environment=self.job.launch.environment,
            cwd=cwd,
            stop=self.options.stop,
            note={"run": run},
        )

    def _has_finished(self) -> bool:
        """Whether the program ended by itself, told from events or, where the loop was killed, from its supervisor."""
        ends = [e for e in self._events if e["kind"] in ("start", "end")]
        if ends and ends[-1]["kind"] == "end":
            return bool(ends[-1]["reason"] == "finished")
        last = process.last_exit(self.out)
        return last is not None and last[0].code == 0 and last[1].get("run") == len(self._of("start"))

    def _ended(self) -> Exit | None:
        """How the program ended, None while it may still write."""
        if self._running is not None:
            return self._running.poll()
        if self.options.command:
            return Exit(0)
        ends, steps = self.options.ends, [e["step"] for e in self._of("checkpoint", "passed")]
        reached = ends.step is not None and max(steps, default=-1) >= ends.step
        idle = ends.idle_s is not None and time.monotonic() - self._idle_since >= ends.idle_s
        return Exit(0) if reached or idle else None

    def _obey(self) -> bool:
        """Goes back to an earlier checkpoint when the loop says so. The event first: a kill then only repeats it."""
        control = self._control.next()
        if control is None or control.decision != "rollback":
            return False
        self._add("rollback", seq=control.seq, to=control.to, adjust=control.adjust, path=str(self._path(control)))
        if self._running is not None:
            self._running.stop()
        self._running = self._start()
        return True

    def _path(self, control: Control) -> Path:
        for event in reversed(self._of("checkpoint")):
            if event["digest"] == control.to:
                return self.out / str(event["path"])
        raise UsageError(f"{self.out}: told to go back to {control.to}, which is no checkpoint of this run")

    def _pausing(self, checkpoint: Checkpoint | None) -> Iterator[Checkpoint]:
        """The checkpoint, with the program held still while it is judged where the options say so."""
        if checkpoint is None:
            return
        held = self._running if self.options.pause else None
        if held is not None:
            held.signal("STOP")
        try:
            yield checkpoint
        finally:
            if held is not None:
                held.signal("CONT")

    # -- its folders --

    def _next(self, ended: Exit | None) -> Checkpoint | None:
        """The next complete folder in step order; None while there is none or an earlier one is still written."""
        while True:
            looks = self._watch.look()
            waiting = ended is not None and bool(self.options.command)
            if waiting and any(look.state == "changing" and self._is_new(look) for look in looks):
                time.sleep(min(self.options.poll_s, 0.2))
                continue
            for i, look in enumerate(looks):
                if not self._is_new(look):
                    continue
                known = look.folder.key in self._done
                if look.state == "ready":
                    found = self._take(look)
                    if found is not None or self._is_new(look):
                        return found
                elif known:
                    continue  # being rotated away
                elif look.state == "unfinished" and (ended or any(x.state == "ready" for x in looks[i + 1 :])):
                    self._pass_over(look, look.why)
                else:
                    return None
            return None

    def _is_new(self, look: Look) -> bool:
        return self._done.get(look.folder.key) != _short(look.signature)

    def _take(self, look: Look) -> Checkpoint | None:
        """Keeps and opens one folder; None when it is not new after all, cannot be used, or has changed meanwhile."""
        folder, signature = look.folder, look.signature
        kept = None
        if self.options.convert or self.options.pin != "none":
            kept = temporary_folder(self.out / "checkpoints")
        try:
            how = self._keep(look, kept)
            checkpoint = open_checkpoint(kept or folder.path)
            _check_template(checkpoint)
            if sign(folder.path) not in (signature, ()) or (kept is None and not sign(folder.path)):
                return None
            return self._publish(look, checkpoint, kept, how)
        except CheckpointError as error:
            if sign(folder.path) == signature:
                self._pass_over(look, str(error))
            return None
        except DiskFull as error:
            self._warn("disk", str(error))
            raise
        finally:
            if kept is not None:
                shutil.rmtree(kept, ignore_errors=True)

    def _keep(self, look: Look, kept: Path | None) -> str:
        if kept is None:
            return "none"
        if self.options.convert is None:
            return pin(look.folder.path, kept, self.options.pin)
        # How large the converter's output becomes, only the one before it tells.
        last = [self.out / str(event["path"]) for event in self._of("checkpoint")][-1:]
        require_room(kept, sum(size_of(folder) for folder in last if folder.is_dir()))
        values = {**self._values, "src": str(look.folder.path), "dst": str(kept), "step": str(look.folder.step)}
        convert([render(word, values) for word in self.options.convert], kept, self.out / "convert.log")
        return "converted"

    def _publish(self, look: Look, checkpoint: Checkpoint, kept: Path | None, how: str) -> Checkpoint | None:
        folder = look.folder
        self._done[folder.key] = _short(look.signature)
        if checkpoint.digest in self._digests:
            return None
        if kept is not None:
            name = f"step-{folder.step:06d}" if folder.step >= 0 else "final"
            path = self._published_before(name, checkpoint) or publish(kept, name, self._facts(look, checkpoint, how))
            checkpoint = dataclasses.replace(checkpoint, path=path, name=name_of(path))
        self._digests.add(checkpoint.digest)
        told = checkpoint.path.relative_to(self.out) if kept is not None else checkpoint.path
        self._add("checkpoint", step=folder.step, path=str(told), digest=checkpoint.digest, key=folder.key,
                  signature=_short(look.signature))  # fmt: skip
        return checkpoint

    def _published_before(self, name: str, checkpoint: Checkpoint) -> Path | None:
        """The same content under its final name: a kill came before its event."""
        for path in sorted((self.out / "checkpoints").glob(f"{name}*")):
            if (load_json(path / "evalsuite.json") or {}).get("digest") == checkpoint.digest:
                return path
        return None

    def _facts(self, look: Look, checkpoint: Checkpoint, how: str) -> dict[str, object]:
        """What evalsuite.json says; `data` is null where the recipe declares none, which every scorecard then shows."""
        data = [{"path": d.path, "digest": d.digest, "decontamination": d.decontamination} for d in self.job.data]
        waived = [d.decontamination.removeprefix("waived:").strip() for d in self.job.data
                  if d.decontamination.startswith("waived:")]  # fmt: skip
        return {
            "schema": 1, "trainer": "exec", "stage": self.job.stage, "step": look.folder.step,
            "attempt": len(self._of("rollback")), "digest": checkpoint.digest, "source": str(look.folder.path),
            "kept": how, "start": self.job.start.digest if self.job.start else None, "data": data or None,
            "decontamination_waived": "; ".join(dict.fromkeys(waived)) or None,
            "seed": self.job.seed, "job": self._job_digest,
        }  # fmt: skip

    def _again(self, event: Event) -> Checkpoint | None:
        """A checkpoint of an earlier call, if it is still what it was."""
        try:
            checkpoint = open_checkpoint(self.out / event["path"])
        except CheckpointError:
            return None
        return checkpoint if checkpoint.digest == event["digest"] else None

    def _pass_over(self, look: Look, why: str) -> None:
        self._done[look.folder.key] = _short(look.signature)
        self._add("passed", key=look.folder.key, step=look.folder.step, signature=_short(look.signature))
        self._warn("passed_over", f"not judged: {why}")

    # -- events --

    def _of(self, *kinds: str) -> Sequence[Event]:
        return [event for event in self._events if event["kind"] in kinds]

    def _add(self, kind: str, /, **fields: object) -> None:
        self._events.append(append_event(self.out / "events.jsonl", kind, **fields))

    def _warn(self, code: str, text: str) -> None:
        self._add("warning", code=code, text=text)

    def _warn_once(self, code: str, text: str) -> None:
        if all(event["code"] != code for event in self._of("warning")):
            self._warn(code, text)

    def _fill(self, template: str | None) -> str | None:
        return None if template is None else render(template, self._values)


def _values(job: TrainJob, options: ExecOptions) -> dict[str, str]:
    """What stands for each `{name}`: the job's own, then the variables, each of which may use those before it."""
    values = {"out": str(job.out.absolute()), "seed": str(job.seed)}
    if job.start is not None:
        values["start"] = str(job.start.path)
    for name, template in options.variables.items():
        values[name] = render(template, values)
    values["watch"] = render(options.watch or "", values)
    return values


def _watch(root: str, options: ExecOptions, complete: Complete) -> Watch:
    return Watch(Path(root), options.pattern or "", complete, model=options.convert is None)


def _check_template(checkpoint: Checkpoint) -> None:
    """A chat template that does not parse is found before an engine starts. A model without one is fine here."""
    from evalsuite.models.chat import TEMPLATE_DATE, ChatTemplate

    if checkpoint.has_chat_template:
        ChatTemplate.from_checkpoint(checkpoint.path, None, now=TEMPLATE_DATE)


def _short(signature: Signature) -> str:
    return hashlib.sha256(repr(signature).encode()).hexdigest()[:16]
