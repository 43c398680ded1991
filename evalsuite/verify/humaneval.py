"""What HumanEval and HumanEval+ share: the prompt with its prefilled code fence, the program, pass@10 of 20 samples.

Prompt, program and estimator are those of allenai/olmes @5a51f50, `codex_humaneval::tulu`, `codex_humanevalplus::tulu`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evalsuite.types import Doc, Score
from evalsuite.verify import code

METRIC = "pass@10"
PREFILL = "Here is the completed function:\n\n```python\n"


def program(response: str, doc: Doc, tests: str, timeout_s: float, **limits: Any) -> code.Program:
    """The prompt with the response behind it, nothing taken away."""
    return code.Program(
        source=str(doc["prompt"]) + code.inside_fence(response),
        timeout_s=timeout_s,
        setup=code.helpers_of(str(doc["prompt"])),  # some tests call helpers that stand in the prompt
        tests=f"{tests}\ncheck({doc['entry_point']})",
        calls=(str(doc["entry_point"]),),
        **limits,
    )


def combine(scores: Sequence[Score]) -> Score:
    """Unbiased pass@10 of the samples of one document, pass@1 beside it. ValueError for fewer than ten."""
    return code.combine(scores, k=10)


def gold_response(doc: Doc) -> str:
    return str(doc["canonical_solution"])


def docs(rows: Any) -> Any:
    # A field, because lm-eval renders a literal prefill as a template for every row.
    return rows.add_column("prefill", [PREFILL] * len(rows))


def doc_to_text(doc: Doc) -> str:
    return f"{doc['prompt']}{PREFILL}"


def doc_to_text_once(doc: Doc) -> str:
    """Without the quirk humaneval-prefix-twice: the phrase stands in the prefill alone."""
    return str(doc["prompt"])


def doc_to_target(doc: Doc) -> str:
    return str(doc["canonical_solution"])
