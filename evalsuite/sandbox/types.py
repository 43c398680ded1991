"""The nouns of the sandbox: what is run, under which rules, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalsuite.errors import EvalsuiteError

Level = Literal["bwrap", "landlock", "none"]


class SandboxError(EvalsuiteError):
    """Model-written code cannot be run here under the rules that were asked for."""


@dataclass(frozen=True, slots=True)
class Program:
    """Model-written code and how it is judged.

    With `tests` (ours, trusted), `source` alone runs in the untrusted process. `setup` and `tests` run in another one
    that never executes model-written code; there the names in `calls` stand for functions of the source. The program
    passes when the tests come to their end, so nothing that the source does to itself can make it pass.

    Without `tests`, everything is in `source` and shares one process: it passes when it comes to its end. What tests
    and code do to each other there cannot be told apart, see evalsuite/sandbox/candidate.py.

    `packages` are import names of installed libraries that both sides may use; nothing else installed is importable.
    """

    source: str
    timeout_s: float
    memory_mib: int = 1024
    packages: tuple[str, ...] = ()
    tests: str = ""
    setup: str = ""
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a program passed, a few words on why not, and its wall-clock seconds."""

    passed: bool
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Policy:
    """Which isolation is good enough. `require` names the lowest level that is accepted (None: landlock).

    `unsafe` (or "none-accepted") lets programs run where nothing isolates them. `level` takes exactly that level, so
    that a weaker one can be tried on a machine that has a stronger one.
    """

    require: Literal["bwrap", "landlock", "none-accepted"] | None = None
    unsafe: bool = False
    workers: int | None = None
    level: Level | None = None

    @property
    def lowest(self) -> Level:
        """The lowest level that is accepted; what `require` names holds against `unsafe`."""
        if self.require == "none-accepted":
            return "none"
        return self.require or ("none" if self.unsafe else "landlock")
