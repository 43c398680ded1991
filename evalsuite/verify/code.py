"""Judges model-written code: a program from a response and a row, its outcome as a Score, pass@k over the samples.

The programs run in evalsuite.sandbox. A verifier of code is pure in the sense that matters: the same text and row give
the same score on every machine that isolates and has a free core for it.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evalsuite.sandbox import Outcome, Program, describe, run_many
from evalsuite.types import Doc, Score

FENCE = "```"
MOST_PARSED = 200_000  # characters; longer code is taken as it is
MOST_CUTS = 20


def pass_at_k(n: int, n_correct: int, k: int) -> float:
    """The chance that one of k samples passes, from n of which `n_correct` did: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, section 2.1), as its product. ValueError when n < k.
    """
    if n < k:
        raise ValueError(f"pass@{k} needs at least {k} samples, found {n}")
    if n - n_correct < k:
        return 1.0
    missed = 1.0
    for i in range(n - n_correct + 1, n + 1):
        missed *= 1.0 - k / i
    return 1.0 - missed


def combine(scores: Sequence[Score], k: int = 1, others: Sequence[int] = (1,)) -> Score:
    """The samples of one document as one Score: value pass@k, parts the other pass@k for which there are samples."""
    n, n_correct = len(scores), sum(score.value == 1.0 for score in scores)
    parts = {f"pass@{other}": pass_at_k(n, n_correct, other) for other in others if other != k and other <= n}
    why = next((score.why for score in scores if score.why), "") if n_correct == 0 else ""
    return Score(pass_at_k(n, n_correct, k), parts, why=why)


def run(programs: Sequence[Program]) -> list[Score]:
    """One Score for each program, in their order; 1.0 for one that passed. Raises SandboxError without isolation."""
    scores: dict[int, Score] = {index: _score(outcome) for index, outcome in run_many(programs)}
    return [scores[index] for index in range(len(programs))]


def _score(outcome: Outcome) -> Score:
    return Score(float(outcome.passed), why=outcome.why)


def process_samples(
    verify_many: Callable[[Sequence[tuple[str, Doc]]], list[Score]],
    combine: Callable[[Sequence[Score]], Score],
    metric: str,
) -> Callable[[Doc, Sequence[Any]], dict[str, Any]]:
    """What lm-eval calls for each document; with a filter that keeps every sample `results` holds one list of them."""

    def process_results(doc: Doc, results: Sequence[Any]) -> dict[str, Any]:
        responses = [results[0]] if isinstance(results[0], str) else list(results[0])
        score = combine(verify_many([(response, doc) for response in responses]))
        return {metric: score.value, **score.parts}

    return process_results


def tools() -> Mapping[str, str]:
    """What held the programs, for the scorecard."""
    return describe()


def inside_fence(response: str) -> str:
    """The code of a response that opens with a code fence; any other response as it is.

    The fence is the prefill's, so only an endpoint that cannot be given a prefill writes one. It is no Python.
    """
    if not response.lstrip().startswith(FENCE):
        return response
    _, _, code = response.lstrip().partition("\n")
    return code.partition(f"\n{FENCE}")[0]


def helpers_of(prompt: str) -> str:
    """The prompt as code of its own, for tests that call helpers it defines; a body is added where it lacks one."""
    for code in (prompt, f"{prompt.rstrip()}\n    pass\n"):
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            ast.parse(code)
            return code
    return ""


def wanted_names(tests: str, gold: str) -> tuple[tuple[str, ...], str]:
    """(functions and classes that the model's code has to define for these tests, imports that they take from it).

    Called and neither defined in the tests nor a builtin, unless the gold solution defines a builtin's name anew.
    Imports of the gold solution that the tests use come back as code.
    """
    tree, solution = ast.parse(tests), ast.parse(gold)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    imports = [node for node in solution.body if isinstance(node, ast.Import | ast.ImportFrom)]
    imports = [node for node in imports if used.intersection(_defines(node))]
    anew = {name for node in solution.body if node not in imports for name in _defines(node)}
    given = {name for node in [*tree.body, *imports] for name in _defines(node)} | (set(dir(builtins)) - anew)
    return tuple(sorted(called - given)), "\n".join(map(ast.unparse, imports))


def calibrated(code: str, entry_point: str) -> str:
    """What `entry_point` needs of the code: its definition, all imports, and every definition these refer to.

    Code that does not parse is cut before the line that the parser stumbles over. Without a definition of
    `entry_point` the code stays as it is. Upstream (BigCodeBench's sanitizer) uses tree-sitter for it; this is
    Python's own `ast`, so broken code is cut in another place.
    """
    tree, code = _parsed(code)
    if tree is None:
        return code
    definitions: dict[str, list[ast.stmt]] = {}
    for node in tree.body:
        for name in () if isinstance(node, ast.Import | ast.ImportFrom) else _defines(node):
            definitions.setdefault(name, []).append(node)
    if entry_point not in definitions:
        return code
    kept: set[int] = set()
    todo = [entry_point]
    while todo:
        for node in definitions.pop(todo.pop(), ()):
            if node.lineno not in kept:
                kept.add(node.lineno)
                todo += [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in definitions]
    wanted = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom) or n.lineno in kept]
    try:
        return "\n".join(map(ast.unparse, wanted))
    except RecursionError:  # a sum of a thousand terms is legal code, and nested too deep to be written out again
        return code


def _parsed(code: str) -> tuple[ast.Module | None, str]:
    """The tree of the code or of its longest beginning that parses, and that text."""
    if len(code) > MOST_PARSED:
        return None, code
    whole = code
    for _ in range(MOST_CUTS):
        try:
            return ast.parse(code), code
        except SyntaxError as error:
            lines = code.split("\n")[: max(0, min(error.lineno or 1, code.count("\n") + 1) - 1)]
            code = "\n".join(lines)
        except (ValueError, RecursionError, MemoryError):  # a null byte, or nested beyond what the parser takes
            break
    return None, whole


def _defines(node: ast.stmt) -> Iterator[str]:
    """Names that a statement at the top level binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


__all__ = [
    "Program",
    "calibrated",
    "combine",
    "helpers_of",
    "inside_fence",
    "pass_at_k",
    "process_samples",
    "run",
    "tools",
    "wanted_names",
]
