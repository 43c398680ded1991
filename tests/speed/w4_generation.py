"""W4, W5, W4b: generation with `hf` against static batches of 16, and against lm-eval's own backend."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.speed.likelihoods import Row, cpu_seconds, one_thread
from tests.tiny import BENCH22, make_checkpoint, words

N_PROMPTS = 60
BATCH = 16  # what lm-eval hf is given
STATIC = "static batches of 16 by model.generate, as lm-eval 0.4.13 hf makes them, cpu, float32, same model object"
LM_EVAL = "lm-eval 0.4.13 HFLM.generate_until, batch_size=16, cpu, float32, same weights"
GOALS = {"W4": 3.5, "W5": 1.0, "W4b": 3.0, "W5 HFLM": 1.0}
BARS = {"W4": 1.5, "W5": 1.0, "W4b": 3.0, "W5 HFLM": 1.0}

Texts = list[str]
Runner = Callable[[], Texts]


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts and how many tokens each gets; the ends of responses are forced, so that both sides do equal work."""

    name: str
    prompts: Sequence[str]
    lengths: Sequence[int]
    note: str


def workloads(scale: float, count: Callable[[str], int]) -> list[Workload]:
    """W4 skewed, W5 flat, W4b flat and short behind a shared start of 1,000 tokens; `count` counts tokens."""
    n = max(BATCH, round(N_PROMPTS * scale))
    prompts, shot = _texts(n)
    shots = ""
    while count(shots) < 1000:
        shots += shot()
    skew = random.Random(3)
    skewed = [skew.choice([8, 8, 16, 16, 32, 256]) for _ in prompts]
    return [
        Workload("W4", prompts, skewed, f"{n} prompts, 8 to 256 new tokens each, {sum(skewed)} in all"),
        Workload("W5", prompts, [64] * n, f"{n} prompts, 64 new tokens each"),
        Workload(
            "W4b", [shots + p for p in prompts], [32] * n, f"{n} prompts with {count(shots)} tokens shared, 32 new"
        ),
    ]


def run(scale: float = 1.0) -> list[Row]:
    """Rows of medians over SPEED_ROUNDS (default 1) alternating rounds. Raises AssertionError when texts differ."""
    from transformers import AutoModelForCausalLM

    from evalsuite.models.encoding import Encoder

    rows = []
    with tempfile.TemporaryDirectory() as folder, one_thread():
        checkpoint = make_checkpoint(Path(folder) / "checkpoint", BENCH22)
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32", attn_implementation="sdpa").eval()
        encoder = Encoder.from_checkpoint(checkpoint)
        endless = Encoder.from_checkpoint(checkpoint)
        endless.eos_ids, endless.eos_text = frozenset(), ""
        for work in workloads(scale, lambda text: len(encoder.encode(text, chat=False))):
            rows.append(
                _compare(work.name, STATIC, _ours(model, endless, work), _static(model, endless, work), work.note)
            )
            if work.name == "W5":
                # lm-eval always ends at the end-of-sequence token, so here both sides do.
                theirs = _lm_eval(model, checkpoint, work)
                rows.append(_compare("W5 HFLM", LM_EVAL, _ours(model, encoder, work), theirs, work.note))
    for row in rows:
        same, n = row["equality"]["texts_identical"], row["equality"]["n_texts"]
        # Batches padded on the left round differently from ours: two logits that nearly tie may swap in its batches.
        assert same >= (n if row["peer"] == STATIC else n - max(1, n // 30)), row
    return rows


def _compare(name: str, peer: str, ours: Runner, theirs: Runner, note: str) -> Row:
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(int(os.environ.get("SPEED_ROUNDS", "1"))):
        mine, seconds = cpu_seconds(ours)
        spent["ours"].append(seconds)
        other, seconds = cpu_seconds(theirs)
        spent["theirs"].append(seconds)
    a, b = median(spent["ours"]), median(spent["theirs"])
    same = sum(x == y for x, y in zip(mine, other, strict=True))
    return {
        "name": f"{name} generation",
        "peer": peer,
        "unit": "CPU-seconds of generation",
        "ours": round(a, 2),
        "theirs": round(b, 2),
        "ratio": round(b / a, 2),
        "goal": GOALS[name],
        "command": "make bench",
        "note": f"{note}; {same} of {len(mine)} texts identical",
        "equality": {"texts_identical": same, "n_texts": len(mine)},
    }


def _ours(model: Any, encoder: Any, work: Workload) -> Runner:
    from evalsuite.models.hf.generate import Generator
    from evalsuite.types import GenerateRequest, Prompt, Sampling

    requests = [GenerateRequest(Prompt(p), Sampling(n)) for p, n in zip(work.prompts, work.lengths, strict=True)]

    def run() -> Texts:
        generator = Generator(
            model, encoder, max_length=BENCH22.positions
        )  # with its look at the model: part of the cost
        found = dict(generator.generate(requests))
        assert generator.level == "slots", generator.level
        return [found[i].text for i in range(len(requests))]

    return run


def _static(model: Any, encoder: Any, work: Workload) -> Runner:
    """Batches by descending prompt length, padded on the left, each run to its longest member."""
    import torch

    def run() -> Texts:
        ids = encoder.encode_batch(list(work.prompts), chat=False)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        texts = [""] * len(ids)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            width = max(len(ids[i]) for i in batch)
            tokens = torch.tensor([[0] * (width - len(ids[i])) + ids[i] for i in batch])
            mask = torch.tensor([[0] * (width - len(ids[i])) + [1] * len(ids[i]) for i in batch])
            with torch.inference_mode():
                out = model.generate(
                    tokens,
                    attention_mask=mask,
                    max_new_tokens=max(work.lengths[i] for i in batch),
                    do_sample=False,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            for i, row in zip(batch, out[:, width:].tolist(), strict=True):
                texts[i] = encoder.decode(row[: work.lengths[i]], skip_special=True)
        return texts

    return run


def _lm_eval(model: Any, checkpoint: Path, work: Workload) -> Runner:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(checkpoint), batch_size=BATCH, device="cpu")
    (length,) = set(work.lengths)
    options = {"until": ["\n\n\n\n\n\n"], "max_gen_toks": length, "do_sample": False}
    instances = [Instance("generate_until", {}, (prompt, dict(options)), i) for i, prompt in enumerate(work.prompts)]
    return lambda: list(lm.generate_until(instances, disable_tqdm=True))


def _texts(n: int) -> tuple[list[str], Callable[[], str]]:
    """`n` prompts of 60 words, drawn after W1's 305 documents, and a function that draws one more with its answer."""
    draw, pool = words()

    def text(k: int) -> str:
        return " ".join(draw.choice(pool) for _ in range(k))

    for _ in range(305):
        text(55)
        for _ in range(4):
            text(draw.choice([1, 2, 3, 5]))
        draw.randrange(4)
    prompts = []
    for _ in range(n):
        prompts.append(f"Question: {text(60)}\nAnswer:")
        text(2)
    return prompts, lambda: f"Question: {text(60)}\nAnswer: {text(2)}\n\n"
