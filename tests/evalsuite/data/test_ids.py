"""Sample ids depend on the fields they are made of and on nothing else."""

from __future__ import annotations

import hashlib
import random
import time
from typing import Any

import pytest

from evalsuite.data import sample_ids
from evalsuite.errors import DataError


def test_ids_do_not_change_when_rows_are_reordered_or_left_out() -> None:
    docs = [{"question": f"q{i}", "kwargs": [{"n": i, "absent": None}], "rest": random.random()} for i in range(50)]
    ids = dict(zip([d["question"] for d in docs], sample_ids(docs, ["question", "kwargs"]), strict=True))
    assert len(set(ids.values())) == 50
    assert all(len(i) == 16 and set(i) <= set("0123456789abcdef") for i in ids.values())
    part = docs[::-3]
    assert sample_ids(part, ["question", "kwargs"]) == [ids[d["question"]] for d in part]


def test_the_id_of_a_row_is_the_hash_of_its_fields_and_nothing_else() -> None:
    canonical = b'{"answer":"\\u00e4","question":"q"}'
    expected = hashlib.sha256(canonical).hexdigest()[:16]
    assert sample_ids([{"question": "q", "answer": "ä", "other": 1}], ["question", "answer"]) == [expected]
    assert sample_ids([{"question": "q", "answer": "ä"}], ("answer", "question")) == [expected]


def test_ragged_and_null_filled_rows_have_the_same_id() -> None:
    ragged = [{"kwargs": [{}, {"n": 0, "s": ""}]}]
    filled = [{"kwargs": [{"n": None, "s": None}, {"n": 0, "s": ""}]}]
    assert sample_ids(ragged, ["kwargs"]) == sample_ids(filled, ["kwargs"])
    assert sample_ids(ragged, ["kwargs"]) != sample_ids([{"kwargs": [{}, {"n": 0}]}], ["kwargs"])


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (["a", "b", "a", "a"], ["a", "b", "a#1", "a#2"]),
        (["a", "a", "a#1", "a"], ["a", "a#1", "a#1#1", "a#2"]),
        ([3, 30, 3], ["3", "30", "3#1"]),
    ],
)
def test_repeated_native_ids_are_numbered_and_stay_unique(values: list[Any], ids: list[str]) -> None:
    assert sample_ids([{"id": v} for v in values], "id") == ids


def test_hostile_values_have_ids_and_a_missing_field_is_named_with_its_row() -> None:
    import numpy

    odd = [{"f": "\ud800"}, {"f": float("nan")}, {"f": numpy.arange(3)}, {"f": {"deep": [None, {"x": b"b"}]}}]
    assert len(set(sample_ids(odd, ["f"]))) == 4
    for rule in ("f", ["f"]):
        with pytest.raises(DataError, match="row 1 has no field 'f', which its id needs; it has g"):
            sample_ids([{"f": 1}, {"g": 2}], rule)


def test_fourteen_thousand_rows_have_ids_within_a_third_of_a_second() -> None:
    docs = [{"question": f"What is {i}? " * 20, "choices": ["a", "b", "c", str(i)]} for i in range(14_042)]
    start = time.process_time()
    ids = sample_ids(docs, ["question", "choices"])
    assert time.process_time() - start < 0.3
    assert len(set(ids)) == 14_042
