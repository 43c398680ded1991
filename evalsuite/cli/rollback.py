"""`evalsuite rollback`: bring back an earlier checkpoint, as a new generation."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from evalsuite.cli.options import results_option

EPILOG = """\b
Examples:
  evalsuite rollback --reason "answers in the wrong language"
  evalsuite rollback --to 3 --reason "generation 4 was trained on leaked data"
  evalsuite rollback --ref release --reason "withdrawn"

Nothing is erased: the log keeps every generation (evalsuite registry log)."""


@click.command("rollback", epilog=EPILOG)
@click.option(
    "--ref",
    type=click.Choice(["champion", "anchor", "candidate", "release"]),
    default="champion",
    show_default=True,
    help="What is rolled back.",
)
@click.option("--to", type=click.IntRange(1), metavar="GENERATION", help="[default: the one before the present]")
@click.option("--reason", required=True, help="Why, for the log.")
@click.option("--lock", type=click.Choice(["flock", "lease"]), default="flock", help="lease: for NFS and the like.")
@results_option("Where the registry is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the new generation as JSON.")
def command(ref: str, to: int | None, reason: str, lock: str, results: Path, as_json: bool) -> None:
    """Bring back the champion before this one, or that of --to, as a new generation."""
    from dataclasses import asdict

    from evalsuite.errors import UsageError
    from evalsuite.registry import Registry
    from evalsuite.tables import print_text, visible

    if not reason.strip():
        raise UsageError("--reason is empty; say why, the log keeps it")
    registry = Registry.at(results, lock=lock, say=lambda line: print(line, file=sys.stderr))
    now = registry.rollback(ref, to=to, reason=reason)
    about = (registry.manifest(now.id) or {}).get("checkpoint", {})
    name, path = str(about.get("name", "?")), about.get("path")
    if path is not None and not Path(path).is_dir():
        print(f"warning: {visible(str(path))}: the folder of this checkpoint is gone", file=sys.stderr)
    if as_json:
        print_text(json.dumps({"ref": ref, "name": name, "path": path, **asdict(now)}, indent=1) + "\n")
    else:
        print_text(visible(f"{name} ({now.id[:12]}) is {ref} again, generation {now.generation}") + "\n")
