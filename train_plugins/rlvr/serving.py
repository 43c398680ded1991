"""A generator in a process of its own, as the learner uses it: one request at a time, weights by shared memory.

While the child writes responses the learner may train. Weights change between requests alone, so a response is never
written by two policies.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from train_plugins.rlvr.canary import WeightsLost, check_canary
from train_plugins.rlvr.engines import GeneratorSpec, weight_bytes
from train_plugins.rlvr.link import GeneratorDied, Link
from train_plugins.rlvr.rollouts import Request, Response
from train_plugins.rlvr.shelf import Shelf

__all__ = ["Answer", "GeneratorDied", "GeneratorSpec", "Served", "WeightsLost", "check_canary"]


class Answer(NamedTuple):
    """Responses in the order of the request's seeds, all written by one version of the weights.

    `seconds` of the child: sync_s and generate_s (wall), sync_cpu_s and generate_cpu_s (all its threads).
    """

    version: int
    responses: list[Response]
    seconds: Mapping[str, float]


class Served:
    """The parent's side: a Generator (see `rollouts`) whose work another process does, and which can work ahead.

    Returns at once; the child loads meanwhile, its output goes to `log`. Silence of the child for `stall_s` while
    something is asked of it (`start_s` while it loads) and its death raise GeneratorDied where its answer is waited
    for. Where nothing is waited for, a death raises GeneratorDied in the thread that made this object, within 5
    seconds, when that next runs Python; `interrupt` false leaves that out. Close it, or use it in a `with`.
    """

    def __init__(
        self,
        spec: GeneratorSpec,
        log: Path,
        *,
        stall_s: float = 600.0,
        start_s: float = 1800.0,
        interrupt: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if spec.kind == "vllm":
            from train_plugins.rlvr.vllm_backend import check_vllm

            check_vllm(spec.start, spec.weight_transfer)
        self.spec = spec
        self.shelf = Shelf(weight_bytes(spec.start))
        self.link = Link(
            spec, log, self.shelf.root, stall_s=stall_s, start_s=start_s, interrupt=interrupt,
            environment=environment or {},
        )  # fmt: skip
        self.load_seconds: Mapping[str, float] = {}
        self._process = os.getpid()
        self._asked: int | None = None  # the version that an outstanding request is to be answered with
        atexit.register(self.close)

    def put(self, version: int, write: Callable[[Path], None]) -> Path:
        """A folder for the weights of a version in shared memory, filled by `write`; removed when it has been read."""
        return self.shelf.put(version, write)

    def request(self, request: Request, version: int, folder: Path | None = None) -> None:
        """Asks for responses by a version of the weights, which lies in `folder` or else is loaded; does not wait.

        At most one request is outstanding: `receive` comes before the next.
        """
        self._free()
        self._asked = version
        self.link.ask("generate", request, version, folder)

    def receive(self) -> Answer:
        """What `request` asked for, when it is there."""
        if self._asked is None:
            raise RuntimeError("nothing was requested")
        asked, self._asked = self._asked, None
        answer = Answer(*self.link.answer())
        if answer.version != asked:
            raise RuntimeError(f"asked for weights {asked}, answered by {answer.version}")
        self.shelf.drop(asked)
        return answer

    def load(self, folder: Path, version: int) -> None:
        """Returns when the generator has the weights of that folder; `load_seconds` says what it took."""
        self.load_seconds = self._call("load", folder, version)
        if folder.parent == self.shelf.root:
            self.shelf.drop(version)

    def generate(self, request: Request) -> list[Response]:
        """Responses by the weights that are loaded."""
        self.request(request, self._call("loaded"))
        return self.receive().responses

    def greedy(self, prompt: Sequence[int], n_tokens: int) -> Response:
        """See `Generator`."""
        found: Response = self._call("greedy", tuple(prompt), n_tokens)
        return found

    def call(self, method: str, *arguments: Any) -> Any:
        """A method that only this kind of generator has (see `transfer`)."""
        return self._call("call", method, arguments)

    def adopt(self, version: int) -> None:
        """Names the weights that came another way than by a folder."""
        self._call("adopt", version)

    def wait_ready(self) -> None:
        """Returns when the child has loaded its model. Raises what kept it from that."""
        self.link.wait_ready()

    def close(self) -> None:
        """Ends the child, at once where it is at work, and removes the weights. Does nothing in a forked process."""
        if os.getpid() == self._process:
            self.link.close(kindly=self._asked is None)
            self.shelf.close()
            atexit.unregister(self.close)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _free(self) -> None:
        if self._asked is not None:
            raise RuntimeError("a request is outstanding; receive its answer first")

    def _call(self, method: str, *arguments: Any) -> Any:
        self._free()
        self.link.ask(method, *arguments)
        return self.link.answer()
