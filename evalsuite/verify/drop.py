"""DROP: bags of words compared with every gold answer (Dua et al. 2019, arXiv 1903.00161, section on evaluation).

The arithmetic is that of AllenNLP's scorer as lm-eval 0.4.13 and allenai/olmes @5a51f50 (`drop::llama3`) carry it. A
response is one span, so the best assignment of gold spans to predicted ones is the best single pair.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Spans = tuple[str, ...]

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_ARTICLES = frozenset({"a", "an", "the"})
_NAMED_NUMBERS = frozenset({"nan", "inf", "infinity"})
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class DropScore:
    """The better of each over the gold answers; `gold` is the answer that F1 agreed with most, as text."""

    f1: float
    exact: float
    gold: str


def golds(doc: Mapping[str, Any]) -> tuple[Spans, ...]:
    """The answer and the validated answers of a row, without repetitions, in their order."""
    return tuple(dict.fromkeys(_parts(answer) for answer in (doc["answer"], *_validated(doc["validated_answers"]))))


def _parts(answer: Mapping[str, Any]) -> Spans:
    if str(answer["number"]) != "":
        return (str(answer["number"]),)
    if answer["spans"]:
        return tuple(answer["spans"])
    date = answer["date"]
    return (" ".join(date[part] for part in ("day", "month", "year")).strip(),)


def _validated(answers: Any) -> Iterator[Mapping[str, Any]]:
    """One mapping for each; the hub's parquet stores the list as a mapping of lists."""
    if not isinstance(answers, Mapping):
        yield from answers
        return
    for number, date, spans in zip(answers["number"], answers["date"], answers["spans"], strict=True):
        yield {"number": number, "date": date, "spans": spans}


def judge(response: str, answers: Sequence[Spans]) -> DropScore:
    """The response against every gold answer whose first part is not blank."""
    bag = _bag(response)
    best = DropScore(0.0, 0.0, "")
    for answer in answers:
        if not answer[0].strip():
            continue
        spans = [_bag(part) for part in answer]
        f1 = _f1(bag, spans)
        exact = float(spans == [bag] and _normalize(answer[0]) == _normalize(response))
        gold = ", ".join(answer) if f1 > best.f1 else best.gold
        best = DropScore(max(f1, best.f1), max(exact, best.exact), gold)
    return best


def _f1(predicted: frozenset[str], spans: Sequence[frozenset[str]]) -> float:
    """F1 of the span that fits best over the number of spans, rounded to two digits (half to even, as numpy does)."""
    best = max(_pair(predicted, span) for span in spans)
    return round(best / len(spans) * 100) / 100


def _pair(predicted: frozenset[str], gold: frozenset[str]) -> float:
    common = gold & predicted
    if any(map(_is_number, gold)) and not any(map(_is_number, common)):
        return 0.0
    precision = len(common) / len(predicted) if predicted else 1.0
    recall = len(common) / len(gold) if gold else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _bag(text: str) -> frozenset[str]:
    """The words of the normal form of a text."""
    different = set(_tokens(text))  # a degenerate response repeats itself
    return frozenset(" ".join(map(_word, different)).split())


def _normalize(text: str) -> str:
    """Lower-case words without punctuation and articles, numbers as floats, one space between them."""
    return " ".join(word for token in _tokens(text) if (word := _word(token)))


def _tokens(text: str) -> list[str]:
    return text.lower().replace("-", " ").split(" ")


def _word(token: str) -> str:
    if token.isdecimal() and token.isascii() and token[0] != "0" and len(token) < 16:
        return token + ".0"  # what a float prints, five times as fast
    if _is_number(token):
        return str(float(token))
    token = token.translate(_NO_PUNCTUATION)
    if token.isalpha() and token.isascii() and token not in _NAMED_NUMBERS:
        return "" if token in _ARTICLES else token  # the usual word, in a hurry
    if _is_number(token):
        return str(float(token))
    # A token may hold line ends and other white space.
    return " ".join(_ARTICLE.sub(" ", token).split())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
