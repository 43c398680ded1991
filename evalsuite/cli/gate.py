"""`evalsuite gate`: may this checkpoint take the champion's place?"""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli import gate_plan
from evalsuite.cli.gate_job import gate_options
from evalsuite.cli.options import benchmarks_option, results_option

if TYPE_CHECKING:
    from evalsuite.gate.verdict import Verdict
    from evalsuite.gating import Gated

RESULTS = results_option("Where the registry is kept.")
EPILOG = """\b
Examples:
  evalsuite gate run/step-2000 --bootstrap             the first checkpoint: floors and checks only
  evalsuite gate run/step-3000                         against the champion
  evalsuite gate run/step-3000 --promote
  evalsuite gate new/ --against old/ --suite demo      two folders, no registry needed
  evalsuite gate new.json --against old.json           two scorecards, nothing is asked
  evalsuite gate plan --suite tulu3-dev                what it can see and what it costs, before any compute

\b
Verbs (a folder of such a name is written ./plan):
  plan      what a policy can and cannot see on a suite, and what it costs
  check     read a policy against its suite
  explain   print a verdict again
  override  let a blocked or held checkpoint pass, visibly for ever
  epoch     begin to count attempts at a claim anew

Stopped or killed? Type the same command again: it goes on where it stopped, and says the same. Exit codes: 0 promote,
1 block, 3 hold (inconclusive, or samples failed), 2 wrong usage or broken input, 4 another champion came meanwhile."""


EXPLAIN = """\b
Examples:
  evalsuite gate explain 8da50fc7069c
  evalsuite gate explain 8da50fc7069c --json"""
OVERRIDE = """\b
Examples:
  evalsuite gate override 8da50fc7069c --reason "the one lost set is retired next week" --by ada

Only tiers and rules that the policy's `override` allows; never failed samples."""
EPOCH = """\b
Examples:
  evalsuite gate epoch --reason "new base model"
  evalsuite gate epoch --suite my-suite.yaml --benchmarks my-benchmarks/ --reason "test set was replaced\""""


@click.command("gate", epilog=EPILOG)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--against", metavar="REF|FOLDER", help="What it is compared with. [default: the policy's, champion]")
@click.option("--bootstrap", is_flag=True, help="There may be no champion yet: then floors and checks decide alone.")
@click.option("--promote", is_flag=True, help="Make it champion when the verdict is promote.")
@click.option(
    "--retry",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="With --promote: gate again, N times, when the champion was replaced meanwhile.",
)
@click.option("--new-policy", metavar="REASON", default="", help="With --promote: another policy than the champion's.")
@click.option("--dry-run", is_flag=True, help="Decide, and write neither registry nor log.")
@gate_options
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@click.pass_context
def run(ctx: click.Context, /, **options: Any) -> None:
    """Decide whether CHECKPOINT may replace the champion: promote, block or hold, with the reason for every line.

    Samples are asked in looks, in an order that the inputs alone decide; it stops as soon as the verdict is known.
    """
    from evalsuite.errors import LostRace
    from evalsuite.gate.verdict import to_json

    if options["promote"] and options["dry_run"]:
        raise click.UsageError("--promote writes to the registry, and --dry-run does not: one or the other")
    for left in range(options["retry"], -1, -1):
        gated = _gate(options)
        try:
            if options["promote"] and gated.verdict.outcome == "promote":
                _promote(gated, options)
            break
        except LostRace as lost:
            if not left:
                raise
            print(f"{lost}; gating again", file=sys.stderr)
    if options["as_json"]:
        click.echo(to_json(gated.verdict), nl=False)
    else:
        show(gated.verdict)
    _told(gated, options)
    ctx.exit(gated.verdict.exit_code)


def _gate(options: dict[str, Any]) -> Gated:
    from evalsuite.cli.gate_job import make_gate_job
    from evalsuite.gating import gate
    from evalsuite.progress import observer

    watcher = observer()
    try:
        return gate(make_gate_job(options, options["checkpoint"]), watcher)
    finally:
        watcher.close()


def show(verdict: Verdict) -> None:
    """Prints a verdict: what was decided, then one line for each finding, folded to the width of a terminal."""
    from evalsuite.gate.verdict import EARLY, headline, lines
    from evalsuite.tables import print_text, visible

    width = _width()
    head = visible(headline(verdict))
    text = [*(textwrap.wrap(head, width, subsequent_indent="  ") if width else [head])]
    text += [visible(line) for line in lines(verdict.findings, width)]
    if any(f.early and f.difference is not None for f in verdict.findings):
        note = f"{EARLY} stopped early: enough to decide, biased as an estimate (evalsuite score asks the rest)"
        text += textwrap.wrap(note, width, subsequent_indent="  ") if width else [note]
    print_text("\n".join(text) + "\n")


def _width() -> int | None:
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _told(gated: Gated, options: dict[str, Any]) -> None:
    asked = ", ".join(f"{n} of {name}" for name, n in gated.n_asked.items())
    print(f"asked anew: {asked}", file=sys.stderr)
    if gated.digest is None:
        return
    short = gated.digest[:12]
    print(f"verdict: {short}", file=sys.stderr)
    if gated.verdict.ref is None:
        return
    if gated.verdict.outcome == "promote" and not options["promote"]:
        results = "" if options["results"] == Path("results") else f" --results {shlex.quote(str(options['results']))}"
        ref = "" if gated.verdict.ref == "champion" else f" --ref {gated.verdict.ref}"
        print(f"next: evalsuite promote {shlex.quote(str(options['checkpoint']))}{ref}{results}", file=sys.stderr)
    elif gated.verdict.outcome != "promote":
        print(f"overruled, if it must be: evalsuite gate override {short} --reason TEXT --by NAME", file=sys.stderr)


def _promote(gated: Gated, options: dict[str, Any]) -> None:
    from evalsuite.promotion import promote
    from evalsuite.registry import Registry

    registry = Registry.at(options["results"], lock=options["lock"])
    done = promote(
        registry,
        options["checkpoint"],
        verdict=gated.digest,
        new_policy=options["new_policy"],
        allow_pickle=options["allow_pickle"],
        trust_remote_code=options["trust_remote_code"],
    )
    print(f"champion: {done.name}, generation {done.generation}", file=sys.stderr)
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)


@click.command("explain", epilog=EXPLAIN)
@click.argument("verdict", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
@RESULTS
def explain(verdict: str, as_json: bool, results: Path) -> None:
    """Print the verdict ID (the start of its digest or of its gate's id) again, every line of it."""
    from evalsuite.gate.verdict import to_json

    _, found = _find(results, verdict)
    if as_json:
        click.echo(to_json(found), nl=False)
    else:
        show(found)


@click.command("override", epilog=OVERRIDE)
@click.argument("verdict", metavar="ID")
@click.option("--reason", required=True, help="Why; it is kept for ever.")
@click.option("--by", required=True, metavar="NAME", help="Who answers for it; tables show it.")
@RESULTS
def override(verdict: str, reason: str, by: str, results: Path) -> None:
    """Let `evalsuite promote` accept a blocked or held verdict. Tables mark the checkpoint with NAME from then on."""
    from evalsuite.gate.override import refuse_override
    from evalsuite.registry import Registry
    from evalsuite.tables import visible

    if not reason.strip() or not by.strip():
        raise click.UsageError("--reason and --by must say something")
    digest, found = _find(results, verdict)
    registry = Registry.at(results)
    refuse_override(found, registry.get(found.policy))
    detail = {"by": by, "outcome": found.outcome, "findings": [f.why for f in found.blocking]}
    registry.record("override", ref=found.ref, id=found.candidate.digest, verdict=digest, reason=reason, detail=detail)
    click.echo(visible(f"⚑ {found.candidate.name}: {found.outcome} overridden by {by}"))
    print(f"next: evalsuite promote CKPT --verdict {digest[:12]}", file=sys.stderr)


@click.command("epoch", epilog=EPOCH)
@click.option("--reason", required=True, help="Why attempts are counted anew.")
@click.option("--ref", default="champion", show_default=True)
@click.option("--suite", default="tulu3-dev", show_default=True)
@click.option("--regime", metavar="NAME|FILE", help="As the gates were run. [default: the suite's]")
@click.option("--no-quirks", is_flag=True, help="As the gates were run.")
@benchmarks_option
@RESULTS
def epoch(
    reason: str, ref: str, suite: str, regime: str | None, no_quirks: bool, extra: tuple[Path, ...], results: Path
) -> None:
    """Begin to count attempts at a claimed improvement anew, for one ref and one suite. Logged."""
    from evalsuite.registry import Registry
    from evalsuite.suite import load_suite

    over = load_suite(suite, extra, regime, not no_quirks)
    digest = over.ref(list(over.columns)).digest
    Registry.at(results).record("epoch", ref=ref, reason=reason, detail={"suite": digest, "name": over.name})
    click.echo(f"attempts at {ref} on {over.name} count from 1 again")


def _find(results: Path, name: str) -> tuple[str, Verdict]:
    """(digest, verdict) of the start of a verdict's digest or of its gate's id."""
    from evalsuite.errors import UsageError
    from evalsuite.gate.verdict import from_raw
    from evalsuite.registry import Registry

    registry = Registry.at(results)
    fitting = {
        e.verdict
        for e in registry.events()
        if e.event == "verdict"
        and e.verdict
        and (e.verdict.startswith(name) or str(e.detail.get("gate_id", "")).startswith(name))
    }
    if len(fitting) != 1 or len(name) < 4:
        what = f"{len(fitting)} verdicts begin" if fitting else "no verdict begins"
        raise UsageError(f"{what} with {name!r} in {registry.root} (see: evalsuite registry log)")
    (digest,) = fitting
    return digest, from_raw(registry.get(digest))


class _Gate(click.Group):
    """A command with verbs: what is no verb's name is a checkpoint."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # "--" keeps click from taking the options of a gate for options of the group.
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["--", *(args or ["--help"])])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in self.commands:
            return super().resolve_command(ctx, args)
        return "", run, args


VERBS: Sequence[click.Command] = (gate_plan.plan, gate_plan.check, explain, override, epoch)
command = _Gate("gate", commands={verb.name or "": verb for verb in VERBS})
