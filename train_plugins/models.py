"""The start of a run as a model to train, and a trained model as a folder that anybody can load. Worker only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite.errors import CheckpointError, UsageError
from train_plugins.saving import link_weights, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from train_plugins.settings import TrainingOptions
    from train_plugins.worker import Run

ROWS_OF = 8  # a resized embedding has a multiple of these rows, as in open-instruct
SHARD = "5GB"
PROBE, PROBE_TOKENS = "The quick brown fox jumps over the lazy dog; 12 + 30 = 42.", 16
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}  # on average: rounding moves a rare token by more, other weights all


def load_causal(run: Run, tokenizer: Any) -> Any:
    """The start of the run as a causal language model for training, with adapters where the options say so."""
    from transformers import AutoModelForCausalLM

    return load_model(run, tokenizer, AutoModelForCausalLM, "CAUSAL_LM")


def load_model(run: Run, tokenizer: Any, family: Any, task: str, **more: Any) -> Any:
    """The start of the run through `family.from_pretrained`, in float32: bfloat16 runs compute in it, and keep float32
    weights. Under adapters the frozen weights are kept in the run's dtype."""
    import torch
    from transformers import set_seed

    options, start = run.options, run.job.start
    if start is None:
        raise UsageError("this trainer starts from a checkpoint; set start: in the stage")
    set_seed(run.job.seed)  # new rows of an embedding, heads and adapters are drawn
    dtype = getattr(torch, kept_dtype(options))
    model = family.from_pretrained(start.path, dtype=dtype, attn_implementation=options.attention, **more)
    fit_vocabulary(model, tokenizer)
    return model if options.lora is None else _with_adapters(model, options.lora, task)


def kept_dtype(options: TrainingOptions) -> str:
    """The dtype in which the weights of the start are kept: float32 where they are trained."""
    return "float32" if options.lora is None else options.dtype


def fit_vocabulary(model: Any, tokenizer: Any) -> None:
    """Gives the embedding rows for every token, and the model the tokenizer's ids of end and padding."""
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=ROWS_OF)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = tokenizer.eos_token_id


def _with_adapters(model: Any, lora: Any, task: str) -> Any:
    from peft import LoraConfig, get_peft_model

    _check_targets(model, lora.targets)
    return get_peft_model(
        model,
        LoraConfig(
            task_type=task,
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.targets),
            bias="none",
        ),
    )


def _check_targets(model: Any, targets: Sequence[str]) -> None:
    """Raises UsageError unless every target names linear layers inside the model. Others are not merged as `merged`
    does it, and TRL reads the head's weights around an adapter."""
    import torch

    heads = (model.get_output_embeddings(), getattr(model, "score", None))
    kinds: dict[str, set[bool]] = {}
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        kinds.setdefault(name, set()).add(isinstance(module, torch.nn.Linear) and module not in heads)
    if missing := sorted(set(targets) - set(kinds)):
        raise UsageError(f"lora.targets: this model has no {', '.join(missing)}; name modules that it has")
    if wrong := sorted(name for name in set(targets) if kinds[name] != {True}):
        usable = sorted(name for name, kind in kinds.items() if kind == {True})
        raise UsageError(
            f"lora.targets: {', '.join(wrong)} cannot have adapters, only linear layers before the head can; this "
            f"model has {', '.join(usable)}"
        )


def is_adapted(model: Any) -> bool:
    return hasattr(model, "peft_config")


def write_model(
    trainer: Any, tokenizer: Any, folder: Path, dtype: str, state: Path | None = None, *, adapter: bool = False
) -> None:
    """Writes what would be served: whole weights in `dtype`, adapters merged in. Called on every process; process 0
    writes. `state` holds the same weights where the training weights are float32; they are linked, not written again.
    """
    model, tensors = whole_state(trainer)
    if not trainer.args.should_save:
        return
    inner = model.get_base_model() if is_adapted(model) else model
    if is_adapted(model):
        tensors = merged(tensors or model.state_dict(), model.peft_config["default"])
    linked = tensors is None and dtype == "float32" and state is not None and link_weights(state, folder)
    if linked:
        inner.config.save_pretrained(folder)
    else:
        inner.save_pretrained(folder, state_dict=_cast(tensors or inner.state_dict(), dtype), max_shard_size=SHARD)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architecture = type(inner).__name__
    write_json(folder / "config.json", {**config, "dtype": dtype, "architectures": [architecture], "use_cache": True})
    tokenizer.save_pretrained(folder)
    # A base model's temperature in here would change the scores of every gate.
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    write_json(folder / "generation_config.json", ids)
    if adapter and is_adapted(model):
        model.save_pretrained(folder / "adapter")


def check_same(trainer: Any, tokenizer: Any, folder: Path, dtype: str) -> None:
    """Raises CheckpointError unless the folder answers as the model in memory does: a head that was not tied again, an
    adapter that was not merged. Random numbers are left as they were, for training goes on with them."""
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    inner = model.get_base_model() if is_adapted(model) else model
    ids = torch.tensor([tokenizer(PROBE)["input_ids"][:PROBE_TOKENS]])
    was_training = model.training
    with torch.random.fork_rng(), torch.no_grad():
        again = type(inner).from_pretrained(folder, dtype=torch.float32).eval()
        model.eval()
        expected = model(input_ids=ids.to(next(model.parameters()).device), use_cache=False).logits.float().cpu()
        found = again(input_ids=ids, use_cache=False).logits
    model.train(was_training)
    # A reward is a single number, whose softmax says nothing.
    both = (expected, found) if expected.shape[-1] == 1 else (expected.log_softmax(-1), found.log_softmax(-1))
    apart = float((both[0] - both[1]).abs().mean())
    if not apart <= TOLERANCE[dtype]:
        raise CheckpointError(
            f"{folder.name}: read again its log-probabilities are {apart:.2g} off those of the model in memory "
            f"({TOLERANCE[dtype]} could be rounding); this architecture is not saved as it is trained"
        )


def whole_state(trainer: Any) -> tuple[Any, Mapping[str, Tensor] | None]:
    """(the model without wrappers, its tensors where they are sharded and had to be gathered, else None)."""
    accelerator = trainer.accelerator
    model = accelerator.unwrap_model(trainer.model)
    if is_sharded(trainer):
        return model, accelerator.get_state_dict(trainer.model_wrapped)
    return model, None


def is_sharded(trainer: Any) -> bool:
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def merged(tensors: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """Plain weights of a model with LoRA adapters: W + alpha/r * B A, computed in float32, under the plain names.

    peft merges in place, which would leave rounding in weights that training goes on with.
    """
    scale = config.lora_alpha / config.r
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("base_model.model.")
        if ".lora_" in name or ".original_module." in name:
            continue
        if name.endswith(".base_layer.weight"):
            low, high = (tensors[key.replace("base_layer", f"lora_{part}.default")] for part in "AB")
            tensor = (tensor.float() + scale * (high.float() @ low.float())).to(tensor.dtype)
        found[name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")] = tensor
    return found


def _cast(tensors: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """The tensors in `dtype`; those that share memory share it still, which is how tied weights are told."""
    import torch

    done: dict[int, Tensor] = {}
    kind = getattr(torch, dtype)
    return {
        name: done.setdefault(tensor.data_ptr(), tensor.detach().to(kind)) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
