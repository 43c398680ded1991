"""Are two answers in Python's notation (`2*x**2`, `3, -1/4`, `True`) equal (Saxton et al. 2019, arXiv 1904.01557)?

The comparison of allenai/olmes @5a51f50 for DeepMind's Mathematics: text first, then sympy. sympy's `parse_expr`
evaluates what it reads as Python, so nothing reaches it that is not arithmetic on numbers, single letters and a few
functions, with exponents that cannot explode; and it runs in a process that is killed after 5 seconds.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

from evalsuite.verify.sympy_pool import equal_plain

LONGEST = 1000  # characters; answers of DeepMind's generator are far shorter
LARGEST_EXPONENT = 10_000  # also for a power of a power
FUNCTIONS = frozenset({"sqrt", "log", "exp", "sin", "cos", "tan", "pi"})
YES_NO = {"true": "yes", "false": "no"}

# A point belongs to a number, so no attribute can be reached.
_TOKEN = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?(?![\w.])|[A-Za-z]\w*(?!\.)|[-+*/(),=]| +", re.ASCII)
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def same_answer(answer: str, gold: str) -> bool | None:
    """Equal as text without case, as yes or no for a gold of true or false, or by sympy; None when it cannot say."""
    if answer.lower() == gold.lower():
        return True
    if gold.lower() in YES_NO:
        return answer.lower() == YES_NO[gold.lower()]
    return equal_plain(gold, answer) if is_harmless(gold) and is_harmless(answer) else None


def is_harmless(text: str) -> bool:
    """Whether sympy may be given the text: known words only, nothing but arithmetic, no huge powers."""
    if len(text) > LONGEST or not _known_tokens(text):
        return False
    try:
        _degree(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return False
    return True


def _known_tokens(text: str) -> bool:
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or (token.group()[0].isalpha() and not _is_known(token.group())):
            return False
        position = token.end()
    return True


def _is_known(name: str) -> bool:
    return len(name) == 1 or name in FUNCTIONS


def _degree(node: ast.expr) -> float:
    """How large the powers in an expression get, 1 without any; ValueError for too large ones and for other Python."""
    match node:
        case ast.Constant(value=int() | float()) | ast.Name():
            return 1.0
        case ast.Tuple(elts=parts) | ast.Call(func=ast.Name(), args=parts, keywords=[]):
            return max([1.0, *map(_degree, parts)])
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=part):
            return _degree(part)
        case ast.BinOp(left=base, op=ast.Pow(), right=exponent):
            _degree(exponent)
            power = _degree(base) * max(1.0, abs(_number(exponent) or 0.0))
            if power > LARGEST_EXPONENT:
                raise ValueError("a power is too large")
            return power
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _degree(left) + _degree(right) if isinstance(op, ast.Mult) else max(_degree(left), _degree(right))
        case _:
            raise ValueError(f"{type(node).__name__} is no arithmetic")


def _number(node: ast.expr) -> float | None:
    """The value of arithmetic on numbers alone; None where there is a name. Raises ArithmeticError or ValueError."""
    match node:
        case ast.Constant(value=int() | float() as constant):
            return float(constant)
        case ast.UnaryOp(op=op, operand=part):
            inner = _number(part)
            return -inner if inner is not None and isinstance(op, ast.USub) else inner
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _number(left), _number(right)
            if a is None or b is None:
                return None
            value = _ARITHMETIC[type(op)](a, b)
            if isinstance(value, complex):
                raise ValueError("an exponent is not real")
            return float(value)
        case _:
            return None
