"""Makes up a response that follows all instructions of an IFEval row, for checking the checkers without a model.

The answer is nonsense, but honest nonsense: it is put together from what the instructions ask for and never looks at
the checks. Where instructions contradict each other it does the best that can be done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalsuite.verify.constraints.ifeval_phrases import PHRASES

# English filler with few letters in common, for rows that forbid a letter or a word.
_SPARE = (
    "Birds sing loudly among tall dark pillars",
    "No wind could hurt our old ship",
    "Look down below before you go home",
    "We see green trees here when we need them",
    "All of our cats look at the big yellow boat",
)
_MANY = 1 << 30


@dataclass(slots=True)
class _Range:
    """How often something must stand in the answer: from `low` up to, not including, `high`."""

    low: int = 0
    high: int = _MANY

    def narrow(self, relation: str, limit: int) -> None:
        if relation == "less than":
            self.high = min(self.high, limit)
        else:
            self.low = max(self.low, limit)


@dataclass(slots=True)
class _Wishes:
    """Everything that the instructions of a row ask for."""

    ids: frozenset[str]
    words: _Range = field(default_factory=_Range)
    sentences: _Range = field(default_factory=_Range)
    capitals: _Range = field(default_factory=_Range)
    letters: dict[str, _Range] = field(default_factory=dict)
    keywords: dict[str, _Range] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)

    def says(self, id: str) -> bool:
        return id in self.ids


def answer(ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]]) -> str:
    """A response that follows every instruction, as far as they can be followed together."""
    wishes = _read(ids, kwargs)
    body = _body(wishes)
    if wishes.says("combination:two_responses"):
        body = [*body, "******", *_filler(wishes, 1), "That is another way"]
    return _in_case(_framed(wishes, _paragraphs(wishes, body)), wishes)


def _read(ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]]) -> _Wishes:
    wishes = _Wishes(frozenset(ids))
    for given in kwargs:
        known = {name: value for name, value in given.items() if value is not None}
        wishes.given |= known
        if "num_words" in known:
            wishes.words.narrow(known["relation"], int(known["num_words"]))
        if "num_sentences" in known:
            wishes.sentences.narrow(known["relation"], int(known["num_sentences"]))
        if "capital_frequency" in known:
            wishes.capitals.narrow(known["capital_relation"], int(known["capital_frequency"]))
        if "letter" in known:
            limit = wishes.letters.setdefault(known["letter"].lower(), _Range())
            limit.narrow(known["let_relation"], int(known["let_frequency"]))
        if "keyword" in known:
            limit = wishes.keywords.setdefault(known["keyword"], _Range())
            limit.narrow(known["relation"], int(known["frequency"]))
        for word in known.get("keywords", ()):
            wishes.keywords.setdefault(word, _Range()).narrow("at least", 1)
    return wishes


def _body(wishes: _Wishes) -> list[str]:
    """The lines that meet every wish about content, in any order."""
    given = wishes.given
    # A request in English must not outweigh an answer in another language.
    lines = _filler(wishes, 3) * (6 if {"language", "prompt_to_repeat"} <= given.keys() else 1)
    if wishes.says("detectable_format:title"):
        lines.insert(0, "<<my title>>")
    lines += [f"{word} " * limit.low for word, limit in wishes.keywords.items() if limit.low]
    cased = wishes.ids & {"change_case:english_capital", "change_case:english_lowercase"}
    lines += [_lettered(letter, limit.low, lines if cased else []) for letter, limit in wishes.letters.items()]
    lines += ["NASA " * wishes.capitals.low] if wishes.capitals.low else []
    lines += ["so [x] " * int(given.get("num_placeholders", 0))]
    lines += ["so *hi* " * int(given.get("num_highlights", 0))]
    splitter = given.get("section_spliter", "")
    lines += [f"{splitter} {n + 1}\n{splitter and 'so it is'}" for n in range(int(given.get("num_sections", 0)))]
    lines += ["* so it is"] * int(given.get("num_bullets", 0))
    lines += ["My answer is yes."] if wishes.says("detectable_format:constrained_response") else []
    lines += ["So it is." for _ in range(wishes.sentences.low)]
    missing = wishes.words.low - sum(len(re.findall(r"\w+", line)) for line in lines)
    plain = _filler(wishes, 1)
    if missing > 0 and plain:
        lines += plain * (missing // len(plain[0].split()) + 1)
    return [line.rstrip() for line in lines if line.strip()]


def _filler(wishes: _Wishes, n: int) -> list[str]:
    """Up to `n` plain sentences in the language asked for that hold nothing unwanted."""
    code = wishes.given.get("language", "en")
    pool = (*PHRASES[code], *(_SPARE if code == "en" else ()))
    unwanted = [letter for letter, limit in wishes.letters.items() if limit.high < _MANY]
    unwanted += [word.lower() for word, limit in wishes.keywords.items() if limit.high < _MANY]
    forbidden = {word.lower() for word in wishes.given.get("forbidden_words", ())}
    good = [
        line
        for line in pool
        if not any(part in line.lower() for part in unwanted) and not forbidden & set(line.lower().split())
    ]
    taken = len(wishes.given.get("prompt_to_repeat", "").split())
    return good[: min(n, max(1, (wishes.words.high - taken - 8) // 12))]


def _lettered(letter: str, n: int, lines: Sequence[str]) -> str:
    """A text with a letter at least `n` times: of the lines where it occurs in them, so that it stays English."""
    plain = max(lines, key=lambda line: line.lower().count(letter), default="")
    found = plain.lower().count(letter)
    return f"{plain} " * -(-n // found) if found else f"{letter} " * n


def _paragraphs(wishes: _Wishes, body: list[str]) -> str:
    """The body in as many paragraphs as asked for, all of it in the last one."""
    given = wishes.given
    opening = [*_filler(wishes, 1), "hi"][:1]
    if wishes.says("length_constraints:nth_paragraph_first_word"):
        parts = opening * (int(given["num_paragraphs"]) - 1) + ["\n".join(body)]
        nth = int(given["nth_paragraph"]) - 1
        parts[nth] = f"{given['first_word']} {parts[nth]}"
        return "\n\n".join(parts)
    if wishes.says("length_constraints:number_paragraphs"):
        return "\n***\n".join(opening * (int(given["num_paragraphs"]) - 1) + ["\n".join(body)])
    return "\n".join(body)


def _framed(wishes: _Wishes, text: str) -> str:
    """What must stand before, behind and around the rest."""
    given = wishes.given
    if "prompt_to_repeat" in given:
        text = f"{given['prompt_to_repeat']}\n{text}"
    if "postscript_marker" in given:
        text = f"{text}\n{given['postscript_marker']} so it is"
    if wishes.says("startend:end_checker"):
        text = f"{text}\n{given['end_phrase']}"
    if wishes.says("detectable_format:json_format"):
        text = json.dumps({"answer": text}, ensure_ascii=False)
    return f'"{text}"' if wishes.says("startend:quotation") else text


def _in_case(text: str, wishes: _Wishes) -> str:
    if wishes.says("change_case:english_capital"):
        return text.upper()
    if wishes.says("change_case:english_lowercase"):
        return text.lower()
    return text
