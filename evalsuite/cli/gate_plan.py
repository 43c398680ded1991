"""`evalsuite gate plan` and `gate check`: what a policy can do, before any model runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evalsuite.cli.options import benchmarks_option, complete_suites

if TYPE_CHECKING:
    from evalsuite.gate.plan import Plan, Spreads
    from evalsuite.gate.policy import Policy
    from evalsuite.scorecard import Scorecard
    from evalsuite.suite import Suite

F = TypeVar("F", bound=Callable[..., Any])
PLAN_EPILOG = """\b
Examples:
  evalsuite gate plan
  evalsuite gate plan --policy tulu3 --set method.looks=5
  evalsuite gate plan --policy my-policy.yaml --history results/ --json

Ends in 2 when the policy cannot be read, or could only ever end inconclusive."""
CHECK_EPILOG = """\b
Examples:
  evalsuite gate check tulu3
  evalsuite gate check my-policy.yaml --suite my-suite.yaml"""


def complete_policies(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from evalsuite.gate.reading import known_policies

    return [name for name in known_policies() if name.startswith(incomplete)]


def suite_options(function: F) -> F:
    """--suite, --regime, --set and --benchmarks."""
    for option in (
        benchmarks_option,
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="PATH=VALUE",
            help="Lay one value over the policy, such as method.looks=5; repeatable.",
        ),
        click.option(
            "--regime", metavar="NAME|FILE", help="At the settings of another version. [default: the suite's]"
        ),
        click.option("--suite", shell_complete=complete_suites, help="[default: the policy's]"),
    ):
        function = option(function)
    return function


@click.command("plan", epilog=PLAN_EPILOG)
@click.option("--policy", metavar="NAME|FILE", shell_complete=complete_policies, help="[default: the suite's own]")
@suite_options
@click.option(
    "--history",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Results to learn from: clusters and sizes of scorecards, disagreement of earlier gates, champion and anchor.",
)
@click.option("--anchor", is_flag=True, help="Plan for an anchor that is another checkpoint than the champion.")
@click.option("--seed", default=1234, show_default=True, help="Of the simulations.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, numbers 0 to 1.")
def plan(
    policy: str | None,
    suite: str | None,
    regime: str | None,
    sets: tuple[str, ...],
    extra: tuple[Path, ...],
    history: Path | None,
    anchor: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Say what a gate can and cannot see on a suite and what it costs; no model runs."""
    from evalsuite.tables import print_table
    from evalsuite.unseen import refuse

    read, over = read_for_suite(policy, sets, suite, regime, extra)
    refuse(over, over.columns)
    planned = _planned(read, over, history, anchor, seed)
    if as_json:
        click.echo(json.dumps(planned.as_json(), indent=1, ensure_ascii=False))
        return
    from evalsuite.gate.plan_table import pairs_table, scenarios_table

    print_table(pairs_table(planned))
    if planned.scenarios:
        click.echo()
        print_table(scenarios_table(planned))


@click.command("check", epilog=CHECK_EPILOG)
@click.argument("policy", shell_complete=complete_policies)
@suite_options
@click.option("--json", "as_json", is_flag=True, help="Print the merged policy as JSON.")
def check(
    policy: str,
    suite: str | None,
    regime: str | None,
    sets: tuple[str, ...],
    extra: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Read POLICY against its suite and say every problem at once."""
    from evalsuite.gate.plan import asked_of
    from evalsuite.gate.plan import plan as plan_of

    read, over = read_for_suite(policy, sets, suite, regime, extra)
    planned = plan_of(read, over.name, asked_of(read, over), runs=0)
    if as_json:
        click.echo(json.dumps({"digest": read.digest, "policy": read.as_json()}, indent=1, ensure_ascii=False))
        return
    widest = max(planned.lines, key=lambda line: line.pair.margin)
    blind = f"cannot see a drop under {100 * widest.pair.margin:.3g} points on {widest.pair.benchmark}"
    click.echo(f"policy {read.name} ({read.digest[:12]}) fits {over.name}: {len(planned.lines)} pairs, {blind}")


def read_for_suite(
    policy: str | None, sets: tuple[str, ...], suite: str | None, regime: str | None, extra: tuple[Path, ...]
) -> tuple[Policy, Suite]:
    """The policy laid over the suite that was named, else over its own."""
    from evalsuite.gate.reading import load_policy
    from evalsuite.suite import load_suite

    name = suite or load_policy(policy, sets).suite.partition("@")[0]
    over = load_suite(name, extra, regime)
    return load_policy(policy, sets, suite=over), over


def _planned(policy: Policy, suite: Suite, history: Path | None, anchor: bool, seed: int) -> Plan:
    from evalsuite.gate.plan import asked_of
    from evalsuite.gate.plan import plan as plan_of

    card = _newest_card(history, suite) if history else None
    references, spreads = _measured(history, policy, suite) if history else (("champion",), {})
    if anchor:
        references = ("champion", "anchor")
    return plan_of(policy, suite.name, asked_of(policy, suite, card), references=references, spreads=spreads, seed=seed)


def _newest_card(results: Path, suite: Suite) -> Scorecard | None:
    """The last scorecard of this suite that holds every benchmark; it tells sizes and clusters."""
    from evalsuite.tables.collect import collect

    found = [f for f in collect(results, skip_broken=True).found if f.card.suite.digest == suite.digest]
    whole = [f for f in found if all(f.card.result(b.name) for b in suite.columns.values())]
    return max(whole, key=lambda f: f.written).card if whole else None


def _measured(results: Path, policy: Policy, suite: Suite) -> tuple[tuple[str, ...], Spreads]:
    """(references of the next gate, what earlier gates of this suite measured) from the registry."""
    from evalsuite.gate.margins import history_of
    from evalsuite.registry import Registry

    registry = Registry.at(results)
    spreads: dict[Any, Any] = {}
    for event in registry.events():
        if event.event == "verdict" and event.ref == policy.champion and event.verdict:
            verdict = registry.get(event.verdict)
            if verdict["suite"]["digest"] == suite.digest:
                spreads |= history_of(verdict["findings"])
    refs = registry.refs()
    champion, anchor = refs.get(policy.champion), refs.get(policy.anchor or "")
    both = champion is not None and anchor is not None and champion.id != anchor.id
    return ("champion", "anchor") if both else ("champion",), spreads
