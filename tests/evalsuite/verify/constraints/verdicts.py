"""What the tests of the IFEval-OOD checks share: verdicts as a table writes them, and what holds for every check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from evalsuite.verify.constraints import all_constraints, followed_both

# Words, marks and spaces that the checks look at, and anything that Python calls a string, lone surrogates too.
_PIECES = (
    "a A and And, it its 's i'm one two. No. No! B. U.S. He ... ? ?! ‽ ! ; : , ( ) [ ] { } \" ' “ ” ’ * ** - -- # 12 "
    "1,000 ² é É İ 三 日本 Emma Japan France noon 12321 the \x00 \ud800 \ue001 / \t \n \n\n \r\n"
)
ANY_TEXT = st.one_of(
    st.text(alphabet=st.characters(codec=None), max_size=2000),
    st.lists(st.sampled_from(_PIECES.split(" ")), max_size=60).map(" ".join),
)


def verdicts(id: str, kwargs: Mapping[str, Any], text: str) -> str:
    """`strict/loose` as 1 and 0; `tulu3 | ifbench` where the variants differ, one alone where the other is absent."""
    found = []
    for variant in ("tulu3", "ifbench"):
        if variant in all_constraints()[id].checks:
            (strict,), (loose,) = followed_both(text, [id], [kwargs], variant=variant)
            found.append(f"{strict.ok:d}/{loose.ok:d}")
    return " | ".join(dict.fromkeys(found))


def assert_sound(id: str, kwargs: Mapping[str, Any], text: str) -> None:
    """No variant raises, a strict pass is a loose one, and neither null parameters nor whole floats change anything."""
    filled = {name: float(value) if isinstance(value, int) else value for name, value in kwargs.items()}
    filled |= {"no_such_parameter": None}
    for variant in all_constraints()[id].checks:
        (strict,), (loose,) = followed_both(text, [id], [kwargs], variant=variant)
        assert loose.ok or not strict.ok
        assert strict.ok != bool(strict.why)
        assert followed_both(text, [id], [filled], variant=variant) == ((strict,), (loose,))
