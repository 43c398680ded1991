"""Which generator a run has, and where it lives. For the worker process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalsuite.errors import UsageError
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.rollouts import Sampling
from train_plugins.rlvr.sources import Turns, Writer

if TYPE_CHECKING:
    from train_plugins.rlvr.learner import Learner
    from train_plugins.worker import Run


def make_writer(learner: Learner, run: Run) -> Writer:
    """In the learner's process where they take turns and transformers generates, else in a process of its own."""
    options: RLVROptions = run.options
    if options.mode == "sync" and options.generator == "hf":
        if learner.is_sharded:
            raise UsageError("generator hf needs the whole policy in one process, and this launch shards it; use vllm")
        from train_plugins.rlvr.sampling import HFGenerator

        return Turns(HFGenerator(learner.policy, sampling_of(options, learner), learner.pad_id), run)
    raise UsageError("not yet")


def sampling_of(options: RLVROptions, learner: Learner) -> Sampling:
    eos = int(learner.processing_class.eos_token_id)
    return Sampling(options.response_tokens, eos, options.temperature, options.min_response_tokens)
