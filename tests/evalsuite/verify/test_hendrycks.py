"""String equality of MATH answers, against lm-eval's own (its file is byte-equal to that of version 0.4.3)."""

from __future__ import annotations

from hypothesis import given, settings
from lm_eval.tasks.hendrycks_math import utils as hendrycks

from evalsuite.verify.hendrycks import same_text
from evalsuite.verify.math_text import normalize
from tests.evalsuite.verify.test_math_text import texts


@settings(max_examples=2000, deadline=None)
@given(texts, texts)
def test_text_equality_is_that_of_hendrycks(one: str, other: str) -> None:
    for a, b in ((one, other), (one, normalize(one)), (one, one.replace("\\frac{", "\\frac"))):
        assert same_text(a, b) == hendrycks.is_equiv(a, b)


def test_nothing_equals_nothing_only() -> None:
    assert same_text(None, None)
    assert not same_text(None, "")
