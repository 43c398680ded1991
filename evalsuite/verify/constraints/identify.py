"""langdetect's detector with the same arithmetic in fewer steps: the same probabilities in a fraction of the time.

Identifying languages is most of what IFEval's checks cost, and nearly all of that is taking text apart character by
character and multiplying 55 numbers one by one. Which n-grams a text has, in which order, which of them are drawn and
what is multiplied by what, is langdetect's (1.0.9), to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Container
from functools import cache, lru_cache
from typing import Any

import numpy as np

_SPACES = re.compile("  +")
_WORD = re.compile("[^ ]+ ?")
WORDS_KEPT = 1 << 15


def identify(factory: Any, text: str) -> str | None:
    """The language code that `factory.create()` gives for `text`; None where it raises for want of features."""
    from langdetect import LangDetectException

    detector = factory.create()
    detector.__class__ = quick_class(factory)
    try:
        detector.append(text)
        return str(detector.detect())
    except LangDetectException:
        return None


@cache
def quick_class(factory: Any) -> Any:
    """langdetect's Detector with its inner loops written anew, for the language profiles of that factory."""
    from langdetect.utils.ngram import NGram

    plain: Any = factory.create().__class__
    known = factory.word_lang_prob_map
    of_word = lru_cache(WORDS_KEPT)(lambda word: ngrams(word, known))
    normalized: dict[str, str] = {}
    likely: dict[str, Any] = {}

    class Quick(plain):  # type: ignore[misc]
        def append(self, text: str) -> None:
            text = self.MAIL_RE.sub(" ", self.URL_RE.sub(" ", text))
            text = NGram.normalize_vi(text)[: self.max_text_length]
            self.text += _SPACES.sub(" ", text)

        def _extract_ngrams(self) -> list[str]:
            for char in set(self.text) - normalized.keys():
                normalized[char] = NGram.normalize(char)
            text = "".join(map(normalized.__getitem__, self.text))
            return [gram for word in _WORD.findall(text) for gram in of_word(word)]

        def _init_probability(self) -> Any:
            return np.array(super()._init_probability())

        def _update_lang_prob(self, prob: Any, word: str, alpha: float) -> bool:
            row = likely.get(word)
            if row is None:
                row = likely[word] = np.array(known[word])
            prob *= row + alpha / self.BASE_FREQ
            return True

        def _normalize_prob(self, prob: Any) -> float:
            prob /= sum(prob.tolist())  # added up in order, as langdetect does
            return float(prob.max())

    return Quick


def ngrams(word: str, known: Container[str]) -> tuple[str, ...]:
    """Runs of one to three characters of a word, those that are known, in the order of their ends.

    The word begins with the space before it and may end with the one behind it. From the second capital in a row
    nothing is taken until a small letter comes.
    """
    found: list[str] = []
    grams, shouting = " ", False
    for char in word:
        shouting = char.isupper() and (shouting or grams[-1].isupper())
        grams = grams[-2:] + char
        if not shouting:
            found += [gram for n in (-1, -2, -3) if (gram := grams[n:]) in known and gram != " " and len(gram) == -n]
    return tuple(found)
