"""The process that compares two expressions with sympy. Run by path, with pipes; it knows nothing of evalsuite.

A line on stdin is a JSON list of the kind (latex or plain) and two strings; the line on stdout says 1 (equal), 0, or
error when one of them cannot be read or compared. An item that takes longer than the limit ends the process: the
kernel's alarm also reaches code that never returns to the interpreter, and it works when the parent is gone.
"""

from __future__ import annotations

import json
import math
import random
import resource
import signal
import sys
from typing import Any

MEMORY = 4 << 30


def main(limit_s: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        import sympy
        from sympy.parsing.latex import parse_latex

        parse_latex("1")  # loads the parser; says so now when its run-time library is absent
    except ImportError as error:
        print(f"cannot load: {error}", flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        kind, one, other = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            equal = same_latex(sympy, parse_latex, one, other) if kind == "latex" else same_plain(sympy, one, other)
            answer = str(int(equal))
        except Exception:  # upstream's rule; sympy raises nearly every kind on odd input
            answer = "error"
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(answer, flush=True)


def same_latex(sympy: Any, parse_latex: Any, one: str, other: str) -> bool:
    """Whether the difference simplifies to zero; raises what sympy raises when it cannot say."""
    return bool(sympy.simplify(parse_latex(one) - parse_latex(other)) == 0)


def same_plain(sympy: Any, one: str, other: str) -> bool:
    """Whether two expressions in Python's notation are equal; raises what sympy raises when it cannot say.

    `parse_expr` evaluates Python: the caller must have looked at the text. What is no expression (a list of numbers)
    is compared as it is; expressions must agree in their symbols, then at a random point, then by `.equals`.
    """
    a, b = sympy.parse_expr(one), sympy.parse_expr(other)
    if not (isinstance(a, sympy.Expr) and isinstance(b, sympy.Expr)):
        return bool(a == b)
    if a.free_symbols != b.free_symbols:
        return False
    draw = random.Random(42)
    point = {symbol: sympy.Float(draw.random()) for symbol in sorted(a.free_symbols, key=str)}
    return close(float(a.subs(point)), float(b.subs(point))) and bool(a.equals(b))


def close(one: float, other: float) -> bool:
    """numpy's `allclose` of two numbers, with its default tolerances."""
    return one == other or (math.isfinite(other) and abs(one - other) <= 1e-8 + 1e-5 * abs(other))


if __name__ == "__main__":
    main(float(sys.argv[1]))
