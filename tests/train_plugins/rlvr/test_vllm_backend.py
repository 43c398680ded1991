"""vLLM writes responses: its log-probabilities are transformers', for the weights it was given last. Real engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import EngineError, UsageError
from evalsuite.models.vllm import install
from evalsuite.models.vllm.install import vllm_status
from train_plugins.rlvr.canary import WeightsLost, check_canary
from train_plugins.rlvr.engines import GeneratorSpec
from train_plugins.rlvr.rollouts import Request, Sampling
from train_plugins.rlvr.serving import Served
from train_plugins.rlvr.vllm_backend import check_options, check_vllm
from train_plugins.tiny import EOS_ID, VOCABULARY, write_tiny

needs_vllm = pytest.mark.skipif(vllm_status()["usable"] == "no", reason=f"vLLM: {vllm_status()['problem']}")
real = [pytest.mark.vllm, pytest.mark.slow, needs_vllm]

SMALL = {"hidden": 64, "layers": 2, "heads": 2, "intermediate": 128, "context": 320}
TEMPERATURE = 0.7
PROMPTS = ((3, 20, 21, 22, 4), (3, 40, 41, 4), tuple(range(5, 100)) * 2, (3, 20, 21, 22, 4, 90))
REQUEST = Request(seed=5, iteration=3, numbers=(8, 1, 4, 2), prompts=PROMPTS, samples=8)
CANARY = tuple(range(6, 102)) + tuple(range(6, 102))  # more than a block of vLLM's cache (128 tokens on a CPU)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two sets of weights, drawn wide, so that what the model says is far from uniform."""
    folder = tmp_path_factory.mktemp("models")
    found = {name: write_tiny(folder / name, seed, tied=False, **SMALL) for name, seed in (("a", 1), ("b", 2))}
    for path in found.values():
        change(path, lambda name, tensor: tensor * (3.0 if tensor.ndim == 2 else 1.0))
    return found


@pytest.fixture(scope="module")
def served(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    spec = GeneratorSpec(
        kind="vllm",
        start=models["a"],
        sampling=Sampling(12, EOS_ID, TEMPERATURE),
        dtype="float32",
        options={"max_model_len": 320},
        threads=1,
    )
    with Served(spec, tmp_path_factory.mktemp("log") / "generator.log", start_s=540) as served:
        yield served


def change(folder: Path, how: Callable[[str, Any], Any]) -> None:
    """Rewrites the tensors of a model folder."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({name: how(name, tensor) for name, tensor in tensors.items()}, folder / "model.safetensors")


def copied(source: Path) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            shutil.copy(source / name, folder / name)

    return write


def plain(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def logprobs_of(model: Any, prompt: Sequence[int], ids: Sequence[int], temperature: float = 1.0) -> list[float]:
    """The learner's view: one forward over prompt and response."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].float() / temperature
    return [float(row[token]) for row, token in zip(logits.log_softmax(-1), ids, strict=True)]


def load(served: Served, folder: Path, version: int) -> None:
    served.load(served.put(version, copied(folder)), version)


class TestEngine:
    pytestmark = real

    def test_sampled_log_probabilities_are_those_of_transformers_at_the_temperature(
        self, served: Served, models: dict[str, Path]
    ) -> None:
        load(served, models["a"], 1)
        model = plain(models["a"])
        responses = served.generate(REQUEST)
        assert len(responses) == 4 * 8
        asked = [prompt for prompt in PROMPTS for _ in range(8)]
        for prompt, response in zip(asked, responses, strict=True):
            expected = logprobs_of(model, prompt, response.ids, TEMPERATURE)
            assert response.logprobs == pytest.approx(expected, abs=1e-3)
            assert response.finished == (response.ids[-1] == EOS_ID)
            assert EOS_ID not in response.ids[:-1]
            assert response.finished or len(response.ids) == 12
        assert len({response.ids for response in responses}) > 16  # samples of one prompt differ

    def test_the_same_request_gives_the_same_responses_whatever_came_between(self, served: Served) -> None:
        first = served.generate(REQUEST)
        served.generate(Request(6, 3, (8,), (PROMPTS[0],), 3))
        assert served.generate(REQUEST) == first
        assert served.generate(Request(6, 3, *(REQUEST.numbers, REQUEST.prompts), 8)) != first  # another seed

    def test_a_sample_hangs_on_its_row_and_not_on_its_neighbours(self, served: Served) -> None:
        alone = Request(5, 3, (4,), (PROMPTS[2],), 8)
        assert [r.ids for r in served.generate(alone)] == [r.ids for r in served.generate(REQUEST)[16:24]]

    def test_an_end_of_text_is_part_of_the_response(
        self, served: Served, models: dict[str, Path], tmp_path: Path
    ) -> None:
        shutil.copytree(models["a"], tmp_path / "ending")
        change(tmp_path / "ending", ends_often)
        load(served, tmp_path / "ending", 2)
        responses = served.generate(REQUEST)
        ended = [response for response in responses if response.finished]
        assert ended
        model = plain(tmp_path / "ending")
        asked = [prompt for prompt in PROMPTS for _ in range(8)]
        for prompt, response in zip(asked, responses, strict=True):
            assert response.finished == (response.ids[-1] == EOS_ID)
            assert response.logprobs == pytest.approx(logprobs_of(model, prompt, response.ids, TEMPERATURE), abs=1e-3)
        assert len(served.greedy((3, 20, 4), 40).ids) == 40  # ends at nothing

    def test_loaded_weights_are_exact_forth_and_back_and_the_cache_forgets(
        self, served: Served, models: dict[str, Path]
    ) -> None:
        both = {name: plain(folder) for name, folder in models.items()}
        for version, name in enumerate("abba", start=10):
            load(served, models[name], version)
            worst = check_canary(served, lambda p, ids, name=name: logprobs_of(both[name], p, ids), CANARY, 8, 1e-3)
            assert worst < 1e-4
            other = both["b" if name == "a" else "a"]
            with pytest.raises(WeightsLost):
                check_canary(served, lambda p, ids, other=other: logprobs_of(other, p, ids), CANARY, 8, 1e-3)

    @pytest.mark.parametrize(
        "tensor",
        ["lm_head.weight", "model.layers.1.self_attn.v_proj.weight", "model.layers.0.mlp.down_proj.weight",
         "model.norm.weight"],
    )  # fmt: skip
    def test_the_canary_catches_one_corrupted_tensor(
        self, tensor: str, served: Served, models: dict[str, Path], tmp_path: Path
    ) -> None:
        model = plain(models["a"])
        shutil.copytree(models["a"], tmp_path / "bad")
        change(tmp_path / "bad", lambda name, value: value * 1.05 if name == tensor else value)
        load(served, tmp_path / "bad", 20)
        with pytest.raises(WeightsLost, match="weights did not arrive"):
            check_canary(served, lambda p, ids: logprobs_of(model, p, ids), CANARY, 8, 1e-3)
        load(served, models["a"], 21)
        check_canary(served, lambda p, ids: logprobs_of(model, p, ids), CANARY, 8, 1e-3)

    def test_the_canary_catches_a_tensor_that_was_not_sent(
        self, served: Served, models: dict[str, Path], tmp_path: Path
    ) -> None:
        from safetensors.torch import load_file, save_file

        load(served, models["a"], 30)
        shutil.copytree(models["b"], tmp_path / "partial")
        tensors = load_file(tmp_path / "partial" / "model.safetensors")
        del tensors["model.layers.1.mlp.gate_proj.weight"]
        save_file(tensors, tmp_path / "partial" / "model.safetensors")
        load(served, tmp_path / "partial", 31)
        model = plain(models["b"])
        with pytest.raises(WeightsLost):
            check_canary(served, lambda p, ids: logprobs_of(model, p, ids), CANARY, 8, 1e-3)

    def test_a_request_ahead_carries_its_version(self, served: Served, models: dict[str, Path]) -> None:
        served.request(REQUEST, 40, served.put(40, copied(models["b"])))
        version, responses, seconds = served.receive()
        assert version == 40
        assert responses[0].logprobs == pytest.approx(
            logprobs_of(plain(models["b"]), PROMPTS[0], responses[0].ids, TEMPERATURE), abs=1e-3
        )
        assert seconds["sync_s"] > 0

    def test_a_prompt_that_leaves_no_room_is_refused(self, served: Served) -> None:
        with pytest.raises(UsageError, match=r"a prompt of 309 tokens and a response of 12 do not fit .* 320"):
            served.generate(Request(1, 1, (0,), ((5,) * 309,), 1))


def ends_often(name: str, tensor: Any) -> Any:
    """The end of text becomes a likely token: its row of the output layer grows."""
    if name == "lm_head.weight":
        tensor = tensor.clone()
        tensor[EOS_ID] = tensor[EOS_ID] * 2.5
    return tensor


@pytest.mark.vllm
@pytest.mark.slow
@needs_vllm
def test_no_end_of_text_among_the_first_tokens_and_the_log_probabilities_know_it(
    models: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(models["a"], tmp_path / "ending")
    change(tmp_path / "ending", ends_often)
    spec = GeneratorSpec(
        kind="vllm", start=tmp_path / "ending", sampling=Sampling(12, EOS_ID, 1.0, 5), dtype="float32", threads=1
    )
    model = plain(tmp_path / "ending")
    with Served(spec, tmp_path / "log", start_s=540) as served:
        responses = served.generate(REQUEST)
    assert any(response.finished for response in responses)
    for prompt, response in zip([p for p in PROMPTS for _ in range(8)], responses, strict=True):
        assert EOS_ID not in response.ids[:5]
        # Over the whole vocabulary, as the learner has it, although the end was not to be drawn.
        assert response.logprobs == pytest.approx(logprobs_of(model, prompt, response.ids), abs=1e-3)


class TestRefusals:
    def test_options_that_vllm_does_not_have_all_at_once(self) -> None:
        options = {"gpu_memory_utilisation": 0.5, "seed": 3, "kv_gib": 2, "max_model_len": 64}
        with pytest.raises(UsageError) as caught:
            check_options(options, frozenset({"gpu_memory_utilization", "max_model_len", "seed"}))
        assert str(caught.value) == (
            "generator_options: 'seed' is set by the run itself; vLLM has no 'gpu_memory_utilisation'; did you mean "
            "'gpu_memory_utilization'?"
        )

    def test_tied_embeddings_on_a_cpu(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        on_cpu(monkeypatch)
        folder = write_tiny(tmp_path / "tied", tied=True, **SMALL)
        with pytest.raises(UsageError, match=r"tie_word_embeddings: true\); set generator: hf"):
            check_vllm(folder)
        with pytest.raises(UsageError, match="generator: hf"):
            Served(GeneratorSpec(kind="vllm", start=folder, sampling=Sampling(4, EOS_ID)), tmp_path / "log")
        # A family whose default is true does not say it in its configuration; the weights do.
        config = json.loads((folder / "config.json").read_text())
        del config["tie_word_embeddings"]
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(UsageError, match="generator: hf"):
            check_vllm(folder)
        assert check_vllm(write_tiny(tmp_path / "untied", tied=False, **SMALL)) == "shared_memory"

    @pytest.mark.parametrize(("transfer", "said"), [("ipc", "between GPUs"), ("nccl", "between GPUs"), ("tcp", "use")])
    def test_transfers_between_gpus_on_a_cpu(
        self, transfer: str, said: str, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_cpu(monkeypatch)
        with pytest.raises(UsageError, match=f"weight_transfer:? '?{transfer}.*{said}"):
            check_vllm(models["a"], transfer)

    def test_transfers_between_gpus_and_tied_embeddings_pass_on_a_gpu(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_cpu(monkeypatch)
        monkeypatch.setattr(install, "is_cpu_build", lambda: False)
        folder = write_tiny(tmp_path / "tied", tied=True, **SMALL)
        assert [check_vllm(folder, how) for how in ("auto", "ipc", "nccl")] == ["shared_memory", "ipc", "nccl"]

    def test_a_missing_vllm_is_told_with_the_command(
        self, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(install, "find_spec", lambda name: None)
        with pytest.raises(EngineError, match=r"vllm is not installed; .*pip install"):
            check_vllm(models["a"])


def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where the build for CPUs works."""
    monkeypatch.setattr(install, "require_vllm", lambda: None)
    monkeypatch.setattr(install, "is_cpu_build", lambda: True)


def test_the_tiny_model_has_room_for_the_prompts() -> None:
    assert max(max(prompt) for prompt in (*PROMPTS, CANARY)) < VOCABULARY
    assert len(CANARY) + 40 <= SMALL["context"]
