"""`evalsuite completion`: the script that teaches a shell our verbs, options and benchmark names."""

from __future__ import annotations

import click


@click.command("completion", epilog='Example:  eval "$(evalsuite completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a SHELL."""
    from click.shell_completion import get_completion_class

    from evalsuite.cli import command as root

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(root, {}, "evalsuite", "_EVALSUITE_COMPLETE").source())
