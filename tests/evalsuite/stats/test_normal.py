"""The normal tail against scipy, down to where floats end."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from evalsuite.stats.normal import upper_tail, z_of_upper_tail


@pytest.mark.parametrize("z", [-40.0, -8.0, -1.0, 0.0, 0.5, 1.644854, 6.0, 20.0, 37.0])
def test_the_upper_tail_keeps_its_digits(z: float) -> None:
    # 1 − cdf is 0 from z = 8.3 on; the tail at 37 is 5.7e-300.
    assert upper_tail(z) == pytest.approx(norm.sf(z), rel=1e-12)
    assert upper_tail(z) > 0


@pytest.mark.parametrize("p", [1e-299, 1e-100, 1e-17, 1e-5, 0.025, 0.05, 0.5, 0.95, 1 - 1e-12])
def test_the_quantile_turns_the_tail_round(p: float) -> None:
    assert z_of_upper_tail(p) == pytest.approx(norm.isf(p), rel=1e-9, abs=1e-12)
    assert upper_tail(z_of_upper_tail(p)) == pytest.approx(p, rel=1e-11)


def test_tails_of_zero_and_one_never_reach_a_sum_as_infinities() -> None:
    assert np.isfinite(z_of_upper_tail([0.0, 1.0, 5e-324])).all()
    assert z_of_upper_tail(0.0) == z_of_upper_tail(1e-300) > 37
    assert z_of_upper_tail(1.0) < -8


def test_a_bound_that_decides_nothing_has_no_tail() -> None:
    assert upper_tail(math.inf) == 0.0
    assert upper_tail(-math.inf) == 1.0


def test_floats_come_back_as_floats_and_arrays_in_their_shape() -> None:
    assert isinstance(upper_tail(1.0), float)
    assert isinstance(z_of_upper_tail(0.3), float)
    assert upper_tail(np.zeros((2, 3))).shape == z_of_upper_tail(np.full((2, 3), 0.5)).shape == (2, 3)
    assert upper_tail(np.zeros((0, 4))).shape == (0, 4)
