"""What comes from the untrusted side changes nothing of ours, whatever bytes it is."""

from __future__ import annotations

import pickle
from fractions import Fraction

import pytest

from evalsuite.sandbox import wire

FOREIGN = b"cevalsuite.sandbox.wire\nForeign\n"
FRACTION = b"cfractions\nFraction\n"
ONE = b"K\x01\x85R"  # called with 1
SET_ON_CLASS = b"(N}V__eq__\ncbuiltins\nstr\nstb"
ZERO_BY_ZERO = b"(N}V_numerator\nK\x00sV_denominator\nK\x00stb"  # would be <= and >= anything
OWN_DICT = b"}Vnumber\ncbuiltins\nlist\nsb"


@pytest.mark.parametrize(
    "body",
    [
        FOREIGN + SET_ON_CLASS,
        FOREIGN + ONE + SET_ON_CLASS,
        FOREIGN + ONE + OWN_DICT,
        FRACTION + ONE + SET_ON_CLASS,
        FRACTION + ONE + ZERO_BY_ZERO,
        FRACTION + b"K\x02K\x04\x86}V_normalize\nI00\ns\x92",  # NEWOBJ_EX
        b"cdecimal\nDecimal\n" + SET_ON_CLASS,
        b"cdatetime\ndate\n" + SET_ON_CLASS,
        b"ccollections\ndeque\n" + SET_ON_CLASS,
        b"cbuiltins\nint\n" + SET_ON_CLASS,
        b"cbuiltins\neval\n",
        b"cevalsuite.sandbox.wire\nRatio\n",
        b"cfractions\nFraction.__eq__\n",
    ],
)
def test_a_pickle_sets_no_attribute_and_names_nothing_else(body: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, AttributeError, TypeError)):
        wire.loads(b"\x80\x04" + body + b".")
    assert wire.Foreign.__eq__ is object.__eq__
    assert Fraction(1).__eq__("1") is NotImplemented


def test_what_stands_for_a_fraction_may_take_an_attribute_that_nothing_looks_at() -> None:
    [made] = wire.loads(b"\x80\x04(" + FRACTION + SET_ON_CLASS + b"0" + FRACTION + ONE + b"l.")
    assert made == 1
    assert made != 2


def test_fractions_arrive_as_numbers() -> None:
    assert wire.loads(pickle.dumps([Fraction(2, 4), Fraction(-3)])) == [0.5, -3]
