"""DROP, MATH, GPQA, MMLU-Pro, AGIEval and DeepMind Mathematics on invented rows: loading, prompts, ids, averages.

None of these datasets is at hand. The rows follow their documented fields; they are read from a data root, and by
their hub names from the loopback hub with the real `load_dataset`.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evalsuite import exemplars
from evalsuite.benchmark import Benchmark, find_benchmark
from evalsuite.checking import check_benchmark
from evalsuite.data import Resolved, resolve_all
from evalsuite.errors import DataError
from evalsuite.grading import grade
from evalsuite.harness import build_plan, datasets_of, documents
from evalsuite.models.chat import ChatTemplate
from evalsuite.plan import Plan
from evalsuite.types import Response
from tests.benchmarks.test_folders import toy_template
from tests.evalsuite.test_hub import in_fresh_process
from tests.hub import serve, write_repo

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("drop", "math", "gpqa", "mmlu_pro", "agieval", "deepmind_math")
UNSEEN = ("gpqa", "mmlu_pro", "agieval", "deepmind_math")

Row = dict[str, Any]
Configs = dict[str, dict[str, list[Row]]]


# -- invented rows -----------------------------------------------------------------------------------------------------


def drop_row(n: int) -> Row:
    day = {"day": "", "month": "", "year": ""}
    spans = [f"Team {n}"] if n % 2 else []
    own = {"number": "" if spans else str(n), "date": day, "spans": spans, "worker_id": "", "hit_id": ""}
    seen = {"number": [str(n), ""], "date": [day, day], "spans": [[], [f"the {n}"]], "worker_id": ["", ""]}
    about = {"section_id": f"s{n}", "query_id": f"q{n}", "passage": f"Team {n} scored {n}.", "question": f"Who or {n}?"}
    return {**about, "answer": own, "validated_answers": seen}


def math_row(subject: str, n: int) -> Row:
    solution = f"We add and get $\\boxed{{{n}}}$."
    return {"problem": f"What is ${n}+0$ in {subject}?", "level": "Level 1", "type": subject, "solution": solution}


def gpqa_row(n: int) -> Row:
    wrong = {f"Incorrect Answer {i}": f" stone  {n}.{i} [title]hard [x]" for i in (1, 2, 3)}
    return {"Record ID": f"r{n}", "Question": f"Which stone is {n}?", "Correct Answer": f"gem {n}\n", **wrong}


def mmlu_pro_row(n: int) -> Row:
    count = 3 + n % 8  # three to ten options
    options = [f"choice {n}.{i}" for i in range(count)]
    right = n % count
    about = {"question_id": 70 + n, "question": f"Which choice is {n}?", "category": ("law", "physics")[n % 2]}
    return {**about, "options": options, "answer": "ABCDEFGHIJ"[right], "answer_index": right}


def agieval_row(exam: str, n: int) -> Row:
    passage = None if exam in ("sat-math", "aqua-rat") else f"A text on {exam}.\n\nIt has (B)two parts."
    options = [f"({letter}){exam} {n}" for letter in "ABCDE"[: 5 if exam.startswith("lsat") else 4]]
    return {"passage": passage, "question": f"What of {n}?", "options": options, "label": "ABCD"[n % 4], "answer": None}


def deepmind_row(category: str, n: int) -> Row:
    return {"question": f"b'Solve {n} + {n} for {category}.\\n'", "answer": f"b'{2 * n}\\n'"}


MATH_SUBJECTS = find_benchmark("math").meta.configs
EXAMS = find_benchmark("agieval").meta.configs
CATEGORIES = find_benchmark("deepmind_math").meta.configs
DATA: dict[str, tuple[str, Configs]] = {
    "drop": (
        "EleutherAI/drop",
        {"default": {"train": [drop_row(n) for n in range(9)], "validation": [drop_row(n) for n in range(10, 16)]}},
    ),
    "math": (
        "EleutherAI/hendrycks_math",
        {s: {"test": [math_row(s, n) for n in range(1 + i % 3)]} for i, s in enumerate(MATH_SUBJECTS)},
    ),
    "gpqa": ("Idavidrein/gpqa", {"gpqa_main": {"train": [gpqa_row(n) for n in range(6)]}}),
    "mmlu_pro": ("TIGER-Lab/MMLU-Pro", {"default": {"test": [mmlu_pro_row(n) for n in range(9)]}}),
    "agieval": ("RUCAIBox/agieval", {e: {"test": [agieval_row(e, n) for n in range(2)]} for e in EXAMS}),
    "deepmind_math": (
        "deepmind/math_dataset",
        {c: {"test": [deepmind_row(c, n) for n in range(130 if c == "arithmetic__mul" else 2)]} for c in CATEGORIES},
    ),
}


def reverse(configs: Configs) -> Configs:
    return {c: {s: rows[::-1] for s, rows in splits.items()} for c, splits in configs.items()}


def write_all(root: Path) -> Path:
    for dataset, configs in DATA.values():
        write_repo(root, dataset, configs)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("data"))


def resolve(benchmark: Benchmark, root: Path) -> Mapping[Any, Resolved]:
    return resolve_all(datasets_of(benchmark), [root], offline=True)


@functools.cache  # loading 56 configs takes seconds
def read(name: str, root: Path) -> dict[str, Any]:
    benchmark = find_benchmark(name)
    return dict(documents(benchmark, resolve(benchmark, root)))


@functools.cache
def plan_of(name: str, root: Path) -> Plan:
    benchmark = find_benchmark(name)
    return build_plan(benchmark, resolve(benchmark, root), toy_template)


def prompts(name: str, root: Path) -> dict[str, str]:
    """The one user turn of every 0-shot chat prompt, by sample id."""
    asked = {
        p.sample: [json.loads(line) for line in p.request.prompt.text.splitlines()] for p in plan_of(name, root).planned
    }  # type: ignore[union-attr]
    assert {tuple(turn["role"] for turn in turns) for turns in asked.values()} == {("user",)}
    return {sample: turns[0]["content"] for sample, turns in asked.items()}


# -- cases, metadata, golds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_hand_written_cases_score_as_written_with_and_without_quirks(name: str) -> None:
    benchmark = find_benchmark(name)
    module: Any = benchmark.module
    cases = [json.loads(line) for line in (benchmark.folder / "cases.jsonl").read_text().split("\n") if line]
    for case in cases:
        options = {"quirks": frozenset(case["quirks"])} if "quirks" in case else {}
        score = module.verify(case["response"], case["doc"], **options)
        assert (score.value, score.extracted) == (pytest.approx(case["value"]), case["extracted"]), case["note"]
        assert {k: score.parts[k] for k in case.get("parts", {})} == case.get("parts", {}), case["note"]
    assert {0.0, 1.0} <= {case["value"] for case in cases}
    assert any(case.get("quirks") == [] for case in cases) == bool(benchmark.meta.quirks)


@pytest.mark.parametrize("name", NAMES)
def test_metadata_agrees_with_the_module(name: str) -> None:
    benchmark = find_benchmark(name)
    assert benchmark.meta.split == ("unseen" if name in UNSEEN else "development")
    assert set(benchmark.meta.quirks) == set(getattr(benchmark.module, "QUIRKS", frozenset()))
    assert benchmark.meta.chat == (name != "drop")
    n = {"drop": 9536, "math": 5000, "gpqa": 448, "mmlu_pro": 12032, "agieval": 2646, "deepmind_math": 5600}
    assert benchmark.meta.n_expected == n[name]
    assert len(benchmark.meta.configs) == {"math": 7, "agieval": 8, "deepmind_math": 56}.get(name, 0)


@pytest.mark.parametrize("name", NAMES)
def test_evalsuite_check_accepts_every_invented_gold(name: str, root: Path) -> None:
    finding = check_benchmark(find_benchmark(name), [root])
    assert finding.problems == ()
    assert finding.rejected == ()
    assert finding.n_golds == sum(
        min(100, len(rows))
        for splits in DATA[name][1].values()
        for s, rows in splits.items()
        if name != "drop" or s != "train"
    )


@pytest.mark.parametrize(
    ("name", "response", "ok"),
    [
        ("drop", "4", None),
        ("math", "Final Answer: The final answer is $4$. I hope it is correct.", True),
        ("math", "$\\boxed{4}$", False),
        ("gpqa", "Therefore, the answer is (A).", True),
        ("gpqa", "The correct answer is: A", False),
        ("mmlu_pro", "Therefore, the answer is (J)", True),
        ("mmlu_pro", "The answer is (J)", False),
        ("agieval", "Therefore, the answer is (E).", True),
        ("agieval", "So the answer is (E).", False),
        ("deepmind_math", "Therefore, the final answer is 4. I hope it is correct.", True),
        ("deepmind_math", "Therefore, the final answer is 4.", False),
    ],
)
def test_format_ok_says_whether_the_asked_for_phrase_stood_there(
    name: str, response: str, ok: bool | None, root: Path
) -> None:
    module: Any = find_benchmark(name).module
    [doc, *_] = read(name, root).values()
    assert module.verify(response, doc).format_ok is ok


# -- loading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_ids_do_not_depend_on_the_order_of_the_rows(name: str, root: Path, tmp_path: Path) -> None:
    dataset, configs = DATA[name]
    small = {c: {s: rows[:90] for s, rows in splits.items()} for c, splits in configs.items()}
    write_repo(tmp_path / "one", dataset, small)
    write_repo(tmp_path / "two", dataset, reverse(small))
    one, two = read(name, tmp_path / "one"), read(name, tmp_path / "two")
    assert list(one) != list(two)
    asked = {"math": "problem", "gpqa": "Question"}.get(name, "question")
    assert {i: doc[asked] for i, doc in one.items()} == {i: doc[asked] for i, doc in two.items()}
    assert not any("#" in i for i in one)


# Loads the named benchmarks by the hub names of their data in a fresh process; prints their documents by sample id.
LOADER = """
import json, sys
from evalsuite.benchmark import find_benchmark
from evalsuite.data import resolve_all
from evalsuite.harness import datasets_of, documents
found = {}
for name in sys.argv[1:]:
    benchmark = find_benchmark(name)
    resolved = resolve_all(datasets_of(benchmark), (), offline=False)
    assert {r.origin for r in resolved.values()} == {"hub"}
    found[name] = documents(benchmark, resolved)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_documents_from_the_hub_and_from_its_cache_are_those_from_a_folder(root: Path, tmp_path: Path) -> None:
    with serve(root) as hub:
        online = in_fresh_process(LOADER, *NAMES, home=tmp_path / "home", cwd=tmp_path, HF_ENDPOINT=hub.url)
        assert online.returncode == 0, online.stderr[-3000:]
        assert {line.split()[1] for line in hub.log} == {hub.url.removeprefix("http://")}
    cached = in_fresh_process(LOADER, *NAMES, home=tmp_path / "home", cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert cached.returncode == 0, cached.stderr[-3000:]
    for found in (json.loads(online.stdout), json.loads(cached.stdout)):
        for name in NAMES:
            local = read(name, root)
            assert list(found[name]) == list(local), name
            assert found[name] == json.loads(json.dumps(local)), name


def test_a_missing_config_of_many_is_named(root: Path, tmp_path: Path) -> None:
    dataset, configs = DATA["math"]
    write_repo(tmp_path, dataset, {c: rows for c, rows in configs.items() if c != "geometry"})
    with pytest.raises(DataError, match="no config 'geometry'"):
        read("math", tmp_path)


def test_the_original_files_of_agieval_work_with_the_readme_that_the_folder_tells(root: Path, tmp_path: Path) -> None:
    told = (find_benchmark("agieval").folder / "README.md").read_text().split("    ---\n")[1]
    folder = tmp_path / "RUCAIBox/agieval"
    (folder / "data/v1").mkdir(parents=True)
    (folder / "README.md").write_text("---\n" + told.replace("    ", "", 1).replace("\n    ", "\n") + "---\n")
    for exam, splits in DATA["agieval"][1].items():
        lines = [json.dumps({**row, "other": None}) + "\n" for row in splits["test"]]
        (folder / f"data/v1/{exam}.jsonl").write_text("".join(lines))
    assert read("agieval", tmp_path) == read("agieval", root)


def test_a_partial_dataset_is_marked(root: Path) -> None:
    assert "partial dataset 13/5000" in plan_of("math", root).notes  # 1 + 2 + 3 + 1 + 2 + 3 + 1 rows


def test_deepmind_draws_a_hundred_of_a_category_with_more_and_strips_printed_bytes(root: Path) -> None:
    docs = [doc for doc in read("deepmind_math", root).values() if doc["category"] == "arithmetic__mul"]
    drawn = random.Random(1234).sample(range(130), 100)
    assert [doc["answer"] for doc in docs] == [str(2 * n) for n in drawn]
    assert docs[0]["question"] == f"Solve {drawn[0]} + {drawn[0]} for arithmetic__mul."


# -- prompts -----------------------------------------------------------------------------------------------------------


def test_a_drop_prompt_is_plain_text_with_the_three_drawn_train_rows(root: Path) -> None:
    plan = plan_of("drop", root)
    drawn = random.Random(1234).sample(range(9), 3)
    shots = [
        f"Passage: Team {n} scored {n}.\nQuestion: Who or {n}?\nAnswer: {f'Team {n}' if n % 2 else n}" for n in drawn
    ]
    for n, planned in zip(range(10, 16), plan.planned, strict=True):
        asked = f"Passage: Team {n} scored {n}.\nQuestion: Who or {n}?\nAnswer:"
        request: Any = planned.request
        assert request.prompt.text == "\n\n".join([*shots, asked])
        assert not request.prompt.chat
        assert (request.sampling.stop, request.sampling.max_tokens) == (("Passage:", "Question:", "\n\n"), 50)


def test_the_shots_of_the_whole_drop_train_split_are_the_published_rows() -> None:
    class Rows(list[None]):
        def select(self, places: list[int]) -> list[int]:
            return places

    shots = find_benchmark("drop").module.shots  # type: ignore[union-attr]
    assert shots(Rows([None] * 77_400)) == shots(Rows([None] * 77_409)) == [57767, 15315, 981]
    with pytest.raises(DataError, match="has 2 rows; 3 are needed"):
        shots(Rows([None] * 2))


def test_a_math_prompt_has_the_four_exemplars_of_minerva_as_turns(root: Path) -> None:
    plan = plan_of("math", root)
    request: Any = plan.planned[0].request
    turns = [json.loads(line) for line in request.prompt.text.splitlines()]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 4 + ["user"]
    assert [t["content"] for t in turns[1:8:2]] == [shot["solution"].strip() for shot in exemplars.minerva()]
    assert [t["content"] for t in turns[:8:2]] == [
        f"Problem:\n{shot['problem']}\n\nSolution:" for shot in exemplars.minerva()
    ]
    assert turns[-1]["content"] == "Problem:\nWhat is $0+0$ in algebra?\n\nSolution:"
    assert (request.sampling.stop, request.sampling.max_tokens) == ((), 1024)


def test_a_gpqa_prompt_shows_the_options_in_the_order_of_the_rows_position(root: Path) -> None:
    module: Any = find_benchmark("gpqa").module
    for n, (sample, text) in enumerate(prompts("gpqa", root).items()):
        options = [f"stone {n}.{i}. hard " for i in (1, 2, 3)] + [f"gem {n}"]
        random.Random(111 + n).shuffle(options)
        shown = "\n".join(f" ({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
        asked = f"Question: Which stone is {n}?\nChoices:\n{shown}"
        assert text == f"{module.INSTRUCTION}{asked}{module.REMINDER}"
        assert read("gpqa", root)[sample]["letter"] == "ABCD"[options.index(f"gem {n}")]


def test_the_order_of_row_0_is_that_of_python_s_generator() -> None:
    order = ["wrong 1", "wrong 2", "wrong 3", "right"]
    random.Random(111).shuffle(order)
    module: Any = find_benchmark("gpqa").module
    row = {"Correct Answer": "right", **{f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}}
    assert module._options(row, 0) == (order, "ABCD"[order.index("right")])


def test_an_mmlu_pro_prompt_has_as_many_options_as_the_row(root: Path) -> None:
    module: Any = find_benchmark("mmlu_pro").module
    for n, text in enumerate(prompts("mmlu_pro", root).values()):
        options = "".join(f" ({'ABCDEFGHIJ'[i]}) choice {n}.{i}\n" for i in range(3 + n % 8))
        assert text == f"{module.INSTRUCTION}Question: Which choice is {n}?\n{options}{module.REMINDER}"


def test_an_agieval_prompt_has_a_passage_where_there_is_one_and_clean_options(root: Path) -> None:
    module: Any = find_benchmark("agieval").module
    texts = list(prompts("agieval", root).values())
    lsat = "Passage: A text on lsat-ar.\nIt has (B) two parts.\nQuestion: What of 0?\n"
    lsat += "\n".join(f" ({letter}) lsat-ar 0" for letter in "ABCDE")
    assert texts[0] == f"{module.INSTRUCTION}{lsat}{module.REMINDER}"
    sat = "Question: What of 0?\n" + "\n".join(f" ({letter}) sat-math 0" for letter in "ABCD")
    assert f"{module.INSTRUCTION}{sat}{module.REMINDER}" in texts


def test_a_deepmind_prompt_shows_answers_of_its_category(root: Path) -> None:
    module: Any = find_benchmark("deepmind_math").module
    said = "Therefore, the final answer is {}. I hope it is correct."
    texts = {doc["category"]: module.doc_to_text(doc) for doc in read("deepmind_math", root).values()}
    examples = [line for line in texts["algebra__polynomial_roots"].split("\n") if line.startswith("- ")]
    assert examples == [f"- {said.format(a)}" for a in ("1, 5, 156", "-5/4, 0, 3/8, 1", "-2*(h - 2)*(h + 203426)**2/3")]
    for category, text in texts.items():
        instruction, question, *rest = text.split("\n")
        assert (instruction, category in question) == (module.INSTRUCTION, True)
        assert f'"{said.format("[answer]")}"' in rest[1]
        assert rest[-1] == module.NOTES
        doc = {"category": category, "question": question}
        assert module.doc_to_text_original(doc) == f"{instruction}\n{question}\n\n{module.ASK}"


def test_the_example_answers_are_164_of_56_categories() -> None:
    benchmark = find_benchmark("deepmind_math")
    with (benchmark.folder / "examples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    counted = {c: sum(row["category"] == c for row in rows) for c in benchmark.meta.configs}
    assert sum(counted.values()) == len(rows) == 164
    assert {c for c, n in counted.items() if n == 2} == {c for c in counted if "__is_" in c}
    assert set(counted.values()) == {2, 3}


@pytest.mark.parametrize("name", UNSEEN)
def test_the_unseen_suite_generates_2048_tokens_without_a_stop(name: str, root: Path) -> None:
    request: Any = plan_of(name, root).planned[0].request
    assert (request.sampling.stop, request.sampling.max_tokens, request.sampling.temperature) == ((), 2048, 0.0)


def test_our_own_wording_is_not_the_original_and_says_so(root: Path) -> None:
    def sha(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    for name in UNSEEN:
        benchmark = find_benchmark(name)
        module: Any = benchmark.module
        ours = {sha(module.INSTRUCTION), sha(getattr(module, "REMINDER", ""))}
        assert not ours & set(benchmark.meta.upstream_sha256.values())
        assert "prompt: paraphrased" in plan_of(name, root).notes


# -- averages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "category", "right"),
    [("math", "subject", "algebra"), ("mmlu_pro", "category", "law"), ("agieval", "exam", "sat-en")],
)
def test_the_headline_is_the_mean_of_the_categories_means(name: str, category: str, right: str, root: Path) -> None:
    plan = plan_of(name, root)
    module: Any = plan.benchmark.module

    def answer(doc: Any) -> str:
        return module.gold_response(doc) if doc[category] == right else "nothing"

    result = grade(plan, {(p.sample, p.number): Response(answer(plan.docs[p.sample])) for p in plan.planned})
    assert not result.failures
    n_categories = len({doc[category] for doc in plan.docs.values()})
    assert result.value == pytest.approx(1 / n_categories)
    # What stock lm-eval computes from the same answers.
    rows = [module.process_results(doc, [answer(doc)])[plan.benchmark.meta.metric] for doc in plan.docs.values()]
    assert module.macro(rows) == pytest.approx(1 / n_categories)


def test_deepmind_reports_parse_errors_by_category_too(root: Path) -> None:
    plan = plan_of("deepmind_math", root)

    def answer(doc: Any) -> str:
        return "The answer is 1:58 PM" if doc["category"] == "measurement__time" else "The answer is 1"

    result = grade(plan, {(p.sample, p.number): Response(answer(plan.docs[p.sample])) for p in plan.planned})
    assert result.value == 0.0
    assert result.parts["parse_error"].value == pytest.approx(1 / 56)
    assert result.format_ok == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_built_in_a_fraction_of_a_millisecond(name: str, root: Path) -> None:
    module: Any = find_benchmark(name).module
    docs = list(read(name, root).values()) * 100
    start = time.process_time()
    for doc in docs:
        module.doc_to_text(doc)
    assert (time.process_time() - start) / len(docs) < 4e-4  # 14,042 prompts in 6 s


# -- stock lm-eval -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("names", [("drop",), ("math", "gpqa", "mmlu_pro", "agieval")], ids="/".join)
def test_stock_lm_eval_asks_the_same_and_scores_the_same(
    names: tuple[str, ...], root: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.table_lm", "run", "--include_path", str(ROOT / "benchmarks")]
    command += ["--model", "table", "--model_args", f"checkpoint={tiny_checkpoint},out={tmp_path / 'table.json'}"]
    command += ["--log_samples", "--output_path", str(tmp_path / "out"), "--seed", "0", "--tasks", ",".join(names)]
    command += [] if names == ("drop",) else ["--apply_chat_template", "--fewshot_as_multiturn", "true"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    table = json.loads((tmp_path / "table.json").read_text())
    [written] = (tmp_path / "out").rglob("results_*.json")
    totals = json.loads(written.read_text())["results"]
    render = ChatTemplate.from_checkpoint(tiny_checkpoint).render
    for name in names:
        benchmark = find_benchmark(name)
        plan = build_plan(benchmark, resolve(benchmark, root), render)
        asked: list[tuple[str, Any]] = [(p.sample, p.request) for p in plan.planned]
        result = grade(plan, {(sample, 0): Response(table[request.prompt.text]) for sample, request in asked})
        [path] = (tmp_path / "out").rglob(f"samples_{name}_*.jsonl")
        metric = benchmark.meta.metric
        stock = [json.loads(line)[metric] for line in path.read_text().splitlines()]
        values = [value[-1] if isinstance(value, list) else value for value in stock]
        assert [result.scores[sample] for sample, _ in asked] == pytest.approx(values, abs=1e-9)
        assert result.value == pytest.approx(totals[name][f"{metric},none"], abs=1e-9)
        assert 0 < sum(values) < len(values), name
