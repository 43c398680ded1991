"""Tiny real checkpoints for tests and speed workloads: random Llamas, a tokenizer trained on Python's own library.

Nothing is downloaded. `bench22` and `tiny8` are the models whose numbers stand in results/SPEED.md.
"""

from __future__ import annotations

import random
import re
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

SPECIALS = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    vocab: int = 1024
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    positions: int = 2048

    @property
    def intermediate(self) -> int:
        return self.hidden * 11 // 4 // 32 * 32


SMALL = Shape()
BENCH22 = Shape(12_000, 384, 8, 8, 4, 2048)
TINY8 = Shape(8_192, 256, 6, 8, 4, 2048)


@cache
def library_files() -> tuple[Path, ...]:
    """The *.py files directly inside the running Python's standard-library folder, sorted."""
    return tuple(sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")))


def words(seed: int = 7) -> tuple[random.Random, list[str]]:
    """A generator and the word list that workload texts are drawn from (duplicates kept: common words are common)."""
    found: list[str] = []
    for path in library_files()[:60]:
        found += re.findall(r"[A-Za-z]{3,9}", path.read_text(encoding="utf-8", errors="replace"))
    return random.Random(seed), found


@cache
def trained_tokenizer(vocab: int) -> str:
    """tokenizer.json of a byte-level BPE of this size; trained once per process."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(p) for p in library_files()], trainer)
    return str(tokenizer.to_str(pretty=True))


def make_tokenizer(folder: Path, vocab: int = SMALL.vocab, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """Writes tokenizer.json, tokenizer_config.json and (unless None) chat_template.jinja; returns the folder."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(trained_tokenizer(vocab), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template)
    return folder


def make_model(shape: Shape = SMALL, seed: int = 0, **overrides: Any) -> Any:
    """A random float32 LlamaForCausalLM in eval mode; weights spread enough that log-probabilities differ."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{
            "vocab_size": shape.vocab,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": shape.positions,
            "initializer_range": 0.05,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
            "dtype": "float32",
            **overrides,
        }
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config).eval()


def make_checkpoint(
    folder: Path, shape: Shape = SMALL, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE, **overrides: Any
) -> Path:
    """A complete checkpoint in the Hugging Face layout (safetensors); returns the folder."""
    make_tokenizer(folder, shape.vocab, chat_template)
    make_model(shape, seed, **overrides).save_pretrained(folder)
    return folder
