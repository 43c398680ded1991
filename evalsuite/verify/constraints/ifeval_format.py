"""IFEval: what the response contains and how it is laid out (eight checks)."""

from __future__ import annotations

import json
import re

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.registry import constraint

IDS = (
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:number_bullet_lists",
    "detectable_format:constrained_response",
    "detectable_format:number_highlighted_sections",
    "detectable_format:multiple_sections",
    "detectable_format:json_format",
    "detectable_format:title",
)

_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_HIGHLIGHT = re.compile(r"\*[^\n\*]*\*")
_BOLD = re.compile(r"\*\*[^\n\*]*\*\*")
_FENCES = ("```json", "```Json", "```JSON", "```")
_JSON_MARK = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)

# Python's parser gives up at a depth that depends on how deep its caller already is; a verdict must not.
JSON_DEPTH = 500


@constraint("detectable_content:number_placeholders", {"num_placeholders": p.count})
def placeholders(text: str, num_placeholders: int) -> str | None:
    """At least so many [placeholders], each within a line; an empty one counts."""
    found = sum(_bracketed(line) for line in text.split("\n"))
    return None if found >= num_placeholders else f"placeholders: {found}, asked for at least {num_placeholders}"


def _bracketed(line: str) -> int:
    """Matches of `\\[.*?\\]`, in linear time: once no bracket closes, none of the later ones does."""
    found = end = 0
    while (start := line.find("[", end)) >= 0 and (end := line.find("]", start) + 1):
        found += 1
    return found


@constraint("detectable_content:postscript", {"postscript_marker": p.stripped})
def postscript(text: str, postscript_marker: str) -> str | None:
    """The marker stands somewhere, in any case; "P.S." and "P.P.S" may have spaces after their first dots."""
    known = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    marker = known.get(postscript_marker, postscript_marker.lower())
    return None if re.search(marker, text.lower()) else f"no postscript {postscript_marker!r}"


@constraint("detectable_format:number_bullet_lists", {"num_bullets": p.count})
def bullets(text: str, num_bullets: int) -> str | None:
    """Exactly so many lines that open with `*` or `-`; `**bold**` is none, but `---` is one."""
    lines = [line.lstrip() for line in text.split("\n")]
    found = _stars(lines) + sum(line.startswith("-") for line in lines)
    return None if found == num_bullets else f"bullets: {found}, asked for exactly {num_bullets}"


def _stars(lines: list[str]) -> int:
    """Matches of `^\\s*\\*[^\\*].*$`, in linear time. A star that is alone on its line takes the next line with it."""
    found = 0
    taken = -1
    for i, line in enumerate(lines):
        if i == taken or not line.startswith("*"):
            continue
        if line == "*":
            found += i + 1 < len(lines)
            taken = i + 1
        else:
            found += line[1] != "*"
    return found


@constraint("detectable_format:constrained_response")
def constrained(text: str) -> str | None:
    """One of "My answer is yes.", "… no." or "… maybe." stands somewhere, in exactly this spelling."""
    return None if any(answer in text for answer in _ANSWERS) else f"none of {', '.join(map(repr, _ANSWERS))}"


@constraint("detectable_format:number_highlighted_sections", {"num_highlights": p.count})
def highlights(text: str, num_highlights: int) -> str | None:
    """At least so many *highlights*, each within a line; `***a***` counts twice."""
    found = sum(bool(m.strip("*").strip()) for m in _HIGHLIGHT.findall(text))
    found += sum(bool(m[2:-2].strip()) for m in _BOLD.findall(text))
    return None if found >= num_highlights else f"highlights: {found}, asked for at least {num_highlights}"


@constraint("detectable_format:multiple_sections", {"section_spliter": p.pattern, "num_sections": p.count})
def sections(text: str, section_spliter: re.Pattern[str], num_sections: int) -> str | None:
    """At least so many times the section word with a number ("Section 1"); upper and lower case matter."""
    found = len(re.split(rf"\s?{section_spliter.pattern}\s?\d+\s?", text)) - 1
    return None if found >= num_sections else f"sections: {found}, asked for at least {num_sections}"


@constraint("detectable_format:json_format")
def json_format(text: str) -> str | None:
    """The text is JSON, perhaps in a code fence; a bare number or NaN passes."""
    text = text.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    text = text.removesuffix("```").strip()
    if text.count("[") + text.count("{") > JSON_DEPTH and _depth(text) > JSON_DEPTH:
        return f"JSON nested deeper than {JSON_DEPTH}"
    try:
        json.loads(text)
    except ValueError as error:
        return f"not JSON: {error}"
    return None


def _depth(text: str) -> int:
    depth = deepest = 0
    for mark in _JSON_MARK.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(mark.group(), 0)
        deepest = max(deepest, depth)
    return deepest


@constraint("detectable_format:title")
def title(text: str) -> str | None:
    """Some <<title>> within a line holds more than spaces."""
    return None if any(map(_has_title, text.split("\n"))) else "no <<title>>"


def _has_title(line: str) -> bool:
    """The longest match of `<<[^\\n]+>>`, from the first opening to the last closing mark, in linear time."""
    start, end = line.find("<<"), line.rfind(">>")
    return 0 <= start < end - 2 and bool(line[start : end + 2].lstrip("<").rstrip(">").strip())
