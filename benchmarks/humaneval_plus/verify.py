"""HumanEval+: the completed function passes many more tests (Liu et al. 2023, arXiv 2305.01210).

The program is run by evalsuite.sandbox, the tests in another process than the model's code.
"""

from collections.abc import Sequence

from evalsuite.types import Doc, Score
from evalsuite.verify import code
from evalsuite.verify import humaneval as shared
from evalsuite.verify.code import Program, tools

METRIC, PREFILL = shared.METRIC, shared.PREFILL
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
    tests = str(doc["test"])
    if "humaneval-plus-32" not in quirks and doc["task_id"] == "HumanEval/32":
        tests = tests.replace(SWAPPED, REPAIRED)
    # The tests compare floats with numpy.
    return shared.program(response, doc, tests, TIMEOUT_S, memory_mib=MEMORY_MIB, packages=("numpy",))


combine = shared.combine
process_results = code.process_samples(verify_many, combine, METRIC)
gold_response = shared.gold_response
docs = shared.docs
doc_to_text = shared.doc_to_text
doc_to_text_once = shared.doc_to_text_once
doc_to_target = shared.doc_to_target

__all__ = ["combine", "doc_to_target", "doc_to_text", "docs", "gold_response", "process_results", "tools", "verify"]
