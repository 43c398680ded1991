"""`evalsuite data`: verbs that live outside of evalsuite, found by entry point."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.cli import data
from train_plugins.data.cli import VERBS

REPOSITORY = Path(__file__).resolve().parents[3]


def offer(monkeypatch: pytest.MonkeyPatch, *targets: str) -> None:
    points = [EntryPoint(data.NAME, target, data.GROUP) for target in targets]
    monkeypatch.setattr(data, "entry_points", lambda **_: points)


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "--help"]) == 0
    told = capsys.readouterr().out
    assert [verb for verb in VERBS if f"  {verb} " not in told] == []


def test_an_unknown_verb_gets_the_near_miss(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convrt"]) == 2
    assert "no command named 'convrt'; did you mean 'convert'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ((data.BUILT_IN, "other.package:command"), "two packages offer `evalsuite data`"),
        ((data.BUILT_IN,), ""),
        ((), ""),
    ],
)
def test_another_package_that_offers_the_verb_is_refused_and_our_own_entry_point_is_not(
    targets: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(monkeypatch, *targets)
    assert main(["data", "--help"]) == (2 if words else 0)
    assert words in capsys.readouterr().err


def test_a_verb_that_does_not_import_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "BUILT_IN", "train_plugins.nowhere:command")
    offer(monkeypatch)
    assert main(["data", "--help"]) == 2
    assert "does not import: No module named 'train_plugins.nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_and_its_rows_load_no_heavy_package(verb: str) -> None:
    heavy = {"torch", "transformers", "datasets", "trl", "numpy", "pyarrow", "numba", "pandas"}
    program = (
        "import sys\nfrom evalsuite.__main__ import main\n"
        f"code = main(['data', {verb!r}, '--help'])\n"
        "import train_plugins.data.rows\n"
        f"assert not {heavy!r} & {{name.split('.')[0] for name in sys.modules}}\n"
        "sys.exit(code)"
    )
    done: Any = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    assert f"Usage: evalsuite data {verb}" in done.stdout
