"""The leaderboard: rows, order, bold, marks, refusals and published rows."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from evalsuite.__main__ import main
from evalsuite.errors import UsageError
from evalsuite.reference import Published, pick
from evalsuite.scorecard import Metric, write
from evalsuite.tables import Cell, Table
from evalsuite.tables import write as written
from evalsuite.tables.leaderboard import card_table, home_suite, table
from tests.evalsuite.cards import flips, make_card, make_result


def cell(made: Table, row: str, column: str) -> Cell:
    index = [c.key for c in made.columns].index(column)
    (found,) = [r for r in made.rows if r.cells[0].text == row]
    return found.cells[index]


def bold(made: Table, column: str) -> list[str]:
    return [r.cells[0].text for r in made.rows if cell(made, r.cells[0].text, column).best]


def note(made: Table, mark: str) -> str:
    return dict(made.notes)[mark]


def published(model: str = "Paper-8B", benchmark: str = "gsm8k", value: float = 0.9, **changes: object) -> Published:
    fields = {"table": "t", "size": "8B", "stage": "SFT", "suite": "demo", "metric": "exact_match"}
    fields |= {"regime": "demo@v1", "source": "model card", "note": ""}
    return Published(
        **({**fields, "model": model, "benchmark": benchmark, "value": value, "unconfirmed": False} | changes)
    )  # type: ignore[arg-type]


def test_rows_are_ordered_by_average_and_cells_show_score_and_error() -> None:
    low = make_card("low", {"gsm8k": flips(100, range(60)), "mmlu": flips(100, range(50))})
    high = make_card("high", {"gsm8k": flips(100, range(10)), "mmlu": flips(100, range(20))})
    made = table([low, high])
    assert [r.cells[0].text for r in made.rows] == ["high", "low"]
    # 90 of 100: √(.9·.1/99) = 3.02 points; average (90 + 80)/2 with √(3.02² + 4.02²)/2 = 2.51: no digit after the point
    assert (cell(made, "high", "gsm8k").text, cell(made, "high", "gsm8k").error) == ("90", "±3")
    assert (cell(made, "high", "average").text, cell(made, "high", "average").error) == ("85", "±3")
    assert [c.under for c in made.columns if c.key == "gsm8k"] == [("n 100", "exact_match")]
    assert made.title == "demo · demo@v1 · suite digest dddddddddddd"


def test_a_row_that_was_trained_on_unchecked_data_says_so() -> None:
    scores = {"gsm8k": flips(100, range(60))}
    made = table([make_card("a", scores), make_card("b", scores, provenance={"decontamination_waived": "a dry run"})])
    assert [(name, cell(made, name, "checkpoint").marks) for name in "ab"] == [("a", ""), ("b", "ᵂ")]
    assert note(made, "ᵂ") == "trained on unchecked data (b: a dry run)"


def test_bold_is_the_best_and_what_is_not_proven_worse() -> None:
    # best misses 100 of 1000; near misses 8 others instead of 4 of these (4 wins, 8 losses: mid-p .27);
    # far misses 60 more (60 losses, no win).
    best = make_card("best", {"gsm8k": flips(1000, range(100))})
    near = make_card("near", {"gsm8k": flips(1000, [*range(4, 100), *range(500, 508)])})
    far = make_card("far", {"gsm8k": flips(1000, range(160))})
    made = table([far, near, best])
    assert bold(made, "gsm8k") == ["best", "near"]
    assert bold(made, "average") == ["best", "near"]


def test_ties_are_told_by_pairs_not_by_overlapping_errors() -> None:
    # 1.2 points apart with ±1.5 each: unpaired intervals overlap widely, but all 12 discordant samples are losses.
    best = make_card("best", {"gsm8k": flips(1000, range(300))})
    worse = make_card("worse", {"gsm8k": flips(1000, range(312))})
    assert bold(table([best, worse]), "gsm8k") == ["best"]


def test_holm_widens_the_tie_when_many_rows_are_tested() -> None:
    # 1 win against 8 losses: mid-p .0215, proven alone, not among five.
    best = make_card("best", {"gsm8k": flips(1000, [0])})
    rivals = [make_card(f"rival{i}", {"gsm8k": flips(1000, range(1 + i * 10, 9 + i * 10))}) for i in range(5)]
    assert bold(table([best, rivals[0]]), "gsm8k") == ["best"]
    assert len(bold(table([best, *rivals]), "gsm8k")) == 6


def test_a_single_row_is_not_bold() -> None:
    made = table([make_card("only", {"gsm8k": flips(10, [1])})])
    assert bold(made, "gsm8k") == []
    assert "bold" not in written(made, "terminal")
    assert "*:" not in written(made, "terminal")


def test_a_quick_look_that_did_well_is_neither_best_nor_tied() -> None:
    full = make_card("full", {"gsm8k": flips(1000, range(300))})
    other = make_card("other", {"gsm8k": flips(1000, range(500))})
    look = make_result("gsm8k", flips(20, []), notes=("20 of 1000 samples, drawn by seed 1234",))
    made = table([full, other, make_card("look", {"gsm8k": look})])
    assert bold(made, "gsm8k") == ["full"]
    assert bold(made, "average") == ["full"]
    assert cell(made, "look", "gsm8k").marks == "~"
    assert cell(made, "look", "average").marks == "~"
    assert note(made, "~") == "not the whole benchmark (gsm8k: 20 of 1000 samples, drawn by seed 1234)"
    assert next(c.under[0] for c in made.columns if c.key == "gsm8k") == "n 20–1000"


def test_a_partial_dataset_is_marked() -> None:
    part = make_result("gsm8k", flips(50, [0]), notes=("partial dataset 50/1319",))
    made = table([make_card("a", {"gsm8k": part})])
    assert cell(made, "a", "gsm8k").marks == "~"
    assert "partial dataset 50/1319" in written(made, "md")


def test_failed_and_truncated_shares_are_said_above_one_percent_only() -> None:
    bad = make_result("gsm8k", flips(97, []), failures=3, n_truncated=12)
    fine = make_result("mmlu", flips(100, []), failures=1, n_truncated=1)
    made = table([make_card("a", {"gsm8k": bad, "mmlu": fine})])
    assert cell(made, "a", "mmlu").marks == ""
    assert cell(made, "a", "gsm8k").marks == "a,b"
    assert note(made, "a") == "3.0 % of samples failed (3 of 100)"
    assert note(made, "b") == "12.4 % of answers truncated (12 of 97)"


def test_a_benchmark_that_failed_whole_shows_a_dash_and_why() -> None:
    failed = make_card("a", {"gsm8k": make_result("gsm8k", [], failures=5), "mmlu": flips(10, [])})
    other = make_card("b", {"gsm8k": flips(5, []), "mmlu": flips(10, [0])})
    made = table([failed, other])
    assert cell(made, "a", "gsm8k").text == "–"
    assert "100.0 % of samples failed (5 of 5)" in dict(made.notes).values()
    assert (cell(made, "a", "average").text, cell(made, "a", "average").error) == ("–", "1/2")


def test_an_average_over_fewer_columns_does_not_exist() -> None:
    columns = {f"b{i}": flips(20, range(i)) for i in range(6)}
    missing = [f"b{i}" for i in range(6, 12)]
    made = table([make_card("half", columns, missing=missing)])
    average = cell(made, "half", "average")
    assert (average.text, average.error, average.value) == ("–", "6/12", None)
    assert "6 of 12 columns: no average (not scored: b6, b7, b8, b9, b10, b11)." in made.caption


def test_a_row_without_a_column_keeps_its_place() -> None:
    whole = make_card("whole", {"gsm8k": flips(20, [1]), "mmlu": flips(20, [])})
    half = make_card("half", {"gsm8k": flips(20, [])}, missing=["mmlu"])
    made = table([half, whole])
    assert [r.cells[0].text for r in made.rows] == ["whole", "half"]
    assert cell(made, "half", "mmlu") == Cell(title="not scored")
    assert bold(made, "mmlu") == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"suite": "other"}, ("demo (demo@v1", "other (demo@v1", "--suite")),
        ({"regime": "demo@v2"}, ("demo (demo@v1", "demo (demo@v2", "score the older ones again")),
        ({"suite_digest": "e" * 64}, ("digest dddddddddddd", "digest eeeeeeeeeeee")),
    ],
)
def test_other_suites_and_regimes_are_refused_by_name(change: dict[str, str], names: tuple[str, ...]) -> None:
    cards = [make_card("a", {"gsm8k": flips(9, [])}), make_card("b", {"gsm8k": flips(9, [1])}, **change)]  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        table(cards)
    for name in (*names, "--allow-mixed"):
        assert name in str(caught.value)


def test_mixed_rows_are_marked_and_never_bold() -> None:
    home = [make_card(f"home{i}", {"gsm8k": flips(100, range(20 + 30 * i))}) for i in range(2)]
    guest = make_card("guest", {"gsm8k": flips(100, []), "drop": flips(10, [])}, suite="other")
    made = table([guest, *home], allow_mixed=True)
    assert made.title.startswith("demo ·")
    assert [cell(made, "guest", c).marks for c in ("gsm8k", "drop", "average")] == ["†", "†", "†"]
    assert bold(made, "gsm8k") == ["home0"]
    assert bold(made, "average") == ["home0"]
    assert "not comparable" in note(made, "†")


def test_equal_names_are_told_apart_by_what_differs() -> None:
    scores = {"gsm8k": flips(10, [0])}
    engines = [make_card("a", scores, engine="hf"), make_card("a", scores, engine="vllm")]
    assert [r.cells[0].text for r in table(engines).rows] == ["a [hf float32]", "a [vllm float32]"]
    assert "Engines: hf float32 (1 rows), vllm float32 (1 rows)." in table(engines).caption
    digests = [make_card("a", scores, digest="1" * 64), make_card("a", scores, digest="2" * 64)]
    assert [r.cells[0].text for r in table(digests).rows] == ["a (11111111)", "a (22222222)"]


def test_the_order_of_the_files_changes_nothing() -> None:
    rng = random.Random(3)
    cards = [
        make_card(f"c{i}", {b: [float(rng.random() < 0.6) for _ in range(60)] for b in ("gsm8k", "mmlu")})
        for i in range(6)
    ]
    first = written(table(cards), "html")
    for _ in range(3):
        rng.shuffle(cards)
        assert written(table(cards), "html") == first


def test_published_rows_stand_below_marked_and_are_never_bold() -> None:
    cards = [make_card("a", {"gsm8k": flips(100, range(40))}), make_card("b", {"gsm8k": flips(100, range(90))})]
    rows = (published(value=0.99), published(benchmark="average", value=0.98, unconfirmed=True))
    made = table(cards, [rows])
    assert [r.kind for r in made.rows] == ["measured", "measured", "reported"]
    assert bold(made, "gsm8k") == ["a"]
    assert cell(made, "Paper-8B", "checkpoint").marks == "ᴿ"
    assert note(made, "ᴿ") == "reported, not measured (model card)"
    assert (cell(made, "Paper-8B", "gsm8k").text, cell(made, "Paper-8B", "average").marks) == ("99.0", "?")


def test_published_rows_of_another_regime_are_marked_when_mixed() -> None:
    cards = [make_card("a", {"gsm8k": flips(100, range(40))})]
    home = home_suite(cards)
    rows = [published(regime="demo@v0")]
    with pytest.raises(UsageError, match="regime demo@v0, the scorecards of demo@v1"):
        pick(rows, ["paper-8b"], home)
    made = table(cards, pick(rows, ["paper-8b"], home, allow_mixed=True), allow_mixed=True)
    assert cell(made, "Paper-8B", "gsm8k").marks == "†"


def test_published_numbers_find_their_column_by_benchmark() -> None:
    card = make_card("a", {"mmlu": make_result("mmlu_cot", flips(10, []))})
    made = table([card], [(published(benchmark="mmlu_cot", value=0.659),)])
    assert cell(made, "Paper-8B", "mmlu").text == "65.9"


def test_no_scorecards_say_how_to_make_one() -> None:
    with pytest.raises(UsageError, match="evalsuite score"):
        table([])


def test_one_scorecard_is_a_table_of_its_benchmarks_and_their_other_metrics() -> None:
    parts = {"inst_level": Metric(0.5, 0.1, 30)}
    card = make_card("a", {"ifeval": make_result("ifeval", flips(20, [0]), parts=parts)}, missing=["mmlu"])
    made = card_table(card)
    texts = [[c.text for c in row.cells] for row in made.rows]
    assert texts == [
        ["ifeval", "95", "20", "0", "0", "exact_match"],
        ["", "50", "30", "", "", "inst_level"],
        ["average", "–", "", "", "", ""],
    ]
    assert "Not scored: mmlu." in made.caption
    assert card_table(card, ["⚑ overridden by Ana."]).caption[-1] == "⚑ overridden by Ana."


def test_the_command_prints_a_table_and_writes_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, wrong in (("a", 10), ("b", 40)):
        write(make_card(name, {"gsm8k": flips(100, range(wrong))}), tmp_path / "scorecards" / name / "s.json")
    assert main(["leaderboard", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[2].split() == ["checkpoint", "rank", "average", "gsm8k"]
    assert "90 ±3*" in out
    assert "\x1b" not in out
    target = tmp_path / "t.json"
    assert main(["leaderboard", str(tmp_path), "--out", str(target)]) == 0
    assert json.loads(target.read_text())["rows"][0]["cells"]["gsm8k"]["value"] == 0.9


def test_the_command_names_broken_files_and_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(make_card("a", {"gsm8k": flips(10, [0])}), tmp_path / "a.json")
    (tmp_path / "half.json").write_text('{"schema": 1')
    assert main(["leaderboard", str(tmp_path)]) == 2
    assert "half.json" in capsys.readouterr().err
    assert main(["leaderboard", str(tmp_path), "--skip-broken"]) == 0
    captured = capsys.readouterr()
    assert "half.json" in captured.err
    assert "90 ±10" in captured.out


def test_the_command_shows_shipped_reference_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = Path(__file__).parents[2]
    card = make_card("a", {"gsm8k": flips(10, [0])}, suite="tulu3-dev", regime="tulu3@v1", missing=["mmlu"])
    write(card, tmp_path / "a.json")
    (tmp_path / "reference").symlink_to(repository / "results" / "reference")
    assert main(["leaderboard", str(tmp_path), "--reference", "tulu-3-8b-sft", "--reference", "Tulu-3-8B"]) == 0
    out = capsys.readouterr().out
    assert "Tulu-3-8B-SFT ᴿ" in out
    assert "reported, not measured" in out
    assert main(["leaderboard", str(tmp_path), "--reference", "Tulu-3-8B-STF"]) == 2
    assert "did you mean 'Tulu-3-8B-SFT'" in capsys.readouterr().err


def test_no_reference_folder_is_an_error_only_when_it_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(make_card("a", {"gsm8k": flips(10, [0])}), tmp_path / "results" / "a.json")
    assert main(["leaderboard", "results"]) == 0
    assert main(["leaderboard", "results", "--reference", "all"]) == 2
    assert "published.csv" in capsys.readouterr().err
