"""W6: what the harness itself costs, with a model that answers at once: ours (journal, plan, scorecard) and lm-eval.

Both sides read the same YAML and the same 20,000 (generation) or 5,000 (four options, five shots) rows. CPU-seconds are
taken inside a process of its own after its imports.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.tiny import words

ROOT = Path(__file__).resolve().parents[2]
GENERATE = """
task: overhead
dataset_path: bench/overhead
dataset_name: default
test_split: test
fewshot_split: train
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 1, split: development, chat: false, metric: exact_match, id: [question], n_expected: %d}
"""
CHOOSE = """
task: overhead
dataset_path: bench/overhead
dataset_name: default
test_split: test
fewshot_split: train
fewshot_config: {sampler: first_n}
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
num_fewshot: 5
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1, split: development, chat: false, metric: acc, id: [question], n_expected: %d}
"""


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """Two rows: generation and options."""
    rows = []
    for kind, yaml, full in (("generation", GENERATE, 20_000), ("four options, 5 shots", CHOOSE, 5_000)):
        n = max(100, round(full * scale))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            _write(folder, yaml % n, n)
            ours = _child("ours", folder)
            theirs = _child("theirs", folder)
            again = _child("ours", folder)
        assert ours["score"] == theirs["score"], (ours, theirs)
        rows.append(
            {
                "name": f"W6 harness overhead, {kind}",
                "peer": "lm-eval 0.4.13 simple_evaluate, log_samples",
                "unit": "CPU-seconds without imports",
                "ours": round(ours["seconds"], 2),
                "theirs": round(theirs["seconds"], 2),
                "ratio": round(theirs["seconds"] / ours["seconds"], 2),
                "goal": 1.0,
                "command": "make bench",
                "note": f"{n:,} documents; peak memory {ours['mib']:.0f} against {theirs['mib']:.0f} MiB;"
                f" the finished run again: {again['seconds']:.1f} s",
                "equality": "same score",
            }
        )
    return rows


def _write(folder: Path, yaml: str, n: int) -> None:
    benchmark = folder / "benchmarks" / "overhead"
    benchmark.mkdir(parents=True)
    (benchmark / "overhead.yaml").write_text(yaml)
    (benchmark / "README.md").write_text("# overhead\n")
    data = folder / "data" / "bench" / "overhead"
    (data / "default").mkdir(parents=True)
    parts = "".join(f"  - split: {s}\n    path: default/{s}.jsonl\n" for s in ("train", "test"))
    (data / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{parts}---\n")
    draw, pool = words()
    for split, count in (("train", 5), ("test", n)):
        with (data / "default" / f"{split}.jsonl").open("w") as lines:
            for _ in range(count):
                choices = [" ".join(draw.choices(pool, k=2)) for _ in range(4)]
                label = draw.randrange(4)
                row = {"question": " ".join(draw.choices(pool, k=60)), "choices": choices, "label": label}
                lines.write(json.dumps(row | {"answer": choices[label]}) + "\n")


def _child(side: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.speed.w6_overhead", side, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder / "data",
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / f"home-{side}")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ours(folder: Path) -> float:
    import datasets
    import lm_eval.tasks  # noqa: F401 - imports are outside of what is measured, on both sides

    from evalsuite import run
    from evalsuite import score as scoring
    from evalsuite.models import EngineSpec
    from evalsuite.models.fake import FakeModel
    from evalsuite.scorecard import CheckpointRef
    from evalsuite.suite import adhoc_suite

    datasets.disable_progress_bars()
    started = time.process_time()
    suite = adhoc_suite(["overhead"], [folder / "benchmarks"])
    job = scoring.Job(
        suite,
        dict(suite.columns),
        CheckpointRef("instant", "0" * 64),
        None,
        EngineSpec("fake"),
        None,
        folder / "results",
        data_roots=(folder / "data",),
    )
    run.open_model = lambda spec, checkpoint: FakeModel(in_flight=1)
    result = scoring.score(job).results[0]
    assert result.n == result.n_planned
    _report(started, result.value)
    return started


def _theirs(folder: Path) -> None:
    import datasets
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    from evalsuite.models.fake import _unit

    class Instant(LM):
        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return ["fake"] * len(requests)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return [(-_unit(r.args[0] + r.args[1]) * 10, False) for r in requests]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError("no task of this workload asks for it")

    datasets.disable_progress_bars()
    started = time.process_time()
    manager = TaskManager(include_path=str(folder / "benchmarks"), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=Instant(), tasks=["overhead"], task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    numbers = found["results"]["overhead"]
    _report(started, numbers.get("exact_match,none", numbers.get("acc,none")))


def _report(started: float, score: Any) -> None:
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "mib": peak, "score": round(float(score), 12)}))


if __name__ == "__main__":
    (_ours if sys.argv[1] == "ours" else _theirs)(Path(sys.argv[2]))
