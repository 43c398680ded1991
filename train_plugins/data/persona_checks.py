"""Whether a reply can be used: it begins as it must, its answer ends as it must, its code runs, its constraints hold.

Every check returns the text as it goes into a row, or a Refused with the reason in a few words, which are counted.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from train_plugins.data.persona_constraints import Drawn

NEAR = 95.0  # rapidfuzz's ratio, 0 to 100
SKETCH = 8  # hashes of a text by which near ones are found
SHARED = 2
SHINGLE = 3  # words
BUCKET = 200  # texts with one hash that are compared: a run of words that is in everything tells nothing
CODE_S = 10.0
NUMBER = re.compile(r"#### *\$?(-?\d[\d,]*(?:\.\d+)?|-?\.\d+)[ .]*\Z")
FENCE = re.compile(r"\A\s*```(?:python|py)?[ \t]*\n(.*?)\n```\s*\Z", re.DOTALL | re.IGNORECASE)
EXAMPLE = re.compile(r"^Example:\s*`?(.+?)`?\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a reply is of no use."""

    why: str


Checked = str | Refused


@dataclass(frozen=True, slots=True)
class Example:
    """A call with plain values and the value it must give, both as Python text."""

    name: str
    call: str
    value: str


def read_prompt(reply: str, prefix: str) -> Checked:
    """What stands after the prefix, which a reply may print in bold."""
    found = re.match(rf"\s*\**{re.escape(prefix)}\**\s*", reply, re.IGNORECASE)
    if found is None:
        return Refused("no_prefix")
    return reply[found.end() :].strip() or Refused("empty")


def check_math(reply: str) -> Checked:
    """An answer whose last line is in Minerva's form, with something for an answer."""
    from evalsuite.verify.math_text import final_answer

    text = reply.strip()
    last = text.rpartition("\n")[2]
    answer = final_answer(last) if last.rstrip().endswith("I hope it is correct.") else None
    return text if answer and answer.strip("$ ") else Refused("no_final_answer")


def check_grade_math(reply: str) -> Checked:
    """An answer that ends in `#### NUMBER`."""
    text = reply.strip()
    return text if NUMBER.search(text) and text.count("####") == 1 else Refused("no_final_answer")


def final_number(answer: str) -> str:
    """The number after `####`, without thousands separators."""
    found = NUMBER.search(answer.strip())
    assert found is not None, "checked before"
    return found[1].replace(",", "")


def check_constraints(reply: str, constraints: Sequence[Drawn]) -> Checked:
    """An answer that follows all constraints as it stands (IFEval's strict mode)."""
    failed = _failed(reply, constraints, "strict")
    return Refused(f"constraint:{failed[0]}") if failed else reply.strip()


def check_rejected(reply: str, constraints: Sequence[Drawn]) -> Checked:
    """An answer that does not follow all constraints, even where outer lines and stars are forgiven (loose mode)."""
    if not reply.strip():
        return Refused("empty")
    return reply.strip() if _failed(reply, constraints, "loose") else Refused("still_follows")


def check_code(reply: str, prompt: str) -> Checked:
    """One function and its imports that parse; the example of the prompt, where there is one, holds in the sandbox."""
    found = FENCE.match(reply)
    code = found[1] if found else reply
    if problem := _not_one_function(code):
        return Refused(problem)
    example = find_example(prompt)
    if example is not None and (problem := _run(code, example)):
        return Refused(problem)
    return reply.strip()


def find_example(prompt: str) -> Example | None:
    """The example of a question, None where there is none or it is more than a call with plain values.

    Nothing but values that `ast.literal_eval` takes gets into the tests, so a model cannot write them.
    """
    for line in EXAMPLE.findall(prompt):
        try:
            tree = ast.parse(line, mode="eval").body
            if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Eq):
                return _example(tree.left, tree.comparators[0])
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            continue
    return None


def _example(call: ast.expr, value: ast.expr) -> Example | None:
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        return None
    args = [repr(ast.literal_eval(arg)) for arg in call.args]
    args += [f"{k.arg}={ast.literal_eval(k.value)!r}" for k in call.keywords if k.arg is not None]
    if len(args) < len(call.args) + len(call.keywords):
        return None
    return Example(call.func.id, f"{call.func.id}({', '.join(args)})", repr(ast.literal_eval(value)))


def _not_one_function(code: str) -> str:
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "does_not_parse"
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    others = [node for node in body if not isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom)]
    return "" if len(functions) == 1 and not others else "not_one_function"


def _run(code: str, example: Example) -> str:
    from evalsuite.sandbox import Program, run_many

    tests = f"found, wanted = {example.call}, {example.value}\n"
    # A model rounds what it prints.
    tests += "near = isinstance(wanted, float) and isinstance(found, (int, float)) and abs(found - wanted) < 5e-3\n"
    tests += "assert found == wanted or near\n"
    [(_, outcome)] = run_many([Program(code, CODE_S, tests=tests, calls=(example.name,))])
    return "" if outcome.passed else "example_fails"


def _failed(reply: str, constraints: Sequence[Drawn], mode: str) -> list[str]:
    from evalsuite.verify.constraints import followed

    ids, kwargs = [one.id for one in constraints], [one.kwargs for one in constraints]
    checks = followed(reply, ids, kwargs, mode="strict" if mode == "strict" else "loose")
    return [check.id for check in checks if not check.ok]


def find_doubles(texts: Iterable[str], near: float = NEAR) -> Iterator[str]:
    """For each text in turn "", "duplicate" or "near_duplicate" of an earlier one that was kept.

    Texts are compared in lower case and without differences in space. Near is a ratio of `near` or more by rapidfuzz
    to one of the texts (at most 200 a hash) with which it shares two of the 8 smallest hashes of its three-word runs,
    or one where it has fewer; a near text that shares none is missed.
    """
    known: set[str] = set()
    by_hash: dict[bytes, list[str]] = {}
    for text in texts:
        plain = " ".join(text.lower().split())
        sketch = _sketch(plain)
        if plain in known:
            yield "duplicate"
        elif _is_near(plain, sketch, by_hash, near):
            yield "near_duplicate"
        else:
            known.add(plain)
            for each in sketch:
                if len(bucket := by_hash.setdefault(each, [])) < BUCKET:
                    bucket.append(plain)
            yield ""


def _sketch(plain: str) -> list[bytes]:
    words = plain.split()
    runs = {" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}
    return sorted(hashlib.blake2b(run.encode("utf-8", "surrogatepass"), digest_size=8).digest() for run in runs)[
        :SKETCH
    ]


def _is_near(plain: str, sketch: Sequence[bytes], by_hash: dict[bytes, list[str]], near: float) -> bool:
    from rapidfuzz import fuzz

    shared = Counter(other for each in sketch for other in by_hash.get(each, ()))
    least = SHARED if len(sketch) == SKETCH else 1
    return any(fuzz.ratio(plain, other, score_cutoff=near) > 0 for other, n in shared.items() if n >= least)


ANSWER_CHECKS: dict[str, Callable[[str], Checked]] = {
    "math": check_math,
    "algebra": check_math,
    "grade_math": check_grade_math,
}
