"""What a user can fix: the command line prints one line and exits with the code. Other exceptions are bugs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EvalsuiteError(Exception):
    """Base of everything a user can fix. `exit_code` is what the command line exits with."""

    exit_code = 2


class UsageError(EvalsuiteError):
    """A name, option or combination that makes no sense."""


class CheckpointError(EvalsuiteError):
    """The checkpoint is missing, half-written, unsafe or broken."""


class BenchmarkError(EvalsuiteError):
    """A benchmark folder, suite or regime file that cannot be used."""


class DataError(EvalsuiteError):
    """A dataset that cannot be reached or does not have the promised shape."""


class EngineError(EvalsuiteError):
    """An engine that is not installed, cannot start or does not offer what is asked."""


class JournalError(EvalsuiteError):
    """A journal that cannot be read, or is in use by another process."""


class Incomplete(EvalsuiteError):
    """The run was stopped before its end; nothing is lost and the same command goes on."""

    exit_code = 3


class UnseenBudget(EvalsuiteError):
    """The unseen suite was asked for outside `evalsuite release`."""

    exit_code = 5


class PolicyError(EvalsuiteError):
    """A gate policy that cannot be read, or that could never come to a decision."""


class RegistryError(EvalsuiteError):
    """A registry that was damaged, cannot be written, or does not know what was asked for."""


class LostRace(EvalsuiteError):
    """The champion changed between the verdict and the promotion; gate again against the new one."""

    exit_code = 4


class TrainerFailed(EvalsuiteError):
    """A trainer ended in an error; its log says why. The exit code is the one that the trainer's own error has."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = type(self).exit_code if exit_code is None else exit_code


class EngineCrash(EvalsuiteError):
    """The engine died or ran out of memory in the middle of the work; what was answered is in the journal."""

    exit_code = 70


class DiskFull(EvalsuiteError):
    """No room to write. The journal is valid up to its last full line."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known name, or the empty string when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
