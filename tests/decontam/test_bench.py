"""tests/speed/decontam_{peers,peer_scan,quality}.py: the yardsticks find what they should and count as they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.speed.decontam_peer_scan import PEERS as SCANS
from tests.speed.decontam_peers import PEERS, first_bytes, run, spend, why_not
from tests.speed.decontam_quality import Found, judged
from tests.speed.decontam_workload import Workload, make

QUESTION = "One two three, four five. Six seven eight nine ten: eleven twelve thirteen fourteen?"
OTHER = "a b c d e f g h i j k l m n o p q r s t"


def row(prompt: str, answer: str = "Yes.") -> dict[str, object]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


@pytest.mark.parametrize(
    ("peer", "flagged"),
    [
        ("tuples-user", [0, 2, 3]),
        ("tuples-all", [0, 1, 2, 3]),
        ("any-8", [0, 3]),  # words keep their commas there: row 2 shares no eight
        ("janitor-python", [0, 1]),  # thirteen words without a change: not in rows 2 and 3
    ],
)
def test_each_peer_reads_its_turns_and_keeps_its_own_rule(peer: str, flagged: list[int], tmp_path: Path) -> None:
    rows = [
        row(f"Solve:\n{QUESTION}"),
        row("Solve.", f"As in {QUESTION}"),
        row("one two three four - five six seven eight nine TEN"),  # 10 of the 14 tokens
        row(f"{QUESTION[QUESTION.index('seven') :]} And so on, now."),  # 8 of the 14 tokens
        row("nothing of the kind"),
    ]
    assert sorted(SCANS[peer]({"q": QUESTION, "o": OTHER}, tmp_path)(iter(rows))) == flagged


def test_a_peer_runs_in_a_process_of_its_own_and_finds_the_copies(tmp_path: Path) -> None:
    workload = make(tmp_path, 600, 200)
    peer = next(each for each in PEERS if each.name == "tuples-all")
    got = run(peer, workload, 500)
    truth = [t for t in map(json.loads, workload.truth.read_text().splitlines()) if t["row"] < 500]
    copies = {(t["row"], t["eval"]) for t in truth if t["kind"] in ("exact", "assistant")}
    assert copies
    assert copies <= {(row, found) for row, every in got.hits.items() for found in every}
    assert got.megabytes == first_bytes(workload.train, 500) / 1e6
    assert 0 < got.scan_cpu_s < got.cost.cpu_s


def test_a_peer_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DECONTAM_PEERS", raising=False)
    assert [peer.name for peer in PEERS if why_not(peer)] == ["janitor-cpp", "datatrove-spacy", "datatrove-white-space"]
    monkeypatch.setenv("DECONTAM_PEERS", str(tmp_path))
    assert "no python in DECONTAM_PEERS" in why_not(PEERS[-1])


def test_the_cost_is_that_of_the_whole_process_tree() -> None:
    child = "sum(i * i for i in range(1500000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '''{child}'''])"
    alone, with_child = (spend(["python3", "-c", code]) for code in ("import subprocess, sys", parent))
    assert with_child.cpu_s > alone.cpu_s + 0.03
    with pytest.raises(RuntimeError, match="exit 3"):
        spend(["python3", "-c", "raise SystemExit(3)"])


def test_precision_counts_rows_without_a_plant_and_recall_the_copies(tmp_path: Path) -> None:
    told = [(3, "exact", "a"), (5, "recase", "b"), (7, "para5", "c"), (8, "tplonly", None), (30, "exact", "d")]
    truth = [json.dumps({"row": row, "kind": kind, "eval": eval_}) for row, kind, eval_ in told]
    (tmp_path / "truth.jsonl").write_text("\n".join(truth))
    workload = Workload(tmp_path, 40, 10, 7, "plain")
    pairs = frozenset({(3, "a"), (3, "b"), (5, "x"), (8, "a"), (9, "a"), (30, "d")})
    got = judged(Found("some", pairs), workload, 20)
    # Rows 3, 5, 8 and 9 are flagged: 8 holds a template alone, 9 nothing. Of the two copies only row 3 names its own.
    assert (got.n_rows, got.n_false, got.precision) == (4, 2, 0.5)
    assert (got.recall, got.found["tplonly"], got.found["para5"]) == (0.5, 1, 0)
    assert (got.n_pairs, got.n_wrong_pairs) == (5, 4)
    assert judged(Found("some", pairs), workload).recall == 2 / 3
