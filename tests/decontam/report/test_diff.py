"""Two scans compared by what they wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from decontam.cli.diff import command
from decontam.errors import DecontamError
from decontam.report import write_reports
from decontam.report.diff import difference
from decontam.report.facts import EXACT, Scan
from tests.decontam.report.world import Texts, data, eval_set, facts, match, near, scan, shard

EACH = facts(eval_set("one", ["text"] * 100))


def written(out: Path, chosen: Scan) -> Path:
    out.mkdir()
    write_reports(out, chosen, Texts({}))
    return out


def of(*matches: Any, **changes: Any) -> Scan:
    return scan([EACH], [shard(matches, changes.pop("found_near", None))], **changes)


def test_a_scan_is_the_same_as_itself(tmp_path: Path) -> None:
    a, b = (written(tmp_path / name, of(match(0, 0), match(1, 1))) for name in "ab")
    assert difference(a, b).same
    result = CliRunner().invoke(command, [str(a), str(b)], standalone_mode=False)
    assert (result.return_value, result.stdout) == (0, "the same matches and the same verdict\n")


def test_what_appeared_vanished_and_crossed_the_limit_is_told(tmp_path: Path) -> None:
    a = written(tmp_path / "a", of(match(0, 0), match(1, 1), match(2, 2), match(3, 3)))
    b = written(tmp_path / "b", of(match(0, 0), match(9, 1)))
    result = CliRunner().invoke(command, [str(a), str(b)], standalone_mode=False)
    assert result.return_value == 1
    assert result.stdout.splitlines() == [
        "! train × one: 4.00 % → 2.00 % of the instances: drop or clean → none",
        "1 appeared: train × one 1",
        "  one one-1 · train, data/train.jsonl row 9 · 0.8 exact+capped",
        "3 vanished: train × one 3",
        "  one one-1 · train, data/train.jsonl row 1 · 0.8 exact+capped",
        "  one one-2 · train, data/train.jsonl row 2 · 0.8 exact+capped",
        "  one one-3 · train, data/train.jsonl row 3 · 0.8 exact+capped",
    ]


def test_a_match_that_the_cap_acquits_now_moved_and_another_score_did_not(tmp_path: Path) -> None:
    a = written(tmp_path / "a", of(match(0, 0), match(1, 1)))
    b = written(tmp_path / "b", of(match(0, 0, EXACT), match(1, 1, score=0.9)))
    found = difference(a, b)
    assert [(c.after.row, c.moved) for c in found.changed] == [(0, True), (1, False)]
    assert (found.appeared, found.vanished, found.same) == ((), (), False)
    text = CliRunner().invoke(command, [str(a), str(b)]).stdout
    assert "1 moved across a threshold" in text
    assert "row 0 · 0.8 exact, before 0.8 exact+capped" in text
    assert "1 with another score" in text


def test_a_row_with_an_id_is_the_same_wherever_it_stands(tmp_path: Path) -> None:
    a = written(tmp_path / "a", of(match(4, 0, id="x"), match(5, 0, id="x"), match(6, 0)))
    b = written(tmp_path / "b", of(match(1, 0, id="x"), match(2, 0, id="x"), match(6, 0)))
    assert difference(a, b).same
    c = written(tmp_path / "c", of(match(1, 0, id="x"), match(6, 0)))
    assert [m.row for m in difference(a, c).vanished] == [5], "the second row of that id"


def test_near_duplicates_are_compared_too(tmp_path: Path) -> None:
    a = written(tmp_path / "a", of(match(0, 0), near=True, found_near=[near(0, 0), near(1, 1)]))
    b = written(tmp_path / "b", of(match(0, 0), near=True, found_near=[near(0, 0)]))
    assert [(m.row, m.flags) for m in difference(a, b).vanished] == [(1, ("near",))]


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    a = written(tmp_path / "a", of(match(0, 0)))
    more = scan([EACH, facts(eval_set("two", ["t"]))], [shard([match(0, 0)])], (data(digest="x", complete=False),))
    b = written(tmp_path / "b", Scan(more.rule, 10, more.evals, more.datasets, more.shards))
    found = difference(a, b)
    assert found.settings == (
        "rule cap: 50 → 10",
        "complete: true → false",
        "eval two: added",
        "data train: another digest",
    )
    assert [(r.eval, r.before, r.after) for r in found.rates] == [("two", None, 0.0)]


def test_json_has_everything_and_text_a_few(tmp_path: Path) -> None:
    a = written(tmp_path / "a", of())
    b = written(tmp_path / "b", of(*(match(i, i, id="\x1b[31m") for i in range(30))))
    raw = json.loads(CliRunner().invoke(command, [str(a), str(b), "--json"]).stdout)
    assert (raw["schema"], raw["same"], len(raw["appeared"])) == ("decontam-diff/1", False, 30)
    assert raw["rates"][0]["crossed"] is True
    text = CliRunner().invoke(command, [str(a), str(b), "--show", "3"]).stdout
    assert text.count("one one-") == 3
    assert "and 27 more" in text
    assert "\x1b" not in text


def test_a_folder_without_reports_is_refused(tmp_path: Path) -> None:
    a = written(tmp_path / "a", of())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DecontamError, match=r"empty/verdict\.json: cannot be read .* expected the folder of a scan"):
        difference(a, tmp_path / "empty")
    (a / "matches.jsonl").write_text('{"dataset": 1}\n')
    with pytest.raises(DecontamError, match=r"matches\.jsonl:1 is no match .*'file'"):
        difference(a, a)
