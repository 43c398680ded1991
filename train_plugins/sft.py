"""`trainer: sft`: supervised fine-tuning of all weights or of adapters, with TRL below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from evalsuite.trainers import TrainJob, parse, run_worker, worker_command
from evalsuite.trainers.planning import PlanFacts, StagePlan
from train_plugins.settings import SFTOptions, TrainingOptions

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint


class SFT:
    """Trains on every assistant turn of conversations (Tülu 3, supervised fine-tuning)."""

    name = "sft"
    config = SFTOptions

    def train(self, job: TrainJob) -> Iterator[Checkpoint]:
        options = parse(SFTOptions, job.options, "options")
        yield from run_worker(
            job, worker_command("train_plugins.sft_worker", job), environment=worker_environment(options)
        )

    def plan(self, options: SFTOptions, facts: PlanFacts) -> StagePlan:
        from train_plugins.plan import plan_stage

        return plan_stage("sft", options, facts)


def worker_environment(options: TrainingOptions) -> dict[str, str]:
    """Variables that must be set before torch is imported."""
    return {} if options.threads is None else {"OMP_NUM_THREADS": str(options.threads)}
