"""The data card says what the sidecar says, and the sums in it close."""

from __future__ import annotations

from pathlib import Path

from tests.train_plugins.data.mixing import POISON, Decontam, make, row, source, write_mix, write_rows
from train_plugins.data.tally import Tally


def cells(card: str, title: str) -> list[list[str]]:
    """The rows of the table below a heading, without its head."""
    part = card.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_card_tells_sources_drops_decontamination_and_composition(tmp_path: Path) -> None:
    rows = [row(str(i), f"question {i}", "one two three") for i in range(12)]
    write_rows(tmp_path / "a.jsonl", [*rows, row("d", "Question 3?"), row("p", f"{POISON} p")])
    write_rows(tmp_path / "b.jsonl", [row("x", "other | one", "word")])
    more = {"licence": "CC-BY-4.0", "made_by": "synthetic:gpt", "skills": ["math", "chat"], "note": "a remark"}
    path = write_mix(
        tmp_path, source("a.jsonl", count=10), source("b.jsonl", **more), decontam={"against": ["toy"]}, about="A try."
    )
    meta = make(path, run=Decontam())
    card = (tmp_path / "m.card.md").read_text()
    assert card.startswith("# m\n\nA try.\n")
    assert meta["digest"] in card
    a, b = cells(card, "Sources")
    # 14 rows come in; a double and a hit go; 12 are left, of which 10 are taken.
    assert (a[0], a[3], a[6:]) == ("a", "MIT", ["14", "2", "10"])
    assert (b[0], b[3], b[4], b[5], b[6:]) == ("b", "CC-BY-4.0", "synthetic:gpt", "math, chat", ["1", "0", "1"])
    assert "- b: a remark" in card
    assert cells(card, "Rows left out") == [["a", "1", "1", "2"], ["b", "0", "0", "0"]]
    assert cells(card, "Decontamination") == [["a", "toy", "1"]]
    assert "The finished file against toy (evals: 1, rule tulu3): nothing found." in card
    # Ten rows of "question n" and three words: 50; "other | one" and "word" are four words.
    assert ["chat", "11", "54"] in cells(card, "Composition")
    assert ["math", "1", "4"] in cells(card, "Composition")
    assert str(tmp_path) not in card + (tmp_path / "m.jsonl.meta.json").read_text()


def test_a_waiver_stands_in_the_card(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [row("1", "Why?")])
    make(write_mix(tmp_path, source("a.jsonl")))
    assert "## Decontamination\n\nWaived: made up for a test" in (tmp_path / "m.card.md").read_text()


def test_lengths_are_told_by_tenths_of_the_rows() -> None:
    tally = Tally({})
    for n in range(1, 21):
        tally.add("a", row(str(n), " ".join(["w"] * n), ""))
    found = tally.report()["length"]
    # Lengths 1 to 20: two rows in each tenth; the first has 1 + 2 words, the last 19 + 20.
    assert len(found) == 10
    assert found["1–2"] == {"rows": 2, "tokens": 3}
    assert found["19–20"] == {"rows": 2, "tokens": 39}
