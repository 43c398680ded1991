"""Decontamination on Ray: the pieces of a job as tasks of a cluster, and the batches of a Ray data set tagged.

The machines share the disk with data, index and output.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decontam.errors import DecontamError
from decontam.job.work import Outcome, Piece, Task, do

if TYPE_CHECKING:
    from decontam.job.local import Runner
    from decontam.tagging import By

FIRST_ROWS = 100  # of a Ray data set, which tell where its texts are
RETRIES = 5  # of a task whose worker or machine is lost; doing a piece twice is harmless
CONNECT_S = 10
AHEAD = 2  # tasks handed over for each core of the cluster, so that none waits for work


def on_ray(address: str = "auto", workers: int | None = None) -> Runner:
    """A runner on the cluster at `address`: `auto` is the one that runs here, or a new one on this machine.

    `workers` bounds the tasks under way. Raises DecontamError without ray, or when nobody answers at the address.
    """
    ray = _connected(address)

    def run(task: Task, pieces: Sequence[Piece], stop: Callable[[], bool]) -> Iterator[Outcome]:
        shared = ray.put(task)
        remote = ray.remote(max_retries=RETRIES, num_cpus=1)(do)
        most = workers or AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting = iter(pieces)
        running: list[Any] = []
        try:
            while True:
                while len(running) < most and not stop() and (piece := next(waiting, None)) is not None:
                    running.append(remote.remote(shared, piece))
                if not running:
                    return
                [ready], running = ray.wait(running, num_returns=1)
                yield _got(ray, ready)
        finally:
            for each in running:
                ray.cancel(each, force=True)

    return run


def map_batches(
    dataset: Any,
    index: str | Path,
    *,
    select: Sequence[str] = (),
    by: By = "exact",
    column: str = "contamination",
    concurrency: int | tuple[int, int] | None = None,
    **options: Any,
) -> Any:
    """A Ray data set with one more column: the eval instances that each row holds, as {eval, instance, score}.

        tagged = map_batches(ray.data.read_parquet("sft/"), index="…/decontam/1f0c…", select=["text"])
        clean = tagged.filter(lambda row: len(row["contamination"]) == 0)

    `index` is a folder that `decontam index` printed. `select` are selectors as of `--select`, else what the first rows
    suggest. A row that cannot be read has null there. Workers are actors that map the index once; `concurrency` is how
    many, by default up to one for each core of the cluster, and `options` go to `ray.data.Dataset.map_batches`. Raises
    DecontamError for a folder that is no index and selectors that fit none of the first rows; this reads these rows.
    """
    from decontam.index import open_index
    from decontam.tagging import Tagger, select_from

    folder = os.path.abspath(index)
    open_index(Path(folder))
    selectors = select_from(dataset.take_batch(FIRST_ROWS, batch_format="pyarrow"), select)
    if concurrency is None:
        import ray

        concurrency = (1, max(1, int(ray.cluster_resources().get("CPU", 1))))
    return dataset.map_batches(
        Tagger,
        fn_constructor_args=(folder, selectors, by, column),
        batch_format="pyarrow",
        concurrency=concurrency,
        **options,
    )


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise DecontamError("ray is not installed; pip install evalsuite[ray]") from error
    if not ray.is_initialized():
        _knock(address)
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address=address, **quiet)
        except ConnectionError as error:
            if address != "auto":
                raise DecontamError(f"--ray {address}: no cluster answers there ({error})") from error
            ray.init(**quiet)  # none runs here: one of this machine
    return ray


def _knock(address: str) -> None:
    """Raises DecontamError when nobody is at HOST:PORT; ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise DecontamError(f"--ray {address}: nobody answers there ({error}); see: ray status") from error


def _got(ray: Any, ready: Any) -> Outcome:
    """A task's outcome; what it raised is raised as itself."""
    try:
        found: Outcome = ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        raise error.cause or error from None
    except ray.exceptions.RayError as error:
        raise DecontamError(f"the cluster lost a task {RETRIES} times ({type(error).__name__}); go on later") from error
    return found
