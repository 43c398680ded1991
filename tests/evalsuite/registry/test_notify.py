"""Notifications: everybody named hears of it, nobody can hold it up, and no secret or item gets out."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from evalsuite.notify import notify

VERDICT: dict[str, Any] = {
    "schema": "gate/1",
    "outcome": "block",
    "candidate": {"name": "run/<b>step|5", "digest": "aa"},
    "suite": {"name": "dev", "digest": "cc", "regime": "tulu3@v5"},
    "findings": [
        {"benchmark": "gsm8k", "outcome": "block", "why": "proven drop", "items": ["secret question"]},
        {"benchmark": "drop", "outcome": "pass"},
    ],
    "responses": ["secret answer"],
}


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if self.path == "/broken" else 204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", heard
        running.shutdown()


def test_a_webhook_hears_the_verdict_without_a_word_about_items(
    server: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, heard = server
    monkeypatch.setenv("HOOK", f"{url}/hook")
    assert notify(VERDICT, [{"webhook": "env:HOOK"}], event={"ref": "champion", "generation": 4}) == ()
    (told,) = heard
    assert told["findings"][0] == {"benchmark": "gsm8k", "outcome": "block", "why": "proven drop"}
    assert told["promotion"] == {"ref": "champion", "generation": 4}
    assert "secret" not in json.dumps(told)


def test_a_file_gets_one_markdown_line_per_verdict(tmp_path: Path) -> None:
    file = tmp_path / "new" / "gate.md"
    for _ in range(2):
        assert notify(VERDICT, [{"file": str(file)}]) == ()
    line = r"- **block** run/\<b\>step\|5 on dev (gsm8k: block)"
    assert file.read_text() == f"{line}\n{line}\n"


def test_a_webhook_that_fails_is_a_warning_that_names_no_address(
    server: tuple[str, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    addresses = {
        "BROKEN": f"{server[0]}/broken",
        "REFUSED": f"http://127.0.0.1:{port}/token-1234",
        "FILE": "file:///etc/passwd",
        "BAD": "http://[token-1234",
    }
    for name, address in addresses.items():
        monkeypatch.setenv(name, address)
    targets = [{"webhook": f"env:{name}"} for name in (*addresses, "UNSET")]
    warnings = notify(VERDICT, [*targets, {"webhook": "http://in-the-file"}, {"file": "/proc/none/x"}])
    assert len(warnings) == 7
    assert warnings[0] == "webhook env:BROKEN: not notified (HTTP 500)"
    assert warnings[2] == "webhook env:FILE: not notified (FILE holds no http or https address)"
    assert "UNSET is not set" in warnings[4]
    assert "token-1234" not in "".join(warnings)


def test_a_server_that_never_answers_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HOOK", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert notify(VERDICT, [{"webhook": "env:HOOK"}], timeout_s=0.3) == (
            "webhook env:HOOK: not notified (no answer in time)",
        )
        assert time.monotonic() - started < 3
