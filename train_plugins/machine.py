"""Whether this machine can do what a job asks, said before anything is loaded. For the worker process."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from evalsuite.errors import UsageError
from evalsuite.provenance import versions
from evalsuite.trainers import TrainJob
from train_plugins.memory import TRAINED
from train_plugins.ranks import has_accelerator
from train_plugins.settings import TrainingOptions

LIBRARIES = ("trl", "accelerate", "peft")
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow", "trackio": "trackio"}
GPU_ATTENTION = ("flash_attention_2", "flex_attention")
TRL = "1.16"


def check_machine(options: TrainingOptions, job: TrainJob) -> None:
    """Raises UsageError with everything that stands in the way."""
    wrong = [*_missing_packages(options)]
    if not has_accelerator():
        wrong += _cpu_problems(options, job)
    if wrong:
        raise UsageError("; ".join(wrong))


def library_versions() -> dict[str, str]:
    """Versions that the numbers of a run can depend on."""
    found = versions("hf")
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_names() -> list[str]:
    """The device of this process, as its maker calls it."""
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name()]
    kind = torch.accelerator.current_accelerator() if has_accelerator() else None
    return [str(kind) if kind is not None else f"cpu, {torch.get_num_threads()} threads"]


def _missing_packages(options: TrainingOptions) -> list[str]:
    wrong = []
    try:
        if not (found := version("trl")).startswith(f"{TRL}."):
            wrong.append(f"trl {found} is installed, this works with {TRL}: pip install 'trl>=1.16,<1.17'")
    except PackageNotFoundError:
        wrong.append("trl is not installed: pip install 'evalsuite[train]'")
    if options.lora is not None and find_spec("peft") is None:
        wrong.append("lora needs peft: pip install peft")
    for name in options.report_to:
        if find_spec(PACKAGES[name]) is None:
            wrong.append(f"report_to names {name}, which is not installed: pip install {PACKAGES[name]}")
    if options.attention == "flash_attention_2" and find_spec("flash_attn") is None and has_accelerator():
        wrong.append("attention is flash_attention_2, which is not installed: pip install flash-attn")
    return wrong


def _cpu_problems(options: TrainingOptions, job: TrainJob) -> list[str]:
    wrong = []
    if options.dtype == "bfloat16" and not cpu_has_bfloat16():
        wrong.append("this machine has no GPU and its CPU does not compute in bfloat16; use dtype: float32")
    if options.attention in GPU_ATTENTION:
        wrong.append(f"attention is {options.attention}, which needs a GPU; use attention: sdpa")
    parameters = job.start.n_parameters if job.start else 0
    needed, memory = TRAINED * parameters, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if options.lora is None and needed > memory:
        wrong.append(
            f"training this model takes {needed / 1e9:.0f} GB ({TRAINED} bytes for each of {parameters / 1e9:.1f}e9 "
            f"parameters); this machine has no GPU and {memory / 1e9:.0f} GB of memory; train a smaller model, use "
            "lora, or see what it takes with evalsuite train --plan"
        )
    return wrong


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; emulated it is slower than float32."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return False
    return any(flag in text for flag in ("avx512_bf16", "amx_bf16", " bf16"))
