"""`evalsuite registry`: read the history of promotions, check it, show what it holds, export it."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evalsuite.registry import Event, Registry

EPILOG = """\b
Examples:
  evalsuite registry log
  evalsuite registry verify
  evalsuite registry show champion
  evalsuite registry show 9f8e7d6c
  evalsuite registry export --mlflow sqlite:///mlflow.db"""

_results = click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Where the registry is kept.",
)


@click.group("registry", epilog=EPILOG)
def command() -> None:
    """Read the history of promotions, check it, show what it holds, export it."""


@command.command("log")
@click.option("--ref", help="Only events of this ref.")
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON, hashes included.")
@_results
def log(ref: str | None, as_json: bool, results: Path) -> None:
    """Print every event, oldest first."""
    from dataclasses import asdict

    from evalsuite.registry.refs import check_name
    from evalsuite.tables import print_text

    registry = _open(results)
    events = [e for e in registry.events() if ref is None or e.ref == check_name(ref)]
    if as_json:
        print_text(json.dumps({"events": [asdict(e) for e in events]}, indent=1) + "\n")
        return
    names = _names(registry, events)
    print_text("".join(_wrapped(_event_line(event, names)) for event in events))


@command.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print the faults as JSON.")
@_results
def verify(as_json: bool, results: Path) -> None:
    """Hash everything again and report every fault; exits with 2 when there is one."""
    from evalsuite.errors import RegistryError
    from evalsuite.tables import print_text, visible

    registry = _open(results)
    faults = registry.verify()
    if as_json:
        print_text(json.dumps({"faults": faults}, indent=1) + "\n")
    else:
        print_text("".join(visible(fault) + "\n" for fault in faults))
    if faults:
        raise RegistryError(
            f"{registry.root}: {len(faults)} fault(s), listed above; promote nothing before it is restored"
        )
    if not as_json:
        print_text(f"{len(registry.events())} events and everything they name are whole\n")


@command.command("show")
@click.argument("what", metavar="ID")
@_results
def show(what: str, results: Path) -> None:
    """Print as JSON what ID stands for: a ref, an object or a checkpoint (the first digits of its digest do)."""
    from evalsuite.tables import print_text

    print_text(json.dumps(_find(_open(results), what), indent=1, sort_keys=True) + "\n")


@command.command("export")
@click.option("--mlflow", "uri", metavar="URI", help="MLflow's tracking or registry address.")
@click.option("--ref", default="champion", show_default=True, help="What is exported; its name becomes the alias.")
@click.option("--model", default="evalsuite", show_default=True, help="Name of the registered model in MLflow.")
@click.option("--lock", type=click.Choice(["flock", "lease"]), default="flock", help="lease: for NFS and the like.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
@_results
def export(uri: str | None, ref: str, model: str, lock: str, as_json: bool, results: Path) -> None:
    """Write the present champion to MLflow: a model version, an alias and tags."""
    from dataclasses import asdict

    from evalsuite.errors import UsageError
    from evalsuite.registry.export import to_mlflow
    from evalsuite.tables import print_text

    if not uri:
        raise UsageError("export to where? name it: --mlflow URI, as in --mlflow sqlite:///mlflow.db")
    done = to_mlflow(_open(results, lock=lock), uri, ref=ref, model=model)
    if as_json:
        print_text(json.dumps(asdict(done), indent=1) + "\n")
    else:
        state = "written" if done.created else "was there already"
        print_text(f"{done.model} version {done.version} {state}, alias {done.alias}\n")


def _open(results: Path, **options: Any) -> Registry:
    from evalsuite.errors import RegistryError
    from evalsuite.registry import Registry

    registry = Registry.at(results, say=lambda line: print(line, file=sys.stderr), **options)
    if not registry.root.is_dir():
        raise RegistryError(f"{registry.root}: no registry there; the first gate makes one, or name it with --results")
    return registry


def _find(registry: Registry, what: str) -> Any:
    from dataclasses import asdict

    from evalsuite.errors import RegistryError
    from evalsuite.registry import REFS

    if what in REFS:
        ref = registry.ref(what)
        if ref is None:
            raise RegistryError(f"there is no {what} yet (see: evalsuite registry log)")
        return {"ref": asdict(ref), "manifest": registry.manifest(ref.id)}
    start = what.removeprefix("sha256:").lower()
    ids = {str(e.id) for e in registry.events() if len(start) >= 4 and str(e.id or "").startswith(start)}
    if len(ids) == 1:
        (found,) = ids
        events = [asdict(e) for e in registry.events() if e.id == found]
        return {"checkpoint": found, "manifest": registry.manifest(found), "events": events}
    return registry.get(what)


def _names(registry: Registry, events: list[Event]) -> dict[str, str]:
    """Checkpoint id -> name, of those that a manifest or a verdict tells of."""
    from evalsuite.errors import RegistryError

    found: dict[str, str] = {}
    for event in events:
        stored = event.detail.get("manifest") or event.verdict
        if not event.id or not stored or found.get(event.id):
            continue
        try:
            obj: Mapping[str, Any] = registry.get(stored)
        except RegistryError:
            continue  # verify reports it; the log is readable without
        found[event.id] = str((obj.get("checkpoint") or obj.get("candidate") or {}).get("name", ""))
    return found


def _event_line(event: Event, names: Mapping[str, str]) -> str:
    parts = [f"{event.seq:>4}", event.ts[:16].replace("T", " "), event.event]
    if event.generation is not None:
        parts.append(f"{event.ref} {event.prev_generation} → {event.generation}")
    elif event.ref:
        parts.append(event.ref)
    if event.id:
        parts.append(f"{names.get(event.id, '')} ({event.id[:12]})".lstrip())
    if event.verdict:
        parts.append(f"verdict {event.verdict[:12]}")
    if event.detail.get("overridden_by"):
        parts.append(f"⚑ overridden by {event.detail['overridden_by']}")
    parts.append(f"by {event.actor} on {event.host}")
    return "  ".join(parts) + (f": {event.reason}" if event.reason else "")


def _wrapped(line: str) -> str:
    """On a terminal folded to its width, in a pipe one line per event."""
    from evalsuite.tables import visible

    text = visible(line)
    if not sys.stdout.isatty():
        return text + "\n"
    width = max(20, shutil.get_terminal_size().columns)
    return "\n".join(textwrap.wrap(text, width, subsequent_indent=" " * 6, drop_whitespace=True)) + "\n"
