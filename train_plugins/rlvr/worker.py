"""RLVR inside the worker process: `python -m train_plugins.rlvr.worker --job FILE`. Imports torch.

An iteration: rollouts, scores, experience, updates, log, and at save points state, checkpoint, event, verdict. Every
random choice is a function of the seed and the iteration, so a run that was killed goes on bit for bit where its last
state was (in turns, on one CPU thread).
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from evalsuite.errors import CheckpointError, TrainerFailed
from evalsuite.models.lean import import_generation
from train_plugins.chat import load_tokenizer
from train_plugins.publishing import Saver
from train_plugins.rlvr import losses, objective
from train_plugins.rlvr.generators import make_writer
from train_plugins.rlvr.journal import RolloutJournal
from train_plugins.rlvr.learner import Learner
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.plan import saves_of
from train_plugins.rlvr.prompts import read_prompts, read_rows
from train_plugins.rlvr.report import advantages_of, metrics_of
from train_plugins.rlvr.rewarding import Rewarder, check_rows, refuse_errors
from train_plugins.rlvr.rollouts import Prompt, sample_seed
from train_plugins.rlvr.sources import Source
from train_plugins.rlvr.trackers import Trackers
from train_plugins.rlvr.vllm_backend import check_vllm
from train_plugins.rlvr.watch import Watch, style
from train_plugins.steering import Action, Steering
from train_plugins.worker import Run, main

N_FIRST_LOOK = 256  # rollouts of the start whose mean score is where a value network begins
HARDLY = 0.05
GO = Action("go")


def work(run: Run) -> None:
    options: RLVROptions = run.options
    assert run.job.start is not None
    import_generation()
    if options.generator == "vllm":
        check_vllm(run.job.start.path, options.weight_transfer)  # before minutes of loading
    rows = read_rows(run)
    check_rows(rows, options.verifiers, _folders(options))
    tokenizer = load_tokenizer(run.job.start.path, options.chat_template)
    prompts = read_prompts(run, tokenizer, rows)
    run.total_steps = run.steps_per_epoch = options.n_iterations
    with closing(Trackers(run)) as trackers:
        while True:
            with closing(Session(run, tokenizer, prompts, trackers)) as session:
                try:
                    action = session.train()
                except CheckpointError as error:
                    raise TrainerFailed(
                        f"iteration {run.step_now}: what was to be published is no good checkpoint: {error}"
                    ) from error
            del session  # its networks, before the next ones are loaded
            if action.kind != "rollback":
                break
            run.take_up(run.ranks.agree(action.point))
    run.end("stopped" if action.kind == "stop" else "finished")


class Session:
    """A run from its start or a state to its end or a rollback."""

    def __init__(self, run: Run, tokenizer: Any, prompts: tuple[Prompt, ...], trackers: Trackers) -> None:
        self.run, self.options, self.trackers = run, run.options, trackers
        self.learner = Learner(run, tokenizer)
        self.source = Source(run, prompts, tokenizer, make_writer(self.learner, run, prompts), self._rewarder(prompts))
        self.prompts = prompts
        self.watch = Watch(run, run.extra.get("watch"))
        length = run.extra.get("rollouts_bytes", 0) if run.point is None or run.point.rollback is None else None
        self.journal = RolloutJournal(run.out, self.options.rollouts if run.is_main else "off", length, run.attempt)
        if self.journal.lost:
            told = f"{self.journal.path} is {self.journal.lost:,} bytes shorter than it was"
            run.warn("rollouts_lost", f"{told}: rollouts of earlier iterations are missing in it")
        self.steering = Steering(run)
        self.saver = Saver(self.learner, run, self.steering, self._at_save)
        self.saves = frozenset(saves_of(self.options, run.job.save))

    def _rewarder(self, prompts: tuple[Prompt, ...]) -> Rewarder:
        """On the main process; the others are told, and keep no pool."""
        options: RLVROptions = self.options
        names = {prompt.dataset for prompt in prompts} if self.run.is_main else ()
        return Rewarder(
            options.verifiers, names, workers=options.verify_workers, timeout_s=options.verify_timeout_s,
            extra=_folders(options),
        )  # fmt: skip

    def close(self) -> None:
        self.source.close()
        self.journal.close()

    def train(self) -> Action:
        run, options = self.run, self.options
        run.restart_clock()
        if run.point is not None and run.point.rollback is None:
            self.saver.save()  # what a kill left undone; nothing where all is there
            action = self.steering.wait(final=run.step_now >= options.n_iterations)
            if action.kind != "go":
                return action
        if self.learner.value is not None and run.point is None and options.value_init != "checkpoint":
            self._warm_value()
        while run.step_now < options.n_iterations:
            self._iterate(run.step_now + 1)
            action = self.steering.look()
            if action.kind == "go" and run.step_now in self.saves:
                self.saver.save()
                action = self.steering.wait(final=run.step_now >= options.n_iterations)
            if action.kind != "go":
                return action
        return GO

    def _iterate(self, iteration: int) -> None:
        run, learner = self.run, self.learner
        began = time.monotonic(), time.process_time()
        batch = self.source.take(iteration)
        taken = time.monotonic(), time.process_time()
        rewards = [r.reward for r in batch.rollouts]
        refuse_errors(rewards, self.options.max_verifier_errors)
        self.watch.verifiers(rewards)
        made = objective.experience(learner, batch)
        ready = time.monotonic(), time.process_time()
        update = int(run.extra.get("updates", 0))
        tally = objective.learn(learner, made, iteration, int(run.shuffles[-1][1]), update)
        done = time.monotonic(), time.process_time()
        run.extra["updates"] = update + self.options.updates_per_iteration
        run.extra["episodes"] = run.extra.get("episodes", 0) + len(batch.rollouts)
        run.tokens += sum(len(r.response.ids) for r in batch.rollouts)
        run.step_now = iteration
        metrics = metrics_of(learner, batch, made, tally) | style(batch.rollouts)
        metrics |= {"take_s": taken[0] - began[0], "score_s": ready[0] - taken[0], "update_s": done[0] - ready[0],
                    "step_cpu_s": done[1] - began[1], **batch.seconds}  # fmt: skip
        self.journal.add(batch, run.attempt, advantages_of(made))
        rounded = {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in metrics.items()}
        if iteration % self.options.log_every == 0 or iteration in self.saves:
            run.step({**rounded, "episodes": run.extra["episodes"]})
            self.trackers.log(rounded, iteration)
        rewarded = sum(r.reward.total > 0 for r in batch.rollouts) / len(batch.rollouts)
        if iteration == 1 and rewarded < HARDLY:  # a part of a reward is something to learn from
            run.warn("hardly_right", f"the start is right in {rewarded:.1%} of its responses; nothing is learnt from "
                     "the others")  # fmt: skip
        # Last, so that numbers and rollouts of an iteration that ends the run are there to be looked at.
        self.watch.look(metrics, tally.skips)
        self.watch.gap(metrics["gap_mean"], metrics["gap_correlation"], metrics["staleness"])
        run.extra["watch"] = self.watch.memory

    def _warm_value(self) -> None:
        """The head says the mean score of the start, then some iterations teach the value network alone."""
        run, options, learner = self.run, self.options, self.learner
        n = max(1, -(-N_FIRST_LOOK // options.samples_per_prompt))
        first = self.source.once(0, self._drawn(0, n), options.samples_per_prompt)
        scores = [r.score for r in first.rollouts]
        learner.accelerator.unwrap_model(learner.value).start_from(sum(scores) / len(scores))
        explained = float("nan")
        for i in range(1, options.value_warmup + 1):
            batch = self.source.once(-i, self._drawn(-i, options.prompts_per_iteration), options.samples_per_prompt)
            made = objective.experience(learner, batch)
            assert made.returns is not None
            assert made.old_values is not None
            assert made.value_mask is not None
            explained = losses.explained_variance(made.old_values, made.returns, made.value_mask)
            objective.learn(learner, made, -i, run.job.seed, 0, value_only=True)
            told = explained if math.isfinite(explained) else 0.0  # NaN where all returns are the same
            run.add("value_warmup", iteration=i, explained_variance=round(told, 4))
        if explained < 0:
            run.warn("cold_value", f"after {options.value_warmup} iterations of warm-up the value network explains "
                     f"{explained:.2f} of the variance of returns, less than a constant would")  # fmt: skip

    def _drawn(self, label: int, n: int) -> list[Prompt]:
        """Prompts for rollouts outside the iterations, by a seed of their own."""
        generator = torch.Generator().manual_seed(sample_seed(self.run.job.seed, label, 0, 0))
        picked = torch.randint(len(self.prompts), (n,), generator=generator).tolist()
        return [self.prompts[i] for i in picked]

    def _at_save(self) -> dict[str, float]:
        run = self.run
        run.extra["rollouts_bytes"] = self.journal.sync()
        told = ("score", "kl", "entropy", "length", "pass_rate")
        return {name: run.metrics[name] for name in told if name in run.metrics} | {"episodes": run.extra["episodes"]}


def _folders(options: RLVROptions) -> tuple[Path, ...]:
    return tuple(Path(folder) for folder in options.benchmarks)


if __name__ == "__main__":
    sys.exit(main(RLVROptions, work))
