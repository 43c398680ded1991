"""`decontam clean`: the training data again, without what a scan found in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

DESCRIPTION = """Write the data of the scan in OUT again without what it found.

    Names, format, compression, row order and the bytes of untouched lines stay. Only files that were scanned are
    written, and only fields that were matched are changed. The folder of -o must be new or empty; it is there whole or
    not at all. cleaning.json in it tells which rows went and which changed."""

EPILOG = """\b
Ways (--how):
  drop-row   the whole row goes: what the Tülu 3 authors did
  drop-turn  the user turn and the reply to it go; the row goes where no user turn is left, or where it is no chat
  mask-span  the words found become […], with --window characters around them; slices shorter than --min-slice go too,
             and a message of which nothing is left goes as with drop-turn
  tag        nothing goes; rows get a field `contamination` with eval, instance and score (0 to 1)
  gpt3       mask-span as GPT-3 did it: --window 200, --min-slice 201, the row goes at the 11th place to cut

\b
Examples:
  python -m decontam clean report/ -o sft-clean/
  python -m decontam clean report/ -o sft-clean/ --how drop-turn --by capped
  python -m decontam clean report/ -o sft-clean/ --by reviewed
  python -m decontam clean report/ -o sft-clean/ --how mask-span --window 40 --also near --json

Exit codes: 0 written, 2 wrong usage, data that changed since the scan, or what the disk refused, 70 a bug."""


@click.command("clean", help=DESCRIPTION, epilog=EPILOG)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o",
    "--output",
    "cleaned",
    type=click.Path(path_type=Path),
    required=True,
    metavar="CLEANED",
    help="The new folder.",
)
@click.option(
    "--how",
    type=click.Choice(["drop-row", "drop-turn", "mask-span", "tag", "gpt3"]),
    default="drop-row",
    show_default=True,
    help="What becomes of what was found.",
)
@click.option(
    "--by",
    type=click.Choice(["exact", "capped", "near", "reviewed"]),
    default="exact",
    show_default=True,
    help="Which matches count: of the rule, of the rule under the cap on common phrases, near-duplicates, or those"
    " accepted in `decontam review`.",
)
@click.option(
    "--also",
    type=click.Choice(["near", "short"]),
    multiple=True,
    help="Clean near-duplicates, or instances found by --short, besides; repeatable.",
)
@click.option(
    "--window",
    type=click.IntRange(min=0),
    metavar="N",
    help="Characters masked on both sides of what was found. [default: 0; gpt3: 200]",
)
@click.option(
    "--min-slice",
    type=click.IntRange(min=0),
    metavar="N",
    help="Shorter pieces between masks go too. [default: 20 characters; gpt3: 201]",
)
@click.option("--incomplete", is_flag=True, help="Clean what was found though the scan could not read everything.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="What relative paths of the scan count from. [default: the current folder]",
)
@click.option("--json", "as_json", is_flag=True, help="Print cleaning.json.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def command(
    out: Path,
    cleaned: Path,
    how: Any,
    by: Any,
    also: tuple[Any, ...],
    window: int | None,
    min_slice: int | None,
    incomplete: bool,
    root: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    import json

    from decontam.clean.decide import way_of
    from decontam.clean.report import as_text
    from decontam.clean.run import clean
    from decontam.report.passages import visible

    if how not in ("mask-span", "gpt3") and (window is not None or min_slice is not None):
        raise click.UsageError(f"--window and --min-slice are for --how mask-span and gpt3, not for {how}")
    report = clean(
        out,
        cleaned,
        way_of(how, window, min_slice),
        by,
        also,
        incomplete=incomplete,
        root=root,
        say=(lambda line: None) if quiet else (lambda line: click.echo(visible(line), err=True)),
    )
    click.echo(json.dumps(report, indent=1) if as_json else as_text(report, cleaned))
