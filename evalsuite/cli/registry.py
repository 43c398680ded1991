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

from evalsuite.cli.options import results_option

if TYPE_CHECKING:
    from evalsuite.registry import Event, Registry

EPILOG = """\b
Examples:
  evalsuite registry log
  evalsuite registry verify
  evalsuite registry show champion
  evalsuite registry show 9f8e7d6c
  evalsuite registry export --mlflow sqlite:///mlflow.db"""

LOG = """\b
Examples:
  evalsuite registry log
  evalsuite registry log --ref champion
  evalsuite registry log --json > log.json

The last line is the head of the log: number and hash of the newest event. Keep it elsewhere, where whoever writes here
cannot change it, such as in git: a log whose end was cut off is whole again, but no longer has that event."""
VERIFY = """\b
Examples:
  evalsuite registry verify
  evalsuite registry verify --head 9f8e7d6c5b4a
  evalsuite registry verify --results backup/results --json

Also named is what lies in RESULTS and no event tells of: objects, verdicts, sealed looks. Then the log was cut, or a
command was killed before its last line; typed again, it writes that line. Reads only."""
SHOW = """\b
Examples:
  evalsuite registry show champion
  evalsuite registry show 9f8e7d6c
  evalsuite registry show release --results backup/results"""
EXPORT = """\b
Examples:
  evalsuite registry export --mlflow sqlite:///mlflow.db
  evalsuite registry export --mlflow http://127.0.0.1:5000 --ref release --model assistant

One way: nothing is read back, and what was exported once is not written again."""

_results = results_option("Where the registry is kept.")


@click.group("registry", epilog=EPILOG)
def command() -> None:
    """Read the history of promotions, check it, show what it holds, export it."""


@command.command("log", epilog=LOG)
@click.option("--ref", help="Only events of this ref.")
@click.option("--json", "as_json", is_flag=True, help="Print the events as JSON, hashes included.")
@_results
def log(ref: str | None, as_json: bool, results: Path) -> None:
    """Print every event, oldest first, and the head of the log."""
    from dataclasses import asdict

    from evalsuite.registry.refs import check_name
    from evalsuite.tables import print_text

    registry = _open(results)
    events = [e for e in registry.events() if ref is None or e.ref == check_name(ref)]
    seq, head = registry.head()
    if as_json:
        whole = {"events": [asdict(e) for e in events], "head": {"seq": seq, "hash": head}}
        print_text(json.dumps(whole, indent=1) + "\n")
        return
    names = _names(registry, events)
    print_text("".join(_wrapped(_event_line(event, names, _ruling(registry, event))) for event in events))
    print_text(f"head  {seq}  {head}\n")


@command.command("verify", epilog=VERIFY)
@click.option("--head", metavar="HASH", help="A head that you kept, or how it begins: its event must be in the log.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@_results
def verify(head: str | None, as_json: bool, results: Path) -> None:
    """Hash everything again and report every fault; exits with 2 when there is one."""
    from evalsuite.tables import print_text, visible

    registry = _open(results)
    faults = (*registry.verify(), *(_cut(registry, head) if head else ()))
    unlogged = registry.unlogged()
    if as_json:
        print_text(json.dumps({"faults": faults, "not_in_the_log": unlogged}, indent=1) + "\n")
    else:
        print_text("".join(visible(line) + "\n" for line in (*faults, *unlogged)))
    _refuse(registry, len(faults), len(unlogged))
    if not as_json:
        print_text(f"{len(registry.events())} events and everything they name are whole\n")


def _refuse(registry: Registry, n_faults: int, n_unlogged: int) -> None:
    from evalsuite.errors import RegistryError

    if n_faults:
        raise RegistryError(
            f"{registry.root}: {n_faults} fault(s), listed above; promote nothing before it is restored"
        )
    if n_unlogged:
        raise RegistryError(
            f"{registry.root}: {n_unlogged} thing(s) not in the log, listed above: it was cut, or a command was killed "
            "before its last line. Type that command again, or ask for a head that you kept: evalsuite registry verify "
            "--head HASH"
        )


def _cut(registry: Registry, head: str) -> tuple[str, ...]:
    """The fault that no event of the log has this hash."""
    from evalsuite.errors import UsageError

    if len(head) < 4:
        raise UsageError(f"--head {head!r}: expected 4 or more digits of a hash (see: evalsuite registry log)")
    events = registry.log.examine()[0]
    if any(event.hash.startswith(head.lower()) for event in events):
        return ()
    return (f"{registry.log.path}: no event has the hash {head}: the log was cut or replaced since it was its head",)


@command.command("show", epilog=SHOW)
@click.argument("what", metavar="ID")
@_results
def show(what: str, results: Path) -> None:
    """Print as JSON what ID stands for: a ref, an object or a checkpoint (the first digits of its digest do)."""
    from evalsuite.tables import print_text

    print_text(json.dumps(_find(_open(results), what), indent=1, sort_keys=True) + "\n")


@command.command("export", epilog=EXPORT)
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


def _ruling(registry: Registry, event: Event) -> str:
    """`block by policy 0a1b2c3d4e5f` of a verdict's event."""
    from evalsuite.errors import RegistryError

    if event.event != "verdict" or not event.verdict:
        return ""
    try:
        raw: Mapping[str, Any] = registry.get(event.verdict)
    except RegistryError:
        raw = event.detail  # verify reports the object; the log says it too
    return f"{raw.get('outcome', '?')} by policy {str(raw.get('policy', '?'))[:12]}"


def _event_line(event: Event, names: Mapping[str, str], ruling: str = "") -> str:
    parts = [f"{event.seq:>4}", event.ts[:16].replace("T", " "), event.event]
    if event.generation is not None:
        parts.append(f"{event.ref} {event.prev_generation} → {event.generation}")
    elif event.ref:
        parts.append(event.ref)
    if event.id:
        parts.append(f"{names.get(event.id, '')} ({event.id[:12]})".lstrip())
    if event.verdict:
        parts.append(f"verdict {event.verdict[:12]}" + (f": {ruling}" if ruling else ""))
    if event.detail.get("overridden_by"):
        parts.append(f"⚑ overridden by {event.detail['overridden_by']}")
    if event.event == "override":
        parts.append(f"⚑ {event.detail.get('by', '?')} answers for it")
    if event.detail.get("new_policy"):
        parts.append(f"new policy {event.detail['policy'][:12]} ({event.detail['new_policy']})")
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
