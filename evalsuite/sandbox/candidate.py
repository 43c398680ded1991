"""The untrusted process: gives up all it can, runs the model's code and, when there are tests, answers their calls.

Everything in here, this module included, can be read and changed by the code it runs. So nothing here decides: with
tests, the judging process (judge.py) looks at values alone. Without tests the code shares this process with whatever
checks it; what can be prevented is prevented (leaving early, printing, changed builtins or unittest, a token that
could be found: it is sent when the end was reported), but code written against this very file could still report its
own success.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import pickle
import resource
import signal
import sys
import types
from collections.abc import Iterator
from typing import Any

from evalsuite.sandbox import kernel, landlock, seccomp, wire

CHANNEL = 3
FILE_BYTES = 16 << 20
OPEN_FILES = 64
# What in-process checks rest on; changed names make the program fail.
GUARDED = (
    "builtins",
    "unittest",
    "unittest.case",
    "unittest.suite",
    "unittest.runner",
    "unittest.result",
    "unittest.loader",
)


def run(rules: dict[str, Any], channel: int, source: str) -> None:
    """Never returns: the process ends here."""
    code = 1
    try:
        _confine(rules, channel)
        _answer(rules["tests"], source)
        code = 0
    finally:
        os._exit(code)


def _confine(rules: dict[str, Any], channel: int) -> None:
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if channel != CHANNEL:
        os.dup2(channel, CHANNEL)
    os.closerange(CHANNEL + 1, 1024)
    os.chdir(rules["scratch"])
    os.environ.clear()
    os.environ.update(rules["environment"])
    memory = rules["memory_mib"] << 20
    cpu = int(rules["timeout_s"]) + 2
    for kind, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, rules["processes"]),
    ):
        resource.setrlimit(kind, (limit, limit))
    if rules["level"] == "none":
        return
    if rules["landlock"]:
        writable = [rules["scratch"], "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"]
        landlock.restrict(rules["landlock"], read=rules["readable"], listed=rules["listed"], write=writable)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.drop_capabilities()
    if rules["seccomp"]:
        seccomp.install(rules["filter"] or seccomp.build(os.getpid(), rules["owns_files"]))


def _answer(tests: bool, source: str) -> None:
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module  # dataclasses and pickle look the module of a class up
    gc.enable()
    guarded = {} if tests else _fingerprint()
    told = _tell_how_it_went(lambda: exec(compile(source, "candidate.py", "exec"), module.__dict__))
    if tests:
        wire.send(CHANNEL, pickle.dumps(told))
        _serve(module)
    elif told[0] == "value" and (changed := sorted(_differences(guarded))):
        wire.send(CHANNEL, pickle.dumps(("raised", "Tampered", f"the program changed {', '.join(changed[:3])}")))
    else:
        wire.send(CHANNEL, pickle.dumps(told))
        wire.send(CHANNEL, wire.receive(CHANNEL))


def _tell_how_it_went(work: Any) -> tuple[Any, ...]:
    try:
        return "value", work()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            return "raised", type(error).__name__, str(error)[:300]
        return "raised", "BaseException", ""


def _fingerprint() -> dict[tuple[str, str], object]:
    """Every function and class in the guarded modules, and what their classes hold."""
    found: dict[tuple[str, str], object] = {}
    for name in GUARDED:
        module = sys.modules.get(name)
        for key, value in list(vars(module).items()) if module else ():
            if key != "_":
                found[name, key] = value
            if isinstance(value, type) and value.__module__ == name and name != "builtins":
                found.update({(name, f"{key}.{k}"): v for k, v in list(vars(value).items())})
    return found


def _differences(before: dict[tuple[str, str], object]) -> Iterator[str]:
    now = _fingerprint()
    yield from (".".join(key) for key in before if now.get(key) is not before[key])


def _serve(module: types.ModuleType) -> None:
    """Answers calls until the judge is gone."""
    objects: list[Any] = []
    while True:
        try:
            request = wire.receive(CHANNEL)
        except EOFError:
            return
        told = _tell_how_it_went(lambda asked=request: _do(asked, module, objects))
        try:
            payload = wire.dumps(_leaving(objects), told)
        except BaseException as error:
            payload = pickle.dumps(("raised", type(error).__name__, "its value cannot be sent"))
        wire.send(CHANNEL, payload)


def _do(request: bytes, module: types.ModuleType, objects: list[Any]) -> Any:
    what, target, args, kwargs = _Arriving(request, objects).load()
    if what == "items":
        return list(target)
    if what == "get":
        return getattr(target, *args)
    if what == "set":
        return setattr(target, *args)
    if target not in vars(module):
        raise NameError(f"name {target!r} is not defined")
    return vars(module)[target](*args, **kwargs)


class _Arriving(pickle.Unpickler):
    def __init__(self, payload: bytes, objects: list[Any]) -> None:
        super().__init__(io.BytesIO(payload))
        self._objects = objects

    def find_class(self, module: str, name: str) -> Any:
        return self._objects.__getitem__ if name == "_foreign" else super().find_class(module, name)


def _leaving(objects: list[Any]) -> type[pickle.Pickler]:
    class Leaving(pickle.Pickler):
        """Subclasses of plain types go as their plain value, all else that is not plain as a number."""

        def reducer_override(self, value: Any) -> Any:
            kind = type(value)
            if wire.is_known(kind) or (isinstance(value, type) and (value is wire.Foreign or wire.is_known(value))):
                return NotImplemented
            if kind.__module__ == "numpy" and hasattr(value, "item") and not hasattr(value, "__len__"):
                return _plain(value.item())
            plain: type[Any] | None = next((p for p in wire.PLAIN if isinstance(value, p)), None)
            if plain is not None:
                return _plain(plain(value))
            objects.append(value)
            return wire.Foreign, (len(objects) - 1,)

    return Leaving


def _plain(value: Any) -> Any:
    return type(value), (value,)
