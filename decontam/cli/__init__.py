"""The command line. A verb's module is imported when the verb runs, so `python -m decontam --help` stays fast."""

from __future__ import annotations

import importlib

import click

from decontam.errors import did_you_mean

# verb -> what --help says of it; the module is decontam.cli.<verb>, its click command is called `command`.
VERBS = {
    "scan": "Find the training rows that carry evaluation text; the same command goes on where it stopped.",
    "clean": "Write the training data without what a scan found.",
    "review": "Look at matches one by one, both sides side by side, and accept or reject them.",
    "diff": "Compare two scans: what appeared, what vanished, what crossed the threshold.",
    "index": "Build the index of evals ahead of a scan, and say what it cannot protect.",
    "rules": "List the rules that a scan can go by.",
    "completion": "Print a shell completion script.",
}


class LazyGroup(click.Group):
    """Knows its verbs by name and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        found: click.Command = importlib.import_module(f"decontam.cli.{name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"no command named {args[0]!r}{did_you_mean(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


EPILOG = """\b
Examples:
  python -m decontam scan sft.jsonl --evals gsm8k_test.jsonl --out report/
  python -m decontam scan data/*.parquet --evals decontam:tulu3 --data-root hub/ --out report/
  python -m decontam review report/
  python -m decontam clean report/ -o sft-clean/

Exit codes: 0 nothing over the limit, 1 a data set is over the limit on an eval, 2 wrong usage or broken input,
3 not over the limit but incomplete, 70 a bug."""


@click.group(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
def command() -> None:
    """Find, explain and remove evaluation text in training data."""
