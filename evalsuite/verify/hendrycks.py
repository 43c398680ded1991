"""Hendrycks' string equality of MATH answers (Hendrycks et al. 2021, arXiv 2103.03874), in linear time."""

from __future__ import annotations

_STRIPPED = (
    ("\n", ""),
    ("\\!", ""),
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\$", ""),
)


def same_text(one: str | None, other: str | None) -> bool:
    """String equality of two answers after the clean-up of Hendrycks et al. 2021 (arXiv 2103.03874).

    When the clean-up of either fails, the texts are compared as they are, as upstream does.
    """
    if one is None or other is None:
        return one is other
    try:
        return _stripped(one) == _stripped(other)
    except (ValueError, IndexError):
        return one == other


def _stripped(text: str) -> str:
    for old, new in _STRIPPED:
        text = text.replace(old, new)
    text = _without_units(text).replace("\\%", "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    if not text:
        return text
    if text[0] == ".":
        text = "0" + text
    left, equals, right = text.partition("=")
    if equals and "=" not in right and len(left) <= 2:
        text = right
    text = _with_fractions(_with_roots(text).replace(" ", ""))
    return _slash_as_fraction("\\frac{1}{2}" if text == "0.5" else text)


def _without_units(text: str) -> str:
    parts = text.split("\\text{ ")
    if len(parts) > 2:
        raise ValueError("units stand twice")
    return parts[0]


def _with_roots(text: str) -> str:
    first, *rest = text.split("\\sqrt")
    return first + "".join("\\sqrt" + (part if part[0] == "{" else f"{{{part[0]}}}{part[1:]}") for part in rest)


def _with_fractions(text: str) -> str:
    first, *rest = text.split("\\frac")
    pieces = [first]
    for part in rest:
        if part[0] != "{":
            if len(part) < 2:
                return text
            below = part[1:] if part[1] == "{" else f"{{{part[1]}}}{part[2:]}"
            part = f"{{{part[0]}}}{below}"
        pieces.append("\\frac" + part)
    return "".join(pieces)


def _slash_as_fraction(text: str) -> str:
    parts = text.split("/")
    if len(parts) != 2:
        return text
    above, below = int(parts[0]), int(parts[1])
    return f"\\frac{{{above}}}{{{below}}}" if text == f"{above}/{below}" else text
