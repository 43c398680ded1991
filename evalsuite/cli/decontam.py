"""`evalsuite decontam`: the verbs of `python -m decontam`, with the benchmarks of a suite as evals.

The only file of evalsuite that knows decontam, which knows nothing of evalsuite.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decontam.cli import VERBS as THEIRS
from decontam.cli import LazyGroup
from evalsuite.cli.options import (
    benchmarks_option,
    comma_list,
    complete_benchmarks,
    complete_suites,
    data_options,
    results_option,
)

if TYPE_CHECKING:
    from decontam.types import EvalSet
    from evalsuite.decontamination import Texts
    from evalsuite.suite import Suite

VERBS = {verb: about for verb, about in THEIRS.items() if verb != "completion"}
PUBLISHED = "tulu3"  # the list of evals whose text fields are taken over
DEFAULT_SUITE = "tulu3-dev"

EPILOG = """\b
Examples:
  evalsuite decontam scan sft.jsonl --suite tulu3-dev --data-root data/
  evalsuite decontam scan sft.jsonl --suite tulu3-dev,tulu3-unseen
  evalsuite decontam review results/decontam/sft.jsonl-tulu3-dev
  evalsuite decontam clean results/decontam/sft.jsonl-tulu3-dev -o sft-clean

Exit codes: 0 nothing over the limit, 1 a data set is over the limit on an eval, 2 wrong usage or broken input,
3 not over the limit but incomplete, 70 a bug."""

SCAN_HELP = """Find the rows of TRAIN that carry text of the benchmarks of a suite, and say why.

    TRAIN is a file (.jsonl, .jsonl.gz, .jsonl.zst, .parquet, .arrow), a folder, a glob, or NAME=PATH. What is looked
    for are the documents of each benchmark as they are scored, by the ids of scorecards, so that a gate, the loop and
    compare --clean can go by the report. The same command goes on where it stopped."""

SCAN_EPILOG = """\b
Examples:
  evalsuite decontam scan sft.jsonl --suite tulu3-dev --data-root data/
  evalsuite decontam scan sft=data/train/*.parquet --suite tulu3-dev,tulu3-unseen --near-dup
  evalsuite decontam scan rlvr.jsonl --tasks gsm8k,math --select prompt --scan all
  evalsuite decontam scan sft.jsonl --suite demo --evals own.jsonl --eval-field question

A gate takes a report that is about every benchmark of its suite; with --tasks or --skip-missing it need not be. Unseen
texts may be read for this; where there is a registry the ledger takes it down.

Exit codes: 0 nothing over the limit, 1 a data set is over the limit on an eval, 2 wrong usage or broken input,
3 not over the limit but incomplete, 70 a bug."""


class _Verbs(LazyGroup):
    """Their verbs, but for those of which we have our own; their errors become ours."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "scan":
            return _scan_command()
        return super().get_command(ctx, name) if name in VERBS else None

    def invoke(self, ctx: click.Context) -> Any:
        from decontam.errors import DecontamError
        from evalsuite.errors import UsageError

        try:
            return super().invoke(ctx)
        except DecontamError as error:
            ours = UsageError(str(error))
            ours.exit_code = error.exit_code  # 3 where training data could not be read to its end
            raise ours from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group("decontam", cls=_Verbs, epilog=EPILOG)
def command() -> None:
    """Find, explain and remove the texts of benchmarks in training data."""


def _scan_command() -> click.Command:
    from decontam.cli.scan import options

    return click.command("scan", help=SCAN_HELP, epilog=SCAN_EPILOG)(_suite_options(options(scan)))


def _suite_options(function: Any) -> Any:
    """Which benchmarks, and where their data is."""
    given = (
        click.argument("train", nargs=-1, required=True, type=click.Path()),
        click.option(
            "--suite",
            "suites",
            callback=comma_list,
            shell_complete=complete_suites,
            metavar="NAME|FILE[,…]",
            help="Suites whose benchmarks are looked for. [default: tulu3-dev, unless --tasks or --evals name some]",
        ),
        click.option(
            "--tasks",
            callback=comma_list,
            shell_complete=complete_benchmarks,
            metavar="A,B",
            help="Only these benchmarks.",
        ),
        click.option("--evals", "specs", multiple=True, metavar="SPEC", help="More evals, as of python -m decontam."),
        click.option("--eval-field", "fields", multiple=True, metavar="FIELD", help="Text field of those; repeatable."),
        click.option(
            "--kind",
            type=click.Choice(["development", "unseen", "safety"]),
            default="development",
            show_default=True,
            help="What the evals of --evals are for; benchmarks say so themselves.",
        ),
        click.option("--skip-missing", is_flag=True, help="Leave out benchmarks whose data is absent, and say so."),
        click.option("--regime", metavar="NAME|FILE", help="Settings of another version. [default: the suite's]"),
        click.option("--no-quirks", is_flag=True, help="Repair the published graders' oddities."),
        data_options,
        benchmarks_option,
        results_option("Where decontam/ with the reports and the registry with the ledger are."),
    )
    for option in reversed(given):
        function = option(function)
    return function


def scan(
    train: tuple[str, ...],
    suites: tuple[str, ...] | None,
    tasks: tuple[str, ...] | None,
    specs: tuple[str, ...],
    fields: tuple[str, ...],
    kind: Any,
    skip_missing: bool,
    regime: str | None,
    no_quirks: bool,
    data_roots: tuple[str, ...],
    offline: bool,
    extra: tuple[Path, ...],
    results: Path,
    out: Path | None,
    **options: Any,
) -> int:
    """Scans `train` for the texts of suites; the exit code of `python -m decontam scan`."""
    from decontam.cli.scan import read_evals
    from decontam.cli.scan import scan as their_scan
    from decontam.errors import DecontamError
    from evalsuite.data import data_roots as roots_of
    from evalsuite.decontamination import benchmarks_of, note_unseen
    from evalsuite.errors import UsageError

    roots = roots_of(data_roots)
    built = options.get("index") is not None
    if built and (suites or tasks or specs):
        raise UsageError("--index brings the evals that it was built of; leave out --suite, --tasks and --evals")
    chosen = [] if built else _suites(suites, tasks, specs, (extra, regime, not no_quirks))
    try:
        place = out or results / "decontam" / _folder(train, chosen, specs or (["index"] if built else []))
        more = read_evals(specs, fields, kind, roots[0] if roots else None, skip_missing) if specs else []
    except DecontamError as error:
        raise UsageError(str(error)) from error
    benchmarks = benchmarks_of(chosen, tasks) if chosen else {}
    note_unseen(results, chosen, list(benchmarks), train)
    evals = suite_evals(benchmarks, roots, offline=offline, skip_missing=skip_missing) if chosen else []
    left_out = benchmarks_of(chosen).keys() - {each.name for each in evals} if chosen else ()
    if left_out:
        _say(f"no gate takes this report for the suite: it is not about {', '.join(sorted(left_out))}")
    return their_scan(train, [*evals, *more], place, **options)


def _suites(
    names: Sequence[str] | None, tasks: Sequence[str] | None, specs: Sequence[str], settings: tuple[Any, ...]
) -> list[Suite]:
    """The suites that are asked for; none where only files are."""
    from evalsuite.suite import adhoc_suite, load_suite

    if names is None and tasks is not None:
        return [adhoc_suite(tasks, *settings)]
    return [load_suite(name, *settings) for name in names or ([] if specs else [DEFAULT_SUITE])]


def _folder(train: Sequence[str], suites: Sequence[Suite], specs: Sequence[str]) -> str:
    """The name of the data, as in reports, and of what it is scanned for."""
    from decontam.inputs import discover

    names = "+".join(discover(each).name.strip(f"{os.sep}.") for each in train)
    names = names if len(names) <= 100 else f"{names[:99]}…"
    looked_for = "+".join([*(suite.name.removeprefix("tasks:") for suite in suites), *(["evals"] if specs else [])])
    return f"{names}-{looked_for}".replace(os.sep, "-")


def suite_evals(
    benchmarks: Mapping[str, Any], roots: Sequence[Path], *, offline: bool = False, skip_missing: bool = False
) -> list[EvalSet]:
    """One eval for each benchmark, by its name, and what the list of Tülu 3 has besides of the same data (PopQA's
    questions beside its triples)."""
    from decontam.evals.hub import read_list
    from evalsuite.decontamination import find_texts
    from evalsuite.errors import DataError

    listed = read_list(PUBLISHED)
    published = {each.dataset: each.fields for each in listed if not each.ours}
    found = find_texts(benchmarks, roots, published, offline=offline, skip_missing=skip_missing)
    for name, why in found.missing.items():
        _say(f"left out: {name} ({why})")
    if not found.texts:
        raise DataError(f"the data of no benchmark is there ({', '.join(found.missing)}); --data-root DIR has it")
    evals = [_eval_set(texts, texts.name, texts.fields) for texts in found.texts]
    besides = {each.dataset: each for each in listed if each.ours}
    for texts in found.texts:
        for each in (besides[name] for name in texts.datasets if name in besides):
            if each.name not in benchmarks and each.fields[0] in next(iter(texts.docs.values())):
                evals.append(_eval_set(texts, each.name, each.fields))
    return evals


def _eval_set(texts: Texts, name: str, fields: tuple[str, ...]) -> EvalSet:
    from decontam.evals import eval_set

    rows, ids = list(texts.docs.values()), list(texts.docs)
    source = f"{texts.name} ({', '.join(texts.datasets) or 'generated'})"
    made = eval_set(name, rows, fields, kind=texts.kind, ids=ids, source=source)
    return replace(made, digest=texts.digest) if texts.digest else made


def _say(line: str) -> None:
    print(line, file=sys.stderr)
