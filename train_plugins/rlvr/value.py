"""The value network of PPO: what score is still to come, read at every token. For the worker process: imports torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evalsuite.errors import UsageError

FILE = "value.safetensors"


class ValueNetwork(nn.Module):
    """A transformer with one number for each place: a reward model's trunk and head, and a bias where it has none of
    its own yet. Trunk and policy may differ in size, not in tokenizer."""

    def __init__(self, model: Any, *, learns_bias: bool) -> None:
        super().__init__()
        self.model = model
        self.bias = nn.Parameter(torch.zeros(()), requires_grad=learns_bias)

    @property
    def config(self) -> Any:
        return self.model.config

    def forward(self, at_N: Tensor, **inputs: Any) -> Tensor:
        """Values (N,), at least float32, at places of the flattened (R, W) input."""
        trunk = getattr(self.model, self.model.base_model_prefix)
        hidden = trunk(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[at_N]
        values = self.model.score(hidden)[:, 0]
        found: Tensor = values.to(torch.promote_types(values.dtype, torch.float32)) + self.bias
        return found

    def start_from(self, mean_score: float) -> None:
        """A head of zero, and a bias that says the mean score everywhere."""
        with torch.no_grad():
            self.model.score.weight.zero_()
            self.bias.fill_(mean_score)


def load_value_network(folder: Path, options: Any, source: str, tokenizer: Any, seed: int) -> ValueNetwork:
    """From a reward model (`checkpoint`), from the policy's own trunk, or `scratch`: its shape with drawn weights."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    more = {"dtype": torch.float32, "attn_implementation": options.attention, "num_labels": 1}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if source == "scratch":
            config = AutoConfig.from_pretrained(folder, num_labels=1)
            model = AutoModelForSequenceClassification.from_config(
                config, dtype=torch.float32, attn_implementation=options.attention
            )
        else:
            model, found = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True, **more)
            if source == "checkpoint" and any(name.startswith("score.") for name in found["missing_keys"]):
                raise UsageError(
                    f"{folder}: no reward model, it has no score head (score.weight) and what it said would be drawn; "
                    "name one that trainer: rm made, or set value_init: policy with value_warmup"
                )
        if model.get_input_embeddings().weight.shape[0] < len(tokenizer):
            model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8)
    model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(model.score, "bias", None) is not None:
        raise UsageError(f"{folder}: its score head has a bias, which no reward model of `trainer: rm` has; train one")
    return ValueNetwork(model, learns_bias=source != "checkpoint")


def save_value(network: ValueNetwork, folder: Path) -> None:
    from safetensors.torch import save_model

    save_model(network, str(folder / FILE))


def restore_value(network: ValueNetwork, folder: Path) -> None:
    from safetensors.torch import load_model

    load_model(network, str(folder / FILE))


def check_same_tokenizer(policy: Path, other: Path, what: str) -> None:
    """Raises UsageError with the first field in which two tokenizers differ: what one network reads, the other must."""
    ours, theirs = (_tokenizer(folder) for folder in (policy, other))
    for key in sorted({*ours, *theirs} - {"padding", "truncation"}):
        if ours.get(key) != theirs.get(key):
            raise UsageError(
                f"{what} {other} has another tokenizer than the policy {policy} (tokenizer.json: {key} differs); both "
                "must read the same tokens"
            )


def _tokenizer(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{folder}: its tokenizer.json cannot be read ({error.strerror})") from error
    return found
