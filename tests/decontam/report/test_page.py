"""report.html: everything escaped, boilerplate folded, offensive text closed, the rest counted."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from decontam.report import write_reports
from decontam.report.facts import EXACT, SHORT, Scan
from tests.decontam.report.world import Texts, eval_set, facts, match, near, scan, shard

HOSTILE = '<script>alert(1)</script> & "quotes" </div></details> \x1b[31m \u202e'
TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "p", "b", "div", "table", "thead"}
TAGS |= {"tbody", "tr", "th", "td", "small", "a", "section", "article", "header", "mark", "sup", "span", "details"}
TAGS |= {"summary", "ul", "li", "wbr"}
ATTRIBUTES = {"lang", "charset", "http-equiv", "content", "name", "class", "colspan", "scope", "href", "id"}


class Page(HTMLParser):
    """What a browser would show: texts, each with how many closed `details` it lies in, and all tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.depth, self.in_summary = 0, 0
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.marked: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.stack: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag not in ("meta", "wbr"):
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, "tags close in the order they opened"

    def handle_data(self, data: str) -> None:
        closed = self.stack.count("details") - ("summary" in self.stack)
        (self.closed if closed else self.opened).append(data)
        if "mark" in self.stack and "sup" not in self.stack:
            self.marked.append(data)

    def text(self) -> str:
        return " ".join("".join(self.opened).split())

    def hidden(self) -> str:
        return " ".join("".join(self.closed).split())


def page(tmp_path: Path, chosen: Scan, texts: Texts, shown: int | None = None) -> Page:
    write_reports(tmp_path, chosen, texts, shown=shown)
    found = Page((tmp_path / "report.html").read_text())
    assert not found.stack
    return found


def messages(*texts: str) -> Texts:
    return Texts({("train", "data/train.jsonl"): texts})


def test_both_sides_of_a_match_are_marked(tmp_path: Path) -> None:
    each = facts(eval_set("one", ["How many baskets of plums?"]))
    found = page(tmp_path, scan([each], [shard([match(0, 0, id="row-7")])]), messages("how  many BASKETS, of plums"))
    assert found.marked == ["how  many", "How many "]
    assert "data/train.jsonl, row 0, id row-7 · score 0.800, with the cap 0.833" in found.text()
    assert "one holds" not in found.text()
    assert "train holds more than 2 % of the instances of one" in found.text()


def test_nothing_of_the_data_becomes_markup(tmp_path: Path) -> None:
    each = facts(eval_set("one", [HOSTILE]), unprotected={HOSTILE: [0]})
    odd = facts(eval_set("<i>odd<script>", [HOSTILE], "unseen"))
    rows = [match(0, 0, id=HOSTILE), match(0, 1, runs=[0, 40, 0, 5, 60, 8])]
    chosen = scan([each, odd], [shard(rows, [near(0, 1)])], near=True)
    found = page(tmp_path, chosen, messages(HOSTILE))
    assert found.tags <= TAGS
    assert found.attributes <= ATTRIBUTES
    source = (tmp_path / "report.html").read_text()
    assert "alert(1)" in found.text()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", source)
    assert "default-src 'none'" in source.replace("&#x27;", "'")
    assert all(target.startswith("#") for target in re.findall('href="([^"]*)"', source))


def test_hits_that_the_cap_acquits_are_folded(tmp_path: Path) -> None:
    each = facts(eval_set("one", ["kept text", "acquitted", "both"]))
    rows = [match(0, 0), match(1, 1, EXACT), match(2, 1, EXACT), match(1, 2, EXACT), match(0, 2)]
    found = page(tmp_path, scan([each], [shard(rows)]), messages("first message", "second message", "third"))
    assert "1 instance held only through common phrases" in found.text()
    assert "one-1" in found.hidden()
    assert "one-1" not in found.text()
    assert "one-2" in found.text(), "an instance with a match that stays is not boilerplate"
    assert "Not shown: 1 more matches of these instances; see matches.jsonl." in found.hidden()


def test_text_of_safety_evals_waits_to_be_opened(tmp_path: Path) -> None:
    each = facts(eval_set("safe", ["something unpleasant"], "safety"))
    found = page(tmp_path, scan([each], [shard([match(0, 0)])]), messages("an unpleasant message"))
    assert "unpleasant" not in found.text()
    assert "an unpleasant message" in found.hidden()
    assert "safe-0" in found.text()


def test_a_cell_shows_the_best_match_of_so_many_instances_and_counts_the_rest(tmp_path: Path) -> None:
    each = facts(eval_set("one", [f"text {i}" for i in range(30)]))
    rows = [match(i, i, score=0.6 + i / 100) for i in range(30)] + [match(40, 29, score=0.95)]
    found = page(tmp_path, scan([each], [shard(rows)]), messages(*["m"] * 41), shown=3)
    shown = re.findall(r"one-(\d+) · data/train.jsonl, row (\d+)", found.text())
    assert shown == [("29", "40"), ("28", "28"), ("27", "27")]
    assert "Not shown: 27 more instances and 1 more matches of these instances; see matches.jsonl." in found.text()


def test_near_duplicates_are_folded_and_those_of_exact_matches_left_out(tmp_path: Path) -> None:
    each = facts(eval_set("one", ["exact text", "near text"]))
    chosen = scan([each], [shard([match(0, 0)], [near(0, 0), near(1, 1, score=88.0)])], near=True)
    found = page(tmp_path, chosen, messages("exact text", "nearly text"))
    assert "1 instance only near-duplicates" in found.text()
    assert "one-1 · data/train.jsonl, row 1 · near-duplicate 88.0" in found.hidden()
    assert "near-duplicate 91" not in found.hidden()


def test_rows_of_later_shards_are_fetched_by_their_number_in_the_file(tmp_path: Path) -> None:
    each = facts(eval_set("one", ["text"] * 2))
    shards = [shard([match(0, 0)]), shard([match(0, 1, SHORT)], first_row=1)]
    found = page(tmp_path, scan([each], shards), messages("of the first", "of the second"))
    assert found.marked == ["of the fi", "text", "of the se", "text"]


def test_a_text_that_cannot_be_read_is_said_to_be_gone(tmp_path: Path) -> None:
    each = facts(eval_set("one", ["text"]))
    found = page(tmp_path, scan([each], [shard([match(5, 0)])]), messages())
    assert "the text cannot be read" in found.text()


def test_evals_that_are_not_hit_are_named_and_unprotected_ones_listed(tmp_path: Path) -> None:
    evals = [facts(eval_set("one", ["t"] * 80), unprotected={"too short": range(60)}), facts(eval_set("two", ["t"]))]
    found = page(tmp_path, scan(evals, [shard([])]), messages())
    assert "Nothing of one, two." in found.text()
    assert "nothing is over the limit" in found.text()
    assert "one: 60 of 80" in found.text()
    assert "one-49 and 10 more (summary.json)" in found.hidden()


@pytest.mark.parametrize("near_dup", [False, True])
def test_the_same_scan_gives_the_same_bytes(tmp_path: Path, near_dup: bool) -> None:
    each = facts(eval_set("one", ["some text"] * 5))
    rows = [match(row, inst) for row in range(4) for inst in range(5)]
    found = []
    # Shards may be cut anywhere.
    for cut in ([rows], [rows[:5], rows[5:]], [rows[:15], rows[15:]]):
        shards = [
            shard([{**m, "row": m["row"] - part[0]["row"]} for m in part], [], first_row=part[0]["row"]) for part in cut
        ]
        out = tmp_path / str(len(found))
        out.mkdir()
        write_reports(out, scan([each], shards, near=near_dup), messages(*["a message"] * 4))
        found.append({str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()})
    assert found[0] == found[1] == found[2]
    names = ["clean_ids/one.txt", "matches.jsonl", "matrix.json", "matrix.md", "matrix.tsv"]
    assert list(found[0]) == names + ["near.jsonl"] * near_dup + ["report.html", "verdict.json"]
