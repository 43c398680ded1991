"""`trainer: rlvr`: a policy learns from what verifiers say of its responses, by PPO or GRPO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evalsuite.trainers import TrainJob, parse, run_worker, worker_command
from evalsuite.trainers.planning import PlanFacts, StagePlan
from evalsuite.trainers.types import Places
from train_plugins.rlvr.options import RLVROptions

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint


class RLVR:
    """Reinforcement learning with verifiable rewards (Tülu 3, RLVR; GRPO as in Tülu 3.1)."""

    name = "rlvr"
    config = RLVROptions

    def train(self, job: TrainJob) -> Iterator[Checkpoint]:
        options = parse(RLVROptions, job.options, "options")
        # Mixes were not built when the recipe was looked at.
        self.refuse(options, [Path(ref.location or ref.path) for ref in job.data])
        environment = {} if options.threads is None else {"OMP_NUM_THREADS": str(options.threads)}
        yield from run_worker(job, worker_command("train_plugins.rlvr.worker", job), environment=environment)

    def plan(self, options: RLVROptions, facts: PlanFacts) -> StagePlan:
        from train_plugins.rlvr.plan import plan_rlvr

        return plan_rlvr(options, facts)

    def refuse(self, options: RLVROptions, files: Sequence[Path], places: Places | None = None) -> None:
        from train_plugins.rlvr.refusals import refuse_unseen

        places = places or Places()
        own = tuple(Path(folder) for folder in options.benchmarks)
        refuse_unseen(options.verifiers, files, replace(places, benchmarks=(*places.benchmarks, *own)))
