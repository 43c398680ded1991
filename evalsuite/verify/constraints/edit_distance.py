"""Whether two texts are at most so many edits apart, each character a bit (Myers 1999; Hyyrö 2003)."""

from __future__ import annotations


def within_distance(text: str, reference: str, limit: int) -> bool:
    """Is the Levenshtein distance (insert, delete and replace cost 1 each) at most `limit`?

    One column of the table is two integers with a bit per character of the shorter text: steps up and steps down. That
    makes texts of a few thousand characters a matter of milliseconds; very different lengths are refused at once.
    """
    shorter, longer = sorted((text, reference), key=len)
    if len(longer) - len(shorter) > limit:
        return False
    if len(longer) <= limit or shorter == longer:
        return True
    where: dict[str, int] = {}
    for i, char in enumerate(shorter):
        where[char] = where.get(char, 0) | 1 << i
    full = (1 << len(shorter)) - 1
    last = len(shorter) - 1
    up, down, distance = full, 0, len(shorter)
    for left, char in zip(range(len(longer) - 1, -1, -1), longer, strict=True):
        same = where.get(char, 0)
        diagonal = (((same & up) + up) ^ up) | same
        right_up, right_down = down | ~(diagonal | up) & full, up & diagonal
        distance += (right_up >> last & 1) - (right_down >> last & 1)
        if distance - left > limit:
            return False  # each character that is left brings the distance down by one at most
        vertical = same | down
        right_up = right_up << 1 | 1
        up = (right_down << 1 | ~(vertical | right_up)) & full
        down = right_up & vertical & full
    return distance <= limit
