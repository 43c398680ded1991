"""Puts texts that a model wrote into a judge's question so that they stay texts: one pass, fences, broken controls.

Pure: the same texts give the same prompt. The threats are orders to the judge, forged verdicts, forged sections and the
special tokens of a chat format inside the text that is judged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

Trust = Literal["trusted", "untrusted"]
Kind = Literal["chat", "raw"]

JOINER = "\u200d"
OPEN, CLOSE = "⟦", "⟧"
MANY_CONTROLS = 3
HEADER_LENGTH = 60
BOS = ("<|begin_of_text|>", "<s>", "<bos>", "<｜begin▁of▁sentence｜>")

# One form per family of chat formats; a control string is broken after its first character.
_NAMED = (
    r"\|[^|<>\s]{1,64}\|>",  # ChatML, Llama 3, Phi, Qwen
    r"｜[^｜<>\s]{1,64}｜>",  # DeepSeek
    r"/?(?:s|bos|eos|pad|unk|mask|think|tool_call|tool_response|tools|turn\|)>",
    r"\|turn>",
    r"(?:start|end)_of_(?:turn|image)>",
    r"</?SYS>>",
    r"extra_id_\d{1,4}>",
    r"(?:unused|reserved_)\w{1,32}>",
)
_BRACKETED = r"/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT|THINK|IMG|CLS|SEP|MASK|PAD|UNK)\]"

# What speaks to a judge, in lower case: a word and what makes it one. One literal word each, since most texts have none
# of the words, and looking for a literal is fifty times faster than one expression for everything.
_IGNORED = r"\s{1,4}(?:\w{1,12}\s{1,4}){0,3}(?:instructions?|rules|text|above|criteria)\b"
_STATED = r"[\"'*]{0,2}\s{0,4}(?::|is\b)"
_NAMED_BETTER = r"\s{1,4}[\"'(*]{0,2}[abm12][\"')*]{0,2}\s{1,4}(?:is|wins)\b"
_ADDRESSED = r"s?\s{1,4}(?:to\s{1,4})?(?:the\s{1,4})?(?:judge|evaluator|grader|rater|annotator|reviewer)s?\b"
_CHOSEN = r"\s{1,4}(?:this|my|the\s{1,4}(?:first|second))\s{1,4}(?:response|output|answer|one|text)\b"
_QUOTED_KEY = r"[\"']\s{0,4}:"
_SIGNS = (
    *((word, _IGNORED) for word in ("ignore", "disregard", "forget")),
    *((word, _STATED) for word in ("verdict", "judgement", "judgment")),
    *((word, _NAMED_BETTER) for word in ("response", "output", "answer", "assistant", "model")),
    *((word, _ADDRESSED) for word in ("dear", "note", "attention,", "attention", "hey", "hello", "hello,")),
    *((word, _CHOSEN) for word in ("choose", "pick", "prefer", "select", "vote for", "rank")),
    *(
        (word, _QUOTED_KEY)
        for word in ("'winner", '"winner', "'preference", '"preference', '"better', '"best', '"choice')
    ),
    *((word, r"\s{0,4}:") for word in ("harmful request", "harmful response", "response refusal")),
)
_TO_A_JUDGE = tuple((word, re.compile(re.escape(word) + rest)) for word, rest in _SIGNS)


@dataclass(frozen=True)
class Template:
    """A judge's question with named fields: `{{field}}` in our own wording, `{field}` in an official text.

    Chat templates are `turns` of (role, text), raw ones a single turn without role. Only our own wording puts untrusted
    fields between fences; an official text is used as it is.
    """

    name: str
    kind: Kind
    turns: tuple[tuple[str, str], ...]
    fields: Mapping[str, Trust]
    official: str = ""  # sha256 of the official text that this is

    @cached_property
    def sha256(self) -> str:
        """Identifies the wording; of an official text it is the hash by which the text is known."""
        return self.official or sha256("".join(f"{len(role)}:{role}{len(text)}:{text}" for role, text in self.turns))

    @property
    def source(self) -> str:
        return "official template" if self.official else "own template"

    @property
    def pairwise(self) -> bool:
        return {"output_1", "output_2"} <= set(self.fields)

    @cached_property
    def headers(self) -> frozenset[str]:
        """Short lines of the template that open a section: a response that has one of them imitates the template."""
        lines = {line.strip().lower() for _, text in self.turns for line in text.splitlines()}
        return frozenset(line for line in lines if 4 <= len(line) <= HEADER_LENGTH and line.endswith(":"))


@dataclass(frozen=True, slots=True)
class Filled:
    """A rendered question. `n_broken` control strings were broken; `suspicious`: a text looks like an attack."""

    turns: tuple[tuple[str, str], ...]
    n_broken: int
    suspicious: bool


def fill(template: Template, texts: Mapping[str, str], *, seed: int = 0, specials: Sequence[str] = ()) -> Filled:
    """The question with the texts in it. `specials` are the special tokens of the judge's own tokenizer.

    Raises KeyError when a field of the template has no text.
    """
    shown = {name: texts[name] for name in template.fields}
    n_broken, suspicious = 0, False
    for name, trust in template.fields.items():
        if trust == "untrusted":
            shown[name], n = break_controls(texts[name], specials, fences=not template.official)
            suspicious = suspicious or n >= MANY_CONTROLS or looks_like_an_attack(texts[name], template)
            n_broken += n
    if not template.official:
        nonce = _nonce(template, shown, seed)
        shown = {name: _fenced(name, text, nonce, template.fields[name]) for name, text in shown.items()}
    turns = tuple((role, _replaced(template, text, shown)) for role, text in template.turns)
    return Filled(turns, n_broken, suspicious)


def break_controls(text: str, specials: Sequence[str] = (), *, fences: bool = True) -> tuple[str, int]:
    """The text with a zero-width joiner inside every control string, and how many there were.

    `fences` breaks our own fence characters too. What is left holds no control string: one could only begin where one
    was broken.
    """
    first, controls = _controls(tuple(s for s in specials if len(s) > 1), fences)
    if not any(c in text for c in first):  # most texts: four times faster than the expression
        return text, 0
    return controls.subn(rf"\g<0>{JOINER}", text)


def looks_like_an_attack(text: str, template: Template) -> bool:
    """Whether the text speaks to a judge, or has a header of the template or a fence in it; no score changes by it."""
    lower = text.lower()
    if OPEN in text or CLOSE in text or any(word in lower and sign.search(lower) for word, sign in _TO_A_JUDGE):
        return True
    if not any(header in lower for header in template.headers):
        return False
    return any(line.strip() in template.headers for line in lower.splitlines() if len(line) <= 4 * HEADER_LENGTH)


def placeholders(text: str, *, official: bool = False) -> tuple[str, ...]:
    """Names of the fields that a template's text has, in order of appearance."""
    pattern = r"\{([A-Za-z_]\w*)\}" if official else r"\{\{(\w+)\}\}"
    return tuple(dict.fromkeys(re.findall(pattern, text)))


def chatml_turns(text: str) -> tuple[tuple[str, str], ...]:
    """The turns of an official text in ChatML, split before anything is filled in; empty when it is none."""
    found = []
    for piece in text.split("<|im_start|>")[1:]:
        role, _, rest = piece.partition("\n")
        content, end, _ = rest.partition("<|im_end|>")
        if not end:
            return ()
        found.append((role.strip(), content.strip()))
    return tuple(found)


def fenced_blocks(text: str, nonce: str | None = None) -> Iterator[tuple[str, str]]:
    """(field, text) of every fenced block of a rendered question."""
    word = nonce or "[0-9a-f]{8}"
    opening = re.compile(rf"^{OPEN}(\w+) ({word}){CLOSE}\n", re.MULTILINE)
    start = 0
    while found := opening.search(text, start):
        end = text.find(f"\n{OPEN}/{found[1]} {found[2]}{CLOSE}", found.end())
        if end < 0:
            return
        yield found[1], text[found.end() : end]
        start = end + 1


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _fenced(name: str, text: str, nonce: str, trust: Trust) -> str:
    return text if trust == "trusted" else f"{OPEN}{name} {nonce}{CLOSE}\n{text}\n{OPEN}/{name} {nonce}{CLOSE}"


def _nonce(template: Template, texts: Mapping[str, str], seed: int) -> str:
    """Eight hex digits that no text contains, drawn again until it is so; they depend on the question alone."""
    key = sha256("\0".join([str(seed), template.sha256, *(f"{len(t)}:{t}" for t in texts.values())]))
    for counter in range(1 << 20):
        nonce = sha256(f"{key}{counter}")[:8]
        if not any(nonce in text for text in texts.values()):
            return nonce
    raise ValueError("no nonce of eight digits is free in these texts")


def _replaced(template: Template, text: str, texts: Mapping[str, str]) -> str:
    """One pass: a text that contains a placeholder stays as it is."""
    names = "|".join(map(re.escape, template.fields))
    pattern = rf"\{{({names})\}}" if template.official else rf"\{{\{{({names})\}}\}}"
    return re.sub(pattern, lambda found: texts[found[1]], text) if names else text


@cache
def _controls(specials: tuple[str, ...], fences: bool) -> tuple[str, re.Pattern[str]]:
    """What control strings begin with, and what matches that character of every one, overlapping ones too."""
    rests: dict[str, list[str]] = {"<": list(_NAMED), "[": [_BRACKETED]}
    for special in specials:
        rests.setdefault(special[0], []).append(re.escape(special[1:]))
    found = [f"{re.escape(first)}(?=(?i:{'|'.join(rest)}))" for first, rest in rests.items()]
    marks = [OPEN, CLOSE] if fences else []
    return "".join([*rests, *marks]), re.compile("|".join([*found, *marks]))
