"""The engine `hf`: a transformers checkpoint in this process, with shared-prefix scoring and refilled generation."""

from __future__ import annotations

import gc
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from evalsuite.errors import CheckpointError, EngineError, UsageError, did_you_mean
from evalsuite.models.chat import ChatTemplate
from evalsuite.models.cores import usable_cores
from evalsuite.models.encoding import Encoder, encode_documents, model_window
from evalsuite.models.hf.generate import Generator
from evalsuite.models.hf.probe import Choice
from evalsuite.models.hf.score import LikelihoodScorer, LongPrompts, Work
from evalsuite.types import GenerateRequest, Likelihoods, LoglikRequest, Response

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}
CPU_KV_BUDGET = 2 << 30
ENCODED_AT_ONCE = 512  # documents held as lists of Python numbers, nine times as large as packed
KEPT_WORKS = 8  # benchmarks whose plan is remembered between two looks at them


class HFModel:
    """A checkpoint loaded with transformers.

    `dtype` "auto" is the checkpoint's own, `device` "auto" CUDA if there is one, else the CPU; `threads` None is what
    the machine grants; `kv_budget` bytes of keys and values may stay in memory between batches (None: 2 GiB on a CPU,
    a quarter of the free memory on a GPU). `deterministic` switches sharing and batching off. `long_prompts` "left"
    cuts what does not fit, as lm-eval does; "fail" makes it a failed sample.
    """

    name = "hf"

    def __init__(
        self,
        checkpoint: Path,
        *,
        dtype: str = "auto",
        device: str = "auto",
        max_length: int | None = None,
        chat_template: str | None = None,
        threads: int | None = None,
        kv_budget: int | None = None,
        slots: int | None = None,
        deterministic: bool = False,
        long_prompts: LongPrompts = "fail",
        allow_pickle: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        self.checkpoint = Path(checkpoint)
        self.device = _device(device)
        self.threads = _set_threads(threads)
        self.slots, self.deterministic, self.long_prompts = slots, deterministic, long_prompts
        if deterministic:
            torch.use_deterministic_algorithms(True)
        self.encoder = Encoder.from_checkpoint(self.checkpoint, trust_remote_code=trust_remote_code)
        self.max_length = max_length or model_window(self.checkpoint)
        self._template, self._no_template = _template(self.checkpoint, chat_template)
        self.model = _load(self.checkpoint, _dtype(dtype), self.device, allow_pickle, trust_remote_code)
        self.kv_budget = kv_budget if kv_budget is not None else _kv_budget(self.device)
        self._scorer: LikelihoodScorer | None = None
        self._generator: Generator | None = None
        self._works: list[tuple[tuple[LoglikRequest, ...], Work]] = []

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The exact text of a conversation. Raises CheckpointError when the checkpoint has no chat template."""
        if self._template is None:
            raise CheckpointError(str(self._no_template)) from self._no_template
        return self._template.render(messages, add_generation_prompt)

    def encode(self, text: str, *, chat: bool) -> list[int]:
        return self.encoder.encode(text, chat=chat)

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]:
        """Responses in completion order (`Model.generate`)."""
        yield from self.generator.generate(requests, wanted)

    def loglikelihood(
        self, requests: Sequence[LoglikRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Likelihoods]]:
        """Log-likelihoods of every option, document by document as they complete (`Model.loglikelihood`).

        Bit-identical for any `wanted`: the batches are those of the full set.
        """
        wanted = range(len(requests)) if wanted is None else wanted
        if not wanted:
            return
        scorer = self.scorer
        yield from scorer.score(self._work(scorer, requests), wanted)

    @property
    def generator(self) -> Generator:
        """What writes responses; made, with its look at the model, at the first use."""
        if self._generator is None:
            self._generator = Generator(
                self._loaded(),
                self.encoder,
                max_length=self.max_length,
                slots=1 if self.deterministic else self.slots,
                device=self.device,
                kv_budget=self.kv_budget,
                share_prefixes=not self.deterministic,
                long_prompts=self.long_prompts,
            )
        return self._generator

    @property
    def scorer(self) -> LikelihoodScorer:
        """The log-likelihood scorer; made, with its probe, at the first use."""
        if self._scorer is None:
            self._scorer = LikelihoodScorer(
                self._loaded(),
                self.max_length,
                kv_budget=self.kv_budget,
                long_prompts=self.long_prompts,
                choice=Choice("plain", None, {"tree": "deterministic"}) if self.deterministic else None,
            )
        return self._scorer

    def fingerprint(self) -> Mapping[str, str]:
        return {
            "engine": self.name,
            "dtype": str(self._loaded().dtype).removeprefix("torch."),
            "quantization": "none",
            "deterministic": str(self.deterministic).lower(),
            "long_prompts": self.long_prompts,
            "max_length": str(self.max_length),
            "chat_template": self._template.digest if self._template else "none",
        }

    def environment(self) -> Mapping[str, str]:
        """Versions, device and how scoring was shared: what a scorecard records beside the numbers."""
        found = {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device),
            "threads": str(self.threads),
            "attention": str(self._loaded().config.get_text_config(decoder=True)._attn_implementation),
        }
        if self._scorer is not None:
            levels = {work.level for _, work in self._works if work.level is not None} or {self._scorer.choice.level}
            found["scoring"] = ", ".join(sorted(levels))
            if why := "; ".join([*(f"{k}: {v}" for k, v in self._scorer.choice.why_not.items()), *self._scorer.notes]):
                found["scoring_notes"] = why
        if self._generator is not None and self._generator.level:
            found["generation"] = self._generator.level
        return found

    def forget(self) -> None:
        """Drops remembered plans, keys and values; the next call starts as the first one did."""
        self._works.clear()
        if self._scorer is not None:
            self._scorer.store.clear()

    def close(self) -> None:
        """Frees the model; a second call does nothing."""
        self.model = self._scorer = self._generator = None
        self._works.clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _loaded(self) -> Any:
        if self.model is None:
            raise EngineError(f"the engine 'hf' of {self.checkpoint} is closed; open the checkpoint again")
        return self.model

    def _work(self, scorer: LikelihoodScorer, requests: Sequence[LoglikRequest]) -> Work:
        """The plan of these requests, from an earlier call when they are the same."""
        asked = tuple(requests)
        for known, work in self._works:
            if known == asked:
                return work
        encoded = (
            doc
            for start in range(0, len(asked), ENCODED_AT_ONCE)
            for doc in encode_documents(self.encoder, asked[start : start + ENCODED_AT_ONCE])
        )
        work = scorer.prepare(encoded)
        self._works = [*self._works, (asked, work)][-KEPT_WORKS:]
        return work


def _load(folder: Path, dtype: torch.dtype | str, device: torch.device, allow_pickle: bool, trust: bool) -> Any:
    """The model in eval mode, with an attention implementation that takes masks. Raises CheckpointError."""
    options = {
        "dtype": dtype,
        "local_files_only": True,
        "trust_remote_code": trust,
        # None lets transformers fall back to pickled weights; only on request.
        "use_safetensors": None if allow_pickle else True,
    }
    try:
        model = _from_pretrained(folder, options)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{folder}: the model cannot be loaded ({said}); look at it with: evalsuite check"
        ) from error
    return model.eval().requires_grad_(False).to(device)


def _from_pretrained(folder: Path, options: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM

    transformers.utils.logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(str(folder), attn_implementation="sdpa", **options)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error) and "sdpa" not in str(error):
            raise
        return AutoModelForCausalLM.from_pretrained(str(folder), attn_implementation="eager", **options)


def _template(folder: Path, override: str | None) -> tuple[ChatTemplate | None, CheckpointError | None]:
    """The chat template, or why there is none. One that was asked for by name must be there."""
    try:
        return ChatTemplate.from_checkpoint(folder, override), None
    except CheckpointError as error:
        if override is not None:
            raise
        return None, error


def _dtype(name: str) -> torch.dtype | str:
    if name == "auto":
        return "auto"
    if name not in DTYPES:
        raise UsageError(f"no dtype named {name!r}; use auto, {', '.join(DTYPES)}{did_you_mean(name, DTYPES)}")
    return DTYPES[name]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"no device named {name!r}; use auto, cpu, cuda or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"device {name!r} was asked for, but torch {torch.__version__} sees no GPU; use --device cpu")
    return device


def _set_threads(threads: int | None) -> int:
    """Sets and returns the number of threads torch computes with. OMP_NUM_THREADS lowers the default."""
    if threads is None:
        named = os.environ.get("OMP_NUM_THREADS", "")
        threads = min(usable_cores(), int(named)) if named.isdigit() and int(named) > 0 else usable_cores()
    torch.set_num_threads(threads)
    return threads


def _kv_budget(device: torch.device) -> int:
    """A quarter of the free device memory in steps of 256 MiB, so that small differences leave the plan as it is."""
    if device.type != "cuda":
        return CPU_KV_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, free // 4 >> 28) << 28
