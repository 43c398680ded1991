"""`evalsuite score`: from a checkpoint folder to a scorecard."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.engine import allow_code, describe_engine, engine_options, sandbox_options
from evalsuite.cli.judge import judge_options, make_judges
from evalsuite.cli.options import comma_list, complete_benchmarks, complete_suites, data_options, folder_options

if TYPE_CHECKING:
    from evalsuite.benchmark import Benchmark
    from evalsuite.score import Job, JudgeMaker
    from evalsuite.suite import Suite

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
@engine_options
@click.option("--seed", type=int, default=1234, show_default=True, help="Draws samples and sampled responses.")
@click.option("--name", help="What tables call the checkpoint. [default: its folder]")
@click.option("--regime", metavar="NAME|FILE", help="Settings of another version. [default: the suite's]")
@click.option("--no-quirks", is_flag=True, help="Repair the published graders' oddities; tagged as another regime.")
@judge_options
@click.option("--rejudge", is_flag=True, help="Judge the stored responses; ask the checkpoint nothing.")
@click.option("--skip-judged", is_flag=True, help="Leave out what needs a judge; the suite is then incomplete.")
@sandbox_options
@data_options
@folder_options
@click.option("--require-complete", is_flag=True, help="Refuse partial datasets.")
@click.option("--fresh", is_flag=True, help="Ask everything again; nothing that is stored gets lost.")
@click.option("--keep-failed", is_flag=True, help="Do not ask failed samples again.")
@click.option("--no-wait", is_flag=True, help="Do not queue behind another run on the same journal.")
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
        from evalsuite.tables.marks import gate_marks

        overridden = gate_marks(options["results"] / "registry").overrides(card.checkpoint.digest)
        print_table(card_table(card, [f"{overridden}."] if overridden else []))
    print(f"scorecard: {card_file(job, card)}", file=sys.stderr)


def make_job(options: Mapping[str, Any], *, release: bool = False) -> Job:
    """The job that the options describe; every problem with them is found before any engine or dataset is loaded.

    Raises UnseenBudget where a benchmark is unseen, unless a release asks.
    """
    from evalsuite.suite import adhoc_suite, load_suite

    settings = (options["extra"], options["regime"], not options["no_quirks"])
    if options["suite"] is None and options["tasks"]:
        suite = adhoc_suite(options["tasks"], *settings)
        columns = dict(suite.columns)
    else:
        suite = load_suite(options["suite"] or "tulu3-dev", *settings)
        columns = suite.select(options["tasks"])
    if not release:
        from evalsuite.unseen import refuse

        refuse(suite, columns)
    judges, skipped = make_judges(options, columns)
    columns = {c: b for c, b in columns.items() if c not in skipped}
    if not columns:
        raise click.UsageError(
            f"--skip-judged leaves nothing to score: {', '.join(skipped)} need a judge (--judge ENGINE)"
        )
    allow_code(options)
    return replace(
        describe_job(options, options["checkpoint"], suite, columns, judges),
        limit=options["limit"],
        samples=_samples(options["samples"]),
        seed=options["seed"],
        fresh=options["fresh"],
        keep_failed=options["keep_failed"],
        require_complete=options["require_complete"],
        rejudge=options["rejudge"],
        skipped=skipped,
    )


def describe_job(
    options: Mapping[str, Any],
    checkpoint: Path | None,
    suite: Suite,
    columns: Mapping[str, Benchmark],
    judges: Mapping[str, JudgeMaker],
) -> Job:
    """One checkpoint on these columns, all samples of them, as the options of engine and data say; starts nothing."""
    from evalsuite.data import data_roots
    from evalsuite.score import Job

    roots = data_roots(options["data_roots"])
    chat = any(b.meta.chat for b in columns.values())
    reference, path, engine, render = describe_engine(options, checkpoint, chat)
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
        wait=not options["no_wait"],
        judges=judges,
    )


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
