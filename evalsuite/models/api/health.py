"""What went wrong with a request, and whether it went wrong with all of them."""

from __future__ import annotations

from evalsuite.errors import EngineError, Incomplete

RETRIED = {408, 409, 429}
CONSECUTIVE_FAILURES = 20


class ApiError(Exception):
    """One request that has no answer. `status` is 0 when it was not the server who said so."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class ServerGone(Incomplete):
    """The server had answered, and then failed so often in a row that the run is over."""


class Health:
    """Tells a run in which some requests fail from one in which nothing works."""

    def __init__(self, key_variable: str) -> None:
        self._key_variable = key_variable
        self._ever = False
        self._in_a_row = 0

    def success(self) -> None:
        self._ever, self._in_a_row = True, 0

    def failure(self, error: ApiError) -> None:
        """Raises EngineError when the first answer of the run is a refusal or nothing ever worked in 20 tries.

        Twenty failures in a row after something had worked are an interruption: Incomplete.
        """
        if error.status == 400 and "context" in str(error) and "length" in str(error):
            return  # one prompt is too long; that says nothing about the next one
        if not self._ever and 400 <= error.status < 500 and error.status not in RETRIED:
            raise explain(error, self._key_variable)
        self._in_a_row += 1
        if self._in_a_row < CONSECUTIVE_FAILURES:
            return
        if not self._ever:
            raise EngineError(
                f"none of {self._in_a_row} requests has worked, the last one failed with: {error}; "
                "look at the base URL (it usually ends in /v1) and at the server"
            )
        raise ServerGone(
            f"{self._in_a_row} requests in a row failed, the last one with: {error}; nothing is lost, "
            "the same command goes on when the server works again"
        )


def explain(error: ApiError, key_variable: str) -> EngineError:
    """A refusal that concerns every request, with what to do about it."""
    unnamed = (
        "no key was sent; name the variable that holds one: --api-key-env NAME, of a judge --judge-api-key-env NAME"
    )
    advice = {
        401: f"put a valid key into the environment variable {key_variable!r}" if key_variable else unnamed,
        403: f"the key in {key_variable!r} may not use this model" if key_variable else unnamed,
        404: "look at the base URL (it usually ends in /v1) and at --served-model",
    }.get(error.status, "the server does not take this request")
    return EngineError(f"{error}; {advice}")
