"""Samples responses from a transformers model in this process, token by token. Imports torch; worker only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evalsuite.errors import CheckpointError, DataError, TrainerFailed, UsageError
from evalsuite.models.hf.cache import TreeMasks, Unsupported
from evalsuite.models.hf.generate import bytes_per_token
from train_plugins.rlvr.fork_attention import attention
from train_plugins.rlvr.forks import Forks, Ids, forks_work
from train_plugins.rlvr.rollouts import Request, Response, Sampling

BUDGET_CPU = 2 << 30
BUDGET_GPU = 0.25  # of the memory that is free


class HFGenerator:
    """Generates with `model`, whose weights may be in training: mode, settings and random numbers are left as found.

    A rollout hangs on the weights and its own seed alone, up to the rounding that other rows of a batch bring; on a
    CPU the same request gives the same ids and log-probabilities, bit for bit. `kv_tokens` bounds how many tokens have
    keys and values at a time (None: 2 GiB of them, on a GPU a quarter of what is free); more rollouts are written in
    turns.
    """

    def __init__(self, model: Any, sampling: Sampling, pad_id: int, *, kv_tokens: int | None = None) -> None:
        if sampling.max_tokens < 1 or not sampling.temperature > 0:
            raise UsageError(
                f"max_tokens is {sampling.max_tokens}, temperature {sampling.temperature}; expected at least 1, above 0"
            )
        self.model, self.sampling, self.pad_id = model, sampling, pad_id
        self.version = 0
        self._kv_tokens = kv_tokens
        self._known: TreeMasks | None = None

    def generate(self, request: Request) -> list[Response]:
        """The responses in the order of `request.sample_seeds()`. Raises TrainerFailed where logits are no numbers."""
        if empty := [number for number, prompt in zip(request.numbers, request.prompts, strict=True) if not prompt]:
            raise DataError(f"row {empty[0]}: its prompt has no tokens, so nothing can be written behind it")
        seeds = request.sample_seeds()
        prompts = [prompt for prompt in request.prompts for _ in range(request.samples)]
        # One order for all requests of the same rollouts; equal prompts stand together, and lengths nearly so.
        order = sorted(range(len(seeds)), key=lambda i: (len(prompts[i]), prompts[i], seeds[i]))
        responses: dict[int, Response] = {}
        with undisturbed(self.model):
            for part in self._slices(order, prompts):
                written = self._write([prompts[i] for i in part], uniforms([seeds[i] for i in part], self.sampling))
                responses.update(zip(part, written, strict=True))
        return [responses[i] for i in range(len(seeds))]

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> Response:
        """`n_tokens` most likely tokens after a prompt, with log-probabilities at temperature 1; ends at nothing."""
        ids: list[int] = []
        logprobs: list[float] = []
        with undisturbed(self.model):
            forks = Forks(self.model, self._masks(), [prompt], [0], n_tokens - 1)
            logits = forks.start()
            for t in range(n_tokens):
                if t:
                    logits = forks.step(torch.tensor(ids[-1:], device=self.model.device))
                best, token = logits[0].float().log_softmax(-1).max(-1)
                ids.append(int(token))
                logprobs.append(float(best))
        return Response(tuple(ids), tuple(logprobs), finished=False)

    def load(self, folder: Path, version: int) -> None:
        """Copies the weights in `folder` into the model, in place. Raises CheckpointError, and copies nothing, unless
        they are its weights, all of them."""
        load_weights(self.model, folder)
        self.version = version

    def close(self) -> None:
        """Nothing to end here."""

    def _slices(self, order: Sequence[int], prompts: Sequence[Ids]) -> Iterator[Sequence[int]]:
        """Even parts of the rollouts, each within the budget as if no prompt were shared."""
        if not order:
            return
        longest = max(len(prompts[i]) for i in order) + self.sampling.max_tokens
        most = max(1, (self._kv_tokens or _kv_tokens(self.model)) // longest)
        n_parts = -(-len(order) // most)
        size = -(-len(order) // n_parts)
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def _write(self, prompts: Sequence[Ids], uniforms_NT: Tensor) -> list[Response]:
        """One response for each prompt; equal prompts are computed once."""
        distinct = {prompt: k for k, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        owners = [distinct[tuple(prompt)] for prompt in prompts]
        T, eos = self.sampling.max_tokens, self.sampling.eos_id
        device = self.model.device
        uniforms_NT = uniforms_NT.to(device)
        ids_NT = torch.full((len(prompts), T), self.pad_id, device=device)
        logprobs_NT = torch.zeros((len(prompts), T), device=device)
        rows = torch.arange(len(prompts), device=device)  # whose samples the forks write
        going = torch.ones(len(prompts), dtype=torch.bool, device=device)
        forks = Forks(self.model, self._masks(), list(distinct), owners, T - 1)
        logits = forks.start()
        for t in range(T):
            banned = eos if t < self.sampling.min_tokens else None
            tokens, logprobs = draw(logits, self.sampling.temperature, uniforms_NT[rows, t], banned)
            ids_NT[rows, t], logprobs_NT[rows, t] = tokens, logprobs
            going &= tokens != eos
            n_going = int(going.sum())
            if n_going == 0 or t == T - 1:
                break
            if n_going < len(rows) and forks.keep(left := going.nonzero()[:, 0].tolist()):
                rows, tokens, going = rows[left], tokens[left], going[left]
            logits = forks.step(tokens)
        return self._responses(ids_NT, logprobs_NT)

    def _responses(self, ids_NT: Tensor, logprobs_NT: Tensor) -> list[Response]:
        """Rows up to their first end; what was drawn behind it, while others went on, is dropped."""
        eos = self.sampling.eos_id
        responses = []
        for ids, logprobs in zip(ids_NT.tolist(), logprobs_NT.tolist(), strict=True):
            finished = eos in ids
            n = ids.index(eos) + 1 if finished else len(ids)
            responses.append(Response(tuple(ids[:n]), tuple(logprobs[:n]), finished))
        if not all(np.isfinite(response.logprobs).all() for response in responses):
            raise TrainerFailed(
                f"the policy's logits are no numbers (weights version {self.version}); look for a loss that is not "
                "finite before it, and lower lr or max_grad_norm"
            )
        return responses

    def _masks(self) -> TreeMasks:
        """How this model is masked, after a look at whether it follows."""
        if self._known is None:
            try:
                with attention(self.model, "sdpa"):
                    masks = TreeMasks.of(self.model)
                forks_work(self.model, masks)
            except Unsupported as why:
                kind = self.model.config.model_type
                raise UsageError(f"generator: hf cannot sample from a {kind!r} model: {why}; use vllm") from why
            self._known = masks
        return self._known


def draw(logits_NV: Tensor, temperature: float, uniforms_N: Tensor, banned: int | None) -> tuple[Tensor, Tensor]:
    """The token at which the cumulated probability passes the uniform number, and its log-probability, both (N,).

    The log-probability is that of the whole distribution, which the learner knows, also where a token is banned.
    """
    logprobs = torch.log_softmax(logits_NV.float() / temperature, -1)
    probs = logprobs.exp()
    if banned is not None:
        probs[:, banned] = 0
    # Float64: a cumulated sum over a large vocabulary must not lose its last digits.
    total = probs.cumsum(-1, dtype=torch.float64)
    place = torch.searchsorted(total, uniforms_N[:, None] * total[:, -1:], right=True)
    tokens = place.clamp_(max=total.shape[-1] - 1)
    return tokens[:, 0], logprobs.gather(1, tokens)[:, 0]


def uniforms(seeds: Sequence[int], sampling: Sampling) -> Tensor:
    """Numbers in [0, 1), float64, a row for each seed: those of numpy's `default_rng(seed)`."""
    rows = [np.random.Generator(np.random.PCG64(seed)).random(sampling.max_tokens) for seed in seeds]
    return torch.from_numpy(np.stack(rows))


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """Evaluation mode without gradients, and every module's own mode again behind it."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        # Not inference mode: a buffer that a layer computes anew in here must be usable in training.
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def load_weights(model: Any, folder: Path) -> None:
    """See `HFGenerator.load`. A tied weight may stand in the file under any of its names, or equally under several."""
    from safetensors import SafetensorError, safe_open

    path = folder / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            state = model.state_dict()
            names = set(file.keys())
            _check_names(path, state, names, {name: tuple(file.get_slice(name).get_shape()) for name in names})
            for name in sorted(names):
                state[name].copy_(file.get_tensor(name))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); expected the whole policy in this file") from error


def _check_names(path: Path, state: dict[str, Tensor], names: set[str], shapes: dict[str, tuple[int, ...]]) -> None:
    held = {state[name].data_ptr() for name in names & state.keys()}
    wrong = [f"lacks {name}" for name, x in state.items() if name not in names and x.data_ptr() not in held]
    wrong += [f"has {name}, which the model does not know" for name in sorted(names - state.keys())]
    wrong += [
        f"has {name} as {list(shapes[name])}, the model as {list(state[name].shape)}"
        for name in sorted(names & state.keys())
        if shapes[name] != tuple(state[name].shape)
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"{path}: not the weights of this model: it {'; '.join(wrong[:3])}{more}")


def _kv_tokens(model: Any) -> int:
    on_cpu = model.device.type == "cpu"
    budget = BUDGET_CPU if on_cpu else int(torch.cuda.mem_get_info()[0] * BUDGET_GPU)
    return max(1, budget // bytes_per_token(model))
