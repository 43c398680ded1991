"""The table of emoji: its size, a sample of its members, and the package it was taken from where that is installed."""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise

import pytest

from evalsuite.verify.constraints.emoji_ranges import _BOUNDS, is_emoji


def test_the_table_has_1409_code_points_in_146_ranges_with_gaps_between() -> None:
    assert len(_BOUNDS) == 146
    assert sum(last - first + 1 for first, last in _BOUNDS) == 1409
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(_BOUNDS))
    assert sum(is_emoji(chr(code)) for code in range(sys.maxunicode + 1)) == 1409


@pytest.mark.parametrize("char", ["😀", "©", "®", "™", "\U0001f3fb", "⌚", "⌛", "ℹ", "🫠", "\u2764"])
def test_what_is_an_emoji(char: str) -> None:
    assert is_emoji(char)


@pytest.mark.parametrize(
    "text", ["", "a", "5", "#", "*", " ", "\u200d", "\ufe0f", "⌘", "\U0001f1e9", "\ud800", "😀😀", "❤\ufe0f"]
)
def test_what_is_none(text: str) -> None:
    """Letters, digits, joiners, half a flag, half a surrogate pair; and more than one character."""
    assert not is_emoji(text)


@pytest.mark.skipif(find_spec("emoji") is None, reason="the package emoji is not installed")
def test_the_table_equals_the_package_it_was_taken_from() -> None:
    import emoji  # type: ignore[import-not-found, unused-ignore]

    if version("emoji") != "2.16.0":
        pytest.skip(f"the table is of emoji 2.16.0, installed is {version('emoji')}")
    other = [hex(code) for code in range(sys.maxunicode + 1) if emoji.is_emoji(chr(code)) != is_emoji(chr(code))]
    assert other == []
