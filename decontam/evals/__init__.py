"""Evals: where their texts come from, and what of them the rules can protect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decontam.errors import DecontamError
from decontam.evals.protect import Unprotected, unprotected
from decontam.evals.sets import DEFAULT_FIELDS, eval_set
from decontam.evals.store import from_jsonl, to_jsonl
from decontam.types import EvalSet, Kind

__all__ = ["DEFAULT_FIELDS", "Unprotected", "eval_set", "from_jsonl", "load_evals", "to_jsonl", "unprotected"]


def load_evals(
    spec: str,
    fields: Sequence[str] = (),
    *,
    kind: Kind = "development",
    data_root: Path | None = None,
    skip_missing: bool = False,
) -> list[EvalSet]:
    """The evals that `spec` names, each with at least one instance; raises DecontamError.

    [NAME=]FILE       .jsonl, .jsonl.gz, .jsonl.zst or .parquet: one eval, named by the file
    [NAME=]FOLDER     each such file below it, named by its path there
    lm-eval:TASK      the evaluation documents of a task or of each task of a group; TASK may be a YAML file
    decontam:tulu3    the evals of Tülu 3 found below `data_root`; absent ones are an error unless `skip_missing`

    `fields` hold the texts, all of them together; without any the first of DEFAULT_FIELDS that there is. The evals of
    tulu3 know their fields and kinds themselves.
    """
    scheme, _, rest = spec.partition(":")
    if scheme == "decontam":
        from decontam.evals.hub import load_list

        if fields:
            raise DecontamError(f"{spec} names the text fields of its evals itself; leave out --eval-field")
        return load_list(rest, data_root, skip_missing=skip_missing)
    if scheme == "lm-eval":
        from decontam.evals.harness import load_task

        return load_task(rest, fields, kind)
    from decontam.evals.files import load_path

    return load_path(spec, fields, kind)
