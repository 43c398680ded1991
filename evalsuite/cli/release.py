"""`evalsuite release`: the one command that may read the unseen suite."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalsuite.cli.engine import engine_options, sandbox_options
from evalsuite.cli.judge import judge_options
from evalsuite.cli.options import complete_suites, data_options, folder_options

if TYPE_CHECKING:
    from evalsuite.gate.policy import Policy
    from evalsuite.release import Outcome, Planned, Release
    from evalsuite.suite import Suite

EPILOG = """\b
Examples:
  evalsuite release ckpt/ --dry-run
  evalsuite release ckpt/ --judge api:http://127.0.0.1:8001/v1 --judge-model my-judge
  evalsuite release --status
  evalsuite release ckpt/ --unseal --reason "error analysis after the paper was submitted"

CKPT must be the champion or the candidate, promoted by the gate on development. The look is written into the ledger
before the first question is read: killed or failed, it counts, and the same command goes on with it. Exits with 0 when
the release policy passes, 1 when it does not, 3 while samples are missing, 5 when the budget is spent.

The ledger is tamper-evident, not secret: questions and answers lie on your own disk, the answers under
RESULTS/sealed."""

# What `evalsuite score` lets one choose and a release does not: the whole suite, at its own settings, or nothing.
WHOLE: Mapping[str, Any] = {
    "tasks": None,
    "limit": None,
    "samples": None,
    "regime": None,
    "no_quirks": False,
    "name": None,
    "seed": 1234,
    "rejudge": False,
    "skip_judged": False,
    "require_complete": True,
    "fresh": False,
    "keep_failed": False,
    "no_wait": False,
}


@click.command("release", epilog=EPILOG)
@click.argument("checkpoint", metavar="[CKPT]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--suite", default="tulu3-unseen", show_default=True, shell_complete=complete_suites, help="The unseen suite."
)
@click.option("--policy", metavar="NAME|FILE", help="What must be shown.  [default: the shipped one of the suite]")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Over the policy; unseen.* only downwards.")
@click.option("--reason", default="", help="Why, for the ledger; --unseal needs one.")
@click.option("--dry-run", is_flag=True, help="Say what would be spent; read and write nothing.")
@click.option("--status", "as_status", is_flag=True, help="Show the budget and who looked when.")
@click.option("--unseal", is_flag=True, help="Show the whole table of a finished look; the ledger takes it down.")
@engine_options
@judge_options
@sandbox_options
@data_options
@folder_options
@click.option("--lock", type=click.Choice(["flock", "lease"]), default="flock", help="lease: for NFS and the like.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(**options: Any) -> int:
    """Look once at the unseen suite with CKPT: pass or fail, and one number in steps of at least half a point."""
    from evalsuite.registry import Registry

    registry = Registry.at(options["results"], lock=options["lock"], say=_say)
    if options["as_status"]:
        return _status(registry, options)
    if options["checkpoint"] is None:
        raise click.UsageError("a checkpoint folder is expected, as in: evalsuite release ckpt/ (or --status)")
    if options["unseal"]:
        return _unseal(registry, options)
    return _release(registry, options)


def _release(registry: Any, options: Mapping[str, Any]) -> int:
    from dataclasses import asdict, replace

    from evalsuite.cli.score import make_job
    from evalsuite.progress import observer
    from evalsuite.release import SealedObserver, planned, release
    from evalsuite.score import score

    wanted = _wanted(registry, options)
    if options["dry_run"]:
        return _print(options, *_foreseen(wanted, planned(wanted)))
    job = make_job({**options, **WHOLE}, release=True)
    watcher = SealedObserver(observer())
    try:
        outcome = release(wanted, lambda suite, folder: score(replace(job, results=folder), watcher))
    finally:
        watcher.close()
    _print(options, asdict(outcome), _lines(outcome))
    return outcome.exit_code


def _wanted(registry: Any, options: Mapping[str, Any]) -> Release:
    from functools import partial

    from evalsuite.checkpoint import open_checkpoint
    from evalsuite.gating.evidence import training_of
    from evalsuite.release import Release
    from evalsuite.suite import load_suite

    if options["engine"].startswith("api:"):
        raise click.UsageError("a release needs the checkpoint's folder; --model api:URL cannot show what answers")
    flags = {name: options[name] for name in ("allow_pickle", "trust_remote_code")}
    checkpoint = open_checkpoint(options["checkpoint"], **flags)
    suite = load_suite(options["suite"], options["extra"])
    return Release(
        registry=registry,
        checkpoint=checkpoint,
        suite=suite,
        policy=_policy(options, suite),
        results=options["results"],
        training=training_of(checkpoint.path, options["results"], [b.name for b in suite.columns.values()]),
        reason=options["reason"],
        reopen=partial(open_checkpoint, **flags),
    )


def _policy(options: Mapping[str, Any], suite: Suite) -> Policy:
    """The release policy, which `--set` may not make more generous with looks."""
    from evalsuite.gate.reading import load_policy
    from evalsuite.release import refuse_raised

    policy = load_policy(options["policy"], options["sets"], suite=suite)
    others = [line for line in options["sets"] if line.split("=")[0].strip().split(".")[0] != "unseen"]
    refuse_raised(policy.unseen, load_policy(options["policy"], others, suite=suite).unseen)
    return policy


def _foreseen(wanted: Release, plan: Planned) -> tuple[dict[str, Any], list[str]]:
    rule = wanted.policy.unseen
    raw = {
        "dry_run": True,
        "checkpoint": {"name": wanted.checkpoint.name, "digest": wanted.checkpoint.digest},
        "suite": wanted.ask.suite,
        "policy": wanted.policy.digest,
        "ref": plan.ref,
        "continues": plan.peek.intent.seq if plan.peek else None,
        "left": plan.budget.in_window,
        "warnings": plan.warnings,
    }
    spends = (
        f"would go on with the look that was begun on {plan.peek.intent.ts[:10]}; it was counted then"
        if plan.peek
        else f"would spend one look; then {plan.budget.in_window - 1} of {rule.per_90_days} in 90 days are left"
    )
    lines = [f"{wanted.checkpoint.name} ({plan.ref}), {wanted.suite.name}: {spends}"]
    return raw, [*lines, *(f"warning: {line}" for line in plan.warnings)]


def _lines(outcome: Outcome) -> list[str]:
    name, suite = outcome.checkpoint["name"], outcome.suite["name"]
    lines = [f"{name}, {suite}: {'passed' if outcome.passed else 'failed'} the release policy", _number(outcome)]
    if outcome.generation is not None:
        lines.append(f"release: generation {outcome.generation}")
    lines.append(f"looks left in these 90 days: {outcome.left}")
    return [*lines, *(f"warning: {line}" for line in outcome.warnings), outcome.notice]


def _number(outcome: Outcome) -> str:
    from evalsuite.tables import score_text
    from evalsuite.tables.cells import decimals

    digits, step = decimals(outcome.eta), f"{100 * outcome.eta:.2g}"
    if outcome.value is not None:
        return f"{outcome.suite['name']} {score_text(outcome.value, digits)}, in steps of {step} points"
    return (
        f"{outcome.suite['name']}: no new number; not more than {step} points above the last one released, "
        f"{score_text(outcome.last, digits)}"
    )


def _unseal(registry: Any, options: Mapping[str, Any]) -> int:
    from evalsuite.checkpoint import open_checkpoint
    from evalsuite.release import unseal
    from evalsuite.scorecard import to_json
    from evalsuite.suite import load_suite
    from evalsuite.tables import print_table, print_text

    checkpoint = open_checkpoint(
        options["checkpoint"], allow_pickle=options["allow_pickle"], trust_remote_code=options["trust_remote_code"]
    )
    suite = load_suite(options["suite"], options["extra"])
    card = unseal(registry, options["results"], checkpoint.digest, suite.digest, options["reason"])
    if options["as_json"]:
        print_text(to_json(card))
    else:
        from evalsuite.tables.leaderboard import card_table

        print_table(card_table(card))
    return 0


def _status(registry: Any, options: Mapping[str, Any]) -> int:
    from evalsuite.registry.chain import utc_now
    from evalsuite.release import status
    from evalsuite.suite import load_suite

    suite = load_suite(options["suite"], options["extra"])
    raw = status(registry, _policy(options, suite), utc_now())
    budget = raw["budget"]
    when = f"; the next is free on {budget['free_at'][:16].replace('T', ' ')} UTC" if budget["free_at"] else ""
    lines = [f"{budget['left']} of {budget['per_90_days']} looks in 90 days are left{when}"]
    return _print(options, raw, [*lines, *map(_event, raw["history"]), raw["notice"]])


def _event(event: Mapping[str, Any]) -> str:
    detail = event["detail"]
    suite = detail.get("suite", {}).get("name", "")
    words = [event["ts"][:16].replace("T", " "), f"{event['event']:<8}", f"{(event['id'] or '')[:12]:<12}"]
    words += [str(detail["name"])] if "name" in detail else []
    words += [suite] if suite else []
    if event["event"] == "result":
        words.append("passed" if detail["passed"] else "failed")
        words += [f"{100 * n['value']:.4g}" for n in detail["released"].values()] or ["no new number"]
    words += [f"by {event['actor']}"] + ([f"({event['reason']})"] if event["reason"] else [])
    return "  ".join(words)


def _print(options: Mapping[str, Any], raw: Mapping[str, Any], lines: list[str]) -> int:
    from evalsuite.tables import print_text, visible

    text = json.dumps(raw, indent=1, ensure_ascii=False) if options["as_json"] else "\n".join(map(visible, lines))
    print_text(text + "\n")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)
