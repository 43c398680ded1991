"""Options that say which engine answers and how, and the engine that they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def engine_options(function: F) -> F:
    """--model and what belongs to it."""
    options = (
        click.option(
            "--model",
            "engine",
            default="auto",
            show_default=True,
            metavar="ENGINE",
            help="auto, hf, vllm, api:URL or a plugin's.",
        ),
        click.option("--served-model", help="Name of the model at an api: endpoint."),
        click.option(
            "--api-key-env",
            metavar="NAME",
            help="Environment variable that holds the key of an api: endpoint."
            " [default: OPENAI_API_KEY for api.openai.com]",
        ),
        click.option(
            "--tokenizer",
            type=click.Path(path_type=Path),
            help="Folder with the tokenizer of an api: endpoint; needed for log-likelihoods.",
        ),
        click.option(
            "--concurrency", type=click.IntRange(min=1), help="Requests under way at once at an api: endpoint."
        ),
        click.option(
            "--timeout-s",
            type=click.FloatRange(min=0, min_open=True),
            help="Time limit of one request to an api: endpoint.",
        ),
        click.option(
            "--max-tokens-total",
            type=click.IntRange(min=1),
            help="Stop asking an api: endpoint before this many tokens are used.",
        ),
        click.option(
            "--max-cost-usd",
            type=click.FloatRange(min=0),
            help="Stop asking an api: endpoint before this is spent; needs --prices.",
        ),
        click.option(
            "--prices",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="YAML file with prices per model.",
        ),
        click.option("--revision", help="Your name for the state of the model behind an api: endpoint."),
        click.option(
            "--dtype", default="auto", show_default=True, help="auto (the checkpoint's), float32, bfloat16 or float16."
        ),
        click.option("--device", help="cpu, cuda, cuda:1, … [default: a GPU where there is one]"),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: the cores we may use]"),
        click.option(
            "--kv-budget",
            type=click.FloatRange(min=0, min_open=True),
            metavar="GIB",
            help="Memory for keys and values. [default: 2 GiB on a CPU, a quarter of what a GPU has free]",
        ),
        click.option("--max-length", type=click.IntRange(min=2), help="Window in tokens. [default: the checkpoint's]"),
        click.option("--chat-template", metavar="FILE|name:NAME", help="Instead of the checkpoint's chat template."),
        click.option(
            "--long-prompts",
            type=click.Choice(["fail", "left"]),
            default="fail",
            show_default=True,
            help="A prompt longer than the window fails, or loses its left end as in lm-eval.",
        ),
        click.option("--deterministic", is_flag=True, help="Slow, and the same bits whatever else is computed."),
        click.option("--allow-pickle", is_flag=True, help="Load pickled weights; they can run any code."),
        click.option("--trust-remote-code", is_flag=True, help="Run Python code that ships with the checkpoint."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def sandbox_options(function: F) -> F:
    """--require-sandbox and --unsafe-exec."""
    options = (
        click.option(
            "--require-sandbox",
            type=click.Choice(["bwrap", "landlock"]),
            help="Refuse to run model-written code under less isolation than this.",
        ),
        click.option(
            "--unsafe-exec", is_flag=True, help="Run model-written code where nothing can isolate it. It can do harm."
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def describe_engine(options: Mapping[str, Any], folder: Path | None, chat: bool) -> tuple[Any, Path | None, Any, Any]:
    """(checkpoint's name and digest, its folder, engine, chat template) as the options describe them; starts nothing.

    The folder is None for an endpoint, the template where none is needed. Raises UsageError and CheckpointError.
    """
    from evalsuite.checkpoint import open_checkpoint
    from evalsuite.scorecard import CheckpointRef

    if options["engine"].startswith("api:"):
        return _endpoint(options, chat)
    if folder is None:
        raise click.UsageError("a checkpoint folder is expected, as in: evalsuite score ckpt/")
    checkpoint = open_checkpoint(
        folder, allow_pickle=options["allow_pickle"], trust_remote_code=options["trust_remote_code"]
    )
    engine, render = _local_engine(options, checkpoint, chat)
    return CheckpointRef(options["name"] or checkpoint.name, checkpoint.digest), checkpoint.path, engine, render


def allow_code(options: Mapping[str, Any]) -> None:
    """Sets under what isolation model-written code may run."""
    if options["require_sandbox"] or options["unsafe_exec"]:
        from evalsuite import sandbox

        sandbox.use(sandbox.Policy(options["require_sandbox"], options["unsafe_exec"], None))


def _local_engine(options: Mapping[str, Any], checkpoint: Any, chat: bool) -> tuple[Any, Any]:
    from evalsuite.models import EngineSpec, choose

    template = _template(checkpoint.path, options["chat_template"], chat)
    name, reason = choose(options["engine"])
    engine_options = {
        key: options[key] for key in ("device", "threads", "max_length", "chat_template") if options[key] is not None
    }
    if options["kv_budget"] is not None:
        gib = options["kv_budget"]
        engine_options |= {"kv_gib": max(1, round(gib))} if name == "vllm" else {"kv_budget": int(gib * 2**30)}
    if name == "vllm" and "device" in engine_options:
        raise click.UsageError("--device is for --model hf; vllm takes the devices of CUDA_VISIBLE_DEVICES")
    for flag in ("allow_pickle", "trust_remote_code"):
        if options[flag]:
            engine_options[flag] = True
    spec = EngineSpec(
        name,
        reason,
        checkpoint.dtype if options["dtype"] == "auto" else options["dtype"],
        options["deterministic"],
        options["long_prompts"],
        template.digest if template else "",
        engine_options if name != "fake" else {},
    )
    return spec, template.render if template else None


def _template(folder: Path, override: str | None, chat: bool) -> Any:
    """The chat template; None where there is none and no benchmark needs one."""
    from evalsuite.errors import CheckpointError
    from evalsuite.models.chat import TEMPLATE_DATE, ChatTemplate

    try:
        return ChatTemplate.from_checkpoint(folder, override, now=TEMPLATE_DATE)
    except CheckpointError:
        if chat or override:
            raise
        return None


def _endpoint(options: Mapping[str, Any], chat: bool) -> tuple[Any, None, Any, Any]:
    from evalsuite.models import EngineSpec
    from evalsuite.models.api.model import APIModel
    from evalsuite.scorecard import CheckpointRef

    if options["served_model"] is None:
        raise click.UsageError("--model api:URL needs --served-model NAME, the model's name at that endpoint")
    keys: tuple[str, ...] = ("served_model", "api_key_env", "tokenizer", "concurrency", "timeout_s", "max_length")
    keys += ("chat_template", "max_tokens_total", "max_cost_usd", "prices", "revision")
    arguments = {"base_url": options["engine"].removeprefix("api:")}
    arguments |= {key: options[key] for key in keys if options[key] is not None}
    model = APIModel(**arguments)
    try:
        digest = model.identity()["digest"]
    finally:
        model.close()
    template = _template(options["tokenizer"], options["chat_template"], chat) if options["tokenizer"] else None
    spec = EngineSpec(
        "api", "asked for", "server", False, options["long_prompts"], template.digest if template else "", arguments
    )
    # Rendering asks the server nothing, so it goes on after `close`.
    return CheckpointRef(options["name"] or options["served_model"], digest), None, spec, model.render
