"""Every command of the README exists as it is written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from evalsuite.cli import command

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")


def commands(program: str) -> list[str]:
    """Lines of the code blocks and inline code of our pages that start with a program, without comments."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        lines = [line.strip() for line in text.splitlines() if line.startswith("    ")] + re.findall(r"`([^`]+)`", text)
        found += [line.split(" #")[0].strip() for line in lines if line.startswith(f"{program} ")]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("line", commands("evalsuite"))
def test_a_command_of_the_readme_parses(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("responses.jsonl", "recipe.yaml", "pairs.jsonl", "llmbar.jsonl"):
        (tmp_path / name).touch()
    for folder in ("results", "ckpt", "data"):
        (tmp_path / folder).mkdir()
    verb, *arguments = [a for a in shlex.split(line)[1:] if a not in ("--tasks", "<name>") or "<name>" not in line]
    with command.make_context("evalsuite", [verb]) as context:
        found = command.get_command(context, verb)
        assert found is not None, verb
        made = found.make_context(verb, arguments, parent=context)
        if isinstance(found, click.Group):  # of a group's own verb
            _, inner, rest = found.resolve_command(made, [*made._protected_args, *made.args])
            assert inner is not None, line
            made = inner.make_context(verb, rest, parent=made)
        assert made.params


@pytest.mark.parametrize("line", commands("make"))
def test_a_make_target_of_the_readme_exists(line: str) -> None:
    target = line.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


DEMO = ("demo_", "ladder_", "_")


def test_the_readme_names_every_shipped_benchmark_that_is_not_of_the_demo() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [p.name for p in (ROOT / "benchmarks").iterdir() if p.is_dir() and not p.name.startswith(DEMO)]
    assert [n for n in names if f"`{n}`" not in text] == []
