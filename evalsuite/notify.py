"""A verdict is told to a webhook or appended to a file. It is late or lost rather than in the way: warnings only."""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TIMEOUT_S = 5.0

_VERDICT = (
    "schema", "gate_id", "policy", "suite", "ref", "candidate", "champion", "anchor", "attempt", "outcome",
    "bootstrap", "cost", "blind", "pairs", "versions", "final",
)  # fmt: skip
_FINDING = (
    "benchmark", "rule", "reference", "was", "now", "difference", "limit", "low", "high", "z", "n", "n_planned", "k",
    "look", "looks", "outcome", "tier", "blind", "why",
)  # fmt: skip


def notify(
    verdict: Mapping[str, Any],
    targets: Sequence[Mapping[str, str]],
    *,
    event: Mapping[str, Any] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> tuple[str, ...]:
    """Tells every target of a policy's `notify` list; returns one warning per target that did not hear of it.

    A target is {"webhook": "env:NAME"} (a URL is a secret, so it is read from the environment and never shown) or
    {"file": PATH}, a Markdown file that one line is added to.
    """
    told = payload(verdict, event)
    warnings = []
    for target in targets:
        for kind, where in target.items():
            wrong = _post(where, told, timeout_s) if kind == "webhook" else _add(Path(where), told)
            warnings += [f"{kind} {where}: not notified ({wrong})"] if wrong else []
    return tuple(warnings)


def payload(verdict: Mapping[str, Any], event: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The verdict without anything about single items: only fields known to be free of them are sent."""
    found = {name: verdict[name] for name in _VERDICT if name in verdict}
    rows = verdict.get("findings", ())
    found["findings"] = [{name: row[name] for name in _FINDING if name in row} for row in rows]
    return {**found, "promotion": dict(event)} if event else found


def line(told: Mapping[str, Any]) -> str:
    """One Markdown list item: what was decided about whom, and what stood in the way."""
    promotion = told.get("promotion")
    name = _text(told.get("candidate", {}).get("name", "?"))
    moved = f", now {promotion['ref']} generation {promotion['generation']}" if promotion else ""
    why = [f"{_text(f['benchmark'])}: {f['outcome']}" for f in told["findings"] if f.get("outcome") in _SHOWN]
    suite = _text(told.get("suite", {}).get("name", "?"))
    return f"- **{told.get('outcome')}** {name} on {suite}{moved}" + (f" ({', '.join(why)})" if why else "") + "\n"


_SHOWN = ("block", "hold", "error")


def _text(name: Any) -> str:
    """A name as plain text in Markdown: model names are written by others."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>()#|!" else c for c in str(name) if c.isprintable())


def _add(path: Path, told: Mapping[str, Any]) -> str:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line(told))
    except OSError as error:
        return error.strerror or str(error)
    return ""


_LATE = "no answer in time"


def _post(where: str, told: Mapping[str, Any], timeout_s: float) -> str:
    """Why it was not sent, or "". A server that drips its answer cannot hold us: the whole call has one time limit."""
    name = where.removeprefix("env:")
    url = os.environ.get(name) if where.startswith("env:") else None
    if not url:
        return f"{name} is not set in the environment" if where.startswith("env:") else "expected env:NAME"
    if not url.startswith(("http://", "https://")):
        return f"{name} holds no http or https address"
    outcome = [_LATE]
    thread = threading.Thread(target=_request, args=(url, told, timeout_s, outcome), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return outcome[0]


def _request(url: str, told: Mapping[str, Any], timeout_s: float, outcome: list[str]) -> None:
    try:
        body = json.dumps(told, ensure_ascii=True).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout_s):
            outcome[0] = ""
    except urllib.error.HTTPError as error:
        outcome[0] = f"HTTP {error.code}"
    except (OSError, ValueError) as error:  # the text of these can hold the address, which is a secret
        why = getattr(error, "reason", None) or error
        outcome[0] = _LATE if isinstance(why, TimeoutError) else type(why).__name__
