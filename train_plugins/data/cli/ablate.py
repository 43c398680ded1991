"""`evalsuite data ablate`: which part of a mix does what, by training without it and with it alone."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

EPILOG = """\b
Examples:
  evalsuite data ablate mix.yaml --recipe base.yaml -o ablation
  evalsuite data ablate mix.yaml --recipe base.yaml -o ablation --run -- --model vllm --data-root data/
  evalsuite data ablate mix.yaml --recipe base.yaml -o ablation --stage sft

With --run everything is trained and scored, each variant in a registry of its own, and one table is printed; the same
command goes on where it was stopped. What follows -- goes to `evalsuite loop` and `evalsuite score` alike.

Exit codes: 0 written, or trained and scored; 2 wrong files, or a command that failed; 70 a bug."""


@click.command("ablate", epilog=EPILOG)
@click.argument("mix", type=str)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.option("--recipe", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="FILE",
              help="How one variant is trained.")  # fmt: skip
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path, file_okay=False), required=True,
              metavar="DIR", help="Where mixes, recipes and results go.")  # fmt: skip
@click.option("--stage", metavar="STAGE", help="The stage that is trained on the mix. [default: the one that names it]")
@click.option("--run", "runs", is_flag=True, help="Train, score and tabulate, besides writing the recipes.")
def command(mix: str, options: tuple[str, ...], recipe: Path, folder: Path, stage: str | None, runs: bool) -> None:
    """Write a recipe for MIX as it is, without each source and each skill, and with each skill alone."""
    from train_plugins.data.ablation import commands, run_ablation, write_ablation

    made = write_ablation(mix, recipe, folder, stage)
    if runs:
        run_ablation(made, options)
        return
    click.echo(f"{len(made.variants)} variants of stage {made.stage!r} in {folder}: {', '.join(made.variants)}")
    for _, arguments in commands(made, options):
        click.echo(shlex.join(["evalsuite", *arguments]))
    click.echo("all of them, with scores and one table: the same command with --run")
