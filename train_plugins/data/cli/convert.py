"""`evalsuite data convert`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.options import data_options

if TYPE_CHECKING:
    from train_plugins.data.convert import Converted

EPILOG = """\b
Examples:
  evalsuite data convert alpaca.json -o sft.jsonl --licence Apache-2.0
  evalsuite data convert hh.jsonl.gz -o pairs.jsonl --merge-turns --skip-bad
  evalsuite data convert hub:allenai/tulu-3-sft-personas-math -o math.parquet --licence ODC-By-1.0
  evalsuite data convert sft.jsonl -o sharegpt.jsonl --to sharegpt

Formats: messages, alpaca, sharegpt, hh, oasst-pref, prompt-completion, prompt-chosen-rejected.
Inputs: .jsonl, .json, .csv, .parquet, each also .gz or .zst; a folder saved by datasets;
hub:owner/name[:config][:split].

Exit codes: 0 written, 2 bad rows or wrong usage, 70 a bug."""
SAYS_EVERY_S = 5.0
LIMITS = {"max_chars": 1_000_000, "max_bad": 0.01}


@click.command("convert", epilog=EPILOG)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A .jsonl, .jsonl.gz, .jsonl.zst or .parquet; FILE.meta.json is written beside it.",
)
@click.option("--from", "form", default="auto", show_default=True, metavar="FORMAT", help="Format of the input.")
@click.option(
    "--to",
    default="messages",
    show_default=True,
    metavar="FORMAT",
    help="messages (canonical rows), sharegpt, alpaca or prompt-completion.",
)
@click.option("--licence", default="", metavar="SPDX", help="Licence of the data; goes into the sidecar.")
@click.option("--origin", default="", metavar="TEXT", help="Where the data comes from. [default: the hub id]")
@click.option("--skill", "skills", multiple=True, metavar="NAME", help="Skill that the data is for; repeatable.")
@click.option("--source", default="", metavar="NAME", help="Source of rows that name none. [default: the file's name]")
@click.option("--keep", multiple=True, metavar="FIELD", help="Keep this field too; repeatable.")
@click.option("--new-ids", is_flag=True, help="Give every row an id by its content, whatever id it has.")
@click.option("--alpaca-preamble", is_flag=True, help='Put "Below is an instruction …" before alpaca rows.')
@click.option("--allow-tools", is_flag=True, help="Let messages of tools through.")
@click.option("--allow-template-text", is_flag=True, help="Let texts with role markers or an end of text through.")
@click.option("--merge-turns", is_flag=True, help="Join neighbouring messages of one role by a blank line.")
@click.option(
    "--max-chars", type=click.IntRange(1), default=LIMITS["max_chars"], show_default=True, help="Longest row."
)
@click.option("--skip-bad", is_flag=True, help="Leave bad rows out, and write them to --rejects.")
@click.option(
    "--max-bad",
    type=click.FloatRange(0, 1),
    default=LIMITS["max_bad"],
    show_default=True,
    metavar="FRACTION",
    help="Bad rows that --skip-bad leaves out at most.",
)
@click.option(
    "--rejects",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="[default: rejects.jsonl beside the output]",
)
@click.option("--overwrite", is_flag=True, help="Write over a file that is there.")
@data_options
@click.option("--json", "as_json", is_flag=True, help="Print what came of it as JSON.")
def command(
    inputs: tuple[str, ...],
    out: Path,
    as_json: bool,
    overwrite: bool,
    data_roots: tuple[str, ...],
    offline: bool,
    **options: Any,
) -> int:
    """Turn data of any common format into canonical rows, checked row by row.

    Nothing is written unless every row can be used, or --skip-bad leaves out the few that cannot.
    """
    from evalsuite.data import data_roots as roots_of
    from evalsuite.errors import UsageError
    from train_plugins.data.convert import convert
    from train_plugins.data.sources import open_source

    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there already; name another file with -o, or add --overwrite")
    rejects = options["rejects"] or out.with_name("rejects.jsonl")
    if options["skip_bad"] and rejects.exists() and not overwrite:
        raise UsageError(f"{rejects} is there already; name another file with --rejects, or add --overwrite")
    _check(options["licence"], options["skills"])
    roots = roots_of(data_roots)
    sources = [open_source(each, roots, offline=offline) for each in inputs]
    done = convert(sources, out, _options(inputs, out, **options), _progress())
    _tell(done, as_json)
    return 0 if done.written else 2


def _check(licence: str, skills: tuple[str, ...]) -> None:
    """Raises UsageError for a licence or a skill that a mix of this data would not take."""
    from evalsuite.errors import UsageError, did_you_mean
    from train_plugins.data.licences import LicenceRule, licence_problems
    from train_plugins.data.mixfile import SKILLS

    problems = list(licence_problems(LicenceRule(unknown="allow"), {"--licence": licence}))
    problems += [
        f"--skill: no skill {each!r}{did_you_mean(each, SKILLS)} (there are {', '.join(SKILLS)})"
        for each in skills
        if each not in SKILLS
    ]
    if problems:
        raise UsageError("\n".join(problems))


def _options(inputs: tuple[str, ...], out: Path, **given: Any) -> Any:
    from evalsuite import __version__
    from train_plugins.data.convert import ConvertOptions
    from train_plugins.data.kinds import RowRules

    told = {name: given[name] for name in ("licence", "origin") if given[name]} | {"skills": list(given["skills"])}
    made = {"command": _typed(inputs, out, given), "evalsuite": __version__}
    return ConvertOptions(
        given["form"],
        given["to"],
        RowRules(given["allow_tools"], given["allow_template_text"], given["merge_turns"], given["max_chars"]),
        given["alpaca_preamble"],
        given["skip_bad"],
        given["max_bad"],
        given["source"],
        given["keep"],
        given["new_ids"],
        given["rejects"],
        {"licence": "", **told, "made": made},
    )


def _typed(inputs: tuple[str, ...], out: Path, given: dict[str, Any]) -> str:
    """The command without the folders of this machine: only what decides the content."""
    import shlex

    flags = {"alpaca_preamble", "allow_tools", "allow_template_text", "merge_turns", "skip_bad", "new_ids"}
    words = [each if each.startswith("hub:") else Path(each).name for each in inputs] + ["-o", out.name]
    words += ["--from", given["form"], "--to", given["to"]]
    words += [f"--{name.replace('_', '-')}" for name in sorted(flags) if given[name]]
    words += [word for field in given["keep"] for word in ("--keep", field)]
    words += ["--source", given["source"]] if given["source"] else []
    for name in (name for name, usual in LIMITS.items() if given[name] != usual):
        words += [f"--{name.replace('_', '-')}", str(given[name])]
    return shlex.join(["evalsuite", "data", "convert", *words])


def _progress() -> Callable[[int], None]:
    """Says on stderr how far a long conversion is."""
    told = time.monotonic()

    def say(n_rows: int) -> None:
        nonlocal told
        if time.monotonic() - told >= SAYS_EVERY_S:
            told = time.monotonic()
            print(f"convert: {n_rows:,} rows", file=sys.stderr)

    return say


def _tell(done: Converted, as_json: bool) -> None:
    written = done.written
    if as_json:
        about = {"file": str(written.path), "digest": written.digest, "rows": written.n_rows} if written else None
        content = {"written": about, "why": done.why, "formats": dict(done.formats), **done.tally.as_json()}
        content |= {"dropped_fields": list(done.dropped_fields), "rejects": str(done.rejects) if done.rejects else None}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
    if done.tally.n_bad:
        print("\n".join(done.tally.lines()), file=sys.stderr)
    if written is None:
        print(f"evalsuite: {done.why}", file=sys.stderr)
    elif not as_json:
        formats = ", ".join(dict.fromkeys(done.formats.values()))
        dropped = f"; left out: {', '.join(done.dropped_fields)}" if done.dropped_fields else ""
        click.echo(f"{written.path}: {written.n_rows} rows from {formats}, sha256 {written.digest[:12]}{dropped}")
        if done.rejects:
            click.echo(f"{done.rejects}: {done.tally.n_bad} rows that were left out")
