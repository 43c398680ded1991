"""The engine `api` against a real vLLM server: the same texts and log-likelihoods as the engines in this repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from evalsuite.models.api.model import APIModel
from evalsuite.models.encoding import EncodedDoc, Encoder, encode_documents
from evalsuite.models.vllm.model import VLLMModel
from evalsuite.types import Failed, GenerateRequest, LoglikRequest, Prompt, Sampling
from tests.evalsuite.models.vllm.test_model import SHAPE, documents, needs_vllm, plain_totals
from tests.servers import vllm_server
from tests.tiny import make_checkpoint, words

pytestmark = needs_vllm


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("served") / "ckpt", SHAPE)


@pytest.fixture(scope="module")
def url(checkpoint: Path) -> Iterator[str]:
    with vllm_server(checkpoint, "served", checkpoint.parent / "server.log") as url:
        yield url


@pytest.fixture(scope="module")
def model(url: str, checkpoint: Path) -> Iterator[APIModel]:
    with closing(APIModel(url, served_model="served", tokenizer=checkpoint)) as model:
        yield model


@pytest.fixture(scope="module")
def bare(url: str) -> Iterator[APIModel]:
    """Without a tokenizer: text goes over the wire, and the server's template is used."""
    with closing(APIModel(url, served_model="served")) as model:
        yield model


def check(found: dict[int, Any], requests: list[LoglikRequest], encoder: Encoder, plain: Any) -> int:
    n = 0
    for index, doc in enumerate(encode_documents(encoder, requests)):
        assert isinstance(doc, EncodedDoc)
        assert not isinstance(found[index], Failed)
        for ours, (total, greedy), option in zip(found[index], plain_totals(plain, doc), doc.option_ids, strict=True):
            assert abs(ours.total - total) <= 1e-4
            assert (ours.greedy, ours.n_tokens) == (greedy, len(option))
            n += 1
    return n


def test_log_likelihoods_equal_plain_transformers(model: APIModel, bare: APIModel, checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32").eval()
    encoder = Encoder.from_checkpoint(checkpoint)
    requests = documents(encoder)
    assert model.features.logprob_token_ids
    assert check(dict(model.loglikelihood(requests)), requests, encoder, plain) >= 200
    # The same by echo: what every server has that is not vLLM.
    texts = [r for r in requests if r.context.text and not r.context.chat and len(r.options) < 100]
    assert check(dict(bare.loglikelihood(texts)), texts, encoder, plain) >= 80


def test_texts_equal_those_of_the_offline_engine(model: APIModel, bare: APIModel, checkpoint: Path) -> None:
    draw, library = words(9)
    stops = [(), ("\n",), (" ", "e"), ("ion", "the", "a", "b", "c", "zz"), ("</s>",)]
    requests = []
    for i in range(40):
        text = " ".join(draw.choice(library) for _ in range(draw.randrange(2, 60)))
        sampling = Sampling(draw.choice([1, 8, 40]), stops[i % len(stops)])
        turns = [{"role": "user", "content": text}]
        if i % 3 == 2:
            turns.append({"role": "assistant", "content": "Sure, the"})
        rendered: Any = model.render(turns, i % 3 != 2)
        prompt = Prompt(rendered, True, rendered.messages, rendered.prefill) if i % 2 else Prompt(text)
        requests.append(GenerateRequest(prompt, sampling, want_tokens=i % 7 == 0))
    sampled = GenerateRequest(Prompt("import os"), Sampling(24, temperature=0.9, top_p=0.95, seed=2**64 - 7))
    requests.append(sampled)
    with closing(VLLMModel(checkpoint, kv_gib=1)) as offline:
        theirs = dict(offline.generate(requests))
    ours = dict(model.generate(requests))
    assert {i for i in ours if ours[i].text != theirs[i].text or ours[i].finish != theirs[i].finish} == set()
    assert [ours[i].tokens for i in range(40)] == [theirs[i].tokens for i in range(40)]
    # Without a tokenizer the server renders the conversation with the same template file. Its decoder holds back a
    # character that lacks bytes at the very end, ours shows it as U+FFFD.
    plain = [i for i in range(40) if not requests[i].want_tokens]
    served = dict(bare.generate(requests, plain))
    for i in plain:
        assert (i, served[i].text.rstrip("\ufffd"), served[i].finish) == (
            i,
            theirs[i].text.rstrip("\ufffd"),
            theirs[i].finish,
        )
    assert any(requests[i].prompt.prefill for i in plain)
    assert bare.environment()["generation_deviation"] == "none"


def test_a_prompt_beyond_the_window_fails_with_the_reason(model: APIModel, bare: APIModel) -> None:
    long = GenerateRequest(Prompt("word " * 900), Sampling(4))
    ((_, local),) = model.generate([long])
    assert "the model's window 640: no room for a response" in local.why
    found = dict(bare.generate([long, GenerateRequest(Prompt("a"), Sampling(4))]))
    assert "answers 400" in found[0].why
    assert found[1].finish == "length"


def test_the_server_is_known_by_what_it_says(model: APIModel, checkpoint: Path) -> None:
    features = model.features
    assert (features.vllm, features.prefill, features.token_ids, features.max_model_len) == (True, True, True, 640)
    assert model.identity()["root"] == str(checkpoint)
    assert model.max_length == 640
