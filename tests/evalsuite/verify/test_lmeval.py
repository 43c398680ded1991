"""What lm-eval gets from a verifier, and how it averages that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from evalsuite.types import Ratio, Score
from evalsuite.verify.lmeval import as_process_choices, as_process_results, macro, micro


def length(response: str, doc: Mapping[str, Any]) -> Score:
    return Score(len(response) / 10, parts={"words": Ratio(1, 4), "half": 0.5}, extracted=response)


def test_a_response_becomes_its_metric_and_its_parts() -> None:
    process = as_process_results(length, metric="length")
    assert process({}, ["12345"]) == {"length": 0.5, "words": Ratio(1, 4), "half": 0.5}


def test_a_category_is_put_before_every_number_but_not_before_a_ratio() -> None:
    process = as_process_results(length, metric="length", category="subject")
    got = process({"subject": "art"}, ["12345"])
    assert got == {"length": ("art", 0.5), "words": Ratio(1, 4), "half": ("art", 0.5)}


def test_choices_pass_on_the_log_likelihoods_alone() -> None:
    def total(totals: Sequence[float], doc: Mapping[str, Any]) -> Score:
        return Score(sum(totals))

    assert as_process_choices(total)({}, [(-1.0, True), (-2.5, False)]) == {"acc": -3.5}


def test_macro_weighs_categories_equally() -> None:
    assert macro([("a", 1.0), ("a", 0.0), ("a", 0.0), ("a", 0.0), ("b", 1.0)]) == 0.625  # (1/4 + 1) / 2


def test_micro_weighs_the_things_counted_equally() -> None:
    assert micro([Ratio(1, 1), Ratio(0, 3)]) == 0.25
    assert micro([(1, 1), [0, 3]]) == 0.25  # as JSON gives them back


@pytest.mark.parametrize("average", [macro, micro])
def test_nothing_has_no_average(average: Any) -> None:
    assert math.isnan(average([]))
