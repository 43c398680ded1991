"""The process that compares two LaTeX expressions with sympy. Run by path, with pipes; it knows nothing of evalsuite.

A line on stdin is a JSON pair of strings, the line on stdout says 1 (equal) or 0. An item that takes longer than the
limit ends the process: the kernel's alarm also reaches code that never returns to the interpreter, and it works when
the parent is gone.
"""

from __future__ import annotations

import json
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
        one, other = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        equal = _equal(sympy, parse_latex, one, other)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(int(equal), flush=True)


def _equal(sympy: Any, parse_latex: Any, one: str, other: str) -> bool:
    """Whether the difference simplifies to zero. Whatever cannot be parsed, subtracted or simplified is unequal."""
    try:
        return bool(sympy.simplify(parse_latex(one) - parse_latex(other)) == 0)
    except Exception:  # upstream's rule; sympy raises nearly every kind on odd input
        return False


if __name__ == "__main__":
    main(float(sys.argv[1]))
