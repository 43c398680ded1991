"""What the registry, the ledger and decontamination add to a leaderboard, and what may not be shown."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.errors import RegistryError, UnseenBudget, UsageError
from evalsuite.registry import Registry
from evalsuite.scorecard import group_result, write
from evalsuite.tables import Cell, Format, Table
from evalsuite.tables import write as written
from evalsuite.tables.clean import delta, read_touched
from evalsuite.tables.collect import collect, find_cards
from evalsuite.tables.leaderboard import card_table, table
from evalsuite.tables.marks import GateMarks, Released, gate_marks
from evalsuite.tables.terminal import display_width
from tests.evalsuite.cards import flips, make_card, make_result

GOLDEN = Path(__file__).parent / "golden"
A, B, C = ("aa" * 32, "bb" * 32, "cc" * 32)


def judged(registry: Registry, checkpoint: str, outcome: str, **finding: Any) -> str:
    """A verdict in the registry; returns its digest."""
    found = {"benchmark": "gsm8k", "reference": "champion", "n": 528, "n_planned": 1319, "k": 4} | finding
    suite = {"name": "demo", "digest": "d" * 64}
    digest = registry.put(
        {"outcome": outcome, "candidate": {"digest": checkpoint}, "suite": suite, "findings": [found]}
    )
    registry.record("verdict", ref="champion", id=checkpoint, verdict=digest)
    return digest


def promoted(registry: Registry, checkpoint: str, verdict: str, **changes: Any) -> None:
    fields: dict[str, Any] = {"checkpoint_id": checkpoint, "manifest": {}, "expected_generation": None}
    registry.promote("champion", **(fields | {"verdict": verdict} | changes))


def badges(root: Path) -> dict[str, str]:
    return {checkpoint[:2]: str(badge) for checkpoint, badge in gate_marks(root).badges.items()}


def cell(made: Table, row: str, column: str) -> Cell:
    index = [c.key for c in made.columns].index(column)
    (found,) = [r for r in made.rows if r.cells[0].text == row]
    return found.cells[index]


# -- the registry ------------------------------------------------------------------------------------------------------


def test_without_a_registry_nothing_is_marked_and_nothing_is_made(tmp_path: Path) -> None:
    assert gate_marks(tmp_path / "registry") == GateMarks()
    assert not (tmp_path / "registry").exists()


def test_badges_follow_a_checkpoint_through_its_history(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    promoted(registry, A, judged(registry, A, "promote"), event="bootstrap")
    registry.promote("anchor", checkpoint_id=A, manifest={}, expected_generation=0, verdict=None, event="anchor")
    judged(registry, B, "hold")
    judged(registry, C, "block")
    assert badges(tmp_path) == {"aa": "champion g1, anchor", "bb": "held", "cc": "blocked"}
    cleared = judged(registry, B, "promote")
    assert badges(tmp_path)["bb"] == "cleared"
    promoted(registry, B, cleared)
    assert badges(tmp_path) == {"aa": "promoted g1, anchor", "bb": "champion g2", "cc": "blocked"}
    registry.rollback("champion", to=None, reason="crashes")
    assert badges(tmp_path) == {"aa": "champion g3, anchor", "bb": "rolled back g2", "cc": "blocked"}
    assert (gate_marks(tmp_path).champion, gate_marks(tmp_path).generation) == (A, 3)


def test_an_override_stays_whatever_comes_after_it(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    verdict = judged(registry, A, "block")
    registry.record("override", verdict=verdict, reason="a flaky grader", detail={"by": "Ana"})
    promoted(registry, A, verdict)
    assert badges(tmp_path)["aa"] == "champion g1 ⚑ overridden by Ana"
    promoted(registry, B, judged(registry, B, "promote"))
    judged(registry, A, "promote")
    assert badges(tmp_path)["aa"] == "promoted g1 ⚑ overridden by Ana"
    assert gate_marks(tmp_path).overrides(A) == "⚑ overridden by Ana"
    assert gate_marks(tmp_path).overrides(B) == ""


def test_n_and_k_of_a_verdict_count_each_benchmark_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    findings = [
        {"benchmark": "gsm8k", "reference": "champion", "n": 528, "n_planned": 1319, "k": 4},
        {"benchmark": "gsm8k", "reference": "anchor", "n": 660, "n_planned": 1319, "k": 4},
        {"benchmark": "drop", "reference": "champion", "n": 950, "n_planned": 9500, "k": 1},
        {"benchmark": "", "rule": "infra", "n": None, "n_planned": None, "k": None},
    ]
    digest = registry.put({"outcome": "promote", "suite": {"name": "demo"}, "findings": findings})
    registry.record("verdict", ref="champion", id=A, verdict=digest)
    badge = gate_marks(tmp_path).badges[A]
    assert (badge.n, badge.n_planned, badge.k) == (660 + 950, 1319 + 9500, 4)
    assert "1610 of 10819 samples of demo, up to 4 answers to each" in badge.title


def test_a_damaged_registry_is_said_and_not_left_out(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for checkpoint in (A, B):
        judged(registry, checkpoint, "block")
    log = tmp_path / "log" / "audit.jsonl"
    log.write_text(log.read_text().replace('"verdict"', '"verdikt"', 1))
    with pytest.raises(RegistryError):
        gate_marks(tmp_path)


def test_released_unseen_numbers_come_from_the_ledger(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.record("epoch", ref="champion", detail={"suite": "demo"}, reason="start")
    registry.peeks.append("intent", id=A)
    registry.peeks.append("result", id=A, detail={"released": {"demo-unseen": {"value": 0.615, "eta": 0.005}}})
    marks = gate_marks(tmp_path)
    assert marks.released == {A: (Released("demo-unseen", 0.615, 0.005),)}
    cards = [make_card("a", {"x": flips(9, [1])}, digest=A), make_card("b", {"x": flips(9, [2])}, digest=B)]
    made = table(cards, marks=marks)
    assert (cell(made, "a", "demo-unseen").text, cell(made, "a", "demo-unseen").marks) == ("61.5", "ᵁ")
    assert cell(made, "b", "demo-unseen").text == "–"
    assert cell(made, "a", "average").value == pytest.approx(8 / 9)


# -- unseen and early --------------------------------------------------------------------------------------------------


def test_an_unseen_score_is_shown_in_steps_and_never_tested() -> None:
    # 613 of 1000: SE √(.613·.387/999) = 1.54 points is the step; 40 steps are 61.6. 500 of 1000: 32 steps of 1.58.
    unseen = [make_result("u", flips(1000, range(k)), split="unseen") for k in (387, 500)]
    made = table([make_card(name, {"u": r}) for name, r in zip("ab", unseen, strict=True)])
    shown = cell(made, "a", "u")
    assert (shown.text, shown.error, shown.stderr, shown.marks) == ("62", "", None, "ᵁ")
    assert shown.value == pytest.approx(40 * 0.01541, abs=1e-4)
    assert not any(c.best for row in made.rows for c in row.cells)
    assert "rank" not in [c.key for c in made.columns]
    assert cell(made, "a", "average").value == shown.value


def test_a_small_error_still_leaves_steps_of_half_a_point() -> None:
    # 61,300 of 100,000 has an SE of .15 points: the step is .5, and 61.3 becomes 61.5
    exact = make_result("u", [1.0] * 10, split="unseen", value=0.613, stderr=0.0015)
    assert cell(table([make_card("a", {"u": exact})]), "a", "u").text == "61.5"


def test_seen_and_unseen_columns_have_no_average_together() -> None:
    both = {"x": flips(10, [1]), "u": make_result("u", flips(10, [1]), split="unseen")}
    average = cell(table([make_card("a", both)]), "a", "average")
    assert (average.text, average.value) == ("–", None)


def test_what_a_gate_stopped_early_is_no_number() -> None:
    note = "stopped early: 528 of 1319 samples, look 4 of the gate 1a2b"
    early = make_card("early", {"x": make_result("x", flips(528, []), notes=(note,)), "y": flips(10, [])})
    full = [make_card(f"full{i}", {"x": flips(1319, range(400 + 300 * i)), "y": flips(10, [1])}) for i in range(2)]
    made = table([early, *full])
    assert (cell(made, "early", "x").text, cell(made, "early", "x").value) == ("~", None)
    assert (cell(made, "early", "average").text, cell(made, "early", "average").value) == ("–", None)
    assert note in dict(made.notes)["~"]
    assert [r.cells[0].text for r in made.rows if cell(made, r.cells[0].text, "x").best] == ["full0"]
    assert cell(made, "early", "rank").text == "–"
    assert card_table(early).rows[0].cells[1].text == "~"


def test_sealed_answers_are_in_no_table(tmp_path: Path) -> None:
    card = make_card("a", {"x": flips(9, [1])})
    for place in ("scorecards/a", "sealed/a", "gates/g1", "registry/objects"):
        write(make_card(place.replace("/", "-"), {"x": flips(9, [1])}), tmp_path / place / "s.json")
    write(card, tmp_path / "a.json")
    assert sorted(f.card.checkpoint.name for f in collect(tmp_path).found) == ["a", "scorecards-a"]
    sealed = tmp_path / "sealed" / "a"
    for ask in (lambda: collect(sealed), lambda: find_cards([str(sealed / "s.json")], tmp_path)):
        with pytest.raises(UnseenBudget, match="evalsuite release"):
            ask()
    assert main(["leaderboard", str(sealed)]) == 5


# -- clean deltas ------------------------------------------------------------------------------------------------------


def test_touched_samples_of_all_reports_add_up(tmp_path: Path) -> None:
    for report, name, ids in (("mix", "gsm8k", "q0\nq1\n"), ("web/part", "gsm8k", "q1\r\nq2"), ("mix", "mmlu", "")):
        folder = tmp_path / report / "clean_ids"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.txt").write_text(ids)
    assert read_touched([tmp_path]) == {"gsm8k": {"q0", "q1", "q2"}, "mmlu": set()}
    assert read_touched([tmp_path / "mix" / "clean_ids"])["gsm8k"] == {"q0", "q1"}
    assert read_touched([tmp_path / "nowhere"]) == {}
    with pytest.raises(UsageError, match=r"web/part/clean_ids.*no clean_ids/<benchmark>\.txt") as caught:
        read_touched([tmp_path, tmp_path / "web" / "part" / "clean_ids" / "x"], required=True)
    assert str(caught.value).startswith(str(tmp_path / "web"))


def test_a_delta_is_the_score_without_touched_samples_less_the_whole() -> None:
    # 8 of 10 right; the touched q0 and q1 are right, so 6 of 8 remain: 75 − 80 = −5 points
    result = make_result("x", flips(10, [8, 9]))
    found = delta(result, {"x": frozenset({"q0", "q1", "q99"}), "y": frozenset({"q3"})})
    assert found is not None
    assert (found.value, found.n_touched, found.n) == (pytest.approx(-0.05), 2, 10)
    assert delta(result, {"y": frozenset({"q0"})}) is None
    assert delta(result, {"x": frozenset(result.scores)}) is None


def test_a_delta_keeps_the_benchmarks_own_aggregate() -> None:
    # macro: (1/2 + 2/2)/2 = .75; without q0 of the first subject: (0/1 + 2/2)/2 = .5
    macro = make_result("x", [1.0, 0.0, 1.0, 1.0], categories=["s", "s", "t", "t"])
    found = delta(macro, {"x": frozenset({"q0"})})
    assert found is not None
    assert found.value == pytest.approx(-0.25)
    # a column of two benchmarks: ((1 of 2) + (2 of 2))/2 = .75; without q0 of the first (0 + 1)/2
    group = group_result("g", [make_result("m1", [1.0, 0.0]), make_result("m2", [1.0, 1.0])])
    found = delta(group, {"m1": frozenset({"q0"})})
    assert found is not None
    assert (found.value, found.n_touched) == (pytest.approx(-0.25), 1)


def test_the_command_reads_reports_and_registry_beside_the_scorecards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lay_out(tmp_path)
    assert main(["leaderboard", str(tmp_path)]) == 0
    here = capsys.readouterr().out
    assert main(["leaderboard", str(tmp_path / "scorecards")]) == 0
    assert capsys.readouterr().out == here
    assert "champion g1" in here
    assert "‡" in here
    assert main(["leaderboard", str(tmp_path), "--clean", str(tmp_path / "scorecards")]) == 2
    assert "clean_ids" in capsys.readouterr().err


def test_an_override_stands_below_every_other_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lay_out(tmp_path)
    assert main(["compare", "step-100", "step-300", "--results", str(tmp_path)]) == 0
    assert "B ⚑ overridden by Ana <ana@example>." in capsys.readouterr().out


# -- one table through every writer ------------------------------------------------------------------------------------


def lay_out(results: Path) -> None:
    """step-100 is champion; step-200 is better on mmlu and blocked; step-300 is worse, blocked and overridden."""
    wrong: Mapping[str, tuple[Any, Any]] = {
        "step-100": (range(300), range(400)),
        "step-200": (range(296), range(300)),
        "step-300": (range(420), range(399)),
    }
    registry = Registry(results / "registry", actor="ci", host="ci")
    for (name, (gsm8k, mmlu)), digest in zip(wrong.items(), (A, B, C), strict=True):
        cut = 40 if name == "step-300" else 0
        results_of = {"gsm8k": make_result("gsm8k", flips(1319, gsm8k), n_truncated=cut), "mmlu": flips(3000, mmlu)}
        write(make_card(name, results_of, digest=digest), results / "scorecards" / name / "demo.json")
    promoted(registry, A, judged(registry, A, "promote"), event="bootstrap")
    judged(registry, B, "block")
    overridden = judged(registry, C, "block")
    registry.record("override", id=C, verdict=overridden, reason="ship", detail={"by": "Ana <ana@example>"})
    registry.peeks.append("result", id=A, detail={"released": {"demo-unseen": {"value": 0.56, "eta": 0.02}}})
    (results / "decontam" / "mix" / "clean_ids").mkdir(parents=True)
    (results / "decontam" / "mix" / "clean_ids" / "gsm8k.txt").write_text("".join(f"q{i}\n" for i in range(290, 310)))


@pytest.fixture
def gated(tmp_path: Path) -> Table:
    from evalsuite.tables.collect import select

    lay_out(tmp_path)
    return table(
        select(collect(tmp_path).found),
        marks=gate_marks(tmp_path / "registry"),
        touched=read_touched([tmp_path / "decontam"]),
    )


@pytest.mark.parametrize(
    ("name", "form", "width"),
    [
        ("leaderboard.txt", "terminal", None),
        ("leaderboard.80.txt", "terminal", 80),
        ("leaderboard.200.txt", "terminal", 200),
        ("leaderboard.md", "md", None),
        ("leaderboard.tex", "latex", None),
        ("leaderboard.csv", "csv", None),
        ("leaderboard.json", "json", None),
        ("leaderboard.html", "html", None),
    ],
)
def test_the_gated_table_is_byte_for_byte_the_one_that_was_looked_at(
    gated: Table, name: str, form: Format, width: int | None
) -> None:
    assert written(gated, form, width=width) == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_numbers_of_the_gated_table_are_those_of_its_arithmetic(gated: Table) -> None:
    # gsm8k: SE √(.773·.227/1318) = 1.15 points leaves no digit; mmlu: √(.867·.133/2999) = .62 leaves one.
    assert (cell(gated, "step-100", "gsm8k").text, cell(gated, "step-100", "gsm8k").error) == ("77", "±1")
    assert (cell(gated, "step-100", "mmlu").text, cell(gated, "step-100", "mmlu").error) == ("86.7", "±0.6")
    # step-300 lost 120 samples of gsm8k to the champion and won none; on mmlu it won the one that differs: mid-p 1.
    assert (cell(gated, "step-300", "gsm8k").marks, cell(gated, "step-300", "mmlu").marks) == ("‡v,a", "")
    # step-200 won 4 and lost none: mid-p 2·½·2⁻⁴ = .0625, so step-100 ties with it. On mmlu it won 100.
    assert [cell(gated, name, "gsm8k").best for name in ("step-200", "step-100", "step-300")] == [True, True, False]
    assert (cell(gated, "step-200", "gsm8k").marks, cell(gated, "step-200", "mmlu").marks) == ("‡", "^")
    # Without q290 to q309, of which step-100 has 10 right: (1019 − 10)/1299 − 1019/1319 = +.42 points.
    assert cell(gated, "step-100", "gsm8k clean delta").value == pytest.approx(1009 / 1299 - 1019 / 1319)


@pytest.mark.parametrize("width", [80, 200])
def test_the_gated_table_fits_a_terminal_and_loses_nothing(gated: Table, width: int) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", written(gated, "terminal", width=width))
    assert max(map(display_width, text.splitlines())) <= width
    said = " ".join(text.split())
    for part in (
        "[3, 3]",
        "champion g1",
        "blocked ⚑ overridden by Ana <ana@example>",
        "77.4 ±0.7v",
        "68 ±1‡v,a",
        "56ᵁ",
    ):
        assert part in said
    assert text.count("step-300 ") == (3 if width == 80 else 2)  # once a block, and once in the note on ‡


def test_the_gated_table_for_programs_keeps_ranks_verdicts_and_deltas_as_numbers(gated: Table) -> None:
    rows = {row["checkpoint"]: row for row in csv.DictReader(io.StringIO(written(gated, "csv")))}
    last = rows["step-300"]
    assert (last["rank_low"], last["rank_high"], last["gsm8k marks"]) == ("3", "3", "‡v,a")
    assert (last["gate"], last["gate_n"], last["gate_n_planned"], last["gate_k"]) == (
        "blocked ⚑ overridden by Ana <ana@example>",
        "528",
        "1319",
        "4",
    )
    assert rows["step-100"]["demo-unseen"] == "56.0"
    assert rows["step-100"]["gsm8k clean delta"] == "0.4196"
    cells = json.loads(written(gated, "json"))["rows"][0]["cells"]
    assert (cells["rank"]["text"], cells["rank_low"]["value"], cells["average"]["marks"]) == ("[1, 1]", 1, "^")
    assert len(cells["gate_verdict"]["value"]) == 64


def test_the_gated_table_as_a_page_escapes_who_overrode(gated: Table) -> None:
    page = written(gated, "html")
    assert "blocked ⚑ overridden by Ana &lt;ana@example&gt;" in page
    assert '<b>83.8</b> <span class="error" style="min-width:4ch">±0.6</span><sup>^</sup>' in page
    assert "528 of 1319 samples of demo, up to 4 answers to each" in page
