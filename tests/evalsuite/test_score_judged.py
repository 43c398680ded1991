"""From a plan to a scorecard where a judge scores: after the checkpoint has gone, again at will, never a guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite import run as scoring
from evalsuite.compare import compare
from evalsuite.errors import UsageError
from evalsuite.judge import Judge
from evalsuite.models.fake import FakeModel
from evalsuite.score import Job, card_file, score
from evalsuite.scorecard import Scorecard, read
from evalsuite.tables.collect import collect, select
from evalsuite.tables.leaderboard import table
from evalsuite.types import GenerateRequest
from tests.evalsuite.judges import blocks, make_judge, prefers_longer
from tests.evalsuite.test_score import make_job, right
from tests.toy import make_benchmark

JUDGED = """
from evalsuite.verify.judge import Ask, NoVerdict, Unjudged

def asks(response, doc):
    texts = {"instruction": doc["question"], "output_1": doc["answer"], "output_2": response}
    return (Ask("compare", texts, swapped=doc["kind"] == "odd"),)

def verify_judged(response, doc, verdicts):
    if isinstance(verdicts[0], NoVerdict):
        raise Unjudged(verdicts[0])
    return Score(verdicts[0].preference)

del verify
"""


def make_judged(root: Path, name: str = "judged", n: int = 20) -> None:
    """A benchmark of n rows whose responses are compared with the right answer by a judge."""
    make_benchmark(root, name, n)
    folder = root / name
    yaml = (folder / f"{name}.yaml").read_text().replace("id: id,", "id: id, judge: demo,")
    (folder / f"{name}.yaml").write_text(yaml)
    source = (folder / "verify.py").read_text()
    (folder / "verify.py").write_text(
        source.replace("process_results = as", "process_results = lambda doc, r: {}\n_ = as")
    )
    (folder / "verify.py").write_text((folder / "verify.py").read_text() + JUDGED)


def judged_job(tmp_path: Path, answers: Callable[[GenerateRequest], str] = prefers_longer, **changes: Any) -> Job:
    made: list[Judge] = []

    def maker() -> Judge:
        made.append(make_judge(answers))
        return made[-1]

    return make_job(tmp_path, "judged", judges={"demo": maker}, **changes)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[FakeModel]:
    opened: list[FakeModel] = []

    def open_fake(spec: Any, checkpoint: Path | None) -> FakeModel:
        opened.append(FakeModel(checkpoint, answers=lambda r: right(r) + " for sure"))
        return opened[-1]

    monkeypatch.setattr(scoring, "open_model", open_fake)
    return opened


def test_the_judge_scores_what_the_checkpoint_wrote_after_it_has_gone(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_judged(tmp_path / "benchmarks")

    def watchful(request: GenerateRequest) -> str:
        assert engines[0].closed  # the policy has left the device
        return prefers_longer(request)

    card = score(judged_job(tmp_path, watchful))
    result = card.results[0]
    assert (result.value, result.n, result.n_failed) == (1.0, 20, 0)  # "2 for sure" is longer than "2", in either order
    assert (result.judge["protocol"], result.judge["model"], result.judge["n_judged"]) == ("demo", "fake", 20)
    assert read(card_file(judged_job(tmp_path), card)) == card


def test_judging_again_asks_the_checkpoint_nothing(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_judged(tmp_path / "benchmarks")
    score(judged_job(tmp_path))
    shorter = lambda r: {"A": "B", "B": "A"}[prefers_longer(r)]  # noqa: E731
    job = judged_job(tmp_path, shorter, rejudge=True, fresh=False)
    job = replace(job, judges={"demo": lambda: make_judge(shorter, who={"engine": "fake", "model": "terse"})})
    card = score(job)
    assert card.results[0].value == 0.0
    assert len(engines) == 1  # no second engine was opened


def test_judging_again_what_was_never_answered_says_so(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_judged(tmp_path / "benchmarks")
    with pytest.raises(UsageError, match="20 of 20 answers of judged are not in the journal"):
        score(judged_job(tmp_path, rejudge=True))
    assert engines == []


def test_a_verdict_that_cannot_be_read_is_a_failed_sample_and_many_are_no_number(
    tmp_path: Path, engines: list[FakeModel]
) -> None:
    make_judged(tmp_path / "benchmarks", n=40)
    one = lambda r: "hm" if "What is 3 + 3?" in blocks(r)["instruction"] else prefers_longer(r)  # noqa: E731
    result = score(judged_job(tmp_path, one)).results[0]
    assert (result.value, result.n, result.failures) == (1.0, 39, {"q3": "judge: unparsed (the judge said 'hm')"})
    nonsense = replace(
        judged_job(tmp_path), judges={"demo": lambda: make_judge(lambda r: "hm", who={"engine": "x", "model": "x"})}
    )
    card = score(nonsense)
    result = card.results[0]
    assert (result.value, result.n, result.n_failed, card.average) == (None, 0, 40, None)
    assert any(note.startswith("failed: the judge gave no verdict on 40 of 40") for note in result.notes)


def cards_of_two_judges(tmp_path: Path) -> list[Scorecard]:
    make_judged(tmp_path / "benchmarks")
    other = replace(
        judged_job(tmp_path), judges={"demo": lambda: make_judge(prefers_longer, who={"engine": "fake", "model": "b"})}
    )
    return [score(judged_job(tmp_path)), score(other)]


def test_scores_of_two_judges_are_not_compared(tmp_path: Path, engines: list[FakeModel]) -> None:
    first, second = cards_of_two_judges(tmp_path)
    with pytest.raises(UsageError, match=r"judged was judged by fake \(demo, \w{12}\) and by b \(demo, \w{12}\)"):
        compare(first, second)
    assert compare(first, second, allow_mixed=True).benchmarks[0].pair.difference == 0.0
    with pytest.raises(UsageError, match="verdicts of different judges do not belong in one column: judged: "):
        table([first, second])


def test_another_protocol_than_the_benchmarks_marks_the_regime(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_judged(tmp_path / "benchmarks")
    from evalsuite.protocol import load_protocol

    stand_in = replace(load_protocol("demo"), name="own_demo")
    job = replace(judged_job(tmp_path), judges={"demo": lambda: make_judge(prefers_longer, protocol=stand_in)})
    assert score(job).suite.regime == "adhoc+own_demo"


def test_cards_of_two_judges_are_two_files_and_no_average_mixes_them(tmp_path: Path, engines: list[FakeModel]) -> None:
    first, second = cards_of_two_judges(tmp_path)
    job = judged_job(tmp_path)
    assert card_file(job, first) != card_file(job, second)
    found = select(collect(tmp_path / "results").found)
    assert len(found) == 1  # one row a checkpoint: the newest judge decides
    assert {r.judge["model"] for r in found[0].results} == {"b"}


def test_a_column_without_a_number_or_whose_number_is_no_mean_is_not_averaged_by_compare(
    tmp_path: Path, engines: list[FakeModel]
) -> None:
    make_judged(tmp_path / "benchmarks")
    card = score(judged_job(tmp_path))
    [result] = card.results
    controlled = replace(card, results=(replace(result, value=0.2),))  # as a length-controlled win rate is
    found = compare(controlled, controlled)
    assert found.average is None
    assert found.benchmarks[0].metric == "mean score, not exact_match"
    absent = replace(card, results=(replace(result, value=None),), average=None)
    with pytest.raises(UsageError, match="share no scored sample"):
        compare(card, absent)
