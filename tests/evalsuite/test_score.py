"""From a plan to a scorecard with an engine that answers from a table: counting, resuming, stopping."""

from __future__ import annotations

import json
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite import run as scoring
from evalsuite.errors import Incomplete
from evalsuite.models import EngineSpec
from evalsuite.models.fake import FakeModel
from evalsuite.progress import Silent
from evalsuite.score import Job, score
from evalsuite.scorecard import CheckpointRef, read, to_json
from evalsuite.suite import adhoc_suite
from evalsuite.types import GenerateRequest
from tests.toy import make_benchmark


def right(request: GenerateRequest) -> str:
    """The answer to `What is n + n?`."""
    return str(2 * int(request.prompt.text.split()[2]))


def make_job(tmp_path: Path, *names: str, **changes: Any) -> Job:
    suite = adhoc_suite(names, [tmp_path / "benchmarks"])
    job = Job(
        suite,
        dict(suite.columns),
        CheckpointRef("toy", "d" * 64),
        None,
        EngineSpec("fake", "asked for", "none"),
        None,
        tmp_path / "results",
        command="evalsuite score toy",
    )
    return replace(job, **changes)


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeModel]]:
    """Every engine that a run opens; set `engines.options` before it does."""
    opened: list[FakeModel] = []

    def open_fake(spec: EngineSpec, checkpoint: Path | None) -> FakeModel:
        opened.append(FakeModel(checkpoint, **{"answers": right, **spec.options}))
        return opened[-1]

    monkeypatch.setattr(scoring, "open_model", open_fake)
    yield opened
    assert all(engine.closed for engine in opened)


def test_a_run_counts_scores_and_averages(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy", 20)
    card = score(make_job(tmp_path, "toy"))
    result = card.results[0]
    assert (result.value, result.n, result.n_planned, result.n_failed) == (1.0, 20, 20, 0)
    assert {name: m.n for name, m in result.by_category.items()} == {"even": 10, "odd": 10}
    assert card.average == 1.0
    assert read(make_job(tmp_path, "toy").scorecard) == card


def test_a_scorecard_says_that_its_checkpoint_was_trained_on_unchecked_data(
    tmp_path: Path, engines: list[FakeModel]
) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy", 4)
    job = make_job(tmp_path, "toy")
    (tmp_path / "ckpt").mkdir(exist_ok=True)
    for declared, told in (({"decontamination_waived": "a dry run"}, "a dry run"), ({"stage": "sft"}, None)):
        (tmp_path / "ckpt" / "evalsuite.json").write_text(json.dumps(declared))
        card = score(replace(job, path=tmp_path / "ckpt"))
        assert card.provenance.get("decontamination_waived") == told


def test_a_failed_sample_is_absent_and_counted_and_asked_again(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy", 20)
    job = make_job(tmp_path, "toy", engine=EngineSpec("fake", options={"fail_every": 5}))
    result = score(job).results[0]
    assert (result.n, result.n_failed, result.value) == (16, 4, 1.0)
    assert result.n_planned == result.n + result.n_failed
    again = score(make_job(tmp_path, "toy", engine=EngineSpec("fake")))
    assert (again.results[0].n, engines[-1].n_answered) == (20, 4)


def test_a_verifier_that_raises_makes_a_failed_sample_and_never_a_zero(
    tmp_path: Path, engines: list[FakeModel]
) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy", 4)
    options = {"answers": lambda r: "raise" if " 3 " in r.prompt.text else right(r)}
    result = score(make_job(tmp_path, "toy", engine=EngineSpec("fake", options=options))).results[0]
    assert result.value == 1.0
    assert result.failures == {"q3": "the verifier raised RuntimeError: the verifier has a bug"}


def test_a_truncated_answer_is_scored_and_counted(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy", 4)
    options = {"answers": lambda r: "word " * 40 + right(r)}
    result = score(make_job(tmp_path, "toy", engine=EngineSpec("fake", options=options))).results[0]
    assert (result.value, result.n, result.n_truncated) == (0.0, 4, 4)


def test_a_finished_run_starts_no_engine(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy")
    first = score(make_job(tmp_path, "toy"))
    second = score(make_job(tmp_path, "toy"))
    assert len(engines) == 1
    assert to_json(first) == to_json(second)


def test_log_likelihood_and_generation_share_a_suite(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy", 6)
    make_benchmark(tmp_path / "benchmarks", "choose", 30, choices=True)
    card = score(make_job(tmp_path, "toy", "choose"))
    assert [r.benchmark for r in card.results] == ["toy", "choose"]
    chosen = card.results[1].value
    assert chosen is not None
    assert 0.2 < chosen < 0.8  # the fake engine prefers one of two options by hash


def test_editing_the_verifier_scores_again_without_asking_again(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy")
    first = score(make_job(tmp_path, "toy"))
    verify = tmp_path / "benchmarks" / "toy" / "verify.py"
    verify.write_text(verify.read_text().replace('float(doc["answer"] in response.split())', "0.5"))
    for name in [n for n in sys.modules if n.startswith("evalsuite_benchmark_toy")]:
        del sys.modules[name]
    second = score(make_job(tmp_path, "toy"))
    assert len(engines) == 1
    assert (first.results[0].value, second.results[0].value) == (1.0, 0.5)
    assert first.results[0].digest != second.results[0].digest


def test_editing_a_question_asks_again(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy")
    score(make_job(tmp_path, "toy"))
    yaml = tmp_path / "benchmarks" / "toy" / "toy.yaml"
    yaml.write_text(yaml.read_text().replace("max_gen_toks: 16", "max_gen_toks: 17"))
    score(make_job(tmp_path, "toy"))
    assert [e.n_answered for e in engines] == [20, 20]


def test_another_checkpoint_at_the_same_name_is_asked_anew(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy")
    score(make_job(tmp_path, "toy"))
    score(make_job(tmp_path, "toy", checkpoint=CheckpointRef("toy", "e" * 64)))
    assert [e.n_answered for e in engines] == [20, 20]


def test_limits_are_nested_and_reuse_each_other(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy")
    small = score(make_job(tmp_path, "toy", limit=5)).results[0]
    large = score(make_job(tmp_path, "toy", limit=12)).results[0]
    assert set(small.scores) < set(large.scores)
    assert (len(small.scores), len(large.scores)) == (5, 12)
    assert [e.n_answered for e in engines] == [5, 7]
    assert small.notes == ("5 of 20 samples, drawn by seed 1234",)


def test_asked_for_samples_are_the_ones_that_are_scored(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy")
    result = score(make_job(tmp_path, "toy", samples=frozenset({"q3", "q11"}))).results[0]
    assert set(result.scores) == {"q3", "q11"}


def test_ctrl_c_keeps_what_came_back_and_says_how_to_go_on(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy")

    class Impatient(Silent):
        def answered(self, benchmark: str, answer: Any) -> None:
            if engines[0].n_answered == 7:
                raise KeyboardInterrupt

    with pytest.raises(Incomplete, match="13 answers of toy are missing; go on with: evalsuite score toy") as stopped:
        score(make_job(tmp_path, "toy"), Impatient())
    assert stopped.value.exit_code == 3
    score(make_job(tmp_path, "toy"))
    assert [e.n_answered for e in engines] == [7, 13]


def play(folder: str) -> None:
    """A run of its own process: 16 requests in flight, 16 ms each."""
    scoring.open_model = lambda spec, checkpoint: FakeModel(answers=right, latency_s=0.001 * 16, in_flight=16)
    score(make_job(Path(folder), "toy"))


def test_twenty_kills_lose_only_what_was_in_flight_and_end_in_the_same_bytes(
    tmp_path: Path, forks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 2000
    for run in ("killed", "whole"):
        make_benchmark(tmp_path / run / "benchmarks", "toy", n)
    moments = random.Random(0)
    journal = make_job(tmp_path / "killed", "toy").journal / "toy"
    ends = [_run(forks, tmp_path / "killed", kill_after_s=moments.uniform(0.0, 0.15)) for _ in range(20)]
    assert set(ends) == {-signal.SIGKILL}
    n_lines = sum(_records(p) for p in journal.glob("*.jsonl"))
    assert _run(forks, tmp_path / "whole") == 0
    monkeypatch.setattr(scoring, "open_model", scoring.open_model)  # `play` leaves its own
    play(str(tmp_path / "killed"))  # with another hash seed than all before
    records = [_records(p) for p in journal.glob("*.jsonl")]
    # Every record is another sample: nothing that reached the journal was asked twice.
    assert sum(records) == n
    assert len(records) > 5
    assert 0 < n_lines < n
    cards = [_without_commit(make_job(tmp_path / run, "toy").scorecard) for run in ("killed", "whole")]
    assert cards[0] == cards[1]


def _without_commit(scorecard: Path) -> bytes:
    """A scorecard's bytes but for the commit of this checkout, which may change while the test runs."""
    content, n_found = re.subn(rb'("git_commit": )(null|"[^"]*")', rb"\1null", scorecard.read_bytes())
    assert n_found == 1
    return content


def _records(path: Path) -> int:
    return sum(b'"key"' in line and line.endswith(b"}\n") for line in path.read_bytes().splitlines(keepends=True))


def _run(forks: Any, folder: Path, kill_after_s: float | None = None) -> int:
    """Exit code of `play`, killed a while after its first answer reached the journal."""
    process = forks.Process(target=play, args=(str(folder),))
    seen = _total(folder)
    process.start()
    if kill_after_s is not None:
        deadline = time.monotonic() + 60
        while _total(folder) == seen and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(kill_after_s)
        process.kill()
    process.join()
    return int(process.exitcode)


def _total(folder: Path) -> int:
    return sum(p.stat().st_size for p in (folder / "results").rglob("*.jsonl")) if (folder / "results").exists() else 0


def test_the_scorecard_holds_where_the_numbers_come_from(tmp_path: Path, engines: list[FakeModel]) -> None:
    make_benchmark(tmp_path / "benchmarks", "toy")
    raw = json.loads(to_json(score(make_job(tmp_path, "toy"))))
    facts = raw["provenance"]
    assert facts["engine"]["engine"] == "fake"
    assert set(facts["versions"]) >= {"evalsuite", "python", "lm-eval", "datasets"}
    assert (facts["seed"], facts["command"]) == (1234, "evalsuite score toy")
    assert raw["suite"]["digest"]
    assert raw["results"][0]["digest"]
    assert raw["checkpoint"]["digest"] == "d" * 64
