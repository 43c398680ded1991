"""What a judge thinks of texts: its answers are read by the number of a text, never by its place in the answer.

Upstream (open-instruct, scripts/synth_pref) split answers at blank lines and gave every block that it could not read a
rating of 1, counted "N/A" as -1, took ratings of 7, and averaged lists of different length by position. Here what
cannot be read is missing, a mean is over what is there, and a text with too few ratings is asked about once more.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from evalsuite.progress import Observer
from evalsuite.types import Message, Sampling
from train_plugins.data.asking import Answered, Engine, Question, ask, seed_of
from train_plugins.data.aspects import HIGHEST, LOWEST, Aspect

Missing = Literal["not_applicable", "unreadable", "out_of_range", "conflict", "request_failed"]
Rating = int | Missing

# Within a line, and all of bounded length: an answer of nothing but blank lines or signs is read in linear time.
HEADER = re.compile(
    r"^[ \t#*_>-]{0,20}(?:(?:output|ratings?|answer|response|feedback)[ \t]{1,8}(?:for|of)[ \t]{1,8})?"
    r"(?:text|output|response|answer)[ \t#_]{0,8}(\d{1,3})[ \t\r:.)*_-]{0,20}(?=$|rating\b)",
    re.IGNORECASE | re.MULTILINE,
)
LABELLED = re.compile(
    r"(?<![^\W_])rating[\s*_\"']{0,20}[:=][\s*_\"']{0,20}(n\s{0,4}/?\s{0,4}a\b|[+-]?\d+(?:\.\d+)?)", re.IGNORECASE
)
NOT_APPLICABLE = re.compile(r"n\s{0,4}/?\s{0,4}a\.?|not applicable", re.IGNORECASE)
NUMBER_KEYS = ("text", "text_id", "id", "number", "index")
KEY = re.compile(r"(?:text|output|response)?[\s#_]*(\d{1,3})", re.IGNORECASE)
DECIMAL = re.compile(r"[+-]?\d{1,6}(?:\.\d{1,6})?")
OPENING = re.compile(r"[{\[]")
MOST_WRONG = 500  # brackets that open no JSON
LONGEST = 50_000  # characters of an answer that are read


@dataclass(frozen=True, slots=True)
class Item:
    """Texts that were written for one conversation, by the name of whoever wrote each."""

    id: str
    messages: tuple[Message, ...]
    texts: Mapping[str, str]

    def order(self, seed: int) -> tuple[str, ...]:
        """The order in which the judge sees the texts, in every aspect; shuffled by the seed and the id."""
        return tuple(sorted(self.texts, key=lambda name: seed_of(seed, self.id, "order", name)))


@dataclass(frozen=True, slots=True)
class Rated:
    """The ratings of one item: name of the text, then of the aspect. What is missing says why."""

    item: Item
    order: tuple[str, ...]
    ratings: Mapping[str, Mapping[str, Rating]]
    asked_again: bool
    why: str = ""  # of the first request that failed

    def valid(self, name: str) -> dict[str, int]:
        """The ratings that a text has, by aspect."""
        return {aspect: value for aspect, value in self.ratings[name].items() if isinstance(value, int)}

    def mean(self, name: str) -> Fraction | None:
        """The exact mean over the aspects that a text has a rating in."""
        values = self.valid(name).values()
        return Fraction(sum(values), len(values)) if values else None

    def lacking(self, least: int) -> tuple[str, ...]:
        """The texts with fewer than `least` ratings."""
        return tuple(name for name in self.order if len(self.valid(name)) < least)

    def missing(self) -> Counter[str]:
        return Counter(r for by_aspect in self.ratings.values() for r in by_aspect.values() if isinstance(r, str))


@dataclass(frozen=True, slots=True)
class Grading:
    """How a judge is asked. A text with fewer than `least` ratings is asked about once more."""

    engine: Engine
    aspects: tuple[Aspect, ...]
    sampling: Sampling
    least: int
    seed: int
    journal: Path
    observer: Observer | None = None


def least_of(n_aspects: int) -> int:
    """How many ratings a text needs when nothing else is said: 3 of 4; all of one or two."""
    return n_aspects - 1 if n_aspects > 2 else n_aspects


def rate(items: Sequence[Item], grading: Grading) -> dict[str, Rated]:
    """The ratings of every item, by its id; all texts of an item stand in one question for each aspect.

    Raises what `ask` raises about the judge as a whole; what it did answer is in the journal.
    """
    found = {item.id: _Sheet(item, item.order(grading.seed)) for item in items}
    every = [(sheet, aspect) for sheet in found.values() for aspect in grading.aspects]
    _ask(every, grading, 0)
    again = [(s, aspect) for s in found.values() for aspect in s.open(grading)]
    for sheet, _ in again:
        sheet.asked_again = True
    _ask(again, grading, 1)
    return {sheet.item.id: sheet.rated(grading.aspects) for sheet in found.values()}


def read_ratings(answer: str, n_texts: int) -> dict[int, Rating]:
    """Text number (from 1) to its rating, or why it has none: from JSON, else from `Text 1` … `Rating: 4` paragraphs.

    A rating is a whole number from 1 to 5. A number that no text has is passed over; two different ratings of one text
    are a conflict; a rating that stands under no number belongs to none.
    """
    answer = answer[:LONGEST]
    said: dict[int, set[Rating]] = {}
    for number, raw in list(_from_json(answer)) or _from_paragraphs(answer):
        if 1 <= number <= n_texts:
            said.setdefault(number, set()).add(_rating(raw))
    return {number: _agreed(said.get(number, set())) for number in range(1, n_texts + 1)}


def conversation(messages: Sequence[Message]) -> str:
    """What the texts answer: the one user turn, else all turns under the names of their roles."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in messages)


# -- asking --


@dataclass(slots=True)
class _Sheet:
    """The ratings of an item while they come in."""

    item: Item
    order: tuple[str, ...]
    ratings: dict[tuple[str, str], Rating] = field(default_factory=dict)  # (text, aspect)
    asked_again: bool = False
    why: str = ""

    def open(self, grading: Grading) -> list[Aspect]:
        """The aspects in which a text with too few ratings has none."""
        names = self.rated(grading.aspects).lacking(grading.least)
        return [a for a in grading.aspects if any(isinstance(self.ratings[n, a.name], str) for n in names)]

    def note(self, aspect: Aspect, answer: Answered) -> None:
        """Takes over what an answer says; what is known already stays."""
        if answer.finish == "error":
            self.why = self.why or answer.why
            read: Mapping[int, Rating] = {}
        else:
            read = read_ratings(answer.text, len(self.order))
        for number, name in enumerate(self.order, 1):
            if not isinstance(self.ratings.get((name, aspect.name)), int):
                self.ratings[name, aspect.name] = read.get(number, "request_failed")

    def rated(self, aspects: Sequence[Aspect]) -> Rated:
        ratings = {n: {a.name: self.ratings.get((n, a.name), "request_failed") for a in aspects} for n in self.order}
        return Rated(self.item, self.order, ratings, self.asked_again, self.why)


def _ask(wanted: Sequence[tuple[_Sheet, Aspect]], grading: Grading, attempt: int) -> None:
    """Fills in the sheets. The second attempt has a seed of its own: the same question would get the same answer."""
    if not wanted:
        return
    by_key = {f"{sheet.item.id}/{aspect.name}/{attempt}": (sheet, aspect) for sheet, aspect in wanted}
    questions = [_question(key, sheet, aspect, grading) for key, (sheet, aspect) in by_key.items()]
    stage = "judge again" if attempt else "judge"
    for question, answer in ask(grading.engine, questions, grading.journal, grading.observer, stage):
        sheet, aspect = by_key[question.key]
        sheet.note(aspect, answer)


def _question(key: str, sheet: _Sheet, aspect: Aspect, grading: Grading) -> Question:
    texts = [sheet.item.texts[name] for name in sheet.order]
    message = aspect.question(conversation(sheet.item.messages), texts, grading.seed)
    s = grading.sampling
    return Question(
        key,
        (message,),
        Sampling(s.max_tokens, s.stop, s.temperature, s.top_p, seed=seed_of(grading.seed, key, "judge")),
        aspect.json_schema(len(texts)),
    )


# -- reading --


def _agreed(said: set[Rating]) -> Rating:
    if len(said) > 1:
        return "conflict"
    return next(iter(said), "unreadable")


def _rating(raw: Any) -> Rating:
    text = str(raw).strip().strip("*_\"'") if not isinstance(raw, bool) else ""
    if NOT_APPLICABLE.fullmatch(text):
        return "not_applicable"
    text = text.removesuffix(f"/{HIGHEST}").strip()
    if not DECIMAL.fullmatch(text):
        return "unreadable"
    value = Fraction(text)
    return int(value) if value.denominator == 1 and LOWEST <= value <= HIGHEST else "out_of_range"


def _from_json(answer: str) -> Iterator[tuple[int, Any]]:
    """(text number, rating as it stands) of every JSON value in an answer, whatever stands around it.

    An answer that was cut in the middle of its JSON still gives the entries that are whole.
    """
    decoder = json.JSONDecoder()
    position = n_wrong = 0
    while n_wrong < MOST_WRONG and (opening := OPENING.search(answer, position)):
        try:
            value, position = decoder.raw_decode(answer, opening.start())
            found = list(_entries(value))
        except (ValueError, RecursionError):
            position = opening.end()
            n_wrong += 1
            continue
        yield from found


def _entries(value: Any) -> Iterator[tuple[int, Any]]:
    if isinstance(value, list):
        for each in value:
            yield from _entries(each)
    elif isinstance(value, Mapping):
        lower = {str(key).lower(): each for key, each in value.items()}
        number = next((n for key in NUMBER_KEYS if (n := _number(lower.get(key))) is not None), None)
        if number is not None and "rating" in lower:
            yield number, lower["rating"]
            return
        for key, each in lower.items():
            named = KEY.fullmatch(key)
            if named is None:
                yield from _entries(each)
            elif isinstance(each, Mapping):
                yield int(named[1]), each.get("rating", each.get("Rating"))
            else:
                yield int(named[1]), each


def _number(raw: Any) -> int | None:
    if isinstance(raw, bool) or raw is None:
        return None
    found = KEY.fullmatch(str(raw).strip())
    return int(found[1]) if found else None


def _from_paragraphs(answer: str) -> Iterator[tuple[int, Any]]:
    """The first labelled rating under each header; blank lines, and what stands before the first, mean nothing."""
    headers = list(HEADER.finditer(answer))
    ends = [header.start() for header in headers[1:]] + [len(answer)]
    for header, end in zip(headers, ends, strict=False):
        if label := LABELLED.search(answer, header.end(), end):
            yield int(header[1]), label[1]
