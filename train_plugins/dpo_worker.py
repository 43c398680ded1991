"""`python -m train_plugins.dpo_worker --job FILE`: one run of preference tuning. The worker process: imports torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig

from evalsuite.checkpoint import Checkpoint
from evalsuite.errors import DataError, UsageError
from train_plugins.chat import load_template, load_tokenizer, tokenise_pair
from train_plugins.dpo_feed import Layout, Pair, PairFeed, choose_layout, compact, pair_parts
from train_plugins.dpo_trainer import PairTrainer, dpo_arguments
from train_plugins.driving import drive, load_causal, training_arguments
from train_plugins.models import fit_vocabulary, kept_dtype
from train_plugins.packing import pair_logprobs
from train_plugins.refcache import (
    Conditions,
    ReferenceCache,
    cache_folder,
    pair_key,
    tokenizer_digest,
    weights_digest,
)
from train_plugins.settings import DPOOptions
from train_plugins.worker import Run, load_rows, main

FAR = {"float32": 1e-4, "bfloat16": 2e-2}  # between layouts, a token; a wrong mask is off by far more


def work(run: Run) -> None:
    drive(prepare(run), run)


def prepare(run: Run) -> PairTrainer:
    """The trainer before its first step, with every usable pair of the job's data."""
    start, options = _start(run), run.options
    template = load_template(options.chat_template, start.path)
    tokenizer = load_tokenizer(start.path, template)
    reference = run.job.inputs.get("reference", start)
    if reference.digest != start.digest:
        check_same_tokenizer(tokenizer, load_tokenizer(reference.path, template), reference)
    pairs = tokenised(load_rows(run, "preference"), tokenizer, options, run)
    arguments = DPOConfig(**training_arguments(options, run, len(pairs), **dpo_arguments(options, run.processes)))
    model = load_causal(run, tokenizer)
    layout = settled_layout(run, model.to(_device(arguments)), pairs, tokenizer.pad_token_id)
    cache = open_cache(run, reference, tokenizer, template, layout, pairs)
    feed = PairFeed(pairs, layout, options, tokenizer.pad_token_id)
    return make_trainer(run, arguments, model, tokenizer, reference, feed, cache)


def tokenised(rows: Sequence[Mapping[str, Any]], tokenizer: Any, options: DPOOptions, run: Run) -> list[Pair]:
    """The rows as token ids. Those with nothing left to compare after the cut are left out and counted."""
    pairs = []
    for i, row in enumerate(rows):
        tokens = tokenise_pair(tokenizer, row["chosen"], row["rejected"], options.max_length, options.response)
        if tokens.usable:
            pairs.append(Pair(str(row.get("id", f"pair {i}")), compact(tokens)))
    if not pairs:
        raise DataError(
            f"none of {len(rows)} pairs has an answer left within max_length {options.max_length}; raise it"
        )
    if len(pairs) < len(rows):
        run.warn("dropped", f"{len(rows) - len(pairs)} of {len(rows)} pairs: no answer left within max_length")
    n_cut = sum(pair.tokens.chosen_truncated or pair.tokens.rejected_truncated for pair in pairs)
    if n_cut:
        run.warn("truncation", f"{n_cut} of {len(pairs)} pairs are cut at max_length {options.max_length}")
    return pairs


def settled_layout(run: Run, model: Any, pairs: Sequence[Pair], pad_id: int) -> Layout:
    """The layout of the run, after the longest pair has been asked in it and in padded rows.

    Masks and positions of our own are right for every model that we know; of others nobody can say. Where they give
    other numbers, padded rows are used, with a warning; raises UsageError where the recipe names the layout.
    """
    options: DPOOptions = run.options
    layout = choose_layout(options, model.config)
    if layout == "padded" or _is_sharded():
        return layout
    longest = max(pairs, key=lambda pair: pair.tokens.n_tokens)
    plain, ours = (_token_means(run, model, PairFeed([longest], kind, options, pad_id)) for kind in ("padded", layout))
    far = max(abs(a - b) for a, b in zip(plain, ours, strict=True))
    if not run.ranks.agree(far) > FAR[options.dtype]:  # no number at all: the reference says so, and of which pair
        return layout
    told = f"layout {layout} gives this model log-probabilities that are {far:.2g} a token off those of padded rows"
    if options.layout != "auto":
        raise UsageError(f"{told}; use layout: padded")
    run.warn("layout", f"{told}, which are used instead")
    return "padded"


def _token_means(run: Run, model: Any, feed: PairFeed) -> list[float]:
    """Mean log-probability of a token of each side of the feed's first pair."""
    device = model.device
    batch = {name: tensor.to(device) for name, tensor in feed.batch([0]).items()}
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=run.options.dtype == "bfloat16"):
        found = pair_logprobs(model, batch, 1)
    return [float(mean) for mean in found.means()]


def open_cache(
    run: Run, reference: Checkpoint, tokenizer: Any, template: str, layout: Layout, pairs: list[Pair]
) -> ReferenceCache | None:
    """The cache for these pairs, whose keys it sets; None where the run needs none."""
    options: DPOOptions = run.options
    if options.loss == "simpo" or not options.reference_cache:
        return None
    weights, tokens = weights_digest(reference), tokenizer_digest(reference, template)
    if len(tokenizer) > _n_embedded(reference):
        tokens += f", new rows drawn from seed {run.job.seed}"
    dtype = f"{options.dtype}, weights {kept_dtype(options)}"
    conditions = Conditions(weights, tokens, dtype, f"{options.attention}, {layout}", options.response)
    pairs[:] = [Pair(p.name, p.tokens, pair_key(conditions, pair_parts(p.tokens))) for p in pairs]
    cache = ReferenceCache(cache_folder(run.job, weights))
    if run.is_main:
        cache.remove_leftovers()
    return cache


def make_trainer(
    run: Run,
    arguments: DPOConfig,
    model: Any,
    tokenizer: Any,
    reference: Checkpoint,
    feed: PairFeed,
    cache: ReferenceCache | None,
) -> PairTrainer:
    """The trainer, with the reference's log-probabilities in hand where they are cached."""
    from datasets import Dataset

    options, n_pairs = run.options, len(feed.pairs)
    needed = options.loss != "simpo" and _needs_model(run, reference, cache, feed, options)
    trainer = PairTrainer(
        feed=feed,
        options=options,
        cache=cache,
        model=model,
        ref_model=load_reference(run, tokenizer, reference) if needed else None,
        args=arguments,
        data_collator=list,
        train_dataset=Dataset.from_dict({"pair": list(range(n_pairs))}),
        processing_class=tokenizer,
    )
    for damaged in cache.damaged if cache is not None else ():
        run.warn("cache", f"{damaged} cannot be read; its pairs were computed again")
    trainer.set_feed(n_pairs, feed, run)
    return trainer


def _needs_model(
    run: Run, reference: Checkpoint, cache: ReferenceCache | None, feed: PairFeed, options: DPOOptions
) -> bool:
    """Whether a second model has to be loaded: the start itself can be asked before its first step, and later where
    adapters can be switched off."""
    same = reference.digest == _start(run).digest
    if cache is None:
        return not (same and options.lora is not None)
    unknown = bool(run.ranks.agree(len(cache.look_up([pair.key for pair in feed.pairs]))))
    return unknown and not (same and not _is_sharded())


def load_reference(run: Run, tokenizer: Any, reference: Checkpoint) -> Any:
    """The reference as a model, as `load_causal` loads the start: new embedding rows are drawn alike."""
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(run.job.seed)
    dtype, attention = getattr(torch, kept_dtype(run.options)), run.options.attention
    model = AutoModelForCausalLM.from_pretrained(reference.path, dtype=dtype, attn_implementation=attention)
    fit_vocabulary(model, tokenizer)
    return model


def check_same_tokenizer(ours: Any, theirs: Any, reference: Checkpoint) -> None:
    """Raises UsageError at the first thing in which the two tokenizers differ."""
    for name in ("vocab_size", "eos_token", "pad_token", "bos_token"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine != other:
            raise UsageError(
                f"{reference.path}: its tokenizer differs from the start's in {name} ({other!r}, not {mine!r}); a "
                "reference has to read the same tokens"
            )
    mine_ids, other_ids = ours.get_vocab(), theirs.get_vocab()
    token = next((t for t in mine_ids if mine_ids[t] != other_ids.get(t)), None)
    if token is not None:
        raise UsageError(
            f"{reference.path}: its tokenizer differs from the start's in token {token!r} ({other_ids.get(token)}, not "
            f"{mine_ids[token]}); a reference has to read the same tokens"
        )


def _start(run: Run) -> Checkpoint:
    if run.job.start is None:
        raise UsageError("dpo starts from a checkpoint; set start: in the stage")
    return run.job.start


def _n_embedded(checkpoint: Checkpoint) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(checkpoint.path).get_text_config().vocab_size)


def _device(arguments: DPOConfig) -> Any:
    """Where the trainer will put the model; the CPU where it is sharded later."""
    return torch.device("cpu") if _is_sharded() else arguments.device


def _is_sharded() -> bool:
    """Whether the launcher shards models, in which case the start cannot be asked before training."""
    return any(os.environ.get(f"ACCELERATE_USE_{kind}") == "true" for kind in ("FSDP", "DEEPSPEED"))


if __name__ == "__main__":
    sys.exit(main(DPOOptions, work))
