"""The demonstration: trains a tiny Llama on generated tasks, gates two of its checkpoints, prints the leaderboard.

Nothing is downloaded. The model has about a quarter of a million parameters and a tokenizer of single bytes; the test
rows of the benchmarks are left out of its training data. Run it with `make demo`.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evalsuite.benchmark import find_benchmark

TASKS = ("demo_add", "demo_reverse", "demo_larger")
SPECIALS = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
BATCH = 64
STEPS = {"early": 100, "late": 700}  # checkpoint name -> training steps
LEARNING_RATE = 3e-3
IGNORED = -100  # torch's label of a position that has no loss


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/demo"), help="where checkpoints and results go")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads for training and scoring")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    early, late = train(options.out / "checkpoints", options.seed, options.threads)
    engine = ["--suite", "demo", "--model", "hf", "--threads", str(options.threads)]
    results = ["--results", str(options.out)]
    # A second demonstration in the same folder finds its champion there.
    _run(["gate", str(early), *engine, *results, "--bootstrap", "--promote"], may_exit=(0, 1, 2))
    _run(["gate", str(late), *engine, *results, "--promote"], may_exit=(0, 2))
    _run(["gate", str(early), *engine, *results], may_exit=(1,))
    for checkpoint in (early, late):
        _run(["score", str(checkpoint), *engine, *results])
    _run(["compare", early.name, late.name, *results])
    _run(["leaderboard", str(options.out)])
    _run(["registry", "log", *results])


def train(folder: Path, seed: int, threads: int) -> list[Path]:
    """Trains once and saves a checkpoint at every step count of STEPS; returns their folders, earliest first."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer, model = _tokenizer(), _model()
    examples = _examples(random.Random(seed))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    last = max(STEPS.values())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=last, pct_start=0.1)
    print(f"training {sum(p.numel() for p in model.parameters()):,} parameters for {last} steps", flush=True)
    saved, started = [], time.monotonic()
    for step in range(1, last + 1):
        loss = model(**_batch(tokenizer, [next(examples) for _ in range(BATCH)])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)
        saved += [_save(model, tokenizer, folder / name) for name, at in STEPS.items() if at == step]
    return saved


def _examples(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Endless (question, answer) of all tasks in turn; a question of a test set never comes."""
    modules: list[Any] = [find_benchmark(name).module for name in TASKS]
    held_out = {row["question"] for module in modules for row in module.test_rows()}
    draws: list[Callable[[random.Random], dict[str, str]]] = [module.draw for module in modules]
    while True:
        for draw in draws:
            row = draw(rng)
            if row["question"] not in held_out:
                yield row["question"], row["answer"]


def _batch(tokenizer: Any, examples: list[tuple[str, str]]) -> dict[str, Any]:
    """input_ids, labels and attention_mask, each (B, T), right-padded; only answers and their end have a loss."""
    import torch

    rows = []
    for question, answer in examples:
        asked = tokenizer.encode(f"<|user|>{question}<|assistant|>").ids
        said = tokenizer.encode(f"{answer}</s>").ids
        rows.append((asked + said, [IGNORED] * len(asked) + said))
    longest = max(len(ids) for ids, _ in rows)
    ids_BT = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    labels_BT = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in rows])
    return {"input_ids": ids_BT, "labels": labels_BT, "attention_mask": (ids_BT != 0).long()}


def _tokenizer() -> Any:
    """Every byte is a token, so that digits and letters stand alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*SPECIALS, *alphabet])}, []))
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(SPECIALS) + 256,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def _save(model: Any, tokenizer: Any, folder: Path) -> Path:
    """The ordinary Hugging Face layout: safetensors, config, tokenizer, chat template."""
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 256, **names}, indent=1)
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def _run(command: list[str], may_exit: tuple[int, ...] = (0,)) -> None:
    print(f"\n$ evalsuite {' '.join(command)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "evalsuite", *command])
    if done.returncode not in may_exit:
        sys.exit(f"expected exit {' or '.join(map(str, may_exit))}, got {done.returncode}")


if __name__ == "__main__":
    main()
