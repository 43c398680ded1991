"""`decontam completion`: the script that teaches a shell our verbs, options, rules and formats."""

from __future__ import annotations

import click


@click.command("completion", epilog='Example:  eval "$(python -m decontam completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a SHELL, for a command called `decontam`."""
    from click.shell_completion import get_completion_class

    from decontam.cli import command as root

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(root, {}, "decontam", "_DECONTAM_COMPLETE").source())
