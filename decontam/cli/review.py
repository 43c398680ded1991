"""`decontam review`: the matches of a scan one by one, to accept or reject."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from decontam.report.listing import Listing
    from decontam.report.match import Match

EPILOG = """\b
Keys: n next, p previous, a accept, r reject, w why it was flagged, o open the text of a safety eval, q quit.

\b
Examples:
  python -m decontam review report/
  python -m decontam review report/ --eval gsm8k --capped
  python -m decontam review report/ --near | less

Exit codes: 0 done, 2 wrong usage or broken input, 70 a bug."""


@click.command("review", epilog=EPILOG)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--eval", "evals", multiple=True, metavar="NAME", help="Only matches of this eval; may be repeated.")
@click.option("--data", "datasets", multiple=True, metavar="NAME", help="Only this data set; may be repeated.")
@click.option("--capped", is_flag=True, help="Only matches that the cap on common phrases does not acquit.")
@click.option("--near", is_flag=True, help="Near-duplicates too, where the rule itself found nothing.")
@click.option("--open", "opened", is_flag=True, help="Print the text of safety evals too when piped.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    help="What relative paths of the training data count from. [default: here]",
)
def command(
    out: Path,
    evals: tuple[str, ...],
    datasets: tuple[str, ...],
    capped: bool,
    near: bool,
    opened: bool,
    root: Path | None,
) -> None:
    """Look at the matches of the scan in OUT, training text and eval text side by side, and decide on each.

    Decisions are kept in OUT/review.jsonl as they are made, and the next review goes on behind them; `decontam clean
    --by reviewed` acts on what was accepted. Where no terminal is at hand, all matches are printed.
    """
    from decontam.report.passages import instances_of, visible
    from decontam.report.review import Session, printed, run
    from decontam.report.source import training_texts
    from decontam.report.terminal import print_safely

    texts = training_texts(out, root, lambda line: click.echo(f"decontam: {visible(line)}", err=True))
    known = texts.scan.evals()
    _refuse_unknown("eval", evals, {each.name for each in known})
    _refuse_unknown("data set", datasets, {data.name for data in texts.scan.data})

    def keep(match: Match) -> bool:
        wanted = (not evals or match.eval in evals) and (not datasets or match.dataset in datasets)
        return wanted and not (capped and match.boilerplate)

    matches = _listing(out, keep if evals or datasets or capped else None, near)
    session = Session.begin(out, matches, instances_of(known), texts, texts.about)
    if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown"):
        from rich.console import Console

        from decontam.report.keys import keys

        with keys() as read_key:
            run(session, Console(highlight=False), read_key)
        return
    for part in printed(session, opened=opened):
        print_safely(part)


def _listing(out: Path, keep: Callable[[Match], bool] | None, near: bool) -> Listing:
    """The matches that are wanted; near-duplicates come behind, those of matches left out."""
    from decontam.errors import DecontamError
    from decontam.report.listing import Listing
    from decontam.report.match import read_matches

    paths = [out / "matches.jsonl"]
    if not near:
        return Listing(paths, keep)
    if not (out / "near.jsonl").is_file():
        raise DecontamError(f"{out}: no near.jsonl; near-duplicates are found by `decontam scan --near-dup`")
    exact = {match.key for match in read_matches(paths[0])}

    def keep_near(match: Match) -> bool:
        return (keep is None or keep(match)) and ("near" not in match.flags or match.key not in exact)

    return Listing([*paths, out / "near.jsonl"], keep_near)


def _refuse_unknown(what: str, asked: tuple[str, ...], known: set[str]) -> None:
    from decontam.errors import did_you_mean

    for name in asked:
        if name not in known:
            raise click.UsageError(f"no {what} named {name!r} in this scan{did_you_mean(name, known)}")
