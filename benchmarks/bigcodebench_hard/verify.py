"""BigCodeBench-Hard: the written script passes the row's unittest cases (Zhuo et al. 2024, arXiv 2406.15877).

Setting of allenai/olmes @5a51f50, `bigcodebench_hard::tulu`: instruct prompts, calibrated, greedy. The instruction and
the prefill are our own wording (metadata.upstream_sha256 names the originals).
"""

import ast
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from evalsuite.errors import DataError
from evalsuite.types import Doc, Score
from evalsuite.verify import code
from evalsuite.verify.code import Program, tools

METRIC = "pass@1"
INSTRUCTION = (
    "Write one complete Python script that solves the problem below. Put all of it, imports included, in a single "
    "markdown code block."
)
PREFILL = "This Python script solves the problem and passes its tests:\n```python\n"
TIMEOUT_S = 60.0
MEMORY_MIB = 4096
# Libraries whose import name is not the one in the rows.
IMPORT_NAMES = {"scikit-learn": "sklearn", "Pillow": "PIL", "beautifulsoup4": "bs4", "pyyaml": "yaml"}
# In the same process as the code: the cases patch what it uses.
RUNNER = """
def _run_the_cases():
    import unittest
    found = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(TestCases).run(found)
    wrong = [*found.failures, *found.errors, *found.skipped]
    wrong += [(case, "it passes unexpectedly") for case in found.unexpectedSuccesses]
    if wrong:
        raise AssertionError(f"{len(wrong)} of {found.testsRun} cases: {wrong[0][1].strip().splitlines()[-1]}")
    if not found.testsRun:
        raise AssertionError("no case ran")
_run_the_cases()
"""


def verify(response: str, doc: Doc) -> Score:
    [score] = verify_many([(response, doc)])
    return score


def verify_many(pairs: Sequence[tuple[str, Doc]]) -> list[Score]:
    return code.run([program(response, doc) for response, doc in pairs])


def program(response: str, doc: Doc) -> Program:
    """The calibrated code behind the row's `code_prompt`, then the cases."""
    solution = code.calibrated(code.inside_fence(response), str(doc["entry_point"]))
    parts = (f"{doc['code_prompt']}\n    pass", solution, str(doc["test"]), RUNNER)
    return Program("\n".join(parts), TIMEOUT_S, MEMORY_MIB, packages=installed(libraries(doc)))


def libraries(doc: Doc) -> tuple[str, ...]:
    """Import names of the row's libraries that are no part of Python; `libs` is a list, or one written as text."""
    given = doc["libs"]
    names = ast.literal_eval(given) if isinstance(given, str) else given
    found = {IMPORT_NAMES.get(name, name).partition(".")[0] for name in names}
    return tuple(sorted(found - set(sys.stdlib_module_names)))


@cache
def installed(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if importlib.util.find_spec(name))


def combine(scores: Sequence[Score]) -> Score:
    """pass@1 of the samples of one document; pass@10 beside it where a regime asks for so many."""
    return code.combine(scores, others=(1, 10))


process_results = code.process_samples(verify_many, combine, METRIC)


def gold_response(doc: Doc) -> str:
    """The signature and its imports with the body that the row gives."""
    return f"{doc['code_prompt']}\n{doc['canonical_solution']}"


def docs(rows: Any) -> Any:
    """The rows; DataError naming the libraries that they need and that are not installed."""
    needed = {name: doc["task_id"] for doc in rows for name in libraries(doc)}
    if missing := sorted(name for name in needed if not installed((name,))):
        raise DataError(
            f"bigcodebench_hard: the tests need {len(missing)} libraries that are not installed "
            f"({', '.join(missing)}; {needed[missing[0]]} needs {missing[0]}); "
            "see benchmarks/bigcodebench_hard/README.md, 'Libraries'"
        )
    return rows.add_column("prefill", [PREFILL] * len(rows))


def doc_to_text(doc: Mapping[str, Any]) -> str:
    return f"{INSTRUCTION}\n{doc['instruct_prompt']}\n"


def doc_to_target(doc: Doc) -> str:
    return str(doc["canonical_solution"])


__all__ = ["combine", "doc_to_target", "doc_to_text", "docs", "gold_response", "process_results", "tools", "verify"]
