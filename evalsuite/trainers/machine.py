"""What memory there is to train in, asked without importing torch."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Machine:
    """Bytes of each GPU's memory, and of the host's that this process may use."""

    gpus: tuple[int, ...]
    host: int

    def lacks(self, needed: int, processes: int) -> str:
        """Why that many processes of `needed` bytes each cannot run here; empty when they can."""
        fits = needed <= max(self.gpus) if self.gpus else needed * processes <= self.host
        return "" if fits else f"here there {self.told()}"

    def told(self) -> str:
        """`are 8 GPUs of 79.6 GiB`, or `is no GPU, and 23.4 GiB of memory`."""
        n = len(self.gpus)
        if n:
            return f"{'is 1 GPU' if n == 1 else f'are {n} GPUs'} of {gib(min(self.gpus))}"
        return f"is no GPU, and {gib(self.host)} of memory"


def this_machine() -> Machine:
    """The GPUs that nvidia-smi names and the memory that the machine, or a control group, allows."""
    return Machine(_gpus(), _host())


def gib(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 0.05 * 2**30 else f"{size / MIB:,.1f} MiB"


def _gpus() -> tuple[int, ...]:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ()
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
        return tuple(int(line) * MIB for line in done.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _host() -> int:
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            sizes.append(int(Path(file).read_text()))
    return min(sizes)
