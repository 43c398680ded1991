"""Single keys from a terminal, without waiting for the end of a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SEQUENCE = 3  # bytes of what an arrow sends: escape, bracket, letter


@contextmanager
def keys() -> Iterator[Callable[[], str]]:
    """A function that waits for the next key; an empty string means that the terminal is gone.

    The terminal is changed once for all keys: switching between them would throw away what was typed meanwhile.
    """
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    typed = bytearray()

    def key() -> str:
        if not typed:
            typed.extend(os.read(terminal, 64))
        size = SEQUENCE if typed.startswith(b"\x1b[") else 1
        found = bytes(typed[:size]).decode(errors="replace")
        del typed[:size]
        return found

    tty.setcbreak(terminal, termios.TCSADRAIN)
    try:
        yield key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
