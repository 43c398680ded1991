"""Options that say who judges, and the judges they describe."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from evalsuite.benchmark import Benchmark
    from evalsuite.judge import Judge

F = TypeVar("F", bound=Callable[..., Any])

FOR_ONE = re.compile(r"([\w-]+|[\w./-]+\.ya?ml)=(.+)")
OPTIONS = {
    "judge_model": "--judge-model",
    "judge_api_key_env": "--judge-api-key-env",
    "judge_tokenizer": "--judge-tokenizer",
    "judge_positions": "--judge-positions",
    "judge_parser": "--judge-parser",
}


def by_protocol(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """`[PROTOCOL=]VALUE` of a repeatable option: protocol to value, under "" what is for all of them."""
    found: dict[str, str] = {}
    for text in values:
        named = FOR_ONE.fullmatch(text)
        protocol, value = (named[1], named[2]) if named else ("", text)
        if protocol in found:
            whom = f"the judge {protocol!r}" if protocol else "all judges (use PROTOCOL=VALUE)"
            raise click.BadParameter(f"two values for {whom}: {found[protocol]!r} and {value!r}", ctx, parameter)
        found[protocol] = value
    return found


def _valued(name: str, value: str, text: str) -> Callable[[F], F]:
    """An option whose values are for one protocol or for all."""
    return click.option(name, multiple=True, callback=by_protocol, metavar=f"[PROTOCOL=]{value}", help=text)


def judge_options(function: F) -> F:
    """--judge and what belongs to it."""
    options = (
        click.option(
            "--judge",
            "judges",
            multiple=True,
            metavar="[PROTOCOL=]ENGINE",
            help="Who judges: api:URL, vllm:PATH or hf:PATH; repeatable, PROTOCOL= for the benchmarks of one protocol,"
            " as in the options that follow.",
        ),
        _valued("--judge-model", "NAME", "Name of the judge at an api: endpoint."),
        _valued(
            "--judge-api-key-env",
            "NAME",
            "Environment variable that holds the key of the judge's endpoint."
            " [default: OPENAI_API_KEY for api.openai.com]",
        ),
        _valued("--judge-tokenizer", "DIR", "Folder with the tokenizer of the judge behind an api: endpoint."),
        click.option(
            "--judge-template",
            "judge_templates",
            multiple=True,
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            metavar="FILE",
            help="An official judge prompt that you have; its sha256 tells of which protocol. Repeatable.",
        ),
        _valued(
            "--judge-positions",
            "ORDER",
            "Order of the two answers a judge compares: seeded, both or fixed. [default: the protocol's, seeded as"
            " published]",
        ),
        _valued(
            "--judge-parser", "PARSER", "Reads the judge's answers otherwise, as href_tolerant does. Asks nothing."
        ),
        click.option("--judge-discrete", is_flag=True, help="The api: endpoints give no log-probabilities."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def make_judges(
    options: Mapping[str, Any], columns: Mapping[str, Benchmark]
) -> tuple[dict[str, Callable[[], Judge]], tuple[str, ...]]:
    """(protocol to what opens its judge, columns left out for want of one). Opens nothing.

    Raises UsageError naming every judged benchmark without a judge, unless --skip-judged leaves them out, and for a
    judge or an option that nothing here needs.
    """
    judged = {column: b.meta.judge for column, b in columns.items() if b.meta.judge}
    if not judged and not options["judges"]:
        return {}, ()
    from evalsuite.judge import pick_judge

    near = tuple(b.folder for b in columns.values())
    picked = {protocol: pick_judge(options["judges"], protocol, near) for protocol in dict.fromkeys(judged.values())}
    _refuse_unused(options["judges"], picked, near)
    without = {column: protocol for column, protocol in judged.items() if picked[protocol] is None}
    if without and not options["skip_judged"]:
        raise _no_judge(without)
    chosen = choose_judges([(spec, protocol) for protocol, spec in picked.items() if spec is not None], options, near)
    return {one.needed: partial(judge_of, one, options) for one in chosen}, tuple(without)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One judge as the command line describes it, for benchmarks that name the protocol `needed`."""

    spec: str
    needed: str
    near: tuple[Path, ...]
    templates: tuple[Path, ...]
    settings: Mapping[str, str]  # by the name of the option; what was not said is absent


def choose_judges(
    pairs: Sequence[tuple[str, str]], options: Mapping[str, Any], near: Sequence[Path] = ()
) -> list[Chosen]:
    """What the options say of each (spec, needed protocol). Raises UsageError for what they say of no judge here."""
    from evalsuite.judge import parse_spec
    from evalsuite.protocol import hand_out, load_protocol, protocol_name

    parsed = [(parse_spec(spec, near), needed) for spec, needed in pairs]
    names = [(protocol_name(one.protocol or needed), protocol_name(needed)) for one, needed in parsed]
    settings = {key: {protocol_name(p): v for p, v in options[key].items()} for key in OPTIONS}
    _refuse_strangers(settings, {name for both in names for name in both})
    if not pairs:
        return []
    if options["judge_discrete"] and all(one.engine != "api" for one, _ in parsed):
        raise click.UsageError("--judge-discrete is for api: judges; a local engine has log-probabilities")
    templates = hand_out(
        options["judge_templates"], [load_protocol(one.protocol or needed, near) for one, needed in parsed]
    )
    return [
        Chosen(spec, needed, tuple(near), files, _settings_of(both, settings))
        for (spec, needed), both, files in zip(pairs, names, templates, strict=True)
    ]


def judge_of(one: Chosen, options: Mapping[str, Any]) -> Judge:
    """The judge that was described; opened and probed."""
    from evalsuite.judge import open_judge, parse_spec

    api = parse_spec(one.spec, one.near).engine == "api"
    settings: Mapping[str, Any] = one.settings
    return open_judge(
        one.spec,
        one.needed,
        served_model=settings.get("judge_model"),
        api_key_env=settings.get("judge_api_key_env"),
        tokenizer=_folder(settings.get("judge_tokenizer")),
        templates=one.templates,
        positions=settings.get("judge_positions"),
        parser=settings.get("judge_parser"),
        discrete=options["judge_discrete"] and api,
        results=options["results"],
        # What of the run's own options a judge on this machine takes over.
        options={"threads": options["threads"]} if not api and options.get("threads") is not None else {},
        near=one.near,
    )


def _settings_of(names: Sequence[str], settings: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What is said of the judge's own protocol, else of the benchmark's, else of all."""
    found = {}
    for key, values in settings.items():
        said = next((values[name] for name in (*names, "") if name in values), None)
        if said is not None:
            found[key] = said
    return found


def _folder(text: str | None) -> Path | None:
    if text is not None and not Path(text).is_dir():
        raise click.UsageError(f"--judge-tokenizer {text}: no such folder")
    return None if text is None else Path(text)


def _refuse_unused(specs: Sequence[str], picked: Mapping[str, str | None], near: Sequence[Path]) -> None:
    """A judge for one protocol that judges nothing is a mistake; one for all may find nothing to do."""
    from evalsuite.errors import UsageError
    from evalsuite.judge import parse_spec

    needed = ", ".join(picked) or "none"
    for spec in specs:
        if parse_spec(spec, near).protocol and spec not in picked.values():
            raise UsageError(
                f"--judge {spec!r} would judge nothing here (protocols to judge for: {needed}); leave it out"
            )
    bare = [spec for spec in specs if not parse_spec(spec, near).protocol]
    if len(bare) > 1:
        raise UsageError(f"two judges for all protocols: {bare[0]!r} and {bare[1]!r}; use --judge PROTOCOL=ENGINE")


def _refuse_strangers(settings: Mapping[str, Mapping[str, str]], known: Collection[str]) -> None:
    from evalsuite.errors import UsageError, did_you_mean

    for key, values in settings.items():
        for protocol, value in values.items():
            if protocol and protocol not in known:
                raise UsageError(
                    f"{OPTIONS[key]} {protocol}={value}: no judge here has the protocol {protocol!r}"
                    f"{did_you_mean(protocol, known)} (in use: {', '.join(sorted(known)) or 'none'})"
                )


def _no_judge(without: Mapping[str, str]) -> Exception:
    from evalsuite.errors import UsageError

    listed = ", ".join(f"{column} ({protocol})" for column, protocol in without.items())
    return UsageError(
        f"{len(without)} benchmarks are scored by a judge, and none was given: {listed}\n"
        "  give one: --judge api:URL --judge-model NAME, --judge vllm:PATH or --judge hf:PATH\n"
        "  or, with score and gate, leave them out, which makes the suite incomplete: --skip-judged"
    )
