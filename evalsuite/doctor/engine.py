"""Starts an engine on a tiny random checkpoint made on the spot, and times one response and one log-likelihood."""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from evalsuite.errors import EngineError, EvalsuiteError
from evalsuite.models import EngineSpec, choose, open_model
from evalsuite.types import Failed, GenerateRequest, LoglikRequest, Model, Prompt, Sampling

SPECIALS = ("<pad>", "<s>", "</s>")
MAX_TOKENS = 8


def try_engine(name: str) -> dict[str, Any]:
    """{engine, why, start_s, generate_s, loglikelihood_s, text, total}; raises EngineError when any of it fails."""
    engine, why = choose(name)
    if engine == "api":
        raise EngineError("engine 'api' needs a server to talk to; try it with: evalsuite score --model api --help")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything an engine reads is in the folder
    with tempfile.TemporaryDirectory(prefix="evalsuite-doctor-") as folder:
        try:
            return {"engine": engine, "why": why, **_timed(engine, tiny_checkpoint(Path(folder) / "tiny"))}
        except EvalsuiteError as error:
            raise EngineError(f"engine {engine!r} does not work here: {error}") from error
        except Exception as error:  # whatever an engine dies of, the reader wants it in one line
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
            reason = f"{type(error).__name__}: {lines[0]}"
            raise EngineError(f"engine {engine!r} does not work here: {reason} (see: evalsuite doctor)") from error


def tiny_checkpoint(folder: Path) -> Path:
    """A random Llama of 0.3 M parameters with a tokenizer of single bytes, in the Hugging Face layout; the folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = _byte_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,  # heads of 32: the smallest that vLLM has a CPU kernel for
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        weights = LlamaForCausalLM(config).to(torch.float32).state_dict()
    config.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _byte_tokenizer(folder: Path) -> int:
    """Writes a tokenizer whose tokens are the specials and the 256 bytes; returns how many tokens that is."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = [*SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return len(names)


def _timed(engine: str, checkpoint: Path) -> dict[str, Any]:
    start = time.monotonic()
    model = open_model(EngineSpec(engine, dtype="float32"), checkpoint)
    try:
        _generate(model)  # an engine may load on first use, which belongs to its start
        start_s = time.monotonic() - start
        return {"start_s": round(start_s, 2), **_generate(model), **_loglikelihood(model)}
    finally:
        model.close()


def _generate(model: Model) -> dict[str, Any]:
    start = time.monotonic()
    ((_, response),) = model.generate([GenerateRequest(Prompt("Two and two make"), Sampling(MAX_TOKENS))])
    if response.finish == "error":
        raise EngineError(f"its one generation failed ({response.why})")
    return {"generate_s": round(time.monotonic() - start, 2), "text": response.text}


def _loglikelihood(model: Model) -> dict[str, Any]:
    start = time.monotonic()
    ((_, found),) = model.loglikelihood([LoglikRequest(Prompt("Two and two make"), (" four", " five"))])
    if isinstance(found, Failed):
        raise EngineError(f"its one log-likelihood failed ({found.why})")
    totals = [one.total for one in found]
    if len(totals) != 2 or not all(math.isfinite(t) and t <= 0 for t in totals):
        raise EngineError(f"it gave {totals} as log-probabilities of two options")
    return {"loglikelihood_s": round(time.monotonic() - start, 2), "totals": totals}
