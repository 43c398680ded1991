"""A scan as a job: shards with markers, so that a run that is killed goes on, and reports when all are done."""

from decontam.job.execute import Incomplete, refuse_out, run
from decontam.job.local import Runner, in_threads, usable_cores
from decontam.job.plan import Job
from decontam.job.prepare import prepare
from decontam.job.reduce import Finished
from decontam.job.work import Options

__all__ = [
    "Finished",
    "Incomplete",
    "Job",
    "Options",
    "Runner",
    "in_threads",
    "prepare",
    "refuse_out",
    "run",
    "usable_cores",
]
