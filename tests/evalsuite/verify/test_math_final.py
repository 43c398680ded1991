"""DeepMind's final answers: the linear search and clean-up against the regexes they stand for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.math_final import QUIRKS, final_answer
from tests.evalsuite.verify.test_linear_time import LINES, seconds

NONE: frozenset[str] = frozenset()
PIECES = [
    *"42x.$<>|* \n\\()[]",
    *("Therefore, the final answer is ", "therefore, the final answer is", ". I hope it is correct.", "I hope it is"),
    *("the final answer is", "Answer is ", " I hope it is correct", "**", "***", "\\(", "\\)", "\\[", "\\]", "\t", "ſ"),
    *("<|eot_id|>", "</s>", "<s>", "<end_of_turn>", "eot_id", "\r", "i", "ı"),
]
texts = st.lists(st.sampled_from(PIECES), max_size=40).map(lambda pieces: "".join(pieces)[:400])


def by_regex(text: str, quirks: frozenset[str], stop: str = r"\.") -> tuple[str, int]:
    if said := re.findall(rf"(?i)Therefore, the final answer is (.*?){stop} I hope it is correct.", text):
        return cleaned(said[-1], quirks), 1
    for lead in ("the final answer is", "answer is"):
        if match := re.search(rf"(?i){lead}", text):
            line = text[match.end() :].strip().split("\n")[0]
            return cleaned(re.sub(r"\.\Z", "", line), quirks), 2
    return "", 0


def cleaned(answer: str, quirks: frozenset[str]) -> str:
    answer = re.sub(r"\s*\.?\s*I hope it is correct.*", "", answer)
    for token in ("<end_of_turn>", "<|eot_id|>", "<s>", "</s>"):
        pattern = token if "dm-angle-brackets" in quirks else re.escape(token)
        answer = re.sub(pattern, "", answer)
    answer = re.sub(r"\.\s*\Z", "", answer.strip()).strip()
    for left, right in (("$", "$"), ("\\(", "\\)"), ("**", "**"), ("***", "***"), ("\\[", "\\]")):
        answer = re.sub(rf"^{re.escape(left)}(.*){re.escape(right)}\Z", r"\1", answer).strip()
    return answer


@settings(max_examples=2500, deadline=None)
@given(texts, st.sampled_from([QUIRKS, NONE]))
def test_the_linear_search_finds_what_the_regexes_find(text: str, quirks: frozenset[str]) -> None:
    assert final_answer(text, quirks) == by_regex(text, quirks)
    assert final_answer(text, quirks, any_stop=True) == by_regex(text, quirks, stop=".")


def test_the_first_version_of_the_pattern_ends_at_any_character_before_the_hope() -> None:
    said = "Therefore, the final answer is 4! I hope it is correct."
    assert final_answer(said) == ("4!", 2)
    assert final_answer(said, any_stop=True) == ("4", 1)


def test_the_quirk_deletes_angle_brackets_and_its_repair_deletes_tokens() -> None:
    assert final_answer("the final answer is a < b")[0] == "a  b"
    assert final_answer("the final answer is a < b", NONE)[0] == "a < b"
    assert final_answer("the final answer is 4.<|eot_id|>")[0] == "4.||"
    assert final_answer("the final answer is 4.<|eot_id|>", NONE)[0] == "4"


MORE_LINES = {
    **LINES,
    "phrase": "Therefore, the final answer is ",
    "phrase and hope": "Therefore, the final answer is 4. I hope it is correct. ",
    "hopes": ". I hope it is correct",
    "spaces": "the final answer is" + " " * 400,
    "tokens": "answer is <|eot_id|>",
}


@pytest.mark.parametrize("line", MORE_LINES.values(), ids=MORE_LINES)
def test_a_line_of_200_000_characters_takes_a_moment(line: str) -> None:
    # The goal is 50 ms on an idle core (measured: 12 ms at most); a busy machine doubles CPU time.
    for start in ("", "the final answer is"):
        text = (start + line * (200_000 // len(line) + 1))[:200_000]
        assert seconds(final_answer, text, 0.1) < 0.1
        assert seconds(lambda s: final_answer(s, NONE, any_stop=True), text, 0.1) < 0.1
    megabyte = (line * (1_000_000 // len(line) + 1))[:1_000_000]
    assert seconds(final_answer, megabyte, 0.5) < 0.5
