"""DPO on real TRL with a tiny model: its loss is the paper's and TRL's, and its metrics are those computed by hand."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer
from trl import DPOConfig, DPOTrainer

from evalsuite.trainers import find_trainer, parse, read_events, write_job
from evalsuite.trainers.planning import PlanFacts
from tests.train_plugins import dpo_jobs
from tests.train_plugins.dpo_jobs import PLAIN, job_in, loss_and_gradient, losses, rows, trained, turn
from train_plugins import packing
from train_plugins.chat import TULU, load_tokenizer
from train_plugins.dpo import DPO
from train_plugins.dpo_trainer import METRICS, PairTrainer
from train_plugins.dpo_worker import work
from train_plugins.order import Order
from train_plugins.settings import DPOOptions
from train_plugins.worker import main

models = dpo_jobs.models
against_other = dpo_jobs.against_other


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


# -- what is measured --


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
