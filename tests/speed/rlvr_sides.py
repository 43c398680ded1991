"""GRPO on our side and on TRL's, from the same start and on the same prompts in the same order; and the start itself.

What is timed is a number of steps behind some that are not counted, from log line to log line: sampling, verifiers,
updates and logging, without imports, loading of models and saving.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from evalsuite.checkpoint import open_checkpoint
from evalsuite.trainers import Coupling, DataRef, SaveRule, TrainJob, read_events
from evalsuite.verify.rewards import find_reward
from tests.speed.training_sides import write_rows
from train_plugins.chat import load_tokenizer
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.prompts import PromptOrder, prompt_ids
from train_plugins.settings import SFTOptions
from train_plugins.tiny import write_tiny

Rows = Sequence[Mapping[str, Any]]
PARTS = ("generate_s", "verify_s", "score_s", "update_s")


@dataclass(frozen=True, slots=True)
class Stepped:
    """CPU-seconds of each step that counts, and of all steps mean score, rollouts, tokens that were read and written.

    `shares`: parts of our steps that count, of their wall time.
    """

    cpu_s: tuple[float, ...]
    scores: tuple[float, ...]
    rollouts: int
    prompt_tokens: int
    response_tokens: int
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Watch:
    """Seen by the callback and the reward function of a TRL run."""

    at: list[float] = field(default_factory=list)  # CPU-seconds of the process at each log line
    scores: list[float] = field(default_factory=list)
    all_tokens: int = 0
    response_tokens: int = 0
    rollouts: int = 0


def job_of(stage: Any, start: Path, data: Path, out: Path, seed: int, save: SaveRule | None = None) -> TrainJob:
    out.mkdir(parents=True)
    return TrainJob(
        stage=stage, start=open_checkpoint(start), data=(DataRef(path=str(data), location=str(data)),), out=out,
        seed=seed, save=save or SaveRule(), options={}, coupling=Coupling("off"),
    )  # fmt: skip


def ours(start: Path, data: Path, options: RLVROptions, skip: int, seed: int, out: Path) -> Stepped:
    """The worker of the stage, in this process."""
    from train_plugins.rlvr import worker
    from train_plugins.worker import Run

    worker.work(Run(job_of("rlvr", start, data, out, seed), options))
    steps = [event for event in read_events(out / "events.jsonl") if event["kind"] == "step"]
    counted = steps[skip:]
    whole_s = sum(step[part] for step in counted for part in PARTS)
    return Stepped(
        cpu_s=tuple(b["cpu_s"] - a["cpu_s"] for a, b in pairwise(steps[skip - 1 :])),
        scores=tuple(step["score"] for step in steps),
        rollouts=steps[-1]["episodes"],
        prompt_tokens=_prompt_tokens(start, data, options, seed),
        response_tokens=steps[-1]["tokens"],
        shares={part: sum(step[part] for step in counted) / whole_s for part in PARTS},
    )


def _prompt_tokens(start: Path, data: Path, options: RLVROptions, seed: int) -> int:
    tokenizer = load_tokenizer(start, options.chat_template)
    asked = asked_rows(_read(data), options, seed)
    return options.samples_per_prompt * sum(len(prompt_ids(tokenizer, row["messages"])) for row in asked)


def asked_rows(rows: Rows, options: RLVROptions, seed: int) -> list[Mapping[str, Any]]:
    """The rows of all iterations in the order in which ours asks them."""
    order = PromptOrder(len(rows), options.prompts_per_iteration, [(0, seed)])
    return [rows[i] for k in range(1, options.n_iterations + 1) for i in order.numbers(k)]


def _read(data: Path) -> Rows:
    from train_plugins.data.rows import read_rows

    return list(read_rows(data, "rlvr"))


def trl_grpo(start: Path, data: Path, options: RLVROptions, skip: int, seed: int, out: Path) -> Stepped:
    """TRL's trainer: transformers generates, no reference, one pass and one optimizer step for each generation."""
    from datasets import Dataset

    watch = Watch()
    asked = asked_rows(_read(data), options, seed)
    columns = [{"prompt": row["messages"], "label": row["ground_truth"]} for row in asked]
    trainer = _trainer(start, options, seed, out, watch, Dataset.from_list(columns), asked[0]["dataset"])
    trainer.train()
    return Stepped(
        cpu_s=tuple(b - a for a, b in pairwise(watch.at[skip - 1 :])),
        scores=tuple(watch.scores),
        rollouts=watch.rollouts,
        prompt_tokens=watch.all_tokens - watch.response_tokens,
        response_tokens=watch.response_tokens,
    )


def _trainer(start: Path, options: RLVROptions, seed: int, out: Path, watch: Watch, dataset: Any, verifier: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    class Times(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any], **_: Any) -> None:
            if "reward" in logs:
                watch.scores.append(float(logs["reward"]))
                watch.all_tokens = int(logs["num_tokens"])
                watch.at.append(time.process_time())

    verify = find_reward(verifier).verify

    def reward(completions: Any, completion_ids: Any, label: Any, **_: Any) -> list[float]:
        watch.rollouts += len(completions)
        watch.response_tokens += sum(map(len, completion_ids))
        said = zip(completions, label, strict=True)
        return [options.reward_value * verify(c[0]["content"], {"ground_truth": gold}).value for c, gold in said]

    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32, attn_implementation="sdpa")
    trainer = GRPOTrainer(
        model=model, reward_funcs=reward, args=GRPOConfig(**_arguments(out, options, seed)), train_dataset=dataset,
        processing_class=load_tokenizer(start, options.chat_template), callbacks=[Times()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(out: Path, options: RLVROptions, seed: int) -> dict[str, Any]:
    """`dapo` divides by the tokens of the whole step, as `loss_norm: token` does."""
    return {
        "output_dir": str(out), "seed": seed, "learning_rate": options.lr, "lr_scheduler_type": options.schedule,
        "warmup_steps": 0, "weight_decay": options.weight_decay, "adam_epsilon": options.adam_eps,
        "max_grad_norm": options.max_grad_norm or 0.0, "max_steps": options.n_iterations,
        "per_device_train_batch_size": options.rollouts_per_iteration, "gradient_accumulation_steps": 1,
        "steps_per_generation": 1, "num_iterations": 1, "num_generations": options.samples_per_prompt,
        "max_completion_length": options.response_tokens, "temperature": options.temperature, "top_p": 1.0, "top_k": 0,
        "beta": 0.0, "epsilon": options.clip, "loss_type": "dapo", "scale_rewards": "group", "shuffle_dataset": False,
        "use_vllm": False, "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "logging_steps": 1,
        "save_strategy": "no", "report_to": [], "disable_tqdm": True,
    }  # fmt: skip


# -- the start of both sides --


def taught(
    root: Path, lessons: Rows, checks: Rows, options: SFTOptions, n_tokens: int, at: tuple[int, ...],
    between: tuple[float, float],
) -> tuple[Path, float]:  # fmt: skip
    """A tiny model fine-tuned for as few of the steps `at` as give a sampled pass rate `between` two bounds, and that
    rate. Raises RuntimeError where none does."""
    from train_plugins import sft_worker
    from train_plugins.saving import step_name
    from train_plugins.worker import Run

    data = write_rows(root / "lessons.jsonl", lessons)
    job = job_of("sft", write_tiny(root / "tiny"), data, root / "sft", 0, SaveRule(at=at))
    sft_worker.work(Run(job, options))
    seen = {}
    for step in at:
        folder = job.out / "checkpoints" / step_name(step, 0)
        seen[step] = Sampler(folder, checks, n_tokens).rate(0)
        if between[0] <= seen[step] <= between[1]:
            return folder, seen[step]
    raise RuntimeError(f"no fine-tuned start is right in {between[0]:.0%} to {between[1]:.0%} of its samples: {seen}")


class Sampler:
    """How often a policy is right on some rows, one sample each, at temperature 1."""

    def __init__(self, start: Path, rows: Rows, n_tokens: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        from train_plugins.rlvr.rollouts import Sampling
        from train_plugins.rlvr.sampling import HFGenerator

        self.rows, self.tokenizer = rows, load_tokenizer(start, "tulu")
        self.prompts = tuple(prompt_ids(self.tokenizer, row["messages"]) for row in rows)
        self.model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
        sampling = Sampling(n_tokens, self.tokenizer.eos_token_id)
        self.generator = HFGenerator(self.model, sampling, self.tokenizer.pad_token_id)

    def rate(self, seed: int) -> float:
        from train_plugins.rlvr.rollouts import Request

        request = Request(seed, 1, tuple(range(len(self.rows))), self.prompts, 1)
        responses = self.generator.generate(request)
        texts = self.tokenizer.batch_decode([list(r.ids) for r in responses], skip_special_tokens=True)
        right = [find_reward(row["dataset"]).verify(text.strip(), row).value
                 for text, row in zip(texts, self.rows, strict=True)]  # fmt: skip
        return sum(right) / len(right)
