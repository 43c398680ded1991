"""Where a server is and what opens it: a base URL without secrets, and a key that stays in its environment variable."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from evalsuite.errors import EngineError, UsageError


@dataclass(frozen=True, slots=True)
class Key:
    """A secret in an environment variable. It is in no repr, message or file; only `authorize` reveals it."""

    variable: str

    @property
    def _value(self) -> str:
        return os.environ.get(self.variable, "").strip()

    def authorize(self, headers: Any) -> None:
        if self._value:
            headers["Authorization"] = f"Bearer {self._value}"

    def hide(self, text: str) -> str:
        return text.replace(self._value, "[key]") if self._value else text

    def check(self, *, required: bool) -> None:
        """Raises EngineError naming the variable when it is unset though required, or holds no possible key."""
        if required and not self._value:
            raise EngineError(
                f"the environment variable {self.variable!r} is not set; put the server's key there, "
                "or name another with --api-key-env NAME"
            )
        if not (self._value.isascii() and self._value.isprintable()):
            raise EngineError(f"the environment variable {self.variable!r} holds characters that no key can have")


def check_url(url: str) -> str:
    """The base URL without a trailing slash. Raises UsageError; what may be a secret in it is not repeated."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise UsageError(
            "the base URL has user info in it (user:password@host); URLs end up in logs and scorecards: put the key "
            "into an environment variable and name it with --api-key-env"
        )
    if parts.query or parts.fragment:
        raise UsageError("the base URL has a query or fragment, which may hold a key; give it without, up to /v1")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is no base URL; expected something like http://127.0.0.1:8000/v1")
    return url.rstrip("/")
