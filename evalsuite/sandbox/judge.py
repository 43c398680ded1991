"""The judging process of one program: starts the untrusted process, runs our tests against it, says how it went.

It is the first process of the program's own pid namespace where there is one, so that all the others die with it. It
never executes model-written code; what it knows of it are the values that come over the wire.
"""

from __future__ import annotations

import builtins
import gc
import json
import os
import resource
import secrets
import signal
import socket
import traceback
from types import FrameType
from typing import Any, NoReturn

from evalsuite.sandbox import candidate, kernel, wire

TESTS = "tests.py"
TAKEN = b"taken\n"  # written when the whole request was read: what follows it in the pipe is the next one
MEMORY_FACTOR = 2  # the judge holds what both sides hold, for a moment


class TimeLimit(BaseException):
    """Not an Exception: tests that catch those must not catch this."""


class Gone(BaseException):
    """The untrusted process ended."""


class Raised(Exception):
    """The model's code raised something that is no built-in exception."""


def judge(rules: dict[str, Any], requests: int, answer: int) -> dict[str, Any]:
    """{"passed", "why", "cpu_s"} of the program whose parts are read from `requests`."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # no ptrace from the same uid, nor from what is forked now
    _private_files(rules)
    source = wire.read_exactly(requests, rules["sizes"][0]).decode("utf-8", "surrogatepass")
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        os.close(requests)
        candidate.run(rules, theirs.fileno(), source)
    theirs.close()
    # Read only now: the other process was forked before our tests were in any memory.
    setup, tests = (wire.read_exactly(requests, n).decode("utf-8", "surrogatepass") for n in rules["sizes"][1:])
    os.write(answer, TAKEN)
    channel = ours.detach()
    _silence()
    memory = MEMORY_FACTOR * rules["memory_mib"] << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, rules["timeout_s"])
    try:
        why = _tests(rules, channel, setup, tests) if rules["tests"] else _token(channel)
    except TimeLimit:
        why = f"timeout after {rules['timeout_s']:g} s"
    except Gone:
        why = ""
    signal.setitimer(signal.ITIMER_REAL, 0)
    return _verdict(pid, why)


def _private_files(rules: dict[str, Any]) -> None:
    if not rules["nested"]:
        return
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    size = f"size={rules['scratch_mib']}m,nr_inodes=4096,mode=1777"
    kernel.mount("tmpfs", rules["scratch"], "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, size)


def _silence() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def _ring(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeLimit


def _token(channel: int) -> str | None:
    """None when the untrusted process reported its end and then repeated a token that it was only given after that."""
    if why := _started(channel):
        return why
    token = secrets.token_bytes(16)
    try:
        wire.send(channel, token)
        return None if wire.receive(channel) == token else "a false report"
    except (EOFError, OSError):
        raise Gone from None


def _tests(rules: dict[str, Any], channel: int, setup: str, tests: str) -> str | None:
    """None when our tests came to their end; else why not."""
    if why := _started(channel):
        return why
    wire.Foreign.ask = lambda what, target, args: _ask(channel, what, target, args)
    space: dict[str, Any] = {"__name__": "tests"}
    gc.enable()
    try:
        exec(compile(setup, "setup.py", "exec"), space)
        space.update({name: _remote(channel, name) for name in rules["calls"]})
        exec(compile(tests, TESTS, "exec"), space)
    except (TimeLimit, Gone):
        raise
    except BaseException as error:
        return _described(error, tests)
    return None


def _started(channel: int) -> str:
    """Waits for the source to have run: "" when it came to its end, else what it raised."""
    what, *rest = _receive(channel)
    return "" if what == "value" else f"{rest[0]}: {rest[1]}".strip(": ")


def _remote(channel: int, name: str) -> Any:
    """A function of ours that calls the one of that name on the other side."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return _ask(channel, "call", name, args, kwargs)

    call.__name__ = call.__qualname__ = name
    return call


def _ask(channel: int, what: str, target: Any, args: Any = (), kwargs: Any = None) -> Any:
    payload = wire.dumps(wire.ToUntrusted, (what, target, args, kwargs or {}))
    try:
        wire.send(channel, payload)
    except OSError:
        raise Gone from None
    kind, *rest = _receive(channel)
    if kind == "value":
        return rest[0]
    error = getattr(builtins, rest[0], None)
    # A StopIteration would end a loop of the tests before its time (`map` passes it on).
    if isinstance(error, type) and issubclass(error, Exception) and not issubclass(error, StopIteration):
        raise _made(error, rest[1])
    raise Raised(f"{rest[0]}: {rest[1]}")


def _made(error: type[Exception], text: str) -> Exception:
    try:
        return error(text)
    except TypeError:  # UnicodeDecodeError and its like want more than a text
        return Raised(f"{error.__name__}: {text}")


def _receive(channel: int) -> tuple[Any, ...]:
    try:
        told: Any = wire.loads(wire.receive(channel))
    except (EOFError, OSError):
        raise Gone from None
    except Exception:  # bytes of the other side's choice raise nearly every kind
        return "raised", "Raised", "it sent something that cannot be read"
    match told:
        case ("value", _) | ("raised", str(), str()) if type(told) is tuple:
            return told
    return "raised", "Raised", "it sent something that cannot be read"


def _described(error: BaseException, tests: str) -> str:
    """The error with the line of the tests that it came from."""
    lines = tests.split("\n")
    at = [number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == TESTS]
    line = "".join(lines[at[-1] - 1 : at[-1]]).strip()[:120] if at else ""
    return ": ".join(part for part in (type(error).__name__, _text_of(error), line) if part)


def _text_of(error: BaseException) -> str:
    """Its message, when it has a text: it may hold a value of the other side, such as a number of a million digits."""
    try:
        return str(error)[:200]
    except Exception:
        return ""


def _verdict(pid: int, why: str | None) -> dict[str, Any]:
    """Ends the untrusted process, and looks at how it had ended when it did so itself."""
    ended, status = 0, 0
    if why == "":
        # Its end of the channel is closed. It may have closed it and live on, or be dying just now.
        signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, 0.5)
    else:
        os.kill(pid, signal.SIGKILL)
    ended, status, used = os.wait4(pid, 0)
    assert ended == pid
    signal.setitimer(signal.ITIMER_REAL, 0)
    if why == "":
        why = _ending(status)
    own = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime + own.ru_utime + own.ru_stime
    return {"passed": why is None, "why": why or "", "cpu_s": spent}


def _ending(status: int) -> str:
    if os.WIFEXITED(status):
        return f"left with exit code {os.WEXITSTATUS(status)} before its tests were done"
    number = os.WTERMSIG(status)
    known: dict[int, str] = {signal.SIGXCPU: "CPU limit", signal.SIGKILL: "killed, or it closed its channel"}
    named = known.get(number) or signal.strsignal(number)
    return f"ended by signal {number} ({named}) before its tests were done"


def report(rules: dict[str, Any], requests: int, answer: int) -> NoReturn:
    """What the forked process does from beginning to end: judges, writes the verdict as JSON, leaves."""
    try:
        verdict = judge(rules, requests, answer)
    except BaseException as error:
        verdict = {"broken": "".join(traceback.format_exception_only(error)).strip()[:300]}
    os.write(answer, json.dumps(verdict).encode())
    os._exit(0)
