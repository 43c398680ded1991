"""Mixes of a stage are built by the command, which knows whether their sources changed, until the stage has begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from evalsuite.errors import UsageError
from evalsuite.loop.mixes import build_mixes, built_file


class Mixer:
    """Stands for `evalsuite data mix`: counts its calls and writes the source's text."""

    def __init__(self, source: Path, code: int = 0) -> None:
        self.source, self.code, self.calls = source, code, 0

    def __call__(self, arguments: Sequence[str]) -> int:
        self.calls += 1
        if self.code == 0:
            Path(arguments[arguments.index("-o") + 1]).write_text(self.source.read_text())
        return self.code


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_text("old\n")
    path = tmp_path / "mix.yaml"
    path.write_text(yaml.safe_dump({"schema": 1, "name": "m", "sources": [{"path": "a.jsonl", "count": 1}]}))
    return path


def test_changed_sources_are_mixed_again_until_the_stage_has_begun(tmp_path: Path, mix: Path) -> None:
    mixer, folder = Mixer(tmp_path / "a.jsonl"), tmp_path / "data"
    build_mixes("sft", [mix], folder, tmp_path / "results", run=mixer)
    built = built_file(folder, mix)
    assert built.read_text() == "old\n"
    (tmp_path / "a.jsonl").write_text("new\n")
    build_mixes("sft", [mix], folder, tmp_path / "results", run=mixer)
    assert built.read_text() == "new\n"
    (tmp_path / "a.jsonl").write_text("newer\n")
    build_mixes("sft", [mix], folder, tmp_path / "results", run=mixer, begun=True)
    assert (built.read_text(), mixer.calls) == ("new\n", 2)


def test_a_stage_that_has_begun_and_lost_its_mix_has_it_built(tmp_path: Path, mix: Path) -> None:
    mixer = Mixer(tmp_path / "a.jsonl")
    build_mixes("sft", [mix], tmp_path / "data", tmp_path / "results", run=mixer, begun=True)
    assert mixer.calls == 1


def test_a_mix_that_cannot_be_built_is_told_with_its_command(tmp_path: Path, mix: Path) -> None:
    with pytest.raises(UsageError, match=r"the mix mix.yaml could not be built \(exit code 2\).*evalsuite data mix"):
        build_mixes("sft", [mix], tmp_path / "data", tmp_path / "results", run=Mixer(tmp_path / "a.jsonl", 2))
