"""The folders benchmarks/href and benchmarks/alpaca_eval: what is asked of a judge, and what is made of its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite.benchmark import Benchmark, find_benchmark
from evalsuite.checking import check_benchmark
from evalsuite.data import resolve_all
from evalsuite.errors import BenchmarkError, DataError
from evalsuite.grading import grade
from evalsuite.harness import build_plan, datasets_of
from evalsuite.judging import Judged
from evalsuite.plan import Plan, Selection
from evalsuite.protocol import load_protocol
from evalsuite.scorecard import Result
from evalsuite.types import GenerateRequest, Response, Score
from evalsuite.verify import bertscore
from evalsuite.verify.href import DEV_TASKS, TASKS
from evalsuite.verify.judge import NoVerdict, Unjudged, Verdict
from evalsuite.verify.judge_prompt import fenced_blocks, fill
from evalsuite.verify.summary import JudgedRow, Summary, SummaryContext
from tests.evalsuite.test_hub import in_fresh_process
from tests.evalsuite.verify.lc_oracle import expected, made, write_gamed
from tests.hub import serve, write_repo

ABSENT = NoVerdict("engine", "no bertscore: made up")
CONTEXT = SummaryContext((), 0)


@pytest.fixture(scope="module")
def href() -> Benchmark:
    return find_benchmark("href")


@pytest.fixture(scope="module")
def alpaca() -> Benchmark:
    return find_benchmark("alpaca_eval")


@pytest.fixture(scope="module")
def rows(href: Benchmark) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (href.folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def no_bertscore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertscore, "load", lambda: ABSENT)


@pytest.fixture
def longer_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """In BERTScore's place: a text is as near to the reference as it is long."""

    class Longer:
        identity = "longer"

        def __call__(self, texts: Sequence[str], references: Sequence[str]) -> list[float]:
            return [float(len(t)) for t in texts]

    monkeypatch.setattr(bertscore, "load", lambda: Longer())


def turns(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    return json.dumps(messages)


def plan_of(benchmark: Benchmark, root: Path) -> Plan:
    return build_plan(benchmark, resolve_all(datasets_of(benchmark), (root,), offline=True), turns)


# -- folders --


@pytest.mark.parametrize("name", ["href", "alpaca_eval"])
def test_evalsuite_check_finds_nothing_wrong(name: str) -> None:
    finding = check_benchmark(find_benchmark(name), roots=[])
    assert finding.problems == ()
    assert finding.n_cases >= 7


def test_the_settings_are_the_published_ones(href: Benchmark, alpaca: Benchmark) -> None:
    asked = {"max_gen_toks": 8192, "do_sample": False}
    assert href.tasks[0].config["generation_kwargs"] == {"until": [], **asked}
    assert alpaca.tasks[0].config["generation_kwargs"] == {"until": ["</s>"], **asked}
    assert (href.meta.split, alpaca.meta.split) == ("unseen", "development")
    assert (href.meta.judge, alpaca.meta.judge) == ("href", "alpaca_eval")
    assert (href.meta.metric, alpaca.meta.metric) == ("win_rate", "length_controlled_winrate")


def test_stock_lm_eval_is_told_the_length_alone(href: Benchmark, alpaca: Benchmark) -> None:
    for benchmark in (href, alpaca):
        assert benchmark.module is not None
        assert benchmark.module.process_results({}, ["four"]) == {"avg_length": 4.0}


@pytest.mark.parametrize(("name", "templates"), [("href", 2), ("alpaca_eval", 1)])
def test_every_question_fits_its_protocol(name: str, templates: int, rows: list[dict[str, Any]]) -> None:
    protocol, module = load_protocol(name), find_benchmark(name).module
    assert module is not None
    asked = [ask for row in rows for ask in module.asks("A response.", row)]
    assert {ask.template for ask in asked} == set(protocol.templates)
    assert len(protocol.templates) == len(protocol.official_sha256) == templates
    assert all(set(ask.fields) == set(protocol.templates[ask.template].fields) for ask in asked)
    assert protocol.seed == module.ORDER_SEED


@pytest.mark.parametrize("name", ["href", "alpaca_eval"])
def test_the_question_is_asked_again_below_the_material(name: str) -> None:
    """An order at the end of a response is not the last thing that the judge reads."""
    protocol = load_protocol(name)
    for template in protocol.templates.values():
        texts = {field: f"text of {field}" for field in template.fields}
        user = fill(template, texts).turns[-1][1]
        assert dict(fenced_blocks(user)) == texts
        below = user[user.rindex("⟦/") :]
        assert "better" in below
        assert any(answer in below for answer in ("A, B or tie?", "m or M"))


# -- HREF: methods and questions --


def test_three_made_up_rows_of_each_task_are_shipped(rows: list[dict[str, Any]]) -> None:
    assert [row["category"] for row in rows] == [task for task in sorted(TASKS, key=order(rows)) for _ in range(3)]
    assert len({row["instruction"] for row in rows}) == 33


def order(rows: list[dict[str, Any]]) -> Any:
    return [row["category"] for row in rows].index


@pytest.mark.parametrize(
    ("method", "tasks"),
    [
        (
            "judge_with_reference",
            {"Generation", "Rewrite", "Classify", "Closed QA", "Extract", "Reasoning Over Numerical Data"}
            | {"Multi-Document Synthesis"},
        ),
        ("judge_without_reference", {"Brainstorm", "Summarize"}),
        ("bertscore", {"Open QA", "Fact Checking or Attributed QA"}),
    ],
)
def test_each_task_has_its_method(method: str, tasks: set[str], href: Benchmark, rows: list[dict[str, Any]]) -> None:
    module: Any = href.module
    assert {task for task, m in module.METHODS.items() if m == method} == tasks
    template = module.TEMPLATES.get(method)
    for row in rows:
        if row["category"] in tasks:
            asked = module.asks("A response.", row)
            assert [a.template for a in asked] == ([] if template is None else [template])
            assert all(a.fields["output_1"] == row["output"] and a.fields["output_2"] == "A response." for a in asked)
            assert all(("reference" in a.fields) == (method == "judge_with_reference") for a in asked)


def test_methods_that_are_not_there_are_refused_all_at_once(tmp_path: Path, href: Benchmark) -> None:
    module: Any = href.module
    lines = [f"{task}: bertscore" for task in TASKS[2:]] + ["Generation: judge_with_referense", "Rewriting: bertscore"]
    (tmp_path / "methods.yaml").write_text("\n".join(lines))
    with pytest.raises(BenchmarkError) as refused:
        module._read_methods(tmp_path / "methods.yaml")
    assert [line.partition("methods.yaml: ")[2] for line in str(refused.value).splitlines()] == [
        "no method for 'Open QA'",
        "'Rewriting' is no task; did you mean 'Rewrite'?",
        "Generation: method is 'judge_with_referense'; did you mean 'judge_with_reference'?",
    ]


def test_rows_that_cannot_be_judged_are_refused_with_the_first_twenty(
    href: Benchmark, rows: list[dict[str, Any]]
) -> None:
    module: Any = href.module
    brainstorm = next(row for row in rows if row["category"] == "Brainstorm")
    bad = [
        {**rows[0], "category": "Summarise"},
        {**rows[0], "output": " "},
        {**rows[0], "reference": None},
        {**brainstorm, "reference": ""},  # its judge sees no reference
    ]
    assert module.process_docs(rows) is rows
    with pytest.raises(DataError) as refused:
        module.process_docs([*rows, *bad * 10])
    lines = str(refused.value).splitlines()
    assert lines[0].startswith("30 rows cannot be used")
    assert lines[1:4] == [
        "  row 33: category is 'Summarise'; did you mean 'Summarize'?",
        "  row 34: output is empty",
        "  row 35: reference is empty",
    ]
    assert (len(lines), lines[-1]) == (22, "  … 30 rows in all")


def test_a_failed_judgement_is_no_score(href: Benchmark, alpaca: Benchmark, rows: list[dict[str, Any]]) -> None:
    for benchmark in (href, alpaca):
        assert benchmark.module is not None
        with pytest.raises(Unjudged, match="unparsed"):
            benchmark.module.verify_judged("x", rows[0], (NoVerdict("unparsed"),))


def test_bertscore_decides_its_tasks_all_at_once(
    href: Benchmark, rows: list[dict[str, Any]], longer_is_better: None
) -> None:
    module: Any = href.module
    doc = next(row for row in rows if row["category"] == "Open QA")
    pairs = [("x" * 999, doc), ("x", doc), (doc["output"], doc)]
    assert [score.value for score in module.verify_unasked(pairs)] == [1.0, 0.0, 0.5]
    assert module.verify_judged("x", doc, ()).value == 0.0


def test_without_bertscore_its_tasks_have_a_reason(
    href: Benchmark, rows: list[dict[str, Any]], no_bertscore: None
) -> None:
    module: Any = href.module
    doc = next(row for row in rows if row["category"] == "Open QA")
    assert [type(f) for f in module.verify_unasked([("x", doc), (doc["output"], doc)])] == [NoVerdict, Score]
    with pytest.raises(Unjudged, match="no bertscore"):
        module.verify_judged("x", doc, ())


# -- HREF: from answers to the column --


def judged_result(plan: Plan, preferences: Mapping[str, float | None], responses: Mapping[str, str]) -> Result:
    """The Result when the judge says `preferences` (None: unreadable) by sample; other samples win."""
    module: Any = plan.benchmark.module
    verdicts: dict[tuple[str, int], tuple[Verdict | NoVerdict, ...]] = {}
    for sample, doc in plan.docs.items():
        preference = preferences.get(sample, 1.0)
        said = NoVerdict("unparsed") if preference is None else Verdict(preference)
        verdicts[sample, 0] = tuple(said for _ in module.asks(responses[sample], doc))
    answers = {(p.sample, 0): Response(responses[p.sample]) for p in plan.planned}
    return grade(plan, answers, judged=Judged(verdicts, {}), context=CONTEXT)


def href_root(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    write_repo(folder, "allenai/href", {"default": {"dev": [dict(row) for row in rows]}})
    return folder


def test_the_average_is_over_the_prompts_of_all_tasks(
    href: Benchmark, rows: list[dict[str, Any]], tmp_path: Path, longer_is_better: None
) -> None:
    kept = [row for row in rows if row["category"] in DEV_TASKS]
    plan = plan_of(href, href_root(tmp_path, kept))
    by_task: dict[str, list[str]] = {}
    for sample, doc in plan.docs.items():
        by_task.setdefault(doc["category"], []).append(sample)
    responses = dict.fromkeys(plan.docs, "x" * 500)  # longer than every baseline, so Open QA is won
    said: dict[str, float | None] = dict.fromkeys(by_task["Rewrite"], 0.0)
    said |= {by_task["Extract"][0]: 0.5, by_task["Extract"][1]: None}
    result = judged_result(plan, said, responses)
    # 24 rows: 3 losses, 1 tie, 1 failure, 19 wins.
    assert result.value == pytest.approx(19.5 / 23)
    assert result.parts["win_rate_official"].value == pytest.approx(19.5 / 24)
    assert result.parts["macro"].value == pytest.approx((6 + 0 + 0.75) / 8)
    assert (result.n, result.n_failed, result.n_planned) == (23, 1, 24)
    assert result.by_category["Extract"].value == 0.75
    assert result.parts["average_low"].value < result.value < result.parts["average_high"].value  # type: ignore[operator]
    assert any(note.startswith("href-dev (8 tasks): average +") for note in result.notes)


def test_without_bertscore_there_is_no_average(
    href: Benchmark, rows: list[dict[str, Any]], tmp_path: Path, no_bertscore: None
) -> None:
    plan = plan_of(href, href_root(tmp_path, rows))
    result = judged_result(plan, {}, dict.fromkeys(plan.docs, "A response."))
    assert (result.value, result.stderr) == (None, None)
    assert result.parts["average_of_judged"].value == 1.0
    assert (result.n, result.n_failed) == (27, 6)
    assert "Open QA: absent: no bertscore: made up" in result.notes
    assert "href (9 of 11 tasks)" in result.notes


@pytest.mark.parametrize("only", ["rows", "nothing"])
def test_a_run_without_any_verdict_has_no_value(only: str, href: Benchmark, rows: list[dict[str, Any]]) -> None:
    module: Any = href.module
    failed = [JudgedRow(str(n), "x", row, None, NoVerdict("transport")) for n, row in enumerate(rows)]
    found: Summary = module.summary(failed if only == "rows" else [], CONTEXT)
    assert (found.value, found.parts) == (None, {})
    assert "absent: nothing was judged" in found.notes


# Builds the plan of HREF from the hub, by name, in a fresh process, and prints what a model would be asked.
BY_NAME = """
import json
from evalsuite.benchmark import find_benchmark
from evalsuite.data import go_offline_when_local, resolve_all
from evalsuite.harness import build_plan, datasets_of
from tests.benchmarks.test_judged_pairwise import turns
benchmark = find_benchmark("href")
found = resolve_all(datasets_of(benchmark), (), offline=False)
go_offline_when_local(found.values())
plan = build_plan(benchmark, found, turns)
print(json.dumps([[p.sample, p.request.prompt.text] for p in plan.planned]))
"""


def test_rows_come_from_the_hub_by_name_as_they_come_from_a_folder(
    href: Benchmark, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    root = href_root(tmp_path / "root", rows)
    with serve(root) as hub:
        run = in_fresh_process(BY_NAME, home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
    assert run.returncode == 0, run.stderr
    asked = json.loads(run.stdout.splitlines()[-1])
    plan = plan_of(href, root)
    assert asked == [[p.sample, p.request.prompt.text] for p in plan.planned if isinstance(p.request, GenerateRequest)]
    assert [json.loads(text) for _, text in asked] == [[{"role": "user", "content": r["instruction"]}] for r in rows]
    assert plan.categories == {sample: doc["category"] for sample, doc in plan.docs.items()}
    assert "partial dataset 33/430" in plan.notes


# -- AlpacaEval: questions --


def test_the_real_instructions_are_asked_alone_and_judged_in_the_official_order(
    alpaca: Benchmark, hub_data: Path
) -> None:
    plan = plan_of(alpaca, hub_data)
    docs = list(plan.docs.values())
    assert [doc["position"] for doc in docs] == list(range(805))
    prompts = [p.request.prompt.text for p in plan.planned if isinstance(p.request, GenerateRequest)]
    assert [json.loads(text) for text in prompts] == [[{"role": "user", "content": d["instruction"]}] for d in docs]
    module: Any = alpaca.module
    asked = [ask for doc in docs for ask in module.asks("A response.", doc)]
    assert (len(asked), sum(ask.swapped for ask in asked)) == (805, 406)
    assert [ask.swapped for ask in asked[:8]] == [True, True, True, False, False, False, True, False]
    assert all(module.asks(doc["output"], doc) == () for doc in docs)
    assert sum(len(doc["output"]) for doc in docs) / 805 == pytest.approx(2049.4, abs=0.05)


def test_a_position_is_that_of_the_whole_dataset(alpaca: Benchmark, tmp_path: Path) -> None:
    docs = [{"dataset": "made-up", "instruction": f"i{n}", "output": "o", "generator": "g"} for n in range(40)]
    write_repo(tmp_path, "tatsu-lab/alpaca_eval", {"alpaca_eval_gpt4_baseline": {"eval": docs}})
    found = resolve_all(datasets_of(alpaca), (tmp_path,), offline=True)
    plan = build_plan(alpaca, found, turns, Selection(limit=5))
    assert {doc["position"]: doc["instruction"] for doc in plan.docs.values()} == {
        doc["position"]: f"i{doc['position']}" for doc in plan.docs.values()
    }
    assert len(plan.docs) == 5


# -- AlpacaEval: the numbers --


def judged_rows(seed: int, n_table: int = 805) -> list[JudgedRow]:
    """The made-up rows as the stage hands them to a summary; they are of a table of `n_table`."""
    found = []
    for pair in made(seed).pairs:
        doc = {"instruction": f"i{pair.position}", "output": "x" * pair.baseline_length, "position": pair.position}
        doc["n_table"] = n_table
        score = None if pair.preference is None else Score(pair.preference)
        failure = NoVerdict("unparsed") if score is None else None
        found.append(JudgedRow(str(pair.position), "x" * pair.length, doc, score, failure))
    return found


def data_root(folder: Path, seed: int, *, difficulties: bool = False, gamed: bool = True) -> SummaryContext:
    place = folder / "tatsu-lab" / "alpaca_eval"
    place.mkdir(parents=True)
    rows = made(seed).gamed
    if gamed:
        write_gamed(rows, place / "df_gamed.csv")
    if difficulties:
        first = rows[: len(rows) // 2]
        lines = [f"{row['index']},{row['instruction_difficulty']!r}" for row in first]
        (place / "instruction_difficulty.csv").write_text("\n".join([",instruction_difficulty", *lines]) + "\n")
    return SummaryContext((folder / "empty", folder), 0)


@pytest.mark.parametrize("seed", [2, 3])
def test_the_numbers_are_those_of_the_official_package(seed: int, alpaca: Benchmark, tmp_path: Path) -> None:
    module: Any = alpaca.module
    found: Summary = module.summary(judged_rows(seed), data_root(tmp_path, seed, difficulties=True))
    said = {v: expected()[seed, f"length_controlled_{v}"] for v in ("v1", "noreg", "minimal")}
    official, parts = said["v1"], found.parts
    assert found.value == pytest.approx(official["length_controlled_winrate"] / 100, abs=1e-8)
    for name, (value, *_) in parts.items():
        scale = 1 if name.startswith("n_") else 100
        if name in official:
            assert value * scale == pytest.approx(official[name], abs=1e-6), name
    assert parts["win_rate"][1] == pytest.approx(official["standard_error"] / 100, abs=1e-8)
    for variant in ("noreg", "minimal"):
        lc = said[variant]["length_controlled_winrate"]
        assert parts[f"LC ({variant})"][0] == pytest.approx(lc / 100, abs=1e-8)
    assert {*official} - {"length_controlled_winrate", "standard_error"} <= {*parts}
    assert found.stderr is not None
    assert 0.005 < found.stderr < 0.1
    assert found.notes == ()


@pytest.mark.parametrize(
    ("difficulties", "stands"), [(True, "LC (noreg)"), (False, "LC (minimal)")], ids=["difficulties", "nothing"]
)
def test_without_the_gamed_rows_the_column_is_absent(
    difficulties: bool, stands: str, alpaca: Benchmark, tmp_path: Path
) -> None:
    module: Any = alpaca.module
    context = data_root(tmp_path, 3, difficulties=difficulties, gamed=False)
    found: Summary = module.summary(judged_rows(3), context)
    assert (found.value, found.stderr) == (None, None)
    assert "LC" not in found.parts
    assert found.parts[stands][1] is not None
    assert found.notes[0].startswith("LC is absent: no df_gamed.csv in <data root>/tatsu-lab/alpaca_eval/; " + stands)


@pytest.mark.parametrize("n_table", [804, 806])
def test_in_another_table_positions_say_nothing_of_difficulties(
    n_table: int, alpaca: Benchmark, tmp_path: Path
) -> None:
    module: Any = alpaca.module
    found: Summary = module.summary(judged_rows(3, n_table), data_root(tmp_path, 3, difficulties=True))
    assert (found.value, found.stderr) == (None, None)
    assert [name for name in found.parts if name.startswith("LC")] == ["LC (minimal)"]
    minimal = expected()[3, "length_controlled_minimal"]["length_controlled_winrate"]
    assert found.parts["LC (minimal)"][0] == pytest.approx(minimal / 100, abs=1e-8)
    assert found.notes[0].startswith(f"LC is absent: the table has {n_table} rows, and difficulties are known by the")


def test_two_files_that_disagree_are_noted_and_a_position_without_difficulty_is_refused(
    alpaca: Benchmark, tmp_path: Path
) -> None:
    module: Any = alpaca.module
    context = data_root(tmp_path, 3, difficulties=True)
    path = tmp_path / "tatsu-lab/alpaca_eval/instruction_difficulty.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "0,7.5", *lines[2:]]))
    rows = judged_rows(3)
    found: Summary = module.summary(rows, context)
    assert found.notes[0].startswith("df_gamed.csv and instruction_difficulty.csv differ in 1 difficulties")
    moved = [replace(r, doc={**r.doc, "position": r.doc["position"] + 1}) for r in rows]
    with pytest.raises(DataError, match="no difficulty for 1 of 150 instructions, the first at position 150"):
        module.summary(moved, context)


def test_a_model_identical_to_the_baseline_has_fifty(alpaca: Benchmark) -> None:
    module: Any = alpaca.module
    same = [replace(r, response=r.doc["output"], score=Score(0.5), failure=None) for r in judged_rows(3)]
    found: Summary = module.summary(same, CONTEXT)
    assert (found.value, found.parts["win_rate"][0], found.parts["discrete_win_rate"][0]) == (0.5, 0.5, 0.5)
    assert [found.parts[f"lc_weight_{w}"][0] for w in ("length", "difficulty", "model")] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: rows[:20], "20 judged rows are too few, 50 are needed"),
        (lambda rows: [replace(r, score=Score(1.0), failure=None) for r in rows], "all preferences are equal"),
        (lambda rows: [], "0 judged rows are too few"),
    ],
)
def test_where_no_length_can_be_controlled_the_reason_is_said(change: Any, why: str, alpaca: Benchmark) -> None:
    module: Any = alpaca.module
    found: Summary = module.summary(change(judged_rows(3)), CONTEXT)
    assert found.value is None
    assert found.notes[0].startswith(f"LC is absent: {why}")


def test_a_grade_carries_the_column_and_the_paired_scores(alpaca: Benchmark, tmp_path: Path) -> None:
    docs = [{"dataset": "made-up", "instruction": f"i{n}", "output": "o" * 50, "generator": "g"} for n in range(60)]
    write_repo(tmp_path, "tatsu-lab/alpaca_eval", {"alpaca_eval_gpt4_baseline": {"eval": docs}})
    plan = plan_of(alpaca, tmp_path)
    responses = {sample: "x" * (20 + n) for n, sample in enumerate(plan.docs)}
    said: dict[str, float | None] = {sample: n / 59 for n, sample in enumerate(plan.docs)}
    result = judged_result(plan, said, responses)
    assert result.scores == said  # the gate pairs these
    assert result.value is None
    assert result.parts["win_rate"].value == pytest.approx(0.5)
    assert result.parts["avg_length"].value == pytest.approx(20 + 59 / 2)
    assert any(note.startswith("LC is absent: the table has 60 rows") for note in result.notes)
