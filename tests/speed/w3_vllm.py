"""W3: log-likelihoods on vLLM, prefix cache on in two phases, against one request per option as lm-eval asks them.

Token ids go in, so tokenising is outside; both sides use one engine object, whose cache is emptied before every run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from evalsuite.models.encoding import EncodedDoc
from evalsuite.models.vllm.install import vllm_status
from evalsuite.models.vllm.model import _environment
from tests.speed.likelihoods import Pairs, Row, cpu_seconds, differences
from tests.tiny import TINY8, make_checkpoint

PEER = "vLLM with one request per option, prompt_logprobs=0 (what lm-eval 0.4.13's backend does; it asks for 1)"
SHARED = 600
MOST_DIFFERENT = 1e-4


@dataclass(frozen=True, slots=True)
class Workload:
    name: str
    n_documents: int
    own: int
    options: tuple[int, ...]
    bar: float
    goal: float


WORKLOADS = (
    Workload("W3 vLLM options, 645-token contexts", 40, 45, (1, 2, 4, 8), 4.0, 10.0),
    Workload("W3 vLLM options, 640-token contexts (5 blocks)", 40, 40, (1, 2, 4, 8), 4.0, 10.0),
    Workload("W3 vLLM letters, 645-token contexts", 25, 45, (1, 1, 1, 1), 8.0, 20.0),
)


def run(scale: float = 1.0) -> list[Row]:
    """Three rows; none, with a line that says why, where vLLM cannot run. Equality is asserted in the same run."""
    if (status := vllm_status())["usable"] == "no":
        print(f"W3 is left out: {status['problem']}", file=sys.stderr)
        return []
    environment = os.environ | _environment(on_cpu=True, one_device=True, kv_gib=1, threads=1, batch_invariant=False)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "checkpoint", TINY8)
        command = [sys.executable, "-m", "tests.speed.w3_vllm", str(checkpoint), str(scale)]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, cwd=root)
    if done.returncode:
        raise RuntimeError(f"the engine of W3 failed:\n{done.stderr.decode(errors='replace')[-3000:]}")
    rows: list[Row] = json.loads(done.stdout.decode().splitlines()[-1])
    return rows


def documents(workload: Workload, scale: float) -> list[EncodedDoc]:
    """Token ids drawn from 6…8191; the first is BOS."""
    draw = random.Random(2)

    def ids(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(6, TINY8.vocab) for _ in range(n))

    shared = (1, *ids(SHARED - 1))
    n = max(8, round(workload.n_documents * scale))
    return [EncodedDoc(shared + ids(workload.own), tuple(map(ids, workload.options))) for _ in range(n)]


def in_engine(checkpoint: Path, scale: float) -> list[Row]:
    """What the child process does: one engine, every workload, ours and theirs in turn."""
    from evalsuite.models.vllm.engine import Engine

    arguments = {
        "dtype": "float32",
        "max_model_len": 2048,
        "seed": 0,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "enforce_eager": True,
        "max_num_batched_tokens": 4096,
    }
    engine = Engine.load(checkpoint, arguments)
    return [compare(engine, workload, scale) for workload in WORKLOADS]


def compare(engine: Any, workload: Workload, scale: float) -> Row:
    from evalsuite.models.vllm.loglik import TokenScorer

    docs = documents(workload, scale)
    scorer = TokenScorer(engine, 2048)
    rounds = int(os.environ.get("SPEED_ROUNDS", "1"))
    seconds: dict[str, list[float]] = {"ours": [], "theirs": [], "ours_wall": [], "theirs_wall": []}
    ours(scorer, docs[:2])  # both sides have run once before they are measured
    theirs(engine, docs[:2])
    for _ in range(rounds):
        for side, work in (("ours", lambda: ours(scorer, docs)), ("theirs", lambda: theirs(engine, docs))):
            start = time.perf_counter()
            found, spent = cpu_seconds(work)
            seconds[side].append(spent)
            seconds[f"{side}_wall"].append(time.perf_counter() - start)
            if side == "ours":
                mine = found
            else:
                other = found
    equality = differences(mine, other)
    assert equality["max_difference"] <= MOST_DIFFERENT, equality
    assert equality["n_options"] == len(docs) * len(workload.options)
    lengths = "/".join(map(str, workload.options))
    took = {name: median(values) for name, values in seconds.items()}
    return {
        "name": workload.name,
        "peer": PEER,
        "unit": "CPU-seconds of scoring",
        "ours": round(took["ours"], 2),
        "theirs": round(took["theirs"], 2),
        "ratio": round(took["theirs"] / took["ours"], 2),
        "goal": workload.goal,
        "bar": workload.bar,
        "command": "make bench",
        "note": (
            f"{len(docs)} documents × {len(workload.options)} options of {lengths} tokens; "
            f"wall {took['ours_wall']:.1f} against {took['theirs_wall']:.1f} s; guard repeats {scorer.n_guarded}"
        ),
        "equality": equality,
    }


def ours(scorer: Any, docs: Sequence[EncodedDoc]) -> Pairs:
    found = dict(scorer.score(list(enumerate(docs))))
    return [[(option.total, option.greedy) for option in found[i]] for i in range(len(docs))]


def theirs(engine: Any, docs: Sequence[EncodedDoc]) -> Pairs:
    """Every option on its own, default cache behaviour (no reads for prompt log-probabilities)."""
    engine.reset_cache()
    for i, doc in enumerate(docs):
        for k, option in enumerate(doc.option_ids):
            engine.add((i, k), doc.context_ids + option, max_tokens=1, prompt_logprobs=0)
    found: dict[tuple[int, int], tuple[float, bool]] = {}
    while engine.n_waiting:
        for (i, k), output in engine.step():
            option, start = docs[i].option_ids[k], len(docs[i].context_ids)
            rows = [output.prompt_logprobs[start + j][token] for j, token in enumerate(option)]
            found[i, k] = sum(row.logprob for row in rows), all(row.rank == 1 for row in rows)
    return [[found[i, k] for k in range(len(doc.option_ids))] for i, doc in enumerate(docs)]


if __name__ == "__main__":
    print(json.dumps(in_engine(Path(sys.argv[1]), float(sys.argv[2]))), flush=True)
    os._exit(0)
