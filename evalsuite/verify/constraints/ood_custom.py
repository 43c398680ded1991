"""IFEval-OOD: eleven whole tasks with one checkable answer each (lists, tables, reversed and alphabetic text)."""

from __future__ import annotations

import csv
import io
import re
import string
import unicodedata
from collections.abc import Sequence
from itertools import islice, pairwise

from evalsuite.verify.constraints.ood_sentence import sentence_constraint
from evalsuite.verify.constraints.ood_words import EDGES, without_marks
from evalsuite.verify.constraints.registry import constraint
from evalsuite.verify.constraints.stop import Stop

IDS = (
    "custom:multiples",
    "custom:mcq_count_length",
    "custom:reverse_newline",
    "custom:word_reverse",
    "custom:character_reverse",
    "custom:sentence_alphabet",
    "custom:european_capitals_sort",
    "custom:csv_city",
    "custom:csv_special_character",
    "custom:csv_quotes",
    "custom:date_format_list",
)

# Kyiv lies north of 45° too; upstream's list lacks it.
_CAPITALS = """
Reykjavik Helsinki Oslo Tallinn Stockholm Riga Moscow Copenhagen Vilnius Minsk Dublin Berlin Amsterdam Warsaw London
Brussels Prague Luxembourg Paris Vienna Bratislava Budapest Vaduz Chisinau Bern Ljubljana Zagreb
"""
CAPITALS = tuple(_CAPITALS.split())

CSV_FIELD_CHARS = 131_072  # what the csv module allows unless somebody in the process sets another limit
_MULTIPLES = ["14", "21", "28", "35", "42", "49"]
_QUESTION = re.compile(r"Question \d+[.|):;]?")
_CHOICE = re.compile(r"[A-Ea-e][.|)]\s*\w")
_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})$")
_LAST_DAY = (99, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # of month 00, any
_SPECIAL = re.compile(r"[^\w\s]")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")


@constraint("custom:multiples")
def multiples(text: str) -> str | None:
    """The numbers in the text are the multiples of 7 from 14 to 49, in order; there may be words between them."""
    found = re.findall(r"\d+", text)
    return None if found == _MULTIPLES else f"numbers: {_shown(found)}; asked for {', '.join(_MULTIPLES)}"


def _shown(items: Sequence[str], n: int = 8) -> str:
    """The first few items, each cut short."""
    return ", ".join(item[:20] for item in items[:n]) + (" …" if len(items) > n else "") if items else "none"


@constraint("custom:mcq_count_length")
def mcq_count_length(text: str) -> str | None:
    """Four questions labelled "Question 1" and so on, five lettered lines in each, each longer than the one before."""
    if not text.startswith("Question"):
        return 'the text does not begin with "Question"'
    questions = [part.strip() for part in _QUESTION.split(text) if part.strip()]
    if len(questions) != 4:
        return f"questions: {len(questions)}, asked for 4"
    lengths = []
    for number, question in enumerate(questions, 1):
        lines = [line.strip() for line in question.split("\n")]
        choices = [at for at, line in enumerate(lines) if _CHOICE.match(line)]
        if len(choices) != 5:
            return f"options of question {number}: {len(choices)}, asked for 5"
        lengths.append(len(" ".join(lines[: choices[0]]).strip()))
    grows = all(one < other for one, other in pairwise(lengths))
    return None if grows else f"the questions do not grow: {', '.join(map(str, lengths))} characters"


@constraint("custom:reverse_newline")
def reverse_newline(text: str) -> str | None:
    """From the first line with "Zimbabwe" on there are 52 lines or more, sorted backwards; no country is looked up."""
    lines = [bare for line in text.split("\n") if (bare := line.strip(EDGES))]
    start = next((number for number, line in enumerate(lines) if "Zimbabwe" in line), None)
    if start is None:
        return "no line with Zimbabwe"
    listed = lines[start:]
    if len(listed) < 52:  # upstream speaks of 53 countries
        return f"lines from Zimbabwe on: {len(listed)}, asked for at least 52"
    wrong = next((other for one, other in pairwise(map(_ascii, listed)) if one < other), None)
    return None if wrong is None else f"not in reverse alphabetical order at {wrong[:80]!r}"


def _ascii(text: str) -> str:
    """Letters without their accents, and nothing else that is not ASCII.

    Character by character: normalizing a long run of combining marks at once takes quadratic time.
    """
    return _NON_ASCII.sub(lambda char: unicodedata.normalize("NFKD", char[0]).encode("ascii", "ignore").decode(), text)


@constraint("custom:word_reverse")
def word_reverse(text: str) -> str | None:
    """Read backwards word by word, the text holds "bald eagle"."""
    # Upstream also asks that it be one sentence, which text without any marks always is to either splitter.
    backwards = " ".join(reversed(without_marks(text.lower()).split()))
    return None if "bald eagle" in backwards else 'no "bald eagle" when read backwards word by word'


@constraint("custom:character_reverse")
def character_reverse(text: str) -> str | None:
    """The text holds "elgae dlab", in any case."""
    return None if "elgae dlab" in text.lower() else 'no "elgae dlab"'


@sentence_constraint("custom:sentence_alphabet")
def sentence_alphabet(sentences: Sequence[str]) -> str | None:
    """There are 26 sentences, and they begin with the letters from A to Z in order."""
    if len(sentences) != 26:
        return f"sentences: {len(sentences)}, asked for 26"
    for letter, sentence in zip(string.ascii_lowercase, sentences, strict=True):
        opening = sentence.lstrip()[:1].lower()[:1]
        if not opening:
            return Stop("an empty sentence")  # upstream looks for its first word
        if opening != letter:
            return f"a sentence begins with {opening!r}, asked for {letter!r}"
    return None


@constraint("custom:european_capitals_sort")
def european_capitals_sort(text: str) -> str | None:
    """The 27 capitals of upstream's list in its order, parted by commas, whatever their accents."""
    found = [name.strip() for name in _ascii(text).split(",") if name.strip()]
    if len(found) != len(CAPITALS):
        return f"capitals: {len(found)}, asked for {len(CAPITALS)}"
    wrong = next(((one, due) for one, due in zip(found, CAPITALS, strict=True) if one != due), None)
    return f"{wrong[0][:80]!r} stands where {wrong[1]} is due" if wrong else None


@constraint("custom:csv_city")
def csv_city(text: str) -> str | None:
    """A header of ID, Country, City, Year, Count without spaces, then 7 rows of 5 fields, parted by commas."""
    rows = _csv_rows(text, ",", 8)
    if isinstance(rows, str):
        return rows
    if rows[0] != ["ID", "Country", "City", "Year", "Count"]:
        return f"the header is {_shown(rows[0])}"
    return _five_fields(rows)


@constraint("custom:csv_special_character")
def csv_special_character(text: str) -> str | None:
    """The header asked for and 14 rows, with a special character in a field in double quotes."""
    # Hole: no row after the first such field is looked at. A comma between the quotes is special.
    if not _header(",[ \t]*", "ProductID Category Brand Price Stock").match(text.partition("\n")[0].strip()):
        return "the header is not ProductID, Category, Brand, Price, Stock"
    rows = _csv_rows(text.replace('"', '"""'), ",", 15)  # so that the quotes stay in the fields
    if isinstance(rows, str):
        return rows
    for number, row in enumerate(rows[1:], 1):
        if objection := _five_fields([row], number):
            return objection
        if any(map(_quotes_a_special, row)):
            return None
    return "no field in double quotes with a special character"


def _quotes_a_special(field: str) -> bool:
    """A match of `".*[^\\d\\w\\s].*"` at the start, in linear time."""
    quoted = field.partition("\n")[0]
    return quoted.startswith('"') and bool(_SPECIAL.search(quoted, 1, max(1, quoted.rfind('"'))))


@constraint("custom:csv_quotes")
def csv_quotes(text: str) -> str | None:
    """The header asked for and 3 rows, parted by tabs, every field of all four in double quotes."""
    if not _header("\t *", "StudentID Subject Grade Semester Score").match(text.partition("\n")[0].strip()):
        return "the header is not StudentID, Subject, Grade, Semester, Score, parted by tabs"
    rows = _csv_rows(text.replace('"', '"""'), "\t", 4)
    if isinstance(rows, str):
        return rows
    for number, row in enumerate(rows):
        if objection := _five_fields([row], number):
            return objection
        for field in map(str.strip, row):
            if not field:
                return Stop(f"an empty field in row {number}")  # upstream looks for its first character
            if not (field.startswith('"') and field.endswith('"')):
                return f"{field[:80]!r} in row {number} is not in double quotes"
    return None


def _header(separator: str, names: str) -> re.Pattern[str]:
    """The first line of a table, each name perhaps in double quotes."""
    return re.compile(separator.join(f'(?:{name}|"{name}")' for name in names.split()) + "$")


def _csv_rows(text: str, delimiter: str, due: int) -> list[list[str]] | str:
    """So many rows, the header among them, as the csv module reads them; or why there are not."""
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter)
        rows = list(islice(reader, due))
        found = len(rows) + sum(1 for _ in reader)  # a later row may raise, as it would upstream
    except csv.Error as error:
        return Stop(f"not CSV: {error}")
    if found != due:
        return f"rows: {found} with the header, asked for {due}"
    if any(len(field) > CSV_FIELD_CHARS for row in rows for field in row):
        return Stop("not CSV: field larger than field limit")
    return rows


def _five_fields(rows: Sequence[Sequence[str]], first: int = 0) -> str | None:
    wrong = next(((number, len(row)) for number, row in enumerate(rows, first) if len(row) != 5), None)
    return f"fields in row {wrong[0]}: {wrong[1]}, asked for 5" if wrong else None


@constraint("custom:date_format_list")
def date_format_list(text: str) -> str | None:
    """Dates as YYYY-MM-DD from 1769 to 1821, parted by commas; neither the battles nor month and day 00 are checked."""
    for part in text.split(","):
        found = _DATE.match(part.strip())
        if not found:
            return f"{part.strip()[:80]!r} is no date as YYYY-MM-DD"
        year, month, day = map(int, found.groups())
        if not 1769 <= year <= 1821:
            return f"the year {year} is not in Napoleon's life"
        if month > 12 or day > _LAST_DAY[month]:
            return f"there is no {found[0]}"
    return None
