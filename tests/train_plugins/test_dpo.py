"""DPO on real TRL with a tiny model: its loss is the paper's and TRL's, in every layout and however a step is cut."""

from __future__ import annotations

import inspect
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer
from trl import DPOConfig, DPOTrainer

from evalsuite.checkpoint import open_checkpoint
from evalsuite.errors import DataError, UsageError
from evalsuite.trainers import (
    Coupling,
    DataRef,
    Launch,
    SaveRule,
    TrainJob,
    find_trainer,
    parse,
    read_events,
    worker_command,
    write_job,
)
from evalsuite.trainers.planning import PlanFacts
from tests.train_plugins.runs import run as fork_worker
from train_plugins import packing
from train_plugins.chat import TULU, TokenizedPair, load_tokenizer
from train_plugins.dpo import DPO
from train_plugins.dpo_feed import Layout, Pair, PairFeed, choose_layout, compact, pair_parts
from train_plugins.dpo_trainer import METRICS, PairTrainer
from train_plugins.dpo_worker import check_same_tokenizer, prepare, work
from train_plugins.order import Order
from train_plugins.refcache import FOLDER, ReferenceCache
from train_plugins.settings import DPOOptions
from train_plugins.tiny import EOS_ID, PAD_ID, write_tiny
from train_plugins.worker import Run, main

SMALL = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64}
PLAIN: dict[str, Any] = {
    "lr": 1e-3, "epochs": 1, "batch": 4, "max_length": 128, "weight_decay": 0.0, "dtype": "float32", "beta": 5.0,
    "threads": 1,
}  # fmt: skip
LAYOUTS: tuple[Layout, ...] = ("shared_prompt", "packed", "padded")


# -- what the tests are made of --


def model_folder(folder: Path, seed: int) -> Path:
    """A tiny model whose weights are spread enough that margins are far from 0."""
    from safetensors.torch import load_file, save_file

    write_tiny(folder, seed, **SMALL)
    weights = {n: t * (4 if t.dim() == 2 else 1) for n, t in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: model_folder(root / name, seed) for seed, name in enumerate(("start", "other"))}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def rows(n: int, seed: int = 0, turns: int = 1) -> list[dict[str, Any]]:
    """Preference rows of unequal lengths; `turns` exchanges, of which the last one differs."""
    rng = random.Random(seed)

    def said(least: int, most: int, alphabet: str) -> str:
        return "".join(rng.choice(alphabet) for _ in range(rng.randint(least, most)))

    made = []
    for i in range(n):
        before: list[dict[str, str]] = []
        for _ in range(turns - 1):
            before += [turn("user", said(3, 9, "abcdef ")), turn("assistant", said(3, 9, "0123456789"))]
        before.append(turn("user", said(4, 20, "abcdef ")))
        answers = [[*before, turn("assistant", said(3, 24, "0123456789"))] for _ in range(2)]
        made.append({"id": f"row{seed}-{i}", "source": "test", "chosen": answers[0], "rejected": answers[1]})
    return made


def write_rows(path: Path, content: Sequence[Mapping[str, Any]]) -> DataRef:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return DataRef(path.name, location=str(path))


def job_in(
    out: Path,
    models: Mapping[str, Path],
    content: Sequence[Mapping[str, Any]],
    *,
    reference: str = "start",
    **options: Any,
) -> TrainJob:
    out.mkdir(parents=True, exist_ok=True)
    data = write_rows(out.parent / f"{out.name}.jsonl", content)
    named = {} if reference == "start" else {"reference": open_checkpoint(models[reference])}
    start = open_checkpoint(models["start"])
    coupling = Coupling("off")
    return TrainJob("dpo", start, (data,), out, 0, SaveRule(), {**PLAIN, **options}, named, coupling=coupling)


def run_of(job: TrainJob) -> Run:
    write_job(job)
    return Run(job, parse(DPOOptions, job.options, "options"))


def trained(job: TrainJob) -> list[dict[str, Any]]:
    """Runs the worker in this process; returns its step events."""
    write_job(job)
    assert main(DPOOptions, work, ["--job", str(job.out / "job.json")]) == 0
    return steps_of(job.out)


def steps_of(out: Path) -> list[dict[str, Any]]:
    return [dict(event) for event in read_events(out / "events.jsonl") if event["kind"] == "step"]


def losses(steps: Sequence[Mapping[str, Any]]) -> list[float]:
    return [step["loss"] for step in steps]


def loss_and_gradient(
    trainer: PairTrainer, passes: Sequence[Mapping[str, Tensor]], n_pairs: int
) -> tuple[float, Tensor]:
    model = trainer.model
    model.zero_grad()
    total = 0.0
    for part in passes:
        loss = trainer.compute_loss(model, dict(part), num_items_in_batch=n_pairs)
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.fixture
def against_other(tmp_path: Path, models: dict[str, Path]) -> PairTrainer:
    """A trainer on 8 pairs whose reference is another model, so that no margin is 0."""
    return prepare(run_of(job_in(tmp_path / "dpo", models, rows(8), reference="other", per_device_batch=2)))


# -- against TRL --

SIGNATURES = {
    "_prepare_dataset": ["self", "dataset", "processing_class", "args", "dataset_name"],
    "_precompute_ref_logps": ["self", "dataset", "name", "batch_size"],
    "compute_loss": ["self", "model", "inputs", "return_outputs", "num_items_in_batch"],
    "log": ["self", "logs", "start_time"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_what_is_replaced_is_what_trl_calls(name: str) -> None:
    for owner in (DPOTrainer, PairTrainer):
        assert list(inspect.signature(vars(owner)[name]).parameters) == SIGNATURES[name], owner


def test_trl_divides_a_loss_by_its_passes_only_where_it_is_told_to() -> None:
    assert Trainer.loss_is_scaled_for_ga is None
    assert DPOTrainer.loss_is_scaled_for_ga is False
    assert PairTrainer.loss_is_scaled_for_ga is True


@pytest.fixture
def trl_on_the_same_pairs(tmp_path: Path, models: dict[str, Path]) -> tuple[DPOTrainer, dict[str, Tensor]]:
    """TRL from conversations on, with its own tokenisation, collator and `sigmoid_norm`."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    content = [
        {"prompt": row["chosen"][:-1], "chosen": row["chosen"][-1:], "rejected": row["rejected"][-1:]}
        for row in rows(8)
    ]
    config = DPOConfig(
        output_dir=str(tmp_path / "trl"), beta=5.0, loss_type=["sigmoid_norm"], max_length=128, bf16=False,
        use_cpu=True, gradient_checkpointing=False, report_to=[], per_device_train_batch_size=8,
    )  # fmt: skip
    load = AutoModelForCausalLM.from_pretrained
    trainer = DPOTrainer(
        load(models["start"], dtype=torch.float32), load(models["other"], dtype=torch.float32), config,
        train_dataset=Dataset.from_list(content), processing_class=load_tokenizer(models["start"], TULU),
    )  # fmt: skip
    return trainer, trainer.data_collator([trainer.train_dataset[i] for i in range(8)])


def test_loss_gradient_and_reference_are_those_of_trl_s_sigmoid_norm(
    against_other: PairTrainer, trl_on_the_same_pairs: tuple[DPOTrainer, dict[str, Tensor]]
) -> None:
    theirs, batch = trl_on_the_same_pairs
    loss = theirs.compute_loss(theirs.model, batch)
    loss.backward()
    ours, gradient = loss_and_gradient(against_other, [against_other.feed.batch(range(8))], 8)
    assert abs(loss.item() - 0.6931) > 0.05  # the two models differ, or nothing would be compared
    assert ours == pytest.approx(loss.item(), abs=1e-6)
    expected = torch.cat([p.grad.flatten() for p in theirs.model.parameters()])
    assert (gradient - expected).abs().max() < 1e-5 * expected.abs().max()
    chosen, rejected = theirs.compute_ref_log_probs(theirs.ref_model, batch)
    known = against_other.feed.references or ()
    assert [value.chosen for value in known] == pytest.approx(chosen.tolist(), abs=1e-4)  # sums near -100
    assert [value.rejected for value in known] == pytest.approx(rejected.tolist(), abs=1e-4)


def test_four_steps_end_with_the_weights_of_trl_on_the_same_order(tmp_path: Path, models: dict[str, Path]) -> None:
    """TRL padded, in 2 passes, with a second model as reference; ours in shared rows with the cache."""
    from datasets import Dataset
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    job = job_in(tmp_path / "dpo", models, rows(16), warmup_ratio=0.25)
    ours = trained(job)
    order = Order(16, 4, [(0, job.seed)])

    class InOurOrder(DPOTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return [row for step in range(4) for row in order.rows(step)]

    config = DPOConfig(
        output_dir=str(tmp_path / "trl"), beta=5.0, loss_type=["sigmoid_norm"], max_length=128, bf16=False,
        use_cpu=True, gradient_checkpointing=False, report_to=[], per_device_train_batch_size=2, max_steps=4,
        gradient_accumulation_steps=2, learning_rate=1e-3, lr_scheduler_type="linear", warmup_steps=1, weight_decay=0.0,
        max_grad_norm=0.0, logging_steps=1, save_strategy="no", optim="adamw_torch", disable_tqdm=True,
    )  # fmt: skip
    content = [
        {"prompt": row["chosen"][:-1], "chosen": row["chosen"][-1:], "rejected": row["rejected"][-1:]}
        for row in rows(16)
    ]
    model, reference = (
        AutoModelForCausalLM.from_pretrained(models["start"], dtype=torch.float32) for _ in range(2)
    )  # fmt: skip
    theirs = InOurOrder(
        model, reference, config, train_dataset=Dataset.from_list(content),
        processing_class=load_tokenizer(models["start"], TULU),
    )  # fmt: skip
    theirs.train()
    expected = [entry["loss"] for entry in theirs.state.log_history if "loss" in entry]
    assert abs(expected[-1] - 0.6931) > 0.05  # it trains
    assert losses(ours) == pytest.approx(expected, abs=1e-5)
    for name, tensor in load_file(job.out / "checkpoints" / "step-000004" / "model.safetensors").items():
        assert (tensor - model.state_dict()[name]).abs().max() < 1e-6, name


# -- one step, however it is cut and laid out --


@pytest.mark.parametrize("turns", [1, 3])
@pytest.mark.parametrize("response", ["last_turn", "all_assistant"])
def test_layouts_give_the_same_loss_and_gradient(
    tmp_path: Path, models: dict[str, Path], response: str, turns: int
) -> None:
    found = {}
    for layout in LAYOUTS:
        job = job_in(
            tmp_path / layout, models, rows(4, turns=turns), reference="other", layout=layout, response=response
        )
        trainer = prepare(run_of(job))
        found[layout] = loss_and_gradient(trainer, [trainer.feed.batch(range(4))], 4)
    loss, gradient = found["padded"]
    for layout in ("shared_prompt", "packed"):
        assert found[layout][0] == pytest.approx(loss, abs=1e-5)
        assert (found[layout][1] - gradient).abs().max() < 1e-5 * max(1.0, float(gradient.abs().max()))


def test_four_passes_of_one_pair_are_one_pass_of_four(against_other: PairTrainer) -> None:
    feed = against_other.feed
    whole = loss_and_gradient(against_other, [feed.batch(range(4))], 4)
    parts = loss_and_gradient(against_other, [feed.batch([i]) for i in range(4)], 4)
    assert parts[0] == pytest.approx(whole[0], abs=1e-6)
    assert (parts[1] - whole[1]).abs().max() < 1e-6 * max(1.0, float(whole[1].abs().max()))


def feed_of(n: int, **options: Any) -> PairFeed:
    """Pairs with i + 2 tokens of the user and i + 1 and 2 of the answers."""
    pairs = []
    for i in range(n):
        ids = (tuple(range(6, 8 + i)), tuple(range(20, 21 + i)), (30, EOS_ID))
        pair = TokenizedPair(*ids, (-100,) * len(ids[0]), ids[1], ids[2], chosen_truncated=i == 0)
        pairs.append(Pair(f"p{i}", compact(pair)))
    return PairFeed(pairs, "padded", parse(DPOOptions, {**PLAIN, **options}, "o"), PAD_ID)


def test_a_step_that_does_not_divide_counts_every_pair_once() -> None:
    feed = feed_of(5, batch=8, per_device_batch=2)
    shares = [feed(range(5), rank, 2) for rank in range(2)]
    weights = [[part["weight"].tolist() for part in step.passes] for step in shares]
    # By length 0 1 | 2 3 | 4: process 0 has two passes, process 1 takes part in the second with a pair of no weight.
    assert weights == [[[1.0, 1.0], [1.0]], [[1.0, 1.0], [0.0]]]
    assert [step.n_items for step in shares] == [5, 5]
    # Pair i: (i + 2) + (i + 1) tokens of chosen, (i + 2) + 2 of rejected: 3 i + 7, over i < 5: 30 + 35.
    assert [step.n_tokens for step in shares] == [65, 65]


def test_a_pass_without_pairs_has_no_loss_and_no_gradient(against_other: PairTrainer) -> None:
    loss, gradient = loss_and_gradient(against_other, [against_other.feed.batch([0], weight=0.0)], 8)
    assert (loss, float(gradient.abs().max())) == (0.0, 0.0)


def test_processes_together_have_the_gradient_of_one(
    against_other: PairTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = against_other.feed
    _, whole = loss_and_gradient(against_other, feed(range(3), 0, 1).passes, 3)
    monkeypatch.setattr(type(against_other.accelerator), "num_processes", 2)
    parts = [loss_and_gradient(against_other, feed(range(3), rank, 2).passes, 3)[1] for rank in range(2)]
    assert ((parts[0] + parts[1]) / 2 - whole).abs().max() < 1e-6 * max(1.0, float(whole.abs().max()))


def test_compact_pairs_have_the_same_rows(tmp_path: Path) -> None:
    pair = TokenizedPair((6, 7), (20, EOS_ID), (30, EOS_ID), (-100, -100), (20, EOS_ID), (30, EOS_ID))
    options = parse(DPOOptions, PLAIN, "o")
    for layout in LAYOUTS:
        batches = [PairFeed([Pair("a", p)], layout, options, PAD_ID).batch([0]) for p in (pair, compact(pair))]
        assert batches[0].keys() == batches[1].keys()
        assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[0])
    assert [list(part) for part in pair_parts(compact(pair))] == [list(part) for part in pair_parts(pair)]


def test_gradients_are_the_same_where_activations_are_computed_again(tmp_path: Path, models: dict[str, Path]) -> None:
    again = trained(job_in(tmp_path / "again", models, rows(8), reference="other", gradient_checkpointing=True))
    plain = trained(job_in(tmp_path / "plain", models, rows(8), reference="other"))
    for name in ("loss", "grad_norm"):
        assert [step[name] for step in again] == pytest.approx([step[name] for step in plain], rel=1e-5)


def test_in_bfloat16_the_first_loss_is_near_ln_2(tmp_path: Path, models: dict[str, Path]) -> None:
    # Reference and policy run the same code, on rows padded to other widths: β 5 enlarges what that rounds differently.
    trainer = prepare(run_of(job_in(tmp_path / "dpo", models, rows(4), dtype="bfloat16")))
    with trainer.accelerator.autocast(), torch.no_grad():
        alone = [float(trainer.compute_loss(trainer.model, trainer.feed.batch([i]))) for i in range(4)]
    assert alone == pytest.approx([0.6931] * 4, abs=0.02)
    exact = prepare(run_of(job_in(tmp_path / "exact", models, rows(4)))).feed.references or ()
    rounded = trainer.feed.references or ()
    assert 1e-4 < max(abs(a.chosen - b.chosen) for a, b in zip(rounded, exact, strict=True)) < 2  # of about -100


def test_adapters_in_bfloat16_do_not_take_the_reference_of_float32_weights(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    """A run without adapters keeps float32 weights: what it put into the cache is another function, by 0.03 here."""
    prepare(run_of(job_in(tmp_path / "shared" / "full", models, rows(4), dtype="bfloat16")))
    found = [
        prepare(run_of(job_in(tmp_path / name / "lora", models, rows(4), dtype="bfloat16", lora={"r": 4})))
        for name in ("shared", "alone")
    ]
    after_others, alone = (trainer.feed.references for trainer in found)
    assert after_others == alone


def test_flash_attention_gets_one_row_since_it_sees_borders_only_there() -> None:
    from transformers.modeling_flash_attention_utils import _is_packed_sequence

    feed = feed_of(3, attention="flash_attention_2", layout="packed")
    feed.layout = "packed"
    positions = feed.batch(range(3))["position_ids"]
    assert positions.shape == (1, 3 + 4 + 5 + 5 + 7 + 6)  # pair i has 2 i + 3 and i + 4 tokens
    assert _is_packed_sequence(positions, 1)
    assert not _is_packed_sequence(positions.repeat(2, 1), 2)


# -- which layout --


class Config:
    """A model's configuration, as far as the layouts look at it."""

    model_type = "some"

    def __init__(self, layer_types: list[str] | None = None, sliding_window: int | None = None) -> None:
        self.layer_types, self.sliding_window = layer_types, sliding_window


@pytest.mark.parametrize(
    ("options", "config", "expected"),
    [
        ({}, Config(), "shared_prompt"),
        ({"attention": "eager"}, Config(), "shared_prompt"),
        ({"attention": "flex_attention"}, Config(), "shared_prompt"),
        ({"attention": "flash_attention_2"}, Config(), "packed"),  # it takes no mask of ours
        ({}, Config(["full_attention", "sliding_attention"], 64), "packed"),  # the window is below max_length 128
        ({}, Config(["full_attention", "sliding_attention"], 128), "shared_prompt"),
        ({}, Config(["linear_attention", "full_attention"]), "padded"),  # a state runs through the whole row
        ({"layout": "padded"}, Config(), "padded"),
    ],
)
def test_auto_takes_the_first_layout_that_is_right(options: dict[str, Any], config: Config, expected: str) -> None:
    assert choose_layout(parse(DPOOptions, {**PLAIN, **options}, "o"), config) == expected


def test_a_layout_that_the_kernel_cannot_do_is_refused() -> None:
    options = parse(DPOOptions, {**PLAIN, "layout": "shared_prompt", "attention": "flash_attention_2"}, "o")
    with pytest.raises(UsageError, match="shared_prompt cannot be used with attention flash_attention_2; use layout"):
        choose_layout(options, Config())


@pytest.fixture
def broken_mask(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every token of a shared row sees all before it, as in a model that ignores masks of ours."""

    def causal(documents: Tensor, *_: Any) -> Tensor:
        rows, width = documents.shape
        return torch.ones(rows, 1, width, width, dtype=torch.bool).tril()

    monkeypatch.setattr(packing, "shared_prompt_mask", causal)
    return


@pytest.mark.usefixtures("broken_mask")
def test_a_model_that_ignores_the_mask_gets_padded_rows_and_a_warning(tmp_path: Path, models: dict[str, Path]) -> None:
    job = job_in(tmp_path / "dpo", models, rows(4))
    assert prepare(run_of(job)).feed.layout == "padded"
    warned = [event for event in read_events(job.out / "events.jsonl") if event["kind"] == "warning"]
    assert [event["code"] for event in warned] == ["layout"]


@pytest.mark.usefixtures("broken_mask")
def test_a_named_layout_that_gives_other_numbers_ends_the_run(tmp_path: Path, models: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="a token off those of padded rows; use layout: padded"):
        prepare(run_of(job_in(tmp_path / "dpo", models, rows(4), layout="shared_prompt")))


# -- the reference and its cache --


class Counted:
    """Counts the pairs that a reference is asked about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        plain = PairTrainer.reference_logprobs

        def counted(trainer: PairTrainer, batch: Mapping[str, Tensor], n_pairs: int) -> Any:
            self.n += n_pairs
            return plain(trainer, batch, n_pairs)

        monkeypatch.setattr(PairTrainer, "reference_logprobs", counted)

    def since(self) -> int:
        n, self.n = self.n, 0
        return n


def test_only_new_pairs_are_computed_and_any_change_of_the_reference_misses(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counted(monkeypatch)
    content = rows(6)
    template = tmp_path / "other.jinja"
    template.write_text(TULU.replace("<|assistant|>\\n", "<|assistant|> "), encoding="utf-8")

    def pairs_computed(name: str, used: list[dict[str, Any]], **options: Any) -> int:
        prepare(run_of(job_in(tmp_path / name, models, used, **options)))
        return asked.since()

    assert pairs_computed("cold", content) == 6
    assert pairs_computed("warm", content) == 0
    assert pairs_computed("mixed", [*rows(2, seed=9), *reversed(content), content[0]]) == 2
    assert pairs_computed("cut", content, max_length=24) == sum(_length(row) > 24 for row in content)
    assert pairs_computed("template", content, chat_template=str(template)) == 6
    assert pairs_computed("reference", content, reference="other") == 6
    assert pairs_computed("attention", content, attention="eager") == 6
    assert pairs_computed("bf16", content, dtype="bfloat16") == 6
    assert pairs_computed("still warm", content, lr=1e-5, beta=1.0, batch=2) == 0
    assert len(list((tmp_path / FOLDER).iterdir())) == 2  # two sets of weights


def _length(row: Mapping[str, Any]) -> int:
    """Tokens of the longer side: each header is 2 (`<|user|>` and a line break), a turn ends with one more."""
    return max(sum(len(t["content"]) + 3 for t in row[side]) for side in ("chosen", "rejected"))


def test_a_cached_run_and_one_that_computes_as_it_goes_have_the_same_curve(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    for name in ("start", "other"):
        cached = trained(job_in(tmp_path / f"cached-{name}", models, rows(10), reference=name))
        going = trained(job_in(tmp_path / f"going-{name}", models, rows(10), reference=name, reference_cache=False))
        assert len(cached) == 3  # 10 pairs in steps of 4: the last one has 2
        assert losses(going) == pytest.approx(losses(cached), abs=1e-6)


def test_the_first_loss_is_ln_2_and_then_it_falls(tmp_path: Path, models: dict[str, Path]) -> None:
    steps = trained(job_in(tmp_path / "dpo", models, rows(8), epochs=4, per_device_batch=2))
    assert losses(steps)[0] == pytest.approx(0.6931471806, abs=1e-6)
    assert losses(steps)[-1] < 0.5
    assert set(METRICS) <= steps[-1].keys()
    assert steps[-1]["accuracy"] == 1.0
    assert steps[-1]["margin"] > 0
    assert (steps[0]["logratio/chosen"], steps[0]["kl/chosen"]) == (0.0, 0.0)


def test_metrics_are_means_over_pairs_as_computed_by_hand(against_other: PairTrainer) -> None:
    feed, options = against_other.feed, against_other.options
    against_other.model.train()
    with torch.no_grad():
        for part in ([0, 1, 2], [3]):
            against_other.compute_loss(against_other.model, feed.batch(part), num_items_in_batch=4)
    logs: dict[str, float] = {"loss": 1.0}
    against_other.log(logs)
    ratios, rights, lengths = [], [], []
    for i in range(4):
        batch = feed.batch([i])
        with torch.no_grad():
            policy = packing.pair_logprobs(against_other.model, batch, 1)
        known = (feed.references or ())[i]
        chosen = (policy.chosen.item() - known.chosen) / known.n_chosen
        rejected = (policy.rejected.item() - known.rejected) / known.n_rejected
        ratios.append((chosen, rejected))
        rights.append(chosen > rejected)
        lengths.append(known.n_chosen / known.n_rejected)
    assert logs["logratio/chosen"] == pytest.approx(sum(c for c, _ in ratios) / 4, abs=1e-5)
    assert logs["margin"] == pytest.approx(options.beta * sum(c - r for c, r in ratios) / 4, abs=1e-5)
    assert logs["accuracy"] == sum(rights) / 4
    assert logs["length_ratio"] == pytest.approx(sum(lengths) / 4, abs=1e-5)
    assert logs["truncated"] == 0.0


def test_adapters_are_switched_off_for_the_reference(tmp_path: Path, models: dict[str, Path]) -> None:
    lora = {"r": 4, "alpha": 8.0}
    cached = trained(job_in(tmp_path / "cached", models, rows(8), lora=lora, lr=1e-2))
    going = trained(job_in(tmp_path / "going", models, rows(8), lora=lora, lr=1e-2, reference_cache=False))
    assert losses(cached)[0] == pytest.approx(0.6931471806, abs=1e-6)
    assert losses(cached)[1] != pytest.approx(0.6931471806, abs=1e-4)  # adapters on again, and trained
    assert losses(going) == pytest.approx(losses(cached), abs=1e-6)


def test_adapters_killed_between_state_and_checkpoint_are_the_trained_ones(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    options: dict[str, Any] = {"lora": {"r": 4, "alpha": 8.0}, "lr": 1e-2}
    jobs = [job_in(tmp_path / name / "dpo", models, rows(8), **options) for name in ("whole", "killed")]
    whole, killed = (replace(job, save=SaveRule(steps=1)) for job in jobs)
    trained(whole)
    write_job(killed)
    assert fork_worker(killed, partial(main, DPOOptions, work), "state-renamed:2") == -9
    trained(killed)
    weights = "checkpoints/step-000002/model.safetensors"
    assert (killed.out / weights).read_bytes() == (whole.out / weights).read_bytes()


def test_simpo_needs_no_reference_at_all(
    tmp_path: Path, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counted(monkeypatch)
    trainer = prepare(run_of(job_in(tmp_path / "dpo", models, rows(4), loss="simpo", beta=2.0)))
    assert (asked.since(), trainer.ref_model, (tmp_path / FOLDER).exists()) == (0, None, False)
    loss, _ = loss_and_gradient(trainer, [trainer.feed.batch(range(4))], 4)
    assert loss > 0


def test_earlier_answers_count_only_with_all_assistant(tmp_path: Path, models: dict[str, Path]) -> None:
    def first(name: str, response: str, turns: int) -> tuple[float, float]:
        content = rows(1, turns=turns)
        job = job_in(tmp_path / name, models, content, reference="other", response=response, batch=1)
        step = trained(job)[0]
        return step["loss"], step["length_ratio"]

    assert first("a", "last_turn", 1) == first("b", "all_assistant", 1)
    last, every = first("c", "last_turn", 2), first("d", "all_assistant", 2)
    row = rows(1, turns=2)[0]
    # Content and end-of-text of an answer count: n + 1 tokens.
    before, chosen, rejected = (len(t["content"]) + 1 for t in (row["chosen"][1], row["chosen"][3], row["rejected"][3]))
    assert last[1] == pytest.approx(chosen / rejected)
    assert every[1] == pytest.approx((before + chosen) / (before + rejected))
    assert abs(last[0] - every[0]) > 1e-3


def test_a_reference_that_reads_other_tokens_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    ours, theirs = (load_tokenizer(models["start"], TULU) for _ in range(2))
    theirs.add_tokens(["<more>"])
    reference = open_checkpoint(models["other"])
    check_same_tokenizer(ours, load_tokenizer(models["other"], TULU), reference)
    with pytest.raises(UsageError, match="differs from the start's in token"):
        check_same_tokenizer(theirs, ours, reference)
    theirs.eos_token = "a"
    with pytest.raises(UsageError, match="in eos_token \\('a', not '</s>'\\)"):
        check_same_tokenizer(ours, theirs, reference)


def test_a_reference_that_gives_no_number_names_the_pair(against_other: PairTrainer, tmp_path: Path) -> None:
    with torch.no_grad():
        against_other.model.lm_head.weight[0, 0] = float("nan")
    against_other.cache = ReferenceCache(tmp_path / "empty")
    with pytest.raises(DataError, match=r"row0-\d: the reference gives it log-probabilities nan"):
        against_other._precompute_ref_logps(None, "train", 4)
    assert not list((tmp_path / "empty").glob("*"))


# -- bad data --


def test_pairs_that_are_cut_are_counted_and_those_without_an_answer_are_left_out(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    def row(name: str, asked: int, chosen: int, rejected: int) -> dict[str, Any]:
        sides = [[turn("user", "a" * asked), turn("assistant", "1" * n)] for n in (chosen, rejected)]
        return {"id": name, "source": "t", "chosen": sides[0], "rejected": sides[1]}

    # Tokens: 3 + asked for the user, 2 for the header of the answer, then n + 1.
    content = [row("whole", 10, 5, 16), row("cut", 10, 5, 17), row("nothing left", 27, 5, 6)]
    job = job_in(tmp_path / "dpo", models, content, max_length=32, batch=2)
    steps = trained(job)
    told = {e["code"]: e["text"] for e in read_events(job.out / "events.jsonl") if e["kind"] == "warning"}
    assert told == {
        "dropped": "1 of 3 pairs: no answer left within max_length",
        "truncation": "1 of 2 pairs are cut at max_length 32",
    }
    assert steps[0]["truncated"] == 0.25  # one of four responses


def test_data_without_one_usable_pair_ends_with_one_line(
    tmp_path: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_in(tmp_path / "dpo", models, rows(2), max_length=8)
    write_job(job)
    assert main(DPOOptions, work, ["--job", str(job.out / "job.json")]) == 2
    assert "none of 2 pairs has an answer left within max_length 8; raise it" in capsys.readouterr().err


# -- the plugin --


def test_the_plugin_is_found_by_name_and_plans() -> None:
    trainer = find_trainer("dpo")
    assert isinstance(trainer, DPO)
    options = parse(DPOOptions, {**PLAIN, "batch": 128, "warmup_ratio": 0.1}, "o")
    plan = trainer.plan(options, PlanFacts(rows=271_409, processes=8))
    assert (plan.steps, plan.warmup_steps, plan.per_device_batch * plan.accumulation) == (2121, 212, 16)


def test_importing_the_plugin_is_cheap() -> None:
    code = "import sys, train_plugins.dpo; sys.exit(bool({'torch', 'transformers', 'trl'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def worker(job: TrainJob, *, fault: str = "") -> int:
    write_job(job)
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "EVALSUITE_TRAIN_FAULT": fault}
    command = worker_command("train_plugins.dpo_worker", job)
    return subprocess.run(command, env=variables, stderr=subprocess.DEVNULL).returncode


@pytest.mark.slow
def test_killed_in_the_reference_pass_and_in_training_it_ends_as_if_never_killed(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    content, options = rows(1100), {"batch": 8, "max_steps": 6}
    jobs = [job_in(tmp_path / name / "dpo", models, content, **options) for name in ("whole", "killed")]
    whole, killed = (replace(job, save=SaveRule(steps=2)) for job in jobs)
    expected = trained(whole)
    cache = tmp_path / "killed" / FOLDER
    assert worker(killed, fault="reference-segment:2") == -9
    kept = {path.name for path in cache.glob("*/*.arrow")}
    assert len(kept) == 2  # 512 pairs each
    assert worker(killed, fault="step-logged:3") == -9
    trained(killed)
    assert len(list(cache.glob("*/*.arrow"))) == 3  # the last 76 pairs; nothing was computed twice
    assert {step["step"]: step["loss"] for step in steps_of(killed.out)} == dict(enumerate(losses(expected), 1))
    last = "checkpoints/step-000006/model.safetensors"
    assert (killed.out / last).read_bytes() == (whole.out / last).read_bytes()


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path, models: dict[str, Path]) -> None:
    # 7 pairs in steps of 4: the second step has 3, of which process 1 has one.
    one = trained(job_in(tmp_path / "a" / "one", models, rows(7), reference="other"))
    two = job_in(tmp_path / "b" / "two", models, rows(7), reference="other", per_device_batch=1)
    two = replace(two, launch=Launch(processes=2))
    assert worker(two) == 0
    assert [event["processes"] for event in read_events(two.out / "events.jsonl") if event["kind"] == "start"] == [2]
    for a, b in zip(one, steps_of(two.out), strict=True):
        for name in ("loss", "grad_norm", "tokens", *METRICS):
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=1e-6), name
