"""Options that say who judges, and the judges they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from evalsuite.benchmark import Benchmark
    from evalsuite.judge import Judge

F = TypeVar("F", bound=Callable[..., Any])


def judge_options(function: F) -> F:
    """--judge and what belongs to it."""
    options = (
        click.option(
            "--judge",
            "judges",
            multiple=True,
            metavar="[PROTOCOL=]ENGINE",
            help="Who judges: api:URL, vllm:PATH or hf:PATH; repeatable, PROTOCOL= for the benchmarks of one protocol.",
        ),
        click.option("--judge-model", metavar="NAME", help="Name of the judge at an api: endpoint."),
        click.option(
            "--judge-api-key-env",
            default="OPENAI_API_KEY",
            show_default=True,
            metavar="NAME",
            help="Environment variable that holds the key of the judge's endpoint.",
        ),
        click.option(
            "--judge-tokenizer",
            type=click.Path(path_type=Path, exists=True, file_okay=False),
            help="Folder with the tokenizer of the judge behind an api: endpoint.",
        ),
        click.option(
            "--judge-template",
            "judge_templates",
            multiple=True,
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            metavar="FILE",
            help="An official judge prompt that you have; it is known by its sha256. Repeatable.",
        ),
        click.option(
            "--judge-positions",
            type=click.Choice(["seeded", "both", "fixed"]),
            help="Order of the two answers a judge compares. [default: the protocol's, seeded as published]",
        ),
        click.option("--judge-discrete", is_flag=True, help="The judge's endpoint gives no log-probabilities."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def make_judges(
    options: Mapping[str, Any], columns: Mapping[str, Benchmark]
) -> tuple[dict[str, Callable[[], Judge]], tuple[str, ...]]:
    """(protocol to what opens its judge, columns left out for want of one). Opens nothing.

    Raises UsageError naming every judged benchmark without a judge, unless --skip-judged leaves them out.
    """
    judged = {column: b.meta.judge for column, b in columns.items() if b.meta.judge}
    if not judged:
        return {}, ()
    from evalsuite.judge import pick_judge

    makers: dict[str, Callable[[], Judge]] = {}
    without: dict[str, str] = {}
    for column, protocol in judged.items():
        spec = None if options["skip_judged"] else pick_judge(options["judges"], protocol)
        if spec is None:
            without[column] = protocol
            continue
        makers[protocol] = partial(judge_of, spec, protocol, options)
    if without and not options["skip_judged"]:
        raise _no_judge(without)
    return makers, tuple(without)


def judge_of(spec: str, protocol: str, options: Mapping[str, Any]) -> Judge:
    """The judge that `spec` and the options describe, for benchmarks that name `protocol`; opened and probed."""
    from evalsuite.judge import open_judge

    return open_judge(
        spec,
        protocol,
        served_model=options["judge_model"],
        api_key_env=options["judge_api_key_env"],
        tokenizer=options["judge_tokenizer"],
        templates=options["judge_templates"],
        positions=options["judge_positions"],
        discrete=options["judge_discrete"],
        results=options["results"],
        options=_engine_options(spec, options),
    )


def _engine_options(spec: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What of the run's own options a judge on this machine takes over."""
    local = not spec.rpartition("=")[2].startswith("api:")
    return {"threads": options["threads"]} if local and options.get("threads") is not None else {}


def _no_judge(without: Mapping[str, str]) -> Exception:
    from evalsuite.errors import UsageError

    listed = ", ".join(f"{column} ({protocol})" for column, protocol in without.items())
    return UsageError(
        f"{len(without)} benchmarks are scored by a judge, and none was given: {listed}\n"
        "  give one: --judge api:URL --judge-model NAME, --judge vllm:PATH or --judge hf:PATH\n"
        "  or leave them out, which makes the suite incomplete: --skip-judged"
    )
