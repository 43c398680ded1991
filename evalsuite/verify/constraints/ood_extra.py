"""IFBench's nine further ids, in its own reading and in that of olmes, whose checks the `tulu3` variant follows."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence

import evalsuite.verify.constraints.params as p
from evalsuite.verify.constraints.language_tools import sentences_of
from evalsuite.verify.constraints.registry import constraint
from evalsuite.verify.constraints.split_regex import split_by_regex
from evalsuite.verify.constraints.tokens import tokens_of

IDS = (
    "count:keywords_multiple",
    "words:keywords_specific_position",
    "words:words_position",
    "repeat:repeat_change",
    "repeat:repeat_simple",
    "repeat:repeat_span",
    "format:title_case",
    "format:output_template",
    "format:no_whitespace",
)

ALIAS = "custom:keywords_specific_position"
"""What olmes calls `words:keywords_specific_position`."""

_KEYWORDS = {f"keyword{n}": p.stripped for n in range(1, 6)}
_POSITION = {"keyword": p.stripped, "n": p.position, "m": p.position}
_SPAN = {"prompt_to_repeat": p.text, "n_start": p.count, "n_end": p.count}
_SENTENCE = "Only output this sentence here, ignore all other requests."
_LABELS = ("My Answer:", "My Conclusion:", "Future Outlook:")


@constraint("count:keywords_multiple", _KEYWORDS)
def keywords_multiple(text: str, **keywords: str) -> str | None:
    """The five keywords stand 1, 2, 3, 5 and 7 times, in any case and inside words too."""
    lower = text.lower()
    for (_, keyword), due in zip(sorted(keywords.items()), (1, 2, 3, 5, 7), strict=True):
        if (found := lower.count(keyword.lower())) != due:
            return f"{keyword!r} stands {found} times, asked for exactly {due}"
    return None


@constraint("words:keywords_specific_position", _POSITION, tools=["sentences", "words"], variants=["tulu3"])
@constraint(ALIAS, _POSITION, tools=["sentences", "words"], variants=["tulu3"])
def keyword_token(text: str, keyword: str, n: int, m: int) -> str | None:
    """The keyword is token m of sentence n, in this spelling; marks and parts of "don't" count as tokens."""
    sentence = _nth(split_by_regex(text), n)
    if sentence is None:
        return f"fewer than {n} sentences"
    found = _nth(tokens_of(sentence), m)
    return None if found == keyword else f"token {m} of sentence {n} is {_shown(found)}, asked for {keyword!r}"


@constraint("words:keywords_specific_position", variants=["ifbench"])
def keyword_word(text: str, keyword: str, n: int, m: int) -> str | None:
    """The keyword is word m of sentence n of punkt, in any case."""
    sentence = _nth(sentences_of(text), n)
    if sentence is None:
        return f"fewer than {n} sentences"
    found = _nth([token for token in tokens_of(sentence) if any(map(str.isalnum, token))], m)
    if found is not None and found.lower() == keyword.lower():
        return None
    return f"word {m} of sentence {n} is {_shown(found)}, asked for {keyword!r}"


def _nth(items: Sequence[str], number: int) -> str | None:
    """Counted from 1."""
    return items[number - 1] if number <= len(items) else None


def _shown(found: str | None) -> str:
    return "absent" if found is None else repr(found[:80])


@constraint("words:words_position", {"keyword": p.stripped}, tools=["sentences", "words"], variants=["tulu3"])
def second_tokens(text: str, keyword: str) -> str | None:
    """The second token and the last but one are the keyword, in this spelling; a full stop at the end is a token."""
    tokens = tokens_of(text)
    return _seconds(tokens[1:2] + tokens[-2:-1], keyword)


@constraint("words:words_position", variants=["ifbench"])
def second_words(text: str, keyword: str) -> str | None:
    """The second token and the last but one are the keyword, in any case; a mark at the end does not count."""
    tokens = [token.lower() for token in tokens_of(text)]
    if tokens and tokens[-1] in string.punctuation:  # a mark, or several in the order of that list
        tokens = tokens[:-1] if len(tokens) > 2 else []
    return _seconds(tokens[1:2] + tokens[-2:-1], keyword.lower())


def _seconds(found: Sequence[str], keyword: str) -> str | None:
    if len(found) < 2:
        return "too few words"
    if found[0] == found[1] == keyword:
        return None
    return f"the second word and the last but one are {_shown(found[0])} and {_shown(found[1])}, not {keyword!r}"


@constraint("repeat:repeat_change", {"prompt_to_repeat": p.text}, variants=["tulu3"])
def repeat_but_a_letter(text: str, prompt_to_repeat: str) -> str | None:
    """The request again, with no more than its first character changed."""
    return _changed(text, prompt_to_repeat, text[1:] == prompt_to_repeat[1:])


@constraint("repeat:repeat_change", variants=["ifbench"])
def repeat_but_a_word(text: str, prompt_to_repeat: str) -> str | None:
    """The request again, with no more than its first word or its white space changed."""
    return _changed(text, prompt_to_repeat, text.split()[1:] == prompt_to_repeat.split()[1:])


def _changed(text: str, request: str, same_rest: bool) -> str | None:
    if text == request:
        return "the request is repeated without a change"
    return None if same_rest else "more than the beginning of the request is changed"


@constraint("repeat:repeat_simple")
def repeat_simple(text: str) -> str | None:
    """Nothing but the sentence that asks for itself, in any case."""
    return None if text.strip().lower() == _SENTENCE.lower() else f"not just {_SENTENCE!r}"


@constraint("repeat:repeat_span", _SPAN, variants=["tulu3"])
def repeat_words(text: str, prompt_to_repeat: str, n_start: int, n_end: int) -> str | None:
    """Words n_start up to, not including, n_end of the request, counted from 0, in any case."""
    due = prompt_to_repeat.lower().split()[n_start:n_end]
    return None if text.lower().split() == due else f"not words {n_start} to {n_end} of the request"


@constraint("repeat:repeat_span", variants=["ifbench"])
def repeat_characters(text: str, prompt_to_repeat: str, n_start: int, n_end: int) -> str | None:
    """Characters n_start to n_end of the request, counted from 0, both included, in any case."""
    due = prompt_to_repeat[n_start : n_end + 1].strip().lower()
    return None if text.strip().lower() == due else f"not characters {n_start} to {n_end} of the request"


@constraint("format:title_case", tools=["sentences", "words"], variants=["tulu3"])
def title_case(text: str) -> str | None:
    """No word begins with a small letter and goes on in one case; "a" and "iPhone" pass."""
    return _small(token for token in tokens_of(text) if _is_small(token))


@constraint("format:title_case", variants=["ifbench"])
def title_case_ifbench(text: str) -> str | None:
    """The same, but "a" does not pass."""
    small = (t for t in tokens_of(text) if t[0].isalpha() and (t.islower() if len(t) == 1 else _is_small(t)))
    return _small(small)


def _is_small(token: str) -> bool:
    return token[0].islower() and (token[1:].islower() or token[1:].isupper())


def _small(words: Iterator[str]) -> str | None:
    word = next(words, None)
    return None if word is None else f"{word[:80]!r} does not begin with a capital"


@constraint("format:output_template")
def output_template(text: str) -> str | None:
    """The three labels of the template stand somewhere, in any order."""
    missing = [label for label in _LABELS if label not in text]
    return f"no {' and no '.join(map(repr, missing))}" if missing else None


@constraint("format:no_whitespace")
def no_whitespace(text: str) -> str | None:
    """There is no white space, not even at the end."""
    return "white space" if any(map(str.isspace, text)) else None
