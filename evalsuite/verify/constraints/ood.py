"""The ids beyond IFEval: IFEval-OOD's 52 (Tülu 3, arXiv 2411.15124) and the 58 of IFBench (arXiv 2507.02833)."""

from evalsuite.verify.constraints.follow import Check, followed_both
from evalsuite.verify.constraints.language_tools import fallbacks, tools
from evalsuite.verify.constraints.ood_count import APPROXIMATE_IDS
from evalsuite.verify.constraints.ood_count import IDS as COUNT_IDS
from evalsuite.verify.constraints.ood_custom import IDS as CUSTOM_IDS
from evalsuite.verify.constraints.ood_extra import ALIAS
from evalsuite.verify.constraints.ood_extra import IDS as EXTRAS
from evalsuite.verify.constraints.ood_format import IDS as FORMAT_IDS
from evalsuite.verify.constraints.ood_ratio import IDS as RATIO_IDS
from evalsuite.verify.constraints.ood_sentence import IDS as SENTENCE_IDS
from evalsuite.verify.constraints.ood_words import IDS as WORDS_IDS
from evalsuite.verify.constraints.rows import check_rows

OOD_IDS = tuple(sorted((*COUNT_IDS, *RATIO_IDS, *WORDS_IDS, *SENTENCE_IDS, *FORMAT_IDS, *CUSTOM_IDS)))
"""Those of IFEval-OOD, in the `tulu3` variant."""

RETIRED_IDS = ("count:countries", "count:levenshtein", "format:camel_case")
"""Upstream took these out of its registry; IFBench never had them."""

EXTRA_IDS = tuple(sorted(EXTRAS))
"""What IFBench adds."""

IFBENCH_IDS = tuple(sorted((*(id for id in OOD_IDS if id not in RETIRED_IDS), *EXTRA_IDS)))
"""Those of IFBench, in the `ifbench` variant."""

OTHER_NAMES = (ALIAS, *APPROXIMATE_IDS)
"""Accepted too, but counted among none of the above: an alias of olmes, and an id without a public check."""

__all__ = [
    "APPROXIMATE_IDS",
    "EXTRA_IDS",
    "IFBENCH_IDS",
    "OOD_IDS",
    "OTHER_NAMES",
    "RETIRED_IDS",
    "Check",
    "check_rows",
    "fallbacks",
    "followed_both",
    "tools",
]
