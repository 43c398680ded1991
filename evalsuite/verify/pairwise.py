"""What pairwise judging shares: the seeded order of two outputs, and one preference from what the judge said."""

from __future__ import annotations

import random
from collections.abc import Sequence

from evalsuite.types import Score
from evalsuite.verify.judge import NoVerdict, Unjudged, Verdict

TIE = 0.5


def is_swapped(instruction: str, seed: int) -> bool:
    """Whether the judge sees the candidate first: the draw of tatsu-lab/alpaca_eval @cd543a1 (`processors.py`).

    The draw depends on the raw instruction text, so a stripped or re-encoded instruction changes the order shown.
    """
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True], k=1)[0]


def preference(verdicts: Sequence[Verdict | NoVerdict]) -> float:
    """How far the candidate is preferred, 0 to 1, averaged over the verdicts; raises Unjudged when one is missing."""
    for verdict in verdicts:
        if isinstance(verdict, NoVerdict):
            raise Unjudged(verdict)
    found = [v.preference for v in verdicts if isinstance(v, Verdict)]
    known = [p for p in found if p is not None]
    if not found or len(known) < len(found):
        raise Unjudged(NoVerdict("unparsed", "the judge gave no preference"))
    return sum(known) / len(known)


def score(value: float, baseline: str = "the baseline") -> Score:
    """The Score of a preference, with its reading in words."""
    who = "a tie" if value == TIE else "the response is preferred" if value > TIE else f"{baseline} is preferred"
    return Score(value, why=who if value in (0.0, TIE, 1.0) else f"{who} ({value:.3f})")
