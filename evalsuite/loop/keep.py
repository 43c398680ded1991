"""Which judged checkpoints of a stage stay on disk: `keep: all | promoted | last n` of a recipe."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

from evalsuite.loop.log import StageState


def dispensable(keep: str, state: StageState, refs: Collection[str], *, gated: bool) -> tuple[Path, ...]:
    """Folders of the checkpoints that the rule lets go, in the order they were seen.

    Never one that is not judged yet, that a ref points to (`refs`), the newest one, nor the newest promoted one: the
    next stage, a rollback or the next verdict needs them. Without a gate nothing is promoted, and `promoted` keeps all.
    """
    seen = list(state.seen)
    if keep == "all" or not seen or (keep == "promoted" and not gated):
        return ()
    stay = {*refs, seen[-1], *list(state.promoted)[-1:]}
    stay |= set(state.promoted) if keep == "promoted" else set(seen[-int(keep.split()[1]) :])
    goes = [digest for digest in seen if digest not in stay and (digest in state.controls or not gated)]
    # A folder that was removed may have been written anew, with other content.
    taken = {state.seen[digest]["path"] for digest in seen if digest not in goes}
    return tuple(Path(path) for digest in goes if (path := state.seen[digest]["path"]) not in taken)


def remove(folder: Path) -> None:
    """Deletes a checkpoint's folder, renamed first: what a kill leaves is a `.tmp-` folder that a new start deletes."""
    gone = folder.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}")
    os.rename(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)
