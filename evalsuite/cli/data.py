"""`evalsuite data`: the verbs of training data, which live outside of evalsuite and are found by entry point."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import cast

import click

from evalsuite.errors import UsageError

GROUP = "evalsuite.commands"
NAME = "data"
BUILT_IN = "train_plugins.data.cli:command"


def find_command() -> click.Command:
    """The click group that offers the verbs. Raises UsageError when it does not import, or two packages offer one."""
    targets = sorted({BUILT_IN, *(point.value for point in entry_points(group=GROUP, name=NAME))})
    if len(targets) > 1:
        raise UsageError(f"two packages offer `evalsuite {NAME}` ({', '.join(targets)}); uninstall one of them")
    module, _, attribute = targets[0].partition(":")
    try:
        return cast("click.Command", getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise UsageError(f"`evalsuite {NAME}` does not import: {error}; install evalsuite again") from error


def __getattr__(name: str) -> click.Command:
    # The group is made when it is asked for: the library below never imports what stands outside of it.
    if name == "command":
        return find_command()
    raise AttributeError(name)
