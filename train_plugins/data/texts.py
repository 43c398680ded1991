"""What a text of a row must not hold: a marker that could forge a turn, characters that no tokenizer means."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

# Role markers of the template `tulu` and of common chat templates, and texts of common end-of-text tokens.
TEMPLATE_TOKENS = (
    *("<|system|>", "<|user|>", "<|assistant|>"),
    *("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "<|begin_of_text|>"),
    *("<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"),
)
# C0 without its white space (a form feed is the end of a page), and DEL; a lone surrogate has no UTF-8.
_STRANGE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
_CONTROLS = bytes(i for i in range(32) if not 9 <= i <= 13) + b"\x7f"


def text_problems(
    texts: Sequence[str], field: str, tokens: Sequence[str], max_chars: int, first: int = 0
) -> list[tuple[str, str, str]]:
    """template_token, control_chars, not_utf8 and overlong of the texts of one field; `tokens` may be empty.

    `first` is the place in the field of the first text.
    """
    found: list[tuple[str, str, str]] = []
    if (size := sum(map(len, texts))) > max_chars:
        found.append(("overlong", f"{field} holds {size} characters", f"at most {max_chars} (--max-chars)"))
    found += _tokens(texts, field, _pattern(tuple(tokens)), first)
    found += _strange(texts, field, first)
    return found


def has_problems(texts: Sequence[str], tokens: tuple[str, ...], max_chars: int) -> bool:
    """Whether the texts may have one of these; seldom true where they have none.

    One look at all of them together: a look costs more than the characters.
    """
    whole = "\n".join(texts)
    if len(whole) > max_chars or _pattern(tokens).search(whole):
        return True
    try:
        data = whole.encode()
    except UnicodeEncodeError:
        return True
    return len(data.translate(None, _CONTROLS)) < len(data)


@lru_cache(maxsize=8)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")


def _tokens(texts: Sequence[str], field: str, pattern: re.Pattern[str], first: int) -> Iterator[tuple[str, str, str]]:
    for i, text in enumerate(texts, first):
        if match := pattern.search(text):
            yield (
                "template_token",
                f"{field}[{i}] holds {match[0]!r} at character {match.start() + 1}",
                "no role marker or end of text in a text (--allow-template-text)",
            )


def _strange(texts: Sequence[str], field: str, first: int) -> Iterator[tuple[str, str, str]]:
    for i, text in enumerate(texts, first):
        if match := _STRANGE.search(text):
            where = f"{field}[{i}] holds U+{ord(match[0]):04X} at character {match.start() + 1}"
            if match[0] >= "\ud800":
                yield "not_utf8", where, "text without lone surrogates"
            else:
                yield "control_chars", where, "no control characters but white space"
