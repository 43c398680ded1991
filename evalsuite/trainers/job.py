"""job.json: what a stage was asked to do. Written once; a run whose job changed is refused, with what changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite import __version__
from evalsuite.errors import TrainerFailed, UsageError
from evalsuite.trainers.files import differences, digest_of_json, load_json, replace_json
from evalsuite.trainers.types import Coupling, DataRef, Launch, SaveRule, TrainJob

if TYPE_CHECKING:
    from evalsuite.checkpoint import Checkpoint

SCHEMA = 1


def describe(job: TrainJob) -> dict[str, Any]:
    """The job as plain data. Where it is written is left out: a moved run is the same run."""
    return {
        "stage": job.stage,
        "start": _reference(job.start),
        "data": [{name: getattr(ref, name) for name in DataRef.__slots__} for ref in job.data],
        "seed": job.seed,
        "save": {"steps": job.save.steps, "epochs": job.save.epochs, "at": list(job.save.at)},
        "options": dict(job.options),
        "inputs": {name: _reference(checkpoint) for name, checkpoint in job.inputs.items()},
        "launch": {
            "config": job.launch.config,
            "processes": job.launch.processes,
            "environment": dict(job.launch.environment),
        },
        "coupling": {"mode": job.coupling.mode, "lag": job.coupling.lag},
    }


def job_digest(job: TrainJob) -> str:
    """sha256 over the job, with checkpoints by content: a start that was moved is the same start."""
    return digest_of_json(_by_content(describe(job)))


def write_job(job: TrainJob) -> str:
    """Writes job.json unless it is there, and returns the job's digest. Raises UsageError when the job changed."""
    file, digest, content = job.out / "job.json", job_digest(job), describe(job)
    try:
        there = load_json(file)
    except ValueError as error:
        raise TrainerFailed(f"{file}: {error}; move {job.out} away to start anew") from error
    if there is None:
        versions = {"evalsuite": __version__}
        replace_json(file, {"schema": SCHEMA, "digest": digest, "versions": versions, "job": content})
    elif there.get("schema") != SCHEMA or not {"digest", "job"} <= set(there):
        raise TrainerFailed(f"{file}: no job of schema {SCHEMA}; move {job.out} away to start anew")
    elif there["digest"] != digest:
        changed = "; ".join(differences(_by_content(there["job"]), _by_content(content)))
        raise UsageError(f"{job.out}: the job changed since it began ({changed}); use another --out, or put it back")
    return digest


def read_job(file: Path) -> TrainJob:
    """The job in a job.json, for the process that does the work. Raises when a start is not what it was."""
    there = load_json(file)
    if there is None or there.get("schema") != SCHEMA:
        raise UsageError(f"{file}: no job of schema {SCHEMA} there; it is written by evalsuite loop")
    raw = there["job"]
    return TrainJob(
        stage=raw["stage"],
        start=_opened(raw["start"]),
        data=tuple(DataRef(**ref) for ref in raw["data"]),
        out=file.parent,
        seed=raw["seed"],
        save=SaveRule(raw["save"]["steps"], raw["save"]["epochs"], tuple(raw["save"]["at"])),
        options=raw["options"],
        inputs={name: found for name, ref in raw["inputs"].items() if (found := _opened(ref)) is not None},
        launch=Launch(**raw["launch"]),
        coupling=Coupling(**raw["coupling"]),
    )


def _reference(checkpoint: Checkpoint | None) -> dict[str, str] | None:
    if checkpoint is None:
        return None
    return {"path": str(checkpoint.path), "name": checkpoint.name, "digest": checkpoint.digest}


def _by_content(content: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {name: (ref or {}).get("digest") for name, ref in content["inputs"].items()}
    data = [_data_by_content(ref) for ref in content["data"]]
    return {**content, "start": (content["start"] or {}).get("digest"), "inputs": inputs, "data": data}


def _data_by_content(ref: Mapping[str, Any]) -> dict[str, Any]:
    """Without the place, and without reports: another scan of the same data makes no other job, a waiver does."""
    waiver = ref["decontamination"] if ref["decontamination"].startswith("waived") else ""
    return {key: value for key, value in ref.items() if key != "location"} | {"decontamination": waiver}


def _opened(reference: Mapping[str, str] | None) -> Checkpoint | None:
    from evalsuite.checkpoint import open_checkpoint

    if reference is None:
        return None
    checkpoint = open_checkpoint(reference["path"])
    if checkpoint.digest != reference["digest"]:
        raise UsageError(
            f"{checkpoint.path}: its content is {checkpoint.digest[:12]}, the job was made for "
            f"{reference['digest'][:12]}; put the checkpoint back, or use another --out"
        )
    return checkpoint
