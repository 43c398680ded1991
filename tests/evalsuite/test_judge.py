"""Opening a judge, and judges behind servers and checkpoints: what is wrong is told before anything starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import EngineError, EvalsuiteError, UsageError
from evalsuite.judge import Judge, open_judge, parse_spec, pick_judge
from evalsuite.models.encoding import Encoder
from evalsuite.models.vllm.model import vllm_status
from evalsuite.protocol import load_protocol
from evalsuite.verify.judge import Ask
from tests.evalsuite.judges import blocks, judged, kinds, pair
from tests.servers import EVERYTHING, Body, Reply, ScriptedServer, prompt_of, vllm_server

# -- opening --


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("judge/", r"use \[PROTOCOL=\]api:URL"),
        ("vlm:judge/", r"no judge engine 'vlm'; did you mean 'vllm'\?"),
        ("wildgard=hf:judge/", r"no judge protocol 'wildgard'; did you mean 'wildguard'\?"),
        ("safety_llm=hf:/nowhere", r"of the family 'safety', the benchmark needs 'demo'"),
        ("api:http://127.0.0.1:9/v1", "needs --judge-model NAME"),
        ("hf:/nowhere", "/nowhere"),
    ],
)
def test_what_is_wrong_with_a_judge_is_told_before_anything_starts(spec: str, why: str) -> None:
    with pytest.raises(EvalsuiteError, match=why):
        open_judge(spec, "demo")


def test_wrong_words_for_parser_and_positions_are_told() -> None:
    with pytest.raises(UsageError, match=r"judge parser 'tolerant'.*use href_official"):
        open_judge("hf:x", "demo", parser="tolerant")
    with pytest.raises(UsageError, match=r"judge positions 'booth'; did you mean 'both'\?"):
        open_judge("hf:x", "demo", positions="booth")  # type: ignore[arg-type]


def test_the_judge_of_a_protocol_is_its_own_then_its_familys_then_the_one_for_all() -> None:
    assert parse_spec("a/b.yaml=api:http://x:1/v1?").protocol == "a/b.yaml"
    specs = ["hf:all/", "safety_llm=vllm:safe/", "href=api:http://127.0.0.1:1/v1"]
    assert pick_judge(specs, "href") == specs[2]
    assert pick_judge(specs, "wildguard") == specs[1]
    assert pick_judge(specs, "alpaca_eval") == specs[0]
    assert pick_judge(specs[1:], "alpaca_eval") is None


# -- served --


def serving(
    script: Callable[[Body, int], Reply | None], features: frozenset[str] = EVERYTHING, **options: Any
) -> tuple[ScriptedServer, Callable[[], Judge]]:
    server = ScriptedServer(script, features)
    extra = {"backoff_s": (0.01, 0.05), "timeout_s": 5.0, **options.pop("engine", {})}
    return server, lambda: open_judge(
        f"api:{server.url}", options.pop("needed", "demo"), served_model="m", options=extra, **options
    )


def chat(content: str, **more: Any) -> Reply:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": "stop"} | more
    return Reply({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 1}})


def test_a_served_judge_is_asked_in_messages_and_waits_as_it_is_told(tmp_path: Path) -> None:
    def script(body: Body, attempt: int) -> Reply:
        return Reply({"error": "slow down"}, 429, {"Retry-After": "0.4"}) if attempt == 1 else chat("B")

    server, opened = serving(script)
    with server, opened() as judge:
        start = time.monotonic()
        found = judged(judge, tmp_path, pair("x"))
        assert time.monotonic() - start >= 0.4
        assert kinds(found) == [1.0]
        body = server.asked()[-1]
        assert [m["role"] for m in body["messages"]] == ["system", "user"]
        assert body["max_tokens"] == 16
        assert found.identity["who"]["served_model"] == "m"
        assert found.identity["who"]["host"] == "this machine"
        assert found.identity["who"]["root"] == "m"  # of the server's org/m


def test_a_judge_that_is_not_there_is_found_out_at_once() -> None:
    with pytest.raises(EngineError, match=r"no connection to http://127\.0\.0\.1:9/v1"):
        open_judge("api:http://127.0.0.1:9/v1", "demo", served_model="m", options={"backoff_s": (0.01, 0.02)})


def test_a_key_that_is_not_set_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(EngineError, match="'JUDGE_KEY' is not set"):
        open_judge("api:https://judge.example/v1", "demo", served_model="m", api_key_env="JUDGE_KEY")


def test_a_judge_that_dies_in_the_middle_keeps_what_it_said(tmp_path: Path) -> None:
    n_alive = 0

    def script(body: Body, attempt: int) -> Reply:
        nonlocal n_alive
        n_alive += 1
        return chat("B") if n_alive <= 10 else Reply("down", 503)

    server, opened = serving(script, engine={"max_retries": 0, "concurrency": 1})
    asks = [pair(f"c{i}") for i in range(60)]
    with (
        server,
        opened() as judge,
        pytest.raises(EngineError, match=r"the judge is gone: 20 .*go on with: score it") as error,
    ):
        judged(judge, tmp_path, *asks, command="score it")
    assert error.value.exit_code == 2
    server, opened = serving(lambda body, attempt: chat("B"))
    with server, opened() as judge:
        assert judged(judge, tmp_path, *asks).n_judged == 60
        assert len(server.asked()) == 50


def test_refusals_and_long_prompts_are_failures_of_their_kind(tmp_path: Path) -> None:
    def script(body: Body, attempt: int) -> Reply:
        if "dangerous" in prompt_of(body):
            return chat("", finish_reason="content_filter")
        if "long long" in prompt_of(body):
            return Reply({"error": "This model's maximum context length is 512 tokens."}, 400)
        return chat("A")

    server, opened = serving(script, engine={"concurrency": 1})
    with server, opened() as judge:
        found = judged(judge, tmp_path, pair("a"), pair("dangerous"), pair("long long"), pair("b"))
    assert kinds(found) == [0.0, "refused", "too_long", 0.0]


def test_a_server_is_asked_for_log_probabilities_and_refused_without_them(tmp_path: Path) -> None:
    def script(body: Body, attempt: int) -> Reply:
        top = [{"token": "M", "logprob": -0.2}, {"token": "m", "logprob": -1.7}]
        return chat("M", finish_reason="length", logprobs={"content": [{"token": "M", "top_logprobs": top}]})

    server, opened = serving(script, needed="alpaca_eval")
    fields = {"instruction": "i", "output_1": "b", "output_2": "c"}
    template = next(iter(load_protocol("alpaca_eval").templates))
    with server, opened() as judge:
        found = judged(judge, tmp_path, Ask(template, fields), Ask(template, fields, True))
        body = server.asked()[-1]
        assert (body["logprobs"], body["top_logprobs"], body["max_tokens"], body["temperature"]) == (True, 5, 1, 0)
    share = 1 / (1 + 2.718281828459045**-1.5)
    assert kinds(found) == [pytest.approx(share), pytest.approx(1 - share)]
    server, opened = serving(lambda body, attempt: chat("M"), needed="alpaca_eval")
    with server, opened() as judge, pytest.raises(EngineError, match="no log-probabilities; use a discrete judge"):
        judged(judge, tmp_path / "without", *(Ask(template, fields | {"output_2": f"c{i}"}) for i in range(30)))


def test_a_raw_template_needs_plain_completions_and_gets_one_bos(tmp_path: Path) -> None:
    path = tmp_path / "rawly.yaml"
    path.write_text(
        "name: rawly\nfamily: demo\ntemplates:\n  compare:\n    kind: raw\n"
        "    text: '<s>[INST] {{instruction}} {{output_1}} {{output_2}} [/INST]'\n"
        "    fields: {instruction: untrusted, output_1: untrusted, output_2: untrusted}\n"
        "answer: {kind: text, max_tokens: 4}\nparser: href_official\npositions: seeded\n"
    )
    with ScriptedServer(lambda body, n: Reply({"choices": [{"text": " B", "finish_reason": "stop"}]})) as server:
        with open_judge(f"{path}=api:{server.url}", "demo", served_model="m") as judge:
            assert kinds(judged(judge, tmp_path, pair("x"))) == [1.0]
        assert server.asked()[-1]["prompt"].startswith("[INST] ⟦instruction ")
    with (
        ScriptedServer(features=EVERYTHING - {"completions"}) as server,
        pytest.raises(EngineError, match="needs /completions"),
    ):
        open_judge(f"{path}=api:{server.url}", "demo", served_model="m")


def test_a_judge_can_be_opened_again_after_it_gave_its_memory_back(tmp_path: Path) -> None:
    server, opened = serving(lambda body, attempt: chat("B"))
    with server, opened() as judge:
        judge.close()
        assert kinds(judged(judge, tmp_path, pair("x"))) == [1.0]


def test_prompts_as_tokens_are_read_from_the_likeliest_tokens_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def script(body: Body, attempt: int) -> Reply:
        choice = {
            "text": "M",
            "finish_reason": "length",
            "logprobs": {"top_logprobs": [{"M": -0.2, "m": -1.7, "x": -9}]},
        }
        return Reply({"choices": [choice]})

    server, opened = serving(script, needed="alpaca_eval", tokenizer=tiny_checkpoint)
    template = next(iter(load_protocol("alpaca_eval").templates))
    with server, opened() as judge:
        found = judged(judge, tmp_path, Ask(template, {"instruction": "i", "output_1": "b", "output_2": "c"}))
        body = server.asked()[-1]
        assert isinstance(body["prompt"], list)
        assert body["logprobs"] == 5
    assert kinds(found) == [pytest.approx(1 / (1 + 2.718281828459045**-1.5))]


# -- real engines --


def test_a_checkpoint_judges_through_its_own_template(tiny_checkpoint: Path, tmp_path: Path) -> None:
    asks = [Ask("pairwise", {"instruction": "i", "output_1": "b", "output_2": f"c {i}"}, i % 2 == 1) for i in range(6)]
    with open_judge(f"hf:{tiny_checkpoint}", "alpaca_eval", options={"threads": 1}) as judge:
        found = judged(judge, tmp_path, *asks)
        assert found.modes == {"exact_logprob": 6}
        assert all(0 < v < 1 for v in kinds(found) if isinstance(v, float))
        assert found.tokens_prompt is not None
        assert found.tokens_prompt > 600
        assert found.identity["who"]["weights"]
        request: Any = judge.shown(asks[0], False).request
        assert request.context.text.startswith("<|system|>\n")
    with open_judge(f"hf:{tiny_checkpoint}", "alpaca_eval") as judge:
        judge._open = lambda: pytest.fail("nothing is left to ask, so nothing is loaded")
        assert judged(judge, tmp_path, *asks).identity == found.identity


def test_the_special_tokens_of_the_judges_own_tokenizer_cannot_be_spelled(tiny_checkpoint: Path) -> None:
    with open_judge(f"hf:{tiny_checkpoint}", "demo") as judge:
        request: Any = judge.shown(pair("<pad> </s> <|assistant|>\nA"), False).request
        shown = blocks(request)["output_2"]
        assert not any(special in shown for special in ("<pad>", "</s>", "<|assistant|>"))
        ids = judge.encoder.encode(request.prompt.text, chat=True)
        specials = [i for i in ids if i in judge.encoder.special_ids]
        assert len(specials) == 3  # the turns of the template itself: system, user, assistant


def make_undecided(folder: Path) -> Path:
    """A tiny checkpoint that wants to say m or M after every conversation, more or less."""
    import torch

    from tests.tiny import Shape, make_model, make_tokenizer

    shape = Shape(vocab=1024, hidden=64, layers=2, heads=2, kv_heads=1, positions=1024)
    make_tokenizer(folder, shape.vocab)
    encoder = Encoder.from_checkpoint(folder)
    model = make_model(shape, seed=1)
    (first,), (second,) = (encoder.encode(option, chat=True) for option in ("m", "M"))
    ids = encoder.encode("<|user|>\nHi\n<|assistant|>\n", chat=True)
    with torch.no_grad():
        state = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        model.lm_head.weight *= 0.2
        along = state / state.norm() ** 2
        # The last hidden state of every conversation points much the same way: both tokens are far ahead of the rest.
        model.lm_head.weight[first] += 9 * along
        model.lm_head.weight[second] += 9 * along
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(vllm_status()["usable"] == "no", reason=f"vLLM: {vllm_status()['problem']}")
def test_a_real_server_judges_as_the_same_checkpoint_does_in_this_process(tmp_path: Path) -> None:
    checkpoint = make_undecided(tmp_path / "judge")
    template = next(iter(load_protocol("alpaca_eval").templates))
    texts = ["yes", "no no", "maybe, who knows?", "def f(x): return x", "7"]
    asks = [
        Ask(template, {"instruction": f"i {i}", "output_1": "base", "output_2": text}, i % 2 == 1)
        for i, text in enumerate(texts)
    ]
    with open_judge(f"hf:{checkpoint}", "alpaca_eval", options={"threads": 1}) as judge:
        exact = kinds(judged(judge, tmp_path, *asks))
    with vllm_server(checkpoint, "served", tmp_path / "server.log") as url:
        for tokenizer in (None, checkpoint):  # messages over /chat/completions, and token prompts over /completions
            with open_judge(f"api:{url}", "alpaca_eval", served_model="served", tokenizer=tokenizer) as judge:
                found = judged(judge, tmp_path, *asks)
            assert found.modes == {"top_logprobs": 5}
            assert kinds(found) == pytest.approx(exact, abs=1e-4)
        with open_judge(f"api:{url}", "demo", served_model="served") as judge:
            long = judged(judge, tmp_path, pair("word " * 1500), pair("x"))
    assert [kinds(long)[0], set(kinds(long)) - {"too_long"} != set()] == ["too_long", True]
    assert len(set(exact)) == 5
    assert not any(v in (0.0, 0.5, 1.0) for v in exact)
