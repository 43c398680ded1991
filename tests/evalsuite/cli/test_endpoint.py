"""`evalsuite score --model api:URL`: a server in place of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalsuite.__main__ import main
from tests.servers import Body, Reply, ScriptedServer, is_probe, prompt_of


def add(body: Body, attempt: int) -> Reply | None:
    """Answers demo_add rightly; everything else as the server does by itself."""
    prompt = prompt_of(body)
    if is_probe(body) or "+" not in prompt:
        return None
    a, b = prompt.strip().split("=")[0].split("+")
    message = {"role": "assistant", "content": str(int(a) + int(b))}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return Reply({"choices": choices, "usage": {"prompt_tokens": 5, "completion_tokens": 2}})


def score(url: str, results: Path, *more: str) -> int:
    endpoint = ["--model", f"api:{url}", "--served-model", "adder", "--tasks", "demo_add", "--limit", "20"]
    return main(["score", *endpoint, "--results", str(results), "--json", *more])


def test_a_server_is_scored_and_a_finished_run_asks_it_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedServer(script=add) as server:
        assert score(server.url, tmp_path) == 0
        card = json.loads(capsys.readouterr().out)
        asked = [body for body in server.asked() if "+" in prompt_of(body)]
        assert score(server.url, tmp_path) == 0
        again = [body for body in server.asked() if "+" in prompt_of(body)]
    assert card["results"][0]["value"] == 1.0
    assert card["checkpoint"]["name"] == "adder"
    assert (len(asked), len(again)) == (20, 20)


def test_an_endpoint_that_nobody_answers_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Port 9 is the discard service: nothing listens there.
    assert score("http://127.0.0.1:9/v1", tmp_path, "--timeout-s", "2") == 2
    said = capsys.readouterr().err
    assert "127.0.0.1:9" in said
    assert "Traceback" not in said


def test_an_endpoint_that_returns_garbage_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(script=lambda body, attempt: Reply("<html>teapot</html>")) as server:
        code = score(server.url, tmp_path)
    out, said = capsys.readouterr()
    assert code == 2
    assert "teapot" in said + out
    assert "Traceback" not in said


def test_the_key_of_an_endpoint_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret-0815")
    with ScriptedServer(script=add, key="sk-very-secret-0815") as server:
        assert score(server.url, tmp_path, "--api-key-env", "MY_KEY") == 0
    out, said = capsys.readouterr()
    written = "".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert "adder" in written
    assert "sk-very-secret-0815" not in written + out + said
