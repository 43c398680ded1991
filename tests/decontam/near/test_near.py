"""decontam/near ↔ decontam/reference_near.py: the same pairs with the same scores, whatever the text."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

import decontam.near.index as index_module
from decontam.near import PROFILES, Near, NearIndex, Profile, build, find_profile
from decontam.reference_near import near
from decontam.text import analyze
from decontam.types import EvalSet
from tests.decontam.near.world import CAT, COOK, DEFAULT, SHIP, WIDE, evals_of, told

TEXTS = (CAT, SHIP, COOK)


def find(message: str, *texts: str, profile: Profile = DEFAULT) -> list[Near]:
    return build([evals_of(*texts)]).find([message], profile)


# -- what it finds --


def test_a_paraphrase_is_found_where_it_stands() -> None:
    told_again = CAT.replace("grey", "brown").replace("small ", "").replace("old garden shed", "old wooden shed")
    message = f"Please read this.\n\n{told_again}\n\nThank you!"
    (hit,) = find(message, *TEXTS)
    assert (hit.message, hit.inst) == (0, 0)
    assert 75 < hit.score < 100
    assert told_again.rstrip(".") in message[hit.train_from : hit.train_to]
    assert hit.train_to - hit.train_from < len(told_again) + 10  # the part is as long as the instance, to whole words
    assert CAT[hit.eval_from : hit.eval_to] == CAT.rstrip(".")


def test_a_copy_in_other_case_and_punctuation_scores_a_hundred() -> None:
    (hit,) = find("so:  " + SHIP.upper().replace(" ", " - "), *TEXTS)
    assert (hit.inst, hit.score) == (1, 100.0)


def test_a_message_shorter_than_the_instance_is_compared_as_a_whole() -> None:
    part = " ".join(SHIP.split()[:15])  # ratio: 2 * 83 common characters of 83 + 104
    (hit,) = find(part, *TEXTS)
    a, b = " ".join(analyze(SHIP)), " ".join(analyze(part))
    assert hit.score == fuzz.ratio(a, b) == pytest.approx(100 * 2 * len(b) / (len(a) + len(b)))
    assert (hit.train_from, hit.train_to, hit.eval_from, hit.eval_to) == (0, len(part), 0, len(SHIP) - 1)


def test_instances_are_numbered_on_from_eval_to_eval() -> None:
    index = build([evals_of(CAT, SHIP, name="first"), evals_of(COOK, name="second")])
    assert [(hit.message, hit.inst) for hit in index.find([COOK, "", CAT], DEFAULT)] == [(0, 2), (2, 0)]


def test_fields_are_joined_by_a_newline_and_offsets_count_in_that() -> None:
    halves = SHIP[:50], SHIP[50:]
    (hit,) = build([evals_of(halves)]).find([SHIP], DEFAULT)
    assert "\n".join(halves)[hit.eval_from : hit.eval_to] == "\n".join(halves).rstrip(".")


def test_an_instance_that_lacks_a_field_is_skipped_and_keeps_its_number() -> None:
    index = build([evals_of((CAT, None), (SHIP, ""))])
    assert [hit.inst for hit in index.find([CAT, SHIP], DEFAULT)] == [1]
    assert index.uncovered == {"made": ()}


def test_copies_of_an_instance_are_one_text_and_all_are_reported() -> None:
    # Counted apart, seven owners would make every shingle of it common (df 7 > 4).
    index = build([evals_of(CAT, *[SHIP] * 4, name="a"), evals_of(*[SHIP] * 3, name="b")])
    assert [hit.inst for hit in index.find([SHIP], DEFAULT)] == [1, 2, 3, 4, 5, 6, 7]


def test_a_shingle_of_four_instances_is_a_seed_and_one_of_five_is_none() -> None:
    tails = ["north", "south", "east", "west", "up"]
    texts = [f"the cart rolls slowly {tail}" for tail in tails]  # shingles: two shared by all, one of its own
    assert build([evals_of(*texts[:4])]).uncovered == {"made": ()}
    assert build([evals_of(*texts)]).uncovered == {"made": tuple(f"made-{i}" for i in range(5))}


def test_instances_with_fewer_than_three_seeds_are_listed_by_eval() -> None:
    texts = ["", "one two", "a b c d", "a b c d e", "x x x x x x"]  # distinct shingles: 0, 0, 2, 3, 1
    index = build([evals_of(*texts, name="e"), evals_of(CAT, name="f")])
    assert index.uncovered == {"e": ("e-0", "e-1", "e-2", "e-4"), "f": ()}
    assert [hit.inst for hit in index.find(texts, WIDE)] == [3]


def test_instances_of_common_shingles_are_out_of_a_profiles_reach() -> None:
    frame = " ".join(f"frame{i}" for i in range(60))
    texts = [f"{frame} tail{i} word{i} end{i} stop{i}" for i in range(6)]  # 4 rare shingles of 62: 4 < .15 * 62
    index = build([evals_of(*texts, CAT)])
    assert index.uncovered == {"made": ()}
    assert index.unreachable(DEFAULT) == [0, 1, 2, 3, 4, 5]
    assert index.unreachable(WIDE) == []  # .05 * 62 = 3.1 <= 4
    assert index.find([texts[0]], DEFAULT) == []


@pytest.mark.parametrize(
    ("n_words", "default", "wide"),
    [(0, 3, 3), (22, 3, 3), (23, 4, 3), (42, 6, 3), (62, 9, 3), (63, 10, 4), (102, 15, 5), (1002, 150, 50)],
)
def test_a_candidate_shares_three_seeds_and_the_profiles_fraction(n_words: int, default: int, wide: int) -> None:
    assert (DEFAULT.need(n_words), WIDE.need(n_words)) == (default, wide)


def test_the_profiles_are_those_of_the_specification() -> None:
    assert {name: (each.fraction, each.cutoff) for name, each in PROFILES.items()} == {
        "default": (Fraction(15, 100), 75.0),
        "wide": (Fraction(5, 100), 65.0),
    }
    with pytest.raises(Exception, match="no near-duplicate profile named 'wid'; did you mean 'wide'"):
        find_profile("wid")


# -- against the specification --

WORDS = st.sampled_from(
    ["a", "b", "cat", "don't", "É", "é", "İ", "i", "ß", "Σς", "K", "ﬁ", "中", "🙂", "x\t", "\ud800", "\0"]
)
SPACES = st.sampled_from([" ", ", ", "\n", " - ", "\\", '"', ".", ";;", "(", ")"])
LINES = st.lists(st.tuples(WORDS, SPACES), max_size=30).map(lambda parts: "".join(w + s for w, s in parts))


@st.composite
def near_copies(draw: st.DrawFn, texts: list[str]) -> str:
    """Parts of the texts, cut, repeated, shuffled, recased and with other words among them."""
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        words = draw(st.sampled_from(texts)).split(" ")
        start = draw(st.integers(0, len(words) // 2))
        words = words[start : draw(st.integers(start, len(words)))]
        for at in draw(st.lists(st.integers(0, max(0, len(words) - 1)), max_size=6)):
            words[at : at + 1] = draw(st.sampled_from([[], ["other"], ["other", "words"], words[at : at + 1] * 2]))
        if draw(st.integers(0, 9)) == 0:
            draw(st.randoms()).shuffle(words)
        text = draw(st.sampled_from([" ", "  ", ", "])).join(words)
        parts.append(draw(st.sampled_from([str, str.upper, str.title]))(text))
    return draw(LINES).join(parts)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_pairs_and_scores_are_those_of_the_specification(data: st.DataObject) -> None:
    texts = list(dict.fromkeys([*data.draw(st.lists(LINES, max_size=6)), *TEXTS]))
    messages = data.draw(st.lists(st.one_of(LINES, near_copies(texts)), max_size=5))
    profile = data.draw(st.sampled_from([DEFAULT, WIDE, Profile("lax", Fraction(1, 50), 40.0)]))
    found = build([evals_of(*texts)]).find(messages, profile)
    expected = told(texts, messages, profile)
    assert [(hit.message, hit.inst, hit.score) for hit in found] == [(*p, e.score) for p, e in sorted(expected.items())]
    for hit in found:
        same = expected[hit.message, hit.inst]
        assert (hit.eval_from, hit.eval_to) == (same.eval_from, same.eval_to)
        own, part = analyze(texts[hit.inst]), analyze(messages[hit.message][hit.train_from : hit.train_to])
        if (hit.train_from, hit.train_to) != (same.train_from, same.train_to):  # another part that is as good
            assert fuzz.partial_ratio(" ".join(own), " ".join(part)) >= hit.score


def test_hash_collisions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every hash hit taken for a seed, words still decide: here each message meets each text."""
    index = build([evals_of(*TEXTS)])
    every = [(m, t) for m in range(3) for t in range(3)]
    monkeypatch.setattr(NearIndex, "_hashed", lambda *_: iter(every))
    messages = [SHIP, "nothing alike at all, whatever it says", CAT]
    assert [(hit.message, hit.inst) for hit in index.find(messages, DEFAULT)] == [(0, 1), (2, 0)]


def test_seeds_that_share_a_hash_are_all_counted() -> None:
    """Three seeds of one text under one key: the pass must not count them as one."""
    import numpy as np

    from decontam.near import kernel

    words = " ".join(f"w{i}" for i in range(5))
    index = build([evals_of(words)])
    arrays = dict(index.arrays)
    data, offsets = index_module.encode([words])
    hashes, counts = np.empty(3, np.uint64), np.empty(1, np.int64)
    kernel.shingle_hashes(data, offsets, *kernel.alphabet(), np.empty(9, np.uint64), hashes, counts)
    table, bits = np.zeros_like(arrays["table"]), np.zeros_like(arrays["bits"])
    kernel.fill(hashes[:1], table, bits)
    postings = np.zeros(3, np.uint32)
    arrays |= {
        "keys": hashes[:1],
        "table": table,
        "bits": bits,
        "posting_starts": np.array([0, 3]),
        "postings": postings,
    }
    assert len(NearIndex(arrays, {}).find([words], DEFAULT)) == 1


# -- however it is asked --


def workload(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts of a small vocabulary, and messages that hold parts of them."""
    rng = random.Random(seed)
    vocabulary = [f"{a}{b}" for a in "bdfgklm" for b in ("a", "é", "io", "u")]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(5, 40))) for _ in range(n)]
    messages = []
    for text in rng.choices(texts, k=n):
        words = [word for word in text.split() if rng.random() > 0.1]
        messages.append(" ".join([*rng.choices(vocabulary, k=rng.randint(0, 30)), *words]))
    return texts, messages


@pytest.mark.parametrize("room", [0, 1, 4096])
def test_batches_threads_room_and_worn_out_stamps_change_nothing(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, messages = workload(120, seed=1)
    index = build([evals_of(*texts)])
    whole = index.find(messages, WIDE)
    assert len(whole) > 100
    monkeypatch.setattr(index_module, "ROOM", room)
    monkeypatch.setattr(index_module, "LAST_STAMP", 500)
    assert index.find(messages, WIDE) == whole
    singly = [hit._replace(message=m) for m, text in enumerate(messages) for hit in index.find([text], WIDE)]
    assert singly == whole
    with ThreadPoolExecutor(3) as threads:
        assert all(found == whole for found in threads.map(lambda _: index.find(messages, WIDE), range(6)))


def test_two_indexes_in_one_thread_do_not_mix() -> None:
    one, two = build([evals_of(CAT)]), build([evals_of(SHIP, COOK)])
    for _ in range(2):
        assert [hit.inst for hit in one.find([CAT, SHIP], DEFAULT)] == [0]
        assert [hit.inst for hit in two.find([CAT, SHIP], DEFAULT)] == [0]


@pytest.mark.parametrize("evals", [[], [evals_of()], [evals_of("", "a b", ("x", None))]])
def test_evals_without_a_seed_find_nothing(evals: list[EvalSet], tmp_path: Path) -> None:
    build(evals).save(tmp_path / "near")
    index = NearIndex.load(tmp_path / "near")
    assert index.find([CAT, ""], WIDE) == index.find([], WIDE) == []


# -- time --


def cpu_s(index: NearIndex, message: str) -> float:
    index.find([CAT], WIDE)  # compiled by now
    start = time.thread_time()
    index.find([message], WIDE)
    return time.thread_time() - start


LONG = {
    "random words": lambda rng: " ".join(f"w{rng.randrange(50_000)}" for _ in range(150_000)),
    "the same shingles over and over": lambda rng: " ".join(CAT.split()[:5] * 42_000),
    "an instance at each end": lambda rng: " ".join(
        [CAT[:60], *(f"w{rng.randrange(9)}" for _ in range(333_000)), CAT[30:]]
    ),
    "worn copies": lambda rng: " ".join(" ".join(w for w in CAT.split() if rng.random() < 0.7) for _ in range(14_000)),
    "one word": lambda rng: "x" * 1_000_000,
    "no ASCII": lambda rng: "Ж中🙂É " * 250_000,
    "separators": lambda rng: ' ,.?!:;()"-\n\\' * 77_000,
}


@pytest.mark.parametrize("kind", LONG)
def test_a_message_of_a_megabyte_takes_less_than_a_second(kind: str) -> None:
    message = LONG[kind](random.Random(3))
    assert len(message.encode()) > 900_000
    index = build([evals_of(*TEXTS)])
    assert min(cpu_s(index, message) for _ in range(2)) < 1


def test_a_long_instance_takes_no_minutes() -> None:
    rng = random.Random(5)
    words = [f"w{rng.randrange(9_000)}" for _ in range(3_500)]
    worn = [word if rng.random() > 0.15 else "other" for word in words]
    index = build([evals_of(" ".join(words))])  # 20,000 characters; partial_ratio alone takes minutes here
    assert min(cpu_s(index, " ".join([*"ab" * 9000, *worn, *"cd" * 9000])) for _ in range(2)) < 4


def test_the_specification_agrees_on_a_long_message() -> None:
    rng = random.Random(4)
    message = " ".join(" ".join(w for w in CAT.split() if rng.random() < 0.8) for _ in range(200))
    (hit,) = find(message, *TEXTS)
    from decontam.reference_near import seeds_of

    same = near(CAT, seeds_of(TEXTS)[0], message)
    assert same is not None
    assert hit.score == same.score
