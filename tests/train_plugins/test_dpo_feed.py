"""A step of DPO has one loss and one gradient in every layout, however it is cut; the layout is one that is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evalsuite.errors import UsageError
from evalsuite.trainers import Launch, parse, read_events
from tests.train_plugins import dpo_jobs
from tests.train_plugins.dpo_jobs import (
    LAYOUTS,
    PLAIN,
    job_in,
    loss_and_gradient,
    rows,
    run_of,
    steps_of,
    trained,
    worker,
)
from train_plugins import packing
from train_plugins.chat import TokenizedPair
from train_plugins.dpo_feed import Pair, PairFeed, choose_layout, compact, pair_parts
from train_plugins.dpo_trainer import METRICS, PairTrainer
from train_plugins.dpo_worker import prepare
from train_plugins.settings import DPOOptions
from train_plugins.tiny import EOS_ID, PAD_ID

models = dpo_jobs.models
against_other = dpo_jobs.against_other


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


def test_flash_attention_gets_one_row_since_it_sees_borders_only_there() -> None:
    from transformers.modeling_flash_attention_utils import _is_packed_sequence

    feed = feed_of(3, attention="flash_attention_2", layout="packed")
    feed.layout = "packed"
    positions = feed.batch(range(3))["position_ids"]
    assert positions.shape == (1, 3 + 4 + 5 + 5 + 7 + 6)  # pair i has 2 i + 3 and i + 4 tokens
    assert _is_packed_sequence(positions, 1)
    assert not _is_packed_sequence(positions.repeat(2, 1), 2)


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
