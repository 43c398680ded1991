"""W15: RLVR with the generator a step ahead in a process of its own, against turns in one process: wall seconds.

Ahead, the generator is pinned to one core and the learner to another; in turns there is one process, single-threaded
and pinned to the learner's core. Both go on from the same tiny model, which is asked to repeat a word of four
different letters eight times (32 tokens and the end) and is right in a part of its samples. Time runs from the
beginning of the first iteration, so imports, loading and the start of the generator's process are left out. The
weights of every iteration are kept in memory (a copy of 3.5 MB, inside the time) and judged on held-out rows when all
runs have ended.

`python -m tests.speed.w15_async train FILE` and `… judge FILE` are one run and the judgement of several, for processes
of their own.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.speed.idle import idle
from tests.speed.rlvr_sides import Sampler, job_of, taught
from tests.speed.training_sides import write_rows
from train_plugins.rlvr.options import RLVROptions
from train_plugins.settings import SFTOptions

SEEDS, ITERATIONS = 5, 30
RISE, WINDOW = 0.15, 3  # of the mean held-out rate of the last three iterations over the start's
N_HELD_OUT = 192
LETTERS, N_LETTERS, TIMES = "abcdefgh", 4, 8
START_RATES = (0.4, 0.65)
SFT_STEPS, SFT_BATCH = tuple(range(65, 151, 5)), 32
GRPO: Mapping[str, Any] = {
    "algorithm": "grpo", "lr": 2e-4, "schedule": "constant", "prompts_per_iteration": 16, "samples_per_prompt": 8,
    "response_tokens": N_LETTERS * TIMES + 1, "prompt_tokens": 32, "kl": "kl3", "kl_in": "loss", "beta": 0.01,
    "weight_decay": 0.0, "dtype": "float32", "threads": 1, "generator_threads": 1, "generator": "hf",
}  # fmt: skip
MODES = ("async", "sync")
SPENT = ("generate_s", "score_s", "update_s", "verify_s", "wait_s", "send_s")

Run = dict[str, Any]  # what `train` writes: at, and sums of the log
Runs = dict[str, list[Run]]


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """The rows of results/SPEED.md. Raises RuntimeError on fewer than two cores and where the machine is too busy."""
    import torch

    torch.set_num_threads(1)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise RuntimeError("a generator ahead of the learner needs a core of its own; one core is there")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start, rate = first(root / "start")
        data = write_rows(root / "prompts.jsonl", prompts(2048, 1))
        n_seeds, iterations = max(1, round(SEEDS * scale)), max(WINDOW, round(ITERATIONS * scale))
        runs: Runs = {mode: [] for mode in MODES}
        for seed, mode in itertools.product(range(n_seeds), MODES):
            spec = {
                "start": str(start), "data": str(data), "out": str(root / f"{mode}-{seed}"), "seed": seed,
                "cores": cores, "options": {**GRPO, "iterations": iterations, **of_mode(mode, cores)},
            }  # fmt: skip
            runs[mode].append(timed(spec, strict=scale >= 1))
        reached = judged(root, start, rate + RISE, runs, cores)
    print(json.dumps({mode: [r["at"] for r in runs[mode]] for mode in MODES} | {"reached": reached}), file=sys.stderr)
    note = f"start right in {rate:.0%}; {details(runs)}"
    return [*to_reward(runs, reached, note), per_iteration(runs, f"{told_of(reached)}; {note}")]


def of_mode(mode: str, cores: Sequence[int]) -> dict[str, Any]:
    return {"mode": mode, **({"generator_cpus": [cores[0]]} if mode == "async" else {})}


# -- the task --


def first(root: Path) -> tuple[Path, float]:
    """Where all runs begin, and the share of its samples that is right."""
    root.mkdir()
    options = SFTOptions(
        lr=3e-3, epochs=1, batch=SFT_BATCH, max_length=96, weight_decay=0.0, dtype="float32", schedule="constant",
        warmup_ratio=0.1,
    )  # fmt: skip
    lessons = [
        {"id": row["id"], "source": row["source"],
         "messages": [*row["messages"], {"role": "assistant", "content": row["ground_truth"]}]}
        for row in prompts(SFT_STEPS[-1] * SFT_BATCH, 0)
    ]  # fmt: skip
    return taught(root, lessons, held_out(), options, GRPO["response_tokens"], SFT_STEPS, START_RATES)


def prompts(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows like "cabcd8?", to be answered with the word eight times, none of them held out."""
    return list(itertools.islice((row for row in _drawn(seed) if not _is_held_out(row)), n))


def held_out() -> list[dict[str, Any]]:
    return list(itertools.islice((row for row in _drawn(2) if _is_held_out(row)), N_HELD_OUT))


def _drawn(seed: int) -> Any:
    draw = random.Random(seed)
    for i in itertools.count():
        word = "".join(draw.sample(LETTERS, N_LETTERS))
        asked = [{"role": "user", "content": f"c{word}{TIMES}?"}]
        yield {"id": f"{i}", "source": "w15", "dataset": "exact", "messages": asked, "ground_truth": word * TIMES}


def _is_held_out(row: Mapping[str, Any]) -> bool:
    """One word in eight or so."""
    return sum(map(ord, row["messages"][0]["content"][1:-2])) % 8 == 0


# -- one run, in a process of its own --


def timed(spec: Mapping[str, Any], *, strict: bool) -> Run:
    """What `train` wrote. Raises RuntimeError where other processes took the machine's time meanwhile."""
    out = Path(spec["out"])
    with idle(strict=strict):
        call("train", spec, out.with_suffix(".json"), spec["cores"][1])()
    found: Run = json.loads((out / "timed.json").read_text())
    return found | {"out": str(out)}


def call(what: str, spec: Mapping[str, Any], file: Path, core: int) -> Any:
    """Starts this module on a core, and returns what waits for it."""
    file.write_text(json.dumps(spec))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.speed.w15_async", what, str(file)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip

    def wait() -> None:
        said = process.communicate()[1]
        if process.returncode:
            raise RuntimeError((said.strip() or "no message").splitlines()[-1])

    return wait


def train(spec: Mapping[str, Any]) -> None:
    """Trains on this process's core, the generator on the other one; writes times and weights of all iterations."""
    import torch

    from evalsuite.trainers import parse, read_events
    from train_plugins.rlvr import worker
    from train_plugins.worker import Run as Start

    torch.set_num_threads(1)
    at: list[float] = []
    weights: list[dict[str, Any]] = []
    iterate = worker.Session._iterate

    def watched(self: worker.Session, iteration: int) -> None:
        if not at:
            at.append(time.monotonic())
        iterate(self, iteration)
        weights.append({name: x.detach().clone() for name, x in self.learner.policy.state_dict().items()})
        at.append(time.monotonic())

    worker.Session._iterate = watched  # type: ignore[method-assign]
    out = Path(spec["out"])
    options = parse(RLVROptions, spec["options"], "options")
    worker.work(Start(job_of("rlvr", Path(spec["start"]), Path(spec["data"]), out, spec["seed"]), options))
    steps = [event for event in read_events(out / "events.jsonl") if event["kind"] == "step"]
    torch.save(weights, out / "weights.pt")
    found = {"at": [t - at[0] for t in at[1:]], "scores": [step["score"] for step in steps],
             "staleness": max(step["staleness"] for step in steps),
             "spent": {name: sum(step.get(name, 0.0) for step in steps) for name in SPENT}}  # fmt: skip
    (out / "timed.json").write_text(json.dumps(found))


# -- when they reached the rate --


def judged(root: Path, start: Path, rate: float, runs: Runs, cores: Sequence[int]) -> dict[str, list[int | None]]:
    """The first iteration of each run that reached the rate, counted from 1; the two modes are judged at a time."""
    asked = {"start": str(start), "rate": rate}
    waits = [
        call("judge", {**asked, "outs": [r["out"] for r in runs[mode]]}, root / f"judge-{mode}.json", core)
        for mode, core in zip(MODES, cores, strict=True)
    ]
    for wait in waits:
        wait()
    return {mode: [json.loads((Path(r["out"]) / "judged.json").read_text()) for r in runs[mode]] for mode in MODES}


def judge(spec: Mapping[str, Any]) -> None:
    import torch

    torch.set_num_threads(1)
    sampler = Sampler(Path(spec["start"]), held_out(), GRPO["response_tokens"])
    for out in map(Path, spec["outs"]):
        found = first_reached(sampler, torch.load(out / "weights.pt"), spec["rate"])
        (out / "judged.json").write_text(json.dumps(found))


def first_reached(sampler: Sampler, weights: Sequence[Mapping[str, Any]], rate: float) -> int | None:
    rates: list[float] = []
    for iteration, state in enumerate(weights, 1):
        sampler.model.load_state_dict(state)
        rates.append(sampler.rate(iteration))
        if len(rates) >= WINDOW and statistics.mean(rates[-WINDOW:]) >= rate:
            return iteration
    return None


# -- the rows --


def details(runs: Runs) -> str:
    """Seconds per iteration of each part, and how old the rollouts were."""
    told = []
    for mode in MODES:
        n = sum(len(run["at"]) for run in runs[mode])
        parts = {name: sum(run["spent"][name] for run in runs[mode]) / n for name in SPENT}
        seconds = ", ".join(f"{name.removesuffix('_s')} {s:.2f}" for name, s in parts.items() if s >= 0.005)
        told.append(f"{mode} per iteration: {seconds}, staleness at most {max(r['staleness'] for r in runs[mode])}")
    if max(run["staleness"] for run in runs["async"]) > 1 or any(run["staleness"] for run in runs["sync"]):
        raise RuntimeError(f"rollouts were too old: {'; '.join(told)}")
    return "; ".join(told)


def to_reward(runs: Runs, reached: Mapping[str, list[int | None]], note: str) -> list[dict[str, Any]]:
    """The row about equal reward. A run that did not get there counts with all of its time; none where half did not."""
    every = [*reached["async"], *reached["sync"]]
    missing = every.count(None)
    if 2 * missing >= len(every):
        return []
    seconds = {mode: [r["at"][(k or 0) - 1] for r, k in zip(runs[mode], reached[mode], strict=True)] for mode in MODES}
    told = f"reached in iteration {reached['async']} against {reached['sync']}".replace("None", "never")
    if missing:
        told += f"; {missing} of {len(every)} runs did not and count with all of their time"
    name = f"W15a RLVR ahead against in turns, until the held-out rate has risen by {RISE}"
    return [_row(name, seconds, f"{told}; {note}")]


def told_of(reached: Mapping[str, list[int | None]]) -> str:
    every = [*reached["async"], *reached["sync"]]
    return f"{len(every) - every.count(None)} of {len(every)} runs got to the rate of W15a"


def per_iteration(runs: Runs, note: str) -> dict[str, Any]:
    seconds = {mode: [r["at"][-1] / len(r["at"]) for r in runs[mode]] for mode in MODES}
    n = len(runs["sync"][0]["at"])
    last = {mode: statistics.mean(statistics.mean(r["scores"][-WINDOW:]) for r in runs[mode]) for mode in MODES}
    scores = f"mean score of the last {WINDOW} {last['async']:.2f} against {last['sync']:.2f}"
    return _row(f"W15b RLVR ahead against in turns, an iteration of {n}", seconds, f"{scores}; {note}")


def _row(name: str, seconds: Mapping[str, list[float]], note: str) -> dict[str, Any]:
    mine, theirs = seconds["async"], seconds["sync"]
    low, high = interval(mine, theirs)
    spans = [f"{min(side):.2f}-{max(side):.2f}" for side in (mine, theirs)]
    verdict = "" if low > 1 else ", which does not lie above 1: nothing is claimed"
    return {
        "name": name, "unit": "wall seconds", "goal": 1.0, "command": "make bench",
        "peer": "ours in turns, one process on one core",
        "ours": round(statistics.mean(mine), 2), "theirs": round(statistics.mean(theirs), 2),
        "ratio": round(sum(theirs) / sum(mine), 2),
        "note": f"{len(mine)} seeds, {spans[0]} against {spans[1]}; 95% interval {low:.2f}-{high:.2f}{verdict}; {note}",
    }  # fmt: skip


def interval(mine: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """Of the ratio of sums over seeds, by all resamples of the seeds, pairs kept together: 2.5 % on either side."""
    n = len(mine)
    ratios = sorted(
        sum(theirs[i] for i in drawn) / sum(mine[i] for i in drawn) for drawn in itertools.product(range(n), repeat=n)
    )
    return ratios[int(0.025 * len(ratios))], ratios[int(0.975 * len(ratios))]


if __name__ == "__main__":
    {"train": train, "judge": judge}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
