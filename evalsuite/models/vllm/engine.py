"""vLLM's offline engine, stepped by hand: requests as token ids go in, finished ones come out in completion order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsuite.errors import EngineError
from evalsuite.models.vllm.install import is_cpu_build

UNSUPPORTED = ("Unsupported CPU attention configuration", "not supported for now", "are not supported")


class Engine:
    """A vLLM `LLM`. `has` are the names of `SamplingParams` fields that this version knows."""

    def __init__(self, llm: Any) -> None:
        from vllm import SamplingParams

        self._engine = llm.llm_engine
        self._params = SamplingParams
        self.has = frozenset(SamplingParams.__struct_fields__)
        self.n_waiting = 0
        self._keys: dict[str, Any] = {}
        self._number = 0
        self.window = int(self._engine.model_config.max_model_len)
        self.vocab_size = int(self._engine.model_config.get_vocab_size())
        cache = self._engine.vllm_config.cache_config
        self.block_size = int(cache.block_size)
        self.kv_tokens = int(cache.num_gpu_blocks or 0) * self.block_size

    @classmethod
    def load(cls, checkpoint: Path, arguments: Mapping[str, Any]) -> Engine:
        """Loads the checkpoint and writes one token with it.

        Raises EngineError for what vLLM says about the checkpoint, its configuration or the memory.
        """
        from vllm import LLM

        if is_cpu_build():
            _make_generators_rewind()
        try:
            engine = cls(LLM(model=str(checkpoint), **arguments))
            engine.add("warm-up", [0], max_tokens=1)
            while engine.n_waiting:
                engine.step()
        except Exception as error:
            raise _explained(checkpoint, error) from error
        return engine

    def add(self, key: Any, ids: Sequence[int], **parameters: Any) -> None:
        """Queues a prompt; `step` answers under `key`. Raises ValueError when vLLM refuses it."""
        self._number += 1
        name = str(self._number)
        params = self._params(**{"temperature": 0.0, "detokenize": False, **parameters})
        self._engine.add_request(name, {"prompt_token_ids": list(ids)}, params)
        self._keys[name] = key
        self.n_waiting += 1

    def step(self) -> Iterator[tuple[Any, Any]]:
        """Computes one step; then (key, RequestOutput) of what finished in it."""
        finished = [output for output in self._engine.step() if output.finished]
        self.n_waiting -= len(finished)
        return iter([(self._keys.pop(output.request_id), output) for output in finished])

    def reset_cache(self) -> None:
        """Forgets all cached prefixes, so that what comes next does not depend on what came before."""
        if not self._engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache: requests are still running")

    def call_workers(self, method: str, **arguments: Any) -> list[Any]:
        """What a method of vLLM's workers answers, one answer from each."""
        return list(self._engine.collective_rpc(method, kwargs=arguments))

    def cancel(self) -> None:
        """Drops everything that is queued or running."""
        if self._keys:
            self._engine.abort_request(list(self._keys))
            self._keys.clear()
            self.n_waiting = 0
            while self._engine.has_unfinished_requests():
                self._engine.step()

    def close(self) -> None:
        self._engine.engine_core.shutdown()


def _make_generators_rewind() -> None:
    """Mends vLLM's sampling on a CPU, for this process: a prompt computed in several steps ended the engine.

    What is drawn before a prompt is complete is thrown away, and vLLM then moves the request's random generator back by
    an offset, which generators on a CPU do not have. Nothing was accepted by then, so back is to where it began.
    """
    import torch

    original: Any = torch.Generator
    kind: Any = type(original)
    if hasattr(original, "rewinds"):
        return

    class Kind(kind):  # type: ignore[misc]
        def __instancecheck__(self, value: object) -> bool:
            return isinstance(value, original)

    class Rewindable(original, metaclass=Kind):  # type: ignore[misc]
        rewinds = True

        def get_offset(self) -> int:
            return 0

        def set_offset(self, offset: int) -> None:
            self.manual_seed(self.initial_seed())

    torch.Generator = Rewindable  # type: ignore[misc]


def _explained(checkpoint: Path, error: Exception) -> EngineError:
    """What the user can do about an engine that does not load."""
    said = " ".join(str(error).split()) or type(error).__name__
    if "KV cache" in said or "kv cache" in said:
        advice = "give a smaller --max-length, or more memory for keys and values"
    elif any(text in said for text in UNSUPPORTED):
        advice = "score this checkpoint with --model hf"
    else:
        advice = "look at the checkpoint with `evalsuite check`, or score it with --model hf"
    return EngineError(f"{checkpoint}: vLLM cannot load this checkpoint ({said[:600]}); {advice}")
