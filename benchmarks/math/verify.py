"""MATH: a mathematically equal final answer, macro average over seven subjects (Hendrycks et al. 2021).

arXiv 2103.03874. Prompt, exemplars and grading are those of allenai/olmes @5a51f50, `minerva_math::tulu`; MATH-500
shares them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from evalsuite.verify import lmeval
from evalsuite.verify import math_benchmark as shared
from evalsuite.verify.math_text import last_box
from evalsuite.verify.parts import load_parts

QUIRKS = shared.QUIRKS
verify = shared.verify
process_results = shared.process_results(category="subject")
macro = lmeval.macro
doc_to_text = shared.doc_to_text
doc_to_target = shared.doc_to_target
shots = shared.shots
shots_repaired = shared.shots_repaired


def gold_response(doc: Mapping[str, Any]) -> str:
    return shared.solved(doc, last_box(doc["solution"]) or "")


def dataset(configs: Sequence[str], places: Mapping[str, Mapping[str, Any]] | None = None, **_: Any) -> dict[str, Any]:
    """The seven configs, one for each subject, as one table; `configs` comes from the metadata of the YAML."""
    return load_parts("EleutherAI/hendrycks_math", configs, "test", _rows, places)


def _rows(subject: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        yield {"subject": subject, "problem": row["problem"], "solution": row["solution"]}
