"""The options of a stage as arguments of transformers and TRL. Whatever changes numbers is written here, none left to
defaults: theirs are not Tülu's (bf16 and gradient checkpointing on, 1024 tokens, logging to every tracker)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from train_plugins.plan import steps_of, warmup_of
from train_plugins.settings import TrainingOptions

if TYPE_CHECKING:
    from train_plugins.worker import Run


def training_arguments(options: TrainingOptions, run: Run, n_rows: int, **more: Any) -> dict[str, Any]:
    """Keyword arguments of SFTConfig, DPOConfig or RewardConfig for a trainer with `StepWise` before it.

    To the trainer an item of its data loader is an optimizer step, so its batch and accumulation are 1 and there is one
    epoch. Warm-up is a whole number of steps: transformers rounds a ratio up, open-instruct down.
    """
    from train_plugins.ranks import has_accelerator

    steps = steps_of(n_rows, options)
    warmup = warmup_of(steps, options)
    schedule = "constant_with_warmup" if options.schedule == "constant" and warmup else options.schedule
    on_gpu = has_accelerator()
    return {
        "output_dir": str(run.out),
        "run_name": run.out.name,
        "seed": run.job.seed,
        "data_seed": run.job.seed,
        "max_length": options.max_length,
        # the step
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
        "max_steps": steps,
        "average_tokens_across_devices": True,
        "auto_find_batch_size": False,
        "remove_unused_columns": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        # the optimizer
        "optim": "adamw_torch",
        "learning_rate": options.lr,
        "lr_scheduler_type": schedule,
        "warmup_steps": warmup,
        "weight_decay": options.weight_decay,
        "adam_beta1": options.adam_betas[0],
        "adam_beta2": options.adam_betas[1],
        "adam_epsilon": options.adam_eps,
        "max_grad_norm": options.max_grad_norm or 0.0,  # 0: not clipped, still measured
        # the arithmetic
        "bf16": options.dtype == "bfloat16",
        "fp16": False,
        "use_cpu": not on_gpu,
        "gradient_checkpointing": options.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if options.gradient_checkpointing else None,
        "torch_compile": False,
        "full_determinism": False,
        "label_smoothing_factor": 0.0,
        "neftune_noise_alpha": None,
        "ddp_find_unused_parameters": False,
        # logging and saving are the run's own
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "save_total_limit": None,
        "eval_strategy": "no",
        "report_to": list(options.report_to),
        "disable_tqdm": True,
        "push_to_hub": False,
        **more,
    }
