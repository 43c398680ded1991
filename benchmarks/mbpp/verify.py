"""MBPP: the function that the model wrote passes the row's three asserts (Austin et al. 2021, arXiv 2108.07732)."""

from collections.abc import Sequence
from typing import Any

from evalsuite.types import Doc, Score
from evalsuite.verify import code
from evalsuite.verify.code import Program, tools

METRIC = "pass@1"
PREFILL = "```python\n"
TIMEOUT_S = 10.0


def verify(response: str, doc: Doc) -> Score:
    [score] = verify_many([(response, doc)])
    return score


def verify_many(pairs: Sequence[tuple[str, Doc]]) -> list[Score]:
    return code.run([program(response, doc) for response, doc in pairs])


def program(response: str, doc: Doc) -> Program:
    # A set-up may build its objects from a class that the response has to define, so it belongs to the tests.
    tests = "\n".join([str(doc["test_setup_code"]), *doc["test_list"]]).replace("\r\n", "\n")
    calls, imports = code.wanted_names(tests, str(doc["code"]))
    return Program(code.inside_fence(response), TIMEOUT_S, tests=tests, setup=imports, calls=calls)


def combine(scores: Sequence[Score]) -> Score:
    """pass@1 of the samples of one document."""
    return code.combine(scores)


process_results = code.process_samples(verify_many, combine, METRIC)


def gold_response(doc: Doc) -> str:
    return str(doc["code"])


def docs(rows: Any) -> Any:
    # A field, because lm-eval renders a literal prefill as a template for every row.
    return rows.add_column("prefill", [PREFILL] * len(rows))


def doc_to_text(doc: Doc) -> str:
    asserts = "\n".join(str(test).strip() for test in doc["test_list"])
    return (
        f"{str(doc['text']).strip()}\n\nAnswer with Python code only. It has to pass these tests:\n\n"
        f"```python\n{asserts}\n```"
    )


def doc_to_target(doc: Doc) -> str:
    return str(doc["code"])


__all__ = ["combine", "doc_to_target", "doc_to_text", "docs", "gold_response", "process_results", "tools", "verify"]
