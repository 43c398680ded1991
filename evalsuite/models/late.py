"""A model that is opened when it is first asked for: who describes one pays for it only where there is a question."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from evalsuite.types import Model


class LateModel:
    """Holds `open_model` and what it gave. Close it to have the memory back; it opens again when it is asked."""

    def __init__(self, open_model: Callable[[], Model]) -> None:
        self.open_model = open_model
        self._model: Model | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def model(self) -> Model:
        if self._model is None:
            self._model = self.open_model()
        return self._model

    def close(self) -> None:
        """Idempotent."""
        if self._model is not None:
            self._model.close()
            self._model = None
