"""TRL's DPOTrainer with our rows, loss and reference cache. For the worker process alone: imports torch and TRL.

Four methods of TRL 1.16 and transformers are replaced: `_prepare_dataset` (pairs come as token ids),
`_precompute_ref_logps` (per pair, by content), `compute_loss` (one forward pass in any layout) and `log` (sums over the
pairs of all passes and processes, where TRL averages means). A test pins their signatures.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.dpo_trainer import DPOTrainer

from evalsuite.errors import DataError
from train_plugins.dpo_feed import PairFeed
from train_plugins.driving import StepWise
from train_plugins.losses import PairLogprobs, preference_loss
from train_plugins.packing import pair_logprobs
from train_plugins.plan import divide_batch
from train_plugins.refcache import ReferenceCache, ReferenceLogprobs, require_finite
from train_plugins.saving import fault
from train_plugins.settings import DPOOptions

SEGMENT_PAIRS = 512
SEGMENT_S = 30.0
PATIENCE_S = 90  # a network file system may list what another machine wrote only after a minute
# TRL copies fresh adapters as those of the reference. The start itself is the reference, and transformers resumes no
# adapters but the second set where a state has two.
REF_ADAPTER = "ref"
METRICS = (
    "margin", "accuracy", "logratio/chosen", "logratio/rejected", "length_ratio", "kl/chosen", "truncated",
)  # fmt: skip


def dpo_arguments(options: DPOOptions, processes: int) -> dict[str, Any]:
    """What DPOConfig takes beside the arguments that all trainers share. The loss itself is ours."""
    loss = {"dpo_norm": "sigmoid_norm", "dpo": "sigmoid", "ipo": "ipo", "simpo": "sigmoid_norm"}[options.loss]
    return {
        "beta": options.beta,
        "loss_type": [loss],
        "label_smoothing": options.label_smoothing,
        "disable_dropout": True,
        "truncation_mode": "keep_start",
        "padding_free": False,
        "sync_ref_model": False,
        "use_weighting": False,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "activation_offloading": False,
        # True also keeps TRL from loading a reference of its own, which a cache or SimPO makes needless.
        "precompute_ref_log_probs": options.reference_cache or options.loss == "simpo",
        "precompute_ref_batch_size": divide_batch(options.batch, options.per_device_batch, processes)[0],
    }


class PairTrainer(StepWise, DPOTrainer):
    """DPO on the pairs of a feed. `cache` None: the reference is computed as it goes, or none is needed (SimPO)."""

    loss_is_scaled_for_ga = True

    def __init__(self, *, feed: PairFeed, options: DPOOptions, cache: ReferenceCache | None, **trl: Any) -> None:
        self.feed = feed
        self.options = options
        self.cache = cache
        self._sums: list[Tensor] = []
        super().__init__(**trl)
        if cache is not None:
            self.ref_model = None  # all that was asked of it is in the cache
        if REF_ADAPTER in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter(REF_ADAPTER)

    def get_train_dataloader(self) -> Any:
        self._sums.clear()  # a rollback leaves passes behind that nothing logged
        return super().get_train_dataloader()

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """Fills the cache and the feed; the data set stays as it is."""
        if self.cache is not None:
            self._fill_cache(self.cache, batch_size)
            tokens = [pair.tokens for pair in self.feed.pairs]
            counts = [(p.whole("chosen").n_labels, p.whole("rejected").n_labels) for p in tokens]
            known = zip(self.feed.pairs, counts, strict=True)
            self.feed.references = [self.cache.of(pair.key, *n, pair.name) for pair, n in known]
        return dataset

    def _fill_cache(self, cache: ReferenceCache, batch_size: int) -> None:
        """Every process computes its share of what is unknown; a killed pass goes on where its segments end.

        Groups are made in one fixed order, so that one process makes the rest of them as it would have made them.
        """
        keys = [pair.key for pair in self.feed.pairs]
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        unknown = [cache.look_up(keys)]
        if processes > 1:  # another run may write meanwhile, and all have to see the same work
            torch.distributed.broadcast_object_list(unknown)
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        todo = sorted((first[key] for key in unknown[0]), key=lambda i: -self.feed.pairs[i].tokens.n_tokens)
        groups = [todo[i : i + batch_size] for i in range(0, len(todo), batch_size)]
        writer = _Segments(cache, len(todo))
        for turn in range(-(-len(groups) // processes)):
            group = groups[min(turn * processes + rank, len(groups) - 1)]  # sharded models need all to take part
            writer.add({self.feed.pairs[i].key: value for i, value in self._reference_of(group).items()}, processes)
        writer.flush()
        self.accelerator.wait_for_everyone()
        for _ in range(PATIENCE_S):
            if not cache.look_up(keys):
                return
            time.sleep(1)
        raise DataError(f"{cache.folder}: another process's values do not appear there; is the folder shared by all?")

    def _reference_of(self, numbers: Sequence[int]) -> dict[int, ReferenceLogprobs]:
        found = self.reference_logprobs(self._prepare_inputs(self.feed.batch(numbers)), len(numbers))
        columns = torch.stack((found.chosen, found.rejected, found.n_chosen, found.n_rejected)).T.tolist()
        values = {i: ReferenceLogprobs(c, r, int(n), int(m)) for i, (c, r, n, m) in zip(numbers, columns, strict=True)}
        for i, value in values.items():
            require_finite(value, self.feed.pairs[i].name)
        return values

    def reference_logprobs(self, batch: Mapping[str, Tensor], n_pairs: int) -> PairLogprobs:
        """What the reference model says, without a gradient: the start without its adapters where there are some."""
        model = self.ref_model if self.ref_model is not None else self.model
        inner = self.accelerator.unwrap_model(model)
        bare = inner.disable_adapter if self.ref_model is None and hasattr(inner, "disable_adapter") else nullcontext
        stored = disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs)
        with torch.no_grad(), stored, bare(), self.accelerator.autocast():
            return pair_logprobs(model, batch, n_pairs, inner)

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This pass's part of the mean over the pairs of the whole step (`num_items_in_batch` of them)."""
        weight_B = inputs["weight"]
        policy = pair_logprobs(model, inputs, len(weight_B), self.accelerator.unwrap_model(model))
        reference = self._reference_for(inputs, policy)
        loss_B = preference_loss(self.options.loss, policy, reference, self.options.beta, self.options.label_smoothing)
        self._sums.append(_metric_sums(policy, reference, inputs, self.options))
        n_pairs = weight_B.sum() if num_items_in_batch is None else num_items_in_batch / self.accelerator.num_processes
        loss = (loss_B * weight_B).sum() / n_pairs
        return (loss, {}) if return_outputs else loss

    def _reference_for(self, inputs: Mapping[str, Tensor], policy: PairLogprobs) -> PairLogprobs:
        if "reference" in inputs:
            chosen, rejected = inputs["reference"].unbind(-1)
            return PairLogprobs(chosen, rejected, policy.n_chosen, policy.n_rejected)
        if self.options.loss == "simpo":
            nothing = torch.zeros_like(policy.chosen)
            return PairLogprobs(nothing, nothing, policy.n_chosen, policy.n_rejected)
        return self.reference_logprobs(inputs, len(inputs["weight"]))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the metrics since the last call, as means over the pairs of all processes."""
        if self._sums:
            sums = self.accelerator.reduce(torch.stack(self._sums).sum(0), "sum").tolist()
            self._metrics["train"].update(
                (name, [value / sums[-1]]) for name, value in zip(METRICS, sums[:-1], strict=True)
            )
            self._sums.clear()
        super().log(logs, start_time)


class _Segments:
    """Gathers values into segments of a sensible size, and says how far the pass is."""

    def __init__(self, cache: ReferenceCache, n_all: int) -> None:
        self._cache, self._n_all, self._n_done = cache, n_all, 0
        self._waiting: dict[bytes, ReferenceLogprobs] = {}
        self._since = time.monotonic()

    def add(self, values: Mapping[bytes, ReferenceLogprobs], processes: int) -> None:
        self._waiting.update(values)
        self._n_done = min(self._n_done + len(values) * processes, self._n_all)
        if len(self._waiting) >= SEGMENT_PAIRS or time.monotonic() - self._since > SEGMENT_S:
            self.flush()

    def flush(self) -> None:
        self._cache.add(self._waiting)
        if self._waiting:
            done = f"{self._n_done:,} of {self._n_all:,} pairs"
            print(f"reference log-probabilities: {done}", file=sys.stderr, flush=True)
            fault("reference-segment")
        self._waiting = {}
        self._since = time.monotonic()


def _metric_sums(
    policy: PairLogprobs, reference: PairLogprobs, inputs: Mapping[str, Tensor], options: DPOOptions
) -> Tensor:
    """Weighted sums of METRICS over the pairs of a pass, and last the number of pairs.

    Log-ratios are means over the tokens of a response. The margin is β times what the loss compares. `kl/chosen` is
    exp(-d) - 1 + d of the chosen log-ratio d, never negative; the tokens are the data's, not the policy's own, so it is
    a measure of drift, not an estimate without bias.
    """
    with torch.no_grad():
        chosen = (policy.chosen - reference.chosen) / policy.n_chosen
        rejected = (policy.rejected - reference.rejected) / policy.n_rejected
        summed = options.loss == "dpo"  # the one loss whose margin is not of means
        margin = chosen * policy.n_chosen - rejected * policy.n_rejected if summed else chosen - rejected
        lengths = policy.n_chosen / policy.n_rejected
        drift = torch.expm1(-chosen) + chosen
        right, cut, ones = (margin > 0).to(chosen), inputs["truncated"], torch.ones_like(chosen)
        columns = (options.beta * margin, right, chosen, rejected, lengths, drift, cut, ones)
        return torch.stack([(column * inputs["weight"]).sum() for column in columns])
