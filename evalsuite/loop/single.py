"""One stage of a recipe without a gate: trained to its end, every checkpoint told. What `evalsuite train` does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from evalsuite.errors import CheckpointError, UsageError
from evalsuite.loop.log import only_one
from evalsuite.loop.plan import Plan, make_job
from evalsuite.loop.view import Silent, View
from evalsuite.recipe import Stage, split_reference
from evalsuite.trainers.events import Event, read_events

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Trained:
    """What there is after a call: the checkpoints in step order, and whether the stage came to its end."""

    out: Path
    checkpoints: tuple[Checkpoint, ...]
    finished: bool


def train_stage(
    plan: Plan,
    stage: Stage,
    champion: Callable[[], Path | None],
    loop: Path,
    view: View | None = None,
    published: Callable[[Checkpoint], None] | None = None,
) -> Trained:
    """Trains one stage, or goes on with it; `published` is told of each checkpoint, those of earlier calls first.

    `loop` is the folder of a loop of the same recipe: its checkpoints and promotions count for `sft@last` and
    `sft@promoted`. Raises UsageError when the start is not there, or when the stage was begun as another job.
    """
    view = view or Silent()
    ungated = replace(stage, gate=None)
    with only_one(plan.folder(stage)):
        opened = {key: _opened(stage, key, found) for key, found in starts(plan, stage, champion, loop).items()}
        inputs = {key: checkpoint for key, checkpoint in opened.items() if key != "start"}
        job = make_job(plan, ungated, opened.get("start"), inputs)
        view.stage(stage.name, job.out)
        found = []
        with closing(cast("Any", plan.trainers[stage.name].train(job))) as checkpoints:
            for checkpoint in checkpoints:
                found.append(checkpoint)
                if published is not None:
                    published(checkpoint)
        events = read_events(job.out / "events.jsonl")
    return Trained(job.out, tuple(found), _finished(events))


def starts(plan: Plan, stage: Stage, champion: Callable[[], Path | None], loop: Path) -> dict[str, Path]:
    """The folders that `start` and the inputs name. Raises UsageError, a line for each that is not there yet."""
    texts = {"start": str(plan.start) if plan.start is not None else stage.start, **stage.inputs}
    found: dict[str, Path] = {}
    problems: list[str] = []
    for key, text in texts.items():
        if text is None:
            continue
        try:
            found[key] = _folder(plan, stage, key, text, champion, loop)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))
    return found


def _folder(plan: Plan, stage: Stage, key: str, text: str, champion: Callable[[], Path | None], loop: Path) -> Path:
    given = key == "start" and plan.start is not None
    reference = None if given else split_reference(text)
    if reference is not None:
        return _of_stage(plan, stage, key, reference, loop)
    if text == "@champion" and not given:
        folder = champion()
        if folder is None:
            raise UsageError(f"{stage.name}: starts from @champion, but the registry has none; give --start CKPT")
        return folder
    if text == "model" and not given:
        text = plan.recipe.model or ""
    return Path(text).expanduser() if given else plan.recipe.find(text)


def _of_stage(plan: Plan, stage: Stage, key: str, reference: tuple[str | None, str], loop: Path) -> Path:
    source, which = reference[0] or plan.previous(stage) or "", reference[1]
    trained = _published(plan.out / source)
    seen, promoted = _of_loop(loop, source)
    for folders in (promoted,) if which == "promoted" else (trained, seen):
        if folders:
            return folders[-1]
    hint = f", or --start {trained[-1]}" if trained and key == "start" else ""
    lacks = "no promoted checkpoint" if which == "promoted" else "no checkpoint yet"
    what = "--start CKPT" if key == "start" else f"inputs: {{{key}: CKPT}} in the recipe"
    raise UsageError(
        f"{stage.name}: {key} is {source}@{which}, and stage {source!r} has {lacks} in {plan.out} or {loop}; "
        f"give {what}{hint}"
    )


def _published(folder: Path) -> list[Path]:
    """The checkpoints of a stage that are still there, in the order in which they were published."""
    events = read_events(folder / "events.jsonl")
    return [path for e in events if e["kind"] == "checkpoint" and (path := folder / e["path"]).is_dir()]


def _of_loop(loop: Path, stage: str) -> tuple[list[Path], list[Path]]:
    """All checkpoints of a stage that a loop's log tells of, and those that it promoted."""
    paths: dict[str, Path] = {}
    promoted: list[str] = []
    for event in read_events(loop / "loop.jsonl"):
        if event.get("stage") != stage:
            continue
        if event["kind"] == "checkpoint":
            paths[event["digest"]] = Path(event["path"])
        elif event["kind"] == "promoted":
            promoted.append(event["digest"])
    there = {digest: path for digest, path in paths.items() if path.is_dir()}
    return list(there.values()), [there[digest] for digest in promoted if digest in there]


def _opened(stage: Stage, key: str, folder: Path) -> Checkpoint:
    from evalsuite.checkpoint import open_checkpoint

    try:
        return open_checkpoint(folder)
    except CheckpointError as error:
        if folder.exists():
            raise
        # An input has no option on the command line: it is put where the recipe looks for it.
        to, then = ("DIR", ", then --start DIR") if key == "start" else (str(folder), "")
        on_hub = len(folder.parts) == 2 and not folder.is_absolute()
        how = f" (from the hub: hf download {folder} --local-dir {to}{then})" if on_hub else ""
        raise UsageError(f"{stage.name}: {key}: there is no checkpoint folder {str(folder)!r}{how}") from error


def _finished(events: tuple[Event, ...]) -> bool:
    last = [event for event in events if event["kind"] in ("start", "end")]
    return bool(last) and last[-1]["kind"] == "end" and last[-1].get("reason") == "finished"
