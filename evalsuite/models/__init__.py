"""Finds and opens engines. An engine is a class that takes `(checkpoint, **options)`; entry points add more of them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from evalsuite.errors import EngineError, did_you_mean
from evalsuite.models.lean import import_generation
from evalsuite.types import Model

GROUP = "evalsuite.models"
BUILT_IN = {
    "hf": "evalsuite.models.hf.model:HFModel",
    "vllm": "evalsuite.models.vllm.model:VLLMModel",
    "api": "evalsuite.models.api.model:APIModel",
    "fake": "evalsuite.models.fake:FakeModel",
}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Which engine answers and how; everything in `fingerprint()` changes numbers and is part of every journal key."""

    name: str
    reason: str = ""
    dtype: str = "auto"
    deterministic: bool = False
    long_prompts: str = "fail"
    template_digest: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> dict[str, str]:
        return {
            "engine": self.name,
            "dtype": self.dtype,
            "deterministic": str(self.deterministic).lower(),
            "long_prompts": self.long_prompts,
            "chat_template": self.template_digest,
            # Decides how far a response may go and which prompts fit; the checkpoint's own is part of its digest.
            "max_length": str(self.options.get("max_length", "checkpoint")),
        }


def choose(name: str) -> tuple[str, str]:
    """(engine, why). `auto` is vllm where it is installed and a GPU is visible, else hf; a named engine is kept.

    Raises EngineError with the near miss when no engine has that name. Imports no engine.
    """
    known = known_engines()
    if name != "auto":
        if name not in known:
            raise EngineError(
                f"no engine named {name!r}{did_you_mean(name, known)}; there are {', '.join(sorted(known))}"
            )
        return name, "asked for"
    if not gpu_is_visible():
        return "hf", "no GPU is visible"
    if importlib.util.find_spec("vllm") is None:
        return "hf", "vllm is not installed (pip install 'evalsuite[vllm]')"
    return "vllm", "a GPU is visible and vllm is installed"


def known_engines() -> dict[str, str]:
    """Engine name to `module:class`, ours and those that other packages register."""
    return {e.name: e.value for e in entry_points(group=GROUP)} | BUILT_IN


def gpu_is_visible() -> bool:
    """Whether a CUDA or ROCm device is there, told from the kernel's files; a CUDA context is never made here."""
    return any(Path(p).exists() for p in ("/proc/driver/nvidia/gpus", "/dev/kfd"))


def open_model(spec: EngineSpec, checkpoint: Path | None) -> Model:
    """The engine with the checkpoint loaded; close it when done. Raises EngineError when it cannot start."""
    if spec.name == "hf":
        import_generation()
    module_name, _, attribute = known_engines()[spec.name].partition(":")
    engine = getattr(importlib.import_module(module_name), attribute)
    options = dict(spec.options)
    if spec.name in ("hf", "vllm"):
        options |= {"dtype": spec.dtype, "deterministic": spec.deterministic, "long_prompts": spec.long_prompts}
    return cast("Model", engine(checkpoint, **options) if checkpoint is not None else engine(**options))
