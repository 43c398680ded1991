"""How much memory a process needs to train a model, from its shape alone: an estimate, allocators add to it.

16 bytes for each trained parameter (bfloat16 weights and gradients, a float32 master copy and two moments; or all of it
in float32), 2 or 4 for each frozen one. Activations are those of one forward and backward pass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from train_plugins.settings import TrainingOptions

TRAINED = 16
Sharding = Literal["none", "optimizer", "all", "offloaded"]
SHAPES = Path(__file__).parent / "recipes" / "models.yaml"
# Bytes per token and hidden unit of one layer in 16 bit, without attention scores (arXiv 2205.05198, §4.1).
PER_LAYER = 34


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder that matter for memory, in numbers of units."""

    parameters: int
    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """How a step is spread: `sides` is 2 where a row is a pair."""

    processes: int
    sharding: Sharding
    per_device: int
    sides: int = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process."""

    state_bytes: int
    activation_bytes: int


def estimate(
    shape: Shape, options: TrainingOptions, layout: Layout, *, reference: bool = False, head: bool = True
) -> Memory:
    """Memory of one process. `reference` is a frozen copy beside the model; `head` False: no logits are computed."""
    width = 2 if options.dtype == "bfloat16" else 4
    trained, frozen = shape.parameters, shape.parameters if reference else 0
    if options.lora is not None:
        # The model with its adapters switched off is its own reference.
        trained, frozen = adapter_parameters(shape, options.lora.r, options.lora.targets), shape.parameters
    whole = state_bytes(trained, frozen, width, layout, shape.layers)
    tokens = layout.per_device * layout.sides * options.max_length
    return Memory(whole, pass_bytes(shape, tokens, width, checkpointing=options.gradient_checkpointing, head=head))


def state_bytes(trained: int, frozen: int, width: int, layout: Layout, layers: int) -> int:
    """Weights, gradients and optimizer of one process, for parameters of `width` bytes."""
    whole = TRAINED * trained + width * frozen
    if layout.sharding == "offloaded":  # the host keeps it, and lends a layer at a time
        return -(-width * (trained + frozen) // layers)
    if layout.sharding == "all":
        return -(-whole // layout.processes)
    if layout.sharding == "optimizer":
        return width * (trained + frozen) + -(-(TRAINED - width) * trained // layout.processes)
    return whole


def pass_bytes(shape: Shape, tokens: int, width: int, *, checkpointing: bool, head: bool = True) -> int:
    """What a forward and backward pass over that many tokens adds."""
    one_layer = PER_LAYER * shape.hidden * width // 2
    kept = width * shape.hidden if checkpointing else one_layer
    # Logits once in the model's width, once in float32, and their gradient.
    logits = (2 * width + 4) * shape.vocabulary if head else 0
    return tokens * (shape.layers * kept + one_layer + logits)


def cache_bytes(shape: Shape, tokens: int, width: int) -> int:
    """Keys and values of that many tokens, which generation keeps."""
    return tokens * 2 * shape.layers * (shape.hidden // shape.heads) * shape.kv_heads * width


def value_parameters(shape: Shape) -> int:
    """Parameters of the model with one output for each token in place of its logits."""
    head = 0 if shape.tied else shape.vocabulary * shape.hidden
    return shape.parameters - head + shape.hidden


def adapter_parameters(shape: Shape, r: int, targets: tuple[str, ...]) -> int:
    """Trained parameters of low-rank adapters: r rows and columns for each target matrix of each layer."""
    kv = shape.hidden // shape.heads * shape.kv_heads
    sizes = dict.fromkeys(("q_proj", "o_proj"), (shape.hidden, shape.hidden))
    sizes |= dict.fromkeys(("k_proj", "v_proj"), (shape.hidden, kv))
    sizes |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), (shape.hidden, shape.intermediate))
    return shape.layers * sum(r * sum(sizes.get(name, (0, 0))) for name in targets)


def sharding(launch: str | None) -> Sharding:
    """What a launch config spreads over the processes, read from its file; "none" where there is none."""
    from evalsuite.trainers.recipes import find_launch

    path = find_launch(launch) if launch is not None else None
    content = yaml.safe_load(path.read_text(encoding="utf-8")) if path is not None else None
    if not isinstance(content, dict):
        return "none"
    kind = content.get("distributed_type")
    if kind == "FSDP":
        return "offloaded" if (content.get("fsdp_config") or {}).get("fsdp_offload_params") else "all"
    deepspeed = (content.get("deepspeed_config") or {}) if kind == "DEEPSPEED" else {}
    if deepspeed.get("zero_stage") == 3:
        return "offloaded" if deepspeed.get("offload_param_device") == "cpu" else "all"
    return "optimizer" if deepspeed.get("zero_stage") in (1, 2) else "none"


def model_shape(model: str) -> Shape | None:
    """The shape of a model folder by its config.json, or of a known hub id; None where neither tells it."""
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = yaml.safe_load(SHAPES.read_text(encoding="utf-8")).get(model)
    return _shape(config) if isinstance(config, Mapping) else None


def _shape(config: Mapping[str, Any]) -> Shape | None:
    """By the names that Llama, Qwen, Gemma and OLMo share; None for a config that has others."""
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "vocab_size")
    if not all(isinstance(config.get(name), int) for name in names):
        return None
    hidden, layers, intermediate, heads, vocabulary = (config[name] for name in names)
    kv_heads, head = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    attention = 2 * hidden * head * (heads + kv_heads)
    layer = attention + 3 * hidden * intermediate + 2 * hidden
    tied = bool(config.get("tie_word_embeddings"))
    tables = 1 if tied else 2
    parameters = layers * layer + tables * vocabulary * hidden + hidden
    return Shape(parameters, hidden, layers, intermediate, heads, kv_heads, vocabulary, tied)
