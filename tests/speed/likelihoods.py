"""What W1, W2 and W0 share: one model, one set of requests, our numbers and lm-eval's, CPU-seconds of both."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from evalsuite.types import Failed, Likelihoods, LoglikRequest
from tests.tiny import Shape, make_checkpoint

Row = dict[str, Any]
Pairs = list[list[tuple[float, bool]]]

PEER = "lm-eval 0.4.13 HFLM, batch_size=16, cpu, float32, same model object"


def compare(
    name: str, shape: Shape, requests: Sequence[LoglikRequest], goal: float, note: str, rounds: int | None = None
) -> Row:
    """Runs both sides alternately, `rounds` times (default SPEED_ROUNDS or 1), and returns the row of medians."""
    rounds = rounds or int(os.environ.get("SPEED_ROUNDS", "1"))
    with tempfile.TemporaryDirectory() as folder, one_thread():
        checkpoint = make_checkpoint(Path(folder) / "checkpoint", shape)
        ours, theirs = our_runner(checkpoint), lm_eval_runner(checkpoint)
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(rounds):
            mine, spent = cpu_seconds(lambda: ours(requests))
            seconds["ours"].append(spent)
            other, spent = cpu_seconds(lambda: theirs(requests))
            seconds["theirs"].append(spent)
    a, b = median(seconds["ours"]), median(seconds["theirs"])
    return {
        "name": name,
        "peer": PEER,
        "unit": "CPU-seconds of scoring",
        "ours": round(a, 2),
        "theirs": round(b, 2),
        "ratio": round(b / a, 2),
        "goal": goal,
        "command": "make bench",
        "note": note,
        "equality": differences(mine, other),
    }


def our_runner(checkpoint: Path) -> Callable[[Sequence[LoglikRequest]], Pairs]:
    """A function from requests to (total, greedy) by document and option; a fresh plan and empty caches each time."""
    from evalsuite.models.hf.model import HFModel

    model = HFModel(checkpoint, threads=1)
    assert model.scorer.choice.level == "tree"  # the probe is part of loading

    def run(requests: Sequence[LoglikRequest]) -> Pairs:
        model.forget()
        found = dict(model.loglikelihood(requests))
        return [[(o.total, o.greedy) for o in _scored(found[i])] for i in range(len(requests))]

    return run


def lm_eval_runner(checkpoint: Path) -> Callable[[Sequence[LoglikRequest]], Pairs]:
    """The same through lm-eval's own backend on the same weights."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32")
    lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(checkpoint), batch_size=16, device="cpu")

    def run(requests: Sequence[LoglikRequest]) -> Pairs:
        instances = [
            Instance("loglikelihood", {}, (request.context.text, option), i)
            for request in requests
            for i, option in enumerate(request.options)
        ]
        answers = iter(lm.loglikelihood(instances, disable_tqdm=True))
        return [[next(answers) for _ in request.options] for request in requests]

    return run


def differences(ours: Pairs, theirs: Pairs) -> dict[str, float]:
    """Largest difference of a total, and how many greedy flags and how many best options differ."""
    both = list(zip(ours, theirs, strict=True))
    return {
        "max_difference": max(abs(a - b) for mine, other in both for (a, _), (b, _) in zip(mine, other, strict=True)),
        "greedy_different": sum(a != b for mine, other in both for (_, a), (_, b) in zip(mine, other, strict=True)),
        "argmax_different": sum(_best(mine) != _best(other) for mine, other in both),
        "n_options": sum(map(len, ours)),
    }


def cpu_seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result and the user + system seconds of this process (all its threads) that it took."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    result = work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return result, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextmanager
def one_thread() -> Iterator[None]:
    """Both sides compute with one thread: two on a busy machine mostly wait for each other, and waiting counts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _scored(found: Likelihoods) -> Sequence[Any]:
    assert not isinstance(found, Failed), found.why
    return found


def _best(options: Sequence[tuple[float, bool]]) -> int:
    return max(range(len(options)), key=lambda i: options[i][0])
