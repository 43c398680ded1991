"""The two-phase scorer against a made-up engine whose cached rows are garbage, as vLLM's are."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import EngineCrash
from evalsuite.models.encoding import EncodedDoc
from evalsuite.models.vllm.engine import Engine
from evalsuite.models.vllm.loglik import Ask, TokenScorer, chunks, plan, touched
from evalsuite.types import Failed, LogLikelihood

VOCABULARY = 300
GARBAGE = 12345.0
BLOCK = 4


def logprob(before: Sequence[int], token: int) -> float:
    """A "model": any deterministic number for a token after others."""
    return -blake2b(bytes(str((*before, token)), "ascii"), digest_size=2).digest()[0] / 16 - 0.01


def argmax(before: Sequence[int]) -> int:
    return before[-1] % 7


class MadeUpEngine:
    """Answers like `Engine`, in any order, with a prefix cache of four-token blocks."""

    has = frozenset({"logprob_token_ids", "skip_reading_prefix_cache"})
    vocab_size = VOCABULARY
    kv_tokens = 4000

    def __init__(self, seed: int = 0, value: Any = logprob) -> None:
        self.waiting: list[tuple[Any, list[int], dict[str, Any]]] = []
        self.cache: set[tuple[int, ...]] = set()
        self.n_computed = self.n_resets = 0
        self.random = random.Random(seed)
        self.value = value

    @property
    def n_waiting(self) -> int:
        return len(self.waiting)

    def add(self, key: Any, ids: Sequence[int], **parameters: Any) -> None:
        assert len(parameters.get("logprob_token_ids", ())) <= 128
        self.waiting.append((key, list(ids), parameters))

    def step(self) -> Iterator[tuple[Any, Any]]:
        n = self.random.randint(1, len(self.waiting))
        taken = [self.waiting.pop(self.random.randrange(len(self.waiting))) for _ in range(n)]
        return iter([(key, self.answer(ids, parameters)) for key, ids, parameters in taken])

    def answer(self, ids: list[int], parameters: dict[str, Any]) -> Any:
        rows_wanted = "prompt_logprobs" in parameters
        n_cached = 0
        if not (rows_wanted and parameters.get("skip_reading_prefix_cache", True)):
            while n_cached + BLOCK < len(ids) and tuple(ids[: n_cached + BLOCK]) in self.cache:
                n_cached += BLOCK
        self.cache |= {tuple(ids[:end]) for end in range(BLOCK, len(ids) + 1, BLOCK)}
        self.n_computed += len(ids) - n_cached
        rows: list[Any] = [None]
        for i in range(1, len(ids)):
            good = SimpleNamespace(logprob=self.value(ids[:i], ids[i]), rank=1 + (argmax(ids[:i]) != ids[i]))
            rows.append({ids[i]: good if n_cached <= i - 1 else SimpleNamespace(logprob=GARBAGE, rank=1)})
        asked = parameters.get("logprob_token_ids", [])
        following = {t: SimpleNamespace(logprob=self.value(ids, t), rank=k + 1) for k, t in enumerate(asked)}
        output = SimpleNamespace(token_ids=[argmax(ids)], logprobs=[following])
        return SimpleNamespace(
            num_cached_tokens=n_cached, prompt_logprobs=rows if rows_wanted else None, outputs=[output]
        )

    def reset_cache(self) -> None:
        assert not self.waiting
        self.n_resets += 1
        self.cache.clear()

    def cancel(self) -> None:
        self.waiting.clear()


def expected(doc: EncodedDoc) -> tuple[LogLikelihood, ...]:
    found = []
    for option in doc.option_ids:
        values, greedy = [], True
        for i, token in enumerate(option):
            before = doc.context_ids + option[:i]
            values.append(logprob(before, token))
            greedy &= argmax(before) == token
        found.append(LogLikelihood(math.fsum(values), greedy, len(option)))
    return tuple(found)


def check(engine: MadeUpEngine, docs: Sequence[EncodedDoc], **attributes: Any) -> TokenScorer:
    scorer = TokenScorer(cast("Engine", engine), 2048)
    for name, value in attributes.items():
        setattr(scorer, name, value)
    found = dict(scorer.score(list(enumerate(docs))))
    assert sorted(found) == list(range(len(docs)))
    for index, doc in enumerate(docs):
        result = found[index]
        assert not isinstance(result, Failed)
        for ours, truth in zip(result, expected(doc), strict=True):
            assert ours.total == pytest.approx(truth.total, abs=1e-5)
            assert (ours.greedy, ours.n_tokens) == (truth.greedy, truth.n_tokens)
    return scorer


TOKENS = st.integers(0, 9)  # few, so that options and contexts share beginnings
OPTION = st.lists(TOKENS, min_size=1, max_size=9).map(tuple)
DOC = st.builds(
    lambda n, tail, common, options: EncodedDoc(
        (*range(10, 10 + n), *tail), tuple((*common, *option) for option in options)
    ),
    st.integers(0, 13),
    st.lists(TOKENS, min_size=1, max_size=5).map(tuple),
    st.lists(TOKENS, max_size=6).map(tuple),
    st.lists(OPTION, min_size=1, max_size=6),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(DOC, min_size=1, max_size=12), st.integers(0, 5), st.sampled_from([4000, 20]))
def test_totals_are_those_of_every_option_alone_whatever_is_cached(docs: list[EncodedDoc], seed: int, kv: int) -> None:
    engine = MadeUpEngine(seed)
    engine.kv_tokens = kv
    check(engine, docs)
    check(MadeUpEngine(seed), docs, two_phases=False)


def test_the_guard_repeats_a_request_whose_rows_came_from_the_cache() -> None:
    # Context of 8 tokens = 2 blocks; all options begin with token 5, so its row must be computed. The second document
    # finds both blocks cached: its row of token 5 would be garbage.
    doc = EncodedDoc(tuple(range(8)), ((5, 1), (5, 2)))
    engine = MadeUpEngine()
    engine.cache = {doc.context_ids[:4], doc.context_ids}
    engine.reset_cache = lambda: None  # type: ignore[method-assign]
    assert check(engine, [doc]).n_guarded == 1
    assert check(MadeUpEngine(), [doc]).n_guarded == 0
    # One letter each: nothing of the context is read as a prompt row, so a warm cache is no trouble.
    letters = EncodedDoc(tuple(range(8)), ((1,), (2,)))
    assert check(engine, [letters]).n_guarded == 0


def test_one_phase_needs_the_guard_at_every_block_multiple() -> None:
    # What a single phase does wrong without the guard: engines.md saw 120 of 160 sums wrong.
    docs = [EncodedDoc(tuple(range(8)), tuple((i, 1, 2) for i in range(4)))]
    assert check(MadeUpEngine(), docs, two_phases=False).n_guarded > 0
    assert check(MadeUpEngine(), docs).n_guarded == 0


def test_a_shared_prefix_is_computed_once() -> None:
    prefix = tuple(range(10, 210))
    docs = [EncodedDoc((*prefix, i, i), ((1, 2, 3), (2,), (3,), (4,))) for i in range(9)]
    engine = MadeUpEngine()
    check(engine, docs)
    plain = sum(len(doc.context_ids + option) for doc in docs for option in doc.option_ids)
    assert engine.n_computed < plain / 20  # 7,200+ tokens one by one; ours: 200 once, then a block or two per request


def test_plan_asks_for_letters_in_one_request_and_for_stems_once() -> None:
    letters = EncodedDoc((1,), ((5,), (6,), (5,)))
    assert plan(letters) == ([Ask((), (5, 6), 0)], [])
    chat_letters = EncodedDoc((1,), ((9, 5), (9, 6)))
    assert plan(chat_letters) == ([Ask((9,), (5, 6), 0)], [])
    mixed = EncodedDoc((1,), ((5, 7, 8), (5, 7, 9), (6,)))
    assert plan(mixed) == ([Ask((), (5, 6), 0)], [Ask((5, 7), (8, 9), 1)])
    assert plan(EncodedDoc((1,), ((5, 7, 8),))) == ([Ask((5, 7), (8,), 0)], [])
    many = EncodedDoc((1,), tuple((i, 1) for i in range(200)))
    first, later = plan(many)
    assert [len(ask.tokens) for ask in first] == [128, 72]
    assert len(later) == 200
    check(MadeUpEngine(), [many])


def test_what_cannot_be_scored_says_why() -> None:
    scorer = TokenScorer(cast("Engine", MadeUpEngine()), 10)
    docs: list[EncodedDoc | Failed] = [
        EncodedDoc((1,) * 9, ((1,), (1, 2))),  # 9 + 2 - 1 = 10 positions: fits
        EncodedDoc((1,) * 9, ((1,), (1, 2, 3))),
        EncodedDoc((1, VOCABULARY), ((1,),)),
        EncodedDoc((1,), ()),
        Failed("option 1 of 1 ('') has no tokens of its own"),
    ]
    found = dict(scorer.score(list(enumerate(docs))))
    assert not isinstance(found[0], Failed)
    assert [cast("Failed", found[i]).why for i in range(1, 5)] == [
        "context of 9 tokens and longest option of 3 need 11 positions; the model's window is 10",
        "token 300 is outside the model's vocabulary of 300",
        "no options",
        "option 1 of 1 ('') has no tokens of its own",
    ]
    cut = scorer.cut(cast("EncodedDoc", docs[1]))
    assert cut == EncodedDoc((1,) * 8, ((1,), (1, 2, 3)))
    assert scorer.cut(cast("EncodedDoc", docs[0])) == docs[0]


def test_three_documents_in_a_row_without_a_number_stop_the_run() -> None:
    docs = [EncodedDoc((i,), ((1,), (2,))) for i in range(1, 6)]
    broken = TokenScorer(cast("Engine", MadeUpEngine(value=lambda before, token: math.nan)), 10)
    with pytest.raises(EngineCrash, match="three documents in a row: the weights or the dtype are broken"):
        list(broken.score(list(enumerate(docs))))
    once = TokenScorer(cast("Engine", MadeUpEngine(value=lambda b, t: -math.inf if b[0] in (1, 3) else -1.0)), 10)
    found = dict(once.score(list(enumerate(docs))))
    assert found[0] == Failed("the log-probability of option 1 of 2 is not a number")
    assert [isinstance(found[i], Failed) for i in range(5)] == [True, False, True, False, False]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 400)), max_size=60), st.sets(st.integers(0, 59)))
def test_groups_cover_everything_once_and_do_not_depend_on_what_is_wanted(
    sizes: list[tuple[str, int]], wanted: set[int]
) -> None:
    groups = chunks(sizes, 8, 500)
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    assert all(len(group) <= 8 for group in groups)
    assert all(len(group) == 1 or sum(sizes[i][1] for i in group) <= 500 for group in groups)
    assert [sizes[i][0] for group in groups for i in group] == sorted(key for key, _ in sizes)
    some = touched(groups, frozenset(wanted))
    assert set(some) <= set(groups)
    assert {i for group in some for i in group} >= wanted & set(range(len(sizes)))
