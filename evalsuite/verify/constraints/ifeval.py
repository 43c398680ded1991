"""IFEval's 25 instruction ids (Zhou et al. 2023, arXiv 2311.07911), their checks, and the verdict on a response."""

from evalsuite.verify.constraints.follow import Check, followed_both
from evalsuite.verify.constraints.ifeval_case import IDS as CASE_IDS
from evalsuite.verify.constraints.ifeval_format import IDS as FORMAT_IDS
from evalsuite.verify.constraints.ifeval_frame import IDS as FRAME_IDS
from evalsuite.verify.constraints.ifeval_length import IDS as LENGTH_IDS
from evalsuite.verify.constraints.ifeval_words import IDS as WORDS_IDS
from evalsuite.verify.constraints.language_tools import fallbacks, tools
from evalsuite.verify.constraints.rows import check_rows

IFEVAL_IDS = tuple(sorted((*CASE_IDS, *FORMAT_IDS, *FRAME_IDS, *LENGTH_IDS, *WORDS_IDS)))

__all__ = ["IFEVAL_IDS", "Check", "check_rows", "fallbacks", "followed_both", "tools"]
