"""HumanEval: the completed function passes the row's tests (Chen et al. 2021, arXiv 2107.03374).

The program is run by evalsuite.sandbox, the tests in another process than the model's code.
"""

from collections.abc import Sequence

from evalsuite.types import Doc, Score
from evalsuite.verify import code
from evalsuite.verify import humaneval as shared
from evalsuite.verify.code import Program, tools

METRIC, PREFILL = shared.METRIC, shared.PREFILL
TIMEOUT_S = 3.0


def verify(response: str, doc: Doc) -> Score:
    [score] = verify_many([(response, doc)])
    return score


def verify_many(pairs: Sequence[tuple[str, Doc]]) -> list[Score]:
    return code.run([program(response, doc) for response, doc in pairs])


def program(response: str, doc: Doc) -> Program:
    return shared.program(response, doc, str(doc["test"]), TIMEOUT_S)


combine = shared.combine
process_results = code.process_samples(verify_many, combine, METRIC)
gold_response = shared.gold_response
docs = shared.docs
doc_to_text = shared.doc_to_text
doc_to_text_once = shared.doc_to_text_once
doc_to_target = shared.doc_to_target

__all__ = ["combine", "doc_to_target", "doc_to_text", "docs", "gold_response", "process_results", "tools", "verify"]
