"""`evalsuite promote`: point a ref of the registry to a checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

EPILOG = """\b
Examples:
  evalsuite promote run/step-2000
  evalsuite promote run/step-2000 --retry 2
  evalsuite promote base-sft --ref anchor --reason "what every later model is held against"

champion and release need a verdict of the gate, and the champion must still be the one it was judged against: if it
was replaced meanwhile, this exits with 4 and changes nothing. anchor and candidate are chosen by a person. Exits with 1
when the verdict is block, with 3 when it is hold, with 2 for anything that is missing or broken."""


@click.command("promote", epilog=EPILOG)
@click.argument("checkpoint", metavar="CKPT", type=click.Path(path_type=Path))
@click.option(
    "--ref",
    type=click.Choice(["champion", "anchor", "candidate", "release"]),
    default="champion",
    show_default=True,
    help="What the checkpoint becomes.",
)
@click.option("--verdict", metavar="ID", help="The verdict that is meant.  [default: the newest on CKPT]")
@click.option(
    "--retry",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Gate again, N times, when the champion was replaced.",
)
@click.option("--reason", default="", help="Why, for the log; an anchor needs one.")
@click.option("--paranoid", is_flag=True, help="Read every byte of the weights again.")
@click.option("--allow-pickle", is_flag=True, help="As it was scored: pickled weights count.")
@click.option("--trust-remote-code", is_flag=True, help="As it was scored: code in the folder counts.")
@click.option("--lock", type=click.Choice(["flock", "lease"]), default="flock", help="lease: for NFS and the like.")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Where the registry is kept.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the promotion as JSON.")
def command(
    checkpoint: Path,
    ref: str,
    verdict: str | None,
    retry: int,
    reason: str,
    paranoid: bool,
    allow_pickle: bool,
    trust_remote_code: bool,
    lock: str,
    results: Path,
    as_json: bool,
) -> None:
    """Make CKPT the champion, by its verdict; or the anchor, the candidate or the release."""
    from dataclasses import asdict

    from evalsuite.promotion import promote
    from evalsuite.registry import Registry
    from evalsuite.tables import print_text

    promoted = promote(
        Registry.at(results, lock=lock, say=_say),
        checkpoint,
        ref=ref,
        verdict=verdict,
        reason=reason,
        paranoid=paranoid,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
        retries=retry,
    )
    for warning in promoted.warnings:
        _say(f"warning: {warning}")
    print_text(json.dumps(asdict(promoted), indent=1) + "\n" if as_json else _line(promoted) + "\n")


def _line(promoted: object) -> str:
    from evalsuite.promotion import Promoted
    from evalsuite.tables import visible

    assert isinstance(promoted, Promoted)
    by = f", verdict {promoted.verdict[:12]}" if promoted.verdict else ""
    mark = f", ⚑ overridden by {promoted.overridden_by}" if promoted.overridden_by else ""
    done = " (it was already)" if promoted.already else ""
    return visible(
        f"{promoted.name} ({promoted.id[:12]}) is {promoted.ref}, generation {promoted.generation}{by}{mark}{done}"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)
