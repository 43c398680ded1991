"""The length-controlled win rate against the official package's numbers, its invariances, and the public board."""

from __future__ import annotations

import csv
import random
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

from evalsuite.verify.gamed import Gamed, read_gamed
from evalsuite.verify.length_control import (
    LABELS,
    Fit,
    Pair,
    Variant,
    Weights,
    _Rows,
    against,
    bootstrap,
    fit,
    is_extreme,
    unusable,
)
from tests.evalsuite.verify.lc_oracle import SEEDS, WITH_FAILURES, expected, made, official, write_gamed

V1: Variant = "length_controlled_v1"
MINIMAL: Variant = "length_controlled_minimal"


@cache
def gamed_of(seed: int) -> Gamed:
    with tempfile.TemporaryDirectory() as folder:
        return read_gamed(write_gamed(made(seed).gamed, Path(folder) / "df_gamed.csv"))


def fitted(seed: int, variant: Variant = V1) -> Fit:
    return _fitted(seed, variant)


@cache
def _fitted(seed: int, variant: Variant) -> Fit:
    gamed = gamed_of(seed)
    return fit(made(seed).pairs, variant, gamed, gamed.difficulties)


def same_as_official(found: Fit, said: Mapping[str, float]) -> None:
    assert abs(100 * found.value - said["length_controlled_winrate"]) <= 1e-6  # points
    assert abs(100 * found.spread - said["lc_standard_error"]) <= 1e-6


@pytest.mark.parametrize("variant", LABELS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_value_is_that_of_the_official_package(seed: int, variant: Variant) -> None:
    same_as_official(fitted(seed, variant), expected()[seed, variant])


def test_the_table_of_official_values_holds_failed_rows_and_both_ends_of_the_penalty() -> None:
    table = expected()
    assert len(table) == len(SEEDS) * len(LABELS)
    assert all(table[seed, V1]["n_total"] < len(made(seed).pairs) for seed in WITH_FAILURES)
    chosen = {fitted(seed).C for seed in SEEDS}
    assert {1e-4, 1e4} <= chosen
    assert len(chosen) >= 5


@pytest.mark.parametrize("seed", [0, 2])
def test_the_installed_package_still_says_so(seed: int, tmp_path: Path) -> None:
    pytest.importorskip("alpaca_eval", reason="the official package is not installed")
    same_as_official(fitted(seed), official(made(seed), V1, tmp_path))


# -- invariances --


def test_exchanging_longer_and_shorter_turns_the_sign_of_the_length_weight_alone() -> None:
    pairs, gamed = made(3).pairs, gamed_of(3)
    turned = [replace(p, baseline_length=p.length, length=p.baseline_length) for p in pairs]
    mirror = replace(gamed, std_delta_len=tuple(-s for s in gamed.std_delta_len))
    one, other = fitted(3).weights, fit(turned, V1, mirror, gamed.difficulties).weights
    assert (-other.length, other.difficulty, other.model) == pytest.approx(
        (one.length, one.difficulty, one.model), abs=1e-6
    )
    assert abs(one.length) > 0.1


def test_the_order_of_the_rows_moves_nothing_but_the_folds() -> None:
    pairs, gamed = list(made(4).pairs), gamed_of(4)
    random.Random(0).shuffle(pairs)
    # Other folds choose another C here and there; the difficulties follow their instruction, so the value stays close.
    assert fit(pairs, V1, gamed, gamed.difficulties).value == pytest.approx(fitted(4).value, abs=0.01)


def test_a_model_that_wins_as_the_baseline_does_has_an_even_rate_against_itself() -> None:
    weights = fitted(0).weights
    difficulties = list(gamed_of(0).difficulties.values())
    assert against(weights, weights, difficulties) == 0.5
    baseline = Weights(0, 0, 0)
    assert against(weights, baseline, difficulties) == pytest.approx(fitted(0).value, abs=1e-12)
    # A lead over the baseline is the baseline's deficit against the model.
    assert against(baseline, weights, difficulties) == pytest.approx(1 - fitted(0).value, abs=1e-12)


def test_the_minimal_variant_knows_no_difficulty_and_no_gamed_rows() -> None:
    found = fit(made(5).pairs, MINIMAL)
    assert found == fitted(5, MINIMAL)
    assert found.weights.difficulty == 0.0
    assert found.spread == pytest.approx(0.0, abs=1e-12)  # every row has the same prediction


# -- resamples --


def test_two_models_share_the_resamples_of_a_seed() -> None:
    gamed = gamed_of(5)
    pairs = made(5).pairs
    drawn = bootstrap(pairs, fitted(5), gamed, gamed.difficulties, seed=1, n_resamples=30)
    assert drawn == bootstrap(pairs, fitted(5), gamed, gamed.difficulties, seed=1, n_resamples=30)
    assert drawn != bootstrap(pairs, fitted(5), gamed, gamed.difficulties, seed=2, n_resamples=30)
    better = [replace(p, preference=None if p.preference is None else min(1, p.preference + 0.1)) for p in pairs]
    other = bootstrap(
        better, fit(better, V1, gamed, gamed.difficulties), gamed, gamed.difficulties, seed=1, n_resamples=30
    )
    paired = stdev(b - a for a, b in zip(drawn, other, strict=True))
    assert paired < stdev(drawn) / 2  # unpaired it would be about 1.4 times as large as either


def test_the_bootstrap_error_is_that_of_the_rate_where_length_and_difficulty_say_nothing() -> None:
    rng = random.Random(7)
    pairs = [Pair(i, float(rng.random() < 0.4), 1000 + rng.randrange(-50, 50), 1000) for i in range(805)]
    found = fit(pairs, MINIMAL)
    drawn = bootstrap(pairs, found, seed=0)
    rate = fmean(p.preference or 0.0 for p in pairs)
    assert len(drawn) == 200
    assert fmean(drawn) == pytest.approx(found.value, abs=0.005)
    # √(p(1−p)/n) = 0.0173; 200 resamples know it to about 5 %.
    assert stdev(drawn) == pytest.approx((rate * (1 - rate) / 805) ** 0.5, rel=0.2)


def test_the_scale_of_weighted_rows_is_that_of_copied_rows() -> None:
    pairs = made(6).pairs
    counts = [n % 3 for n in range(len(pairs))]
    copies = [p for p, count in zip(pairs, counts, strict=True) for _ in range(count)]
    weighted = _Rows.of(pairs, MINIMAL, {}).drawn(np.array(counts, dtype=float))
    assert weighted is not None
    assert weighted.scale() == pytest.approx(_Rows.of(copies, MINIMAL, {}).scale(), rel=1e-12)


# -- when there is none --


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([Pair(i, 0.5 + (i % 2) / 2, 10, i) for i in range(49)], "49 judged rows are too few, 50 are needed"),
        ([Pair(i, (i % 2) / 1, 10, 7) for i in range(60)], "all responses differ from the baseline by the same number"),
        ([Pair(i, 0.5, 10, i) for i in range(60)], "all preferences are equal"),
        ([Pair(i, None if i % 2 else 1.0, 10, i) for i in range(80)], "40 judged rows are too few"),
        ([Pair(i, float(i % 2), 10, i) for i in range(60)], ""),
    ],
)
def test_rows_that_no_regression_can_be_made_of_are_refused_with_the_reason(pairs: list[Pair], why: str) -> None:
    assert unusable(pairs).startswith(why)
    assert bool(unusable(pairs)) == bool(why)
    if why:
        with pytest.raises(ValueError, match=why[:20]):
            fit(pairs, MINIMAL)


def test_the_published_variant_needs_the_gamed_rows() -> None:
    with pytest.raises(ValueError, match=r"df_gamed\.csv"):
        fit(made(3).pairs, V1, None, gamed_of(3).difficulties)


@pytest.mark.parametrize(
    ("win_rate", "controlled", "extreme"),
    [
        (0.20, 0.09, True),  # below min(0.20 − 0.05, 0.20 − 0.10) = 0.10
        (0.20, 0.11, False),
        (0.20, 0.41, True),  # above max(0.20 + 0.20, 0.20 + 0.10) = 0.40
        (0.20, 0.39, False),
        (0.50, 0.37, True),  # below min(0.375, 0.40)
        (0.50, 0.63, True),  # above max(0.625, 0.60)
        (0.50, 0.62, False),
    ],
)
def test_a_value_far_from_the_win_rate_is_called_extreme(win_rate: float, controlled: float, extreme: bool) -> None:
    assert is_extreme(win_rate, controlled) is extreme


# -- the public board --


def board(folder: Path, name: str) -> dict[str, dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return {row[""]: row for row in csv.DictReader(file)}


def test_the_discrete_win_rate_of_the_board_is_wins_and_half_the_draws(shared_data: Path) -> None:
    rows = board(shared_data / "reference", "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv")
    wrong = []
    for name, row in rows.items():
        rate = (int(row["n_wins"]) + int(row["n_draws"]) / 2) / int(row["n_total"]) * 100
        if abs(rate - float(row["discrete_win_rate"])) > 1e-9:
            wrong.append(name)
        assert (
            int(row["n_wins"]) + int(row["n_wins_base"]) + int(row["n_draws"]) == int(row["n_total"]) or name in wrong
        )
    assert (len(rows), wrong) == (223, ["aligner-2b_gpt-4-turbo-2024-04-09"])


def test_the_boards_values_follow_from_its_weights_through_one_set_of_difficulties(shared_data: Path) -> None:
    """Without the difficulties themselves: their distribution, as eight weighted points, is learnt from half of the
    models, and then gives the values of the other half. A wrong formula could not be mended by any distribution.
    """
    optimize = pytest.importorskip("scipy.optimize")
    rows = board(shared_data / "reference", "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv")
    fits = board(shared_data / "reference", "length_controlled_v1_baseline_gpt4_1106_preview.csv")
    models = sorted(rows.keys() & fits.keys())
    assert len(models) == 199
    assert [float(v) for k, v in fits["gpt4_1106_preview"].items() if k] == [0, 0, 0]
    lift = np.array([float(fits[m]["instruction_difficulty"]) for m in models])
    skill = np.array([float(fits[m]["not_gamed_baseline.astype(float)"]) for m in models])
    said = np.array([float(rows[m]["length_controlled_winrate"]) for m in models])

    def predicted(x: Any, which: Any) -> Any:
        share = np.exp(x[8:] - x[8:].max())
        chance = 1 / (1 + np.exp(-(skill[which][:, None] + lift[which][:, None] * x[:8])))
        return 100 * chance @ (share / share.sum())

    half = np.random.default_rng(0).permutation(len(models))
    learn, rest = half[::2], half[1::2]
    start = np.concatenate([np.linspace(-3, 3, 8), -(np.linspace(-3, 3, 8) ** 2) / 2])
    found = optimize.least_squares(lambda x: predicted(x, learn) - said[learn], start, max_nfev=500)
    off = np.abs(predicted(found.x, rest) - said[rest])
    assert np.median(off) < 0.005  # points, of values from 0 to 100
    assert np.mean(off < 0.01) > 0.8
    assert off.max() < 0.25
