"""W14: a step of RLVR by GRPO on one thread, against TRL's GRPOTrainer: CPU-seconds of sampling, scoring and updating.

Both sides go on from the same tiny model, fine-tuned until it is right in a part of its samples, and ask the same
prompts in the same order, 16 of them 8 times each step, with the same verifier, learning rate and number of optimizer
steps. Ours keeps a reference and has the KL term in its loss, TRL has neither (beta 0), which is less work. Advantages
are divided by std + 1e-8 here, by std + 1e-4 there; samples differ, so rewards agree within noise alone. Sides take
turns; a repeat has a seed of its own; medians and ranges are over repeats.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.speed.idle import idle
from tests.speed.rlvr_sides import PARTS, Stepped, ours, taught, trl_grpo
from tests.speed.training_sides import write_rows
from train_plugins.ladder.tasks import rlvr_rows, sft_rows
from train_plugins.rlvr.options import RLVROptions
from train_plugins.settings import SFTOptions

REPEATS, SKIPPED, COUNTED = 5, 2, 20
ENDS = 5  # steps at each end whose rewards are compared
NOISE = 4.0  # standard errors
TASK = "ladder_reverse"
START_RATES = (0.3, 0.8)
SFT_STEPS, SFT_BATCH = tuple(range(30, 91, 5)), 64
GRPO: Mapping[str, Any] = {
    "algorithm": "grpo", "lr": 2e-4, "schedule": "constant", "prompts_per_iteration": 16, "samples_per_prompt": 8,
    "response_tokens": 5, "prompt_tokens": 32, "kl": "kl3", "kl_in": "loss", "weight_decay": 0.0, "dtype": "float32",
    "threads": 1,
}  # fmt: skip

Call = Callable[[int, int, Path], Stepped]  # a run of so many steps with a seed in a new folder
Sides = dict[str, list[Stepped]]


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """The rows of results/SPEED.md. Raises RuntimeError on a busy machine and where sides did unequal work."""
    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        steps = max(ENDS, round(COUNTED * scale)) + SKIPPED
        start, rate = first(root / "start")
        data = write_rows(root / "prompts.jsonl", rlvr_rows(512, 0, (TASK,)))

        def call(side: Any, beta: float) -> Call:
            return lambda steps, seed, out: side(
                start, data, RLVROptions(**GRPO, iterations=steps, beta=beta), SKIPPED, seed, out
            )

        calls = {"ours": call(ours, 0.01), "trl": call(trl_grpo, 0.0), "plain": call(ours, 0.0)}
        sides = alternate(root, scale, steps, calls)
    same_work(sides, steps)
    told = [f"{name}: {rewards(runs)}" for name, runs in sides.items()]
    print("\n".join(told), file=sys.stderr)
    return [row(sides, rate, agreement(sides["ours"], sides["trl"]))]


def first(root: Path) -> tuple[Path, float]:
    """Where both sides begin, and the share of its samples that is right."""
    root.mkdir()
    lessons = sft_rows(SFT_STEPS[-1] * SFT_BATCH, 0, (TASK,))
    options = SFTOptions(
        lr=3e-3, epochs=1, batch=SFT_BATCH, max_length=64, weight_decay=0.0, dtype="float32", schedule="constant",
        warmup_ratio=0.2,
    )  # fmt: skip
    return taught(root, lessons, rlvr_rows(500, 1, (TASK,)), options, GRPO["response_tokens"], SFT_STEPS, START_RATES)


def alternate(root: Path, scale: float, steps: int, calls: Mapping[str, Call]) -> Sides:
    """What each side measured, in turns, after a short run of each that is not counted (allocator, caches, imports)."""
    sides: Sides = {name: [] for name in calls}
    for seed in range(-1, max(1, round(REPEATS * scale))):
        for name, call in calls.items():
            with idle(strict=scale >= 1):
                measured = call(steps if seed >= 0 else SKIPPED + 1, max(seed, 0), root / f"{name}-{seed}")
            if seed >= 0:
                sides[name].append(measured)
    return sides


def same_work(sides: Sides, steps: int) -> None:
    """Raises RuntimeError unless all sides made as many steps of as many rollouts and read the same prompts."""
    for runs in zip(*sides.values(), strict=True):
        found = {(len(r.scores), r.rollouts, r.prompt_tokens) for r in runs}
        expected = steps * GRPO["prompts_per_iteration"] * GRPO["samples_per_prompt"]
        if len(found) > 1 or {f[:2] for f in found} != {(steps, expected)}:
            raise RuntimeError(f"not the same work: (steps, rollouts, prompt tokens) of the sides are {sorted(found)}")


def ends(run: Stepped) -> tuple[float, float]:
    """Mean score of the first steps and of the last ones."""
    return statistics.mean(run.scores[:ENDS]), statistics.mean(run.scores[-ENDS:])


def rewards(runs: list[Stepped]) -> str:
    firsts, lasts = zip(*map(ends, runs), strict=True)
    return f"{statistics.mean(firsts):.2f} -> {statistics.mean(lasts):.2f}"


def agreement(mine: list[Stepped], theirs: list[Stepped]) -> str:
    """How rewards compare at both ends, over repeats. Raises RuntimeError where they differ by more than noise.

    The standard error is that of the mean difference of repeats with the same seed, but at least what independent
    rollouts with two possible scores would have.
    """
    parts = []
    for which, name in enumerate(("first", "last")):
        a, b = ([ends(run)[which] for run in runs] for runs in (mine, theirs))
        apart = [x - y for x, y in zip(a, b, strict=True)]
        error = max(_spread(apart), _binomial(a + b, len(apart)))
        mean = statistics.mean(apart)
        if abs(mean) > NOISE * error:
            raise RuntimeError(f"scores of the {name} {ENDS} steps differ by {mean:.2f}, {error:.2f} is their noise")
        parts.append(f"{name} {ENDS} steps {mean:+.2f} (standard error {error:.2f})")
    return "; ".join(parts)


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _binomial(scores: list[float], repeats: int) -> float:
    """Standard error of a difference of two means of scores 0 or 10."""
    p = statistics.mean(scores) / 10.0
    n = repeats * ENDS * GRPO["prompts_per_iteration"] * GRPO["samples_per_prompt"]
    return float(10.0 * (2 * p * (1 - p) / n) ** 0.5)


def row(sides: Sides, rate: float, agree: str) -> dict[str, Any]:
    each = {name: [statistics.mean(run.cpu_s) for run in runs] for name, runs in sides.items()}
    median = {name: statistics.median(values) for name, values in each.items()}
    span = {name: f"{min(values):.3f}-{max(values):.3f}" for name, values in each.items()}
    shares = [statistics.median(run.shares[part] for run in sides["ours"]) for part in PARTS]
    split = ", ".join(f"{part.removesuffix('_s')} {share:.1%}" for part, share in zip(PARTS, shares, strict=True))
    steps = len(sides["ours"][0].cpu_s)
    note = (
        f"16 prompts x 8 samples, at most {GRPO['response_tokens']} tokens, start right in {rate:.0%}, {steps} steps "
        f"after {SKIPPED}; {len(each['ours'])} repeats, {span['ours']} against {span['trl']}; ours without a reference "
        f"{median['plain']:.3f} ({median['trl'] / median['plain']:.2f}x), {span['plain']}; ours: {split}"
    )
    return {
        "name": "W14 RLVR, a step of GRPO with reference", "unit": "CPU-seconds per step", "goal": 1.5,
        "peer": "TRL 1.16 GRPOTrainer without reference, transformers generates", "command": "make bench",
        "ours": round(median["ours"], 3), "theirs": round(median["trl"], 3),
        "ratio": round(median["trl"] / median["ours"], 2), "note": note,
        "equality": f"mean score {rewards(sides['ours'])} against {rewards(sides['trl'])}, apart in the {agree}",
    }  # fmt: skip
