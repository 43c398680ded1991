"""Where a generated text ends: stop strings, end-of-sequence, special tokens and thinking, the same for every engine.

The rules (spec of the engines, "Stops"): stop strings are searched in the decoded text with special tokens kept, over
the whole generated text; the decoded end-of-sequence token counts as a stop string; the text is cut before the earliest
hit, and only then special tokens are removed from what is left. An engine that knows token ids uses `StopWatch` while
it generates, or `finish_tokens` afterwards; one that only has text uses `finish_text`. All three agree.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from evalsuite.types import Finish

REPLACEMENT = "\ufffd"
UNFINISHED_BYTES = 3
"""An unfinished UTF-8 character has at most three bytes, so at most three tokens can still be waiting for its end."""


class Decoder(Protocol):
    """The part of `evalsuite.models.encoding.Encoder` that is needed here."""

    @property
    def eos_ids(self) -> Collection[int]: ...
    @property
    def eos_text(self) -> str: ...
    @property
    def special_ids(self) -> Collection[int]: ...
    @property
    def special_texts(self) -> Collection[str]: ...
    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str: ...


@dataclass(frozen=True, slots=True)
class Thinking:
    """The tags between which a reasoning model thinks; the prompt may already have written `open`."""

    open: str
    close: str


@dataclass(frozen=True, slots=True)
class Ending:
    """The text that is scored, what was thought before it, and whether it ended by itself or by the token limit."""

    text: str
    finish: Finish
    thinking: str = ""


class StopWatch:
    """Collects the tokens of one response and says when it is finished; the cost is linear in the text.

    Only new text and the end of the old one, as long as the longest stop string, are searched after each token. With
    `thinking` the stop strings wait until the end, because the span that is thought may contain them.
    """

    def __init__(
        self, decoder: Decoder, stops: Sequence[str], thinking: Thinking | None = None, *, opened: bool = False
    ) -> None:
        self.ids: list[int] = []
        self._decoder = decoder
        self._stops = tuple(stops)
        self._thinking, self._opened = thinking, opened
        self._needles = needles(() if thinking else stops, decoder.eos_text)
        self._keep = max((len(needle) for needle in self._needles), default=1) - 1
        self._tail = ""  # the last `_keep` characters that were searched
        self._start = self._read = 0  # ids[_start:_read] is context for decoding ids[_read:]

    def push(self, token: int) -> bool:
        """True when the response ends with this token: an end-of-sequence id, or one that completes a stop string."""
        self.ids.append(token)
        if token in self._decoder.eos_ids:
            return True
        fresh = self._fresh_text()
        if not fresh:
            return False
        window = self._tail + fresh
        self._tail = window[len(window) - self._keep :] if len(window) > self._keep else window
        # The text of the pieces may differ from the text of the whole (byte tokens that turn out not to be UTF-8), and
        # the whole is what counts.
        return any(needle in window for needle in self._needles) and self.ending().finish == "stop"

    def ending(self) -> Ending:
        """How the response ends if nothing more is generated."""
        return finish_tokens(self._decoder, self.ids, self._stops, self._thinking, opened=self._opened)

    def _fresh_text(self) -> str:
        """Text that became certain with the last token: empty while a character lacks bytes.

        Decoding from the token before lets decoders that treat the first token of a text differently (a stripped
        leading space) do so only once.
        """
        before = self._decoder.decode(self.ids[self._start : self._read], skip_special=False)
        text = self._decoder.decode(self.ids[self._start :], skip_special=False)
        if text.endswith(REPLACEMENT) and len(self.ids) - self._read <= UNFINISHED_BYTES:
            return ""
        self._start, self._read = self._read, len(self.ids)
        return text[len(before) :]


def finish_tokens(
    decoder: Decoder,
    ids: Sequence[int],
    stops: Sequence[str],
    thinking: Thinking | None = None,
    *,
    opened: bool = False,
) -> Ending:
    """The ending of a response from its tokens; `ids` may close with an end-of-sequence token.

    Special tokens are told by their ids, so a tag like `<s>` that a model spells with ordinary tokens stays. `opened`
    says that the prompt already ended with `thinking.open`.
    """
    ended = bool(ids) and ids[-1] in decoder.eos_ids
    ids = ids[:-1] if ended else ids
    whole = decoder.decode(ids, skip_special=False)
    if thinking is not None:
        return finish_thinking(
            whole, thinking, stops, decoder.eos_text, decoder.special_texts, ended=ended, opened=opened
        )
    cut = earliest(whole, needles(stops, decoder.eos_text))
    finish: Finish = "stop" if ended or cut is not None else "length"
    if not any(token in decoder.special_ids for token in ids):
        return Ending(whole[:cut], finish)
    if cut is None:
        return Ending(decoder.decode(ids, skip_special=True), finish)
    return Ending(_plain_prefix(decoder, ids, whole, cut), finish)


def finish_text(
    text: str, stops: Sequence[str], eos_text: str = "", special_texts: Collection[str] = ()
) -> tuple[str, bool]:
    """The text cut before the earliest stop string and freed from special tokens, and whether there was a stop string.

    `text` has its special tokens in it. This is for engines that give no token ids: special tokens are told by text.
    """
    cut = earliest(text, needles(stops, eos_text))
    return without_specials(text[:cut], special_texts), cut is not None


def finish_thinking(
    text: str,
    thinking: Thinking,
    stops: Sequence[str],
    eos_text: str = "",
    special_texts: Collection[str] = (),
    *,
    ended: bool = True,
    opened: bool = False,
) -> Ending:
    """The answer after the last closing tag; stop strings count only there.

    `text` is everything that was generated, `ended` whether the model itself ended it. A span that was opened and
    never closed, or a limit reached before any closing tag, leaves the answer empty and the finish "length". A model
    that ended without ever opening the span has simply answered.
    """
    thought, tag, rest = text.rpartition(thinking.close)
    if not tag and (opened or not ended or thinking.open in text):
        return Ending("", "length", without_specials(_after_open(text, thinking), special_texts))
    answer, hit = finish_text(rest.lstrip() if tag else rest, stops, eos_text, special_texts)
    return Ending(
        answer, "stop" if ended or hit else "length", without_specials(_after_open(thought, thinking), special_texts)
    )


def needles(stops: Iterable[str], eos_text: str) -> tuple[str, ...]:
    """What is searched for: the stop strings and the text of end-of-sequence; an empty string stops nothing."""
    return tuple(dict.fromkeys(text for text in (*stops, eos_text) if text))


def earliest(text: str, wanted: Sequence[str]) -> int | None:
    """Where the first of the wanted strings begins, None when there is none."""
    found = [position for position in map(text.find, wanted) if position >= 0]
    return min(found, default=None)


def without_specials(text: str, special_texts: Collection[str]) -> str:
    """The text without special tokens, in one pass: what closes up around a removed one is not looked at again."""
    present = sorted((special for special in special_texts if special and special in text), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, present)), "", text) if present else text


def _after_open(thought: str, thinking: Thinking) -> str:
    return thought.lstrip().removeprefix(thinking.open).strip()


def _plain_prefix(decoder: Decoder, ids: Sequence[int], whole: str, cut: int) -> str:
    """`whole[:cut]` without the special tokens in it, told by their ids."""
    low, high = 0, len(ids)
    while low < high:  # the most tokens whose text ends at or before the cut
        middle = (low + high + 1) // 2
        if len(decoder.decode(ids[:middle], skip_special=False)) <= cut:
            low = middle
        else:
            high = middle - 1
    kept = decoder.decode(ids[:low], skip_special=False)
    if not whole.startswith(kept):  # a decoder whose text of a prefix is no prefix of the text: go by text
        return without_specials(whole[:cut], decoder.special_texts)
    return decoder.decode(ids[:low], skip_special=True) + whole[len(kept) : cut]
