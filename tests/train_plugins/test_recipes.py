"""The shipped recipes: the numbers of the report, what follows from them, and what they become for TRL."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from evalsuite.errors import UsageError
from evalsuite.loop.mixes import rows_of_mix
from evalsuite.recipe import Recipe, Stage, load_recipe
from evalsuite.trainers.options import parse
from evalsuite.trainers.planning import PlanFacts
from evalsuite.trainers.recipes import (
    find_launch,
    find_recipe,
    find_shipped,
    known_launches,
    known_recipes,
)
from evalsuite.verify.rewards import known_rewards
from train_plugins.arguments import training_arguments
from train_plugins.plan import plan_stage
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.plan import plan_rlvr
from train_plugins.settings import DPOOptions, RMOptions, SFTOptions, TrainingOptions

TULU = ("tulu3_8b", "tulu3_70b", "tulu3_405b", "tulu3.1_8b")
CONFIGS: dict[str, type[TrainingOptions]] = {"sft": SFTOptions, "rm": RMOptions, "dpo": DPOOptions}
ALL_CONFIGS: dict[str, type] = {**CONFIGS, "rlvr": RLVROptions}
# Rows of the data of each stage, by the cards of the data sets.
ROWS = {
    "tulu3_sft": 939_344, "tulu3_pref_8b": 271_409, "tulu3_pref_70b": 334_367, "tulu3_pref_405b": 360_924,
    "rlvr_gsm_math_if": 29_946, "rlvr_math": 7_500,
}  # fmt: skip
# recipe, stage: steps, warm-up, per device x accumulated x processes
PLANS = {
    ("tulu3_8b", "sft"): (14_678, 440, (1, 2, 64)),
    ("tulu3_8b", "rm"): (1_061, 0, (1, 32, 8)),
    ("tulu3_8b", "dpo"): (2_121, 212, (1, 16, 8)),
    ("tulu3_70b", "sft"): (14_678, 440, (1, 2, 64)),
    ("tulu3_70b", "dpo"): (2_613, 261, (1, 2, 64)),
    ("tulu3_405b", "dpo"): (1_410, 141, (1, 1, 256)),
}
# recipe: iterations, optimizer steps, warm-up, checkpoints, rollouts an iteration and a step, processes
RLVR_PLANS = {
    "tulu3_8b": (44_642, 178_568, 0, 447, 224, 224, 7),  # 10,000,000 / (7·32), 4 epochs; every 100 and the last
    "tulu3_70b": (625, 2_500, 250, 16, 640, 640, 40),  # 400,000 / (40·16); a tenth of 2,500
    "tulu3_405b": (215, 860, 0, 9, 1_856, 1_856, 232),  # 400,000 / (232·8) = 215.5
    "tulu3.1_8b": (13_020, 26_040, 0, 326, 768, 384, 6),  # 10,000,000 / (48·16) = 13,020.8, 2 mini-batches
}
# lr, schedule, beta, kl and its place, prompts, samples, response tokens, epochs, penalty for no end, seed, save
RLVR_OPTIONS: dict[str, tuple[Any, ...]] = {
    "tulu3_8b": (3e-7, "linear", 0.05, "kl1", "reward", 224, 1, 2048, 4, -10.0, 3, 100),
    "tulu3_70b": (1e-7, "linear", 0.07, "kl1", "reward", 640, 1, 2048, 4, -10.0, 8, 40),
    "tulu3_405b": (1e-7, "linear", 0.05, "kl1", "reward", 1856, 1, 1024, 4, -10.0, 3, 25),
    "tulu3.1_8b": (5e-7, "constant", 0.01, "kl3", "loss", 48, 16, 2048, 1, 0.0, 1, 40),
}
# What the four share.
RLVR_COMMON = {
    "weight_decay": 0.01, "adam_betas": (0.9, 0.999), "adam_eps": 1e-8, "max_grad_norm": 1.0, "temperature": 1.0,
    "clip": 0.2, "clip_high": None, "reward_value": 10.0, "min_response_tokens": 0, "reward_model_multiplier": 0.0,
    "prompt_tokens": 2048, "gap_correction": "none", "loss_norm": "token", "generator": "vllm", "mode": "async",
    "schedule_iterations": None, "kl_stop": None, "entropy_stop": None, "score_stop": None,
}  # fmt: skip
# What changes the numbers of a run, as TRL is given it: lr, schedule, warm-up, weight decay, betas, eps,
# clipping (0: none), steps, length, seed, bfloat16, checkpointing.
ARGUMENTS: dict[tuple[str, str], tuple[Any, ...]] = {
    ("tulu3_8b", "sft"): (5e-6, "linear", 440, 0.0, 0.9, 0.999, 1e-8, 0.0, 14_678, 4096, 123, True, False),
    ("tulu3_8b", "rm"): (3e-6, "linear", 0, 0.01, 0.9, 0.999, 1e-5, 0.0, 1_061, 2048, 1, True, True),
    ("tulu3_8b", "dpo"): (5e-7, "linear", 212, 0.0, 0.9, 0.999, 1e-8, 0.0, 2_121, 2048, 42, True, True),
    ("tulu3_70b", "sft"): (2e-6, "linear", 440, 0.0, 0.9, 0.999, 1e-8, 0.0, 14_678, 4096, 456, True, True),
    ("tulu3_70b", "dpo"): (2e-7, "linear", 261, 0.0, 0.9, 0.999, 1e-8, 0.0, 2_613, 2048, 42, True, True),
    ("tulu3_405b", "dpo"): (2e-7, "linear", 141, 0.0, 0.9, 0.999, 1e-8, 0.0, 1_410, 2048, 42, True, True),
}
NAMES = (
    "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    "max_grad_norm", "max_steps", "max_length", "seed", "bf16", "gradient_checkpointing",
)  # fmt: skip
BESIDE_OPTIONS = ("seed", "save", "keep", "launch", "inputs")  # what else of a stage has a source
# Options that change no number of a run, or only stop one that goes wrong.
FREE = {
    "chat_template",
    "attention",
    "max_steps",
    "lora",
    "save_adapter",
    "threads",
    "benchmarks",
    "log_every",
    "report_to",
    "layout",
}
FREE |= {"pack_tokens", "reference_cache", "generator_threads", "verify_workers", "verify_timeout_s", "rollouts"}
FREE |= {"max_verifier_errors", "weight_transfer", "canary_atol", "gap_limits", "stall_s", "kl_stop", "entropy_stop"}
FREE |= {"score_stop", "iterations", "schedule_iterations", "generator_cpus"}
OF_ONE_ALGORITHM = {
    "grpo": {"gamma", "lam", "value_clip", "value_coef", "value_lr", "value_init", "value_warmup", "whiten",
             "whiten_rewards"},
    "ppo": {"advantage"},
}  # fmt: skip
# Arguments whose value is decided here and not by a recipe; a new one is a change of what is trained.
FIXED = {
    "optim": "adamw_torch", "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "num_train_epochs": 1,
    "average_tokens_across_devices": True, "auto_find_batch_size": False, "fp16": False, "torch_compile": False,
    "label_smoothing_factor": 0.0, "neftune_noise_alpha": None, "save_strategy": "no", "save_total_limit": None,
    "eval_strategy": "no", "logging_strategy": "no", "report_to": [], "push_to_hub": False,
}  # fmt: skip


def recipe(name: str) -> Recipe:
    return load_recipe(find_recipe(name))


def stage(name: str, which: str) -> Stage:
    return next(s for s in recipe(name).stages if s.name == which)


def options_of(found: Stage) -> TrainingOptions:
    return parse(CONFIGS[found.trainer], found.options, "options")


@pytest.mark.parametrize(("name", "which"), PLANS)
def test_plans_come_to_the_steps_of_the_report(name: str, which: str) -> None:
    found = stage(name, which)
    rows = ROWS[Path(found.data[0]).stem]
    facts = PlanFacts(rows, processes=found.launch.processes, save=found.save, launch=found.launch.config)
    plan = plan_stage(found.trainer, options_of(found), facts)  # type: ignore[arg-type]
    assert (plan.steps, plan.warmup_steps) == PLANS[name, which][:2]
    assert (plan.per_device_batch, plan.accumulation, plan.processes) == PLANS[name, which][2]


def rlvr_of(name: str) -> tuple[Stage, RLVROptions]:
    found = stage(name, "rlvr")
    return found, parse(RLVROptions, found.options, "options")


@pytest.mark.parametrize("name", RLVR_PLANS)
def test_plans_of_rlvr_come_to_the_iterations_of_the_release(name: str) -> None:
    found, options = rlvr_of(name)
    rows = ROWS[Path(found.data[0]).stem]
    facts = PlanFacts(rows, processes=found.launch.processes, save=found.save, inputs=dict.fromkeys(found.inputs))
    plan = plan_rlvr(options, facts)
    told = (plan.iterations, plan.steps, plan.warmup_steps, plan.saves, plan.rollouts, plan.batch, plan.processes)
    assert told == RLVR_PLANS[name]


@pytest.mark.parametrize("name", RLVR_OPTIONS)
def test_options_of_rlvr_are_those_of_the_release(name: str) -> None:
    found, o = rlvr_of(name)
    told = (o.lr, o.schedule, o.beta, o.kl, o.kl_in, o.prompts_per_iteration, o.samples_per_prompt, o.response_tokens,
            o.epochs, o.eos_penalty, found.seed, found.save.steps)  # fmt: skip
    assert told == RLVR_OPTIONS[name]
    assert {key: getattr(o, key) for key in RLVR_COMMON} == RLVR_COMMON
    ours = {"gsm8k": "rlvr_gsm8k", "math": "rlvr_math", "ifeval": "ifeval_old"}
    assert o.verifiers == (ours if name != "tulu3_405b" else {"math": "rlvr_math"})
    assert set(o.verifiers.values()) <= set(known_rewards())
    # Multi-GPU launches: a share of the prompts for each learner, and GPUs of its own for the generator.
    assert o.prompts_per_iteration % found.launch.processes == 0
    engine = {"tulu3_8b": (1, "7"), "tulu3_70b": (4, "4,5,6,7"), "tulu3_405b": (16, None), "tulu3.1_8b": (2, "6,7")}
    given = o.generator_options
    assert (given["tensor_parallel_size"], given.get("cuda_visible_devices")) == engine[name]
    assert isinstance(given["tensor_parallel_size"], int)  # 1.0 is no size to vLLM


@pytest.mark.parametrize("name", ["tulu3_8b", "tulu3_70b", "tulu3_405b"])
def test_ppo_has_a_value_network_that_starts_from_the_reward_model_of_8b(name: str) -> None:
    found, o = rlvr_of(name)
    assert (o.algorithm, o.gamma, o.lam, o.value_clip, o.value_coef, o.value_lr) == ("ppo", 1, 0.95, 0.2, 0.1, o.lr)
    assert (o.value_init, o.value_warmup, o.whiten, o.whiten_rewards, o.mini_batches) == (
        "checkpoint", 0, "global", False, 1,
    )  # fmt: skip
    assert (found.start, o.old_logprobs) == ("dpo@promoted", "first")
    assert found.inputs["value_init"] == ("rm@last" if name == "tulu3_8b" else "allenai/Llama-3.1-Tulu-3-8B-RM")


def test_tulu_31_is_grpo_from_the_dpo_model_with_the_quirk_of_its_release() -> None:
    found, o = rlvr_of("tulu3.1_8b")
    assert (o.algorithm, o.advantage, o.mini_batches, o.old_logprobs) == ("grpo", "group", 2, "lazy")
    assert (found.start, recipe("tulu3.1_8b").model) == ("model", "allenai/Llama-3.1-Tulu-3-8B-DPO")
    assert found.inputs == {}


def test_the_mix_of_rlvr_has_the_parts_of_its_card() -> None:
    from train_plugins.data.mixfile import find_mix, load_mix

    mix = load_mix(find_mix("rlvr_gsm_math_if"))
    assert {s.where["dataset"]: (s.count, s.licence) for s in mix.sources} == {
        "gsm8k": (7_473, "MIT"), "math": (7_500, "MIT"), "ifeval": (14_973, "ODC-BY-1.0"),
    }  # fmt: skip
    assert {s.hub for s in mix.sources} == {"allenai/RLVR-GSM-MATH-IF-Mixed-Constraints"}
    assert set(rlvr_of("tulu3_8b")[1].verifiers) == {s.where["dataset"] for s in mix.sources}
    (math,) = load_mix(find_mix("rlvr_math")).sources
    assert (math.hub, math.count) == ("allenai/RLVR-MATH", 7_500)


@pytest.mark.parametrize(("mix", "rows"), ROWS.items())
def test_the_mixes_that_stages_name_come_to_these_rows(mix: str, rows: int) -> None:
    path = find_shipped(f"mixes/{mix}.yaml")
    assert path is not None
    assert rows_of_mix(path) == rows


@pytest.mark.parametrize(("name", "which"), ARGUMENTS)
def test_arguments_of_the_trainer_are_those_of_the_table(name: str, which: str) -> None:
    found = stage(name, which)
    run: Any = SimpleNamespace(out=Path("out"), job=SimpleNamespace(seed=found.seed))
    made = training_arguments(options_of(found), run, ROWS[Path(found.data[0]).stem])
    assert tuple(made[key] for key in NAMES) == ARGUMENTS[name, which]
    assert made["data_seed"] == found.seed
    assert {key: made[key] for key in FIXED} == FIXED


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tulu3_8b", {"save": 1000, "epochs": None, "keep": "all"}),
        ("tulu3_70b", {"save": None, "epochs": 1, "keep": "all"}),
        ("tulu3_405b", {"save": 1000, "epochs": None, "keep": "all"}),
    ],
)
def test_preference_tuning_is_as_published(name: str, expected: dict[str, Any]) -> None:
    found = stage(name, "dpo")
    options = options_of(found)
    assert isinstance(options, DPOOptions)
    assert (options.beta, options.loss, options.label_smoothing, options.response) == (
        5,
        "dpo_norm",
        0,
        "all_assistant",
    )
    assert options.batch == (256 if name == "tulu3_405b" else 128)
    assert {"save": found.save.steps, "epochs": found.save.epochs, "keep": found.keep} == expected


def test_fine_tuning_and_the_reward_model_are_as_published() -> None:
    eight, seventy = stage("tulu3_8b", "sft"), stage("tulu3_70b", "sft")
    assert (eight.save.epochs, eight.keep, seventy.save.steps, seventy.keep) == (1, "all", 1000, "last 20")
    for found in (eight, seventy):
        options = options_of(found)
        assert isinstance(options, SFTOptions)
        assert (options.batch, options.epochs, options.overlong, options.loss_scale) == (128, 2, "cut", "mean")
    reward = options_of(stage("tulu3_8b", "rm"))
    assert isinstance(reward, RMOptions)
    assert (reward.batch, reward.epochs, reward.held_out) == (256, 1, 0.0)
    assert stage("tulu3_8b", "rm").gate is None


def test_what_is_not_public_is_null_and_an_error_that_says_so() -> None:
    with pytest.raises(UsageError) as caught:
        options_of(stage("tulu3_405b", "sft"))
    lines = str(caught.value).splitlines()
    nulls = ["lr", "epochs", "batch", "max_length", "weight_decay", "schedule", "warmup_ratio"]
    assert [line.split(":")[0] for line in lines] == [f"options.{name}" for name in nulls]
    assert all("no public source gives this value, so set it" in line for line in lines)


@pytest.mark.parametrize("name", TULU)
def test_every_number_of_a_recipe_has_its_source_or_says_unconfirmed(name: str) -> None:
    raw = yaml.safe_load(find_recipe(name).read_text())
    for one in raw["stages"]:
        named = [field for group in one["sources"].values() for field in group]
        assert len(named) == len(set(named)), one["name"]
        also = {key for key in BESIDE_OPTIONS if key in one}
        missing = ({*one["options"]} | also) - set(named)
        assert missing == set(), (name, one["name"])
        assert set(named) <= {*one["options"], *BESIDE_OPTIONS}


@pytest.mark.parametrize("name", TULU)
def test_recipes_write_down_whatever_changes_numbers(name: str) -> None:
    """A default of the classes may change; a recipe's numbers must not."""
    for found in recipe(name).stages:
        if None in found.options.values() and found.options.get("lr") is None:
            continue
        others = OF_ONE_ALGORITHM.get(str(found.options.get("algorithm")), set())
        wanted = {f.name for f in fields(ALL_CONFIGS[found.trainer])} - FREE - others
        assert wanted <= set(found.options), (name, found.name)
        assert found.options["chat_template"] == "tulu"


@pytest.mark.parametrize("name", TULU)
def test_shipped_recipes_have_a_gate_and_ask_for_clean_data(name: str) -> None:
    read = recipe(name)
    gated = [s for s in read.stages if s.gate is not None]
    assert {(s.gate.suite, s.gate.policy, s.gate.on_block) for s in gated if s.gate} == {
        ("tulu3-dev", "tulu3", "continue")
    }
    assert all(s.decontam.run and s.decontam.against == ("tulu3-unseen", "tulu3-safety") for s in read.stages)
    assert all(read.find(text).is_file() for s in read.stages for text in s.data)


def test_recipes_and_launches_are_found_by_name_with_the_near_miss(tmp_path: Path) -> None:
    assert set(TULU) <= set(known_recipes())
    assert {"fsdp2", "zero2", "zero3", "zero3_offload"} <= set(known_launches())
    own = tmp_path / "own.yaml"
    own.write_text("distributed_type: MULTI_CPU\n")
    assert find_launch(str(own)) == own
    with pytest.raises(UsageError, match=r"no recipe named 'tulu3_8'; did you mean 'tulu3_8b'\?"):
        find_recipe("tulu3_8")
    with pytest.raises(UsageError, match=r"'fsdp' is no file and no shipped accelerate config; did you mean 'fsdp2'\?"):
        find_launch("fsdp")
    assert find_shipped("mixes/nothing.yaml") is None
    assert find_shipped("../settings.py") is None


def test_sources_change_no_digest(tmp_path: Path) -> None:
    text = find_recipe("tulu3_8b").read_text()
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text.replace("unconfirmed:", "somebody said so:"))
    (tmp_path / "c.yaml").write_text(text.replace("lr: 5.0e-6", "lr: 6.0e-6"))
    a, b, c = (load_recipe(tmp_path / f"{name}.yaml") for name in "abc")
    assert a.digest == b.digest
    assert a.digest != c.digest


@pytest.mark.slow  # accelerate imports torch
@pytest.mark.parametrize("name", ["fsdp2", "zero2", "zero3", "zero3_offload"])
def test_accelerate_reads_the_shipped_launch_configs(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file  # type: ignore[import-untyped]

    read = load_config_from_file(str(find_launch(name)))
    assert str(read.distributed_type).endswith("FSDP" if name == "fsdp2" else "DEEPSPEED")
    # A value here would stand in place of the recipe's dtype.
    assert read.mixed_precision == "no"
