"""MATH: is one of the answers that a response can be read to give the right one (Hendrycks et al. 2021)?

The flexible score of allenai/olmes @5a51f50 (`exact_match_flex`) and the Minerva score that it contains (Lewkowycz et
al. 2022). Quirks of the published regime:
- `minerva-0.4.3`: the normal form of lm-eval 0.4.3, and identical answers that sympy cannot parse (intervals, tuples)
  are unequal by the Minerva score; without it lm-eval 0.4.13's behaviour;
- `math-fbox-never`: an answer in a last `\\fbox` is not found (it never was); there is no repaired version.
"""

from __future__ import annotations

from dataclasses import dataclass

from evalsuite.verify.hendrycks import same_text
from evalsuite.verify.math_text import final_answer, last_box, last_dollars, normalize
from evalsuite.verify.sympy_pool import equal_latex

QUIRKS = frozenset({"minerva-0.4.3", "math-fbox-never"})

# Longer answers are compared as text only. The parser needs seconds for a few hundred letters and upstream gives up
# after five, so sympy never says yes to one; the longest gold answer of MATH-500 has 45 characters in normal form.
LONGEST_LATEX = 300


@dataclass(frozen=True, slots=True)
class MathVerdict:
    """The two scores, the `answer` that was compared first, and whether it stood in Minerva's `phrase`."""

    flex: bool
    minerva: bool
    answer: str
    phrase: bool


def gold_answer(solution: str, quirks: frozenset[str] = QUIRKS) -> str:
    """The normal form of the last boxed answer of a solution. Raises ValueError when the solution has none."""
    box = last_box(solution)
    if box is None:
        raise ValueError(f"the solution has no \\boxed answer: {solution[-80:]!r}")
    return normalize(box, legacy="minerva-0.4.3" in quirks)


def judge_math(response: str, gold: str, quirks: frozenset[str] = QUIRKS) -> MathVerdict:
    """Compares a response with a gold answer in normal form. Text comes first; sympy is asked only when text fails."""
    legacy = "minerva-0.4.3" in quirks
    candidates, phrase = _candidates(response, legacy)
    minerva = phrase and _same_value(candidates[0], gold, legacy)
    flex = (
        minerva
        or any(same_text(candidate, gold) for candidate in candidates)
        or any(_same_value(candidate, gold, legacy) for candidate in candidates)
    )
    return MathVerdict(flex, minerva, candidates[0], phrase)


def _candidates(response: str, legacy: bool) -> tuple[list[str], bool]:
    """The answers a response can be read to give, in normal form, best first; and whether the first is Minerva's."""
    final, box = final_answer(response), last_box(response)
    found = [text for text in (final, box) if text is not None]
    if not found:
        dollars = last_dollars(response)
        found = [response if dollars is None else dollars]
    return [normalize(text, legacy=legacy) for text in found], final is not None


def _same_value(answer: str, gold: str, legacy: bool) -> bool:
    if answer == gold and answer and not legacy:
        return True
    return max(len(answer), len(gold)) <= LONGEST_LATEX and equal_latex(answer, gold)
