"""MATH-500: a mathematically equal final answer (Hendrycks et al. 2021, arXiv 2103.03874; subset of arXiv 2305.20050).

Prompt, exemplars and grading are those of the whole MATH test set (benchmarks/math), on the 500 problems of
HuggingFaceH4/MATH-500.
"""

from collections.abc import Mapping
from typing import Any

from evalsuite.verify import math_benchmark as shared

QUIRKS = shared.QUIRKS
verify = shared.verify
process_results = shared.process_results()
doc_to_text = shared.doc_to_text
doc_to_target = shared.doc_to_target
shots = shared.shots
shots_repaired = shared.shots_repaired


def gold_response(doc: Mapping[str, Any]) -> str:
    return shared.solved(doc, doc["answer"])
