"""What a recipe may set for `rlvr`. Whatever changes numbers stands here; nothing is inherited unseen.

An iteration generates `prompts_per_iteration * samples_per_prompt` rollouts and makes `epochs * mini_batches` optimizer
steps of them. Steps of saves, events and checkpoints are iterations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import ClassVar, Literal

from evalsuite.errors import UsageError
from train_plugins.settings import Schedule, Tracker

Algorithm = Literal["ppo", "grpo"]
KL = Literal["kl1", "kl2", "kl3", "kl4"]
Advantage = Literal["group", "mean_only", "rloo"]
MOST_ITERATIONS = 10_000_000
LossNorm = Literal["token", "sequence", "microbatch"]


@dataclass(frozen=True, slots=True)
class GapLimits:
    """How far the learner's log-probabilities may be from the generator's: mean absolute difference, correlation."""

    warn_mean: float = 0.02
    warn_correlation: float = 0.99
    stop_mean: float = 0.2
    stop_correlation: float = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class RLVROptions:
    """Options of one RLVR run. A field that only one algorithm knows is refused with the other.

    `score` of a rollout is `reward_value` times what its verifiers say, replaced by `eos_penalty` where the response
    did not end by itself (None: kept). `verifiers` maps what rows have under `dataset` to the verifier that rewards
    them; `benchmarks` are folders with benchmarks of your own, whose verifiers may. Rows with prompts longer than
    `prompt_tokens` are dropped and counted. `episodes` is another way to give `iterations`, rounded down.
    `schedule_iterations` is the length of the learning rate's schedule where the run is ended earlier.
    `first_prompts` "twice" has the first two iterations ask the same prompts, as Tülu 3's release did.
    `generator_cpus` pins a generator's process to these cores.
    """

    algorithm: Algorithm
    lr: float
    prompts_per_iteration: int
    response_tokens: int
    prompt_tokens: int
    beta: float
    weight_decay: float
    samples_per_prompt: int = 1
    iterations: int | None = None
    episodes: int | None = None
    schedule_iterations: int | None = None
    first_prompts: Literal["once", "twice"] = "once"
    epochs: int = 1
    mini_batches: int = 1
    # -- the objective --
    kl: KL = "kl1"
    kl_in: Literal["reward", "loss"] = "reward"
    clip: float = 0.2
    clip_high: float | None = None
    loss_norm: LossNorm = "token"
    old_logprobs: Literal["first", "lazy"] = "first"
    gap_correction: Literal["none", "truncated"] = "none"
    advantage: Advantage = "group"
    # -- PPO alone --
    gamma: float = 1.0
    lam: float = 0.95
    value_clip: float = 0.2
    value_coef: float = 0.1
    value_lr: float | None = None
    value_init: Literal["checkpoint", "policy", "scratch"] = "checkpoint"
    value_warmup: int = 0
    whiten: Literal["global", "per_rank"] = "global"
    whiten_rewards: bool = False
    # -- the reward --
    verifiers: Mapping[str, str] = field(default_factory=dict)
    reward_value: float = 10.0
    eos_penalty: float | None = None
    min_response_tokens: int = 0
    reward_model_multiplier: float = 0.0
    benchmarks: tuple[str, ...] = ()
    verify_workers: int | None = None
    verify_timeout_s: float = 10.0
    max_verifier_errors: float = 0.01
    # -- generation --
    temperature: float = 1.0
    mode: Literal["sync", "async"] = "sync"
    generator: Literal["hf", "vllm"] = "hf"
    generator_options: Mapping[str, int | bool | str | float] = field(default_factory=dict)
    generator_threads: int | None = None
    generator_cpus: tuple[int, ...] = ()
    weight_transfer: Literal["auto", "shared_memory", "ipc", "nccl"] = "auto"
    canary_atol: float | None = None
    gap_limits: GapLimits = field(default_factory=GapLimits)
    stall_s: float = 600.0
    # -- when to stop before the end --
    kl_stop: float | None = None
    entropy_stop: float | None = None
    score_stop: float | None = None
    # -- optimizer and machine --
    schedule: Schedule = "linear"
    warmup_ratio: float = 0.0
    adam_betas: tuple[float, ...] = (0.9, 0.999)
    adam_eps: float = 1e-8
    max_grad_norm: float | None = 1.0
    tokens_per_pass: int | None = None
    layout: Literal["auto", "shared_prompt", "packed"] = "auto"
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    attention: Literal["sdpa", "eager", "flash_attention_2", "flex_attention"] = "sdpa"
    gradient_checkpointing: bool = False
    chat_template: str = "tulu"
    threads: int | None = None
    log_every: int = 1
    rollouts: Literal["all", "samples", "off"] = "all"
    report_to: tuple[Tracker, ...] = ()

    lora: ClassVar[None] = None  # what trainers with adapters have
    save_adapter: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if wrong := self.problems():
            raise UsageError("; ".join(wrong))

    @property
    def n_iterations(self) -> int:
        """Iterations of the whole run."""
        if self.iterations is not None:
            return self.iterations
        return (self.episodes or 0) // max(1, self.rollouts_per_iteration)

    @property
    def rollouts_per_iteration(self) -> int:
        return self.prompts_per_iteration * self.samples_per_prompt

    @property
    def updates_per_iteration(self) -> int:
        """Optimizer steps of an iteration."""
        return self.epochs * self.mini_batches

    def problems(self) -> list[str]:
        """What is wrong with the values, each in words."""
        return self._not_finite() or [*self._out_of_range(), *self._contradictions()]

    def _not_finite(self) -> list[str]:
        """What no number can be; clips without bound and limits that are never reached are let through."""
        finite = ("lr", "value_lr", "temperature", "adam_eps", "verify_timeout_s", "stall_s", "value_coef", "beta",
                  "weight_decay", "reward_value", "eos_penalty", "reward_model_multiplier")  # fmt: skip
        wrong = [f"{name} is {value}; it must be a finite number" for name in finite
                 if (value := getattr(self, name)) is not None and not math.isfinite(value)]  # fmt: skip
        numbers = {"entropy_stop": self.entropy_stop}
        numbers |= {f"gap_limits.{each.name}": getattr(self.gap_limits, each.name) for each in fields(self.gap_limits)}
        return wrong + [f"{name} is nan; it must be a number" for name, value in numbers.items()
                        if value is not None and math.isnan(value)]  # fmt: skip

    def _out_of_range(self) -> list[str]:
        ones = ("prompts_per_iteration", "samples_per_prompt", "response_tokens", "prompt_tokens", "epochs",
                "mini_batches", "log_every")  # fmt: skip
        wrong = [f"{name} is {getattr(self, name)}; at least 1" for name in ones if getattr(self, name) < 1]
        optional = ("iterations", "episodes", "schedule_iterations", "threads", "generator_threads", "verify_workers",
                    "tokens_per_pass")  # fmt: skip
        wrong += [f"{name} is {value}; at least 1" for name in optional
                  if (value := getattr(self, name)) is not None and value < 1]  # fmt: skip
        wrong += [f"{name} is {value:,}; at most {MOST_ITERATIONS:,}" for name in ("iterations", "schedule_iterations")
                  if (value := getattr(self, name)) is not None and value > MOST_ITERATIONS]  # fmt: skip
        above = ("lr", "temperature", "clip", "adam_eps", "verify_timeout_s", "stall_s", "value_clip", "value_coef",
                 "value_lr", "max_grad_norm", "kl_stop", "canary_atol")  # fmt: skip
        wrong += [f"{name} is {value}; it must be above 0" for name in above
                  if (value := getattr(self, name)) is not None and not value > 0]  # fmt: skip
        least = ("beta", "weight_decay", "value_warmup", "min_response_tokens")
        wrong += [f"{name} is {getattr(self, name)}; at least 0" for name in least if not getattr(self, name) >= 0]
        fractions = ("gamma", "lam", "warmup_ratio", "max_verifier_errors")
        wrong += [f"{name} is {getattr(self, name)}; from 0 to 1" for name in fractions
                  if not 0 <= getattr(self, name) <= 1]  # fmt: skip
        if self.score_stop is not None and not 0 < self.score_stop < 1:
            wrong.append(f"score_stop is {self.score_stop}; a share of the best mean score, above 0 and below 1")
        if len(self.adam_betas) != 2 or not all(0 <= beta < 1 for beta in self.adam_betas):
            wrong.append("adam_betas: expected two numbers from 0 to 1")
        if any(cpu < 0 for cpu in self.generator_cpus):
            wrong.append("generator_cpus: expected numbers of cores, from 0")
        if self.min_response_tokens > self.response_tokens:
            wrong.append(f"min_response_tokens is {self.min_response_tokens}, response_tokens {self.response_tokens}")
        return wrong

    def _contradictions(self) -> list[str]:
        wrong = []
        if (self.iterations is None) == (self.episodes is None):
            wrong.append("give iterations or episodes, one of them")
        elif self.episodes is not None and 1 <= self.episodes < self.rollouts_per_iteration:
            wrong.append(
                f"episodes is {self.episodes}, less than the {self.rollouts_per_iteration} rollouts of one iteration"
            )
        elif self.episodes is not None and self.n_iterations > MOST_ITERATIONS:
            wrong.append(
                f"episodes is {self.episodes:,}, that is {self.n_iterations:,} iterations; at most {MOST_ITERATIONS:,}"
            )
        if self.schedule_iterations is not None and self.schedule_iterations < self.n_iterations:
            wrong.append(
                f"schedule_iterations is {self.schedule_iterations}, fewer than the run has ({self.n_iterations}): its "
                "end would have no learning rate"
            )
        if self.generator == "hf" and self.generator_options:
            wrong.append("generator_options are vLLM's; leave them out, or set generator: vllm")
        if self.generator == "hf" and self.weight_transfer in ("ipc", "nccl"):
            wrong.append(f"weight_transfer: {self.weight_transfer} is vLLM's; leave it out, or set generator: vllm")
        if self.generator_cpus and (self.mode, self.generator) == ("sync", "hf"):
            wrong.append("generator hf in turns has no process of its own; leave out generator_cpus")
        if self.mini_batches > self.prompts_per_iteration:
            wrong.append(
                f"mini_batches is {self.mini_batches}, but an iteration has {self.prompts_per_iteration} prompts"
            )
        if self.kl == "kl4" and self.kl_in == "reward":
            wrong.append("kl4 weighs by the ratio of the update, which a reward does not know; use kl_in: loss")
        if self.clip_high is not None and self.clip_high < self.clip:
            wrong.append(f"clip_high is {self.clip_high}; at least clip ({self.clip})")
        if self.old_logprobs == "lazy" and self.gap_correction != "none":
            wrong.append("gap_correction weighs by log-probabilities from before the updates; use old_logprobs: first")
        return wrong + (self._of_grpo() if self.algorithm == "grpo" else self._of_ppo())

    def _of_grpo(self) -> list[str]:
        wrong = []
        if self.samples_per_prompt < 2:
            wrong.append("grpo compares the samples of one prompt; samples_per_prompt must be at least 2")
        if self.kl_in == "reward":
            wrong.append("grpo has its KL term in the loss; set kl_in: loss")
        plain: Mapping[str, object] = {
            "value_lr": None, "value_warmup": 0, "value_init": "checkpoint", "value_clip": 0.2, "value_coef": 0.1,
            "gamma": 1.0, "lam": 0.95, "whiten_rewards": False, "whiten": "global",
        }  # fmt: skip
        told = [name for name, default in plain.items() if getattr(self, name) != default]
        return wrong + ([f"grpo has no value network: leave out {', '.join(told)}"] if told else [])

    def _of_ppo(self) -> list[str]:
        wrong = []
        if self.advantage != "group":
            wrong.append("ppo takes its advantages from the value network; leave out advantage")
        if self.old_logprobs == "lazy":
            wrong.append("ppo puts log-probabilities from before the updates into its rewards; leave out old_logprobs")
        return wrong
