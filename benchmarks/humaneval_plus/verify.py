"""HumanEval+: the completed function passes many more tests (Liu et al. 2023, arXiv 2305.01210).

Prompt, program and estimator are those of allenai/olmes @5a51f50, `codex_humanevalplus::tulu`; the program is run by
evalsuite.sandbox with the tests in another process than the model's code.
"""

from collections.abc import Sequence
from typing import Any

from evalsuite.types import Doc, Score
from evalsuite.verify import code
from evalsuite.verify.code import Program, tools

METRIC = "pass@10"
PREFILL = "Here is the completed function:\n\n```python\n"
TIMEOUT_S = 20.0
MEMORY_MIB = 2048  # half a megabyte of tests in one row, and their results
QUIRKS = frozenset({"humaneval-plus-32"})
# The test of HumanEval/32 unpacks the answer, a number, in place of the question, and so fails whatever is answered.
SWAPPED = "_poly(*candidate(*inp), inp) <="
REPAIRED = "abs(_poly(*inp, candidate(*inp))) <="


def verify(response: str, doc: Doc, quirks: frozenset[str] = QUIRKS) -> Score:
    [score] = verify_many([(response, doc)], quirks)
    return score


def verify_many(pairs: Sequence[tuple[str, Doc]], quirks: frozenset[str] = QUIRKS) -> list[Score]:
    return code.run([program(response, doc, quirks) for response, doc in pairs])


def program(response: str, doc: Doc, quirks: frozenset[str] = QUIRKS) -> Program:
    """The prompt with the response behind it, nothing taken away."""
    tests = str(doc["test"])
    if "humaneval-plus-32" not in quirks and doc["task_id"] == "HumanEval/32":
        tests = tests.replace(SWAPPED, REPAIRED)
    return Program(
        source=str(doc["prompt"]) + code.inside_fence(response),
        timeout_s=TIMEOUT_S,
        memory_mib=MEMORY_MIB,
        packages=("numpy",),  # the tests compare floats with it
        setup=code.helpers_of(str(doc["prompt"])),  # some tests call helpers that stand in the prompt
        tests=f"{tests}\ncheck({doc['entry_point']})",
        calls=(str(doc["entry_point"]),),
    )


def combine(scores: Sequence[Score]) -> Score:
    """Unbiased pass@10 of the samples of one document, pass@1 beside it. ValueError for fewer than ten."""
    return code.combine(scores, k=10)


process_results = code.process_samples(verify_many, combine, METRIC)


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


__all__ = ["combine", "doc_to_target", "doc_to_text", "docs", "gold_response", "process_results", "tools", "verify"]
