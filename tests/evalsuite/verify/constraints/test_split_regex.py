"""The regex splitter: one table for its sixteen steps, and agreement with the code that it is made after."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.constraints.split_regex import split_by_regex

SENTENCES = [
    # 1: padding and newlines
    ("", []),
    (" \n ", []),
    ("One", ["One"]),
    ("One.\nTwo.", ["One.", "Two."]),
    ("One\ntwo.", ["One two."]),
    ("\nOne.\n\nTwo.\n", ["One.", "Two."]),
    # 2: titles, without a boundary before them
    ("Mr. Smith came.", ["Mr. Smith came."]),
    ("Mrs. Smith met Ms. Jones and Dr. No.", ["Mrs. Smith met Ms. Jones and Dr. No."]),
    ("St. Ives is far.", ["St. Ives is far."]),
    ("XMr. Smith came.", ["XMr. Smith came."]),
    ("We ran to the West. Then home.", ["We ran to the West.", "Then home."]),
    ("A test. At last. BSt. C", ["A test.", "At last.", "BSt. C"]),
    # 3: web addresses, without a boundary after them
    ("See example.com for more.", ["See example.com for more."]),
    ("See example.org. Then go.", ["See example.org.", "Then go."]),
    ("The end.meaning is lost.", ["The end.meaning is lost."]),
    ("The end.Meaning is lost.", ["The end.", "Meaning is lost."]),
    ("Use a.io or b.net or c.gov or d.edu.", ["Use a.io or b.net or c.gov or d.edu."]),
    # 4: decimals
    ("Pi is 3.14 or so.", ["Pi is 3.14 or so."]),
    ("It was 3. 14 came.", ["It was 3.", "14 came."]),
    ("Version 1.2.3 is out.", ["Version 1.2.", "3 is out."]),
    ("Item 1.a is out.", ["Item 1.", "a is out."]),
    # 5: runs of dots
    ("Wait... what?", ["Wait...", "what?"]),
    ("Wait.. what?", ["Wait..", "what?"]),
    ("Wait...", ["Wait..."]),
    ("Wait...! Now.", ["Wait...", "!", "Now."]),
    # 6: Ph.D.
    ("She has a Ph.D. in maths.", ["She has a Ph.D. in maths."]),
    ("She has a Ph.D. It is new.", ["She has a Ph.D. It is new."]),
    ("She has a Ph.D", ["She has a Ph.", "D"]),
    # 7: a single letter before a dot and a space
    ("Take plan B. Then go.", ["Take plan B. Then go."]),
    ("J. Smith came.", ["J. Smith came."]),
    ("A b. A cat.", ["A b. A cat."]),
    ("Take plan B.", ["Take plan B."]),
    # 8: acronyms before a word that opens a sentence
    ("He lives in the U.S. He likes it.", ["He lives in the U.S.", "He likes it."]),
    ("He lives in the U.S.A. They like it.", ["He lives in the U.S.A.", "They like it."]),
    ("He lives in the U.S. and likes it.", ["He lives in the U.S. and likes it."]),
    ("He lives in the U.S. Texans like it.", ["He lives in the U.S. Texans like it."]),
    ("He lives in the U.S. Captain Jones too.", ["He lives in the U.S.", "Captain Jones too."]),
    ("He lives in the U.S. Hers is blue.", ["He lives in the U.S. Hers is blue."]),
    # 9: three and two letters with dots
    ("Use tools, e.g. hammers.", ["Use tools, e.g. hammers."]),
    ("At 5 p.m. they left.", ["At 5 p.m. they left."]),
    ("The a.b.c. of it.", ["The a.b.c. of it."]),
    ("The a.b.c.d. of it.", ["The a.b.c.d.", "of it."]),
    # 10: firms before a word that opens a sentence lose their dot
    ("He runs Acme Inc. He is rich.", ["He runs Acme Inc", "He is rich."]),
    ("Meet Ann Jr. But be quick.", ["Meet Ann Jr", "But be quick."]),
    ("He runs Acme Ltd. However much he sleeps.", ["He runs Acme Ltd", "However much he sleeps."]),
    # 11: firms before anything else
    ("He runs Acme Inc. and sleeps.", ["He runs Acme Inc. and sleeps."]),
    ("He runs Acme Co. Texas is far.", ["He runs Acme Co. Texas is far."]),
    ("He runs (Inc. now.", ["He runs (Inc.", "now."]),
    # 12: a single letter after a space, whatever follows
    ("Take plan B.Then go.", ["Take plan B.Then go."]),
    ("Is it B.", ["Is it B."]),
    ("Is it (B. So.", ["Is it (B.", "So."]),
    # 13: quotes change places with the mark
    ('He said "Go." Then left. Why?', ['He said "Go".', "Then left.", "Why?"]),
    ("He said “Go.” Then left.", ["He said “Go”.", "Then left."]),
    ('"Go!" she said.', ['"Go"!', "she said."]),
    ('"Why?" she asked.', ['"Why"?', "she asked."]),
    ("“Why?” she asked.", ["“Why?", "” she asked."]),
    ("'Go.' Then left.", ["'Go.", "' Then left."]),
    # 14: every mark that is left ends a sentence
    ("Really?! Yes.", ["Really?", "!", "Yes."]),
    ("Yes!! No.", ["Yes!", "!", "No."]),
    ("(So it is.) Then go.", ["(So it is.", ") Then go."]),
    ("One.Two.Three", ["One.", "Two.", "Three"]),
    # 15 and 16: protected dots come back, and only an empty last part is dropped
    ("Mr. A. went to b.com. Why? ", ["Mr. A. went to b.com.", "Why?"]),
    ("One. two", ["One.", "two"]),
    (" One.  ", ["One."]),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_sentences_end_where_googles_code_ends_them(text: str, expected: list[str]) -> None:
    assert split_by_regex(text) == expected


@functools.cache
def official() -> Callable[[str], list[str]]:
    """The copy of that code in lm-eval, whose import would download punkt."""
    import nltk

    with mock.patch.object(nltk.data, "find", return_value="here"):
        from lm_eval.tasks.ifeval import instructions_util
    return instructions_util.split_into_sentences  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", [text for text, _ in SENTENCES])
def test_the_table_is_what_googles_code_says(text: str) -> None:
    assert split_by_regex(text) == official()(text)


PIECES = (
    "Mr. St. Dr Ph.D. Ph.D U.S. U.S.A. e.g. a.b.c.d Inc. Co. Jr. He It This Wherever Prof Captain .com .me 3.14 3. A. "
    'b. . .. ... ? ! ?! ." !" ?" .” “Go ” " \' ( ) x word Word\n \n \t \u2003 é 9'
)


@given(st.lists(st.sampled_from(PIECES.split(" ")), max_size=16), st.sampled_from(["", " "]))
@settings(max_examples=1000, deadline=None)
def test_made_up_prose_is_cut_as_googles_code_cuts_it(pieces: list[str], between: str) -> None:
    text = between.join(pieces)
    assert split_by_regex(text) == official()(text)


@given(st.text(max_size=2000))
@settings(max_examples=300, deadline=None)
def test_any_text_is_cut_as_googles_code_cuts_it(text: str) -> None:
    sentences = split_by_regex(text)
    if not set("\ue000\ue001") & set(text):
        assert sentences == official()(text)
        assert bool(sentences) == bool(text.strip())


@pytest.mark.slow
def test_real_answers_are_cut_as_googles_code_cuts_them(hub_data: Path) -> None:
    baseline = hub_data / "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline"
    texts = [json.loads(line)["output"] for path in baseline.glob("*.jsonl") for line in path.open(encoding="utf-8")]
    assert len(texts) > 500
    assert [split_by_regex(t) for t in texts] == [official()(t) for t in texts]


@pytest.mark.parametrize("piece", ["a", ".", "A.", " A. ", "U.S. He ", "3.", "?!", ' ."', "\n", " Inc. ", "Mr."])
def test_a_megabyte_is_cut_in_under_a_second(piece: str) -> None:
    text = piece * (10**6 // len(piece))
    start = time.process_time()
    split_by_regex(text)
    assert time.process_time() - start < 1.0
