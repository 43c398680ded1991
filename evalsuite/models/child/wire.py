"""What passes over the pipe between a caller and a model in a child process: JSON in length-prefixed frames.

JSON and not pickle, so that nothing that a child sends can run code in its parent. Floats survive exactly (`repr`),
lone surrogates too (they are escaped).
"""

from __future__ import annotations

import json
import os
import struct
import threading
from collections.abc import Sequence
from typing import Any

from evalsuite.types import (
    Failed,
    GenerateRequest,
    Likelihoods,
    LogLikelihood,
    LoglikRequest,
    Message,
    Prompt,
    Response,
    Sampling,
)

Frame = dict[str, Any]
_HEADER = struct.Struct(">Q")


class Pipe:
    """Two descriptors, one to read frames from and one to write them to. Both methods block; `send` is thread-safe."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._lock = threading.Lock()
        self._read_ahead = bytearray()  # survives an interrupted `receive`

    def send(self, frame: Frame) -> None:
        """Raises OSError when the other side is gone."""
        body = json.dumps(frame, separators=(",", ":")).encode("ascii")
        with self._lock:
            view = memoryview(_HEADER.pack(len(body)) + body)
            while view:
                view = view[os.write(self._writing, view) :]

    def receive(self) -> Frame:
        """The next frame. Raises EOFError when the other side is gone."""
        self._fill(_HEADER.size)
        (size,) = _HEADER.unpack_from(self._read_ahead)
        end = _HEADER.size + size
        self._fill(end)
        frame: Frame = json.loads(self._read_ahead[_HEADER.size : end])
        del self._read_ahead[:end]
        return frame

    def close(self) -> None:
        for descriptor in {self._reading, self._writing} - {-1}:
            os.close(descriptor)
        self._reading = self._writing = -1

    def _fill(self, size: int) -> None:
        while len(self._read_ahead) < size:
            piece = os.read(self._reading, 1 << 20)
            if not piece:
                raise EOFError
            self._read_ahead += piece


def pack_requests(requests: Sequence[GenerateRequest | LoglikRequest]) -> list[Any]:
    """Requests as JSON values; a conversation travels as pairs of role and content."""
    return [
        [_pack_prompt(r.prompt), _pack_sampling(r.sampling), r.want_tokens]
        if isinstance(r, GenerateRequest)
        else [_pack_prompt(r.context), list(r.options)]
        for r in requests
    ]


def unpack_generate(values: Sequence[Any]) -> list[GenerateRequest]:
    """The inverse of `pack_requests` for responses to be written."""
    return [GenerateRequest(_unpack_prompt(p), _unpack_sampling(s), want) for p, s, want in values]


def unpack_loglik(values: Sequence[Any]) -> list[LoglikRequest]:
    """The inverse of `pack_requests` for options to be scored."""
    return [LoglikRequest(_unpack_prompt(context), tuple(options)) for context, options in values]


def pack_result(result: Response | Likelihoods) -> Any:
    """A response as an object, likelihoods as rows of three, a failed document as its reason."""
    if isinstance(result, Response):
        return {name: getattr(result, name) for name in Response.__slots__}
    if isinstance(result, Failed):
        return result.why
    return [[one.total, one.greedy, one.n_tokens] for one in result]


def unpack_result(value: Any) -> Response | Likelihoods:
    """The inverse of `pack_result`."""
    if isinstance(value, str):
        return Failed(value)
    if isinstance(value, list):
        return tuple(LogLikelihood(total, greedy, n) for total, greedy, n in value)
    for name in ("tokens", "logprobs"):
        value[name] = None if value[name] is None else tuple(value[name])
    return Response(**value | {"top": tuple((token, logprob) for token, logprob in value["top"])})


def _pack_prompt(prompt: Prompt) -> list[Any]:
    messages = None if prompt.messages is None else [[m.role, m.content] for m in prompt.messages]
    return [prompt.text, prompt.chat, messages, prompt.prefill]


def _unpack_prompt(value: Sequence[Any]) -> Prompt:
    text, chat, messages, prefill = value
    return Prompt(text, chat, None if messages is None else tuple(Message(*pair) for pair in messages), prefill)


def _pack_sampling(sampling: Sampling) -> list[Any]:
    s = sampling
    return [s.max_tokens, list(s.stop), s.temperature, s.top_p, s.top_k, s.min_p, s.seed]


def _unpack_sampling(value: Sequence[Any]) -> Sampling:
    max_tokens, stop, *rest = value
    return Sampling(max_tokens, tuple(stop), *rest)
