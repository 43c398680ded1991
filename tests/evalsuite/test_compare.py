"""Two scorecards compared: pairs, flips, refusals, marks, and one beside published numbers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from evalsuite.__main__ import main
from evalsuite.compare import Clean, compare, to_json, without
from evalsuite.errors import UsageError
from evalsuite.scorecard import Scorecard, group_result, write
from evalsuite.stats import mcnemar
from evalsuite.tables import write as written
from evalsuite.tables.clean import read_reported
from evalsuite.tables.compare import table
from tests.evalsuite.cards import flips, make_card, make_result

REPOSITORY = Path(__file__).parents[2]


def pair() -> tuple[Scorecard, Scorecard]:
    """gsm8k: B loses 30 and wins none of 200; mmlu: 3 flips each way."""
    a = make_card("old", {"gsm8k": flips(200, range(10)), "mmlu": flips(100, range(3))})
    b = make_card("new", {"gsm8k": flips(200, range(40)), "mmlu": flips(100, range(3, 6))})
    return a, b


def test_thirty_losses_and_no_win_are_a_proof_and_three_each_way_are_none() -> None:
    made = compare(*pair())
    gsm8k, mmlu = made.benchmarks
    assert (gsm8k.first, gsm8k.second, gsm8k.pair.difference) == (0.95, 0.8, pytest.approx(-0.15))
    assert (gsm8k.pair.wins, gsm8k.pair.losses, gsm8k.better) == (0, 30, "A")
    assert gsm8k.pair.p == pytest.approx(2 * 0.5**31)  # mid-p: half of the one tie with k = 0, both sides
    assert gsm8k.p_holm == pytest.approx(2 * gsm8k.pair.p)
    assert (mmlu.pair.wins, mmlu.pair.losses, mmlu.pair.p, mmlu.better) == (3, 3, 1.0, "")
    assert made.average is not None
    assert made.average.difference == pytest.approx(-0.075)


def test_a_card_compared_with_itself_differs_in_nothing() -> None:
    a, _ = pair()
    made = compare(a, a)
    assert [(c.pair.difference, c.pair.p, c.better) for c in made.benchmarks] == [(0.0, 1.0, "")] * 2


def test_swapping_the_sides_mirrors_the_comparison() -> None:
    a, b = pair()
    forth, back = compare(a, b), compare(b, a)
    for one, other in zip(forth.benchmarks, back.benchmarks, strict=True):
        assert one.pair.difference == -other.pair.difference
        assert (one.p_holm, one.pair.wins) == (other.p_holm, other.pair.losses)


def test_scores_are_those_of_the_shared_samples_and_the_rest_is_counted() -> None:
    a = make_card("a", {"gsm8k": make_result("gsm8k", flips(10, [9]))})
    b = make_card("b", {"gsm8k": make_result("gsm8k", flips(10, [0]), first=4, failures=2)})
    (only,) = compare(a, b).benchmarks
    # shared q4…q9: A wrong on q9, B wrong on q4
    assert (only.pair.n, only.first, only.second) == (6, pytest.approx(5 / 6), pytest.approx(5 / 6))
    assert (only.n_only_first, only.n_only_second) == (4, 4)
    text = written(table(compare(a, b)), "terminal")
    assert "4 samples of A have no partner and are left out" in text
    assert "B: 16.7 % of samples failed (2 of 12)" in text


def test_a_macro_benchmark_is_compared_by_its_macro_mean() -> None:
    categories = [*"aaaa", "b"]
    a = make_card("a", {"bench": make_result("bench", [1.0, 1.0, 1.0, 1.0, 0.0], categories=categories)})
    b = make_card("b", {"bench": make_result("bench", [1.0, 1.0, 0.0, 0.0, 1.0], categories=categories)})
    (only,) = compare(a, b).benchmarks
    # macro: A (1 + 0)/2 = .5, B (.5 + 1)/2 = .75; plain means would be .8 and .6
    assert (only.first, only.second, only.pair.difference) == (0.5, 0.75, 0.25)


def test_clusters_widen_the_interval() -> None:
    wrong = [i for i in range(60) if i // 10 in (0, 1, 2)]
    groups = [f"passage{i // 10}" for i in range(60)]

    def width(clusters: list[str]) -> float:
        a = make_card("a", {"drop": make_result("drop", flips(60, []), clusters=clusters)})
        b = make_card("b", {"drop": make_result("drop", flips(60, wrong), clusters=clusters)})
        test = compare(a, b).benchmarks[0].pair
        assert test.high is not None
        assert test.low is not None
        return test.high - test.low

    assert width(groups) > 3 * width([])
    assert compare(*pair()).benchmarks[0].pair.n_clusters is None


def test_holm_is_taken_over_the_benchmarks() -> None:
    # Eleven benchmarks without a flip; one with 1 win and 8 losses: mid-p .0215 alone, .26 among twelve.
    same = {f"b{i}": flips(50, []) for i in range(11)}
    a = make_card("a", {**same, "gsm8k": flips(50, [0])})
    b = make_card("b", {**same, "gsm8k": flips(50, range(1, 9))})
    made = {c.column: c for c in compare(a, b).benchmarks}
    assert made["gsm8k"].pair.p == mcnemar(1, 8, mid=True)
    assert made["gsm8k"].pair.p < 0.05
    assert made["gsm8k"].p_holm == pytest.approx(12 * made["gsm8k"].pair.p)
    assert made["gsm8k"].better == ""


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"suite": "other"}, "suite demo and other"),
        ({"regime": "demo@v2"}, "regime demo@v1 and demo@v2"),
        ({"suite_digest": "e" * 64}, "suite digests dddddddddddd and eeeeeeeeeeee"),
    ],
)
def test_other_suites_and_regimes_are_refused_with_both_names(change: dict[str, str], names: str) -> None:
    a = make_card("a", {"gsm8k": flips(9, [])})
    b = make_card("b", {"gsm8k": flips(9, [1])}, **change)  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        compare(a, b)
    assert names in str(caught.value)
    assert "--allow-mixed" in str(caught.value)
    assert compare(a, b, allow_mixed=True).benchmarks[0].pair.n == 9


def test_another_benchmark_digest_is_refused_by_name_and_marked_when_mixed() -> None:
    a = make_card("a", {"gsm8k": flips(9, []), "mmlu": flips(9, [])})
    changed = make_result("gsm8k", flips(9, [1]), digest="changed")
    b = make_card("b", {"gsm8k": changed, "mmlu": flips(9, [])}, suite_digest="e" * 64)
    with pytest.raises(UsageError, match="gsm8k has digests digest-of-gs and changed"):
        compare(a, b)
    made = table(compare(a, b, allow_mixed=True))
    assert [row.cells[0].marks for row in made.rows] == ["†", "", ""]


def test_no_shared_sample_is_an_error() -> None:
    a = make_card("a", {"gsm8k": make_result("gsm8k", flips(5, []))})
    b = make_card("b", {"gsm8k": make_result("gsm8k", flips(5, []), first=100)})
    with pytest.raises(UsageError, match="share no scored sample"):
        compare(a, b)


def test_an_average_needs_every_column_on_both_sides() -> None:
    a = make_card("a", {"gsm8k": flips(9, []), "mmlu": flips(9, [])}, missing=["drop"])
    b = make_card("b", {"gsm8k": flips(9, [1])}, missing=["drop", "mmlu"])
    made = compare(a, b)
    assert (made.average, made.n_columns, made.only_first, made.only_second) == (None, 3, ("mmlu",), ())
    text = written(table(made), "terminal")
    assert "No average: 1 of 3 columns are on both sides." in text
    assert "Not compared, only in A: mmlu." in text


def test_other_engines_are_said() -> None:
    a = make_card("a", {"gsm8k": flips(9, [])}, engine="hf")
    b = make_card("b", {"gsm8k": flips(9, [])}, engine="vllm")
    assert "Engines differ: A hf float32, B vllm float32." in table(compare(a, b)).caption


def test_the_table_reads_from_a_to_b_and_the_proven_side_is_bold() -> None:
    made = table(compare(*pair()))
    assert [c.heading for c in made.shown().columns] == ["benchmark", "n", "A", "B", "B − A", "A>B", "B>A", "p"]
    gsm8k, mmlu, average = made.rows
    assert [c.text for c in gsm8k.cells[:8]] == ["gsm8k", "200", "95.0", "80.0", "−15.0", "30", "0", "<0.001"]
    assert gsm8k.cells[4].error == "[−20.0, −10.0]"  # .15 ± 1.96 · √(.15·.85/199)
    assert [c.best for c in gsm8k.cells[2:4]] == [True, False]
    assert [c.best for c in mmlu.cells[2:4]] == [False, False]
    assert (average.kind, average.cells[4].text) == ("summary", "−7.5")
    assert max(map(len, written(made, "terminal").splitlines()[2:7])) <= 80


def test_csv_has_every_number_of_the_comparison() -> None:
    row = next(csv.DictReader(io.StringIO(written(table(compare(*pair())), "csv"))))
    assert (row["a"], row["b"], row["difference"]) == ("95.0", "80.0", "-15.0")
    assert (row["a_better"], row["b_better"], row["n_unpaired"]) == ("30", "0", "0")
    assert float(row["low"]) < -15 < float(row["high"])
    assert (row["test"], row["metric"]) == ("mid-p McNemar", "exact_match")


def test_json_has_both_sides_and_numbers_from_zero_to_one() -> None:
    document = json.loads(to_json(compare(*pair())))
    assert (document["a"]["checkpoint"], document["b"]["checkpoint"]) == ("old", "new")
    assert document["benchmarks"][0]["difference"] == pytest.approx(-0.15)
    assert (document["benchmarks"][0]["better"], document["benchmarks"][1]["better"]) == ("A", None)
    assert document["average"]["difference"] == pytest.approx(-0.075)


def test_the_command_compares_by_name_and_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pair()
    write(a, tmp_path / "1" / "a.json")
    write(b, tmp_path / "2" / "b.json")
    assert main(["compare", "old", "new", "--results", str(tmp_path)]) == 0
    by_name = capsys.readouterr().out
    assert by_name.startswith("A = old, B = new\n")
    assert main(["compare", str(tmp_path / "1" / "a.json"), str(tmp_path / "2" / "b.json")]) == 0
    assert capsys.readouterr().out == by_name
    assert main(["compare", "old", "new", "--results", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"]["checkpoint"] == "old"
    assert main(["compare", "old", "nwe", "--results", str(tmp_path)]) == 2
    assert "did you mean 'new'" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["old"], ["old", "new", "--reference", "x"], ["old", "--reference", "all"]])
def test_the_command_wants_one_other_side(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *arguments]) == 2
    assert "--reference" in capsys.readouterr().err


def test_a_checkpoint_beside_published_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = {
        "gsm8k": make_result("gsm8k", flips(1000, range(235))),  # 76.5 against 76.2
        "bbh": make_result("bbh", flips(1000, range(400))),  # 60.0 against 67.9
        "popqa": make_result("popqa", flips(10, []), notes=("10 of 14267 samples",)),
    }
    card = make_card("mine", results, suite="tulu3-dev", regime="tulu3@v1", missing=["drop"])
    write(card, tmp_path / "a.json")
    (tmp_path / "reference").symlink_to(REPOSITORY / "results" / "reference")
    arguments = ["compare", "mine", "--reference", "tulu-3-8b-sft", "--results", str(tmp_path), "--format", "csv"]
    assert main(arguments) == 0
    rows = {row["benchmark"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "gsm8k": "reproduced",
        "bbh": "off by −7.9",
        "popqa": "not comparable (10 of 14267 samples)",
    }
    assert rows["gsm8k"]["source"].startswith("model card")
    assert main([*arguments[:-2]]) == 0
    assert "1 reproduced, 1 off, 1 not comparable." in capsys.readouterr().out


def test_another_regime_is_not_comparable_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = make_card("mine", {"gsm8k": flips(100, range(20))}, suite="tulu3-dev", regime="tulu3@v9")
    write(card, tmp_path / "a.json")
    (tmp_path / "reference").symlink_to(REPOSITORY / "results" / "reference")
    assert main(["compare", "mine", "--reference", "Tulu-3-8B-SFT", "--results", str(tmp_path)]) == 0
    assert "not comparable (regime tulu3@v9, published tulu3@v" in capsys.readouterr().out


def test_a_deviation_that_the_card_admits_forbids_the_word_reproduced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = {"gsm8k": make_result("gsm8k", flips(1000, range(238)), notes=("prompt: paraphrased",))}
    write(make_card("mine", scores, suite="tulu3-dev", regime="tulu3@v1"), tmp_path / "a.json")
    (tmp_path / "reference").symlink_to(REPOSITORY / "results" / "reference")
    assert main(["compare", "mine", "--reference", "Tulu-3-8B-SFT", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "not comparable (prompt: paraphrased)" in out
    assert "0 reproduced" in out


# -- without touched samples -------------------------------------------------------------------------------------------


def touch(folder: Path, benchmark: str, ids: Sequence[str], evals: Sequence[str] = ()) -> None:
    """A report with a list of touched samples, about these benchmarks."""
    (folder / "clean_ids").mkdir(parents=True, exist_ok=True)
    (folder / "clean_ids" / f"{benchmark}.txt").write_text("".join(f"{i}\n" for i in ids))
    (folder / "verdict.json").write_text(json.dumps({"schema": "decontam/1", "evals": list(evals)}))


def test_a_clean_comparison_counts_only_what_is_left() -> None:
    a, b = pair()
    # Of B's 30 losses (q10 … q39) twenty are touched, and of the ten that both have wrong (q0 … q9) none.
    touched = {"gsm8k": {f"q{i}" for i in range(20, 40)} | {"q999"}, "mmlu": set()}
    made = compare(a, b, touched=touched)
    gsm8k, mmlu = made.benchmarks
    assert (gsm8k.pair.n, gsm8k.pair.losses, gsm8k.pair.wins) == (180, 10, 0)
    assert (gsm8k.first, gsm8k.second) == (pytest.approx(170 / 180), pytest.approx(160 / 180))
    assert gsm8k.metric == "exact_match"
    assert mmlu.pair == compare(a, b).benchmarks[1].pair
    assert made.clean == Clean({"gsm8k": 20, "mmlu": 0})
    assert made.average is not None
    assert compare(a, b).clean is None


def test_a_clean_macro_mean_and_a_clean_group_are_of_the_same_kind_as_the_whole() -> None:
    macro = make_result("x", [1.0, 0.0, 1.0, 1.0], categories=["s", "s", "t", "t"])
    # macro (1/2 + 2/2)/2; without q0 of the first subject (0/1 + 2/2)/2
    assert without(macro, {"x": ["q0"]}).value == pytest.approx(0.5)
    group = group_result("g", [make_result("m1", [1.0, 0.0]), make_result("m2", [1.0, 1.0])])
    cut = without(group, {"m1": ["q0"]})
    assert (cut.value, sorted(cut.scores)) == (pytest.approx(0.5), ["m1/q1", "m2/q0", "m2/q1"])
    assert without(group, {"m1": ["q0", "q1"]}).value is None  # a mean of two needs both
    other = make_result("y", [1.0, 0.0, 0.0], value=0.9)  # a win rate that is no mean of the samples
    assert without(other, {"y": ["q0"]}).value == 0.9


def test_what_is_emptied_and_what_was_not_checked_is_said() -> None:
    a, b = pair()
    made = compare(a, b, touched={"gsm8k": [f"q{i}" for i in range(200)]})
    assert [c.column for c in made.benchmarks] == ["mmlu"]
    assert made.clean == Clean({"gsm8k": 200, "mmlu": 0}, ("gsm8k",), ("mmlu",))
    assert (made.average, made.only_first, made.only_second) == (None, (), ())
    said = written(table(made), "md")
    assert "Not compared, every sample is touched: gsm8k." in said
    assert "No report is about (all of) mmlu: all their samples count, touched or not." in said
    with pytest.raises(UsageError, match="touches every shared sample of gsm8k, mmlu; nothing is left"):
        compare(a, b, touched={"gsm8k": [f"q{i}" for i in range(200)], "mmlu": [f"q{i}" for i in range(100)]})


def test_the_command_reads_the_reports_beside_the_scorecards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for card in pair():
        write(card, tmp_path / f"{card.checkpoint.name}.json")
    typed = ["compare", "old", "new", "--results", str(tmp_path)]
    assert main([*typed, "--clean"]) == 2
    assert "expected a decontamination report" in capsys.readouterr().err
    touch(tmp_path / "decontam" / "mix", "gsm8k", ["q39", "q38"], evals=["gsm8k", "mmlu"])
    touch(tmp_path / "elsewhere", "gsm8k", ["q37"])
    assert main([*typed, "--clean"]) == 0
    said = capsys.readouterr().out
    assert "Without 2 samples that training data touches." in said
    assert "No report" not in said  # one is about mmlu, and found nothing there
    assert main([*typed, "--json", "--clean", "--clean", str(tmp_path / "elsewhere")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["clean"] == {"n_left_out": {"gsm8k": 3, "mmlu": 0}, "emptied": [], "unchecked": []}
    assert told["benchmarks"][0]["pair"]["n"] == 197
    assert main([*typed, "--format", "csv", "--clean", str(tmp_path / "elsewhere")]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["n_left_out"] for row in rows] == ["1", "0", ""]
    assert main([*typed, "--json"]) == 0
    assert "clean" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clean", "old", "new"], "--clean took 'old' for a report, put it last"),
        (["old", "--reference", "GPT", "--clean"], "published numbers have no samples"),
    ],
)
def test_a_clean_comparison_needs_two_scorecards(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_verdict_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "gsm8k", ["q1"])
    (tmp_path / "verdict.json").write_text("[]")
    with pytest.raises(UsageError, match=r"verdict\.json: not a decontamination verdict"):
        read_reported([tmp_path])
