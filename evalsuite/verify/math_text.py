"""MATH answers as text: finding them in a solution or response, and the normal form of Minerva.

The normal form is that of Lewkowycz et al. 2022 (arXiv 2206.14858, appendix D), in two versions: lm-eval 0.4.3, which
the published regime uses (quirk `minerva-0.4.3`), and 0.4.13. Everything is linear in the length of the text; the
regexes of the originals are quadratic on a long line of dollar signs or braces that do not pair up.
"""

from __future__ import annotations

import re

from evalsuite.verify.text import end_of_line

_FINAL = "Final Answer: The final answer is"
_HOPE = " I hope it is correct"
_BRACE = re.compile("[{}]")


def final_answer(text: str) -> str | None:
    """What stands between "Final Answer: The final answer is" and ". I hope it is correct.", or None.

    As upstream: the sentence may be on one line only, any character may stand for its full stops, and the text is
    taken as if it ended in "I hope it is correct.".
    """
    text += _HOPE[1:] + "."
    start = text.find(_FINAL)
    while start >= 0:
        start += len(_FINAL)
        end = end_of_line(text, start)
        hope = text.find(_HOPE, start + 1, end - 1)
        if hope >= 0:
            return text[start : hope - 1].strip()
        start = text.find(_FINAL, end)  # an earlier one on this line lacks the same ending
    return None


def last_box(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` (or of the last `\boxed …$`), or None when there is none or it is unbalanced.

    A last `\fbox{…}` is found by upstream and then refused (quirk `math-fbox-never`), so it is not looked for here.
    """
    if "\\boxed " in text:
        return text.rpartition("\\boxed ")[2].partition("$")[0]
    start = text.rfind("\\boxed")
    if start < 0 or not text.startswith("\\boxed{", start):
        return None
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return text[start + len("\\boxed{") : brace.start()]
    return None


def last_dollars(text: str) -> str | None:
    """What stands between the last two dollar signs, or None."""
    end = text.rfind("$")
    start = text.rfind("$", 0, max(end, 0))
    return text[start + 1 : end] if start >= 0 else None


_REPLACED = (
    ("an ", ""),
    ("a ", ""),
    (".$", "$"),
    ("\\$", ""),
    ("\\ ", ""),
    (" ", ""),
    ("mbox", "text"),
    (",\\text{and}", ","),
    ("\\text{and}", ","),
    ("\\text{m}", "\\text{}"),
)
_DELETED = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue"),
    *("points", "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges"),
    *("students", "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2"),
    *("\\text{}^3", "\\text{\n}", "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"'),
    "\\dots",
)
_COMMAND = re.compile(r"(\\[a-zA-Z]+)")
_FRAC = re.compile(r"(frac)([^{])(.)")
_SQRT = re.compile(r"(sqrt)([^{])")
_SQRT_PLAIN = re.compile(r"(sqrt)(?!\[)([^{])")
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+")


def normalize(answer: str, *, legacy: bool = True) -> str:
    """The normal form of an answer. `legacy` also deletes words inside commands and commas in any list of digits."""
    answer = answer.rpartition("=")[2]
    if not legacy:
        answer = _without_unit_words(answer)
    for old, new in _REPLACED:
        answer = answer.replace(old, new)
    for part in _DELETED:
        if part in answer:
            answer = answer.replace(part, "") if legacy or not part.isalpha() else _outside_commands(answer, part)
    answer = "\n".join(map(_first_dollars, answer.split("\n")))
    for head in ("\\text{", "\\textbf{", "\\overline{"):
        answer = _unwrap(answer, head)
    answer = _short_forms(_unwrap(answer, "\\boxed{", to_last=True), legacy).replace("$", "")
    grouped = answer.replace(",", "").isdigit() if legacy else _THOUSANDS.fullmatch(answer) is not None
    return answer.replace(",", "") if grouped else answer


def _without_unit_words(answer: str) -> str:
    for word in _DELETED:
        if word.isalpha() and word in answer:
            answer = re.sub(rf"(?<!\\)\b{word}\b", "", answer)
    return answer


def _outside_commands(answer: str, word: str) -> str:
    parts = _COMMAND.split(answer)
    parts[::2] = [part.replace(word, "") for part in parts[::2]]
    return "".join(parts)


def _first_dollars(line: str) -> str:
    """A line with two dollar signs becomes what stands between its first two, dollars included."""
    start = line.find("$")
    end = line.find("$", start + 1) if start >= 0 else -1
    return line[start : end + 1] if end >= 0 else line


def _unwrap(text: str, head: str, *, to_last: bool = False) -> str:
    """Replaces each `head…}` by its inside, up to the first closing brace of the line or `to_last` of it."""
    pieces = []
    position = line_end = 0
    while (start := text.find(head, position)) >= 0:
        inside = start + len(head)
        if inside > line_end:
            line_end = end_of_line(text, inside)
        close = text.rfind("}", inside, line_end) if to_last else text.find("}", inside, line_end)
        if close < 0:  # no head on the rest of this line has one
            pieces.append(text[position:line_end])
            position = line_end
        else:
            pieces += [text[position:start], text[inside:close]]
            position = close + 1
    return "".join([*pieces, text[position:]])


def _short_forms(answer: str, legacy: bool) -> str:
    r"""`\fracab` and `\sqrta` with braces; an index of a root (`\sqrt[3]a`) survives only outside `legacy`."""
    answer = _FRAC.sub(r"frac{\2}{\3}", answer)
    if legacy:
        return _SQRT.sub(r"sqrt{\2}", answer)
    return _SQRT_PLAIN.sub(r"sqrt{\2}", _brace_indexed_roots(answer))


def _brace_indexed_roots(answer: str) -> str:
    pieces = []
    position = 0
    while (start := answer.find("sqrt[", position)) >= 0:
        close = answer.find("]", start)
        if close < 0:
            break
        after = answer[close + 1 : close + 2]
        pieces.append(answer[position : close + 1])
        position = close + 1
        if after.isalnum() or after == "_":
            pieces.append(f"{{{after}}}")
            position += 1
    return "".join([*pieces, answer[position:]])
