"""Where the rows of a benchmark come from: a folder the user controls, else the hub.

`DIR/<owner>/<name>` of a data root stands in for the hub dataset `<owner>/<name>`. This is the door to data loading;
the parts are in data_resolve (finding), data_folder and data_facts (reading folders), data_hub, data_errors, data_ids.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evalsuite.data.errors import translate as translate
from evalsuite.data.errors import unexpected
from evalsuite.data.hub import hub_file as hub_file
from evalsuite.data.hub import refuse_shadow
from evalsuite.data.ids import sample_ids as sample_ids
from evalsuite.data.resolve import check_columns as check_columns
from evalsuite.data.resolve import resolve_all as resolve_all
from evalsuite.data.types import DatasetSpec as DatasetSpec
from evalsuite.data.types import Resolved as Resolved
from evalsuite.errors import DataError

VARIABLE = "EVALSUITE_DATA_ROOT"


def data_roots(options: Sequence[str] = ()) -> tuple[Path, ...]:
    """The folders of `--data-root`, else of `EVALSUITE_DATA_ROOT`, absolute; raises DataError listing all missing."""
    named = list(options) or [p for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
    source = "--data-root" if options else VARIABLE
    roots = tuple(Path(p).expanduser().absolute() for p in named)
    if bad := [p for p in roots if not p.is_dir()]:
        whys = ", ".join(f"{p} {'is not a folder' if p.exists() else 'does not exist'}" for p in bad)
        raise DataError(f"{source}: {whys}; expected a folder that holds <owner>/<name>/")
    return roots


def go_offline_when_local(resolved: Iterable[Resolved]) -> None:
    """Keeps the Hugging Face libraries off the network when no dataset needs it; for the rest of the process.

    They read `HF_HUB_OFFLINE` when they are imported, so this belongs before that; where one is loaded already, its
    switch is turned too. Their bars and their remarks on using a cache are silenced: nothing is downloaded.
    """
    if any(r.needs_network for r in resolved):
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DATASETS_VERBOSITY", "error")
    for name in ("huggingface_hub.constants", "datasets.config"):
        if name in sys.modules:
            sys.modules[name].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def load(resolved: Resolved, split: str) -> Any:
    """The split as a `datasets.Dataset`, by the real `load_dataset`; raises DataError that says what went wrong."""
    if resolved.origin == "hub":
        refuse_shadow(resolved.path)
    import datasets

    if resolved.origin != "hub":
        datasets.disable_progress_bars()
    spec = resolved.spec
    try:
        rows = datasets.load_dataset(resolved.path, spec.config, split=split, **resolved.dataset_kwargs)
    except Exception as error:  # whatever the library raises is said in one line, with the original as cause
        raise unexpected(error, spec) from error
    check_columns(spec, split, rows.column_names)
    return rows
