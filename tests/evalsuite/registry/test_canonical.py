"""One value has one byte string, and it comes back."""

from __future__ import annotations

import hashlib
import json
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.registry.canonical import canonical, digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_keys_are_sorted_and_nothing_is_between_them() -> None:
    assert canonical({"b": (1, 2.5), "a": {"ß": None}}) == '{"a":{"ß":null},"b":[1,2.5]}'.encode()


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_what_is_written_is_read_again(value: object) -> None:
    assert json.loads(canonical(value)) == value


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(), st.integers() | st.lists(st.text()), min_size=2))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical(MappingProxyType(backwards)) == canonical(value)


def test_floats_have_the_shortest_form_that_comes_back() -> None:
    assert canonical([0.1, 1e300, 1.0, 1, -0.0]) == b"[0.1,1e+300,1.0,1,-0.0]"


def test_a_name_that_is_no_utf8_is_escaped_and_comes_back() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert canonical(name) == b'"caf\\udce9"'
    assert json.loads(canonical(name)) == name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {None: 1}, b"bytes", {1, 2}, object()])
def test_what_has_no_one_form_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical({"at": [value]})


def test_the_digest_is_the_sha256_of_the_bytes() -> None:
    assert digest({}) == hashlib.sha256(b"{}").hexdigest()
