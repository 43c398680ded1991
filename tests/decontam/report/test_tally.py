"""Hits are distinct: an instance counts once, a row counts once."""

from __future__ import annotations

from decontam.report.facts import CAPPED, EXACT, SHORT
from decontam.report.tally import Hits, tally
from tests.decontam.report.world import data, eval_set, facts, match, near, scan, shard

EVALS = (facts(eval_set("one", ["a", "b", "c"])), facts(eval_set("two", ["d", "e"], "unseen")))


def test_an_instance_in_many_rows_and_a_row_with_many_instances_count_once() -> None:
    rows = [match(0, 0), match(1, 0), match(1, 1), match(1, 3), match(1, 3, turn=2)]
    counted = tally(scan(EVALS, [shard(rows)]))
    assert counted.cells[0, 0]["exact"] == Hits(instances=2, rows=2, texts=2)
    assert counted.cells[0, 1]["exact"] == Hits(instances=1, rows=1, texts=1)
    assert counted.rows[0]["exact"] == 2


def test_rows_of_two_shards_of_a_file_add_up_and_instances_do_not() -> None:
    shards = [shard([match(0, 0), match(3, 0)]), shard([match(0, 0)], first_row=4)]
    # Rows 0 and 4 have one text: three rows, of which two are distinct.
    assert tally(scan(EVALS, shards)).cells[0, 0]["exact"] == Hits(instances=1, rows=3, texts=2)


def test_copies_of_a_row_count_once_as_a_text() -> None:
    rows = [match(0, 0, text=7), match(1, 0, text=7), match(2, 3, text=7), match(3, 4, text=8)]
    counted = tally(scan(EVALS, [shard(rows[:2], [near(9, 1, text=7)]), shard(rows[2:])]))
    assert counted.cells[0, 0]["exact"] == Hits(instances=1, rows=2, texts=1)
    assert counted.cells[0, 1]["exact"] == Hits(instances=2, rows=2, texts=2)
    assert (counted.rows[0]["exact"], counted.texts[0]["exact"]) == (4, 2)
    assert (counted.rows[0]["near"], counted.texts[0]["near"]) == (1, 1)


def test_every_way_of_deciding_is_counted_apart() -> None:
    rows = [match(0, 0, EXACT), match(1, 1, EXACT | CAPPED), match(2, 2, SHORT), match(3, 0, EXACT | SHORT)]
    cell = tally(scan(EVALS, [shard(rows, [near(7, 2), near(8, 2)])])).cells[0, 0]
    assert cell == {"exact": Hits(2, 3, 3), "capped": Hits(1, 1, 1), "near": Hits(1, 2, 2), "short": Hits(2, 2, 2)}


def test_data_sets_are_counted_apart_and_touched_instances_together() -> None:
    datasets = (data("train"), data("more"))
    shards = [shard([match(0, 0), match(1, 4, SHORT)]), shard([match(0, 1)], [near(0, 2)], dataset="more")]
    counted = tally(scan(EVALS, shards, datasets))
    assert (counted.cells[0, 0]["exact"], counted.cells[1, 0]["exact"]) == (Hits(1, 1, 1), Hits(1, 1, 1))
    assert counted.touched == ((0, 1), (1,)), "near-duplicates touch nothing"


def test_a_scan_that_finds_nothing_has_every_cell() -> None:
    counted = tally(scan(EVALS, [shard([])]))
    assert list(counted.cells) == [(0, 0), (0, 1)]
    assert all(hits == Hits() for cell in counted.cells.values() for hits in cell.values())
