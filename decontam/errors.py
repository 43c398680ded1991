"""What a user of decontamination can fix. The command line prints one line of it and exits with its code."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DecontamError(Exception):
    """Wrong usage or broken input: what was wrong, where, what was expected, what to type next."""

    exit_code = 2


class BrokenRow(Exception):
    """A training row that cannot be read: not JSON, not an object, or a selected field that is no text."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, else an empty string."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
