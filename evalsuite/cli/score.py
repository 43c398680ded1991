"""`evalsuite score`: from a checkpoint folder to a scorecard."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.judge import judge_options, make_judges
from evalsuite.cli.options import comma_list, complete_benchmarks, complete_suites, data_options, folder_options

if TYPE_CHECKING:
    from evalsuite.score import Job

EPILOG = """\b
Examples:
  evalsuite score ckpt/
  evalsuite score ckpt/ --tasks gsm8k,mmlu --limit 200 --data-root data/
  evalsuite score ckpt/ --model vllm --dtype bfloat16
  evalsuite score --model api:http://127.0.0.1:8000/v1 --served-model my-model --tasks ifeval
  evalsuite score ckpt/ --judge api:http://127.0.0.1:8001/v1 --judge-model my-judge
  evalsuite score ckpt/ --judge safety_llm=vllm:judge/ --judge alpaca_eval=api:https://… --judge-model NAME
  evalsuite score ckpt/ --rejudge --judge vllm:other-judge/

Stopped or killed? Type the same command again: only what was in flight is asked once more."""


@click.command("score", epilog=EPILOG)
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("--suite", shell_complete=complete_suites, help="Suite to score. [default: tulu3-dev]")
@click.option(
    "--tasks", callback=comma_list, shell_complete=complete_benchmarks, metavar="A,B", help="Only these benchmarks."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most N samples of each benchmark, drawn by --seed.")
@click.option(
    "--samples",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File of sample ids to score, one a line.",
)
@click.option(
    "--model",
    "engine",
    default="auto",
    show_default=True,
    metavar="ENGINE",
    help="auto, hf, vllm, api:URL or a plugin's.",
)
@click.option("--served-model", help="Name of the model at an api: endpoint.")
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="Environment variable that holds the key of an api: endpoint. [default: OPENAI_API_KEY for api.openai.com]",
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="Folder with the tokenizer of an api: endpoint; needed for log-likelihoods.",
)
@click.option("--concurrency", type=click.IntRange(min=1), help="Requests under way at once at an api: endpoint.")
@click.option(
    "--timeout-s", type=click.FloatRange(min=0, min_open=True), help="Time limit of one request to an api: endpoint."
)
@click.option(
    "--max-tokens-total",
    type=click.IntRange(min=1),
    help="Stop asking an api: endpoint before this many tokens are used.",
)
@click.option(
    "--max-cost-usd",
    type=click.FloatRange(min=0),
    help="Stop asking an api: endpoint before this is spent; needs --prices.",
)
@click.option(
    "--prices", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="YAML file with prices per model."
)
@click.option("--revision", help="Your name for the state of the model behind an api: endpoint.")
@click.option(
    "--dtype", default="auto", show_default=True, help="auto (the checkpoint's), float32, bfloat16 or float16."
)
@click.option("--device", help="cpu, cuda, cuda:1, … [default: a GPU where there is one]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: the cores we may use]")
@click.option(
    "--kv-budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="GIB",
    help="Memory for keys and values. [default: 2 GiB on a CPU, a quarter of what a GPU has free]",
)
@click.option("--max-length", type=click.IntRange(min=2), help="Window in tokens. [default: the checkpoint's]")
@click.option("--chat-template", metavar="FILE|name:NAME", help="Instead of the checkpoint's chat template.")
@click.option(
    "--long-prompts",
    type=click.Choice(["fail", "left"]),
    default="fail",
    show_default=True,
    help="A prompt longer than the window fails, or loses its left end as in lm-eval.",
)
@click.option("--deterministic", is_flag=True, help="Slow, and the same bits whatever else is computed.")
@click.option("--seed", type=int, default=1234, show_default=True, help="Draws samples and sampled responses.")
@click.option("--name", help="What tables call the checkpoint. [default: its folder]")
@click.option("--regime", metavar="NAME|FILE", help="Settings of another version. [default: the suite's]")
@click.option("--no-quirks", is_flag=True, help="Repair the published graders' oddities; tagged as another regime.")
@judge_options
@click.option("--rejudge", is_flag=True, help="Judge the stored responses; ask the checkpoint nothing.")
@click.option("--skip-judged", is_flag=True, help="Leave out what needs a judge; the suite is then incomplete.")
@click.option(
    "--require-sandbox",
    type=click.Choice(["bwrap", "landlock"]),
    help="Refuse to run model-written code under less isolation than this.",
)
@click.option(
    "--unsafe-exec", is_flag=True, help="Run model-written code where nothing can isolate it. It can do harm."
)
@data_options
@folder_options
@click.option("--require-complete", is_flag=True, help="Refuse partial datasets.")
@click.option("--fresh", is_flag=True, help="Ask everything again; nothing that is stored gets lost.")
@click.option("--keep-failed", is_flag=True, help="Do not ask failed samples again.")
@click.option("--no-wait", is_flag=True, help="Do not queue behind another run on the same journal.")
@click.option("--allow-pickle", is_flag=True, help="Load pickled weights; they can run any code.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that ships with the checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print the scorecard as JSON.")
def command(**options: Any) -> None:
    """Score CHECKPOINT, a folder in the Hugging Face layout, on a suite.

    Results go to stdout, progress to stderr, every response to the journal under --results the moment it arrives.
    """
    from evalsuite.progress import observer
    from evalsuite.score import card_file, score
    from evalsuite.scorecard import to_json

    watcher = observer()
    try:
        job = make_job(options)
        card = score(job, watcher)
    finally:
        watcher.close()
    if options["as_json"]:
        click.echo(to_json(card), nl=False)
    else:
        from evalsuite.tables import print_table
        from evalsuite.tables.leaderboard import card_table

        print_table(card_table(card))
    print(f"scorecard: {card_file(job, card)}", file=sys.stderr)


def make_job(options: Mapping[str, Any]) -> Job:
    """The job that the options describe; every problem with them is found before any engine or dataset is loaded."""
    from evalsuite.checkpoint import open_checkpoint
    from evalsuite.data import data_roots
    from evalsuite.score import Job
    from evalsuite.scorecard import CheckpointRef
    from evalsuite.suite import adhoc_suite, load_suite

    settings = (options["extra"], options["regime"], not options["no_quirks"])
    if options["suite"] is None and options["tasks"]:
        suite = adhoc_suite(options["tasks"], *settings)
        columns = dict(suite.columns)
    else:
        suite = load_suite(options["suite"] or "tulu3-dev", *settings)
        columns = suite.select(options["tasks"])
    # A suite file of a user's may declare what it holds unseen; a list of tasks says nothing of its own.
    declared = suite.split == "unseen" and options["suite"] is not None
    unseen = [name for name, b in columns.items() if declared or b.meta.split == "unseen"]
    if unseen:
        _refuse_unseen(suite.name, unseen)
    roots = data_roots(options["data_roots"])
    judges, skipped = make_judges(options, columns)
    columns = {c: b for c, b in columns.items() if c not in skipped}
    if not columns:
        raise click.UsageError(
            f"--skip-judged leaves nothing to score: {', '.join(skipped)} need a judge (--judge ENGINE)"
        )
    _allow_code(options)
    chat = any(b.meta.chat for b in columns.values())
    if options["engine"].startswith("api:"):
        reference, path, engine, render = _endpoint(options, chat)
    else:
        if options["checkpoint"] is None:
            raise click.UsageError("a checkpoint folder is expected, as in: evalsuite score ckpt/")
        checkpoint = open_checkpoint(
            options["checkpoint"], allow_pickle=options["allow_pickle"], trust_remote_code=options["trust_remote_code"]
        )
        reference, path = CheckpointRef(options["name"] or checkpoint.name, checkpoint.digest), checkpoint.path
        engine, render = _local_engine(options, checkpoint, chat)
    return Job(
        suite=suite,
        columns=columns,
        checkpoint=reference,
        path=path,
        engine=engine,
        render=render,
        results=options["results"],
        data_roots=roots,
        offline=options["offline"],
        limit=options["limit"],
        samples=_samples(options["samples"]),
        seed=options["seed"],
        fresh=options["fresh"],
        keep_failed=options["keep_failed"],
        wait=not options["no_wait"],
        require_complete=options["require_complete"],
        judges=judges,
        rejudge=options["rejudge"],
        skipped=skipped,
    )


def _refuse_unseen(name: str, columns: Sequence[str]) -> None:
    from evalsuite.errors import UnseenBudget

    raise UnseenBudget(
        f"suite {name!r} has unseen benchmarks ({', '.join(columns)}): looking at them while developing would make "
        "them development benchmarks. Only a release may read them, and this version has no command for it yet"
    )


def _allow_code(options: Mapping[str, Any]) -> None:
    """Sets under what isolation model-written code may run."""
    if options["require_sandbox"] or options["unsafe_exec"]:
        from evalsuite import sandbox

        sandbox.use(sandbox.Policy(options["require_sandbox"], options["unsafe_exec"], None))


def _samples(path: Path | None) -> frozenset[str] | None:
    if path is None:
        return None
    try:
        ids = frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except UnicodeDecodeError as error:
        raise click.UsageError(f"--samples {path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    if not ids:
        raise click.UsageError(f"--samples {path}: the file names no sample")
    return ids


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
