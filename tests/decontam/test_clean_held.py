"""Masks against the rule itself: whatever a message is made of, nothing of the kind is found in it again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.clean.change import changed, tree
from decontam.clean.decide import Hit, decide, way_of
from decontam.clean.held import Held
from decontam.rules import find_rule
from decontam.select import parse_selectors
from tests.decontam.clean_outs import OTHER, QUESTION, eval_of

FILLER = "Then we talk about quite different things, such as trains and the weather of the last few weeks."
SHORT = eval_of("Who wrote the Iliad?", QUESTION, name="short")
TEXT = parse_selectors(["text"])


def slices(text: str) -> st.SearchStrategy[str]:
    words = text.split()
    edges = st.tuples(st.integers(0, len(words) - 1), st.integers(1, len(words)))
    return edges.map(lambda edge: " ".join(words[min(edge) : max(edge)]))


PIECES = st.one_of(st.sampled_from([QUESTION, OTHER, FILLER]), slices(QUESTION), slices(OTHER), slices(FILLER))
MESSAGES = st.lists(PIECES, min_size=1, max_size=6).flatmap(
    lambda parts: st.sampled_from([" ", ", ", "\n", "; "]).map(lambda joint: joint.join(parts))
)


@pytest.mark.parametrize("rule", ["tulu3", "fixed-8", "any-8", "gpt3-13", "idf", "exact"])
@given(message=MESSAGES, window=st.integers(0, 12), min_slice=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_no_rule_finds_its_instances_in_what_masks_leave(rule: str, message: str, window: int, min_slice: int) -> None:
    quiz = eval_of(QUESTION, OTHER)
    held = Held(find_rule(rule), [quiz])
    hits = [Hit(0, "quiz", id_, 1.0, tuple(held(message, [Hit(0, "quiz", id_, 1.0, ())]))) for id_ in quiz.ids]
    hits = [hit for hit in hits if hit.spans]
    if not hits:
        return
    change = decide({"text": message}, hits, TEXT, way_of("mask-span", window, min_slice), held)
    left = "" if change.drop else changed({"text": message}, tree(change))["text"]
    assert left != message
    assert held(left, [Hit(0, "quiz", id_, 1.0, ()) for id_ in quiz.ids]) == []


def test_short_instances_are_asked_for_by_their_own_rule() -> None:
    held = Held(find_rule("tulu3"), [SHORT])
    message = "Tell me, who wrote the Iliad? And once more: WHO WROTE THE ILIAD!"
    by_short = Hit(0, "short", "short-0", 1.0, (), by=frozenset({"short"}))
    assert held(message, [by_short]) == [(9, 28)]
    assert held(message, [Hit(0, "short", "short-0", 1.0, ())]) == []  # too short for the rule
    found = Hit(0, "short", "short-0", 1.0, ((9, 28),), by=frozenset({"short"}))
    change = decide({"text": message}, [found], TEXT, way_of("mask-span", min_slice=0), held)
    assert change.texts[("text",)] == "Tell me, […]? And once more: […]!"
