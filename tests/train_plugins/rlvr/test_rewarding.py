"""Rewards: in this process and in a real pool, with verifiers that raise, hang, die and lie."""

from __future__ import annotations

import copy
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import DataError, UsageError
from tests.train_plugins.rlvr.verifiers import HERE
from train_plugins.rlvr.rewarding import Item, Rewarder, check_rows, error_share, names_of, refuse_errors
from train_plugins.rlvr.rollouts import Reward

ROOT = Path(__file__).resolve().parents[3]
ROW = {"id": "a", "messages": [{"role": "user", "content": "say yes"}], "ground_truth": "yes", "dataset": "d"}


def items(*texts: str, dataset: Any = "bad") -> list[Item]:
    return [(dataset, text, ROW) for text in texts]


@pytest.fixture
def bad() -> Iterator[Rewarder]:
    with Rewarder({}, ["bad"], workers=2, timeout_s=0.6, finder=HERE) as rewarder:
        yield rewarder


# -- which verifiers a row names --


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("gsm8k", ("rlvr_gsm8k",)),
        ("other", ("other",)),
        ("gsm8k, other", ("rlvr_gsm8k", "other")),
        (["gsm8k", "ifeval"], ("rlvr_gsm8k", "ifeval_old")),
        ("both", ("rlvr_gsm8k", "other")),
        ("gsm8k,gsm8k", ("rlvr_gsm8k",)),
        ("", ()),
    ],
)
def test_a_dataset_names_its_verifiers_through_the_mapping_or_itself(dataset: Any, names: tuple[str, ...]) -> None:
    mapping = {"gsm8k": "rlvr_gsm8k", "ifeval": "ifeval_old", "both": "rlvr_gsm8k, other"}
    assert names_of(dataset, mapping) == names


# -- before the first step --


def test_every_unknown_verifier_is_told_at_once_with_its_near_miss() -> None:
    rows: list[dict[str, Any]] = [{**ROW, "dataset": name} for name in ("equal", "eqaul", "eqaul", "halv", "equal")]
    rows[4]["ground_truth"] = 7
    own = "; one of your own is found by options.benchmarks"
    with pytest.raises(UsageError) as error:
        check_rows(rows, {"x": "badd"}, finder=HERE)
    assert str(error.value).splitlines() == [
        "no verifier named 'badd'; did you mean 'bad'? (in options.verifiers)",
        "no verifier named 'eqaul'; did you mean 'equal'? (2 rows, the first is row 2 (a))",
        "no verifier named 'halv'; did you mean 'half'? (1 row, the first is row 4 (a))" + own,
        "1 label that a verifier cannot use:",
        "row 5 (a): ground_truth is 7; equal expects a text, not 7",
    ]


def test_labels_that_a_verifier_cannot_use_are_counted_and_the_first_rows_named() -> None:
    rows = [{**ROW, "id": str(n), "dataset": "equal", "ground_truth": "yes" if n % 2 else n} for n in range(60)]
    with pytest.raises(DataError) as error:
        check_rows(rows, {}, finder=HERE)
    lines = str(error.value).splitlines()
    assert lines[0] == "30 labels that a verifier cannot use:"
    assert lines[1] == "row 1 (0): ground_truth is 0; equal expects a text, not 0"
    assert lines[2] == "row 3 (2): ground_truth is 2; equal expects a text, not 2"
    assert lines[-1] == "and 10 more rows"


def test_good_rows_pass_and_a_rewarder_for_unknown_names_is_not_made() -> None:
    check_rows([{**ROW, "dataset": "equal"}, {**ROW, "dataset": "d"}], {"d": "half"}, finder=HERE)
    with pytest.raises(UsageError, match="no verifier named 'halve'; did you mean 'half'"):
        Rewarder({}, ["equal", "halve"], finder=HERE)


# -- rewards --


def test_rewards_come_in_order_from_this_process_and_from_the_pool_alike() -> None:
    texts = ["yes", "no"] * 40
    with Rewarder({}, ["equal", "slow_equal"], workers=2, finder=HERE) as rewarder:
        here, there = (rewarder(items(*texts, dataset=name)) for name in ("equal", "slow_equal"))
    assert [reward.total for reward in here] == [reward.total for reward in there] == [1.0, 0.0] * 40
    assert there[1] == Reward({"slow_equal": 0.0}, "not equal")


def test_several_verifiers_of_a_row_add_up_and_each_gets_its_own_label() -> None:
    with Rewarder({}, ["equal,half"], workers=1, finder=HERE) as rewarder:
        right, wrong = rewarder(items("yes", "no", dataset="equal,half"))
        (own,) = rewarder([(["equal", "half"], "yes", {**ROW, "ground_truth": ["yes", "another"]})])
    assert right.values == own.values == {"equal": 1.0, "half": 0.5}
    assert right.total == 1.5
    assert wrong == Reward({"equal": 0.0, "half": 0.5}, "equal: not equal")


def test_a_row_is_the_same_after_a_verifier_that_takes_its_label_out() -> None:
    before = copy.deepcopy(ROW)
    with Rewarder({}, ["taking"], workers=1, finder=HERE) as rewarder:
        first, second = rewarder(items("yes", "yes", dataset="taking"))
        (third,) = rewarder(items("yes", dataset="taking"))
    assert first.total == second.total == third.total == 1.0
    assert before == ROW


def test_what_raises_or_is_no_score_is_zero_with_the_reason_and_the_rest_goes_on(bad: Rewarder) -> None:
    found = bad(items("yes", "raise", "two", "nan", "quit", "print", "no", "yes"))
    assert [reward.total for reward in found] == [1, 0, 0, 0, 0, 0, 0, 1]
    assert [reward.failed for reward in found] == [False, True, True, True, True, False, False, False]
    assert [reward.why for reward in found[1:5]] == [
        "ValueError: no such luck", "the value is 2.0; expected 0 to 1", "the value is nan; expected 0 to 1",
        "SystemExit: 0",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["sleep", "regex"])
def test_a_call_that_hangs_is_a_timeout_and_nobody_else_loses_by_it(bad: Rewarder, text: str) -> None:
    bad(items("yes"))  # the processes are there
    began = time.monotonic()
    found = bad(items(*["yes"] * 30, text, *["yes"] * 30, text))
    assert time.monotonic() - began < 30
    assert [n for n, reward in enumerate(found) if reward.failed] == [30, 61]
    assert found[30] == found[61] == Reward({"bad": 0.0}, "timeout", failed=True)
    assert sum(reward.total for reward in found) == 60


def test_a_process_that_is_killed_is_replaced_and_its_call_repeated(bad: Rewarder) -> None:
    (first,) = bad(items("pid"))
    assert bad._pool is not None
    for pid in bad._pool.pids:
        os.kill(pid, signal.SIGKILL)
    (second,) = bad(items("pid"))
    assert not second.failed
    assert second.why != first.why


def test_a_call_that_kills_its_process_is_repeated_once_and_then_failed(bad: Rewarder) -> None:
    found = bad(items("yes", "die", "yes"))
    assert [reward.total for reward in found] == [1, 0, 1]
    assert found[1].why == "the verifying process died, twice (exit code 9)"
    assert found[1].failed


def test_verifying_goes_on_while_the_caller_does_something_else(bad: Rewarder) -> None:
    bad(items("yes"))
    several = [bad.submit(items("yes", "no")) for _ in range(3)]
    until = time.monotonic() + 20
    while not all(each.done() for each in several) and time.monotonic() < until:
        time.sleep(0.01)
    assert [each.done() for each in several] == [True] * 3
    assert [reward.total for each in several for reward in each.result()] == [1, 0] * 3


def test_a_text_that_is_long_goes_to_the_pool_even_where_its_verifier_is_cheap() -> None:
    with Rewarder({}, ["bad_cheap"], workers=1, timeout_s=0.5, finder=HERE) as rewarder:
        assert rewarder._pool is None
        assert rewarder(items("pid", dataset="bad_cheap"))[0].why == str(os.getpid())
        assert rewarder(items("x" * 50_001, dataset="bad_cheap"))[0].total == 0
        assert rewarder._pool is not None


def test_the_processes_of_the_pool_load_no_heavy_library() -> None:
    with Rewarder({}, ["modules"], workers=1, finder=HERE) as rewarder:
        assert rewarder(items("x", dataset="modules")) == [Reward({"modules": 1.0})]


def test_a_pool_whose_verifiers_do_not_load_says_so_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_PARENT", str(os.getpid()))
    with Rewarder({}, ["half"], workers=2, finder=HERE.replace(":find", ":find_nothing")) as rewarder:
        for _ in range(2):
            with pytest.raises(UsageError, match="half does not load here"):
                rewarder(items("x", dataset="half"))


# -- nothing is left behind --


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/stat").exists()]


def test_close_ends_all_processes_also_those_that_hang() -> None:
    rewarder = Rewarder({}, ["bad"], workers=2, timeout_s=60, finder=HERE)
    rewarder(items("yes"))
    waiting = rewarder.submit(items("regex", "sleep"))
    assert rewarder._pool is not None
    pids = rewarder._pool.pids
    assert len(alive(pids)) == 2
    rewarder.close()
    rewarder.close()
    assert alive(pids) == []
    assert waiting.done()


PROGRAM = f"""
import time
from tests.train_plugins.rlvr.verifiers import HERE
from train_plugins.rlvr.rewarding import Rewarder
ROW = {ROW!r}
rewarder = Rewarder({{}}, ["bad"], workers=2, timeout_s=1.0, finder=HERE)
rewarder([("bad", "yes", ROW)])
waiting = rewarder.submit([("bad", "sleep", ROW), ("bad", "regex", ROW)])
time.sleep(0.2)
print(*rewarder._pool.pids, flush=True)
waiting.result()
time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_pool_whose_parent_is_interrupted_or_killed(how: signal.Signals) -> None:
    """An interrupt ends all at once; after SIGKILL nobody is left to do it, and the kernel's timer ends what hangs."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert pids
        parent.send_signal(how)
        parent.wait(20)
    until = time.monotonic() + 20
    while alive(pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(pids) == []


# -- what failed --


def test_more_failures_than_are_allowed_stop_the_run_and_name_verifier_count_and_reason() -> None:
    good, failed = Reward({"a": 1.0}), Reward({"b": 0.0}, "timeout", failed=True)
    other = Reward({"b": 0.0}, "ValueError: x", failed=True)
    assert error_share([]) == 0.0
    assert error_share([good] * 99 + [failed]) == 0.01
    refuse_errors([good] * 99 + [failed], 0.01)
    refuse_errors([], 0.0)
    with pytest.raises(UsageError) as error:
        refuse_errors([*[good] * 98, failed, other], 0.01)
    assert str(error.value) == (
        "verifiers failed on 2.0% of 100 responses (at most 1.0%, options.max_verifier_errors): "
        "b 2 times, the first: timeout"
    )


# -- cost --


def test_128_cheap_responses_cost_less_than_five_milliseconds() -> None:
    rewarder = Rewarder({}, ["equal"], finder=HERE)
    batch = items(*["yes", "no"] * 64, dataset="equal")
    took = []
    for _ in range(7):
        began = time.process_time()
        rewarder(batch)
        took.append(time.process_time() - began)
    assert statistics.median(took) < 0.005


def test_importing_loads_no_heavy_library() -> None:
    code = "import sys, train_plugins.rlvr.rewarding; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.sub(r"\s", "", found.stdout) == "[]"
