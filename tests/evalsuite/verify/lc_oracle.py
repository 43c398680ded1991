"""Made-up preferences for the length-controlled win rate, and what the official package says of them.

`python -m tests.evalsuite.verify.lc_oracle > tests/evalsuite/verify/lc_expected.csv` writes the table again; it needs
alpaca_eval (0.6.6 was used, with scikit-learn 1.9.1 and numpy 2.3.5), which the project does not depend on.
"""

from __future__ import annotations

import csv
import math
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.verify.length_control import LABELS, Pair

SEEDS = range(20)
LARGE = (0, 1)  # as many instructions as the real set has; the others are small to keep the tests quick
WITH_FAILURES = tuple(seed for seed in SEEDS if seed % 3 == 2)
METRICS = (
    "win_rate",
    "standard_error",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "discrete_win_rate",
    "length_controlled_winrate",
    "lc_standard_error",
)


@dataclass(frozen=True, slots=True)
class Made:
    """One made-up model: its rows, and the rows of df_gamed.csv."""

    pairs: tuple[Pair, ...]
    gamed: tuple[dict[str, Any], ...]


def made(seed: int) -> Made:
    """Preferences that lean on length, difficulty and the model, from `random.Random` alone: the same everywhere."""
    rng = random.Random(f"length control {seed}")
    n = 805 if seed in LARGE else 150
    difficulty = [rng.gauss(0, 1.2) for _ in range(n)]
    slope, lift, skill = rng.uniform(-2, 0.5), rng.uniform(0.5, 1.1), rng.uniform(-2.5, 1)
    pairs, gamed = [], []
    for i in range(n):
        baseline, length = round(rng.lognormvariate(7.4, 0.6)), round(rng.lognormvariate(rng.uniform(6.5, 7.8), 0.6))
        chance = 1 / (1 + math.exp(-(slope * (baseline - length) / 1500 + lift * difficulty[i] + skill)))
        preference = rng.choice([chance, float(rng.random() < chance), float(rng.random() < chance), 0.5])
        failed = seed in WITH_FAILURES and rng.random() < 0.05
        pairs.append(Pair(i, None if failed else preference, baseline, length))
    for model, push in (("verbose", -1.0), ("concise", 1.0)):
        for i in range(n):
            delta = rng.gauss(push, 0.5)
            row = {"preference": 1 / (1 + math.exp(1.5 * delta)), "index": i, "std_delta_len": delta}
            about = {"instruction_difficulty": difficulty[i], "not_gamed_baseline": False}
            gamed.append({"model": f"gpt4_1106_preview_{model}", **row, **about})
    return Made(tuple(pairs), tuple(gamed))


def write_gamed(rows: tuple[dict[str, Any], ...], path: Path) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def official(made_up: Made, variant: str, folder: Path) -> dict[str, float]:
    """What alpaca_eval.metrics says; its one download is answered with a local file, and no weights are written."""
    import pandas
    from alpaca_eval.metrics import get_length_controlled_winrate, glm_winrate

    path = write_gamed(made_up.gamed, folder / "df_gamed.csv")
    glm_winrate.hf_hub_download = lambda **_: str(path)
    rows = [
        {
            "preference": math.nan if p.preference is None else p.preference + 1,
            "output_1": "x" * p.baseline_length,
            "output_2": "x" * p.length,
            "generator_1": "gpt4_1106_preview",
            "generator_2": "made-up",
            "annotator": "made-up",
        }
        for p in made_up.pairs
    ]
    found = get_length_controlled_winrate(
        pandas.DataFrame(rows), glm_name=variant, save_weights_dir=None, is_warn_extreme_changes=False
    )
    return {name: float(value) for name, value in found.items()}


def expected() -> dict[tuple[int, str], dict[str, float]]:
    """The table that `main` wrote: (seed, variant) to what the official package says, in percent."""
    with Path(__file__).with_name("lc_expected.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {(int(r["seed"]), r["variant"]): {m: float(r[m]) for m in METRICS} for r in rows}


def main() -> None:
    writer = csv.DictWriter(sys.stdout, ["seed", "variant", *METRICS], lineterminator="\n")
    writer.writeheader()
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            for variant in LABELS:
                writer.writerow({"seed": seed, "variant": variant, **official(made(seed), variant, Path(folder))})


if __name__ == "__main__":
    main()
