"""IFEval-OOD: which words the response is made of and in what order (eleven checks).

"Words" are what white space separates, mostly with the 32 ASCII marks deleted first ("don't" is `dont`).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.language_tools import starts_with_verb, syllables_in
from evalsuite.verify.constraints.ood_sentence import sentence_constraint
from evalsuite.verify.constraints.registry import constraint
from evalsuite.verify.constraints.stop import Stop

IDS = (
    "words:alphabet",
    "words:vowel",
    "words:consonants",
    "words:palindrome",
    "words:prime_lengths",
    "words:start_verb",
    "words:repeats",
    "words:odd_even_syllables",
    "words:last_first",
    "words:paragraph_last_first",
    "words:no_consecutive",
)

EDGES = string.punctuation + " "

_NO_MARKS = str.maketrans("", "", string.punctuation)
_ALPHABET = string.ascii_lowercase
_CLUSTER = re.compile(r"[b-df-hj-np-tv-z]{2}")
_PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))


def without_marks(text: str) -> str:
    """The text with every ASCII punctuation mark deleted, wherever it stands."""
    return text.translate(_NO_MARKS)


@constraint("words:alphabet")
def alphabet_loop(text: str) -> str | None:
    """Each word opens with the letter after that of the word before, Z followed by A; any letter may begin."""
    words = without_marks(text).split()
    if not words:
        return Stop("no word")  # upstream takes the first word of an empty list
    letter = words[0][0].lower()
    if len(letter) != 1 or letter not in _ALPHABET:
        return f"the first word {words[0][:80]!r} opens with no letter from a to z"
    for word in words[1:]:
        letter = _ALPHABET[(_ALPHABET.index(letter) + 1) % 26]
        if word.lower()[0] != letter:
            return f"{word[:80]!r} stands where a word with {letter!r} is due"
    return None


@constraint("words:vowel")
def three_vowels(text: str) -> str | None:
    """One line whose words use at most three of the vowels a, e, i, o, u; accented ones do not count."""
    text = text.strip()
    if "\n" in text:
        return "more than one line"
    found = sorted(set(text.lower()) & set("aeiou"))
    return None if len(found) <= 3 else f"vowels: {', '.join(found)}; asked for at most 3"


@constraint("words:consonants")
def consonant_clusters(text: str) -> str | None:
    """Two consonants stand side by side in each word; y is one, and a lone mark counts as a word without."""
    bare = next((word for word in text.lower().split() if not _CLUSTER.search(word)), None)
    return None if bare is None else f"no two consonants side by side in {bare[:80]!r}"


@constraint("words:palindrome")
def palindromes(text: str) -> str | None:
    """At least ten words of five or more characters that read the same backwards."""
    # Hole: the same word ten times passes, and so does a number.
    words = without_marks(text).lower().split()
    found = sum(len(word) >= 5 and word == word[::-1] for word in words)
    return None if found >= 10 else f"palindromes: {found}, asked for at least 10"


@constraint("words:prime_lengths")
def prime_lengths(text: str) -> str | None:
    """The length of each word is a prime below 100."""
    # Hole: a text of nothing but marks passes.
    odd = next((word for word in without_marks(text).split() if len(word) not in _PRIMES), None)
    return None if odd is None else f"{odd[:80]!r} has {len(odd)} characters"


@constraint("words:start_verb", tools=["sentences", "words", "pos"])
def starts_verbally(text: str) -> str | None:
    """A part-of-speech tagger takes the first word for a verb ("Run fast." opens with a noun to it)."""
    return None if starts_with_verb(text) else "the first word is not taken for a verb"


@constraint("words:repeats", {"small_n": p.count})
def few_repeats(text: str, small_n: int) -> str | None:
    """No word stands more than n times, whatever its case ("don't" and "dont" are the same)."""
    most = Counter(without_marks(text.lower()).split()).most_common(1)
    if not most or most[0][1] <= small_n:
        return None
    return f"{most[0][0][:80]!r}: {most[0][1]} times, asked for at most {small_n}"


@constraint("words:odd_even_syllables", tools=["syllables"])
def alternating_syllables(text: str) -> str | None:
    """Words with an odd and with an even number of syllables take turns."""
    # Hole: one word alone passes.
    words = without_marks(text).lower().split()
    odd = [syllables_in(word) % 2 for word in words]
    for i, (first, second) in enumerate(pairwise(odd)):
        if first == second:
            kind = "odd" if first else "even"
            return f"{words[i][:80]!r} and {words[i + 1][:80]!r} both have an {kind} number of syllables"
    return None


@sentence_constraint("words:last_first")
def last_word_opens_next(sentences: Sequence[str]) -> str | None:
    """The last word of each sentence is the first of the next, whatever its case."""
    # Hole: a single sentence passes. Marks go only from the outer ends, so `"Left" is` opens with `Left"`.
    for before, after in pairwise(sentences):
        last, first = before.rstrip(EDGES).split()[-1:], after.lstrip(EDGES).split()[:1]
        if not last or not first:
            return Stop("a sentence without words")  # upstream takes the last or first word of an empty list
        if last[0].lower() != first[0].lower():
            return f"{first[0][:80]!r} follows {last[0][:80]!r}"
    return None


@constraint("words:paragraph_last_first", variants=["tulu3"])
def paragraphs_end_as_they_begin(text: str) -> str | None:
    """Each line ends with the word it began with, whatever its case; blank lines are skipped."""
    for words in _words_of_lines(text):
        if not words:
            return Stop("a line of nothing but marks")  # upstream takes the first word of an empty list
        if words[0] != words[-1]:
            return _unlike_ends(words)
    return None


@constraint("words:paragraph_last_first", variants=["ifbench"])
def worded_paragraphs_end_as_they_begin(text: str) -> str | None:
    """Each line ends with the word it began with, whatever its case; lines without words are skipped."""
    unlike = next((words for words in _words_of_lines(text) if words and words[0] != words[-1]), None)
    return None if unlike is None else _unlike_ends(unlike)


def _words_of_lines(text: str) -> list[list[str]]:
    lines = (line.strip().lower() for line in text.split("\n"))
    return [line.strip(EDGES).split() for line in lines if line]


def _unlike_ends(words: list[str]) -> str:
    return f"a line begins with {words[0][:80]!r} and ends with {words[-1][:80]!r}"


@constraint("words:no_consecutive")
def no_same_first_letter(text: str) -> str | None:
    """No two words in a row open with the same character, whatever its case."""
    words = without_marks(text.lower()).split()
    pair = next((pair for pair in pairwise(words) if pair[0][0] == pair[1][0]), None)
    return None if pair is None else f"{pair[0][:80]!r} and {pair[1][:80]!r} open alike"
