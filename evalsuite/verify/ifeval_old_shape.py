"""`ifeval_old`: checks of length, layout, beginning and end. Each returns the objection, None when there is none.

All are linear in the length of the text; the lazy regexes of the original are quadratic on a line of marks that do not
pair up.
"""

from __future__ import annotations

import re

from evalsuite.verify.constraints.ifeval_format import json_format as is_json
from evalsuite.verify.ifeval_old_words import exactly, quantified, tenth

_DIVIDER = "* * *"
_STARS = "******"
_FENCE = "```"
# An end mark and a space after it, unless an abbreviation stands there ("e.g.", "Mr.").
_SENTENCE_END = re.compile(r"(?<!\w\.\w.)(?<![A-Z][a-z]\.)(?<=[.?!])\s")


def paragraph_count(text: str, N: int) -> str | None:
    """Exactly N parts between `* * *`, none blank; `***` divides nothing."""
    parts = "\n".join(line.strip() for line in text.splitlines()).split(_DIVIDER)
    if not all(map(str.strip, parts)):
        return "a paragraph is blank"
    return exactly("paragraphs", len(parts), N)


def word_constraint(text: str, N: int, quantifier: str) -> str | None:
    """So many words between white space; "around" allows a tenth more or less, and one."""
    return quantified("words", len(text.split()), N, quantifier, tenth(N))


def sentence_constraint(text: str, N: int, quantifier: str) -> str | None:
    """So many sentences; "around" allows one more or less."""
    return quantified("sentences", len(_SENTENCE_END.split(text)), N, quantifier, 1)


def paragraphs(text: str, N: int, first_word: str, i: int) -> str | None:
    """Exactly N parts between blank lines, and part i begins with those letters, in that case."""
    parts = text.split("\n\n")
    if len(parts) != N:
        return exactly("paragraphs", len(parts), N)
    return None if parts[i - 1].strip().startswith(first_word) else f"paragraph {i} does not begin with {first_word!r}"


def postscript(text: str, postscript_marker: str) -> str | None:
    """The marker stands somewhere, and something after it."""
    start = text.find(postscript_marker)
    if start < 0:
        return f"no {postscript_marker!r}"
    return None if len(text[start:].strip()) > len(postscript_marker) else "the postscript is empty"


def placeholders(text: str, N: int) -> str | None:
    """At least N times something in [square brackets], each within a line; nothing counts too."""
    return quantified("placeholders", sum(map(_bracketed, text.split("\n"))), N, "at least", 0)


def _bracketed(line: str) -> int:
    found = end = 0
    while (start := line.find("[", end)) >= 0 and (end := line.find("]", start) + 1):
        found += 1
    return found


def bullet_points(text: str, N: int) -> str | None:
    """Exactly N lines that begin with `*` or `-`; `**bold**` and `---` are such."""
    return exactly("bullets", sum(line.strip().startswith(("*", "-")) for line in text.split("\n")), N)


def title(text: str) -> str | None:
    """Something stands in <<double angles>>, within a line; nothing counts too."""
    return None if any(0 <= line.find("<<") <= line.rfind(">>") - 2 for line in text.split("\n")) else "no <<title>>"


def highlighted_sections(text: str, N: int) -> str | None:
    """At least N pairs of stars, each within a line; `**bold**` is two."""
    return quantified("highlights", sum(line.count("*") // 2 for line in text.split("\n")), N, "at least", 0)


def sections(text: str, N: int, section_splitter: str) -> str | None:
    """Exactly N parts between the splitters; what stands before the first one is a part unless it is empty."""
    parts = text.split(section_splitter)
    return exactly("sections", len(parts) - (parts[0] == ""), N)


def json_format(text: str) -> str | None:
    """The text is JSON without a fence; a bare number passes."""
    if text.startswith(_FENCE) or text.endswith(_FENCE):
        return "not JSON: a fence"
    return is_json(text)


def repeat_prompt(text: str, original_prompt: str) -> str | None:
    """The text begins with the prompt, letter by letter."""
    return None if text.startswith(original_prompt) else "it does not begin with the prompt"


def two_responses(text: str) -> str | None:
    """Two different parts around one `******`; one of them may be blank."""
    parts = [part.strip() for part in text.split(_STARS)]
    if len(parts) != 2:
        return exactly("parts", len(parts), 2)
    return None if parts[0] != parts[1] else "both parts are the same"


def end(text: str, end_phrase: str) -> str | None:
    """The text ends in the phrase."""
    return None if text.endswith(end_phrase) else f"it does not end in {end_phrase!r}"


def quotation(text: str) -> str | None:
    """The text begins and ends with a double quote, which may be the same one."""
    return None if text.startswith('"') and text.endswith('"') else "not in double quotes"
