"""The engine `api` against a server that does what a script says: retries, refusals, garbage, limits, secrets."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import EngineError, Incomplete, UsageError
from evalsuite.models.api.client import _retry_after
from evalsuite.models.api.model import APIModel
from evalsuite.types import Failed, GenerateRequest, LogLikelihood, LoglikRequest, Message, Prompt, Response, Sampling
from tests.servers import EVERYTHING, Body, Reply, ScriptedServer, prompt_of
from tests.tiny import make_tokenizer

KEY = "sk-test-3c1f5a7e9b"


def request(text: str, max_tokens: int = 8, *stop: str) -> GenerateRequest:
    return GenerateRequest(Prompt(text), Sampling(max_tokens, stop))


def talk(text: str, prefill: str = "") -> GenerateRequest:
    return GenerateRequest(Prompt(f"user:\n{text}", True, (Message("user", text),), prefill), Sampling(8))


def collect(results: Iterator[tuple[int, Response]], found: dict[int, Response]) -> None:
    """Keeps what came before an error."""
    for index, response in results:
        found[index] = response


@contextmanager
def serving(
    script: Callable[[Body, int], Reply | None] = lambda body, attempt: None,
    features: frozenset[str] = EVERYTHING,
    key: str = "",
    **options: Any,
) -> Iterator[tuple[ScriptedServer, APIModel]]:
    with ScriptedServer(script, features, key) as server:
        options = {"served_model": "m", "backoff_s": (0.01, 0.05), "timeout_s": 5.0, **options}
        model = APIModel(server.url, **options)
        try:
            yield server, model
        finally:
            model.close()


def good(text: str, **more: Any) -> Body:
    choice = {"text": text, "finish_reason": "stop"} | more
    return {"choices": [choice], "usage": {"prompt_tokens": 2, "completion_tokens": 3}}


def said(message: Body, finish: str = "stop") -> Body:
    return {"choices": [{"message": message, "finish_reason": finish}]}


def test_every_request_is_answered_once_in_the_order_of_completion() -> None:
    def script(body: Body, attempt: int) -> Reply:
        return Reply(good(f"re: {body['prompt']}"), delay_s=0.6 if body["prompt"] == "a" else 0.0)

    with serving(script) as (server, model):
        found = list(model.generate([request(text) for text in "abcd"]))
        assert found[-1][0] == 0  # the slow one comes last
        assert dict(found) == {i: Response(f"re: {text}", "stop", 3) for i, text in enumerate("abcd")}
        assert dict(model.generate([request(text) for text in "abcd"], [2])) == {2: Response("re: c", "stop", 3)}
        body = server.asked()[-1]
        assert (body["model"], body["prompt"], body["max_tokens"], body["temperature"]) == ("m", "c", 8, 0.0)
        assert "seed" not in body
        assert model.counts()["tokens_new"] == 15  # five answers of three tokens


def test_what_is_sampled_is_said_in_full() -> None:
    sampling = Sampling(8, temperature=0.7, top_p=0.9, seed=2**64 - 1)
    with serving() as (server, model):
        list(model.generate([GenerateRequest(Prompt("a"), sampling)]))
        body = server.asked()[0]
        assert (body["temperature"], body["top_p"], body["seed"]) == (0.7, 0.9, 2**63 - 1)


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    with serving(lambda body, n: Reply(good("x"), delay_s=0.05), concurrency=4) as (server, model):
        assert len(list(model.generate([request(f"{i}") for i in range(40)]))) == 40
        assert 2 <= server.n_open_most <= 4
        assert model.client.n_in_flight_most <= 4


def test_a_slow_consumer_holds_the_engine_back() -> None:
    with serving(concurrency=4) as (server, model):
        results = model.generate([request(f"{i}") for i in range(40)])
        next(results)
        time.sleep(0.5)
        assert len(server.asked()) <= 6  # four ahead, and the one that was taken
        assert len(list(results)) == 39


def test_closing_the_iterator_cancels_the_rest() -> None:
    with serving(lambda body, n: Reply(good("x"), delay_s=0 if body["prompt"] == "0" else 30), concurrency=4) as (
        server,
        model,
    ):
        results = model.generate([request(f"{i}") for i in range(40)])
        assert next(results)[0] == 0
        start = time.monotonic()
        results.close()  # type: ignore[attr-defined]
        model.close()
        assert time.monotonic() - start < 5
        assert len(server.asked()) <= 6


def test_nothing_is_asked_before_the_first_next() -> None:
    with serving() as (server, model):
        results = model.generate([request("a")])
        assert server.requests == []
        next(results)
        assert len(server.asked()) == 1


@pytest.mark.parametrize(
    "first",
    [
        Reply({"error": "slow down"}, 429),
        Reply("<html>bad gateway</html>", 502),
        Reply("", 408),
        Reply("", 409),
        Reply(good("half"), cut=20),  # the connection closes in the middle of the body
        Reply(good("late"), delay_s=1.0),
    ],
    ids=["429", "502", "408", "409", "half a body", "hangs"],
)
def test_what_may_pass_is_tried_again(first: Reply) -> None:
    with serving(lambda body, attempt: first if attempt <= 2 else None, timeout_s=0.4) as (server, model):
        assert dict(model.generate([request("a")])) == {0: Response("re: a", "stop", 3)}
        assert len(server.asked()) == 3


def test_retry_after_wins_over_our_own_pause() -> None:
    first = Reply({"error": "slow down"}, 429, {"Retry-After": "0.7"})
    with serving(lambda body, attempt: first if attempt == 1 else None) as (_, model):
        list(model.generate([request("warm")], []))
        start = time.monotonic()
        assert dict(model.generate([request("a")]))[0].finish == "stop"
        assert time.monotonic() - start >= 0.7


def test_a_server_that_wants_us_to_wait_for_a_day_is_not_waited_for() -> None:
    with serving(lambda body, n: Reply("", 429, {"Retry-After": "86400"})) as (server, model):
        ((_, response),) = model.generate([request("a")])
        assert "answers 429" in response.why
        assert len(server.asked()) == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    assert _retry_after({"retry-after": "7"}) == 7
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 <= _retry_after({"retry-after": soon}) <= 30
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": format_datetime(datetime.min)}):
        assert _retry_after(nothing) == 0


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply("", 500), "answers 500: '' (3 tries)"),
        (Reply(good("late"), delay_s=1.0), "within 0.4 s (3 tries)"),
        (Reply(good("half"), cut=20), "no connection to"),
        (Reply("<html>" + "welcome " * 90), "answers no JSON: '<html>welcome"),
        (Reply("[1, 2]"), "answers no JSON object: '[1, 2]'"),
        (Reply({"choices": []}), "the answer has no choices"),
        (Reply({"choices": [{"finish_reason": "stop"}]}), "neither text nor message"),
        (Reply(good("cut", finish_reason=None)), "finish_reason is None, expected 'stop' or 'length'"),
        (Reply(good("", finish_reason="tool_calls")), "finish_reason is 'tool_calls'"),
        (Reply(good("", finish_reason="content_filter")), "refused: the server's content filter"),
        (Reply("moved", 302, {"Location": "http://127.0.0.1:9/v1"}), "answers 302"),
        (Reply("no", 422), "answers 422"),
        (Reply({"error": "too long"}, 400), "answers 400"),
    ],
)
def test_an_answer_that_is_none_fails_its_sample_and_says_why(reply: Reply, why: str) -> None:
    def script(body: Body, attempt: int) -> Reply | None:
        return reply if body["prompt"] == "bad" else None

    with serving(script, timeout_s=0.4, max_retries=2, concurrency=1) as (_, model):
        found = dict(model.generate([request("a"), request("bad"), request("c")]))
        assert (found[0].text, found[2].text) == ("re: a", "re: c")
        assert (found[1].finish, found[1].text) == ("error", "")
        assert why in found[1].why
        assert "\n" not in found[1].why
        assert len(found[1].why) < 400  # at most 200 characters of what came


def test_a_refusal_before_any_success_ends_the_run() -> None:
    with (
        serving(lambda body, n: Reply({"error": "temperature is not supported"}, 400)) as (server, model),
        pytest.raises(EngineError, match=r"answers 400: .*temperature is not supported.*does not take this request"),
    ):
        list(model.generate([request(f"{i}") for i in range(500)]))
    assert len(server.asked()) < 100


FORM = '{"type": "object"}'


@pytest.mark.parametrize("known", [True, False])
def test_a_schema_is_asked_for_until_the_server_refuses_it(known: bool) -> None:
    def script(body: Body, attempt: int) -> Reply | None:
        if "response_format" in body and not known:
            return Reply({"error": "unknown field response_format"}, 400)
        return Reply(said({"content": "{}" if "response_format" in body else "free"}))

    with serving(script, concurrency=1) as (server, model):
        asked = [dataclasses.replace(talk(f"{i}"), json_schema=FORM) for i in range(4)]
        found = dict(model.generate(asked))
        sent = [body.get("response_format") for body in server.asked()]
    assert [found[i].text for i in range(4)] == ["{}" if known else "free"] * 4
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    assert sent == ([form] * 4 if known else [form] + [None] * 4)


def test_a_refusal_that_is_not_about_the_schema_ends_the_run_all_the_same() -> None:
    with (
        serving(lambda body, n: Reply({"error": "temperature is not supported"}, 400)) as (_, model),
        pytest.raises(EngineError, match="temperature is not supported"),
    ):
        list(model.generate([dataclasses.replace(talk("a"), json_schema=FORM)]))


def test_a_prompt_that_is_too_long_fails_alone() -> None:
    def script(body: Body, attempt: int) -> Reply | None:
        too_long = Reply({"error": "This model's maximum context length is 512 tokens."}, 400)
        return too_long if len(body["prompt"]) > 100 else None

    with serving(script, concurrency=1) as (_, model):
        found = dict(model.generate([request("a" * 200)] * 30 + [request("b")]))
        assert found[30].text == "re: b"
        assert all("maximum context length is 512" in found[i].why for i in range(30))


def test_twenty_failures_in_a_row_stop_asking_and_lose_nothing() -> None:
    def script(body: Body, attempt: int) -> Reply | None:
        return None if body["prompt"] < "10" else Reply("down", 503)

    with serving(script, max_retries=0, concurrency=2) as (server, model):
        found: dict[int, Response] = {}
        with pytest.raises(Incomplete, match=r"20 requests in a row failed, the last one with: .*503.*nothing is lost"):
            collect(model.generate([request(f"{i:02}") for i in range(99)]), found)
        assert [found[i].text for i in range(10)] == [f"re: {i:02}" for i in range(10)]
        assert 29 <= len(server.asked()) <= 33


def test_a_server_that_is_not_there_is_named() -> None:
    model = APIModel("http://127.0.0.1:9/v1", served_model="m", backoff_s=(0.01, 0.02))
    with pytest.raises(EngineError, match=r"no connection to http://127\.0\.0\.1:9/v1/models: .*3 tries"):
        list(model.generate([request("a")]))
    model.close()


def test_token_and_dollar_limits_stop_before_they_are_crossed(tmp_path: Path) -> None:
    requests = [request(f"{i:02}", 40) for i in range(99)]
    # The reserve of a request is 40 new tokens and 9 for a prompt of two bytes; what an answer uses is 2 + 3.
    with serving(max_tokens_total=300, concurrency=8) as (_, model):
        found: dict[int, Response] = {}
        with pytest.raises(Incomplete, match=r"--max-tokens-total 300 would be crossed: \d+ tokens are used"):
            collect(model.generate(requests), found)
        assert len(found) == 51  # after 50 answers 250 + 49 still fit into 300, after 51 no longer
        assert model.budget.n_prompt + model.budget.n_new == 255
        assert all(response.finish == "stop" for response in found.values())
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {read: 1.0, written: 1000000.0, dated: 2026-08-01}\n")
    with serving(max_cost_usd=100.0, prices=prices, concurrency=1) as (_, model):
        with pytest.raises(Incomplete, match="--max-cost-usd 100"):
            list(model.generate(requests))
        assert 60 < model.budget.cost_usd < 64  # three dollars an answer, forty for a reserve
    with pytest.raises(UsageError, match=r"prices\.yaml: no price of 'other'"):
        APIModel("http://127.0.0.1:9/v1", served_model="other", prices=prices)


def test_a_server_that_does_not_count_has_used_what_was_reserved() -> None:
    with serving(lambda body, n: Reply({"choices": [{"text": "x", "finish_reason": "stop"}]})) as (_, model):
        list(model.generate([request("12345678", 40)]))
        assert (model.budget.n_prompt, model.budget.n_new) == (12, 40)


@pytest.mark.parametrize(
    ("message", "finish", "expected"),
    [
        ({"content": "yes", "reasoning_content": "hm"}, "stop", Response("yes", "stop", thinking="hm")),
        ({"content": "yes", "reasoning": "hm"}, "stop", Response("yes", "stop", thinking="hm")),
        ({"content": None, "reasoning_content": "hm"}, "length", Response("", "length", thinking="hm")),
        ({"content": "", "reasoning_content": "hm"}, "stop", Response("", "stop", thinking="hm")),
        ({"content": None, "refusal": "I cannot"}, "stop", Response("I cannot", "stop")),
        ({"content": "<think>a</think>\n b"}, "stop", Response("b", "stop", thinking="a")),
        ({"content": "<think>a b c"}, "length", Response("", "length", thinking="a b c")),
    ],
)
def test_what_was_thought_is_told_from_the_answer(message: Body, finish: str, expected: Response) -> None:
    with serving(lambda body, n: Reply(said(message, finish)), thinking=("<think>", "</think>")) as (server, model):
        assert dict(model.generate([talk("hi")])) == {0: expected}
        assert "stop" not in server.asked()[0]


def test_stops_beyond_what_the_server_takes_are_applied_here() -> None:
    stops = ("1", "2", "3", "4", "five")
    with serving(lambda body, n: Reply(good("four five six")), EVERYTHING - {"stops"}) as (server, model):
        assert dict(model.generate([request("a", 8, *stops)]))[0].text == "four "
        assert server.asked()[0]["stop"] == ["1", "2", "3", "4"]
    with serving() as (server, model):
        list(model.generate([request("a", 8, *stops)]))
        assert server.asked()[0]["stop"] == list(stops)


def test_conversations_and_prefills_go_to_the_chat_endpoint() -> None:
    with serving() as (server, model):
        text = model.render([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Su"}], False)
        assert text == "user:\nhi\n\nassistant:\nSu"
        assert (text.messages, text.prefill) == ((Message("user", "hi"),), "Su")  # type: ignore[attr-defined]
        list(model.generate([talk("hi", "Su")]))
        body = server.asked()[0]
        assert body["messages"][-1] == {"role": "assistant", "content": "Su"}
        assert body["continue_final_message"] is True
        assert model.environment()["generation_deviation"] == "none"
    with serving(features=EVERYTHING - {"go_on"}) as (server, model):
        list(model.generate([talk("hi", "Su")]))
        assert server.asked()[0]["messages"] == [{"role": "user", "content": "hi"}]
        assert model.environment()["generation_deviation"] == "prefill dropped"
        list(model.generate([talk("hi", "Su"), talk("ha")], [1]))
        assert model.environment()["generation_deviation"] == "prefill dropped"  # told of the whole benchmark
        list(model.generate([talk("ha")]))
        assert model.environment()["generation_deviation"] == "none"  # of this one


def test_what_the_server_lacks_is_refused_before_anything_is_spent() -> None:
    options = LoglikRequest(Prompt("a"), (" b",))
    cases: list[tuple[frozenset[str], Callable[[APIModel], Any], str]] = [
        (frozenset({"chat"}), lambda m: m.loglikelihood([options]), "/completions"),
        (frozenset({"chat"}), lambda m: m.generate([talk("b"), request("a")]), "/completions for plain prompts"),
        (frozenset({"completions"}), lambda m: m.loglikelihood([options]), "echo with logprobs"),
        (frozenset({"completions"}), lambda m: m.generate([talk("a")]), "chat completions"),
        (EVERYTHING, lambda m: m.generate([GenerateRequest(Prompt("a"), Sampling(1, top_k=5))]), "top_k and min_p"),
        (EVERYTHING, lambda m: m.generate([GenerateRequest(Prompt("a"), Sampling(1), True)]), "return_token_ids"),
        (EVERYTHING, lambda m: m.loglikelihood([LoglikRequest(Prompt("a", True), ("b",))]), "--tokenizer DIR"),
    ]
    for features, ask, lacks in cases:
        with serving(features=features) as (server, model):
            with pytest.raises(EngineError, match=f"cannot answer this benchmark: it lacks .*{lacks}.*it has: "):
                list(ask(model))
            assert server.asked() == []


def test_an_unknown_model_gets_the_near_miss() -> None:
    with (
        serving(features=frozenset(), served_model="gpt-4") as (_, model),
        pytest.raises(EngineError, match=r"answers 404.*--served-model; did you mean 'gpt-4o'\?"),
    ):
        list(model.generate([request("a")]))


def test_the_newer_name_of_the_token_limit_is_found() -> None:
    class Newer(ScriptedServer):
        def ordinary(self, path: str, body: Body, prompt: str) -> Reply:
            if "max_tokens" in body or "temperature" in body:
                return Reply({"error": "use max_completion_tokens"}, 400)
            return ScriptedServer.ordinary(self, path, body, prompt)

    with Newer(features=frozenset({"chat"})) as server:
        model = APIModel(server.url, served_model="m")
        assert dict(model.generate([talk("hi")]))[0].text == "re: hi"
        assert server.asked()[0]["max_completion_tokens"] == 8
        model.close()


def test_options_are_scored_from_the_echo_of_a_server_without_tokens() -> None:
    # The scripted model: a token is a word with the space before it, log-probability -length/4; best when short.
    requests = [LoglikRequest(Prompt("one two "), ("abc", "ab cde")), LoglikRequest(Prompt("one two"), ("x y",))]
    with serving() as (_, model):
        found = dict(model.loglikelihood(requests))
        assert found[0] == (LogLikelihood(-1.0, False, 1), LogLikelihood(-0.75 - 1.0, False, 2))
        # "one twox y": the token " twox" straddles the boundary and counts to the option.
        assert found[1] == (LogLikelihood(-5 / 4 - 2 / 4, False, 2),)
        assert model.counts()["straddled"] == 1
        short = dict(model.loglikelihood([LoglikRequest(Prompt("one"), (" ab", ""))]))[0]
        assert short == Failed("option '' has no tokens of its own")
        assert dict(model.loglikelihood([LoglikRequest(Prompt("one"), (" ab",))]))[0] == (
            LogLikelihood(-0.75, True, 1),
        )


def test_hostile_text_reaches_the_server_whole() -> None:
    text = "a\x00\ud800\u2028é🎉" + "x" * 100_000
    with serving(lambda body, n: Reply(good(body["prompt"][-5:]))) as (server, model):
        assert dict(model.generate([request(text)]))[0].text == "xxxxx"
        assert prompt_of(server.asked()[0]) == text


def test_the_key_is_nowhere_but_in_the_header(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    seen = []

    def script(body: Body, attempt: int) -> Reply | None:
        return Reply(f"you sent {KEY}") if body["prompt"] == "bad" else None

    with serving(script, key=KEY, api_key_env="SOME_KEY") as (_, model):
        found = dict(model.generate([request("a"), request("bad")]))
        assert found[0].text == "re: a"
        assert "[key]" in found[1].why
        seen += [found, model.fingerprint(), model.environment(), model.identity(), vars(model), vars(model.client)]
        seen += [repr(model.client._http), vars(model.client._http), model.canary()]
    with serving(key="another", api_key_env="SOME_KEY") as (_, model):
        with pytest.raises(
            EngineError, match=r"401: .*\[key\].*valid key into the environment variable 'SOME_KEY'"
        ) as e:
            list(model.generate([request("a")]))
        seen += [str(e.value), repr(e.value.__cause__), repr(e.value.__context__)]
    assert KEY not in repr(seen)
    assert KEY not in caplog.text


def test_addresses_and_keys_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(EngineError, match=r"'NO_SUCH_KEY' is not set.*--api-key-env NAME"):
        APIModel("https://api.example.com/v1", served_model="m", api_key_env="NO_SUCH_KEY")
    APIModel("http://127.0.0.1:9/v1", served_model="m", api_key_env="NO_SUCH_KEY")  # loopback needs none
    monkeypatch.setenv("BAD_KEY", "sk-ü")
    with pytest.raises(EngineError, match="'BAD_KEY' holds characters") as bad:
        APIModel("http://127.0.0.1:9/v1", served_model="m", api_key_env="BAD_KEY")
    assert "sk-" not in str(bad.value)
    for url in (f"https://user:{KEY}@api.example.com/v1", f"https://{KEY}@api.example.com", f"http://h/v1?key={KEY}"):
        with pytest.raises(UsageError) as refused:
            APIModel(url, served_model="m")
        assert KEY not in str(refused.value)
    for url in ("api.example.com/v1", "ftp://example.com", ""):
        with pytest.raises(UsageError, match="is no base URL; expected something like http"):
            APIModel(url, served_model="m")


@pytest.mark.parametrize(
    ("url", "variable", "sent"),
    [
        ("https://api.openai.com/v1", None, "OPENAI_API_KEY"),
        ("https://judge.example/v1", None, ""),  # nobody said that this server may have it
        ("https://openai.com.evil.example/v1", None, ""),
        ("http://judge.example/v1", None, ""),
        ("http://127.0.0.1:9/v1", None, ""),
        ("https://judge.example/v1", "OPENAI_API_KEY", "OPENAI_API_KEY"),
        ("http://localhost:9/v1", "SOME_KEY", "SOME_KEY"),
        ("https://api.openai.com/v1", "SOME_KEY", "SOME_KEY"),
    ],
)
def test_a_key_goes_only_to_the_server_it_was_named_for(
    url: str, variable: str | None, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "SOME_KEY"):
        monkeypatch.setenv(name, KEY)
    key = APIModel(url, served_model="m", api_key_env=variable).client.key
    headers: dict[str, str] = {}
    key.authorize(headers)
    assert (key.variable, headers) == (sent, {"Authorization": f"Bearer {KEY}"} if sent else {})


def test_a_key_leaves_this_machine_encrypted_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for url, variable in (("http://judge.example/v1", "SOME_KEY"), ("http://api.openai.com/v1", None)):
        with pytest.raises(UsageError, match=r"would travel to .* unencrypted; use https"):
            APIModel(url, served_model="m", api_key_env=variable)


def test_a_server_that_wants_a_key_says_which_option_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        serving(key=KEY) as (_, model),
        pytest.raises(EngineError, match=r"401: .*no key was sent.*--api-key-env NAME"),
    ):
        list(model.generate([request("a")]))


def test_a_prompt_for_a_server_is_the_same_on_any_day(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, 600, None)
    (tmp_path / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}: {{ messages[-1].content }}")
    model = APIModel("http://127.0.0.1:9/v1", served_model="m", tokenizer=tmp_path)
    assert model.render([{"role": "user", "content": "hi"}]) == "26 Jul 2024: hi"


def test_identity_tells_servers_models_and_revisions_apart() -> None:
    with serving() as (server, model):
        one = model.identity()
        assert (one["root"], one["served_model"], len(one["digest"])) == ("org/m", "m", 64)
        assert one == model.identity()
        others = [
            APIModel(server.url, served_model="gpt-4o"),
            APIModel(server.url, served_model="m", revision="2026-08"),
        ]
        assert len({one["digest"], *(other.identity()["digest"] for other in others)}) == 3
        assert server.asked() == []  # no tokens are spent on it
        for other in others:
            other.close()
        assert model.canary() == ("re: The capital of France is", "re: 1, 2, 3, 4,", "re: def main():")
        assert model.max_length == 512


def test_without_a_tokenizer_token_counts_are_refused() -> None:
    with serving() as (_, model), pytest.raises(EngineError, match="--tokenizer DIR"):
        model.encode("a", chat=False)
