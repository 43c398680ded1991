"""How many iterations, optimizer steps and checkpoints a run makes, and what memory it needs: for plan and worker.

Checkpoints are saved by iterations, schedule and warm-up count optimizer steps: a warm-up of a tenth of Tülu 3 70B's
2,500 is 250 steps.
"""

from __future__ import annotations

from evalsuite.errors import UsageError, did_you_mean
from evalsuite.trainers.machine import gib
from evalsuite.trainers.planning import PlanFacts, StagePlan
from evalsuite.trainers.types import SaveRule
from train_plugins.memory import (
    Layout,
    Shape,
    cache_bytes,
    model_shape,
    pass_bytes,
    sharding,
    state_bytes,
    value_parameters,
)
from train_plugins.rlvr.options import RLVROptions

TOKENS_PER_PASS = 16384  # what a GPU is given where `tokens_per_pass` says nothing


def plan_rlvr(options: RLVROptions, facts: PlanFacts) -> StagePlan:
    """The plan of a run; no model is loaded. Raises UsageError with everything that keeps it from being divided."""
    if wrong := _problems(options, facts):
        raise UsageError("; ".join(wrong))
    policy = model_shape(facts.model) if facts.model is not None else None
    value = _value_shape(options, facts, policy)
    known = policy is not None and (value is not None or options.algorithm == "grpo")
    share = -(-options.rollouts_per_iteration // facts.processes)
    return StagePlan(
        rows=facts.rows,
        steps=steps_of(options),
        warmup_steps=warmup_of(options),
        tokens=None,
        batch=options.rollouts_per_iteration // options.mini_batches,
        per_device_batch=-(-share // options.mini_batches),
        accumulation=1,
        processes=facts.processes,
        saves=len(saves_of(options, facts.save)),
        parameters=None if policy is None else policy.parameters,
        state_bytes=_state(options, facts, policy, value) if known and policy is not None else None,
        activation_bytes=_one_pass(options, policy, share) if known and policy is not None else None,
        iterations=options.n_iterations,
        rollouts=options.rollouts_per_iteration,
        prompts=options.prompts_per_iteration,
        networks=_networks(options, policy, value),
        beside=_generator(options, policy, facts.processes, share),
    )


def steps_of(options: RLVROptions) -> int:
    """Optimizer steps of the policy in the whole run."""
    return options.n_iterations * options.updates_per_iteration


def schedule_of(options: RLVROptions) -> int:
    """Optimizer steps of the learning rate's schedule: longer than the run where that is ended earlier."""
    return (options.schedule_iterations or options.n_iterations) * options.updates_per_iteration


def warmup_of(options: RLVROptions) -> int:
    """Optimizer steps of the warm-up, rounded down as in open-instruct."""
    return int(schedule_of(options) * options.warmup_ratio)


def saves_of(options: RLVROptions, save: SaveRule) -> tuple[int, ...]:
    """The iterations after which a checkpoint is saved, in order; the last one always is."""
    n = options.n_iterations
    at = {*save.at, n} | (set(range(save.steps, n + 1, save.steps)) if save.steps else set())
    return tuple(sorted(iteration for iteration in at if 0 < iteration <= n))


def engine_gpus(options: RLVROptions) -> int:
    """GPUs of the vLLM engine."""
    return int(options.generator_options.get("tensor_parallel_size", 1))


def _problems(options: RLVROptions, facts: PlanFacts) -> list[str]:
    prompts, n = options.prompts_per_iteration, facts.processes
    wrong = []
    if prompts % n:
        low = prompts // n * n
        nearest = " and ".join(str(each) for each in (low, low + n) if each)
        wrong.append(
            f"prompts_per_iteration {prompts} does not divide by {n} processes; the nearest that do: {nearest}"
        )
    if facts.save.epochs is not None:
        wrong.append("save.epochs has no meaning for rlvr; give save.steps, in iterations")
    if facts.rows is not None and facts.rows < prompts:
        wrong.append(f"the data has {facts.rows} rows, an iteration asks {prompts}; lower prompts_per_iteration")
    return wrong + _problems_of_inputs(options, facts)


def _problems_of_inputs(options: RLVROptions, facts: PlanFacts) -> list[str]:
    """Models that are named and not read, or read and not named: rewards would be others than was meant."""
    read = {"value_init": options.algorithm == "ppo" and options.value_init == "checkpoint",
            "reward_model": options.reward_model_multiplier != 0}  # fmt: skip
    wrong = [f"inputs: unknown {name!r}{did_you_mean(name, read)}; rlvr knows {' and '.join(read)}"
             for name in facts.inputs if name not in read]  # fmt: skip
    if read["value_init"] and "value_init" not in facts.inputs:
        wrong.append(
            "value_init is checkpoint, and the stage names none; set inputs: {value_init: rm@last} or "
            "value_init: policy with value_warmup"
        )
    if options.algorithm == "ppo" and "value_init" in facts.inputs and not read["value_init"]:
        wrong.append(
            f"inputs name value_init, but options.value_init is {options.value_init}; set it to checkpoint, or leave "
            "the input out"
        )
    if read["reward_model"] and "reward_model" not in facts.inputs:
        wrong.append("reward_model_multiplier needs inputs: {reward_model: CKPT} in the stage")
    if "reward_model" in facts.inputs and not read["reward_model"]:
        wrong.append("inputs name reward_model, but reward_model_multiplier is 0; set it, or leave the input out")
    return wrong


def _value_shape(options: RLVROptions, facts: PlanFacts, policy: Shape | None) -> Shape | None:
    """The model whose trunk the value network is; None for GRPO, and where its shape is not known."""
    if options.algorithm == "grpo":
        return None
    if options.value_init != "checkpoint":
        return policy
    model = facts.inputs.get("value_init")
    return model_shape(model) if model is not None else None


def _has_reference(options: RLVROptions) -> bool:
    return options.beta > 0 or options.kl_stop is not None


def _state(options: RLVROptions, facts: PlanFacts, policy: Shape, value: Shape | None) -> int:
    trained = policy.parameters + (value_parameters(value) if value is not None else 0)
    frozen = policy.parameters if _has_reference(options) else 0
    layout = Layout(facts.processes, sharding(facts.launch), 1)
    return state_bytes(trained, frozen, _width(options), layout, policy.layers)


def _one_pass(options: RLVROptions, policy: Shape, share: int) -> int:
    """As if every response were as long as it may be; the policy's pass is the larger one of the two."""
    longest = options.prompt_tokens + options.response_tokens
    rows = min(share, max(1, (options.tokens_per_pass or TOKENS_PER_PASS) // longest))
    return pass_bytes(policy, rows * longest, _width(options), checkpointing=options.gradient_checkpointing)


def _networks(options: RLVROptions, policy: Shape | None, value: Shape | None) -> str:
    trained = "policy" if policy is None else f"policy ({policy.parameters:,} parameters)"
    if options.algorithm == "ppo":
        size = "" if value is None else f" ({value_parameters(value):,})"
        trained += f" and value network{size}"
    return f"{trained} trained" + (", reference frozen" if _has_reference(options) else "")


def _generator(options: RLVROptions, policy: Shape | None, processes: int, share: int) -> str:
    """What generation needs, in words."""
    if options.generator == "vllm":
        n = engine_gpus(options)
        devices = options.generator_options.get("cuda_visible_devices")
        which = "" if devices is None else f" ({devices})"
        each = "" if policy is None else f", {gib(2 * policy.parameters / n)} of weights in each"
        return f"vLLM has {n} more GPU{'s' * (n != 1)}{which} to itself{each} and the rest for keys and values"
    if policy is None:
        return "transformers generates: keys and values of the rollouts come on top"
    longest, width = options.prompt_tokens + options.response_tokens, _width(options)
    cache = gib(cache_bytes(policy, share * longest, width))
    told = f"transformers generates: up to {cache} of keys and values for {share} rollouts at once"
    if options.mode == "async":
        return f"{told}, and a copy of the policy ({gib(width * policy.parameters)}) in a process of its own"
    return f"{told}, in the learner's process"


def _width(options: RLVROptions) -> int:
    return 2 if options.dtype == "bfloat16" else 4
