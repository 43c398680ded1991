"""A loopback stand-in for the Hugging Face hub: serves a root of repo-shaped dataset folders, and faults by owner name.

Point `HF_ENDPOINT` at `Hub.url` before any Hugging Face library is imported, so run loaders in a subprocess. Owners
`gated`, `auth`, `boom`, `busy` and `slow` answer 403 GatedRepo, 401, 500, 429 and after a delay, whatever is asked.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

FAULTS = {"gated": (403, "GatedRepo"), "auth": (401, "Unauthorized"), "boom": (500, ""), "busy": (429, "")}
SLOW_S = 1.0
RESOLVE = re.compile(r"/datasets/(?P<owner>[^/]+)/(?P<name>[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
API = re.compile(r"/api/datasets/(?P<owner>[^/]+)/(?P<name>[^/]+)(?:/(?P<what>revision|tree|paths-info)/(?P<rest>.*))?")


@dataclass
class Hub:
    """A running server. `log` holds one `METHOD host path` line per request, in arrival order."""

    root: Path
    url: str = ""
    log: list[str] = field(default_factory=list)


@contextmanager
def serve(root: Path) -> Iterator[Hub]:
    """Serves `root` on a free loopback port until the block ends."""
    hub = Hub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@cache
def _blob(path: Path) -> str:
    """The id that git gives to the file's content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def files_of(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@cache
def commit_of(folder: Path) -> str:
    """40 hex that change with any file's path or content, and with nothing else."""
    listing = "\n".join(f"{p.relative_to(folder).as_posix()} {_blob(p)}" for p in files_of(folder))
    return hashlib.sha1(listing.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client hung up
            super().handle()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.log.append(f"{self.command} {self.headers.get('Host')} {path}")
        match = RESOLVE.fullmatch(path) or API.fullmatch(path)
        if match is None:
            return self._error(404, "")
        if match["owner"] in FAULTS:
            return self._error(*FAULTS[match["owner"]])
        if match["owner"] == "slow":
            time.sleep(SLOW_S)
        folder = self.hub.root / match["owner"] / match["name"]
        if not folder.is_dir():
            return self._error(404, "RepoNotFound")
        if match.re is API and match["what"] is None:
            return self._json(_info(folder))
        revision = match["rev"] if match.re is RESOLVE else match["rest"].partition("/")[0]
        if revision not in ("main", commit_of(folder)):
            return self._error(404, "RevisionNotFound")
        if match.re is RESOLVE:
            return self._file(folder, folder / match["path"])
        return self._api(folder, match["what"], match["rest"].partition("/")[2], body)

    def _file(self, folder: Path, path: Path) -> None:
        headers = {"X-Repo-Commit": commit_of(folder)}
        if not path.is_file():
            return self._error(404, "EntryNotFound", headers)
        data = path.read_bytes()
        headers |= {"ETag": f'"{_blob(path)}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return self._send(200, data, "application/octet-stream", headers)
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._send(206, data[first : last + 1], "application/octet-stream", headers)

    def _api(self, folder: Path, what: str, below: str, body: bytes) -> None:
        if what == "revision":
            return self._json(_info(folder))
        if what == "paths-info":
            posted = json.loads(body) if body[:1] == b"{" else parse_qs(body.decode())
            rows = [_row(folder, folder / p) for p in posted.get("paths", []) if (folder / p).exists()]
            return self._json(rows)
        place = folder / below
        rows = [_row(folder, p) for p in sorted(place.iterdir())] if place.is_dir() else []
        return self._json(rows) if rows else self._error(404, "EntryNotFound")

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        about = {"X-Error-Code": code} if code else {}
        self._json({"error": code or f"status {status}"}, status, {**(headers or {}), **about})

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", headers or {})

    def _send(self, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _info(folder: Path) -> dict[str, Any]:
    sha = commit_of(folder)
    then = "2024-01-01T00:00:00.000Z"
    siblings = [{"rfilename": p.relative_to(folder).as_posix()} for p in files_of(folder)]
    flags = {"private": False, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
    about = {"id": f"{folder.parent.name}/{folder.name}", "author": folder.parent.name, "_id": sha[:24], "sha": sha}
    return {**about, **flags, "lastModified": then, "createdAt": then, "siblings": siblings}


def _row(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
    return {"type": "file", "oid": _blob(path), "size": path.stat().st_size, "path": name}


def write_repo(root: Path, dataset_id: str, configs: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
    """A repo-shaped folder of JSON lines, `{config: {split: rows}}`; returns it."""
    folder = root / dataset_id
    entries = []
    for config, splits in configs.items():
        (folder / config).mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / config / f"{split}.jsonl").write_text(lines)
        files = "".join(f"  - split: {split}\n    path: {config}/{split}.jsonl\n" for split in splits)
        entries.append(f"- config_name: {config}\n  data_files:\n{files}")
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(entries)}---\n# {dataset_id}\n")
    return folder
