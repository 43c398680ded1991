"""A language model that needs no download: a small Llama and a tokenizer of characters, both built from a seed.

102 tokens: 6 specials, line break, space, digits, letters, punctuation; every other character is `<unk>`. The role
headers of the Tülu template are one token each here, so that short tasks stay short; elsewhere they are plain text.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from train_plugins.chat import TULU

SPECIALS = ("<pad>", "<unk>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
CHARACTERS = "\n " + string.digits + string.ascii_letters + string.punctuation
PAD_ID, UNK_ID, EOS_ID = 0, 1, 2
VOCABULARY = len(SPECIALS) + len(CHARACTERS)  # 102


def write_tiny(
    folder: Path,
    seed: int = 0,
    *,
    tied: bool = True,
    hidden: int = 128,
    layers: int = 4,
    heads: int = 4,
    intermediate: int = 384,
    context: int = 512,
) -> Path:
    """Writes a complete model folder and returns it; 866,176 parameters in float32 unless sizes are given.

    The same arguments give the same bytes. `tied`: input and output embeddings are one matrix.
    """
    import torch

    from evalsuite.models.lean import import_generation

    import_generation()
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    write_tokenizer(folder, context)
    return folder


def write_tokenizer(folder: Path, context: int = 512) -> None:
    """The tokenizer of characters with the Tülu template, as files beside a model."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "eos_token": "</s>",
        "additional_special_tokens": list(SPECIALS[3:]),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TULU, encoding="utf-8")


def build_tokenizer() -> Any:
    """A `tokenizers.Tokenizer` in which a character is a token."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    vocabulary = {token: i for i, token in enumerate([*SPECIALS, *CHARACTERS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=False))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.decoder = decoders.Fuse()
    return tokenizer
