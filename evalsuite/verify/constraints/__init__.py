"""Checkable instructions: does a response do what was asked, decided by code. One registry for benchmarks and rewards.

    followed(response, ids, kwargs, mode="loose")   one Check per instruction, with the reason when it was not followed

Importing this loads none of nltk, langdetect or any data; a check loads what it needs when it is first called.
"""

from evalsuite.verify.constraints.follow import Check, Mode, followed, followed_both
from evalsuite.verify.constraints.ifeval import IFEVAL_IDS
from evalsuite.verify.constraints.language_tools import fallbacks, require_exact, tools
from evalsuite.verify.constraints.registry import Constraint, Variant, all_constraints
from evalsuite.verify.constraints.rows import check_rows, row_problems

__all__ = [
    "IFEVAL_IDS",
    "Check",
    "Constraint",
    "Mode",
    "Variant",
    "all_constraints",
    "check_rows",
    "fallbacks",
    "followed",
    "followed_both",
    "require_exact",
    "row_problems",
    "tools",
]
