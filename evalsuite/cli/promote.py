"""`evalsuite promote`: point a ref of the registry to a checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from evalsuite.cli.options import results_option

EPILOG = """\b
Examples:
  evalsuite promote run/step-2000
  evalsuite promote run/step-2000 --new-policy "gsm8k may now lose 1 point, see decision 12"
  evalsuite gate run/step-2000 --promote --retry 2     gates again when the champion was replaced
  evalsuite promote base-sft --ref anchor --reason "what every later model is held against"

The champion needs a verdict of the gate, by the policy that the present champion was judged by, and that must still be
the one it was judged against: if it was replaced meanwhile, this exits with 4 and changes nothing. anchor and candidate
are chosen by a person; the release is made by evalsuite release. Exits with 1 when the verdict is block, with 3 when it
is hold, with 2 for anything that is missing or broken."""


@click.command("promote", epilog=EPILOG)
@click.argument("checkpoint", metavar="CKPT", type=click.Path(path_type=Path))
@click.option(
    "--ref",
    type=click.Choice(["champion", "anchor", "candidate"]),
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
    help="When the champion was replaced: look N times for a newer verdict on CKPT; to gate again instead: evalsuite "
    "gate CKPT --promote --retry N.",
)
@click.option(
    "--new-policy", default="", metavar="REASON", help="Why a verdict by another policy than the champion's counts."
)
@click.option("--reason", default="", help="Why, for the log; an anchor needs one.")
@click.option("--paranoid", is_flag=True, help="Read every byte of the weights again.")
@click.option("--allow-pickle", is_flag=True, help="As it was scored: pickled weights count.")
@click.option("--trust-remote-code", is_flag=True, help="As it was scored: code in the folder counts.")
@click.option("--lock", type=click.Choice(["flock", "lease"]), default="flock", help="lease: for NFS and the like.")
@results_option("Where the registry is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the promotion as JSON.")
def command(
    checkpoint: Path,
    ref: str,
    verdict: str | None,
    retry: int,
    new_policy: str,
    reason: str,
    paranoid: bool,
    allow_pickle: bool,
    trust_remote_code: bool,
    lock: str,
    results: Path,
    as_json: bool,
) -> None:
    """Make CKPT the champion, by its verdict; or, chosen by a person, the anchor or the candidate."""
    from dataclasses import asdict

    from evalsuite.promotion import promote
    from evalsuite.registry import Registry
    from evalsuite.tables import print_text

    promoted = promote(
        Registry.at(results, lock=lock, say=_say),
        checkpoint,
        ref=ref,
        verdict=verdict,
        new_policy=new_policy,
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
