"""What goes wrong is told once, and a collapse ends the run with the number, the limit and where to go back to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from evalsuite.errors import TrainerFailed
from train_plugins.rlvr.options import GapLimits
from train_plugins.rlvr.rollouts import Prompt, Response, Reward, Rollout
from train_plugins.rlvr.watch import STYLE, Watch, drifts, repeated, style

STEADY: Mapping[str, float] = {"length": 20, "length_p95": 30, "finished": 0.9, "repeated": 0.1, "distinct": 0.9}


class FakeRun:
    """Warnings and events of a run, and nothing else of it."""

    def __init__(self, saved: bool = True, **options: Any) -> None:
        limits = {"kl_stop": None, "entropy_stop": None, "score_stop": None, "gap_limits": GapLimits(), **options}
        self.options, self.step_now = SimpleNamespace(**limits), 9
        path = "checkpoints/step-000006"
        self.events = [{"kind": "checkpoint", "path": path}] if saved else []
        self.warnings: list[tuple[str, str]] = []

    def warn(self, code: str, text: str) -> None:
        self.warnings.append((code, text))

    @property
    def codes(self) -> list[str]:
        return [code for code, _ in self.warnings]


def watch_of(run: Any, memory: Mapping[str, Any] | None = None) -> Watch:
    return Watch(run, memory)


def look(watch: Watch, score: float, skips: Sequence[bool] = (False,), **more: float) -> None:
    watch.look({**STEADY, "score": score, "entropy": 1.0, "kl": 0.1, "advantage_std": 1.0, **more}, skips)


# Each: what changes, whether it is beyond the limit, the code.
DRIFTS = [
    ({"length": 31}, "length_drift"),  # 1.5 times 20 is 30
    ({"length": 29}, None),
    ({"length": 13}, "length_drift"),  # 20 / 1.5 is 13.3
    ({"repeated": 0.31}, "repetition_drift"),
    ({"repeated": 0.29}, None),
    ({"distinct": 0.59}, "diversity_drift"),
    ({"distinct": 0.61}, None),
    ({"finished": 0.69}, "format_drift"),
    ({"finished": 0.71}, None),
]


@pytest.mark.parametrize(("changed", "code"), DRIFTS)
def test_each_drift_has_its_limit(changed: Mapping[str, float], code: str | None) -> None:
    assert [found for found, _ in drifts(STEADY, {**STEADY, **changed})] == ([code] if code else [])


@pytest.mark.parametrize(("later", "warned"), [(6.0, True), (4.0, False)])
def test_a_drift_is_told_once_and_only_where_the_score_rises(later: float, warned: bool) -> None:
    run = FakeRun()
    watch = watch_of(run)
    for _ in range(5):
        look(watch, 5.0)
    for i in range(12):
        look(watch, later + i * 0.01, length=60.0 + i)
    assert run.codes == (["length_drift"] if warned else [])
    if warned:
        # The first five averaged 20 and 5.00. Told as soon as the mean of the last five is beyond 30, in the
        # second look: (3 * 20 + 60 + 61) / 5 = 36.2, score (3 * 5 + 6.00 + 6.01) / 5 = 5.402.
        assert run.warnings[0][1].startswith("responses went from 20 to 36 tokens while the score rose from 5.00 to")


def test_memory_survives_a_resume() -> None:
    whole, parts = FakeRun(), FakeRun()
    one, watch = watch_of(whole), watch_of(parts)
    for i in range(14):
        facts = {"length": 20.0 + 3 * i, "repeated": 0.05 * i}
        look(one, float(i), [i % 5 == 4], **facts)
        look(watch, float(i), [i % 5 == 4], **facts)
        watch = watch_of(parts, json.loads(json.dumps(watch.memory)))
    assert watch.memory == one.memory
    assert parts.warnings == whole.warnings
    assert sorted(whole.codes) == ["length_drift", "repetition_drift"]


def test_advantages_that_hardly_differ_are_told_once() -> None:
    run = FakeRun()
    watch = watch_of(run)
    for _ in range(3):
        look(watch, 5.0, advantage_std=0.9e-3)
    assert run.codes == ["flat_rewards"]
    other = FakeRun()
    look(watch_of(other), 5.0, advantage_std=1.1e-3)
    assert not other.codes


STOPS: list[tuple[Mapping[str, Any], Mapping[str, float], str]] = [
    ({"kl_stop": 2.0}, {"kl": 2.1}, "KL is 2.1 per response (kl_stop 2.0)"),
    ({"entropy_stop": 0.2}, {"entropy": 0.19}, "entropy is 0.19 per token (entropy_stop 0.2)"),
]


@pytest.mark.parametrize(("options", "facts", "text"), STOPS)
def test_a_collapse_names_the_number_the_limit_and_the_last_good_checkpoint(
    options: Mapping[str, Any], facts: Mapping[str, float], text: str
) -> None:
    with pytest.raises(TrainerFailed) as error:
        look(watch_of(FakeRun(**options)), 5.0, (False,), **facts)
    assert str(error.value) == (
        f"{text} at iteration 9: the run collapsed; the last good checkpoint is checkpoints/step-000006; try a lower "
        "lr or a higher beta"
    )
    look(watch_of(FakeRun(**options)), 5.0, kl=1.9, entropy=0.21)  # within the limits


def test_a_run_that_saved_nothing_says_so() -> None:
    with pytest.raises(TrainerFailed, match="the last good checkpoint is the start, nothing was saved yet"):
        look(watch_of(FakeRun(saved=False, kl_stop=1.0)), 5.0, kl=3.0)


def test_a_score_that_falls_below_a_share_of_its_best_ends_the_run() -> None:
    """Means of five: 8, 6.8, 5.6, 4.4, 3.2. The limit is half of 8."""
    watch = watch_of(FakeRun(score_stop=0.5))
    for score in (8.0,) * 5 + (2.0,) * 3:
        look(watch, score)
    with pytest.raises(TrainerFailed, match=r"the mean score of 5 iterations fell to 3\.20, its best was 8\.00"):
        look(watch, 2.0)


def test_scores_below_nothing_are_no_collapse() -> None:
    """A start that never ends its responses has -10 everywhere, and goes up from there."""
    watch = watch_of(FakeRun(score_stop=0.5))
    for i in range(12):
        look(watch, -10.0 + 0.5 * i)


@pytest.mark.parametrize(
    ("skips", "ends"),
    [
        ([[True, True], [True]], True),
        ([[True, True, True]], True),
        ([[True, False], [True, False], [True, False], [True, False]], False),  # never two in a row
        ([[True, True], [False], [True, True]], False),
    ],
)
def test_three_updates_in_a_row_that_are_not_finite_end_the_run(skips: Sequence[Sequence[bool]], ends: bool) -> None:
    watch = watch_of(FakeRun())
    told = ""
    try:
        for each in skips:
            look(watch, 5.0, each)
    except TrainerFailed as error:
        told = str(error)
    assert told.startswith("3 updates in a row had a loss or gradient that is not finite") is ends


GAPS = [(0.01, 0.999, ""), (0.03, 0.999, "warn"), (0.01, 0.98, "warn"), (0.3, 0.999, "stop"), (0.01, 0.8, "stop")]


@pytest.mark.parametrize(("mean", "correlation", "then"), GAPS)
def test_a_gap_to_the_generator_warns_and_then_stops(mean: float, correlation: float, then: str) -> None:
    run = FakeRun()
    watch = watch_of(run)
    if then == "stop":
        with pytest.raises(TrainerFailed, match=r"generator and learner disagree .*limits 0\.2, 0\.9"):
            watch.gap(mean, correlation)
        with pytest.raises(TrainerFailed, match=r"correlation 0\.\d+, rollouts one iteration old;"):
            watch.gap(mean, correlation, 1)
    else:
        for _ in range(2):
            watch.gap(mean, correlation)
        assert run.codes == (["gap"] if then else [])


def test_the_style_of_responses_by_hand() -> None:
    """Prompt 1 was answered twice alike, prompt 2 by two different texts: 3 of 4 are distinct."""
    told = [(1, "a", (1, 2), True), (1, "a", (1, 2), True), (2, "a", (3,), True), (2, "b", (1,) * 7, False)]
    rollouts = [
        Rollout(Prompt(n, "", (), "", "", {}), 0, Response(ids, (0.0,) * len(ids), ended), text, Reward({}), 0.0)
        for n, text, ids, ended in told
    ]
    found = style(rollouts)
    assert tuple(found) == STYLE
    # 7 equal tokens have 4 4-grams, all alike: 3/4 were there before.
    assert found == {"length": 3.0, "length_p95": 7.0, "finished": 0.75, "repeated": 0.75 / 4, "distinct": 0.75}


def test_repetition_is_of_four_tokens() -> None:
    assert repeated((1, 2, 3)) == 0.0
    assert repeated((1, 2, 3, 4, 1, 2, 3, 4)) == pytest.approx(1 - 4 / 5)  # 1234 2341 3412 4123 1234


def test_a_gap_of_older_rollouts_asks_for_newer_ones() -> None:
    for staleness, advice in (
        (0, "try a lower lr or a higher beta"),
        (1, "try a lower lr, mode: sync or wider gap_limits"),
    ):
        with pytest.raises(TrainerFailed) as caught:
            watch_of(FakeRun()).gap(0.3, 0.99, staleness)
        assert str(caught.value).endswith(advice)


def test_responses_that_a_verifier_failed_on_are_told_once() -> None:
    run = FakeRun()
    watch = watch_of(run)
    watch.verifiers([Reward({"exact": 1.0})])
    for _ in range(2):
        watch.verifiers([Reward({"exact": 0.0}, "ValueError: odd", failed=True), Reward({"exact": 1.0})])
    ((code, text),) = run.warnings
    assert code == "verifier_errors"
    assert text.startswith("what a verifier failed on is worth 0: exact 1 times, the first: ValueError: odd; see")
