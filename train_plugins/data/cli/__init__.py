"""The verbs of `evalsuite data`. A verb's module is imported when the verb runs."""

from __future__ import annotations

import errno
import importlib
from importlib.util import find_spec
from typing import Any

import click

from evalsuite.errors import did_you_mean

# verb -> what --help says of it; the module is train_plugins.data.cli.<verb>, its click command is called `command`.
VERBS = {
    "convert": "Turn data of any common format into canonical rows, checked row by row.",
    "mix": "Mix sources by exact counts into one data set that does not depend on order or machine.",
    "ablate": "Train without each part of a mix and with it alone, and compare in one table.",
    "personas": "Generate prompts and answers for many personas, with a verifier for each constraint.",
    "preferences": "Make preference pairs: answers of several models, rated by a judge.",
    "relevance": "Find answers that are not about their question: rows that were shifted.",
}

EPILOG = """\b
Examples:
  evalsuite data convert alpaca.json -o sft.jsonl --licence Apache-2.0
  evalsuite data mix mix.yaml

Exit codes: 0 done, 2 wrong usage or bad rows, 3 stopped before the end (the same command goes on), 70 a bug."""


class LazyGroup(click.Group):
    """Knows its verbs by name and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verb in VERBS if find_spec(f"{__name__}.{verb}")]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        found: click.Command = importlib.import_module(f"{__name__}.{name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(f"no command named {args[0]!r}{did_you_mean(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, VERBS[verb]) for verb in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """What the system refuses is told in one line: a full disk, a name too long, a folder that is a file."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            from evalsuite.errors import DataError, DiskFull

            if error.errno is None or isinstance(error, BrokenPipeError):
                raise
            where = f"{error.filename}: " if error.filename is not None else ""
            kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else DataError
            more = "; free some space and run the same command again" if kind is DiskFull else ""
            raise kind(f"{where}{error.strerror or error}{more}") from error


@click.group("data", cls=LazyGroup, epilog=EPILOG)
def command() -> None:
    """Make training data: convert, mix, generate, and say where every row comes from."""
