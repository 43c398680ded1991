"""A `.yaml` file among a stage's data is a mix: it is built by `evalsuite data mix` before the stage is checked."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from evalsuite.errors import UsageError
from evalsuite.trainers.files import digest_of_json

MixFn = Callable[[Sequence[str]], int]
"""Runs `evalsuite data mix` with these arguments; its exit code."""


def looks_like_mix(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml")


def is_mix(path: Path) -> bool:
    """Whether the file is one; what a foreign trainer declares may be any other YAML file."""
    try:
        return looks_like_mix(path) and bool(read_mix(path))
    except UsageError:
        return False


def built_file(folder: Path, mix: Path) -> Path:
    """Where the rows of a mix file are. Its content is in the name: another mix never stands in for this one, and what
    a stage began with is not written over. Comments and the order of keys do not count."""
    return folder / f"{mix.stem}-{digest_of_json(read_mix(mix))[:8]}.jsonl"


def run_mix(arguments: Sequence[str]) -> int:
    """The mixing in a process of its own: evalsuite's libraries know nothing of how data is made."""
    typed = [sys.executable, "-P", "-m", "evalsuite", "data", "mix", *arguments]
    return subprocess.run(typed, stdout=2, check=False).returncode


def build_mixes(
    stage: str, mixes: Iterable[Path], folder: Path, results: Path, options: Sequence[str] = (), run: MixFn = run_mix,
    *, begun: bool = False,
) -> None:  # fmt: skip
    """Builds the mixes. Raises UsageError when one cannot be built.

    The command keeps what it finds built of the same sources. A stage that has `begun` keeps what it began with, also
    where sources changed since. `options` are added to the command. Reports of what a mix was cleaned of go below
    `results`.
    """
    for mix in mixes:
        out = built_file(folder, mix)
        if begun and out.is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        arguments = [str(mix), "-o", str(out), "--results", str(results), *options]
        code = run(arguments)
        if code != 0 or not out.is_file():
            raise UsageError(
                f"stage {stage!r}: the mix {mix.name} could not be built (exit code {code}); what it said stands "
                f"above, the command was: {shlex.join(['evalsuite', 'data', 'mix', *arguments])}"
            )


def read_mix(path: Path) -> dict[str, Any]:
    """The content of a mix file. Raises UsageError when it is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: not a mix file ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not isinstance(content.get("sources"), list):
        raise UsageError(f"{path}: not a mix file: expected a mapping with sources")
    return content


def rows_of_mix(path: Path) -> int | None:
    """The rows that a mix comes to by its counts, before it is built; None when one of them is no number."""
    counts = [source.get("count") if isinstance(source, dict) else None for source in read_mix(path)["sources"]]
    numbers = [count for count in counts if isinstance(count, int)]
    return sum(numbers) if numbers and len(numbers) == len(counts) else None
