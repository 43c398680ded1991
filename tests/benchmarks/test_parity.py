"""Stock lm-eval on our benchmark folders asks the same prompts and gives the same scores as ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evalsuite import run as scoring
from evalsuite.benchmark import find_benchmark
from evalsuite.data import resolve_all
from evalsuite.harness import datasets_of, documents
from evalsuite.models import EngineSpec
from evalsuite.models.chat import ChatTemplate
from evalsuite.models.fake import FakeModel
from evalsuite.score import Job, score
from evalsuite.scorecard import CheckpointRef, Result
from evalsuite.suite import adhoc_suite
from evalsuite.types import LogLikelihood
from tests.tiny import Shape, make_model, make_tokenizer

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 20
SHAPE = Shape(vocab=4096, positions=4096)
# benchmark -> the lm-eval tasks of it that are run (all subtasks of a group would only take longer)
TASKS = {
    "gsm8k": ("gsm8k",),
    "mmlu_cot": ("mmlu_cot",),
    "mmlu_mc": ("mmlu_mc_anatomy", "mmlu_mc_virology"),
    "truthfulqa": ("truthfulqa",),
    "ifeval": ("ifeval",),
    "bbh": ("bbh_navigate", "bbh_word_sorting"),
    "math500": ("math500",),
    "demo_add": ("demo_add",),
    "demo_larger": ("demo_larger",),
}


class TableModel(FakeModel):
    """Answers what stock lm-eval was answered, prompt for prompt; an unknown prompt is a KeyError."""

    def __init__(self, table: dict[str, Any]) -> None:
        super().__init__(answers=table)
        self.table = table

    def loglikelihood(self, requests: Any, wanted: Any = None) -> Iterator[Any]:
        for i, request in enumerate(requests):
            known = self.table[request.context.text]
            yield i, tuple(LogLikelihood(known[option], False, 1) for option in request.options)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose end-of-text logit is spread out, so that responses stop after some tens of tokens."""
    folder = make_tokenizer(tmp_path_factory.mktemp("parity") / "tiny", SHAPE.vocab)
    model = make_model(SHAPE)
    model.lm_head.weight.data[2] *= 6
    model.save_pretrained(folder)
    return folder


@contextmanager
def lm_eval_run(folder: Path, data: Path, program: str, *arguments: str) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Samples by task of one `lm-eval run`, in a folder where hub names resolve to the local data."""
    command = [sys.executable, "-m", program, "run", "--include_path", str(ROOT / "benchmarks")]
    command += ["--apply_chat_template", "--fewshot_as_multiturn", "true", "--log_samples", "--batch_size", "8"]
    command += ["--output_path", str(folder / "out"), "--seed", "0", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run(command, cwd=data, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    samples = {}
    for path in (folder / "out").rglob("samples_*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        samples[path.name.removeprefix("samples_").rsplit("_", 1)[0]] = rows
    yield samples


@pytest.fixture(scope="module")
def stock(
    checkpoint: Path, hub_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    folder = tmp_path_factory.mktemp("stock")
    tasks = ",".join(t for names in TASKS.values() for t in names)
    arguments = ["--model", "table", "--model_args", f"checkpoint={checkpoint},out={folder / 'table.json'}"]
    with lm_eval_run(
        folder, hub_data, "tests.benchmarks.table_lm", *arguments, "--tasks", tasks, "--limit", str(LIMIT)
    ) as samples:
        return samples, json.loads((folder / "table.json").read_text())


def ours(name: str, ids: frozenset[str], folder: Path, data: Path, engine: EngineSpec, checkpoint: Path) -> Result:
    suite = adhoc_suite([name])
    job = Job(
        suite,
        dict(suite.columns),
        CheckpointRef("tiny", "0" * 64),
        checkpoint,
        engine,
        ChatTemplate.from_checkpoint(checkpoint).render,
        folder,
        data_roots=(data,),
        samples=ids,
    )
    return score(job).results[0]


def ids_of(name: str, data: Path) -> dict[str, list[str]]:
    """Sample ids by lm-eval task, in dataset order."""
    benchmark = find_benchmark(name)
    ids = list(documents(benchmark, resolve_all(datasets_of(benchmark), [data], offline=True)))
    if not benchmark.is_group:
        return {name: ids}
    return {t: [i for i in ids if i.startswith(f"{t.removeprefix(name + '_')}/")] for t in TASKS[name]}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_same_prompts_and_same_scores_as_stock_lm_eval(
    name: str,
    stock: tuple[dict[str, list[dict[str, Any]]], dict[str, Any]],
    checkpoint: Path,
    hub_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples, table = stock
    ids = ids_of(name, hub_data)
    monkeypatch.setattr(scoring, "open_model", lambda spec, path: TableModel(table))
    chosen = {i: row for t in TASKS[name] for i, row in zip(ids[t], samples[t], strict=False)}
    result = ours(name, frozenset(chosen), tmp_path, hub_data, EngineSpec("fake"), checkpoint)
    assert not result.failures
    assert len(chosen) == LIMIT * len(TASKS[name])
    metric = find_benchmark(name).meta.metric
    theirs = {i: row[metric][-1] if isinstance(row[metric], list) else row[metric] for i, row in chosen.items()}
    assert result.scores == pytest.approx(theirs, abs=1e-9)
    assert 0 < sum(theirs.values()) < len(theirs)


@pytest.mark.slow
def test_a_real_model_scores_the_same_through_stock_lm_eval(checkpoint: Path, hub_data: Path, tmp_path: Path) -> None:
    arguments = ["--model", "hf", "--model_args", f"pretrained={checkpoint},dtype=float32", "--device", "cpu"]
    tasks = ["truthfulqa", "mmlu_mc_anatomy", "demo_add", "mmlu_cot"]
    with lm_eval_run(tmp_path, hub_data, "lm_eval", *arguments, "--tasks", ",".join(tasks), "--limit", "8") as samples:
        pass
    engine = EngineSpec("hf", dtype="float32", options={"threads": 1})
    for name, task in (("truthfulqa", tasks[0]), ("mmlu_mc", tasks[1]), ("demo_add", tasks[2]), ("mmlu_cot", tasks[3])):
        ids = ids_of(name, hub_data)[task][:8]
        result = ours(name, frozenset(ids), tmp_path / name, hub_data, engine, checkpoint)
        metric = find_benchmark(name).meta.metric
        rows = [row[metric][-1] if isinstance(row[metric], list) else row[metric] for row in samples[task]]
        # Log-likelihoods agree within 1e-4, so the mass of mc2 may differ in its fifth digit.
        assert [result.scores[i] for i in ids] == pytest.approx(rows, abs=2e-4)
