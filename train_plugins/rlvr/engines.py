"""Which generator a child process is to build, and how. Light: torch and vllm are imported when it is built."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalsuite.models.lean import import_generation
from train_plugins.rlvr.rollouts import Generator, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """A generator that begins with the model in `start`, whose weights are `version`.

    `kind` is hf, vllm, or `module:function`, called with this spec. `threads` None leaves it to the environment;
    `cpus` are those the process may use, all when empty.
    """

    kind: str
    start: Path
    sampling: Sampling
    pad_id: int = 0
    dtype: str = "float32"
    seed: int = 0
    version: int = 0
    options: Mapping[str, float | bool | str] = field(default_factory=dict)
    weight_transfer: str = "auto"
    attention: str = "sdpa"
    threads: int | None = None
    cpus: tuple[int, ...] = ()


def build(spec: GeneratorSpec) -> Generator:
    """The generator, with its model loaded."""
    known = {"hf": hf_generator, "vllm": vllm_generator}
    if spec.kind in known:
        return known[spec.kind](spec)
    module, _, name = spec.kind.partition(":")
    found: Generator = getattr(importlib.import_module(module), name)(spec)
    return found


def hf_generator(spec: GeneratorSpec) -> Generator:
    """A transformers model, on a GPU where one is visible."""
    import torch

    import_generation()
    from transformers import AutoModelForCausalLM

    from train_plugins.rlvr.sampling import HFGenerator

    if spec.threads is not None:
        torch.set_num_threads(spec.threads)
    model: Any = AutoModelForCausalLM.from_pretrained(
        spec.start, dtype=getattr(torch, spec.dtype), attn_implementation=spec.attention
    )
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return HFGenerator(model, spec.sampling, spec.pad_id)


def vllm_generator(spec: GeneratorSpec) -> Generator:
    from train_plugins.rlvr.vllm_backend import VLLMGenerator

    return VLLMGenerator(
        spec.start,
        spec.sampling,
        dtype=spec.dtype,
        seed=spec.seed,
        options=spec.options,
        weight_transfer=spec.weight_transfer,
    )


def weight_bytes(folder: Path) -> int:
    """Bytes of a model's weight files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
