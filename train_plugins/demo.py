"""The demonstration: the whole ladder on a CPU, with a gate after every stage. Nothing is downloaded.

A tiny base model → SFT → gate → on-policy preferences → DPO → gate → RLVR by GRPO and by PPO → gate, and one more GRPO
that is rewarded on a single task until the others are lost. Then the leaderboard, a curve of reward against development
and unseen scores, and what happened in ten lines. Killed? The same command goes on. Run it with `make demo`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from train_plugins.ladder import story
from train_plugins.ladder.tasks import rlvr_rows, sft_rows

RECIPE = "demo_cpu"
N_SFT, N_PAIRS, N_RLVR = 9600, 1000, 4000  # rows; 9,600 are 150 steps of 64
NARROW = ("ladder_reverse",)
OPENED = "Every decision is made. Now all is scored in full, and the unseen suite opened: what would it have said?"
STAGES = ("sft", "dpo", "grpo", "ppo", "narrow")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/demo"), help="where everything goes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of scoring; training takes one")
    parser.add_argument("--seed", type=int, default=0, help="of the base model, the data and every stage")
    options = parser.parse_args(arguments)
    began, cpu = time.monotonic(), _cpu_s()
    options.out.mkdir(parents=True, exist_ok=True)
    with chdir(options.out):
        write_data(options.seed)
        for stage in STAGES[:-1]:
            climb(stage, options.seed, options.threads)
        with story.second_process() as second:
            climb(STAGES[-1], options.seed, options.threads)
            checkpoints = story.checkpoints_of(Path("loops") / RECIPE)
            print(f"\n{OPENED}", flush=True)
            for text in story.measure(checkpoints, Path(), options.threads, second):
                print(f"\n{text}", flush=True)
        evalsuite("leaderboard", ".", "--suite", "ladder")
        told = story.tell(Path(), checkpoints, time.monotonic() - began, _cpu_s() - cpu)
    print(told, flush=True)


def climb(stage: str, seed: int, threads: int) -> None:
    """One stage and its gate."""
    if stage == "dpo":
        write_pairs(seed, threads)
    evalsuite("loop", f"{RECIPE}.yaml", "--only", stage, *_engine(threads), may_exit=(0, 1, 3))


def write_data(seed: int) -> None:
    """The base model, the rows of all stages, and the recipe with this seed; what is there already stays."""
    from evalsuite.trainers.recipes import find_recipe
    from train_plugins.data.rows import write_dataset
    from train_plugins.tiny import write_tiny

    rows: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "sft.jsonl": lambda: sft_rows(N_SFT, seed),
        "pair_prompts.jsonl": lambda: rlvr_rows(N_PAIRS, seed + 1000),
        "rlvr.jsonl": lambda: rlvr_rows(N_RLVR, seed),
        "narrow.jsonl": lambda: rlvr_rows(N_RLVR, seed, NARROW),
    }
    for name, draw in rows.items():
        if not Path(name).exists():
            write_dataset(Path(name), draw(), {"licence": "Apache-2.0", "origin": "generated"})
    if not Path("base/config.json").exists():
        write_tiny(Path("base"), seed)
    text = find_recipe(RECIPE).read_text(encoding="utf-8")
    Path("demo_cpu.yaml").write_text(text.replace("schema: 1\n", f"schema: 1\nseed: {seed}\n", 1), encoding="utf-8")


def write_pairs(seed: int, threads: int) -> None:
    """Preference pairs from the answers of the SFT checkpoint."""
    from train_plugins.ladder import pairs

    if Path("pairs.jsonl").exists():
        return
    checkpoint = story.checkpoints_of(Path("loops") / RECIPE)[-1].path
    command = [str(checkpoint), "pair_prompts.jsonl", "pairs.jsonl", "--seed", str(seed), "--threads", str(threads)]
    print(f"\n$ python -m train_plugins.ladder.pairs {' '.join(command)}", flush=True)
    pairs.main(command)


def evalsuite(*command: str, may_exit: Sequence[int] = (0,)) -> None:
    """Types a command in this process, which has torch already. Ends the demonstration on any other exit code."""
    from evalsuite.__main__ import main as run

    print(f"\n$ evalsuite {' '.join(command)}", flush=True)
    code = run(list(command))
    sys.stdout.flush()
    if code not in may_exit:
        sys.exit(f"expected exit {' or '.join(map(str, may_exit))}, got {code}")


def _engine(threads: int) -> tuple[str, ...]:
    return ("--threads", str(threads), "--results", ".")


def _cpu_s() -> float:
    """CPU seconds of this process and of all that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
