"""`decontam rules`: what a scan can go by."""

from __future__ import annotations

import json

import click

from decontam.rules import RULES, Rule


@click.command("rules", epilog="Example:  python -m decontam rules --json")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with the digest of each rule.")
def command(as_json: bool) -> None:
    """List the rules that a scan can go by; the first is the default."""
    if as_json:
        click.echo(json.dumps({rule.name: _described(rule) for rule in RULES.values()}, indent=2))
        return
    width = max(map(len, RULES))
    for rule in RULES.values():
        click.echo(f"{rule.name:{width}}  {rule.about}")


def _described(rule: Rule) -> dict[str, object]:
    return {
        "analyzer": rule.analyzer,
        "positions": rule.positions,
        "n": rule.n,
        "score": rule.score,
        "threshold": str(rule.threshold),
        "version": rule.version,
        "digest": rule.digest,
        "about": rule.about,
    }
