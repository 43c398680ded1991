"""decontam/near/kernel.py ↔ decontam.text: the compiled words are those of `analyze`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.near import kernel
from decontam.near.index import encode
from decontam.text import SEPARATORS, analyze


def hashes_of(texts: Sequence[str]) -> list[list[int]]:
    data, offsets = encode(texts)
    room = np.empty(data.size // 2 + 1, np.uint64)
    found = []
    for start, stop in pairwise(offsets):
        n = kernel.hash_words(data, start, stop, *kernel.alphabet(), room)
        found.append(room[:n].tolist())
    return found


def test_every_code_point_is_split_and_lowered_as_by_analyze() -> None:
    points = " ".join(map(chr, range(sys.maxunicode + 1)))
    words = analyze(points)
    whole, lowered = hashes_of([points, " ".join(words)])
    assert whole == lowered
    assert len(whole) == len(words) == sys.maxunicode + 1 - len(SEPARATORS)
    assert len(set(whole)) == len(set(words))


def test_separators_are_those_of_the_rule_and_no_other_byte() -> None:
    separators, _ = kernel.alphabet()
    assert {chr(c) for c in np.flatnonzero(separators)} == set(SEPARATORS)


TEXTS = st.text(
    st.sampled_from("aAbB1' ,.-\n\\\t\r\f\0/ÉéİiıßẞΣςσKkﬁ中🙂\u0301\ud800\udfff\U0001e921\U0010ffff"), max_size=40
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(TEXTS, st.text(max_size=20)), max_size=8))
def test_words_are_equal_where_their_hashes_are(texts: list[str]) -> None:
    words = [analyze(text) for text in texts]
    hashes = hashes_of(texts)
    assert [len(each) for each in hashes] == [len(each) for each in words]
    named = dict(zip([w for each in words for w in each], [h for each in hashes for h in each], strict=True))
    assert [[named[word] for word in each] for each in words] == hashes
    assert len(set(named.values())) == len(named)
