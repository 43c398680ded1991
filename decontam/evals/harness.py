"""Evals from lm-eval tasks: the documents that a task scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decontam.errors import DecontamError, did_you_mean
from decontam.evals.sets import eval_set
from decontam.types import EvalSet, Kind


def load_task(name: str, fields: Sequence[str], kind: Kind) -> list[EvalSet]:
    """One eval for each task that `name` stands for; ids are lm-eval's document numbers.

    Without `fields` the text is the field that the task itself names in `doc_to_decontamination_query`, if it names
    one. A template there is not followed.
    """
    return [_eval(task, each, fields, kind) for task, each in sorted(_tasks(name).items())]


def _tasks(name: str) -> dict[str, Any]:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise DecontamError(f"lm-eval:{name} needs lm-eval, which is not installed; pip install lm-eval") from None
    is_file = name.endswith((".yaml", ".yml"))
    if is_file and not Path(name).is_file():
        raise DecontamError(f"lm-eval:{name}: no such file; expected a task's YAML file or name")
    manager = TaskManager(include_defaults=not is_file)
    if not is_file and name not in manager.all_tasks:
        raise DecontamError(f"lm-eval has no task named {name!r}{did_you_mean(name, manager.all_tasks)}")
    try:
        tasks: dict[str, Any] = manager.load(name)["tasks"]
    except Exception as error:  # whatever the task's own code and its data set's host raise
        raise DecontamError(f"lm-eval:{name} cannot be loaded: {_first_line(error)}") from error
    return tasks


def _eval(name: str, task: Any, fields: Sequence[str], kind: Kind) -> EvalSet:
    source = f"lm-eval:{name}"
    try:
        docs = [dict(doc) for doc in task.eval_docs]
    except Exception as error:
        raise DecontamError(f"{source} has no documents to score: {_first_line(error)}") from error
    own = getattr(task.config, "doc_to_decontamination_query", None)
    if not fields and docs and isinstance(own, str) and own in docs[0]:
        fields = (own,)
    return eval_set(name, docs, fields, kind=kind, ids=[str(i) for i in range(len(docs))], source=source)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
