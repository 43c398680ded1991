"""Prompts and their rollouts: each once in an epoch, none cut, and never older than one iteration."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import DataError, UsageError
from evalsuite.trainers import parse
from tests.train_plugins.rlvr.made import GRPO, Letters, job_in, rows, spread
from train_plugins.chat import load_tokenizer
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.prompts import PromptOrder, prompt_ids, read_prompts, read_rows
from train_plugins.rlvr.rewarding import check_rows
from train_plugins.rlvr.rollouts import Batch, Prompt, Request, Response, Reward, sample_seed
from train_plugins.rlvr.sources import Source, score_of
from train_plugins.worker import Run


@given(n=st.integers(1, 40), per=st.integers(1, 40), seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_every_prompt_comes_once_in_an_epoch(n: int, per: int, seed: int) -> None:
    order = PromptOrder(n, per, [(0, seed)])
    asked = [number for iteration in range(1, -(-3 * n // per) + 1) for number in order.numbers(iteration)]
    for epoch in range(3):
        assert sorted(asked[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(n=st.integers(2, 30), per=st.integers(1, 12), back=st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_another_seed_from_an_iteration_on_keeps_what_was_and_repeats_no_prompt(n: int, per: int, back: int) -> None:
    plain, other = PromptOrder(n, per, [(0, 1)]), PromptOrder(n, per, [(0, 1), (back, 2)])
    asked: list[list[int]] = [[], []]
    for iteration in range(1, back + 2 * n // per + 3):
        for order, told in zip((plain, other), asked, strict=True):
            told += order.numbers(iteration)
    assert asked[0][: back * per] == asked[1][: back * per]
    for epoch in range(len(asked[1]) // n):
        assert sorted(asked[1][epoch * n : (epoch + 1) * n]) == list(range(n))


@given(n=st.integers(2, 30), per=st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_the_first_prompts_may_be_asked_twice_and_the_others_follow(n: int, per: int) -> None:
    once, twice = PromptOrder(n, per, [(0, 1)]), PromptOrder(n, per, [(0, 1)], first_twice=True)
    assert [twice.numbers(k) for k in range(1, 9)] == [once.numbers(k) for k in (1, 1, 2, 3, 4, 5, 6, 7)]
    again = PromptOrder(n, per, [(0, 1), (1, 0)], first_twice=True)  # rolled back to the first iteration
    assert [again.numbers(k) for k in (1, 2)] == [once.numbers(1)] * 2
    assert sorted([*again.numbers(2), *(i for k in range(3, n + 3) for i in again.numbers(k))][:n]) == list(range(n))


def test_orders_differ_by_seed_and_epoch() -> None:
    first = [PromptOrder(30, 30, [(0, seed)]).numbers(i) for seed in (1, 2) for i in (1, 2)]
    assert len(set(first)) == 4


def test_seeds_of_samples_are_a_function_of_what_is_drawn() -> None:
    request = Request(1, 2, (7, 3), ((1,), (2,)), 2)
    assert request.sample_seeds() == [sample_seed(1, 2, number, s) for number, s in ((7, 0), (7, 1), (3, 0), (3, 1))]
    different = {sample_seed(*key) for key in ((1, 2, 7, 0), (2, 2, 7, 0), (1, 3, 7, 0), (1, 2, 8, 0), (1, 2, 7, 1))}
    assert len(different) == 5
    assert all(0 <= seed < 2**63 for seed in different)


# -- reading rows --


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spread(tmp_path_factory.mktemp("start") / "tiny")


def run_of(out: Path, start: Path, **options: Any) -> Run:
    job = job_in(out, start, GRPO, **options)
    return Run(job, parse(RLVROptions, job.options, "options"))


def test_a_prompt_is_the_conversation_and_the_header_of_the_answer(start: Path) -> None:
    tokenizer = load_tokenizer(start, "tulu")
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "ab"}])
    assert tokenizer.decode(list(ids)) == "<|user|>\nab\n<|assistant|>\n"
    assert len(ids) == 1 + 1 + 2 + 1 + 1 + 1


def test_long_prompts_are_dropped_and_counted_and_numbers_stay_those_of_the_rows(start: Path, tmp_path: Path) -> None:
    """7 tokens for a word of two letters: words of at most 4 letters fit 9."""
    content = rows(30)
    run = run_of(tmp_path / "out", start, content=content, prompt_tokens=9)
    prompts = read_prompts(run, load_tokenizer(start, "tulu"), read_rows(run))
    fitting = [i for i, row in enumerate(content) if len(row["ground_truth"]) <= 4]
    assert [prompt.number for prompt in prompts] == fitting
    assert 4 < len(fitting) < 30
    assert [prompt.id for prompt in prompts] == [f"r{i}" for i in fitting]
    assert prompts[0].label == content[fitting[0]]["ground_truth"]
    warning = next(event for event in run.events if event["kind"] == "warning")
    text = f"{30 - len(fitting)} of 30 prompts are longer than 9 tokens and were dropped; the longest has 12"
    assert (warning["code"], warning["text"]) == ("overlong", text)


def test_fewer_prompts_than_an_iteration_asks_are_refused(start: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "out", start, content=rows(10), prompt_tokens=3)
    # 7 tokens for a word of two letters, one more for each letter: what the fourth of the shortest ones needs
    enough = sorted(len(row["ground_truth"]) + 5 for row in rows(10))[3]
    told = f"0 of 10 prompts have at most 3 tokens, an iteration asks 4; raise prompt_tokens (to {enough} at least) or"
    with pytest.raises(DataError, match=re.escape(told)):
        read_prompts(run, load_tokenizer(start, "tulu"), read_rows(run))
    few = run_of(tmp_path / "few", start, content=rows(3))
    with pytest.raises(DataError, match="the data has 3 prompts, an iteration asks 4; lower prompts_per_iteration"):
        read_prompts(few, load_tokenizer(start, "tulu"), read_rows(few))


def test_responses_beyond_the_positions_of_the_model_are_told(start: Path, tmp_path: Path) -> None:
    content = rows(4)
    longest = max(len(row["ground_truth"]) for row in content) + 5
    for n, told in ((512 - longest, []), (513 - longest, ["window"])):  # 512 positions
        run = run_of(tmp_path / str(n), start, content=content, response_tokens=n)
        read_prompts(run, load_tokenizer(start, "tulu"), read_rows(run))
        assert [event["code"] for event in run.events if event["kind"] == "warning"] == told


def test_rows_may_name_what_only_the_options_know(start: Path, tmp_path: Path) -> None:
    """A name of the recipe's own, and one whose usual labels are numbers, both rewarded by `exact`."""
    content = [{**row, "dataset": name} for row, name in zip(rows(4), ("mine", "gsm8k") * 2, strict=True)]
    run = run_of(tmp_path / "out", start, content=content)
    with pytest.raises(UsageError, match=r"no reward verifier named 'mine'.* \(2 rows, the first is row 1 \(r0\)\)"):
        check_rows(read_rows(run), {"gsm8k": "exact"})
    check_rows(read_rows(run), {"mine": "exact", "gsm8k": "exact"})
    prompts = read_prompts(run, load_tokenizer(start, "tulu"), read_rows(run))
    assert [prompt.dataset for prompt in prompts] == ["mine", "gsm8k"] * 2


# -- where batches come from --


class Writer:
    """Writes in a thread, after a random delay, with the weights that came with the request. `lose`: the iteration
    whose weights do not arrive."""

    def __init__(self, seed: int, lose: int = -1) -> None:
        self.rng, self._lose = random.Random(seed), lose
        self.requests: list[Request] = []
        self.version = 0
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[tuple[int, list[Response], Mapping[str, float]]] | None = None

    def ask(self, request: Request, version: int) -> None:
        assert self._pending is None, "a second request while one is under way"
        if request.iteration != self._lose:
            self.version = version
        self.requests.append(request)
        self._pending = self._pool.submit(self._write, request, self.rng.random() * 2e-3)

    def answer(self) -> tuple[int, list[Response], Mapping[str, float]]:
        assert self._pending is not None
        pending, self._pending = self._pending, None
        return pending.result()

    def _write(self, request: Request, delay_s: float) -> tuple[int, list[Response], Mapping[str, float]]:
        version = self.version
        time.sleep(delay_s)
        assert version == self.version, "weights changed while responses were written"
        return version, [Response((7, 2), (-1.0, -1.0), True)] * len(request.sample_seeds()), {}

    def close(self) -> None:
        self._pool.shutdown()


def source_of(writer: Writer, mode: str, iterations: int = 200) -> tuple[Any, Source]:
    options = parse(RLVROptions, {**GRPO, "mode": mode, "iterations": iterations}, "options")
    ranks = SimpleNamespace(agree=lambda value: value)
    run: Any = SimpleNamespace(options=options, shuffles=[(0, 5)], step_now=0, is_main=True, ranks=ranks)
    prompts = [Prompt(10 + i, str(i), (3, i), "exact", "", {}) for i in range(11)]
    tokenizer = SimpleNamespace(batch_decode=lambda ids, skip_special_tokens: ["a "] * len(ids))
    rewarder: Any = Letters()
    return run, Source(run, prompts, tokenizer, writer, rewarder)


def taken(writer: Writer, mode: str, iterations: int = 200) -> list[Batch]:
    run, source = source_of(writer, mode, iterations)
    found = []
    for iteration in range(1, iterations + 1):
        found.append(source.take(iteration))
        time.sleep(writer.rng.random() * 2e-3)  # the learner's updates
        run.step_now = iteration
    source.close()
    return found


@pytest.mark.parametrize(("mode", "staleness"), [("sync", 0), ("async", 1)])
def test_batches_are_written_by_the_newest_weights_that_there_may_be(mode: str, staleness: int) -> None:
    writer = Writer(0)
    for batch in taken(writer, mode):
        assert batch.version == max(0, batch.iteration - 1 - staleness)
    assert [request.iteration for request in writer.requests] == list(range(1, 201))


def test_both_modes_ask_the_same_prompts_with_the_same_seeds_and_each_once_an_epoch() -> None:
    writers = {mode: Writer(1) for mode in ("sync", "async")}
    for mode, writer in writers.items():
        taken(writer, mode)
    sync, ahead = (writer.requests for writer in writers.values())
    assert sync == ahead
    asked = [number for request in sync for number in request.numbers]
    for epoch in range(len(asked) // 11):
        assert Counter(asked[epoch * 11 : (epoch + 1) * 11]) == Counter(range(10, 21))


def test_rollouts_that_are_too_old_are_a_bug() -> None:
    """The third request is written by the weights of the second, which ran one behind already."""
    with pytest.raises(AssertionError, match="iteration 4 was given rollouts of version 1: 2 too old"):
        taken(Writer(0, lose=4), "async", 6)


def test_responses_go_to_the_prompts_that_were_asked(start: Path) -> None:
    batch = taken(Writer(0), "sync", 1)[0]
    assert [r.sample for r in batch.rollouts] == [0, 1, 2] * 4
    numbers = [r.prompt.number for r in batch.rollouts]
    assert numbers == [n for n in dict.fromkeys(numbers) for _ in range(3)]
    assert {r.text for r in batch.rollouts} == {"a"}  # stripped


SCORES = [
    # verified values, ended, penalty, the score with a reward of 10
    ({"a": 1.0}, True, -10.0, 10.0),
    ({"a": 1.0, "b": 0.5}, True, -10.0, 15.0),  # several verifiers add up
    ({"a": 1.0}, False, -10.0, -10.0),  # replaced, whatever the verifier said
    ({"a": 1.0}, False, 0.0, 0.0),
    ({"a": 1.0}, False, None, 10.0),
    ({"a": 0.0}, True, -10.0, 0.0),
]


@pytest.mark.parametrize(("values", "ended", "penalty", "expected"), SCORES)
def test_the_score_of_a_response(
    values: Mapping[str, float], ended: bool, penalty: float | None, expected: float
) -> None:
    options = parse(RLVROptions, {**GRPO, "eos_penalty": penalty}, "options")
    assert score_of(options, Reward(values), Response((1,), (0.0,), ended)) == expected
