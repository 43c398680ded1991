"""IFEval: how the response begins and ends, whether it is two, and its commas (five checks)."""

from __future__ import annotations

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.registry import constraint

IDS = (
    "combination:two_responses",
    "combination:repeat_prompt",
    "startend:end_checker",
    "startend:quotation",
    "punctuation:no_comma",
)


@constraint("combination:two_responses")
def two_responses(text: str) -> str | None:
    """Exactly two different responses with ****** between them."""
    parts = [part.strip() for part in text.split("******")]
    if not all(parts[1:-1]):
        return "nothing between two ******"
    found = [part for part in parts if part]
    if len(found) != 2:
        return f"responses: {len(found)}, asked for two with ****** between them"
    return None if found[0] != found[1] else "the two responses are the same"


@constraint("combination:repeat_prompt", {"prompt_to_repeat": p.text})
def repeats_prompt(text: str, prompt_to_repeat: str) -> str | None:
    """The response begins with the request, in any case."""
    same = text.strip().lower().startswith(prompt_to_repeat.strip().lower())
    return None if same else "does not begin with the request"


@constraint("startend:end_checker", {"end_phrase": p.stripped})
def ends_with(text: str, end_phrase: str) -> str | None:
    """The response ends with the phrase, in any case and perhaps before a closing quote."""
    ends = text.strip().strip('"').lower().endswith(end_phrase.lower())
    return None if ends else f"does not end with {end_phrase!r}"


@constraint("startend:quotation")
def quoted(text: str) -> str | None:
    """The response begins and ends with a straight double quote."""
    text = text.strip()
    return None if len(text) > 1 and text[0] == text[-1] == '"' else "not wrapped in double quotation marks"


@constraint("punctuation:no_comma")
def no_comma(text: str) -> str | None:
    """No ASCII comma stands anywhere."""
    found = text.count(",")
    return f"commas: {found}" if found else None
