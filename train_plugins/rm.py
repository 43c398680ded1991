"""`trainer: rm`: a reward model on preference pairs, with TRL below. It starts the value network of RLVR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evalsuite.trainers import TrainJob, parse, run_worker, worker_command
from evalsuite.trainers.planning import PlanFacts, StagePlan
from train_plugins.settings import RMOptions
from train_plugins.sft import worker_environment

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint


class RM:
    """Trains a model with one number as output to give the chosen conversation more than the rejected one."""

    name = "rm"
    config = RMOptions

    def train(self, job: TrainJob) -> Iterator[Checkpoint]:
        options = parse(RMOptions, job.options, "options")
        yield from run_worker(
            job, worker_command("train_plugins.rm_worker", job), environment=worker_environment(options)
        )

    def plan(self, options: RMOptions, facts: PlanFacts) -> StagePlan:
        from train_plugins.plan import plan_stage

        return plan_stage("rm", options, facts)
