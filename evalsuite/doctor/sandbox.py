"""Which means this machine has to run model-written code apart from everything else; found by trying, not by looking.

User namespaces may be switched off although the program that needs them is installed, so bubblewrap is really run. The
trials are those of evalsuite.sandbox.
"""

from __future__ import annotations

from typing import Any

from evalsuite.sandbox.landlock import version as landlock_abi
from evalsuite.sandbox.launch import bwrap_version
from evalsuite.sandbox.levels import bwrap_trouble, probe
from evalsuite.sandbox.types import Level

__all__ = ["bwrap_trouble", "landlock_abi", "sandbox"]


def sandbox() -> dict[str, Any]:
    """{level, bwrap, landlock_abi, why, repair, probed}; level is bwrap, landlock or none.

    `why` is what keeps it from bwrap. `probed` says for each level whether it held a program that tried to get out:
    "yes", "yes, but programs share the worker's namespaces", or why not.
    """
    probed: dict[Level, str] = {"bwrap": _probed("bwrap"), "landlock": _probed("landlock")}
    trouble, repair = bwrap_trouble()
    return {
        "level": "bwrap" if not trouble else "landlock" if probed["landlock"].startswith("yes") else "none",
        "bwrap": ".".join(map(str, bwrap_version())) or None,
        "landlock_abi": landlock_abi(),
        "why": trouble,
        "repair": repair,
        "probed": probed,
    }


def _probed(level: Level) -> str:
    means, why = probe(level)
    if means is None:
        return why
    return "yes" if means.nested else "yes, but programs share the worker's namespaces"
