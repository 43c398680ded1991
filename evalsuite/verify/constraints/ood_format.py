"""IFEval-OOD: how the response is laid out (twelve checks); what each leaves unchecked is said there."""

from __future__ import annotations

import re
import string
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.language_tools import is_emoji, sentences_of
from evalsuite.verify.constraints.ood_sentence import PUNKT_IN_IFBENCH
from evalsuite.verify.constraints.ood_words import EDGES, without_marks
from evalsuite.verify.constraints.registry import constraint
from evalsuite.verify.constraints.split_regex import split_by_regex
from evalsuite.verify.constraints.stop import Stop

IDS = (
    "format:parentheses",
    "format:quotes",
    "format:options",
    "format:camel_case",
    "format:newline",
    "format:emoji",
    "format:line_indent",
    "format:quote_unquote",
    "format:list",
    "format:thesis",
    "format:sub-bullets",
    "format:no_bullets_bullets",
)

_CLOSES = {")": "(", "]": "[", "}": "{"}
_BRACKET = re.compile(r"[()\[\]{}]")
_QUOTE = re.compile(r"[\"']")
_LETTERED = re.compile(r"\W*[aA]\W*[bB]\W*[cC]")
_MARKS_BUT_QUOTE = string.digits + string.punctuation.replace('"', "")
_CURLY = str.maketrans("“”", '""')

# Python's parser takes seconds for a megabyte, and gives up at a depth that depends on how deep its caller already is.
CODE_CHARS = 100_000
CODE_DEPTH = 500


@constraint("format:parentheses")
def parentheses(text: str) -> str | None:
    """Brackets stand five deep, and one closes after that depth was reached; what stays open does not matter."""
    open_brackets: list[str] = []
    deepest = 0
    for bracket in _BRACKET.findall(text):
        if bracket not in _CLOSES:
            open_brackets.append(bracket)
            deepest = max(deepest, len(open_brackets))
        elif not open_brackets or open_brackets.pop() != _CLOSES[bracket]:
            open_brackets, deepest = [], 0  # a wrong close forgets everything before it
        elif deepest >= 5:
            return None
    return "no brackets that close after being nested 5 deep"


@constraint("format:quotes")
def quotes(text: str) -> str | None:
    """Quotes of " and ' in turn stand three deep and close again; an apostrophe opens a level too."""
    open_quotes: list[str] = []
    deepest = 0
    for quote in _QUOTE.findall(text):
        if not open_quotes or quote != open_quotes[-1]:
            open_quotes.append(quote)
            deepest = max(deepest, len(open_quotes))
            continue
        open_quotes.pop()
        if deepest - len(open_quotes) >= 3:
            return None
    return "no quotes that close after being nested 3 deep"


@dataclass(frozen=True, slots=True)
class Options:
    """The answers that are allowed, as they stand in the prompt; lettered ones must be given exactly."""

    answers: tuple[str, ...]
    exact: bool


def _options(value: Any) -> Options:
    """`yes/no/maybe`, `I know or I don't know` and `a), b), c), d)`: parted by the first of these separators found."""
    listed = p.text(value)
    separator = next((s for s in ("/", "or") if s in listed), ",")
    return Options(tuple(answer.strip() for answer in listed.split(separator)), bool(_LETTERED.match(listed)))


@constraint("format:options", {"options": _options})
def options(text: str, options: Options) -> str | None:
    """Nothing but one of the options; except for lettered ones, case and outer punctuation do not matter."""
    followed = text in options.answers if options.exact else _plain(text) in map(_plain, options.answers)
    return None if followed else f"not exactly one of {', '.join(map(repr, options.answers))}"


def _plain(text: str) -> str:
    return text.strip(EDGES).lower()


@constraint("format:camel_case", variants=["tulu3"])
def camel_case(text: str) -> str | None:
    """Nothing but Python code, every name used in it in camelCase; parameters, attributes and fences are not names."""
    import ast
    import warnings

    if len(text) > CODE_CHARS:
        return f"code longer than {CODE_CHARS} characters"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in the response's code is no warning of ours, and never an error
            level: list[ast.AST] = [ast.parse(text)]
    except SyntaxError as error:
        return f"not Python: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return Stop(f"Python's parser gave up: {type(error).__name__}")
    for _ in range(CODE_DEPTH):
        wrong = next((node.id for node in level if isinstance(node, ast.Name) and not _is_camel(node.id)), None)
        if wrong is not None:
            return f"not in camelCase: {wrong!r}"
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return None
    return f"code nested deeper than {CODE_DEPTH}"


def _is_camel(name: str) -> bool:
    """`total` and `rowCount`, but neither `RowCount`, `row_count` nor `rowID`."""
    return name[0].islower() and name.isalnum() and not any(a.isupper() and b.isupper() for a, b in pairwise(name))


@constraint("format:newline")
def newline(text: str) -> str | None:
    """As many lines as words when punctuation is taken out; an empty line counts for nothing, a blank one as a line."""
    text = without_marks(text).strip()
    n_lines, n_words = sum(map(bool, text.split("\n"))), len(text.split())
    return None if n_lines == n_words else f"words: {n_words}, but lines: {n_lines}"


@constraint("format:emoji", tools=["emoji", PUNKT_IN_IFBENCH], variants=["tulu3"])
def emoji(text: str) -> str | None:
    """Each sentence ends in an emoji, or the next one begins with it; punctuation aside, the last may be one before."""
    return _emoji_at_ends(split_by_regex(text))


@constraint("format:emoji", variants=["ifbench"])
def emoji_ifbench(text: str) -> str | None:
    """The same in the sentences of punkt."""
    return _emoji_at_ends(sentences_of(text))


def _emoji_at_ends(sentences: Sequence[str]) -> str | None:
    """The last character but one is looked at too, because a variation selector may follow an emoji."""
    plain = [without_marks(sentence).strip() for sentence in sentences]
    for number, (sentence, after) in enumerate(zip(plain, [*plain[1:], ""], strict=False), 1):
        if not sentence:
            return f"nothing but punctuation in sentence {number}"
        if not any(map(is_emoji, sentence[-2:])) and not is_emoji(after[:1]):
            return f"no emoji at the end of sentence {number}"
    return None


@constraint("format:line_indent")
def line_indent(text: str) -> str | None:
    """Each line begins with more spaces than the one before; one line alone passes."""
    lines = _without_most_blanks(text.split("\n"))
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    falls = (number for number, (one, other) in enumerate(pairwise(indents), 2) if other <= one)
    wrong = next(falls, None)
    return f"line {wrong} is not indented more than the one before it" if wrong else None


def _without_most_blanks(lines: Sequence[str]) -> list[str]:
    """What is left when blank lines are removed by value from a list that is being iterated over, as upstream does.

    After each removal the next line is passed over, and what goes is the first line with equal text: of two blank lines
    in a row one stays, perhaps further down. Removing from a list would take quadratic time.
    """
    kept: list[str | None] = []
    passed_over: defaultdict[str, deque[int]] = defaultdict(deque)  # blank text -> where it stands in `kept`
    number = 0
    while number < len(lines):
        line = lines[number]
        if line.strip():
            kept.append(line)
            number += 1
            continue
        for stays in lines[number : number + 2]:
            if not stays.strip():
                passed_over[stays].append(len(kept))
            kept.append(stays)
        kept[passed_over[line].popleft()] = None
        number += 2
    return [line for line in kept if line is not None]


@constraint("format:quote_unquote", variants=["tulu3"])
def quote_unquote(text: str) -> str | None:
    """No quoted text follows another or ends the response; text without any quotes passes."""
    rest = _unspaced(text.translate(_CURLY))
    if '""' not in rest and not rest.strip(_MARKS_BUT_QUOTE):
        return Stop("nothing but digits and punctuation")
    return _explained(rest)


@constraint("format:quote_unquote", variants=["ifbench"])
def quote_unquote_ifbench(text: str) -> str | None:
    """The same, but curly quotes are none (their replacement was lost in an edit), and digits alone pass."""
    return _explained(_unspaced(text))


def _unspaced(text: str) -> str:
    """The text without white space, and without mentions of the mark itself as '"'."""
    return "".join(text.replace("'\"'", "").split())


def _explained(rest: str) -> str | None:
    if '""' in rest:
        return "a quote directly after a quote"
    return "a quote ends the response" if rest.strip(_MARKS_BUT_QUOTE).endswith('"') else None


@constraint("format:list", {"sep": p.text})
def marked_list(text: str, sep: str) -> str | None:
    """The marker stands at least twice, anywhere: "well-known, up-to-date" passes for "-"."""
    found = text.count(sep)
    return None if found >= 2 else f"{sep!r} stands {found} times, asked for a list of it"


@constraint("format:thesis")
def thesis(text: str) -> str | None:
    """Text in <i> or <em>, then more text. One place is enough; an empty <em> passes, as offsets are those of <i>."""
    start = _first(text, "<i>", "<em>")
    if start < 0:
        return "no <i> and no <em>"
    text = text[start:]
    end = _first(text, "</i>", "</em>")
    if end < 0:
        return "the italics never end"
    if not text[3:end].strip():
        return "nothing in italics"
    return None if text[end + 4 :].strip() else "nothing after the italics"


def _first(text: str, mark: str, other: str) -> int:
    """Where the first mark stands, or else the other; -1 when neither does."""
    found = text.find(mark)
    return found if found >= 0 else text.find(other)


@constraint("format:sub-bullets")
def sub_bullets(text: str) -> str | None:
    """A hyphen stands after every star. Text without a star passes, so in loose mode all text does."""
    missing = sum("-" not in part for part in text.split("*")[1:])
    return f"stars with no hyphen before the next: {missing}" if missing else None


@constraint("format:no_bullets_bullets", tools=[PUNKT_IN_IFBENCH], variants=["tulu3"])
def sentences_then_bullets(text: str) -> str | None:
    """Two sentences, then two or more lines that begin with *, then nothing; that they end in periods is unchecked."""
    return _sentences_then_bullets(text, split_by_regex)


@constraint("format:no_bullets_bullets", variants=["ifbench"])
def sentences_then_bullets_ifbench(text: str) -> str | None:
    """The same in the sentences of punkt."""
    return _sentences_then_bullets(text, sentences_of)


def _sentences_then_bullets(text: str, split: Callable[[str], list[str]]) -> str | None:
    """An empty line may only stand directly before the first bullet, and none behind it, not even at the end."""
    lines = [line.strip() for line in text.split("\n")]
    first = next((n for n, line in enumerate(lines) if line.startswith("*")), len(lines))
    before, bullets = lines[:first], lines[first:]
    if not all(before[:-1]):
        return "an empty line that is not directly before the first bullet"
    if not all(line.startswith("*") for line in bullets):
        return "a line after the first bullet is no bullet"
    if len(bullets) < 2:
        return f"bullets: {len(bullets)}, asked for at least 2"
    # Each line holds a sentence or more, so two lines are enough to know; a split of 500,000 would take a minute.
    n_sentences = sum(len(split(line)) for line in islice(filter(None, before), 2))
    return None if n_sentences >= 2 else f"sentences before the bullets: {n_sentences}, asked for at least 2"
