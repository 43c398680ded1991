"""Trainers: how they are found and run, what they report, and how the loop tells them what to do next."""

from evalsuite.trainers.control import Control, ControlReader, read_control, write_control
from evalsuite.trainers.events import EventReader, append_event, read_events
from evalsuite.trainers.job import job_digest, read_job, write_job
from evalsuite.trainers.lookup import find_trainer, known_trainers
from evalsuite.trainers.options import parse
from evalsuite.trainers.runner import run_worker, worker_command
from evalsuite.trainers.types import Coupling, DataRef, Launch, SaveRule, StageKind, Trainer, TrainJob

__all__ = [
    "Control",
    "ControlReader",
    "Coupling",
    "DataRef",
    "EventReader",
    "Launch",
    "SaveRule",
    "StageKind",
    "TrainJob",
    "Trainer",
    "append_event",
    "find_trainer",
    "job_digest",
    "known_trainers",
    "parse",
    "read_control",
    "read_events",
    "read_job",
    "run_worker",
    "worker_command",
    "write_control",
    "write_job",
]
