"""A Model that lives in a child process: its memory is surely free after `close()`, and its crash is a message.

The child is a fresh interpreter (`evalsuite.models.child.main`), not a fork and not a `multiprocessing` spawn: no CUDA
context is inherited, and a caller's script needs no `if __name__ == "__main__"`. Requests and results pass over two
pipes as JSON (`evalsuite.models.child.wire`); the child ends when its caller does, however that ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from evalsuite.errors import EngineCrash
from evalsuite.models.child.process import Child, ChildDied
from evalsuite.models.child.wire import Frame, pack_requests, unpack_result
from evalsuite.types import Failed, GenerateRequest, Likelihoods, LoglikRequest, Response


class ChildModel:
    """Any Model class (`target` is "module:Class"), built from `checkpoint` and `options` in a child process.

    The child starts with the constructor and loads while the caller goes on; what goes wrong there is raised by the
    first call that needs it. A child that dies is started once more with `smaller(options)` and goes on with what is
    left; a second death raises EngineCrash. One call at a time: a new one takes over from an iterator left open.
    """

    def __init__(
        self,
        target: str,
        checkpoint: Path,
        options: Mapping[str, Any],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        ahead: int = 256,
        chat_template: str | None = None,
    ) -> None:
        self.name = name
        self.checkpoint = Path(checkpoint)
        self.n_restarts = 0
        self._target, self._options, self._environment = target, dict(options), dict(environment or {})
        self._ahead = ahead
        self._chat_template = chat_template
        self._call_number = 0
        self._open_call: int | None = None  # the call whose results are wanted
        self._child: Child | None = None
        self._counts: Mapping[str, int] = {}
        self.start()

    def start(self) -> None:
        """Starts loading in the child; returns at once. Does nothing when it is started already."""
        if self._child is None:
            load = {"op": "load", "target": self._target, "checkpoint": str(self.checkpoint), "options": self._options}
            self._child = Child(load, self._environment)

    @property
    def max_length(self) -> int:
        return int(self._ready()["max_length"])

    def fingerprint(self) -> Mapping[str, str]:
        return cast("Mapping[str, str]", self._ready()["fingerprint"])

    def environment(self) -> Mapping[str, str]:
        """What a scorecard records beside the numbers (versions, device); the same from start to end."""
        return cast("Mapping[str, str]", self._ready()["environment"])

    def counts(self) -> Mapping[str, int]:
        """What the engine has counted by the end of the last call, and how often it was restarted."""
        return {**self._counts, "restarts": self.n_restarts}

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        return cast("str", self.template.render(messages, add_generation_prompt))

    def encode(self, text: str, *, chat: bool) -> list[int]:
        return cast("list[int]", self.encoder.encode(text, chat=chat))

    def generate(
        self, requests: Sequence[GenerateRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Response]]:
        lost = Response("", "error", why="the engine lost this request")
        return cast("Iterator[tuple[int, Response]]", self._stream("generate", requests, wanted, lost))

    def loglikelihood(
        self, requests: Sequence[LoglikRequest], wanted: Collection[int] | None = None
    ) -> Iterator[tuple[int, Likelihoods]]:
        lost = Failed("the engine lost this request")
        return cast("Iterator[tuple[int, Likelihoods]]", self._stream("loglikelihood", requests, wanted, lost))

    def close(self) -> None:
        child, self._child, self._open_call = self._child, None, None
        if child is not None:
            child.close()

    @cached_property
    def template(self) -> Any:
        from evalsuite.models.chat import ChatTemplate

        return ChatTemplate.from_checkpoint(self.checkpoint, self._chat_template)

    @cached_property
    def encoder(self) -> Any:
        from evalsuite.models.encoding import Encoder

        return Encoder.from_checkpoint(self.checkpoint)

    def smaller(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options for the second start, after a death that may have been for want of memory."""
        return dict(options)

    def _ready(self) -> Frame:
        self.start()
        assert self._child is not None
        try:
            return self._child.wait_ready()
        except ChildDied as death:
            raise EngineCrash(f"the {self.name} engine did not start: {death}") from None

    def _stream(
        self, kind: str, requests: Sequence[Any], wanted: Collection[int] | None, lost: Response | Failed
    ) -> Iterator[tuple[int, Response | Likelihoods]]:
        left = set(range(len(requests)) if wanted is None else wanted)
        while left:
            self._ready()
            try:
                yield from self._call(kind, requests, left)
            except ChildDied as death:
                self.close()
                if self.n_restarts:
                    raise EngineCrash(
                        f"the {self.name} engine died twice, {len(left)} requests are left; the same command goes on "
                        f"where it stopped. {death}"
                    ) from None
                self.n_restarts += 1
                self._options = self.smaller(self._options)
                continue
            yield from ((index, lost) for index in sorted(left))
            return

    def _call(self, kind: str, requests: Sequence[Any], left: set[int]) -> Iterator[tuple[int, Response | Likelihoods]]:
        """Results of one call in the running child; takes out of `left` what it yields."""
        child = self._child
        assert child is not None
        if self._open_call is not None:
            child.send({"op": "cancel", "id": self._open_call})
        self._call_number = self._open_call = number = self._call_number + 1
        wanted = None if len(left) == len(requests) else sorted(left)
        call = {"op": "run", "id": number, "kind": kind, "ahead": self._ahead, "wanted": wanted}
        child.send(call | {"requests": pack_requests(requests)})
        try:
            for n_taken, frame in enumerate(iter(lambda: self._next(child, number), None), 1):
                if (index := frame["index"]) in left:
                    left.discard(index)
                    yield index, unpack_result(frame["value"])
                if n_taken % max(1, self._ahead // 4) == 0:
                    child.send({"op": "ack", "id": number, "n": max(1, self._ahead // 4)})
        finally:
            if self._open_call == number:  # closed by the caller, or an error
                self._open_call = None
                child.try_send({"op": "cancel", "id": number})

    def _next(self, child: Child, number: int) -> Frame | None:
        """The next result of a call, None after the last one."""
        if self._open_call != number:
            raise RuntimeError("another call to this model was started before this one was finished")
        frame = child.receive(number)
        if frame["ev"] != "done":
            return frame
        self._open_call = None
        self._counts = frame["counts"]
        return None
