"""What the ladder came to: every checkpoint with its verdict and scores, the curve of each run, ten lines of words."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from evalsuite.models.lean import import_generation
from evalsuite.scorecard import Result, Scorecard, read
from evalsuite.trainers import read_events

RUNS = ("grpo", "ppo", "narrow")
WHAT = {
    "sft": "learnt from right answers",
    "dpo": "from its own right and wrong answers",
    "grpo": "rewarded on all four tasks, GRPO",
    "ppo": "rewarded on all four tasks, PPO",
    "narrow": "rewarded on reverse alone, GRPO without KL",
}
WINDOW = 5  # iterations that a reward is averaged over


@dataclass(frozen=True, slots=True)
class Told:
    """A checkpoint of the ladder. `reward` is the mean pass rate of the iterations before it, `promoted` its
    generation; scores are 0 to 1."""

    stage: str
    name: str
    step: int
    path: Path
    digest: str
    outcome: str = ""
    line: str = ""
    promoted: int | None = None
    reward: float | None = None
    dev: float | None = None
    stderr: float = 0.0
    scores: Mapping[str, float] | None = None
    unseen: float | None = None
    unseen_stderr: float = 0.0


def checkpoints_of(loop: Path) -> list[Told]:
    """The checkpoints that a loop's log tells of, in order, with their verdicts."""
    found: dict[str, Told] = {}
    for event in read_events(loop / "loop.jsonl"):
        digest = str(event.get("digest"))
        if event["kind"] == "checkpoint":
            path = Path(event["path"])
            step = int(path.name.split("-")[1])
            found[digest] = Told(event["stage"], f"{event['stage']}-{step}", step, path, digest)
        elif event["kind"] == "gated":
            found[digest] = replace(found[digest], outcome=event["outcome"], line=event["line"])
        elif event["kind"] == "promoted":
            found[digest] = replace(found[digest], promoted=event["generation"])
    return [_rewarded(loop, told) for told in found.values()]


def curve_of(loop: Path, stage: str) -> list[tuple[int, float]]:
    """(iteration, pass rate of its rollouts) of an RLVR stage."""
    events = read_events(loop / stage / "events.jsonl")
    return [(e["step"], float(e["pass_rate"])) for e in events if e["kind"] == "step" and "pass_rate" in e]


def _rewarded(loop: Path, told: Told) -> Told:
    rates = [rate for step, rate in curve_of(loop, told.stage) if told.step - WINDOW < step <= told.step]
    return replace(told, reward=sum(rates) / len(rates)) if rates else told


# -- scores --


def second_process() -> ProcessPoolExecutor:
    """A process for half of `measure`, which imports what it needs while others work."""
    second = ProcessPoolExecutor(1, get_context("spawn"), _end_with, (os.getpid(),))
    second.submit(_import)
    return second


def _end_with(parent: int) -> None:
    """A pool's process outlives one that was killed, and would hold its journals."""

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=look, name="parent", daemon=True).start()


def _import() -> None:
    import_generation()
    for name in ("evalsuite.cli.score", "evalsuite.score", "evalsuite.models.hf.model", "lm_eval.tasks"):
        import_module(name)


def measure(checkpoints: Sequence[Told], results: Path, threads: int, second: Executor) -> Iterator[str]:
    """Scores every checkpoint, every other one in `second`: the development suite, then the unseen one for the curve
    alone.

    That comes after the last verdict, where nothing can be chosen by it any more; `evalsuite score` and `gate` refuse
    the unseen suite. Yields what a person would have typed and read.
    """
    asked = [(str(each.path), str(results), threads) for each in checkpoints]
    theirs = [second.submit(_measured, each) for each in asked[::2]]
    for i, told in enumerate(checkpoints):
        text = _measured(asked[i]) if i % 2 else theirs[i // 2].result()
        yield f"$ evalsuite score {told.path} --suite ladder --results {results}\n{text}"


def _measured(asked: tuple[str, str, int]) -> str:
    """Both suites; the development scores as text."""
    from evalsuite.cli.score import command, make_job
    from evalsuite.score import score

    path, results, threads = asked
    told = ""
    for suite, place in (("ladder", results), ("ladder-unseen", str(Path(results) / "unseen"))):
        words = [path, "--suite", suite, "--model", "hf", "--threads", str(threads), "--results", place]
        card = score(make_job(command.make_context("score", words).params, release=True))
        if not told:
            told = "  ".join(
                f"{c} {100 * (r.value or 0):.1f} ±{100 * (r.stderr or 0):.1f}" for c, r in _results(card).items()
            )
    return told


def scored(told: Told, results: Path) -> Told:
    """With what the scorecards say of it."""
    dev, unseen = _card(results, told), _card(results / "unseen", told)
    if dev is not None:
        by = {column: result.value for column, result in _results(dev).items() if result.value is not None}
        told = replace(told, dev=dev.average, stderr=_stderr(dev), scores=by)
    if unseen is not None:
        told = replace(told, unseen=unseen.average, unseen_stderr=_stderr(unseen))
    return told


def _card(results: Path, told: Told) -> Scorecard | None:
    files = sorted((results / "scorecards").glob(f"*-{told.digest[:12]}/ladder*.json"))
    return read(files[0]) if files else None


def _results(card: Scorecard) -> dict[str, Result]:
    """Column to result."""
    return {c: next(r for r in card.results if r.benchmark == name) for c, name in card.suite.columns.items()}


def _stderr(card: Scorecard) -> float:
    """Of the plain mean over columns, which are independent sets."""
    errors = [result.stderr or 0.0 for result in _results(card).values()]
    return math.sqrt(sum(error**2 for error in errors)) / max(1, len(errors))


# -- words --


def tell(results: Path, checkpoints: Sequence[Told], wall_s: float, cpu_s: float) -> str:
    """Ten lines; `story.json` and `curve.html` are written beside."""
    from train_plugins.ladder.page import write_page

    told = [scored(each, results) for each in checkpoints]
    curves = {run: curve_of(results / "loops" / "demo_cpu", run) for run in RUNS}
    plain = [{**_plain(each)} for each in told]
    facts = {"schema": 1, "wall_s": round(wall_s, 1), "cpu_s": round(cpu_s, 1), "checkpoints": plain, "curves": curves}
    (results / "story.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    write_page(results / "curve.html", told, curves)
    return "\n".join(
        ["", *lines(told), f"{wall_s:.0f} s, {cpu_s:.0f} CPU-seconds. The curve: {results.absolute()}/curve.html"]
    )


def lines(told: Sequence[Told]) -> list[str]:
    """What happened and why."""
    last = {each.stage: each for each in told}
    said = ["What happened (points, answers drawn at temperature 1; ± one standard error):"]
    for stage, each in last.items():
        verdict = {"promote": "promoted", "block": "BLOCKED", "hold": "held: not proven better"}.get(each.outcome, "")
        reward = "" if each.reward is None else f", reward {_first(told, stage)}{100 * each.reward:.0f}"
        dev = f"dev {_points(each.dev, each.stderr)}, unseen {_points(each.unseen, each.unseen_stderr)}"
        said.append(f"  {stage:<7}{WHAT[stage]:<46} {dev}{reward}: {verdict}")
    champion = max((each for each in told if each.promoted), key=lambda each: each.promoted or 0, default=None)
    if champion is not None:
        said.append(f"  Champion: {champion.name}, generation {champion.promoted}.")
    blocked = next((each for each in reversed(told) if each.outcome == "block"), None)
    if blocked is not None:
        said.append(f"  Why {blocked.name} may not replace it: {why_blocked(blocked, last.get('dpo'))}")
    return said


def why_blocked(worst: Told, start: Told | None) -> str:
    """What the gate says, and which columns fell since the run began."""
    before = start.scores or {} if start is not None else {}
    lost = {column: value - before.get(column, value) for column, value in (worst.scores or {}).items()}
    ranked = sorted(lost.items(), key=lambda item: item[1])
    fell = ", ".join(f"{column} {100 * by:+.0f}" for column, by in ranked if by < 0)
    return f"{worst.line or 'no verdict'}. Since its start {f'{fell} points' if fell else 'no column fell'}."


def _first(told: Sequence[Told], stage: str) -> str:
    rates = [each.reward for each in told if each.stage == stage and each.reward is not None]
    return f"{100 * rates[0]:.0f} → " if len(rates) > 1 else ""


def _points(value: float | None, stderr: float) -> str:
    return "–" if value is None else f"{100 * value:.1f} ±{100 * stderr:.1f}"


def _plain(told: Told) -> dict[str, Any]:
    names = ("stage", "name", "step", "digest", "outcome", "line", "promoted", "reward", "dev", "stderr", "scores",
             "unseen", "unseen_stderr")  # fmt: skip
    return {name: getattr(told, name) for name in names}
