"""Options that several verbs share, and how they complete in a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def comma_list(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """`a,b,c` as a tuple; None when the option was not given."""
    if value is None:
        return None
    names = tuple(dict.fromkeys(n.strip() for n in value.split(",") if n.strip()))
    if not names:
        raise click.BadParameter("expected names separated by commas", ctx, parameter)
    return names


def complete_suites(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from evalsuite.suite import known_suites

    return [name for name in known_suites() if name.startswith(incomplete)]


def complete_benchmarks(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from evalsuite.benchmark import known_benchmarks

    done, _, last = incomplete.rpartition(",")
    prefix = f"{done}," if done else ""
    return [prefix + name for name in known_benchmarks() if name.startswith(last)]


def data_options(function: F) -> F:
    """--data-root and --offline."""
    function = click.option(
        "--data-root",
        "data_roots",
        multiple=True,
        metavar="DIR",
        help="Folder of local copies, DIR/<owner>/<name>; repeatable, the first that has a dataset wins."
        " [default: EVALSUITE_DATA_ROOT]",
    )(function)
    return click.option("--offline", is_flag=True, help="Never ask the hub, only data roots and caches.")(function)


benchmarks_option = click.option(
    "--benchmarks",
    "extra",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with benchmark folders of your own; repeatable.",
)


def results_option(what: str) -> Callable[[F], F]:
    """--results, with what is kept or looked for there."""
    return click.option(
        "--results",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("results"),
        show_default=True,
        help=what,
    )


def folder_options(function: F) -> F:
    """--benchmarks and --results."""
    return results_option("Where journals and scorecards are kept.")(benchmarks_option(function))


def table_options(function: F) -> F:
    """--format and --out of a command that prints a table."""
    function = click.option(
        "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write there instead of stdout."
    )(function)
    return click.option(
        "--format",
        "form",
        type=click.Choice(["terminal", "md", "csv", "latex", "html", "json"]),
        help="[default: what the ending of --out means, else terminal]",
    )(function)
