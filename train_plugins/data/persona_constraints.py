"""Checkable constraints for generated instructions: which of IFEval's 25 kinds, with which parameters, in which words.

Only the 25 kinds of IFEval are here. The 52 of IFEval-OOD measure what was never trained on, so none of them may be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from train_plugins.data.asking import seed_of

T = TypeVar("T")

TEXTS = Path(__file__).with_name("persona_constraints.yaml")
REPEAT = "combination:repeat_prompt"
MOST = 3  # constraints of one instruction
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One constraint of an instruction. `marks` are the texts that an instruction which carries it must hold."""

    id: str
    kwargs: Mapping[str, Any]
    words: str
    marks: tuple[str, ...] = ()

    def as_row(self) -> dict[str, Any]:
        return {"id": self.id, "kwargs": dict(self.kwargs), "words": self.words}


class Dice:
    """Draws that depend on what the dice were made of and nothing else, in every process and version of Python."""

    def __init__(self, *parts: object) -> None:
        self._parts = parts
        self._n = 0

    def below(self, n: int) -> int:
        self._n += 1
        return seed_of(*self._parts, self._n) % n

    def between(self, low: int, high: int) -> int:
        """Both ends included."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in items]


def draw_constraints(dice: Dice, at_least: int = 1) -> tuple[Drawn, ...]:
    """From `at_least` to three constraints of different kinds that one answer can satisfy together."""
    wanted = dice.between(at_least, MOST)
    chosen: list[str] = []
    for id in dice.shuffled(sorted(DRAWS)):
        if len(chosen) < wanted and not any(clash(id, other) for other in chosen):
            chosen.append(id)
    return tuple(draw(id, dice) for id in chosen)


def draw(id: str, dice: Dice) -> Drawn:
    """One constraint of a kind, in one of its wordings."""
    kwargs, texts = DRAWS[id](dice), _texts()["kinds"][id]
    spoken = {name: _spoken(value) for name, value in kwargs.items()}
    words = str(dice.pick(texts["wordings"])).format(**spoken)
    marks = [str(mark).format(**spoken) for mark in texts["marks"]]
    marks += [str(word) for value in kwargs.values() if isinstance(value, list) for word in value]
    return Drawn(id, kwargs, words, tuple(marks))


def clash(one: str, other: str) -> bool:
    """Whether two kinds ask for things that an answer cannot, or hardly, do together."""
    return one != other and any(one in group and other in group for group in GROUPS)


def missing_marks(prompt: str, constraints: Sequence[Drawn]) -> list[str]:
    """What an instruction lost of its constraints: texts that are nowhere in it. Numbers may be words."""
    return [mark for one in constraints for mark in one.marks if not _holds(prompt, mark)]


def settled(prompt: str, constraints: Sequence[Drawn]) -> tuple[Drawn, ...]:
    """The constraints with the parameters that are known only when the instruction is written: its first line.

    Raises ValueError when it has but one line, which then holds the constraints too.
    """
    if not any(one.id == REPEAT for one in constraints):
        return tuple(constraints)
    first, newline, rest = prompt.strip().partition("\n")
    if not newline or not rest.strip():
        raise ValueError("the request has no line of its own")
    known = {"prompt_to_repeat": first.strip()}
    return tuple(replace(one, kwargs=known) if one.id == REPEAT else one for one in constraints)


def _holds(prompt: str, mark: str) -> bool:
    if not mark.isdigit():
        return mark.lower() in prompt.lower()
    spoken = NUMBERS[int(mark)] if int(mark) < len(NUMBERS) else mark
    return re.search(rf"\b(?:{mark}|{spoken})\b", prompt, re.IGNORECASE) is not None


def _spoken(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(f'"{word}"' for word in value)
    return str(_words("languages").get(value, value) if isinstance(value, str) else value)


@cache
def _texts() -> Any:
    return yaml.safe_load(TEXTS.read_text(encoding="utf-8"))


def _words(name: str) -> Any:
    return _texts()["words"][name]


def _some(dice: Dice, name: str) -> list[str]:
    return sorted(dice.shuffled(_words(name))[: dice.between(2, 3)])


def _related(dice: Dice, name: str, relation: str, low: tuple[int, int], high: tuple[int, int]) -> dict[str, Any]:
    """A limit and how a count compares with it: "less than" one of the range `low`, "at least" one of `high`."""
    if dice.below(2):
        return {name: dice.between(*high), relation: "at least"}
    return {name: dice.between(*low), relation: "less than"}


def _letter(dice: Dice) -> dict[str, Any]:
    if dice.below(2):
        return {"letter": dice.pick("aeinorst"), "let_frequency": dice.between(12, 40), "let_relation": "at least"}
    return {"letter": dice.pick("jkqvxz"), "let_frequency": dice.between(2, 5), "let_relation": "less than"}


def _nth_paragraph(dice: Dice) -> dict[str, Any]:
    n = dice.between(2, 5)
    return {"num_paragraphs": n, "nth_paragraph": dice.between(1, n), "first_word": dice.pick(_words("openers"))}


def _keyword(dice: Dice) -> dict[str, Any]:
    return {"keyword": dice.pick(_words("repeated"))} | _related(dice, "frequency", "relation", (2, 4), (2, 5))


def _sections(dice: Dice) -> dict[str, Any]:
    return {"section_spliter": dice.pick(_words("splitters")), "num_sections": dice.between(2, 4)}


def _capitals(dice: Dice) -> dict[str, Any]:
    return _related(dice, "capital_frequency", "capital_relation", (3, 8), (2, 8))


DRAWS: Mapping[str, Callable[[Dice], dict[str, Any]]] = {
    "keywords:existence": lambda dice: {"keywords": _some(dice, "wanted")},
    "keywords:frequency": _keyword,
    "keywords:forbidden_words": lambda dice: {"forbidden_words": _some(dice, "forbidden")},
    "keywords:letter_frequency": _letter,
    "language:response_language": lambda dice: {"language": dice.pick(sorted(_words("languages")))},
    "length_constraints:number_sentences": lambda dice: _related(dice, "num_sentences", "relation", (4, 8), (5, 12)),
    "length_constraints:number_paragraphs": lambda dice: {"num_paragraphs": dice.between(2, 5)},
    "length_constraints:number_words": lambda dice: _related(dice, "num_words", "relation", (60, 150), (120, 320)),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda dice: {"num_placeholders": dice.between(2, 5)},
    "detectable_content:postscript": lambda dice: {"postscript_marker": dice.pick(("P.S.", "P.P.S"))},
    "detectable_format:number_bullet_lists": lambda dice: {"num_bullets": dice.between(3, 7)},
    "detectable_format:constrained_response": lambda dice: {},
    "detectable_format:number_highlighted_sections": lambda dice: {"num_highlights": dice.between(2, 4)},
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": lambda dice: {},
    "detectable_format:title": lambda dice: {},
    "combination:two_responses": lambda dice: {},
    REPEAT: lambda dice: {"prompt_to_repeat": ""},  # known when the instruction is written, see `settled`
    "startend:end_checker": lambda dice: {"end_phrase": dice.pick(_words("endings"))},
    "startend:quotation": lambda dice: {},
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": lambda dice: {},
    "change_case:english_lowercase": lambda dice: {},
    "punctuation:no_comma": lambda dice: {},
}

_CASES = ("change_case:english_capital", "change_case:english_lowercase", "change_case:capital_word_frequency")
_TONGUE = "language:response_language"
_SENTENCES = "length_constraints:number_sentences"
_JSON, _TWO = "detectable_format:json_format", "combination:two_responses"
_PARTS, _NTH = "length_constraints:number_paragraphs", "length_constraints:nth_paragraph_first_word"
_SECTIONS, _BULLETS = "detectable_format:multiple_sections", "detectable_format:number_bullet_lists"
_CHOICE, _QUOTED = "detectable_format:constrained_response", "startend:quotation"
_END, _POSTSCRIPT = "startend:end_checker", "detectable_content:postscript"

# Any two of a group clash.
GROUPS: tuple[frozenset[str], ...] = (
    frozenset({_JSON, _TWO, _PARTS, _NTH, _SECTIONS, _CHOICE}),  # the layout
    frozenset({REPEAT, _QUOTED, _JSON, _NTH, _TWO}),  # how it begins
    frozenset({_END, _POSTSCRIPT, _QUOTED, _JSON}),  # how it ends
    frozenset({*_CASES, _TONGUE, REPEAT, _CHOICE, _SECTIONS, _JSON}),  # its letters
    frozenset({"length_constraints:number_words", _SENTENCES, REPEAT, _CHOICE, _JSON}),  # its length
    frozenset({"punctuation:no_comma", _JSON, REPEAT}),
    frozenset({_PARTS, _TWO, _BULLETS, _JSON}),  # lines of stars
    frozenset({_JSON, "detectable_format:number_highlighted_sections"}),
    frozenset({_SENTENCES, _BULLETS}),
    frozenset({_SENTENCES, _SECTIONS}),
    frozenset({_SENTENCES, _PARTS, _TWO}),
    # English words in another language.
    *(frozenset({_TONGUE, other}) for other in (_END, _NTH, "keywords:existence", "keywords:frequency")),
    *(frozenset({_TONGUE, other}) for other in ("keywords:forbidden_words", "keywords:letter_frequency")),
)
