"""What a recipe may set for `sft`, `rm` and `dpo`. Whatever changes numbers stands here; nothing is inherited unseen.

`batch` is always the global number of examples (pairs for `dpo` and `rm`) of one optimizer step. Warm-up is floored, as
in open-instruct: `int(steps * warmup_ratio)` (transformers rounds it up).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evalsuite.errors import UsageError

Schedule = Literal["linear", "cosine", "constant"]
Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
Packing = Literal["exact", "dataset", "none"]
Layout = Literal["auto", "shared_prompt", "packed", "padded"]
PairLoss = Literal["dpo_norm", "dpo", "simpo", "ipo"]
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adapters in place of full weights. What is judged is the merged model."""

    r: int = 64
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS

    def problems(self) -> list[str]:
        wrong = [f"lora.r is {self.r}; at least 1"] if self.r < 1 else []
        wrong += [f"lora.dropout is {self.dropout}; from 0 to below 1"] if not 0 <= self.dropout < 1 else []
        return wrong + ([] if self.targets else ["lora.targets is empty; name at least one module"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Options that the three trainers share.

    `per_device_batch` is the examples of one forward pass on one process; the number of passes follows from it, `batch`
    and the processes. `max_steps` ends the run early, `chat_template` is `tulu`, `own` (the start's) or a file.
    `max_grad_norm` None: no clipping.
    """

    lr: float
    epochs: int
    batch: int
    max_length: int
    weight_decay: float
    schedule: Schedule = "linear"
    warmup_ratio: float = 0.0
    adam_betas: tuple[float, ...] = (0.9, 0.999)
    adam_eps: float = 1e-8
    max_grad_norm: float | None = None
    per_device_batch: int | None = None
    max_steps: int | None = None
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] = "sdpa"
    gradient_checkpointing: bool = False
    chat_template: str = "tulu"
    lora: Lora | None = None
    save_adapter: bool = False
    threads: int | None = None
    log_every: int = 1
    report_to: tuple[Tracker, ...] = ()

    def __post_init__(self) -> None:
        if wrong := self.problems():
            raise UsageError("; ".join(wrong))

    def problems(self) -> list[str]:
        """What is wrong with the values, each in words."""
        least = {"epochs": 1, "batch": 1, "max_length": 8, "log_every": 1}
        wrong = [f"{name} is {getattr(self, name)}; at least {low}" for name, low in least.items()
                 if getattr(self, name) < low]  # fmt: skip
        wrong += [f"{name} is {value}; at least 1" for name in ("per_device_batch", "max_steps", "threads")
                  if (value := getattr(self, name)) is not None and value < 1]  # fmt: skip
        wrong += [f"{name} is {value}; it must be above 0" for name in ("lr", "adam_eps")
                  if not (value := getattr(self, name)) > 0]  # fmt: skip
        wrong += [f"weight_decay is {self.weight_decay}; at least 0"] if not self.weight_decay >= 0 else []
        wrong += [f"warmup_ratio is {self.warmup_ratio}; from 0 to 1"] if not 0 <= self.warmup_ratio <= 1 else []
        wrong += ["adam_betas: expected two numbers from 0 to 1"] if not _are_betas(self.adam_betas) else []
        return wrong + (self.lora.problems() if self.lora is not None else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTOptions(TrainingOptions):
    """Supervised fine-tuning. The loss is the sum over label tokens, divided by their number in the whole step.

    `packing: exact` keeps the examples of every optimizer step as they are without packing; `dataset` is TRL's packing
    of the whole data set; `none` pads. `pack_tokens` is the length of a packed row. `loss_scale: sum` leaves the sum
    undivided (Tülu 3's words; see the recipe files).
    """

    packing: Packing = "exact"
    pack_tokens: int | None = None
    loss_scale: Literal["mean", "sum"] = "mean"
    overlong: Literal["cut", "drop"] = "cut"

    def problems(self) -> list[str]:
        wrong = TrainingOptions.problems(self)  # super() does not find the class that slots=True makes anew
        few = self.pack_tokens is not None and self.pack_tokens < 1
        return wrong + ([f"pack_tokens is {self.pack_tokens}; at least 1"] if few else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class DPOOptions(TrainingOptions):
    """Preference tuning. `beta` is around 5 for `dpo_norm`, whose margins are means over tokens, and 0.1 for `dpo`.

    `response` says which tokens are compared: the last assistant turn, or every one as in Tülu 3's release.
    `reference_cache: false` computes the reference's log-probabilities as it goes.
    """

    beta: float
    loss: PairLoss = "dpo_norm"
    layout: Layout = "auto"
    response: Literal["last_turn", "all_assistant"] = "last_turn"
    label_smoothing: float = 0.0
    reference_cache: bool = True

    def problems(self) -> list[str]:
        wrong = [*TrainingOptions.problems(self), *_dropout_problems(self.lora)]
        wrong += [] if self.beta > 0 else [f"beta is {self.beta}; it must be above 0"]
        if not 0 <= self.label_smoothing < 0.5:
            wrong.append(f"label_smoothing is {self.label_smoothing}; from 0 to below 0.5")
        if self.label_smoothing and self.loss == "ipo":
            wrong.append("label_smoothing has no meaning for loss ipo; leave it out")
        return wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class RMOptions(TrainingOptions):
    """Reward model: -log σ(r_chosen - r_rejected). Pairs over `max_length` are dropped, as in Tülu 3.

    `held_out` is the fraction of prompts, by hash, that accuracy and margin are reported on.
    """

    held_out: float = 0.02

    def problems(self) -> list[str]:
        wrong = [*TrainingOptions.problems(self), *_dropout_problems(self.lora)]
        return wrong + ([] if 0 <= self.held_out < 1 else [f"held_out is {self.held_out}; from 0 to below 1"])


def _are_betas(betas: tuple[float, ...]) -> bool:
    return len(betas) == 2 and all(0 <= beta < 1 for beta in betas)


def _dropout_problems(lora: Lora | None) -> list[str]:
    """Pairs are compared without dropout, as in Tülu 3 and TRL, which switch off that of adapters too."""
    if lora is None or not lora.dropout:
        return []
    return [f"lora.dropout is {lora.dropout}, but dpo and rm train without dropout; leave it out"]
