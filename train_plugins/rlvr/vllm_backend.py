"""Responses written by vLLM, token ids in and out; new weights go into the running engine. Lives in a child process.

Weights arrive as safetensors in shared memory, which vLLM's workers read again in place. Its weight-transfer API (ipc,
nccl; GPUs alone) is driven from the learner's side by `train_plugins.rlvr.transfer`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from evalsuite.errors import EngineError, UsageError, did_you_mean
from train_plugins.rlvr.rollouts import Request, Response, Sampling

Transfer = Literal["shared_memory", "ipc", "nccl"]

OURS = ("kv_gib", "cuda_visible_devices")
"""Names in `generator_options` that are not vLLM's: GiB of keys and values on a CPU, the GPUs of the child process."""
RESERVED = frozenset({
    "model", "tokenizer", "dtype", "seed", "logprobs_mode", "skip_tokenizer_init", "generation_config", "load_format",
    "weight_transfer_config", "enable_prefix_caching",
})  # fmt: skip
CPU_BATCH_TOKENS = 4096
CPU_KV_GIB = 1
SEED_MASK = (1 << 63) - 1  # vLLM takes signed 64-bit seeds


class VLLMGenerator:
    """A Generator (see `rollouts`) on a vLLM engine in this process.

    `options` are arguments of `vllm.LLM`, and those of OURS. Log-probabilities are those of logits / temperature over
    the whole vocabulary; with a temperature other than 1 **and** `min_tokens`, those of the first `min_tokens` tokens
    are relative to the vocabulary without the end-of-text, which is how vLLM draws them. `heartbeat` is called between
    steps. Raises EngineError when vLLM cannot run here, UsageError for options it does not have.
    """

    def __init__(
        self,
        start: Path,
        sampling: Sampling,
        *,
        dtype: str = "bfloat16",
        seed: int = 0,
        options: Mapping[str, float | bool | str] = MappingProxyType({}),
        weight_transfer: str = "auto",
    ) -> None:
        transfer = check_vllm(start, weight_transfer)
        os.environ.update(_environment(options, transfer))
        from vllm import EngineArgs  # reads the environment

        from evalsuite.models.vllm.engine import Engine

        check_options(options, frozenset(EngineArgs.__dataclass_fields__))
        arguments = _arguments(sampling, dtype, seed, transfer, options)
        try:
            self._engine = Engine.load(start, arguments)
        except EngineError as error:
            said = str(error).rpartition("; ")[0]
            raise EngineError(f"{said}; set generator: hf, or other generator_options") from error
        self.sampling, self.transfer, self.version = sampling, transfer, 0
        self.window = int(self._engine.window)
        self.heartbeat: Callable[[], None] = lambda: None

    def generate(self, request: Request) -> list[Response]:
        """The responses in the order of `request.sample_seeds()`; the same request gives the same ones.

        Raises UsageError when a prompt and its response do not fit in the engine's window.
        """
        sampling = self.sampling
        self._check_room(max(map(len, request.prompts)), sampling.max_tokens)
        parameters: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": 1.0,
            "top_k": 0,
            "max_tokens": sampling.max_tokens,
            "min_tokens": sampling.min_tokens,
            "stop_token_ids": [sampling.eos_id],
        }
        seeds = [seed & SEED_MASK for seed in request.sample_seeds()]
        prompts = [prompt for prompt in request.prompts for _ in range(request.samples)]
        return self._write(prompts, [{**parameters, "seed": seed} for seed in seeds])

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> Response:
        """`n_tokens` most likely tokens after a prompt, with log-probabilities at temperature 1; ends at nothing."""
        self._check_room(len(prompt), n_tokens)
        return self._write([tuple(prompt)], [{"temperature": 0.0, "max_tokens": n_tokens}])[0]

    def load(self, folder: Path, version: int) -> None:
        """The safetensors of a folder become the engine's weights, and nothing of the old ones stays in its cache.

        A tensor that the folder lacks keeps its old values, with no more than a warning of vLLM; see `canary`.
        """
        self._engine.call_workers("reload_weights", weights_path=str(folder))
        self._loaded(version)

    # What vLLM's trainers of weight transfer call (its `VLLMWeightSyncClient`), here through the child's pipe.

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._engine.call_workers("init_weight_transfer_engine", init_info=init_info)

    def start_weight_update(self) -> None:
        self._engine.call_workers("start_weight_update")

    def update_weights(self, update_info: Any) -> None:
        self._engine.call_workers("update_weights", update_info=update_info)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._engine.call_workers("finish_weight_update")
        self._loaded(self.version if weight_version is None else int(weight_version))

    def close(self) -> None:
        self._engine.close()

    def _loaded(self, version: int) -> None:
        # Keys and values of the old weights would be used for prompts that begin alike.
        self._engine.reset_cache()
        self.version = version

    def _write(self, prompts: Sequence[Sequence[int]], parameters: Sequence[Mapping[str, Any]]) -> list[Response]:
        # What is cached decides how a prompt is cut into steps, and with it the last bits.
        self._engine.reset_cache()
        found: dict[int, Response] = {}
        try:
            for index, (prompt, own) in enumerate(zip(prompts, parameters, strict=True)):
                self._engine.add(index, prompt, logprobs=0, ignore_eos=True, detokenize=False, **own)
            while self._engine.n_waiting:
                for index, output in self._engine.step():
                    found[index] = self._response(output.outputs[0])
                self.heartbeat()
        finally:
            self._engine.cancel()
        return [found[index] for index in range(len(prompts))]

    def _response(self, output: Any) -> Response:
        if output.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a response with {output.finish_reason!r}")
        ids = tuple(int(token) for token in output.token_ids)
        logprobs = tuple(float(row[token].logprob) for row, token in zip(output.logprobs, ids, strict=True))
        return Response(ids, logprobs, finished=output.finish_reason == "stop")

    def _check_room(self, n_prompt: int, n_response: int) -> None:
        if n_prompt + n_response > self.window:
            raise UsageError(
                f"a prompt of {n_prompt} tokens and a response of {n_response} do not fit in the engine's window of "
                f"{self.window}; set max_model_len in generator_options, or smaller prompt_tokens and response_tokens"
            )


def check_vllm(start: Path, weight_transfer: str = "auto") -> Transfer:
    """How weights would reach an engine that begins with the model in `start`. Imports neither vllm nor torch.

    `auto` is shared memory everywhere. Raises EngineError when vLLM is not installed or cannot run here, UsageError
    for what is known to go wrong: tied embeddings on a CPU (the packed output layer keeps the old weights, and vLLM
    does not say so), transfers between GPUs on a CPU.
    """
    from evalsuite.models.vllm.install import is_cpu_build, require_vllm

    require_vllm()
    known = ("shared_memory", "ipc", "nccl")
    transfer = "shared_memory" if weight_transfer == "auto" else weight_transfer
    if transfer not in known:
        raise UsageError(f"weight_transfer {weight_transfer!r}: use auto, {', '.join(known)}")
    if is_cpu_build():
        if transfer != "shared_memory":
            raise UsageError(
                f"weight_transfer: {transfer} is between GPUs, and vLLM computes on the CPU here; use auto"
            )
        if _is_tied(start):
            raise UsageError(
                f"{start}: generator: vllm on a CPU would keep the old output layer of a model with tied embeddings "
                "(tie_word_embeddings: true); set generator: hf"
            )
    return transfer  # type: ignore[return-value]


def _is_tied(start: Path) -> bool:
    """What the weights say: a configuration may leave out `tie_word_embeddings` where true is its family's default."""
    from evalsuite.checkpoint.files import read_json

    config = read_json(start / "config.json")
    told = config.get("tie_word_embeddings", (config.get("text_config") or {}).get("tie_word_embeddings"))
    return bool(told) if told is not None else not any("lm_head" in name for name in _tensor_names(start))


def _tensor_names(folder: Path) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            names.update(file.keys())
    return names


def _environment(options: Mapping[str, float | bool | str], transfer: Transfer) -> dict[str, str]:
    """Variables that vLLM reads when it is imported; what the user has set stays."""
    from evalsuite.models.cores import usable_cores
    from evalsuite.models.vllm.install import is_cpu_build

    found = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        # With one device the engine's core and its worker would be two more processes.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0" if int(options.get("tensor_parallel_size", 1)) == 1 else "1",
    }
    if transfer != "shared_memory":  # handles of GPU memory are pickled on the way to workers of ours
        found["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
    if is_cpu_build():
        found |= {
            "VLLM_CPU_KVCACHE_SPACE": str(int(options.get("kv_gib", CPU_KV_GIB))),
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
            "OMP_WAIT_POLICY": "passive",
            "OMP_NUM_THREADS": str(usable_cores()),
        }
    return {name: os.environ.get(name, value) for name, value in found.items()}


def check_options(options: Mapping[str, float | bool | str], arguments: frozenset[str]) -> None:
    """Raises UsageError for all options at once that are not among vLLM's `arguments` or not the user's to set."""
    known = (arguments - RESERVED) | set(OURS)
    wrong = [f"{name!r} is set by the run itself" for name in options if name in RESERVED]
    wrong += [f"vLLM has no {name!r}{did_you_mean(name, known)}" for name in options if name not in known | RESERVED]
    if wrong:
        raise UsageError(f"generator_options: {'; '.join(wrong)}")


def _arguments(
    sampling: Sampling, dtype: str, seed: int, transfer: str, options: Mapping[str, float | bool | str]
) -> dict[str, Any]:
    """Arguments of `vllm.LLM`. No tokenizer is loaded and no default of a generation config is used."""
    from evalsuite.models.vllm.install import is_cpu_build

    found: dict[str, Any] = {
        "dtype": dtype,
        "seed": seed % (1 << 31),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "load_format": "safetensors",
        "use_tqdm_on_load": False,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        # The processed ones are divided by the temperature, but know no end-of-text where min_tokens forbids it.
        "logprobs_mode": "raw_logprobs" if sampling.temperature == 1.0 else "processed_logprobs",
    }
    if is_cpu_build():
        found |= {"max_num_batched_tokens": CPU_BATCH_TOKENS, "enforce_eager": True}
    if transfer != "shared_memory":
        found["weight_transfer_config"] = {"backend": transfer}
    return found | {name: value for name, value in options.items() if name not in OURS}
