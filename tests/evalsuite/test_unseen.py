"""The unseen ledger: who is refused, what counts against the budget, and how little the Ladder tells."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from evalsuite import score as scoring
from evalsuite import unseen
from evalsuite.__main__ import main
from evalsuite.errors import RegistryError, UnseenBudget
from evalsuite.gate.policy import Unseen
from evalsuite.registry import Registry
from evalsuite.scorecard import write
from evalsuite.unseen import Ask, Released, begin, budget, finish, ladder, latest, peeks
from tests.evalsuite.cards import make_card, make_result
from tests.evalsuite.looks import START, Clock, registry_at

SUITE = {"name": "held-out", "digest": "5" * 64}
ONE = Unseen(per_candidate=1, per_90_days=3)
OPENED: list[str] = []


@pytest.fixture(scope="module")
def opened() -> Iterator[list[str]]:
    """Every path that Python opens or lists while this is watched; an audit hook cannot be taken away again."""
    watching = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if watching[0] and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | Path):
            OPENED.append(str(arguments[0]))

    sys.addaudithook(hook)
    yield OPENED
    watching[0] = False


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(tmp_path: Path, clock: Clock) -> Registry:
    return registry_at(tmp_path / "results", clock)


def ask(candidate: str, suite: dict[str, str] = SUITE) -> Ask:
    return Ask(candidate * 64, f"step-{candidate}", suite, "0" * 64)


def done(released: float | None = None) -> dict[str, object]:
    new = {} if released is None else {"held-out": {"value": released, "eta": 0.005}}
    return {"passed": True, "released": new, "eta": 0.005, "last": None}


# -- who may not look --


def test_score_on_the_unseen_suite_exits_5_and_opens_no_data(
    tmp_path: Path,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = tmp_path / "data" / "TIGER-Lab" / "MMLU-Pro" / "test.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text("{}\n")
    resolved: list[object] = []
    monkeypatch.setattr(scoring, "resolve_all", lambda *specs, **options: resolved.append(specs))
    command = ["score", str(tmp_path / "ckpt"), "--suite", "tulu3-unseen", "--data-root", str(tmp_path / "data")]
    opened.clear()
    assert main([*command, "--results", str(tmp_path / "results")]) == 5
    said = capsys.readouterr().err
    assert "Only `evalsuite release` may read it" in said
    assert "mmlu_pro" in said
    assert resolved == []
    inside = str(tmp_path / "data")
    assert [path for path in opened if path.startswith(inside)] == []
    rows.read_text()
    assert [path for path in opened if path.startswith(inside)] == [str(rows)]  # the watch would have seen it
    assert not (tmp_path / "results").exists()


def test_naming_an_unseen_benchmark_as_a_task_exits_5_too(tmp_path: Path) -> None:
    assert main(["score", str(tmp_path / "ckpt"), "--tasks", "gpqa", "--results", str(tmp_path)]) == 5


def test_comparing_scorecards_with_unseen_results_exits_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / f"{name}.json" for name in "ab"]
    for path in paths:
        write(make_card(path.stem, {"gpqa": make_result("gpqa", [1.0, 0.0], split="unseen")}), path)
    assert main(["compare", *map(str, paths), "--results", str(tmp_path)]) == 5
    out, said = capsys.readouterr()
    assert out == ""
    assert "gpqa" in said


# -- who has looked --


def test_the_intent_is_on_disk_with_what_was_intended_before_anything_else_happens(
    registry: Registry, clock: Clock
) -> None:
    peek = begin(registry, ONE, Ask("a" * 64, "step-a", SUITE, "0" * 64, "for the paper"), clock())
    (line,) = (registry.root / "peeks.jsonl").read_text().splitlines()
    assert '"event":"intent"' in line
    assert (peek.intent.id, peek.intent.actor, peek.intent.reason) == ("a" * 64, "ann", "for the paper")
    assert peek.intent.detail == {
        "name": "step-a",
        "suite": SUITE,
        "policy": "0" * 64,
        "left": {"in_90_days": 2, "of_candidate": 0},  # 3 − 1 and 1 − 1
    }


def test_the_same_candidate_goes_on_with_its_look_and_pays_once(registry: Registry, clock: Clock) -> None:
    first = begin(registry, ONE, ask("a"), clock())
    assert begin(registry, ONE, ask("a"), clock()).intent == first.intent
    assert budget(peeks(registry), ONE, "b" * 64, clock()).in_window == 2


def test_a_finished_look_is_not_repeated(registry: Registry, clock: Clock) -> None:
    finish(registry, begin(registry, ONE, ask("a"), clock()), done(0.5))
    with pytest.raises(UnseenBudget, match="looked at once") as caught:
        begin(registry, ONE, ask("a"), clock())
    assert caught.value.exit_code == 5


def test_a_look_begun_on_another_suite_is_not_gone_on_with(registry: Registry, clock: Clock) -> None:
    begin(registry, ONE, ask("a"), clock())
    with pytest.raises(UnseenBudget):
        begin(registry, ONE, ask("a", {**SUITE, "digest": "6" * 64}), clock())


def test_three_looks_in_ninety_days_then_the_date_of_the_next(registry: Registry, clock: Clock) -> None:
    for candidate in "abc":  # on 1, 11 and 21 January
        begin(registry, ONE, ask(candidate), clock())
        clock.forward(10)
    # 31 January: 3 of 3 are spent. The oldest, of 1 January, leaves the window 31 + 28 + 31 = 90 days later.
    with pytest.raises(UnseenBudget, match="the next one is free on 2026-04-01 00:00 UTC"):
        begin(registry, ONE, ask("d"), clock())
    clock.now = START + timedelta(days=90, seconds=-1)
    with pytest.raises(UnseenBudget):
        begin(registry, ONE, ask("d"), clock())
    clock.now = START + timedelta(days=90)
    assert begin(registry, ONE, ask("d"), clock()).candidate == "d" * 64
    with pytest.raises(UnseenBudget, match="free on 2026-04-11"):  # that of 11 January is the oldest now
        begin(registry, ONE, ask("e"), clock())


def test_a_clock_set_back_frees_no_budget(registry: Registry, clock: Clock) -> None:
    for candidate in "abc":
        begin(registry, ONE, ask(candidate), clock())
    clock.forward(-365)
    with pytest.raises(UnseenBudget, match="free on 2026-04-01"):
        begin(registry, ONE, ask("d"), clock())


def test_a_look_taken_while_the_clock_stood_a_year_back_counts_from_the_latest_time_seen(
    registry: Registry, clock: Clock
) -> None:
    begin(registry, ONE, ask("a"), clock())
    clock.forward(-365)
    begin(registry, ONE, ask("b"), clock())  # written with a ts of 2025-01-01
    clock.forward(365 + 1)
    seen = peeks(registry)
    assert [peek.at for peek in seen] == [START, START]
    # By its own ts the second would lie 366 days back, outside of the window, and 2 looks would be left.
    assert budget(seen, ONE, "c" * 64, latest(registry, clock())).in_window == 1


def test_cutting_the_end_of_the_ledger_is_found_out(registry: Registry, clock: Clock) -> None:
    begin(registry, ONE, ask("a"), clock())
    begin(registry, ONE, ask("b"), clock())
    path = registry.root / "peeks.jsonl"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(RegistryError, match="the ledger was cut"):
        begin(registry, ONE, ask("b"), clock())
    (fault,) = registry.verify()
    assert "the ledger was cut" in fault


def test_editing_a_line_of_the_ledger_is_found_out(registry: Registry, clock: Clock) -> None:
    begin(registry, ONE, ask("a"), clock())
    begin(registry, ONE, ask("b"), clock())
    path = registry.root / "peeks.jsonl"
    path.write_bytes(path.read_bytes().replace(b"step-a", b"step-x"))
    with pytest.raises(RegistryError, match="line 1"):
        peeks(Registry(registry.root))
    assert len(registry.verify()) >= 1


def test_a_result_is_written_once(registry: Registry, clock: Clock) -> None:
    peek = begin(registry, ONE, ask("a"), clock())
    first = finish(registry, peek, done(0.5))
    assert finish(registry, peek, done(0.9)) == first
    assert unseen.last_released(peeks(registry), SUITE["digest"]) == Released(0.5, 0.005, "a" * 64)


# -- how little is told --

LAST = Released(0.430, 0.005)


@pytest.mark.parametrize(
    ("value", "stderr", "last", "eta", "expected"),
    [
        (0.4312, 0.001, None, None, (0.430, 0.005)),  # η = max(.005, .001); .4312/.005 = 86.24 → 86 · .005
        (0.4332, 0.001, None, None, (0.435, 0.005)),  # 86.64 → 87 · .005
        (0.4325, 0.001, None, None, (0.435, 0.005)),  # 86.5: the half goes up
        (0.4312, 0.020, None, None, (0.440, 0.020)),  # η = SE; 21.56 → 22 · .02
        (0.4312, None, None, None, (0.430, 0.005)),  # no error known: half a point
        (0.4312, 0.020, None, 0.01, (0.430, 0.010)),  # the policy's step; 43.12 → 43 · .01
        (0.4360, 0.001, LAST, None, (0.435, 0.005)),  # .436 − .430 = .006 > .005; 87.2 → 87 · .005
        (0.4350, 0.001, LAST, None, (None, 0.005)),  # .435 − .430 is exactly one step, not more
        (0.4349, 0.001, LAST, None, (None, 0.005)),  # .0049
        (0.3000, 0.001, LAST, None, (None, 0.005)),  # worse: what is said is as little as of an equal one
        (0.4450, 0.020, LAST, None, (None, 0.020)),  # .015 < .02: noise may be all of it
        (0.9990, 0.300, None, None, (0.900, 0.300)),  # 3.33 → 3 · .3
        (0.9990, 0.400, None, None, (0.800, 0.400)),  # 2.4975 → 2 · .4
        (1.0000, 0.300, None, 0.7, (0.700, 0.700)),  # 1.43 → 1 · .7
        (0.9000, 0.300, None, 0.55, (1.000, 0.550)),  # 1.64 → 2 · .55 = 1.1, and no score is above 1
    ],
)
def test_the_ladder_lets_out_steps_that_beat_the_last_number(
    value: float, stderr: float | None, last: Released | None, eta: float | None, expected: tuple[float | None, float]
) -> None:
    step = ladder(value, stderr, last, eta)
    assert (step.value, step.eta) == pytest.approx(expected)
    assert step.last == last


def test_many_looks_at_noise_let_out_few_numbers() -> None:
    # 200 equal checkpoints of true score .5 and SE .02: the best of 200 is about 2.7 SE up, so with steps of one SE
    # there are at most 3 or 4 numbers, not 200.
    import random

    draw = random.Random(3)
    last, let_out = None, 0
    for _ in range(200):
        step = ladder(draw.gauss(0.5, 0.02), 0.02, last)
        if step.value is not None:
            last, let_out = Released(step.value, step.eta), let_out + 1
    assert 1 <= let_out <= 5
    assert last is not None
    assert last.value <= 0.5 + 4 * 0.02
