"""The plan of an RLVR run: iterations, steps, warm-up, checkpoints, memory, and what cannot be divided."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evalsuite.errors import UsageError
from evalsuite.trainers.planning import PlanFacts
from evalsuite.trainers.types import SaveRule
from train_plugins.memory import Shape, cache_bytes, value_parameters
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.plan import plan_rlvr, saves_of, schedule_of, steps_of, warmup_of

LLAMA = "meta-llama/Llama-3.1-8B"
PARAMETERS = 8_030_261_248
VALUE = PARAMETERS - 128_256 * 4096 + 4096  # no table of logits, one output
PPO = RLVROptions(
    algorithm="ppo", lr=1e-6, prompts_per_iteration=8, response_tokens=16, prompt_tokens=16, beta=0.1,
    weight_decay=0.0, episodes=100, epochs=4,
)  # fmt: skip
GRPO = replace(PPO, algorithm="grpo", kl_in="loss", samples_per_prompt=4, epochs=1, mini_batches=2)

ALL_THREE = (
    "prompts_per_iteration 8 does not divide by 3 processes; the nearest that do: 6 and 9; "
    "save.epochs has no meaning for rlvr; give save.steps, in iterations; "
    "value_init is checkpoint, and the stage names none; set inputs: {value_init: rm@last} or "
    "value_init: policy with value_warmup"
)


def facts(processes: int = 1, **more: object) -> PlanFacts:
    return replace(PlanFacts(processes=processes, inputs={"value_init": LLAMA}), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "iterations", "steps"),
    [
        (PPO, 12, 48),  # 100 / 8 is rounded down; 4 epochs of one mini-batch
        (GRPO, 3, 6),  # 100 / (8·4) = 3.1; 2 mini-batches
        (replace(PPO, episodes=None, iterations=5), 5, 20),
    ],
)
def test_steps_are_iterations_times_epochs_times_mini_batches(
    options: RLVROptions, iterations: int, steps: int
) -> None:
    plan = plan_rlvr(options, facts())
    assert (plan.iterations, plan.steps, steps_of(options)) == (iterations, steps, steps)


def test_warm_up_is_a_floored_part_of_the_schedule_in_optimizer_steps() -> None:
    options = replace(PPO, warmup_ratio=0.1)
    assert warmup_of(options) == 4  # 4.8 of 48
    longer = replace(options, episodes=None, iterations=12, schedule_iterations=100)
    assert (steps_of(longer), schedule_of(longer), warmup_of(longer)) == (48, 400, 40)


@pytest.mark.parametrize(
    ("save", "iterations"),
    [
        (SaveRule(), (12,)),  # the end always saves
        (SaveRule(steps=5), (5, 10, 12)),
        (SaveRule(steps=6, at=(1, 99)), (1, 6, 12)),
    ],
)
def test_checkpoints_are_saved_by_iterations(save: SaveRule, iterations: tuple[int, ...]) -> None:
    assert saves_of(PPO, save) == iterations
    assert plan_rlvr(PPO, facts(save=save)).saves == len(iterations)


@pytest.mark.parametrize(
    ("options", "given", "told"),
    [
        (PPO, facts(3), "prompts_per_iteration 8 does not divide by 3 processes; the nearest that do: 6 and 9"),
        (PPO, facts(16), "prompts_per_iteration 8 does not divide by 16 processes; the nearest that do: 16"),
        (PPO, facts(save=SaveRule(epochs=1)), "save.epochs has no meaning for rlvr; give save.steps, in iterations"),
        (PPO, PlanFacts(processes=3, save=SaveRule(epochs=1)), ALL_THREE),
        (GRPO, facts(rows=7), "the data has 7 rows, an iteration asks 8; lower prompts_per_iteration"),
        (
            replace(PPO, value_init="policy"),
            facts(),
            "inputs name value_init, but options.value_init is policy; set it to checkpoint, or leave the input out",
        ),
        (
            GRPO,
            facts(inputs={"reward_modle": LLAMA}),
            "inputs: unknown 'reward_modle'; did you mean 'reward_model'?; rlvr knows value_init and reward_model",
        ),
        (
            GRPO,
            facts(inputs={"reward_model": LLAMA}),
            "inputs name reward_model, but reward_model_multiplier is 0; set it, or leave the input out",
        ),
        (
            replace(GRPO, reward_model_multiplier=0.5),
            facts(),
            "reward_model_multiplier needs inputs: {reward_model: CKPT} in the stage",
        ),
    ],
)
def test_what_cannot_be_is_told_all_at_once(options: RLVROptions, given: PlanFacts, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_rlvr(options, given)
    assert str(caught.value) == told


@pytest.mark.parametrize("options", [GRPO, replace(PPO, value_init="policy", value_warmup=2)])
def test_only_a_value_network_from_a_checkpoint_needs_an_input(options: RLVROptions) -> None:
    assert plan_rlvr(options, PlanFacts()).steps == steps_of(options)


def test_policy_and_value_network_are_trained_and_the_reference_frozen() -> None:
    whole = facts(model=LLAMA)
    ppo = plan_rlvr(PPO, whole)
    assert ppo.state_bytes == 16 * (PARAMETERS + VALUE) + 2 * PARAMETERS
    assert ppo.parameters == PARAMETERS
    assert ppo.networks == (
        "policy (8,030,261,248 parameters) and value network (7,504,928,768) trained, reference frozen"
    )
    grpo = plan_rlvr(GRPO, whole)
    assert grpo.state_bytes == 18 * PARAMETERS
    assert grpo.networks == "policy (8,030,261,248 parameters) trained, reference frozen"
    assert plan_rlvr(replace(GRPO, dtype="float32"), whole).state_bytes == 20 * PARAMETERS
    # Without a KL term nothing asks for the reference.
    free = plan_rlvr(replace(GRPO, beta=0.0), whole)
    assert (free.state_bytes, free.networks) == (16 * PARAMETERS, "policy (8,030,261,248 parameters) trained")
    spread = plan_rlvr(GRPO, facts(8, model=LLAMA, launch="fsdp2"))
    assert spread.state_bytes == -(-18 * PARAMETERS // 8)


def test_policy_and_value_network_may_differ_in_size() -> None:
    plan = plan_rlvr(PPO, facts(model="meta-llama/Llama-3.1-70B"))
    assert plan.state_bytes == 18 * 70_553_706_496 + 16 * VALUE


def test_memory_is_not_known_without_both_shapes_and_the_rest_stands() -> None:
    for given in (facts(), facts(model=LLAMA, inputs={"value_init": "nobody/knows"})):
        plan = plan_rlvr(PPO, given)
        assert (plan.state_bytes, plan.steps) == (None, 48)
        assert "value network" in plan.networks


def test_a_pass_holds_as_many_rollouts_of_full_length_as_it_may_have_tokens() -> None:
    # 32 tokens each; 2, or all 8 of the only process, or the 2 that each of 4 processes has
    passes = [
        plan_rlvr(replace(PPO, tokens_per_pass=tokens), facts(n, model=LLAMA)).activation_bytes
        for tokens, n in ((95, 1), (None, 1), (None, 4))
    ]
    assert None not in passes
    assert passes == [passes[0], 4 * passes[0], passes[0]]  # type: ignore[operator]


def test_a_value_network_has_one_output_in_place_of_logits_and_tied_tables_stay() -> None:
    shape = Shape(parameters=1000, hidden=10, layers=2, intermediate=20, heads=2, kv_heads=1, vocabulary=30)
    assert value_parameters(shape) == 1000 - 30 * 10 + 10
    assert value_parameters(replace(shape, tied=True)) == 1010
    # keys and values, 2 layers, one head of 5 units, 2 bytes
    assert cache_bytes(shape, 7, 2) == 7 * 2 * 2 * 5 * 2


def test_what_generation_needs_is_said_in_words() -> None:
    own = replace(GRPO, generator="vllm", generator_options={"tensor_parallel_size": 2, "cuda_visible_devices": "6,7"})
    assert plan_rlvr(own, facts(model=LLAMA)).beside == (
        "vLLM has 2 more GPUs (6,7) to itself, 7.5 GiB of weights in each and the rest for keys and values"
    )
    assert plan_rlvr(replace(own, generator_options={}), facts()).beside.startswith("vLLM has 1 more GPU to itself and")
    # 16 rollouts on each of 2 processes, 32 tokens, 2 · 32 layers · 8 heads · 128 units · 2 bytes: 64 MiB
    sync = plan_rlvr(GRPO, facts(2, model=LLAMA)).beside
    assert sync == (
        "transformers generates: up to 0.1 GiB of keys and values for 16 rollouts at once, in the learner's process"
    )
    apart = plan_rlvr(replace(GRPO, mode="async"), facts(2, model=LLAMA)).beside
    assert apart.endswith("and a copy of the policy (15.0 GiB) in a process of its own")


def test_planning_imports_neither_torch_nor_transformers() -> None:
    program = "import sys, train_plugins.rlvr.plan; print({'torch', 'transformers', 'vllm'} & set(sys.modules))"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
