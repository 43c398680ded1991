"""`decontam scan`: training data against evals, with a verdict as exit code."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from decontam.rules import RULES

if TYPE_CHECKING:
    from decontam.job import Runner
    from decontam.types import EvalSet

F = TypeVar("F", bound=Callable[..., Any])

DESCRIPTION = """Find the rows of TRAIN that carry evaluation text, and say why.

    TRAIN is a file (.jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow), a folder, a pattern, or NAME=PATH. Reports go to
    --out, and what was found is printed. The same command goes on where it stopped."""

EPILOG = """\b
Examples:
  python -m decontam scan sft.jsonl --evals gsm8k_test.jsonl
  python -m decontam scan sft=data/train/*.parquet --evals decontam:tulu3 --data-root hub/ --out report/
  python -m decontam scan chat.jsonl.gz --select 'messages[*].content' --evals lm-eval:gsm8k --near-dup
  python -m decontam scan big/ --evals evals/ --kind unseen --ray auto

Exit codes: 0 nothing over the limit, 1 a data set is over the limit on an eval, 2 wrong usage or broken input,
3 not over the limit but incomplete, 70 a bug."""


def options(function: F) -> F:
    """All options of a scan but those that say which evals."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def complete_rules(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in RULES if name.startswith(incomplete)]


def _complete_evals(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    known = [CompletionItem(each) for each in ("decontam:tulu3", "lm-eval:") if each.startswith(incomplete)]
    return [*known, CompletionItem(incomplete, type="file")]


analyzer_option = click.option(
    "--analyzer",
    type=click.Choice(["pattern", "standard"]),
    help="How rule tulu3 splits words: at its separators, or as Unicode does (slow, to compare). [default: pattern]",
)
_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--select",
        "select",
        multiple=True,
        metavar="SELECTOR",
        help="Which texts of a row are matched: messages[role=user].content, instruction+input, text, any dotted path;"
        " repeatable. [default: what the first rows suggest, told]",
    ),
    click.option(
        "--scan",
        "scope",
        type=click.Choice(["prompts", "all"]),
        default="prompts",
        show_default=True,
        help="all: assistant turns and answers too, marked as completions.",
    ),
    click.option(
        "--rule",
        default="tulu3",
        show_default=True,
        metavar="NAME",
        shell_complete=complete_rules,
        help="What counts as a match; `python -m decontam rules` lists them.",
    ),
    analyzer_option,
    click.option(
        "--cap",
        type=click.IntRange(min=1),
        default=50,
        show_default=True,
        help="A phrase that more evaluation instances own than this is common; capped scores leave it out.",
    ),
    click.option("--near-dup", "near_dup", is_flag=True, help="Look for near-duplicates too, reported apart."),
    click.option(
        "--profile",
        type=click.Choice(["default", "wide"]),
        help="How far near-duplicates may differ; needs --near-dup. [default: default]",
    ),
    click.option(
        "--short",
        type=click.Choice(["exact"]),
        help="Look for instances that are too short for the rule as a whole, reported apart.",
    ),
    click.option("--drop-empty-fields", is_flag=True, help="An empty field of an instance does not count as a field."),
    click.option(
        "--limit-rate",
        "limit",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.02,
        show_default=True,
        help="A data set is over the limit when more than this share of an eval's instances is in it.",
    ),
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Where reports go. [default: results/decontam/NAMES OF THE DATA]",
    ),
    click.option(
        "--workers", type=click.IntRange(min=1), help="Threads. [default: as many as cores this process may use]"
    ),
    click.option("--strict", is_flag=True, help="Stop at the first broken line with exit code 2."),
    click.option("--fresh", is_flag=True, help="Throw away what is in --out and start anew."),
    click.option("--rebuild-index", is_flag=True, help="Build the index of the evals again."),
    click.option(
        "--ray",
        is_flag=False,
        flag_value="auto",
        metavar="[ADDRESS]",
        help="Scan on a Ray cluster: the one that is running, or the one at ADDRESS. Needs evalsuite[ray].",
    ),
    click.option(
        "--es-cap",
        type=click.IntRange(min=1),
        metavar="N",
        help="Only the first N rows of a file that hold a phrase count for it, as in a search engine; to compare.",
    ),
    click.option(
        "--shard-mb",
        type=click.FloatRange(min=0, min_open=True),
        default=64.0,
        show_default=True,
        help="Size of a piece of work in MiB.",
    ),
    click.option(
        "--cache",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Where indexes are kept. [default: DECONTAM_CACHE, else decontam/ in ~/.cache]",
    ),
    click.option(
        "--index",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        metavar="DIR",
        help="An index that `index` has built: it brings evals, rule and cap, so none of them are given.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON."),
    click.option("--quiet", is_flag=True, help="No progress on stderr."),
)


def eval_options(function: F) -> F:
    """--evals and what says how to read them."""
    for option in reversed(_EVAL_OPTIONS):
        function = option(function)
    return function


_EVAL_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--evals",
        "specs",
        multiple=True,
        metavar="SPEC",
        shell_complete=_complete_evals,
        help="FILE or DIR (JSONL, Parquet), lm-eval:TASK, or decontam:tulu3; repeatable.",
    ),
    click.option(
        "--eval-field",
        "fields",
        multiple=True,
        metavar="FIELD",
        help="Field of the evals' rows that must not be in the data; repeatable, then all must."
        " [default: question, problem, prompt, … whichever comes first]",
    ),
    click.option(
        "--kind",
        type=click.Choice(["development", "unseen", "safety"]),
        default="development",
        show_default=True,
        help="What the evals are for: a data set that carries unseen ones is to be dropped.",
    ),
    click.option(
        "--data-root",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        envvar="EVALSUITE_DATA_ROOT",
        metavar="DIR",
        help="Folder of hub data, DIR/<owner>/<name>, for decontam:tulu3. [default: EVALSUITE_DATA_ROOT]",
    ),
    click.option("--skip-missing", is_flag=True, help="Leave out evals of decontam:tulu3 that --data-root lacks."),
)


@click.command("scan", help=DESCRIPTION, epilog=EPILOG)
@click.argument("train", nargs=-1, required=True, type=click.Path())
@eval_options
@options
def command(
    train: tuple[str, ...],
    specs: tuple[str, ...],
    fields: tuple[str, ...],
    kind: Any,
    data_root: Path | None,
    skip_missing: bool,
    out: Path | None,
    **options: Any,
) -> int:
    if bool(specs) == (options["index"] is not None):
        raise click.UsageError("expected --evals SPEC, or --index DIR, and not both")
    evals = read_evals(specs, fields, kind, data_root, skip_missing)
    return scan(train, evals, out, **options)


def read_evals(
    specs: Sequence[str], fields: Sequence[str], kind: Any, data_root: Path | None, skip_missing: bool
) -> list[EvalSet]:
    """The evals that the command line names."""
    from decontam.evals import load_evals

    return [
        each
        for spec in specs
        for each in load_evals(spec, fields, kind=kind, data_root=data_root, skip_missing=skip_missing)
    ]


def scan(
    train: Sequence[str],
    evals: Sequence[EvalSet],
    out: Path | None,
    *,
    select: Sequence[str] = (),
    scope: str = "prompts",
    rule: str = "tulu3",
    analyzer: str | None = None,
    cap: int = 50,
    near_dup: bool = False,
    profile: str | None = None,
    short: str | None = None,
    drop_empty_fields: bool = False,
    limit: float = 0.02,
    workers: int | None = None,
    strict: bool = False,
    fresh: bool = False,
    rebuild_index: bool = False,
    ray: str | None = None,
    es_cap: int | None = None,
    shard_mb: float = 64.0,
    cache: Path | None = None,
    index: Path | None = None,
    as_json: bool = False,
    quiet: bool = False,
) -> int:
    """Scans, writes the reports to `out`, prints what was found, and returns the exit code."""
    from decontam.errors import DecontamError
    from decontam.job import Options, prepare, refuse_out, run
    from decontam.job.progress import Silent, observer
    from decontam.report.terminal import matrix_text
    from decontam.rules import find_rule

    if index is not None and analyzer is not None:
        raise DecontamError("--index brings its rule with its analyzer; leave out --analyzer")
    if profile is not None and not near_dup:
        raise DecontamError("--profile is about near-duplicates; add --near-dup")
    runner = _runner(workers, ray)  # first: a cluster that does not answer is told before an index is built
    watching = Silent() if quiet else observer()
    try:
        job = prepare(
            train,
            evals,
            select=select,
            scan_all=scope == "all",
            rule=find_rule(rule, analyzer).name,
            cap=cap,
            drop_empty_fields=drop_empty_fields,
            limit=limit,
            options=Options(near=(profile or "default") if near_dup else "", short=bool(short), es_cap=es_cap or 0),
            shard_bytes=max(1, round(shard_mb * (1 << 20))),
            cache=cache or cache_folder(),
            rebuild=rebuild_index,
            index=index,
            say=watching.say,
            ready=lambda job: refuse_out(job, out or _default_out(job), fresh=fresh),
        )
        finished = run(job, out or _default_out(job), runner, watching, strict=strict, fresh=fresh)
    finally:
        watching.close()
    with suppress(BrokenPipeError):  # who has seen enough may go; the exit code is the verdict
        click.echo(finished.verdict if as_json else matrix_text(finished.matrix, _width()), nl=False)
    return finished.exit


def _width() -> int | None:
    """Columns of the terminal, None for a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def cache_folder() -> Path:
    """Where indexes are kept: $DECONTAM_CACHE, else decontam/ in $XDG_CACHE_HOME, else in ~/.cache."""
    own = os.environ.get("DECONTAM_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "decontam"


def _default_out(job: Any) -> Path:
    names = "+".join(Path(dataset.name).name.split(".")[0] for dataset in job.datasets)
    return Path("results", "decontam", names if len(names) <= 100 else names[:99] + "…")


def _runner(workers: int | None, ray: str | None) -> Runner:
    from decontam.job import in_threads, usable_cores

    if ray is not None:
        from decontam.ray import on_ray

        return on_ray(ray, workers)
    return in_threads(workers or usable_cores())
