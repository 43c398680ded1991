"""Counts the syllables of an English word by its groups of vowels: the fall-back where syllapy is absent."""

from __future__ import annotations

import re

_GROUP = re.compile(r"[aeiouy]+")
_LE = re.compile(r"[b-df-hj-np-tv-xz]le$")


def count_syllables(word: str) -> int:
    """At least 1, but 0 for a word with a digit, as in syllapy. The word is in lower case and without marks.

    Vowel groups, less a silent final "e" ("make" is one), plus the "le" after a consonant ("table" is two).
    """
    if any(map(str.isdigit, word)):
        return 0
    groups = len(_GROUP.findall(word))
    silent = word.endswith("e") and word[-2:-1] not in set("aeiouy")
    return max(1, groups - silent + bool(_LE.search(word)))
