"""The reward for one instruction, as Tülu 3 was trained (arXiv 2411.15124): one of 25 functions accepts the response.

The label is an object `{"func_name": …, arguments}` or its JSON; arguments that are null do not count. The functions
are those of allenai/open-instruct (`if_functions.py`) as Tülu 3 used them; IFEval's checks of like name are others.
Two deviations: a blank response is never right, where the original pays for an empty answer without commas, and where
the original raises (a text that is in no language) the reward is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import evalsuite.verify.constraints.params as p
import evalsuite.verify.ifeval_old_shape as shape
import evalsuite.verify.ifeval_old_words as words
from evalsuite.errors import DataError, did_you_mean
from evalsuite.types import Score
from evalsuite.verify.rlvr_text import BLANK, parsed, prepared

EXPECTED = "an object with func_name and the arguments of that function, or its JSON"
QUANTIFIERS = ("at least", "at most", "around")
# The codes that langdetect 1.0.9 can give.
_CODES = """af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl
pt ro ru sk sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw"""
_LANGUAGES = frozenset(_CODES.split())


@dataclass(frozen=True, slots=True)
class Function:
    """A check, `(text, **arguments)` to the objection or None, and how each argument is read."""

    check: Callable[..., str | None]
    params: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


def verify(response: str, row: Mapping[str, Any]) -> Score:
    """Raises DataError for a label that is none."""
    function, arguments = read_label(row["ground_truth"])
    answer = prepared(response)
    why = function.check(answer, **arguments) if answer else BLANK
    return Score(float(why is None), why=why or "")


def label_problem(label: Any) -> str:
    """What was expected, where the label is not it; else the empty string."""
    try:
        read_label(label)
    except DataError as error:
        return str(error)
    return ""


def read_label(label: Any) -> tuple[Function, dict[str, Any]]:
    """The function that a label names, with its arguments; DataError says what was expected."""
    try:
        found = parsed(label)
    except ValueError:
        raise DataError(EXPECTED) from None
    if not isinstance(found, Mapping) or not isinstance(found.get("func_name"), str):
        raise DataError(EXPECTED)
    name = found["func_name"]
    if name not in FUNCTIONS:
        raise DataError(f"{EXPECTED} (no function {name!r}{did_you_mean(name, FUNCTIONS)})")
    given = {key: value for key, value in found.items() if key != "func_name" and value is not None}
    arguments, problems = _arguments(FUNCTIONS[name], given)
    if problems:
        raise DataError(f"{EXPECTED} ({name}: {', '.join(problems)})")
    return FUNCTIONS[name], arguments


def _arguments(function: Function, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    problems = [f"{key} is missing" for key in function.params if key not in given]
    problems += [
        f"unknown argument {key!r}{did_you_mean(key, function.params)}" for key in given.keys() - function.params
    ]
    arguments = {}
    for key, read in function.params.items():
        if key in given:
            try:
                arguments[key] = read(given[key])
            except (ValueError, OverflowError) as error:
                problems.append(f"{key} is {given[key]!r:.40}: {error}")
    if not problems and "i" in arguments and arguments["i"] > arguments["N"]:
        problems.append(f"i is {arguments['i']}, of {arguments['N']} paragraphs")
    return arguments, sorted(problems)


def _letter(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 1:
        raise ValueError("expected one character")
    return value


def _language(value: Any) -> str:
    if value not in _LANGUAGES:
        raise ValueError("expected a language code as langdetect gives it, such as en or zh-cn")
    return str(value)


def _quantifier(value: Any) -> str:
    if value not in QUANTIFIERS:
        raise ValueError(f"expected one of {', '.join(QUANTIFIERS)}")
    return str(value)


def _texts(value: Any) -> tuple[str, ...]:
    """Texts of a list, or of one text with commas, which the original would take letter by letter."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("expected a list of texts")
    return tuple(map(p.text, value))


_COUNT = {"N": p.count}
_QUANTITY = {"N": p.count, "quantifier": _quantifier}

FUNCTIONS: Mapping[str, Function] = {
    "verify_keywords": Function(words.keywords, {"keyword_list": _texts}),
    "verify_keyword_frequency": Function(words.keyword_frequency, {"word": p.text, **_COUNT}),
    "validate_forbidden_words": Function(words.forbidden_words, {"forbidden_words": _texts}),
    "verify_letter_frequency": Function(words.letter_frequency, {"letter": _letter, **_COUNT}),
    "validate_response_language": Function(words.response_language, {"language": _language}),
    "verify_paragraph_count": Function(shape.paragraph_count, _COUNT),
    "validate_word_constraint": Function(shape.word_constraint, _QUANTITY),
    "verify_sentence_constraint": Function(shape.sentence_constraint, _QUANTITY),
    "validate_paragraphs": Function(shape.paragraphs, {**_COUNT, "first_word": p.text, "i": p.position}),
    "verify_postscript": Function(shape.postscript, {"postscript_marker": p.text}),
    "validate_placeholders": Function(shape.placeholders, _COUNT),
    "verify_bullet_points": Function(shape.bullet_points, _COUNT),
    "validate_title": Function(shape.title),
    "validate_choice": Function(words.choice, {"options": _texts}),
    "validate_highlighted_sections": Function(shape.highlighted_sections, _COUNT),
    "validate_sections": Function(shape.sections, {**_COUNT, "section_splitter": p.text}),
    "validate_json_format": Function(shape.json_format),
    "validate_repeat_prompt": Function(shape.repeat_prompt, {"original_prompt": p.text}),
    "validate_two_responses": Function(shape.two_responses),
    "validate_uppercase": Function(words.uppercase),
    "validate_lowercase": Function(words.lowercase),
    "validate_frequency_capital_words": Function(words.capital_words, _QUANTITY),
    "validate_end": Function(shape.end, {"end_phrase": p.text}),
    "validate_quotation": Function(shape.quotation),
    "validate_no_commas": Function(words.no_commas),
}
