"""Checkable instructions: does a response do what was asked, decided by code. One registry for benchmarks and rewards.

    followed(response, ids, kwargs, mode="loose")   one Check per instruction, with the reason when it was not followed

Importing this loads none of nltk, langdetect or any data; a check loads what it needs when it is first called.
"""

from evalsuite.verify.constraints import ifeval_case as _case
from evalsuite.verify.constraints import ifeval_format as _format
from evalsuite.verify.constraints import ifeval_frame as _frame
from evalsuite.verify.constraints import ifeval_length as _length
from evalsuite.verify.constraints import ifeval_words as _words
from evalsuite.verify.constraints.follow import Check, Mode, followed, followed_both
from evalsuite.verify.constraints.registry import Constraint, Variant, all_constraints
from evalsuite.verify.constraints.rows import check_rows, row_problems
from evalsuite.verify.constraints.tools import fallbacks, tools

IFEVAL_IDS = tuple(sorted(c for part in (_case, _format, _frame, _length, _words) for c in part.IDS))
"""The 25 instruction ids of IFEval (Zhou et al. 2023, arXiv 2311.07911)."""

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
    "row_problems",
    "tools",
]
