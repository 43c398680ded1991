"""What a mix leaves out besides doubles: other languages, too short or long rows, answers that name somebody else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from evalsuite.errors import UsageError, did_you_mean

CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
LETTERS = 40  # fewer tell no language
READ = 2_000  # characters that a language is told from
LANGUAGES = (
    "af", "ar", "bg", "bn", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he", "hi",
    "hr", "hu", "id", "it", "ja", "kn", "ko", "lt", "lv", "mk", "ml", "mr", "ne", "nl", "no", "pa", "pl", "pt", "ro",
    "ru", "sk", "sl", "so", "sq", "sv", "sw", "ta", "te", "th", "tl", "tr", "uk", "ur", "vi", "zh-cn", "zh-tw",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filters:
    """Rows that stay: in one of `language`, with `min_words` to `max_words` in all messages together, and no answer
    that has one of `drop_if_mentions` as whole words, in any case. A row too short to tell its language stays.
    """

    language: tuple[str, ...] = ()
    min_words: int | None = None
    max_words: int | None = None
    drop_if_mentions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wrong = [f"no language {each!r}{did_you_mean(each, LANGUAGES)}" for each in self.language
                 if each not in LANGUAGES]  # fmt: skip
        wrong += ["min_words is above max_words"] if self._is_empty() else []
        wrong += ["drop_if_mentions has an empty text"] if any(not m.strip() for m in self.drop_if_mentions) else []
        if wrong:
            raise UsageError("; ".join(wrong))

    def _is_empty(self) -> bool:
        return self.min_words is not None and self.max_words is not None and self.min_words > self.max_words


def reason(row: Mapping[str, Any], filters: Filters) -> str:
    """Why the row is left out: too_short, too_long, mentions, language; empty when it stays."""
    n = sum(len(text.split()) for text in texts(row)) if filters.min_words or filters.max_words else 0
    if filters.min_words is not None and n < filters.min_words:
        return "too_short"
    if filters.max_words is not None and n > filters.max_words:
        return "too_long"
    if filters.drop_if_mentions:
        mention = _mention(filters.drop_if_mentions)
        if any(mention.search(text) for text in answers(row)):
            return "mentions"
    if filters.language and language(row) not in ("", *filters.language):
        return "language"
    return ""


def texts(row: Mapping[str, Any]) -> list[str]:
    """Every message of a row; of a pair the chosen conversation and the answer that was rejected."""
    pair = "chosen" in row
    messages = [*(row.get("chosen" if pair else "messages") or ()), *((row.get("rejected") or ())[-1:] if pair else ())]
    return [str(message.get("content") or "") for message in messages]


def answers(row: Mapping[str, Any]) -> list[str]:
    """What the assistant says in a row; of a pair only the chosen side, which is what is learned."""
    messages = row.get("chosen") or row.get("messages") or ()
    return [str(m.get("content") or "") for m in messages if m.get("role") == "assistant"]


def language(row: Mapping[str, Any]) -> str:
    """The language of a row without its code blocks, as an ISO 639 code; empty where too little is there to tell.

    By langdetect with its seed set: it draws at random, and unseeded it answers differently from run to run.
    """
    text = CODE.sub(" ", "\n".join(texts(row)))[:READ]
    if sum(c.isalpha() for c in text) < LETTERS:
        return ""
    return _detect(text)


def _detect(text: str) -> str:
    from langdetect import DetectorFactory, detect
    from langdetect.lang_detect_exception import LangDetectException

    DetectorFactory.seed = 0
    try:
        return str(detect(text))
    except LangDetectException:
        return ""


@cache
def _mention(words: tuple[str, ...]) -> re.Pattern[str]:
    spaced = (r"\s+".join(re.escape(part) for part in each.split()) for each in words)
    return re.compile(rf"(?<!\w)(?:{'|'.join(spaced)})(?!\w)", re.IGNORECASE)
