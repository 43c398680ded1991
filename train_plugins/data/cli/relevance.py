"""`evalsuite data relevance`: whether answers belong to their prompts, for any file of canonical rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from train_plugins.data.relevance import Relevance

EPILOG = """\b
Examples:
  evalsuite data relevance sft.jsonl pairs.jsonl
  evalsuite data relevance pairs.parquet --json

The answer of each row is ranked against 20 answers of other rows, by the characters it shares with its prompt: 0.5 is
chance, sound data has 0.7 to 0.99. The same is done for the answers one and two rows further down and up.

Exit codes: 0 aligned, or a warning on stderr; 2 shifted rows or a file that cannot be read, 70 a bug."""


@click.command("relevance", epilog=EPILOG)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--min-relevance", type=click.FloatRange(0, 1), default=0.65, show_default=True,
              help="Warn below this mean rank.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the other answers.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(files: tuple[Path, ...], min_relevance: float, seed: int, as_json: bool) -> None:
    """Find rows whose answers belong to other rows' prompts.

    FILE has canonical rows (see: evalsuite data convert); of pairs, chosen and rejected are looked at separately.
    """
    from evalsuite.errors import DataError

    found = {(path, side): each for path in files for side, each in _measured(path, min_relevance, seed).items()}
    if as_json:
        content = [{"file": str(path), "side": side, **each.as_json()} for (path, side), each in found.items()]
        click.echo(json.dumps(content, indent=1, ensure_ascii=False))
    shifted = []
    for (path, side), each in found.items():
        line = f"{path}{f', {side}' if side != 'messages' else ''}: {each.sentence()}"
        if each.finding == "shifted":
            shifted.append(line)
        elif each.finding == "weak":
            print(f"warning: {line}", file=sys.stderr)
        elif not as_json:
            click.echo(line)
    if shifted:
        raise DataError("\n".join(shifted))


def _measured(path: Path, min_relevance: float, seed: int) -> dict[str, Relevance]:
    """By the field of the rows that the answers stand in. Raises DataError for rows without answers."""
    from evalsuite.errors import DataError
    from train_plugins.data.kinds import RowRules
    from train_plugins.data.relevance import measure, texts_of
    from train_plugins.data.rows import read_rows

    pairs: dict[str, list[tuple[str, str]]] = {}
    for row in read_rows(path, rules=RowRules(allow_tools=True, allow_template_text=True)):
        for side in _sides(row):
            pairs.setdefault(side, []).extend(texts_of(row[side]))
    if not any(pairs.values()):
        raise DataError(f"{path}: no row has an answer; expected rows of kind sft or preference")
    return {side: measure(found, min_relevance=min_relevance, seed=seed) for side, found in pairs.items()}


def _sides(row: Mapping[str, Any]) -> tuple[str, ...]:
    return ("chosen", "rejected") if "chosen" in row else ("messages",)
