"""Whether a machine was left alone while something was measured on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OTHERS = 0.5  # cores that other processes may use; beyond it a ratio says nothing


@contextmanager
def idle(*, strict: bool) -> Iterator[None]:
    """Raises RuntimeError at its end where other processes used the machine meanwhile; only where `strict`."""
    before, began, own = _busy_s(), time.monotonic(), sum(os.times()[:4])
    yield
    others = (_busy_s() - before - (sum(os.times()[:4]) - own)) / (time.monotonic() - began)
    if strict and others > OTHERS:
        raise RuntimeError(f"other processes used {others:.1f} cores meanwhile; measure on an idle machine")


def _busy_s() -> float:
    """CPU-seconds that all processes of the machine have used since it started."""
    user, nice, system, _idle, _iowait, irq, soft, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
