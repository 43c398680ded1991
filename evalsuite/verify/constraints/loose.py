"""The texts that the loose mode tries: a polite first or last line and Markdown stars are forgiven."""

from __future__ import annotations

from collections.abc import Iterator


def loose_texts(response: str) -> Iterator[str]:
    """Up to eight different texts in the official order, blank ones left out; the first is the response itself.

    The response; without stars; without its first, its last, both outer lines; those three without stars. Lines end at
    "\\n" only. The shortened texts are stripped before their stars go, so they can still begin with a space.
    """
    without_first = response.partition("\n")[2]
    shortened = (without_first.strip(), response.rpartition("\n")[0].strip(), without_first.rpartition("\n")[0].strip())
    tried: set[str] = set()
    for text in (response, response.replace("*", ""), *shortened, *(s.replace("*", "") for s in shortened)):
        if text.strip() and text not in tried:
            tried.add(text)
            yield text
