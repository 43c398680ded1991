"""`trainer: dpo`: preference tuning with length-normalised DPO, as in Tülu 3, on TRL's DPOTrainer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evalsuite.trainers.options import parse
from evalsuite.trainers.planning import PlanFacts, StagePlan
from evalsuite.trainers.runner import run_worker, worker_command
from evalsuite.trainers.types import TrainJob
from train_plugins.plan import plan_stage
from train_plugins.settings import DPOOptions
from train_plugins.sft import worker_environment

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint

WORKER = "train_plugins.dpo_worker"


class DPO:
    """The start is also the reference, unless the job's inputs name another one as `reference`."""

    name = "dpo"
    config = DPOOptions

    def plan(self, options: DPOOptions, facts: PlanFacts) -> StagePlan:
        return plan_stage("dpo", options, facts)

    def train(self, job: TrainJob) -> Iterator[Checkpoint]:
        options = parse(DPOOptions, job.options, "options")
        yield from run_worker(job, worker_command(WORKER, job), environment=worker_environment(options))
