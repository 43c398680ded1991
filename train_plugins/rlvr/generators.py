"""Which generator a run has, where it lives, and how new weights come to it. For the worker process: imports torch."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite.errors import UsageError
from train_plugins.ranks import has_accelerator
from train_plugins.rlvr.canary import ATOL, compare
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.rollouts import Request, Response, Sampling
from train_plugins.rlvr.serving import GeneratorSpec, Served
from train_plugins.rlvr.sources import Turns, Writer

if TYPE_CHECKING:
    from train_plugins.rlvr.learner import Learner
    from train_plugins.rlvr.rollouts import Prompt
    from train_plugins.worker import Run

LOG = "generator.log"
CANARY_TOKENS = 8
CANARY_PROMPT = 64


def make_writer(learner: Learner, run: Run, prompts: Sequence[Prompt]) -> Writer:
    """In the learner's process where they take turns and transformers generates, else in a process of its own.

    Raises UsageError for a generator that this launch or machine cannot have.
    """
    options: RLVROptions = run.options
    if options.generator == "hf" and options.mode == "sync":
        if learner.is_sharded:
            raise UsageError("generator hf in turns needs the whole policy in one process; use generator: vllm")
        from train_plugins.rlvr.sampling import HFGenerator

        return Turns(HFGenerator(learner.policy, sampling_of(options, learner), learner.pad_id), run)
    return Ahead(learner, run, prompts[0].ids[-CANARY_PROMPT:])


class Ahead:
    """A generator in a process of its own, which may write while the learner trains. The main process talks to it."""

    def __init__(self, learner: Learner, run: Run, canary: tuple[int, ...]) -> None:
        self.learner, self.run, self.canary = learner, run, canary
        self.options: RLVROptions = run.options
        self.version = run.step_now
        self._sender: Any = None
        self._start = self._start_folder()
        self.served: Served | None = None
        if run.is_main:
            self.served = Served(self._spec(), run.out / LOG, stall_s=self.options.stall_s)
            self.served.wait_ready()
        if self._start is not None:
            run.ranks.barrier()
            if run.is_main:
                shutil.rmtree(self._start, ignore_errors=True)
        if self._by_gpu:
            from train_plugins.rlvr.transfer import WeightSender

            kind: Any = self.options.weight_transfer
            workers = int(self.options.generator_options.get("tensor_parallel_size", 1))
            self._sender = WeightSender(kind, learner.model, self.served, rank=run.rank, n_workers=workers)
        self._check_weights()

    def ask(self, request: Request, version: int) -> None:
        folder = None
        if version != self.version:
            began = time.monotonic()
            folder = self._send(version)
            self._sync_s = time.monotonic() - began
        if self.served is not None:
            self.served.request(request, version, folder)

    def answer(self) -> tuple[int, list[Response], Mapping[str, float]]:
        found = None
        if self.served is not None:
            began = time.monotonic()
            answer = self.served.receive()
            spent = {**answer.seconds, "wait_s": time.monotonic() - began, "send_s": getattr(self, "_sync_s", 0.0)}
            found = (answer.version, answer.responses, spent)
        version, responses, seconds = self.run.ranks.agree(found)
        return version, responses, seconds

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()
        if self.served is not None:
            self.served.close()

    @property
    def _by_gpu(self) -> bool:
        return self.options.weight_transfer in ("ipc", "nccl")

    def _send(self, version: int) -> Path | None:
        """Hands over the weights of now. Returns the folder where the generator is to find them, if it has not yet."""
        self.version = version
        if self._sender is not None:
            self._sender.send(version)
            self._check_weights()
            return None
        if self.served is None:
            self.learner.export(Path())  # gathering takes every process
            folder = None
        else:
            folder = self.served.put(version, self.learner.export)
        if self.options.generator == "hf":  # it reads what was written, all of it, or says that it did not
            return folder
        if self.served is not None and folder is not None:
            self.served.load(folder, version)
        self._check_weights()
        return None

    def _check_weights(self) -> None:
        """Both sides value the same greedy answer alike, or the run ends: weights that got lost say nothing."""
        said = self.served.greedy(self.canary, CANARY_TOKENS) if self.served is not None else None
        said = self.run.ranks.agree(said)
        expected = self.learner.valued(self.canary, said.ids)
        if self.run.is_main:
            atol = self.options.canary_atol or ATOL[_dtype(self.options)]
            compare(said, expected, atol)

    def _start_folder(self) -> Path | None:
        """Where the policy lies that a new generator begins with; None where it is the start of the run itself."""
        if self.run.point is None and not self.learner.is_resized:
            return None
        folder = self.run.out / f".generator-{os.getpid()}"
        if self.run.is_main:
            for left in self.run.out.glob(".generator-*"):  # by a run that was killed while its generator loaded
                shutil.rmtree(left, ignore_errors=True)
            folder.mkdir(parents=True)
        self.learner.export(folder)
        return folder

    def _spec(self) -> GeneratorSpec:
        options, start = self.options, self.run.job.start
        assert start is not None
        return GeneratorSpec(
            kind=options.generator,
            start=self._start or start.path,
            sampling=sampling_of(options, self.learner),
            pad_id=self.learner.pad_id,
            dtype=_dtype(options),
            seed=self.run.job.seed,
            version=self.version,
            options=options.generator_options,
            weight_transfer=options.weight_transfer,
            attention=options.attention,
            threads=options.generator_threads or options.threads,
            cpus=options.generator_cpus,
        )


def sampling_of(options: RLVROptions, learner: Learner) -> Sampling:
    eos = int(learner.processing_class.eos_token_id)
    return Sampling(options.response_tokens, eos, options.temperature, options.min_response_tokens)


def _dtype(options: RLVROptions) -> str:
    """What the generator computes in; a CPU run in bfloat16 generates in it too."""
    return options.dtype if has_accelerator() or options.dtype == "float32" else "bfloat16"
