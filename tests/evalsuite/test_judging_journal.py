"""The judge stage asks nothing twice: not in a second run, not after kills, not for equal texts."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evalsuite.journal import Journal, KeyMaker
from evalsuite.judging import judge_asks, judge_plan
from evalsuite.types import GenerateRequest, Prompt, Response, Sampling
from tests.evalsuite.judges import Refuses, against_baseline, blocks, judged, kinds, make_judge, pair, plan_of

ROOT = Path(__file__).resolve().parents[2]


def test_a_second_run_asks_nothing_and_another_parser_neither(tmp_path: Path) -> None:
    plan, responses = plan_of(20, against_baseline)
    say = lambda r: "**A**"  # noqa: E731
    first = judge_plan(plan, responses, make_judge(say), tmp_path)
    assert first.failures == {"unparsed": 20}
    again = judge_plan(plan, responses, make_judge(model=Refuses()), tmp_path)
    assert again.identity == first.identity
    tolerant = judge_plan(plan, responses, make_judge(model=Refuses(), parser="href_tolerant"), tmp_path)
    assert (tolerant.n_judged, tolerant.modes) == (20, {"tolerant": 20})
    assert tolerant.identity["digest"] != first.identity["digest"]
    assert "date" not in json.dumps(first.identity["who"])


def test_equal_texts_share_a_verdict_and_fresh_asks_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(request: GenerateRequest) -> str:
        asked.append(blocks(request)["output_2"])
        return "B"

    one = {("q0", 0): (pair("x"),), ("q0", 1): (pair("x"),), ("q0", 2): (pair("y"),)}
    judge_asks("toy", "digest", one, make_judge(answer), tmp_path)
    assert sorted(asked) == ["x", "y"]
    judge_asks("toy", "digest", {("q0", 5): (pair("y"),)}, make_judge(model=Refuses()), tmp_path)  # another candidate
    judge_asks("toy", "digest", one, make_judge(answer), tmp_path, fresh=True)
    assert sorted(asked) == ["x", "x", "y", "y"]


def test_asking_again_leaves_the_verdicts_on_other_checkpoints(tmp_path: Path) -> None:
    mine, other = {("q0", 0): (pair("mine"),)}, {("q0", 0): (pair("other"),)}
    for asks in (mine, other):
        judge_asks("toy", "digest", asks, make_judge(lambda r: "A"), tmp_path)
    assert kinds(judge_asks("toy", "digest", mine, make_judge(lambda r: "B"), tmp_path, fresh=True)) == [1.0]
    found = [judge_asks("toy", "digest", asks, make_judge(model=Refuses()), tmp_path) for asks in (mine, other)]
    assert [kinds(f) for f in found] == [[1.0], [0.0]]


def test_another_judge_has_a_journal_of_its_own(tmp_path: Path) -> None:
    other = {"engine": "fake", "model": "other"}
    judged(make_judge(lambda r: "A"), tmp_path, pair("x"))
    found = judged(make_judge(lambda r: "B", who=other), tmp_path, pair("x"))
    assert kinds(found) == [1.0]
    assert len(list(tmp_path.glob("judge-*/toy"))) == 2
    digests = {make_judge(who=other).digest, make_judge().digest, make_judge(positions="both").digest}
    assert len(digests | {make_judge(parser="href_tolerant").digest}) == 4


SLOW_JUDGE = textwrap.dedent("""
    import sys, json
    from pathlib import Path
    from evalsuite.judging import judge_plan
    from tests.evalsuite.judges import against_baseline, blocks, make_judge, plan_of, prefers_longer
    log = open(sys.argv[2], "a")
    def answer(request):
        log.write(json.dumps(request.prompt.text) + "\\n")
        log.flush()
        return prefers_longer(request)
    plan, responses = plan_of(200, against_baseline)
    found = judge_plan(plan, responses, make_judge(answer, latency_s=0.16), Path(sys.argv[1]))
    verdicts = {f"{s} {k}": [v.preference for v in said] for (s, k), said in found.verdicts.items()}
    sys.stdout.write(json.dumps({"verdicts": verdicts, "identity": found.identity}, sort_keys=True))
""")


def run_slow(folder: Path, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_JUDGE, str(folder), str(log)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_twenty_kills_lose_only_what_was_in_flight_and_end_in_the_same_bytes(tmp_path: Path) -> None:
    whole, _ = run_slow(tmp_path / "whole", tmp_path / "whole.log").communicate()
    log = tmp_path / "killed.log"
    draw = random.Random(5)
    kills = 0
    for _ in range(20):
        before = len(log.read_text().splitlines()) if log.is_file() else 0
        process = run_slow(tmp_path / "killed", log)
        more = draw.randrange(1, 9)
        while process.poll() is None and (not log.is_file() or len(log.read_text().splitlines()) < before + more):
            time.sleep(0.005)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills == 20
    finished, _ = run_slow(tmp_path / "killed", log).communicate()
    assert finished == whole
    assert len(json.loads(whole)["verdicts"]) == 200
    asked = log.read_text().splitlines()
    unique = len((tmp_path / "whole.log").read_text().splitlines())
    # The fake asks one at a time, so a kill loses one answer at most; what was answered is never asked again.
    assert unique <= len(asked) <= unique + 20


def test_likeliest_tokens_come_back_from_the_journal_and_older_keys_stay_what_they_were(tmp_path: Path) -> None:
    request = GenerateRequest(Prompt("2+2="), Sampling(8, ("\n",)))
    keys = KeyMaker("checkpoint", "benchmark", {"engine": "hf", "dtype": "float32"})
    # As computed before requests could ask for likeliest tokens.
    assert keys.key("sample", 0, request) == "b816c73313598e3026ac70c6c69feb74"
    assert keys.key("sample", 0, replace(request, top_logprobs=5)) != keys.key("sample", 0, request)
    answer = Response("M", "length", 1, top=(("M", -0.25), (" m", -1.5)))
    with Journal(tmp_path, {}) as journal:
        journal.append("key", "sample", 0, answer)
    with Journal(tmp_path, {}) as journal:
        stored = journal.get("key")
    assert stored is not None
    assert stored.answer == answer
