"""Finding scorecards: what counts as one, what is broken, which of several stands for a checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from evalsuite.errors import UsageError
from evalsuite.scorecard import Scorecard, read, write
from evalsuite.tables.collect import collect, find_cards, select
from tests.evalsuite.cards import make_card, make_result


def put(card: Scorecard, path: Path, age: int = 0) -> Path:
    write(card, path)
    os.utime(path, ns=(10**18 - age * 10**9,) * 2)
    return path


def test_scorecards_are_found_at_any_depth_and_other_json_is_not(tmp_path: Path) -> None:
    put(make_card("a", {"gsm8k": [1.0, 0.0]}), tmp_path / "scorecards" / "a" / "s.json")
    put(make_card("b", {"gsm8k": [1.0, 0.0]}), tmp_path / "b.json")
    put(make_card("c", {"gsm8k": [1.0]}), tmp_path / "journal" / "c.json")
    put(make_card("d", {"gsm8k": [1.0]}), tmp_path / ".d.json.123.part")
    (tmp_path / "speed.json").write_text("[1, 2]")
    (tmp_path / "notes.json").write_text('{"schema": 1}')
    (tmp_path / "x.jsonl").write_text("{broken")
    found = collect(tmp_path).found
    assert sorted(f.card.checkpoint.name for f in found) == ["a", "b"]


def test_every_broken_file_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    whole = put(make_card("whole", {"gsm8k": [1.0, 0.0]}), tmp_path / "whole.json")
    raw = json.loads(whole.read_text())
    (tmp_path / "cut.json").write_text(whole.read_text()[:200])
    (tmp_path / "deep.json").write_text("[" * 200_000)
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "schema.json").write_text(json.dumps(raw | {"schema": 99}))
    (tmp_path / "types.json").write_text(json.dumps(raw | {"results": 5}))
    with pytest.raises(UsageError) as caught:
        collect(tmp_path)
    names = ("cut", "deep", "empty", "binary", "schema", "types")
    assert [name for name in names if f"{name}.json: " not in str(caught.value)] == []
    assert str(caught.value).startswith("6 files under ")
    assert "whole.json" not in str(caught.value)
    left = collect(tmp_path, skip_broken=True)
    assert [f.card.checkpoint.name for f in left.found] == ["whole"]
    assert len(left.broken) == 6


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        ({"q0": "high"}, "'high'"),
        ({"q0": float("nan")}, "nan"),
        ({"q0": 1.5}, "1.5"),
        ({"q0": True}, "True"),
        ({"q0": 1.0, "q1": 1.0}, "2 scored"),
        ([1.0], "not a scorecard"),
    ],
)
def test_a_score_that_cannot_be_is_an_error_and_not_a_number_in_a_table(
    tmp_path: Path, scores: object, why: str
) -> None:
    path = put(make_card("a", {"gsm8k": [1.0]}), tmp_path / "a.json")
    raw = json.loads(path.read_text())
    raw["results"][0]["scores"] = scores
    path.write_text(json.dumps(raw))
    with pytest.raises(UsageError, match=r"a\.json") as caught:
        collect(tmp_path)
    assert why in str(caught.value)


def test_an_absent_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such folder.*--results"):
        collect(tmp_path / "nowhere")


def test_the_newest_suite_digest_counts_for_a_checkpoint(tmp_path: Path) -> None:
    put(make_card("a", {"gsm8k": [0.0, 0.0]}, suite_digest="old"), tmp_path / "1.json", age=10)
    put(make_card("a", {"gsm8k": [1.0, 1.0]}, suite_digest="new"), tmp_path / "2.json")
    (card,) = select(collect(tmp_path).found)
    assert (card.suite.digest, card.average) == ("new", 1.0)


def test_a_later_look_with_a_limit_does_not_hide_the_full_run(tmp_path: Path) -> None:
    put(make_card("a", {"gsm8k": [1.0, 0.0, 0.0, 0.0]}), tmp_path / "full.json", age=10)
    put(make_card("a", {"gsm8k": [1.0]}), tmp_path / "limit1.json")
    (card,) = select(collect(tmp_path).found)
    assert card.average == 0.25


def test_runs_of_single_tasks_complete_each_other(tmp_path: Path) -> None:
    put(make_card("a", {"gsm8k": [1.0, 0.0]}, missing=["mmlu", "drop"]), tmp_path / "1.json", age=10)
    put(make_card("a", {"mmlu": [1.0, 1.0]}, missing=["gsm8k", "drop"]), tmp_path / "2.json", age=5)
    (card,) = select(collect(tmp_path).found)
    assert (dict(card.suite.columns), card.suite.missing) == ({"mmlu": "mmlu", "gsm8k": "gsm8k"}, ("drop",))
    assert card.average is None
    put(make_card("a", {"drop": [0.0, 0.0]}, missing=["gsm8k", "mmlu"]), tmp_path / "3.json")
    (card,) = select(collect(tmp_path).found)
    assert card.average == pytest.approx(0.5)  # (.5 + 1 + 0) / 3


def test_engines_and_suites_of_one_checkpoint_are_rows_of_their_own(tmp_path: Path) -> None:
    put(make_card("a", {"gsm8k": [1.0, 0.0]}, engine="hf"), tmp_path / "1.json")
    put(make_card("a", {"gsm8k": [1.0, 0.0]}, engine="vllm"), tmp_path / "2.json")
    put(make_card("a", {"gsm8k": [1.0, 0.0]}, suite="other"), tmp_path / "3.json")
    assert len(select(collect(tmp_path).found)) == 3
    assert len(select(collect(tmp_path).found, "demo")) == 2
    with pytest.raises(UsageError, match=r"'demoo'; did you mean 'demo'\?; there are demo, other"):
        select(collect(tmp_path).found, "demoo")


def test_columns_keep_the_order_of_the_suite_in_a_file(tmp_path: Path) -> None:
    card = make_card("a", {"mmlu": [1.0, 0.0], "gsm8k": [1.0, 0.0], "bbh": [0.0, 0.0]})
    assert list(read(put(card, tmp_path / "a.json")).suite.columns) == ["mmlu", "gsm8k", "bbh"]


def test_a_checkpoint_is_found_by_file_name_folder_and_digest(tmp_path: Path) -> None:
    results, folder = tmp_path / "results", tmp_path / "runs" / "step-10"
    folder.mkdir(parents=True)
    path = put(make_card("step-10", {"gsm8k": [1.0, 0.0]}, digest="abcdef0123456789"), results / "a.json")
    put(make_card("step-20", {"gsm8k": [1.0, 0.0]}, digest="fedcba9876543210"), results / "b.json")
    for name in (str(path), "step-10", str(folder), "abcdef"):
        (card,) = find_cards([name], results)
        assert card.checkpoint.name == "step-10"


def test_an_unknown_checkpoint_gets_the_near_miss_and_the_command_to_type(tmp_path: Path) -> None:
    put(make_card("step-100", {"gsm8k": [1.0, 0.0]}), tmp_path / "a.json")
    with pytest.raises(UsageError, match=r"'step-10'.*did you mean 'step-100'.*evalsuite score step-10"):
        find_cards(["step-10"], tmp_path)
    with pytest.raises(UsageError, match="no scorecard of 'abc'"):
        find_cards(["abc"], tmp_path / "nowhere")


def test_two_names_meet_on_the_suite_they_share(tmp_path: Path) -> None:
    put(make_card("a", {"gsm8k": [1.0, 0.0]}, suite="one"), tmp_path / "1.json")
    put(make_card("a", {"gsm8k": [1.0, 0.0]}, suite="two"), tmp_path / "2.json")
    put(make_card("b", {"gsm8k": [1.0, 0.0]}, suite="two"), tmp_path / "3.json")
    assert [card.suite.name for card in find_cards(["a", "b"], tmp_path)] == ["two", "two"]
    with pytest.raises(UsageError, match=r"'a' stands for 2 scorecards: one .*two .*--suite"):
        find_cards(["a"], tmp_path)
    assert find_cards(["a"], tmp_path, "one")[0].suite.name == "one"
    with pytest.raises(UsageError, match="'b' was not scored on suite 'one'"):
        find_cards(["b"], tmp_path, "one")


def test_a_result_without_a_score_is_read(tmp_path: Path) -> None:
    put(make_card("a", {"gsm8k": make_result("gsm8k", [], failures=2)}), tmp_path / "a.json")
    (found,) = collect(tmp_path).found
    assert found.card.results[0].value is None
