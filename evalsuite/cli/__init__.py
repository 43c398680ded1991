"""The command line. A verb's module is imported when the verb runs, so `evalsuite --help` stays fast."""

from __future__ import annotations

import importlib

import click

from evalsuite import __version__
from evalsuite.errors import did_you_mean

# verb -> what --help says of it; the module is evalsuite.cli.<verb>, its click command is called `command`.
VERBS = {
    "score": "Score a checkpoint on a suite; the same command again goes on where it stopped.",
    "verify": "Grade responses that were generated elsewhere, without a model.",
    "release": "Look once at the unseen suite: pass or fail and one rounded number, written into a ledger.",
    "gate": "Decide whether a checkpoint may replace the champion, as soon as that is known.",
    "promote": "Make a checkpoint the champion, by its verdict.",
    "rollback": "Bring an earlier champion back.",
    "registry": "Show the history of the registry, prove that it is whole, export it.",
    "train": "Train one stage of a recipe without a gate, or plan it: steps, tokens, batch, memory.",
    "loop": "Train, gate and promote by a recipe; the same command goes on after any crash.",
    "data": "Make training data: convert, mix, generate, and keep its provenance.",
    "decontam": "Find, explain and remove benchmark texts in training data.",
    "compare": "Compare two scored checkpoints, sample by sample.",
    "leaderboard": "Make one table of all scorecards in a folder.",
    "list": "List suites, benchmarks, regimes, checkable instructions, engines, trainers and recipes.",
    "check": "Prove without a model that every benchmark is sound; measure a judge with --judge.",
    "doctor": "Say what works on this machine and what to install.",
    "completion": "Print a shell completion script.",
}


class LazyGroup(click.Group):
    """Knows its verbs by name and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]  # `list` is a verb's module here, once it is imported

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"evalsuite.cli.{name}")
        found: click.Command = module.command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"no command named {args[0]!r}{did_you_mean(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([*VERBS.items()])


EPILOG = """\b
Examples:
  evalsuite score ckpt/ --suite tulu3-dev --data-root data/
  evalsuite score ckpt/ --tasks gsm8k,ifeval --limit 200 --model vllm
  evalsuite gate ckpt/ --promote
  evalsuite leaderboard results/ --format md
  evalsuite compare ckpt-a ckpt-b

Exit codes: 0 done or passed, 1 blocked, 2 wrong usage or broken input, 3 stopped before the end (the same command
goes on), 4 lost race, 5 unseen budget, 70 a bug."""


@click.group(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, "-V", "--version", prog_name="evalsuite")
def command() -> None:
    """Score checkpoints of post-trained language models, compare them, and say which one to keep."""
