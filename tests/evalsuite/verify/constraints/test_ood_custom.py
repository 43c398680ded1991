"""IFEval-OOD's eleven whole tasks: verdicts of the official code, a good answer to each, and how it goes wrong."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.constraints import Variant, followed, followed_both
from evalsuite.verify.constraints.ood_custom import (
    CAPITALS,
    CSV_FIELD_CHARS,
    IDS,
    _ascii,
    _quotes_a_special,
    csv_quotes,
    csv_special_character,
)
from evalsuite.verify.constraints.stop import Stop

CITY = "ID,Country,City,Year,Count\n" + "\n".join(f"{n},Chile,Arica,2001,{n}0" for n in range(1, 8))
CITY_SPACED = CITY.replace("ID,Country,City,Year,Count", "ID, Country, City, Year, Count")
PRODUCTS = "ProductID,Category,Brand,Price,Stock\n" + "".join(f"{n},Tools,Acme,5,{n}\n" for n in range(1, 14))
SPECIAL = PRODUCTS + '14,Tools,"A, B",5,1'
GRADES_HEADER = '"StudentID"\t"Subject"\t"Grade"\t"Semester"\t"Score"'
GRADES = "\n".join([GRADES_HEADER, *(f'"{n}"\t"Art"\t"B"\t"Fall"\t"8{n}"' for n in range(1, 4))])
COUNTRIES = [
    "Zimbabwe",
    *(f"{letter}{letter.lower()}land" for letter in "YXWVUTSRQPONMLKJIHGFEDCBA" for _ in "12"),
    "A",
]
STORY = " ".join(f"{letter}nd then some." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
CHOICES = "\n".join(f"{letter}) {letter}n answer" for letter in "ABCDE")
QUIZ = "\n\n".join(f"Question {n}: Who painted this{' very' * n} old wall?\n{CHOICES}" for n in range(1, 5))

ANSWERS = {
    "custom:multiples": "14, 21, 28, 35, 42, 49",
    "custom:mcq_count_length": QUIZ,
    "custom:reverse_newline": "\n".join(COUNTRIES),
    "custom:word_reverse": "eagle bald the is animal The",
    "custom:character_reverse": ".elgae dlab ehT",
    "custom:sentence_alphabet": STORY,
    "custom:european_capitals_sort": ", ".join(CAPITALS),
    "custom:csv_city": CITY,
    "custom:csv_special_character": SPECIAL,
    "custom:csv_quotes": GRADES,
    "custom:date_format_list": "1796-04-12, 1815-06-18",
}

# (id, response, strict, loose); both variants agree. The first lines are verdicts of the official code.
VERDICTS: list[tuple[str, str, Literal[0, 1], Literal[0, 1]]] = [
    ("custom:date_format_list", "1796-00-00", 1, 1),
    ("custom:date_format_list", "1796-02-29,", 0, 0),
    ("custom:date_format_list", "1900-01-01", 0, 0),
    ("custom:csv_city", CITY_SPACED, 0, 0),
    ("custom:csv_city", f"```\n{CITY}\n```", 0, 1),
    ("custom:csv_quotes", GRADES.replace(GRADES_HEADER, GRADES_HEADER.replace('"', "")), 0, 0),
    ("custom:csv_special_character", PRODUCTS + '14,Tools,"A, B",5,1', 1, 1),
    ("custom:csv_special_character", PRODUCTS + '14,Tools,"AB",5,1', 0, 0),
    ("custom:word_reverse", "eagle bald the is animal The", 1, 1),
    *((id, text, 1, 1) for id, text in ANSWERS.items()),
    ("custom:multiples", "The numbers are 14, 21, 28, 35, 42 and 49.", 1, 1),
    ("custom:multiples", "Count from 10: 14, 21, 28, 35, 42, 49", 0, 0),
    ("custom:multiples", "From 10 to 50:\n14 21 28 35 42 49", 0, 1),
    ("custom:multiples", "142128354249", 0, 0),
    ("custom:mcq_count_length", f"Here they are:\n{QUIZ}", 0, 1),
    ("custom:mcq_count_length", QUIZ.replace("Question 1:", "Question 1"), 1, 1),
    ("custom:mcq_count_length", QUIZ.replace("Question 4:", "Last:"), 0, 0),
    ("custom:mcq_count_length", QUIZ.replace("E) ", "E: "), 0, 0),
    ("custom:mcq_count_length", QUIZ.replace(" very", ""), 0, 0),
    ("custom:mcq_count_length", QUIZ.replace("A) ", "Choose.\na. "), 1, 1),
    ("custom:reverse_newline", "\n".join(f"* {name}" for name in COUNTRIES), 1, 1),
    ("custom:reverse_newline", "\n".join(["Atlantis", *COUNTRIES]), 1, 1),
    ("custom:reverse_newline", "\n".join(COUNTRIES).replace("Bb", "bb"), 0, 0),
    ("custom:reverse_newline", "\n".join(COUNTRIES).replace("Ee", "Éé"), 1, 1),
    ("custom:reverse_newline", "\n".join(COUNTRIES[:52]), 1, 1),
    ("custom:reverse_newline", "\n".join(COUNTRIES[:51]), 0, 0),
    ("custom:reverse_newline", "\n".join(COUNTRIES[1:]), 0, 0),
    ("custom:reverse_newline", "\n".join([*COUNTRIES, "That is all."]), 0, 1),
    ("custom:word_reverse", "The animal is the bald eagle", 0, 0),
    ("custom:word_reverse", "Eagle. Bald! Reversed.", 1, 1),
    ("custom:word_reverse", "elgae dlab", 0, 0),
    ("custom:character_reverse", "ELGAE DLAB", 1, 1),
    ("custom:character_reverse", "eagle bald", 0, 0),
    ("custom:sentence_alphabet", STORY.replace("End then", "The end then"), 0, 0),
    ("custom:sentence_alphabet", STORY.lower(), 1, 1),
    ("custom:sentence_alphabet", STORY.removesuffix(" Znd then some."), 0, 0),
    ("custom:sentence_alphabet", f"My story:\n{STORY}", 0, 1),
    ("custom:european_capitals_sort", ", ".join(CAPITALS).replace("Chisinau", "Chișinău") + ",", 1, 1),
    ("custom:european_capitals_sort", ", ".join(CAPITALS) + ".", 0, 0),
    ("custom:european_capitals_sort", ", ".join((*CAPITALS[:11], "Kyiv", *CAPITALS[11:])), 0, 0),
    ("custom:european_capitals_sort", ", ".join((*CAPITALS[1::-1], *CAPITALS[2:])), 0, 0),
    ("custom:csv_city", CITY + "\n", 1, 1),
    ("custom:csv_city", CITY.replace("\n", "\r\n"), 1, 1),
    ("custom:csv_city", CITY + "\n\n", 0, 1),
    ("custom:csv_city", CITY.replace("Chile", '"Chile, S.A."'), 1, 1),
    ("custom:csv_city", CITY.replace("Arica", "Arica, Chile", 1), 0, 0),
    ("custom:csv_special_character", SPECIAL.replace(",Category", ', "Category"'), 1, 1),
    ("custom:csv_special_character", SPECIAL.replace("ProductID", "ID"), 0, 0),
    ("custom:csv_special_character", PRODUCTS + "14,Tools,A&B,5,1", 0, 0),
    (
        "custom:csv_special_character",
        SPECIAL.replace("1,Tools,Acme", '1,Tools,"A*"', 1).replace("3,Tools", "3", 1),
        1,
        1,
    ),
    ("custom:csv_quotes", GRADES.replace("\t", "\t "), 1, 1),
    ("custom:csv_quotes", GRADES.replace('"Fall"', "Fall", 1), 0, 0),
    ("custom:csv_quotes", GRADES.replace("\t", ","), 0, 0),
    ("custom:date_format_list", "1796-4-12", 0, 0),
    ("custom:date_format_list", "1796-04-31", 0, 0),
    ("custom:date_format_list", "1796-13-01", 0, 0),
    ("custom:date_format_list", "Dates:\n1796-04-12,1800-06-14", 0, 1),
]


def verdicts(id: str, text: str, variant: Variant) -> tuple[int, int]:
    (strict,), (loose,) = followed_both(text, [id], [{}], variant=variant)
    assert (strict.why == "") == strict.ok
    return int(strict.ok), int(loose.ok)


@pytest.mark.parametrize("variant", ["tulu3", "ifbench"])
@pytest.mark.parametrize(("id", "text", "strict", "loose"), VERDICTS)
def test_verdicts(id: str, text: str, strict: int, loose: int, variant: Variant) -> None:
    assert verdicts(id, text, variant) == (strict, loose)


def test_every_id_is_seen_to_pass_and_to_fail() -> None:
    assert {(id, strict) for id, _, strict, _ in VERDICTS} == {(id, ok) for id in IDS for ok in (0, 1)}
    assert set(ANSWERS) == set(IDS)


# Upstream raises on these texts, and would pass the next ones; in `tulu3` it tries no more.
RAISING = {
    "custom:csv_city": f"a\rb\n{CITY}",  # a carriage return inside a line
    "custom:csv_special_character": SPECIAL.replace("Tools", "*" * (CSV_FIELD_CHARS + 1), 1),
}


@pytest.mark.parametrize(("id", "text"), RAISING.items())
def test_where_upstream_raises_tulu3_tries_no_other_text(id: str, text: str) -> None:
    assert verdicts(id, text, "tulu3") == (0, 0)
    assert verdicts(id, text, "ifbench") == (0, 1)


def test_a_field_beyond_the_csv_modules_limit_is_refused_whatever_limit_is_set() -> None:
    before = csv.field_size_limit(10**9)
    try:
        assert isinstance(csv_special_character(RAISING["custom:csv_special_character"]), Stop)
    finally:
        csv.field_size_limit(before)


def test_an_empty_field_and_an_empty_sentence_raise_upstream() -> None:
    assert isinstance(csv_quotes(GRADES.replace('"Fall"', "", 1)), Stop)
    assert type(csv_quotes(GRADES.replace('"Fall"', "Fall", 1))) is str
    # The regex splitter ends the sentence twice after "Q.A.B.C.", once for the full stop and once for "He".
    text = "A Q.A.B.C. He left. " + "And so on. " * 23
    (check,) = followed(text, ["custom:sentence_alphabet"], [{}], mode="strict")
    assert check.why == "an empty sentence"
    assert isinstance(check.why, Stop)


@given(st.lists(st.sampled_from('"aé1_ ,&-\n'), max_size=12).map("".join))
@settings(max_examples=1000, deadline=None)
def test_the_linear_search_for_a_special_character_finds_what_the_regex_finds(field: str) -> None:
    assert _quotes_a_special(field) == bool(re.match(r'".*[^\d\w\s].*"', field))


@given(st.text(max_size=60))
@settings(max_examples=500, deadline=None)
def test_accents_go_one_character_at_a_time_as_they_do_all_at_once(text: str) -> None:
    import unicodedata

    assert _ascii(text) == unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


@pytest.mark.parametrize("kwargs", [{"N": 3}, {"word": "cat"}])
def test_whole_tasks_take_no_parameters(kwargs: Mapping[str, Any]) -> None:
    with pytest.raises(Exception, match="unknown parameter"):
        followed("text", ["custom:multiples"], [kwargs], mode="loose")
