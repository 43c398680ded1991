"""The reference: every rule by small arithmetic, then rows of real data whose decisions are known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decontam import reference
from decontam.evals import load_evals
from decontam.reference import Found, Run, find, instances_of, matches
from decontam.rules import IDF_UNIT, RULES, Rule
from decontam.text import words_of

FIXED8, TULU3 = RULES["fixed-8"], RULES["tulu3"]


def words(start: int, stop: int) -> str:
    """Words that no other range shares: `w3 w4 …`."""
    return " ".join(f"w{i}" for i in range(start, stop))


def held(rule: Rule, texts: Sequence[str | None], message: str, **options: object) -> Found | None:
    (instance,) = instances_of(rule, [texts])
    assert instance is not None
    return find(rule, instance, message, **options)  # type: ignore[arg-type]


def test_half_is_not_enough_and_one_position_more_is() -> None:
    text = words(0, 16)
    assert held(FIXED8, [text], words(0, 8)) is None  # 8 of 16
    found = held(FIXED8, [text], words(0, 9))  # windows 0 and 1: 9 of 16
    assert found is not None
    assert (found.exact.covered, found.exact.n, found.exact.score) == ((9,), (16,), Fraction(9, 16))


def test_one_message_must_do_it_alone() -> None:
    instances = instances_of(FIXED8, [(words(0, 20),)])
    halves = [words(0, 10), words(10, 20)]
    assert [matches(FIXED8, instances, half) for half in halves] == [{}, {}]
    assert matches(FIXED8, instances, "\n".join(halves)) == {0: ((20,), (20,))}


def test_a_window_whose_edge_cuts_a_word_matches_nothing() -> None:
    text = "don't you all see how it works out right here"
    found = held(TULU3, [text], text)
    assert found is not None
    # 11 tokens, of which `n't` starts window 1; windows 0, 2 and 3 stand in the text and reach every token.
    assert (found.exact.covered, found.exact.n) == ((11,), (11,))
    only = held(TULU3, ["don't you all see how it works"], "n't you all see how it works")
    assert only is None  # the one window begins with `don't`


def test_tokens_are_counted_not_words() -> None:
    text, message = f"(1) {words(0, 8)}", words(0, 8)
    tokens = held(TULU3, [text], message)  # ( 1 ) and eight words: two windows, `) w0 … w6` and `w0 … w7`
    of_words = held(FIXED8, [text], message)  # 1 and eight words: one window
    assert tokens is not None
    assert of_words is not None
    assert (tokens.exact.covered, tokens.exact.n) == ((9,), (11,))
    assert (of_words.exact.covered, of_words.exact.n) == ((8,), (9,))


def test_the_score_is_the_mean_over_fields_against_the_same_message() -> None:
    texts = (words(0, 10), words(100, 130))
    assert held(FIXED8, texts, words(0, 10)) is None  # (10/10 + 0/30) / 2 is one half
    assert held(FIXED8, texts, words(100, 130)) is None
    found = held(FIXED8, texts, words(0, 10) + "\n" + words(100, 108))  # (1 + 8/30) / 2
    assert found is not None
    assert (found.exact.covered, found.exact.n, found.exact.score) == ((10, 8), (10, 30), Fraction(19, 30))


def test_an_instance_without_a_field_is_skipped_and_an_empty_one_counts() -> None:
    copy = words(0, 12)
    texts = [(copy, None), (copy, ""), ("", "")]
    instances = instances_of(FIXED8, texts)
    assert [instance is None for instance in instances] == [True, False, False]
    assert matches(FIXED8, instances, copy) == {}  # (12/12 + 0) / 2 is one half
    assert matches(FIXED8, instances_of(FIXED8, texts, drop_empty_fields=True), copy) == {1: ((12, 0), (12, 0))}


def test_the_cap_acquits_a_message_that_holds_boilerplate_alone() -> None:
    template = words(0, 12)
    evals = instances_of(FIXED8, [(f"{template} {words(100 * i, 100 * i + 8)}",) for i in range(1, 5)])
    common = reference.common_phrases(reference.document_frequency(evals), cap=3)
    assert len(common) == 5  # the windows of the template; those that leave it are each one instance's
    assert evals[0] is not None
    found = find(FIXED8, evals[0], template, common=common)
    assert found is not None
    assert (found.exact.score, found.common_share, found.survives) == (Fraction(12, 20), 1, False)
    assert (found.capped.covered, found.capped.n, found.capped.score) == ((0,), (8,), 0)
    whole = find(FIXED8, evals[0], f"{template} {words(100, 108)}", common=common)
    assert whole is not None
    # Windows that straddle the edge cover positions of the template too; these are taken out.
    assert (whole.capped.covered, whole.capped.n, whole.survives) == ((8,), (8,), True)
    assert whole.common_share == Fraction(12, 20)


def test_the_cap_never_accuses() -> None:
    template, own = words(0, 22), words(100, 110)
    evals = instances_of(FIXED8, [(f"{template} {own}",), (f"{template} {words(200, 210)}",)])
    common = reference.common_phrases(reference.document_frequency(evals), cap=1)
    assert evals[0] is not None
    assert find(FIXED8, evals[0], own, common=common) is None  # 10 of 10 beyond the template, yet 10 of 32 in all


def test_an_instance_of_boilerplate_alone_is_acquitted() -> None:
    evals = instances_of(FIXED8, [(words(0, 12),)] * 2)
    common = reference.common_phrases(reference.document_frequency(evals), cap=1)
    assert evals[0] is not None
    found = find(FIXED8, evals[0], words(0, 12), common=common)
    assert found is not None
    assert (found.capped.n, found.capped.score, found.survives) == ((0,), 0, False)


def test_a_phrase_repeated_within_one_instance_is_not_common() -> None:
    (instance,) = instances_of(FIXED8, [((words(0, 8) + " ") * 5,)])
    frequency = reference.document_frequency([instance, None])
    assert set(frequency.values()) == {1}
    assert len(frequency) == 8  # the eight turns of the same words


def test_a_phrase_without_words_matches_nothing_and_is_not_common() -> None:
    (instance,) = instances_of(TULU3, [("( ( ( ( ( ( ( (",)])
    assert instance is not None
    assert [window.phrase for field in instance if field for window in field.windows] == [()]
    assert reference.document_frequency([instance]) == {}
    assert find(TULU3, instance, "( ( ( ( ( ( ( (") is None


def test_idf_weighs_rare_phrases() -> None:
    # 8 instances, N = 8. The first four have two windows: one of a frame that four own, one that they own alone.
    frame = words(0, 5)
    texts = [(f"{frame} end{i}",) for i in range(4)] + [(words(100 * i, 100 * i + 5),) for i in range(1, 5)]
    rule = RULES["idf"]
    instances = instances_of(rule, texts)
    weights = reference.idf_weights(reference.document_frequency(instances), len(instances))
    common, rare = round(math.log(8 / 4) * IDF_UNIT), round(math.log(8) * IDF_UNIT)
    assert sorted(set(weights.values())) == [common, rare]
    assert matches(rule, instances, frame, weights) == {}  # ln 2 / (ln 2 + ln 8) = 1/4
    assert matches(rule, instances, words(1, 5) + " end2", weights) == {}  # ln 8 / (ln 2 + ln 8) = 3/4
    assert matches(rule, instances, f"{frame} end2", weights) == {2: ((6,), (6,))}


def test_an_instance_whose_phrases_weigh_nothing_is_not_scored() -> None:
    rule = RULES["idf"]
    instances = instances_of(rule, [(words(0, 5),)] * 3)
    weights = reference.idf_weights(reference.document_frequency(instances), 3)
    assert set(weights.values()) == {0}
    assert matches(rule, instances, words(0, 5), weights) == {}


@pytest.mark.parametrize(
    ("rule", "text", "message", "flags"),
    [
        ("any-8", "A b c d e f g h, and more of it", "see: a B c d e f g h, now", True),
        ("any-8", "A b c d e f g h, and more of it", "a b c d e f g h now", False),  # `h,` is another word
        ("any-8", "a b c d e f g", "a b c d e f g", False),  # seven words
        ("gpt3-13", "it's a b c d e f g h i j k l", "(its) A-b b c", False),
        ("gpt3-13", "it's a b c d e f g h i j k l m", "Its a, b - c d e f g h i j k; l", True),
        ("exact", "Is it so?", "and is it - so", True),
        ("exact", "Is it so?", "is it not so", False),
        ("exact", "...", "...", False),
    ],
)
def test_rules_that_one_window_decides(rule: str, text: str, message: str, flags: bool) -> None:
    assert (held(RULES[rule], [text], message) is not None) == flags


def test_any_takes_one_field_and_exact_takes_all() -> None:
    texts = (words(0, 8), words(100, 108))
    assert held(RULES["any-8"], texts, words(0, 8)) is not None
    assert held(RULES["exact"], texts, words(0, 8)) is None
    assert held(RULES["exact"], texts, words(100, 108) + "\n" + words(0, 8)) is not None


def test_the_cap_leaves_common_windows_out_of_any() -> None:
    evals = instances_of(RULES["any-8"], [(words(0, 8) + f" end{i}",) for i in range(3)])
    common = reference.common_phrases(reference.document_frequency(evals), cap=2)
    assert evals[1] is not None
    frame = find(RULES["any-8"], evals[1], words(0, 8), common=common)
    whole = find(RULES["any-8"], evals[1], words(0, 8) + " end1", common=common)
    assert frame is not None
    assert whole is not None
    assert (frame.survives, whole.survives) == (False, True)


def test_short_instances_are_sought_whole() -> None:
    texts = [("Who wrote Black Beauty?",), ("Who wrote Beauty?",), (words(0, 8),), (None,)]
    short = reference.short_instances(texts)
    assert [one is None for one in short] == [False, True, True, True]
    assert matches(RULES["exact"], short, "tell me: who wrote black beauty") == {0: ((4,), (4,))}
    assert matches(RULES["exact"], short, "who wrote the black beauty") == {}


def test_runs_are_windows_that_follow_one_another_on_both_sides() -> None:
    text = "one two three four five six seven eight nine ten"
    message = "So: one, two, three, four, five, six, seven, eight, nine, ten!"
    found = held(FIXED8, [text], message)
    assert found is not None
    assert found.runs == (Run(4, 61, 0, 0, 48, 10),)
    assert (message[4:61], text[0:48]) == (message[4:-1], text)


def test_a_gap_on_either_side_begins_another_run() -> None:
    first, second = words(0, 9), words(20, 28)
    text = f"{first} {second}"
    found = held(FIXED8, [text], f"{second} or {first}")
    assert found is not None
    # Eval order: the first nine words come last in the message.
    at = len(f"{second} or ")
    assert found.runs == (
        Run(at, at + len(first), 0, 0, len(first), 9),
        Run(0, len(second), 0, len(first) + 1, len(text), 8),
    )
    apart = held(FIXED8, [text], f"{first} or {second}")
    assert apart is not None
    assert [run.k for run in apart.runs] == [9, 8]


def test_runs_of_several_fields_name_theirs() -> None:
    found = held(FIXED8, [words(0, 8), words(10, 18)], f"{words(10, 18)} {words(0, 8)}")
    assert found is not None
    assert [(run.field, run.k) for run in found.runs] == [(0, 8), (1, 8)]


PIECES = ("a", "b", "c", "A", " ", " ", ",", "'", "-", "\n", "\t", ".", "É", "1", "Σ")
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@given(TEXTS, TEXTS, st.sampled_from(["pattern", "words", "plain", "standard"]), st.integers(1, 4))
def test_windows_stand_where_a_search_by_hand_finds_them(text: str, message: str, analyzer: str, n: int) -> None:
    rule = Rule("small", analyzer, "words", n, "any", Fraction(0))  # type: ignore[arg-type]
    (instance,) = instances_of(rule, [(text,)])
    assert instance is not None
    assert instance[0] is not None
    train = words_of(rule.analyzer, message)
    expected = {}
    for window in instance[0].windows:
        places = [i for i in range(len(train) - n + 1) if tuple(train[i : i + n]) == window.phrase]
        if places:
            expected[window] = places[0]
    found = find(rule, instance, message)
    assert (found is not None) == bool(expected)
    if found is not None:
        covered = {p for window in expected for p in range(window.start, window.stop)}
        assert found.exact.covered == (len(covered),)
        assert {p for run in found.runs for p in _positions(instance[0].spans, run)} == covered
        assert min(run.train_from for run in found.runs) >= 0
        assert max(run.train_to for run in found.runs) <= len(message)


def _positions(spans: Sequence[tuple[int, int]], run: Run) -> range:
    start = next(i for i, span in enumerate(spans) if span[0] == run.eval_from)
    return range(start, start + run.k)


def _rows(path: Path, numbers: Sequence[int], key: str) -> list[str]:
    lines = path.read_bytes().split(b"\n")
    return [json.loads(lines[number])[key] for number in numbers]


def test_gsm8k_train_holds_two_test_questions(hub_data: Path, shared_data: Path) -> None:
    (gsm8k,) = load_evals(str(hub_data / "openai/gsm8k/main/test.jsonl"))
    instances = instances_of(TULU3, gsm8k.texts)
    train = shared_data / "train/contaminated/gsm8k_train_alpaca.jsonl"
    found = [matches(TULU3, instances, text) for text in _rows(train, [20, 1314, 5162, 0, 7000], "instruction")]
    assert found == [{632: ((48,), (64,))}, {602: ((21,), (28,))}, {602: ((21,), (28,))}, {}, {}]


def test_llm_adapters_has_rows_that_are_test_questions(hub_data: Path, shared_data: Path) -> None:
    (gsm8k,) = load_evals(str(hub_data / "openai/gsm8k/main/test.jsonl"))
    train = shared_data / "train/contaminated/llm_adapters_math.jsonl"
    texts = _rows(train, range(100), "instruction")
    own = {text: number for number, (text,) in enumerate(gsm8k.texts)}
    copies = [(row, own[text]) for row, text in enumerate(texts) if text in own]
    assert [row for row, _ in copies][:8] == [2, 5, 6, 7, 10, 15, 18, 20]
    for row, number in copies:
        (instance,) = instances_of(TULU3, [gsm8k.texts[number]])
        assert instance is not None
        found = find(TULU3, instance, texts[row])
        assert found is not None
        assert found.exact.score > Fraction(96, 100)


def test_a_blank_of_underscores_flags_questions_that_the_cap_acquits(hub_data: Path, shared_data: Path) -> None:
    (mmlu,) = load_evals(str(hub_data / "cais/mmlu/all/test.parquet"))
    blank = [number for number, (text,) in enumerate(mmlu.texts) if text and "________" in text]
    instances = instances_of(TULU3, [mmlu.texts[number] for number in blank])
    (message,) = (
        "\n".join(filter(None, pair))
        for pair in zip(
            _rows(shared_data / "train/sft/alpaca_en_demo.jsonl", [387], "instruction"),
            _rows(shared_data / "train/sft/alpaca_en_demo.jsonl", [387], "input"),
            strict=True,
        )
    )
    common = reference.common_phrases(reference.document_frequency(instances), cap=50)
    found = [find(TULU3, one, message, common=common) for one in instances if one is not None]
    flagged = [one for one in found if one is not None]
    assert len(flagged) == 42
    assert not any(one.survives for one in flagged)
