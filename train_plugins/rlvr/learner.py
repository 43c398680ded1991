"""The networks of a run and their optimizers: log-probabilities, values, updates, states. For the worker process.

Every process holds all rollouts of an iteration and works on its share of each forward pass; what is computed without
gradients is summed over processes, so that advantages, whitening and mini-batches are the same on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from evalsuite.errors import TrainerFailed, UsageError
from train_plugins.losses import token_logprobs
from train_plugins.models import fit_vocabulary, whole_state
from train_plugins.order import share
from train_plugins.packing import fits_shared_prompt, logits_only_at
from train_plugins.ranks import has_accelerator
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.pages import Group, Layout, Page, build_page
from train_plugins.rlvr.value import (
    ValueNetwork,
    check_same_tokenizer,
    load_value_network,
    restore_value,
    save_value,
)
from train_plugins.saving import ADVICE, Point

if TYPE_CHECKING:
    from train_plugins.worker import Run

TOKENS_PER_PASS = {"cpu": 4096, "gpu": 16384}
OPTIMIZER = "optimizer.pt"
NO_MASKS = ("flash_attention_2",)  # kernels that take no mask of a shared prompt


@contextmanager
def reading(point: Point | None) -> Iterator[None]:
    """Makes TrainerFailed of whatever a damaged state has libraries raise, which they do not say in one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
        if point is None or isinstance(error, torch.OutOfMemoryError):
            raise
        told = str(error).partition("\n")[0][:200]
        raise TrainerFailed(f"{point.folder}: damaged, it cannot be read ({told}); {ADVICE}") from error


class Learner:
    """Policy, reference and, for PPO, value network, each with what training it needs.

    Attributes `model`, `model_wrapped`, `accelerator`, `args`, `processing_class` are what `Saver` and `write_model`
    ask of a trainer.
    """

    def __init__(self, run: Run, tokenizer: Any) -> None:
        from accelerate import Accelerator

        options: RLVROptions = run.options
        self.run, self.options, self.processing_class = run, options, tokenizer
        mixed = "bf16" if options.dtype == "bfloat16" else "no"
        self.accelerator = Accelerator(mixed_precision=mixed, cpu=not has_accelerator())
        self.device = self.accelerator.device
        self.args = SimpleNamespace(should_save=run.is_main)
        self.pad_id: int = tokenizer.pad_token_id
        self.is_resized = False  # whether the vocabulary of the start had to grow
        self._pages: dict[tuple[int, ...], Page] = {}
        self._load(run.point)

    # -- what Saver asks --

    @property
    def model_wrapped(self) -> Any:
        return self.model

    @property
    def is_fsdp_enabled(self) -> bool:
        return str(self.accelerator.distributed_type).endswith("FSDP")

    @property
    def is_deepspeed_enabled(self) -> bool:
        return str(self.accelerator.distributed_type).endswith("DEEPSPEED")

    @property
    def is_sharded(self) -> bool:
        return self.is_fsdp_enabled or self.is_deepspeed_enabled

    @property
    def more_bytes(self) -> int:
        """What a state holds beside the policy's weights and moments."""
        return 0 if self.value is None else 12 * sum(p.numel() for p in self.value.parameters())

    def write_state(self, folder: Path) -> None:
        """Every process its part; process 0 whole weights where they are not sharded."""
        if self.is_sharded:
            self.accelerator.save_state(str(folder / "sharded"))
        elif self.run.is_main:
            self.accelerator.unwrap_model(self.model).save_pretrained(folder)
            if self.value is not None:
                save_value(self.accelerator.unwrap_model(self.value), folder)
            torch.save([optimizer.state_dict() for optimizer in self.optimizers], folder / OPTIMIZER)

    def export(self, folder: Path) -> None:
        """The policy as a generator loads it: `model.safetensors` and `config.json`. Called on every process."""
        from safetensors.torch import save_file

        model, tensors = whole_state(self)
        if self.run.is_main:
            kept = model.dtype if self.options.dtype == "float32" else torch.bfloat16
            seen: set[int] = set()
            found = {}
            for name, tensor in (tensors or model.state_dict()).items():
                if tensor.data_ptr() not in seen:  # tied weights are written once
                    seen.add(tensor.data_ptr())
                    found[name] = tensor.detach().to(kept).contiguous().cpu()
            model.config.save_pretrained(folder)
            save_file(found, str(folder / "model.safetensors"), metadata={"format": "pt"})

    # -- loading --

    def _load(self, point: Point | None) -> None:
        from transformers import AutoModelForCausalLM

        options, start = self.options, self.run.job.start
        if start is None:
            raise UsageError("rlvr starts from a checkpoint; set start: in the stage")
        whole = point is not None and not (point.folder / "sharded").is_dir()
        folder = point.folder if point is not None and whole else start.path
        with reading(point if whole else None):
            policy = self._causal(AutoModelForCausalLM, folder, torch.float32)
        self.layout = choose_layout(policy.config, options)
        self.reference = None
        if options.beta > 0 or options.kl_stop is not None:
            kind = torch.bfloat16 if options.dtype == "bfloat16" else torch.float32
            self.reference = self._placed(_frozen(self._causal(AutoModelForCausalLM, start.path, kind)))
        value = self._value_network() if options.algorithm == "ppo" else None
        if value is not None and point is not None and whole:
            with reading(point):
                restore_value(value, point.folder)
        self.reward_model = self._reward_network()
        self.model, policy_optimizer = self._prepared(policy)
        self.value, self.optimizers = None, [policy_optimizer]
        if value is not None:
            self.value, value_optimizer = self._prepared(value)
            self.optimizers.append(value_optimizer)
        if point is not None:
            with reading(point):
                self._restore(point, whole)

    def _causal(self, family: Any, folder: Path, dtype: torch.dtype) -> Any:
        model = family.from_pretrained(folder, dtype=dtype, attn_implementation=self.options.attention)
        rows = model.get_input_embeddings().weight.shape[0]
        with torch.random.fork_rng(
            devices=[]
        ):  # new rows are drawn: the same ones for policy and reference, on every process
            torch.manual_seed(self.run.job.seed)
            fit_vocabulary(model, self.processing_class)
        self.is_resized = self.is_resized or model.get_input_embeddings().weight.shape[0] != rows
        return model

    def _value_network(self) -> ValueNetwork:
        options, run = self.options, self.run
        assert run.job.start is not None
        folder = run.job.start.path
        if options.value_init == "checkpoint":
            given = run.job.inputs.get("value_init")
            if given is None:
                raise UsageError(
                    "value_init is checkpoint, and the stage names none; set inputs: {value_init: rm@last} or "
                    "value_init: policy with value_warmup"
                )
            check_same_tokenizer(folder, given.path, "the value network")
            folder = given.path
        elif not options.value_warmup:
            run.warn("cold_value", f"value_init is {options.value_init} without value_warmup: the value network starts "
                     "knowing nothing, and its first advantages are noise")  # fmt: skip
        return load_value_network(folder, options, options.value_init, self.processing_class, run.job.seed)

    def _reward_network(self) -> ValueNetwork | None:
        if not self.options.reward_model_multiplier:
            return None
        given, start = self.run.job.inputs.get("reward_model"), self.run.job.start
        if given is None or start is None:
            raise UsageError("reward_model_multiplier needs inputs: {reward_model: CKPT} in the stage")
        check_same_tokenizer(start.path, given.path, "the reward model")
        network = load_value_network(given.path, self.options, "checkpoint", self.processing_class, 0)
        return self._placed(_frozen(network))  # type: ignore[no-any-return]

    def _placed(self, frozen: Any) -> Any:
        """On the device, in parts where the policy is in parts; such a launch has never been run by us."""
        if self.is_sharded:
            return self.accelerator.prepare_model(frozen, evaluation_mode=True)
        return frozen.to(self.device)

    def _prepared(self, model: Any) -> tuple[Any, Any]:
        options = self.options
        without_dropout(model)
        if options.gradient_checkpointing:
            inner = model.model if isinstance(model, ValueNetwork) else model
            inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            model.train()
        else:
            model.eval()  # without dropout the two modes compute the same
        first, second = options.adam_betas
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, options.lr, (first, second), options.adam_eps, options.weight_decay, fused=True
        )
        prepared, stepper = self.accelerator.prepare(model, optimizer)
        return prepared, stepper

    def _restore(self, point: Point, whole: bool) -> None:
        if not whole:
            self.accelerator.load_state(str(point.folder / "sharded"))
            return
        saved = torch.load(point.folder / OPTIMIZER, map_location="cpu", weights_only=True)
        for optimizer, state in zip(self.optimizers, saved, strict=True):
            optimizer.load_state_dict(state)

    @property
    def policy(self) -> Any:
        """The policy without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    # -- forward passes --

    def page(self, groups: Sequence[Group], numbers: tuple[int, ...]) -> Page:
        """The page of these groups; kept until `forget`, since every epoch and network reads the same ones."""
        if numbers not in self._pages:
            self._pages[numbers] = self._built([groups[i] for i in numbers])
        return self._pages[numbers]

    def _built(self, groups: Sequence[Group]) -> Page:
        one_row = self.options.attention in NO_MASKS
        return build_page(groups, self.layout, self.pad_id, one_row=one_row).to(self.device)

    def forget(self) -> None:
        self._pages.clear()

    def passes(self, groups: Sequence[Group], numbers: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """This process's forward passes over the groups of these numbers; as many as on every other process."""
        limit = self.options.tokens_per_pass or TOKENS_PER_PASS["gpu" if has_accelerator() else "cpu"]
        longest = max(group.n_tokens_as(self.layout) for group in groups)
        return share(tuple(numbers), self.run.rank, self.run.processes, max(1, limit // longest))

    def logprobs(self, model: Any, page: Page, temperature: float | None = None) -> Tensor:
        """log π of every response token at logits / temperature (the run's unless given), (N,), at least float32."""
        inner = self.accelerator.unwrap_model(model)
        inputs = page.model_inputs(inner.config._attn_implementation, inner.dtype)
        with logits_only_at(inner, page.at), self.accelerator.autocast():
            logits_NV = model(**inputs, use_cache=False).logits
        return token_logprobs(logits_NV.float() / (temperature or self.options.temperature), page.targets)

    def valued(self, prompt: tuple[int, ...], response: tuple[int, ...]) -> list[float]:
        """log π of each token of a response, at temperature 1."""
        page = self._built([Group(prompt, (response,), (0,))])
        with torch.no_grad():
            return self.logprobs(self.model, page, 1.0).tolist()

    def values(self, network: Any, page: Page, at: Tensor) -> Tensor:
        """Outputs of a value network at places of a page, (N,)."""
        inner = self.accelerator.unwrap_model(network)
        inputs = page.model_inputs(inner.config._attn_implementation, inner.model.dtype)
        with self.accelerator.autocast():
            return network(at_N=at, **inputs)  # type: ignore[no-any-return]

    def over_all(
        self, groups: Sequence[Group], n_rollouts: int, width: int, forward: Callable[[Page], tuple[Tensor, Tensor]]
    ) -> Tensor:
        """(n, width): what `forward` gives of every page, without gradients, over all processes; 0 where nothing is.

        `forward` returns the values in the order of `mask.nonzero()` and the mask (rollouts of the page, width).
        """
        found = torch.zeros(n_rollouts, width, device=self.device)
        with torch.no_grad():
            for numbers in self.passes(groups, range(len(groups))):
                page = self.page(groups, numbers or (0,))
                values, mask = forward(page)
                if numbers:
                    rows = torch.zeros_like(mask, dtype=found.dtype)
                    rows[mask] = values.to(found.dtype)
                    found[page.rollouts] = rows
        return self.summed(found)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.run.processes == 1:
            return tensor
        return self.accelerator.reduce(tensor, "sum")  # type: ignore[no-any-return]

    # -- updates --

    def gradient(self, network: int, losses: Iterator[Tensor], n_passes: int) -> tuple[float, float] | None:
        """The backward passes of one optimizer step of the policy (0) or the value network (1), and the clipping.

        Returns (loss, norm of the gradient), or None where either was not finite. The losses are this process's sums
        over what the whole step divides by.
        """
        model: Any = (self.model, self.value)[network]
        total = torch.zeros((), device=self.device)
        for i in range(n_passes):
            last = i == n_passes - 1
            with nullcontext() if last else self.accelerator.no_sync(model):
                loss = next(losses)
                total += loss.detach()
                # Gradients are averaged over processes, and these are sums.
                self.accelerator.backward(loss * self.run.processes)
        limit = self.options.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(model.parameters(), float("inf") if limit is None else limit)
        facts = torch.stack([self.summed(total), torch.as_tensor(float(norm), device=self.device)])
        return (float(facts[0]), float(facts[1])) if bool(torch.isfinite(facts).all()) else None

    def descend(self, network: int, lr: float | None) -> None:
        """One optimizer step along the gradient that is there; with None it is thrown away, and nothing changes."""
        optimizer = self.optimizers[network]
        if lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        optimizer.zero_grad()


def choose_layout(config: Any, options: RLVROptions) -> Layout:
    """`shared_prompt` where the attention takes its mask, else `packed`. Raises UsageError for one that cannot be."""
    length = options.prompt_tokens + options.response_tokens
    able = options.attention not in NO_MASKS and fits_shared_prompt(config, length)
    if options.layout == "auto":
        return "shared_prompt" if able else "packed"
    if options.layout == "shared_prompt" and not able:
        raise UsageError(
            f"layout shared_prompt needs an attention that takes masks and layers that see {length} tokens; use "
            "layout: packed"
        )
    return options.layout


def learning_rate(peak: float, update: int, total: int, warmup: int, schedule: str) -> float:
    """The rate of an optimizer step, counted from 0: that of transformers' schedules, warm-up as whole steps."""
    import math

    if update < warmup:
        return peak * update / max(1, warmup)
    done = min(1.0, (update - warmup) / max(1, total - warmup))
    if schedule == "linear":
        return peak * (1 - done)
    return peak * 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else peak


def without_dropout(model: Any) -> None:
    """Switches off every dropout, in modules and in configs that attention reads."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "attn_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _frozen(model: Any) -> Any:
    without_dropout(model)
    return model.requires_grad_(False).eval()
