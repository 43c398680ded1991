"""Experiment trackers of a run, by accelerate's own. For the worker process; nothing is imported unless asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train_plugins.worker import Run


class Trackers:
    """Those that `report_to` names, on the main process; without any, nothing happens."""

    def __init__(self, run: Run) -> None:
        self._trackers: list[Any] = []
        if not run.options.report_to or not run.is_main:
            return
        from accelerate.tracking import filter_trackers

        folder = str(run.out / "tracking")
        for chosen in filter_trackers(list(run.options.report_to), folder):
            given = (run.out.name, folder) if getattr(chosen, "requires_logging_directory", False) else (run.out.name,)
            self._trackers.append(chosen(*given))
        for tracker in self._trackers:
            if hasattr(tracker, "start"):
                tracker.start()

    def log(self, metrics: Mapping[str, Any], step: int) -> None:
        for tracker in self._trackers:
            tracker.log(dict(metrics), step=step)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()
