"""The engine `hf` on tiny real checkpoints: lm-eval's numbers, resume bit for bit, and one clear line for bad input."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from evalsuite.errors import CheckpointError, EngineCrash, EngineError, UsageError
from evalsuite.models.encoding import EncodedDoc, encode_documents
from evalsuite.models.hf import score as hf_score
from evalsuite.models.hf.cache import TreeMasks
from evalsuite.models.hf.model import HFModel
from evalsuite.models.hf.score import LikelihoodScorer
from evalsuite.types import Failed, GenerateRequest, Likelihoods, LogLikelihood, LoglikRequest, Prompt, Sampling
from tests.tiny import SMALL, make_checkpoint, make_model, make_tokenizer, words


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> Iterator[HFModel]:
    model = HFModel(tiny_checkpoint, threads=1)
    yield model
    model.close()


def few_shot(n: int, shots: int = 3, seed: int = 7, chat: bool = False) -> list[LoglikRequest]:
    """`n` documents behind common shots; options of 1 to 5 words, and letters for every third document."""
    draw, pool = words(seed)

    def text(n_words: int) -> str:
        return " ".join(draw.choice(pool) for _ in range(n_words))

    prefix = "".join(f"Question: {text(12)}\nAnswer: {text(2)}\n\n" for _ in range(shots))
    found = []
    for i in range(n):
        options = ("A", "B", "C", "D") if i % 3 == 0 else tuple(text(draw.choice([1, 2, 3, 5])) for _ in range(4))
        context = f"{prefix}Question: {text(9)}\nAnswer:"
        if chat:
            found.append(LoglikRequest(Prompt(f"<|user|>\n{context}\n<|assistant|>\n", chat=True), options))
        else:
            found.append(LoglikRequest(Prompt(context), tuple(f" {option}" for option in options)))
    return found


def plainly(model: HFModel, requests: Sequence[LoglikRequest]) -> dict[int, Likelihoods]:
    plain = LikelihoodScorer(model.model, model.max_length, kv_budget=0, choice=hf_score.Choice("plain", None, {}))
    return dict(plain.score(plain.prepare(encode_documents(model.encoder, requests)), range(len(requests))))


def assert_equal(ours: dict[int, Likelihoods], plain: dict[int, Likelihoods]) -> None:
    assert sorted(ours) == sorted(plain)
    for index, expected in plain.items():
        found = ours[index]
        assert isinstance(found, tuple)
        assert isinstance(expected, tuple)
        assert [(o.greedy, o.n_tokens) for o in found] == [(o.greedy, o.n_tokens) for o in expected]
        assert [o.total for o in found] == pytest.approx([o.total for o in expected], abs=1e-4)


@pytest.mark.parametrize("chat", [False, True])
def test_few_shot_options_equal_the_plain_computation(model: HFModel, chat: bool) -> None:
    requests = few_shot(30, chat=chat)
    assert_equal(dict(model.loglikelihood(requests)), plainly(model, requests))
    assert model.environment()["scoring"] == "tree"


def test_numbers_are_those_of_lm_eval(model: HFModel, tiny_checkpoint: Path) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    requests = [*few_shot(20), *few_shot(4, shots=0), LoglikRequest(Prompt(""), (" to be", " or", " not to be"))]
    lm = HFLM(
        pretrained=model.model, tokenizer=AutoTokenizer.from_pretrained(tiny_checkpoint), batch_size=4, device="cpu"
    )
    pairs = [(r.context.text, option) for r in requests for option in r.options]
    theirs = lm.loglikelihood([Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)])
    found = dict(model.loglikelihood(requests))
    ours = [option for index in range(len(requests)) for option in _options(found[index])]
    assert [o.total for o in ours] == pytest.approx([total for total, _ in theirs], abs=1e-4)
    assert [o.greedy for o in ours] == [greedy for _, greedy in theirs]


@pytest.mark.parametrize("seed", range(4))
def test_a_resumed_run_gives_the_same_bits(model: HFModel, tiny_checkpoint: Path, seed: int) -> None:
    requests = few_shot(40, seed=seed)
    model.forget()
    whole = dict(model.loglikelihood(requests))
    draw = random.Random(seed)
    first = set(draw.sample(range(40), draw.randint(1, 39)))
    resumed = HFModel(tiny_checkpoint, threads=1)  # a new process would start like this
    part = dict(resumed.loglikelihood(requests, sorted(set(range(40)) - first)))
    again = dict(resumed.loglikelihood(requests, first))
    assert sorted(part) == sorted(set(range(40)) - first)
    assert {**part, **again} == whole


def test_a_row_that_never_fits_into_memory_ends_the_engine_with_advice(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HFModel(tiny_checkpoint, threads=1)
    assert model.scorer.scorer is not None

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(model.scorer.scorer.forward, "batch", full)
    with pytest.raises(EngineCrash, match="single row in a forward; use a smaller --kv-budget"):
        list(model.loglikelihood(few_shot(6)))


def test_permuted_requests_give_the_same_numbers(model: HFModel) -> None:
    requests = few_shot(25)
    order = random.Random(3).sample(range(25), 25)
    one, two = dict(model.loglikelihood(requests)), dict(model.loglikelihood([requests[i] for i in order]))
    for place, index in enumerate(order):
        for a, b in zip(_options(one[index]), _options(two[place]), strict=True):
            assert a.total == pytest.approx(b.total, abs=1e-5)
            assert a.greedy == b.greedy


def test_nothing_is_computed_before_the_first_result_is_asked_for_or_after_the_last(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HFModel(tiny_checkpoint, threads=1)
    requests = few_shot(200, shots=0)
    calls = 0
    forward = type(model.model.model).forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(type(model.model.model), "forward", counted)
    stream = model.loglikelihood(requests)
    assert calls == 0
    next(stream)
    first = calls
    assert first > 0
    stream.close()  # type: ignore[attr-defined]
    assert calls == first
    assert list(model.loglikelihood(requests, [])) == []
    assert calls == first
    list(model.loglikelihood(requests))
    assert calls > first + 3


def test_a_document_longer_than_the_window_fails_with_both_lengths(tiny_checkpoint: Path) -> None:
    model = HFModel(tiny_checkpoint, max_length=40, threads=1)
    short, long = LoglikRequest(Prompt("one two"), (" a", " b")), few_shot(1)[0]
    found = dict(model.loglikelihood([long, short]))
    assert isinstance(found[0], Failed)
    n = len(model.encode(long.context.text, chat=False))
    assert f"context of {n} tokens" in found[0].why
    assert "window is 40" in found[0].why
    assert len(_options(found[1])) == 2


def test_left_truncation_gives_what_lm_eval_gives(tiny_checkpoint: Path) -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    model = HFModel(tiny_checkpoint, max_length=60, long_prompts="left", threads=1)
    requests = few_shot(6)
    lm = HFLM(
        pretrained=model.model,
        tokenizer=AutoTokenizer.from_pretrained(tiny_checkpoint),
        batch_size=4,
        device="cpu",
        max_length=60,
    )
    pairs = [(r.context.text, option) for r in requests for option in r.options]
    theirs = lm.loglikelihood([Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)])
    found = dict(model.loglikelihood(requests))
    ours = [option.total for index in range(6) for option in _options(found[index])]
    assert ours == pytest.approx([total for total, _ in theirs], abs=1e-4)


def test_an_option_without_tokens_is_a_failed_sample_and_the_others_are_scored(model: HFModel) -> None:
    requests = [LoglikRequest(Prompt("one two"), (" a", "")), *few_shot(3)]
    found = dict(model.loglikelihood(requests))
    assert isinstance(found[0], Failed)
    assert "option 2" in found[0].why
    assert sorted(found) == [0, 1, 2, 3]


def test_a_token_outside_the_vocabulary_is_a_failed_sample(model: HFModel) -> None:
    work = model.scorer.prepare([EncodedDoc((5, 6), ((SMALL.vocab,), (7,)))])
    assert dict(model.scorer.score(work, [0])) == {
        0: Failed(f"token {SMALL.vocab} is outside the model's vocabulary of {SMALL.vocab}")
    }


def test_nan_weights_fail_two_documents_and_stop_at_the_third(tmp_path: Path) -> None:
    broken = make_model()
    with torch.no_grad():
        broken.model.norm.weight[3] = math.nan
    broken.save_pretrained(make_tokenizer(tmp_path))
    model = HFModel(tmp_path, threads=1)
    stream = model.loglikelihood(few_shot(6))
    assert [type(next(stream)[1]) for _ in range(2)] == [Failed, Failed]
    with pytest.raises(EngineCrash, match="not a number, three documents in a row"):
        next(stream)


def test_the_sentinel_switches_to_plain_when_long_documents_come_out_wrong(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HFModel(tiny_checkpoint, threads=1)
    assert model.scorer.choice.level == "tree"
    build = TreeMasks.build

    def forgets_far_keys(self: TreeMasks, ends: torch.Tensor, positions: torch.Tensor, n_prefix: int) -> Any:
        mask = build(self, ends, positions, n_prefix)
        mask[..., : max(0, n_prefix - 40)] = False  # type: ignore[index]
        return mask

    monkeypatch.setattr(TreeMasks, "build", forgets_far_keys)
    requests = few_shot(12)
    found = dict(model.loglikelihood(requests))
    assert_equal(found, plainly(model, requests))
    assert model.environment()["scoring"] == "plain"
    assert "scored plainly" in model.environment()["scoring_notes"]


def test_a_wave_that_leaves_out_the_sentinel_yields_only_what_was_asked(model: HFModel) -> None:
    requests = few_shot(12)
    model.forget()
    whole = dict(model.loglikelihood(requests))
    model.forget()
    longest = max(
        range(12), key=lambda i: len(model.encode(requests[i].context.text + requests[i].options[0], chat=False))
    )
    rest = [i for i in range(12) if i != longest]
    assert dict(model.loglikelihood(requests, rest)) == {i: whole[i] for i in rest}


def test_deterministic_scoring_shares_nothing_and_agrees(model: HFModel, tiny_checkpoint: Path) -> None:
    requests = few_shot(6)
    try:
        strict = HFModel(tiny_checkpoint, deterministic=True, threads=1)
        found = dict(strict.loglikelihood(requests))
    finally:
        torch.use_deterministic_algorithms(False)
    assert strict.environment()["scoring"] == "plain"
    assert strict.fingerprint()["deterministic"] == "true"
    assert_equal(found, dict(model.loglikelihood(requests)))


def test_bfloat16_runs_on_the_tree_and_stays_close_to_plain(tmp_path: Path) -> None:
    model = HFModel(make_checkpoint(tmp_path), dtype="bfloat16", threads=1)
    assert model.fingerprint()["dtype"] == "bfloat16"
    requests = few_shot(9)
    found, plain = dict(model.loglikelihood(requests)), plainly(model, requests)
    assert model.environment()["scoring"] == "tree"
    for index in range(9):
        for a, b in zip(_options(found[index]), _options(plain[index]), strict=True):
            assert a.total == pytest.approx(b.total, abs=0.05 * a.n_tokens)


def test_generating_and_scoring_work_on_one_model_in_turn(model: HFModel) -> None:
    asked = [GenerateRequest(Prompt(f"number {i} is"), Sampling(max_tokens=4)) for i in range(3)]
    scored, before = few_shot(5), dict(model.generate(asked))
    first = dict(model.loglikelihood(scored))
    assert dict(model.generate(asked, [1])) == {1: before[1]}
    model.forget()
    assert dict(model.loglikelihood(scored)) == first
    assert {response.n_tokens for response in before.values()} == {4}
    assert model.environment()["generation"]


def test_the_fingerprint_names_what_numbers_depend_on(model: HFModel) -> None:
    assert model.fingerprint() == {
        "engine": "hf",
        "dtype": "float32",
        "quantization": "none",
        "deterministic": "false",
        "long_prompts": "fail",
        "max_length": "2048",
        "chat_template": model.fingerprint()["chat_template"],
    }
    assert len(model.fingerprint()["chat_template"]) == 64


def test_only_rendering_needs_a_chat_template(tmp_path: Path) -> None:
    model = HFModel(make_checkpoint(tmp_path, chat_template=None), threads=1)
    assert len(dict(model.loglikelihood(few_shot(2)))) == 2
    assert model.fingerprint()["chat_template"] == "none"
    with pytest.raises(CheckpointError, match="template"):
        model.render([{"role": "user", "content": "hello"}])


def test_rendering_uses_the_checkpoints_template(model: HFModel) -> None:
    assert model.render([{"role": "user", "content": "hi"}]) == "<|user|>\nhi\n<|assistant|>\n"


def test_a_missing_weights_file_is_one_line(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HFModel(folder, threads=1)


def test_pickled_weights_are_not_loaded_unless_allowed(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    state = HFModel(folder, threads=1).model.state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HFModel(folder, threads=1)
    assert HFModel(folder, threads=1, allow_pickle=True).fingerprint()["dtype"] == "float32"


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(CheckpointError):
        HFModel(folder, threads=1)
    assert not (tmp_path / "ran").exists()


def test_close_frees_the_model_and_may_be_called_twice(tiny_checkpoint: Path) -> None:
    model = HFModel(tiny_checkpoint, threads=1)
    list(model.loglikelihood(few_shot(2)))
    model.close()
    model.close()
    with pytest.raises(EngineError, match="is closed"):
        next(iter(model.loglikelihood(few_shot(2))))


def test_unknown_dtypes_and_devices_are_named(tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'float16'"):
        HFModel(tiny_checkpoint, dtype="floa16")
    with pytest.raises(UsageError, match="no device named 'gpuu'"):
        HFModel(tiny_checkpoint, device="gpuu")


def _options(found: Likelihoods) -> tuple[LogLikelihood, ...]:
    assert isinstance(found, tuple), found
    return found
