"""Runs model-written code where it can do no harm, and judges it where it cannot judge itself.

Three kinds of processes: a zygote for each worker, confined once (confine.py); for each program a judging process
forked from it (judge.py), which holds our tests; and one more, stripped of everything (candidate.py), which holds the
model's code. The level is what confines the zygote: bubblewrap, or Landlock with namespaces where those are allowed.
"""

from evalsuite.sandbox.levels import describe, require, use
from evalsuite.sandbox.pool import run_many
from evalsuite.sandbox.types import Outcome, Policy, Program, SandboxError

__all__ = ["Outcome", "Policy", "Program", "SandboxError", "describe", "require", "run_many", "use"]
