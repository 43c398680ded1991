"""HTTP to an OpenAI-compatible server: bounded concurrency, retries, time limits, and a key that is never shown.

One background thread runs an event loop; callers ask from ordinary code. What is wrong with one request is an
`ApiError` of that request; what is wrong with all of them ends the run as an EvalsuiteError.
"""

from __future__ import annotations

import asyncio
import json
import queue
import random
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from evalsuite.errors import Incomplete
from evalsuite.models.api.access import LOOPBACK, Key, check_url
from evalsuite.models.api.health import RETRIED, ApiError, Health

CONNECT_S = 10.0
LONGEST_WAIT_S = 600.0
SHOWN = 200

Answer = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """`backoff_s` are the first and the longest pause between tries; `concurrency` bounds requests in flight."""

    concurrency: int = 32
    timeout_s: float = 600.0
    max_retries: int = 6
    backoff_s: tuple[float, float] = (1.0, 60.0)


class Client:
    """Asks one server. `n_in_flight_most` and `n_tries` count what was sent."""

    def __init__(self, base_url: str, key: Key, limits: Limits) -> None:
        self.base_url = check_url(base_url)
        self.local = urlsplit(self.base_url).hostname in LOOPBACK
        key.check(required=not self.local and bool(key.variable))
        self.key, self.limits = key, limits
        self.n_tries = self.n_in_flight = self.n_in_flight_most = 0
        self._health = Health(key.variable)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: Any = None
        self._slots: asyncio.Semaphore | None = None

    def call(self, path: str, body: Answer | None = None, *, max_retries: int = 2) -> Answer:
        """One answer, for probes: it does not count as success or failure of the run. Raises ApiError."""

        async def ask() -> Answer:
            return await self._tries(path, body, max_retries)

        return asyncio.run_coroutine_threadsafe(ask(), self._started()).result()

    def calls(self, asked: Mapping[str, tuple[str, Answer]]) -> dict[str, Answer | ApiError]:
        """Several answers at once, by name."""

        async def ask(path: str, body: Answer) -> Answer | ApiError:
            try:
                return await self._tries(path, body, 2)
            except ApiError as error:
                return error

        async def all_of_them() -> list[Answer | ApiError]:
            return list(await asyncio.gather(*(ask(*one) for one in asked.values())))

        found = asyncio.run_coroutine_threadsafe(all_of_them(), self._started()).result()
        return dict(zip(asked, found, strict=True))

    async def ask(self, path: str, body: Answer, *, counts: bool = True) -> Answer:
        """An answer for the run: failures are counted unless told not to, and end it where nothing else comes.

        Raises ApiError for this request, EngineError or Incomplete for the run.
        """
        try:
            answer = await self._tries(path, body, self.limits.max_retries)
        except ApiError as error:
            if counts:
                self._health.failure(error)
            raise
        self._health.success()
        return answer

    def stream(self, jobs: Iterable[tuple[int, Callable[[], Awaitable[T]]]]) -> Iterator[tuple[int, T]]:
        """Results of all jobs in completion order. Closing the iterator cancels what is left.

        A job that raises ends the stream: after what was already asked has been answered for Incomplete, at once
        otherwise. At most `concurrency` jobs are ahead of the consumer.
        """
        loop = self._started()
        results: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        tickets = asyncio.Semaphore(self.limits.concurrency)
        running: Any = asyncio.run_coroutine_threadsafe(_pump(jobs, tickets, results), loop)
        try:
            while True:
                index, result = results.get()
                if index < 0:
                    if result is not None:
                        raise result
                    return
                loop.call_soon_threadsafe(tickets.release)
                yield index, result
        finally:
            running.cancel()

    def close(self) -> None:
        if self._loop is None:
            return
        loop, self._loop = self._loop, None
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._http.aclose(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(5)
        if not loop.is_running():
            loop.close()

    def clean(self, text: str) -> str:
        """The first 200 characters of what a server said, on one line, without the key."""
        said = " ".join(self.key.hide(text).split())
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said[:SHOWN])

    async def _tries(self, path: str, body: Answer | None, max_retries: int) -> Answer:
        assert self._slots is not None
        attempt = 0
        while True:
            async with self._slots:
                self.n_tries += 1
                self.n_in_flight += 1
                self.n_in_flight_most = max(self.n_in_flight_most, self.n_in_flight)
                try:
                    found = await self._once(path, body)
                finally:
                    self.n_in_flight -= 1
            if not isinstance(found, Again):
                return found
            if attempt >= max_retries or found.wait_s > LONGEST_WAIT_S:
                tries = f" ({attempt + 1} tries)" if attempt else ""
                raise ApiError(f"{found.why}{tries}", found.status)
            await asyncio.sleep(found.wait_s or self._pause(attempt))
            attempt += 1

    async def _once(self, path: str, body: Answer | None) -> Answer | Again:
        import httpx

        try:
            async with asyncio.timeout(self.limits.timeout_s):
                content = None if body is None else json.dumps(body).encode("ascii")
                response = await self._http.request(
                    "GET" if body is None else "POST", f"{self.base_url}{path}", content=content
                )
        except (TimeoutError, httpx.TimeoutException):
            return Again(f"no answer from {self.base_url}{path} within {self.limits.timeout_s:g} s")
        except httpx.TransportError as error:
            said = self.clean(str(error)) or type(error).__name__
            return Again(f"no connection to {self.base_url}{path}: {said}")
        status, said = response.status_code, self.clean(response.text)
        if status in RETRIED or status >= 500:
            return Again(f"{self.base_url}{path} answers {status}: {said!r}", status, _retry_after(response.headers))
        if status != 200:
            raise ApiError(f"{self.base_url}{path} answers {status}: {said!r}", status)
        try:
            answer = response.json()
        except ValueError:
            raise ApiError(f"{self.base_url}{path} answers no JSON: {said!r}") from None
        if not isinstance(answer, dict):
            raise ApiError(f"{self.base_url}{path} answers no JSON object: {said!r}")
        return answer

    def _pause(self, attempt: int) -> float:
        first, longest = self.limits.backoff_s
        return min(longest, first * 2.0**attempt) * random.uniform(0.75, 1.25)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            import httpx

            key = self.key

            class Bearer(httpx.Auth):  # not a default header: those show in the repr of a client
                def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
                    key.authorize(request.headers)
                    yield request

            self._loop = asyncio.new_event_loop()
            self._slots = asyncio.Semaphore(self.limits.concurrency)
            self._http = httpx.AsyncClient(
                auth=Bearer(),
                timeout=httpx.Timeout(self.limits.timeout_s, connect=CONNECT_S),
                limits=httpx.Limits(max_connections=self.limits.concurrency),
                headers={"Content-Type": "application/json"},
                follow_redirects=False,  # the key is for this server alone
                trust_env=not self.local,  # a proxy has no business on the loopback interface
            )
            self._thread = threading.Thread(target=self._loop.run_forever, name="api", daemon=True)
            self._thread.start()
        return self._loop


@dataclass(frozen=True, slots=True)
class Again:
    """A try that may succeed later; `wait_s` is what the server asks for, 0 when it does not say."""

    why: str
    status: int = 0
    wait_s: float = 0.0


async def _pump(
    jobs: Iterable[tuple[int, Callable[[], Awaitable[Any]]]],
    tickets: asyncio.Semaphore,
    results: queue.SimpleQueue[tuple[int, Any]],
) -> None:
    """Runs the jobs; puts (index, result) for each, and (-1, None or what ended it) at the end."""
    tasks: set[asyncio.Task[None]] = set()
    fatal: list[BaseException] = []

    async def one(index: int, job: Callable[[], Awaitable[Any]]) -> None:
        try:
            result = await job()
        except Exception as error:
            fatal.append(error)
            tickets.release()  # the pump may be waiting for one
        else:
            results.put((index, result))

    try:
        for index, job in jobs:
            await tickets.acquire()
            if fatal:
                break
            task = asyncio.ensure_future(one(index, job))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks and (not fatal or isinstance(fatal[0], Incomplete)):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    except Exception as error:  # from making a job
        fatal.append(error)
    finally:
        for task in tasks:
            task.cancel()
        results.put((-1, fatal[0] if fatal else None))


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait, given as a number or a date; 0 when it does not say."""
    value = headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
