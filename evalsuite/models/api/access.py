"""Where a server is and what opens it: a base URL without secrets, and a key that stays in its environment variable."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from evalsuite.errors import EngineError, UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KNOWN_VARIABLES = {"api.openai.com": "OPENAI_API_KEY"}  # whose key a variable holds that nobody had to name


@dataclass(frozen=True, slots=True)
class Key:
    """A secret in an environment variable, "" for none. Only `authorize` shows it; no repr, message or file does."""

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
                "or name another with --api-key-env NAME (a judge's with --judge-api-key-env NAME)"
            )
        if not (self._value.isascii() and self._value.isprintable()):
            raise EngineError(f"the environment variable {self.variable!r} holds characters that no key can have")


def key_for(url: str, variable: str | None) -> Key:
    """The key in the variable that was named for this server; unnamed, OPENAI_API_KEY for its own host and none else.

    Raises UsageError for a URL that cannot be, or where the key would leave this machine unencrypted.
    """
    parts = urlsplit(check_url(url))
    name = KNOWN_VARIABLES.get(parts.hostname or "", "") if variable is None else variable
    if name and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise UsageError(
            f"the key in {name!r} would travel to {parts.hostname} unencrypted; use https, or name no variable for a "
            "server that needs no key"
        )
    return Key(name)


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
