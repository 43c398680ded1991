"""Steps, warm-up, division of a batch, memory and tokens: numbers that plan and worker share."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import UsageError
from evalsuite.trainers.planning import PlanFacts
from evalsuite.trainers.types import SaveRule
from train_plugins.memory import Layout, Shape, adapter_parameters, estimate, model_shape, sharding
from train_plugins.plan import divide_batch, plan_stage, saves_of, steps_of, warmup_of
from train_plugins.settings import DPOOptions, Lora, RMOptions, SFTOptions
from train_plugins.tokens import SAMPLED, tokens_of

SFT = SFTOptions(lr=5e-6, epochs=2, batch=128, max_length=4096, weight_decay=0.0, warmup_ratio=0.03)
SMALL = Shape(parameters=1000, hidden=10, layers=2, intermediate=20, heads=2, kv_heads=1, vocabulary=30)


@pytest.mark.parametrize(
    ("rows", "batch", "epochs", "ratio", "steps", "warmup"),
    [
        (939_344, 128, 2, 0.03, 14_678, 440),  # ceil(939344/128) = 7339, twice; 440.34 is rounded down
        (271_409, 128, 1, 0.1, 2_121, 212),  # 2120.4
        (334_367, 128, 1, 0.1, 2_613, 261),  # 2612.2
        (360_924, 256, 1, 0.1, 1_410, 141),  # 1409.9
        (271_409, 256, 1, 0.0, 1_061, 0),  # 1060.2
        (128, 128, 3, 1.0, 3, 3),
        (1, 128, 1, 0.5, 1, 0),
    ],
)
def test_steps_and_warm_up_are_those_of_the_release(
    rows: int, batch: int, epochs: int, ratio: float, steps: int, warmup: int
) -> None:
    options = replace(SFT, batch=batch, epochs=epochs, warmup_ratio=ratio)
    assert steps_of(rows, options) == steps
    assert warmup_of(steps, options) == warmup


def test_max_steps_ends_a_run_early_and_never_prolongs_it() -> None:
    assert steps_of(1280, replace(SFT, max_steps=7)) == 7
    assert steps_of(1280, replace(SFT, max_steps=70)) == 20


@pytest.mark.parametrize(
    ("batch", "per_device", "processes", "divided"),
    [
        (128, 1, 64, (1, 2)),
        (128, 1, 8, (1, 16)),
        (256, 1, 256, (1, 1)),
        (128, None, 1, (8, 16)),  # 8 is the most that is taken unasked
        (12, None, 2, (6, 1)),
        (14, None, 1, (7, 2)),
        (13, None, 1, (1, 13)),
    ],
)
def test_a_batch_is_per_device_times_accumulated_times_processes(
    batch: int, per_device: int | None, processes: int, divided: tuple[int, int]
) -> None:
    assert divide_batch(batch, per_device, processes) == divided
    assert divided[0] * divided[1] * processes == batch


@pytest.mark.parametrize(
    ("batch", "per_device", "processes", "told"),
    [
        (128, None, 9, "batch 128 does not divide by 9 processes; the nearest that do: 126 and 135"),
        (100, 8, 4, "batch 100 does not divide by 4 processes x 8 per device; the nearest that do: 96 and 128"),
        (2, 4, 1, "batch 2 does not divide by 1 process x 4 per device; the nearest that do: 4"),
    ],
)
def test_a_batch_that_does_not_divide_names_the_nearest_that_do(
    batch: int, per_device: int | None, processes: int, told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        divide_batch(batch, per_device, processes)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("save", "steps"),
    [
        (SaveRule(), (20,)),  # the end always saves
        (SaveRule(epochs=1), (10, 20)),
        (SaveRule(steps=8), (8, 16, 20)),
        (SaveRule(at=(3, 25)), (3, 20)),
        (SaveRule(steps=10, epochs=2, at=(1,)), (1, 10, 20)),
    ],
)
def test_checkpoints_are_saved_by_the_rule_and_at_the_end(save: SaveRule, steps: tuple[int, ...]) -> None:
    assert saves_of(1280, SFT, save) == steps  # 10 steps an epoch, 2 epochs


def test_a_trained_parameter_takes_sixteen_bytes_and_a_frozen_one_its_own_width() -> None:
    options = replace(SFT, max_length=8)
    assert estimate(SMALL, options, Layout(1, "none", 1)).state_bytes == 16 * 1000
    assert estimate(SMALL, replace(options, dtype="float32"), Layout(1, "none", 1)).state_bytes == 16 * 1000
    assert estimate(SMALL, options, Layout(1, "none", 1), reference=True).state_bytes == 16 * 1000 + 2 * 1000
    assert estimate(SMALL, options, Layout(8, "all", 1)).state_bytes == 2 * 1000
    # ZeRO-2: whole weights of 2 bytes, 14 bytes of gradient, master copy and moments over 8 processes
    assert estimate(SMALL, options, Layout(8, "optimizer", 1)).state_bytes == 2 * 1000 + 14 * 1000 // 8
    assert estimate(SMALL, options, Layout(8, "offloaded", 1)).state_bytes == 2 * 1000 // 2  # a layer of two


def test_adapters_are_all_that_is_trained_under_lora() -> None:
    # per layer and rank: q and o 10+10 each, k and v 10+5 each, three of 10+20
    assert adapter_parameters(SMALL, 4, Lora().targets) == 2 * 4 * (20 + 20 + 15 + 15 + 3 * 30)
    lora = replace(SFT, lora=Lora(r=4))
    assert estimate(SMALL, lora, Layout(1, "none", 1)).state_bytes == 16 * 1280 + 2 * 1000


def test_activations_grow_with_tokens_and_shrink_with_checkpointing() -> None:
    one = estimate(SMALL, replace(SFT, max_length=64), Layout(1, "none", 1)).activation_bytes
    assert one == 64 * (3 * 34 * 10 + 8 * 30)  # two layers kept and one at work; logits 2 + 2 + 4 bytes
    assert estimate(SMALL, replace(SFT, max_length=64), Layout(1, "none", 3, sides=2)).activation_bytes == 6 * one
    thin = replace(SFT, max_length=64, gradient_checkpointing=True)
    assert estimate(SMALL, thin, Layout(1, "none", 1)).activation_bytes == 64 * (2 * 2 * 10 + 340 + 240)
    assert estimate(SMALL, thin, Layout(1, "none", 1), head=False).activation_bytes == 64 * (40 + 340)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [  # as the hub counts the tensors of each
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B", 70_553_706_496),
        ("meta-llama/Llama-3.1-405B", 405_853_388_800),
    ],
)
def test_the_starts_of_the_shipped_recipes_have_a_known_shape(model: str, parameters: int) -> None:
    shape = model_shape(model)
    assert shape is not None
    assert shape.parameters == parameters


def test_a_model_folder_tells_its_shape_and_anything_else_none(tmp_path: Path) -> None:
    config: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 16, "vocab_size": 10}
    config |= {"num_attention_heads": 2, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = model_shape(str(tmp_path))
    assert shape is not None
    # q, k, v, o 4·8·8; gate, up, down 3·8·16; two norms of 8; one table of 10·8; the last norm
    assert shape.parameters == 256 + 384 + 16 + 80 + 8
    assert model_shape("nobody/knows") is None
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}')
    assert model_shape(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("launch", "kind"),
    [(None, "none"), ("fsdp2", "all"), ("zero2", "optimizer"), ("zero3", "all"), ("zero3_offload", "offloaded")],
)
def test_a_launch_config_says_what_is_spread_over_processes(launch: str | None, kind: str) -> None:
    assert sharding(launch) == kind


def test_the_reference_counts_where_it_is_not_cached_and_a_reward_model_has_no_logits() -> None:
    more: dict[str, Any] = {"lr": 1e-6, "epochs": 1, "batch": 8, "max_length": 16, "weight_decay": 0.0}
    facts = PlanFacts(rows=100, model="meta-llama/Llama-3.1-8B")
    cached = plan_stage("dpo", DPOOptions(beta=5.0, **more), facts)
    alone = plan_stage("dpo", DPOOptions(beta=5.0, reference_cache=False, **more), facts)
    assert cached.state_bytes is not None
    assert alone.state_bytes == cached.state_bytes + 2 * 8_030_261_248
    reward = plan_stage("rm", RMOptions(**more), facts)
    assert (reward.rows, reward.steps) == (98, 13)  # 2 of 100 held out; ceil(98/8)
    assert reward.activation_bytes < cached.activation_bytes  # type: ignore[operator]


def test_without_rows_or_shape_the_rest_of_a_plan_stands() -> None:
    plan = plan_stage("sft", SFT, PlanFacts(processes=4, model="nobody/knows"))
    assert (plan.per_device_batch, plan.accumulation, plan.processes) == (8, 4, 4)
    assert (plan.rows, plan.steps, plan.warmup_steps, plan.tokens, plan.memory_bytes) == (None,) * 5


def test_tokens_of_all_epochs_follow_the_steps_that_are_taken() -> None:
    plan = plan_stage("sft", SFT, PlanFacts(rows=1280, tokens=64_000))
    assert plan.tokens == 128_000
    short = plan_stage("sft", replace(SFT, max_steps=5), PlanFacts(rows=1280, tokens=64_000))
    assert short.tokens == 32_000  # 5 · 128 of 1280 rows


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A model folder whose tokenizer has a token for each word."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write_rows(path: Path, n: int, n_words: int = 3) -> Path:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b " * n_words}]}
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(n)))
    return path


@pytest.mark.parametrize("n", [7, 3 * SAMPLED])
def test_tokens_are_counted_on_few_rows_and_sampled_on_many(words: Path, n: int) -> None:
    data = write_rows(words / "d.jsonl", n)
    assert tokens_of([str(data)], n, str(words), 100) == n * (2 + 1 + 3)  # two headers, one and three words
    assert tokens_of([str(data)], n, str(words), 4) == n * 4  # cut


def test_tokens_are_not_known_without_tokenizer_or_rows(words: Path, tmp_path: Path) -> None:
    data = write_rows(words / "d.jsonl", 3)
    assert tokens_of([str(data)], 3, "nobody/knows", 100) is None
    data.write_text('{"text": "a"}\nnot json\n')
    assert tokens_of([str(data)], 2, str(words), 100) is None


def test_planning_imports_neither_torch_nor_transformers() -> None:
    program = "import sys, train_plugins.plan; print({'torch', 'transformers', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
