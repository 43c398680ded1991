"""A folder in which somebody types commands of evalsuite, and a look-up of everything in it by digest alone."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evalsuite.checkpoint import open_checkpoint
from tests.servers import Body, Reply, ScriptedServer, prompt_of
from tests.train_plugins.data.judging import rates_by

ROOT = Path(__file__).resolve().parents[2]
NUDGE = {"helpfulness": -0.4, "instruction_following": -0.1, "truthfulness": 0.1, "honesty": 0.4}


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed."""

    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Desk:
    """A working folder. Benchmark data is found by EVALSUITE_DATA_ROOT: what is printed can be typed as it is."""

    folder: Path
    hub: Path

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        (self.folder / name).write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def type(self, *words: str, exits: int = 0) -> Said:
        """`python -m evalsuite WORDS` in the folder; fails with all it said when it exits with another code."""
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "EVALSUITE_DATA_ROOT": str(self.hub),
            "DECONTAM_CACHE": str(self.folder / ".cache"),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "evalsuite", *words]
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == exits, f"{words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Said(done.stdout, done.stderr)


@dataclass(slots=True)
class Archive:
    """What somebody finds who has nothing but digests: all files below some folders, by the sha256 of their bytes."""

    folders: Sequence[Path]
    _files: dict[str, Path] = field(default_factory=dict)
    _checkpoints: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in (path for folder in self.folders for path in sorted(folder.rglob("*")) if path.is_file()):
            self._files.setdefault(sha256(path), path)
            if path.name == "config.json" and path.parent.parent.name != "state":
                self._checkpoints[open_checkpoint(path.parent).digest] = path.parent

    def file(self, digest: str) -> Path:
        """The file with this sha256, of which the first 16 digits do; fails unless there is exactly one."""
        assert len(digest) >= 16
        [found] = [path for known, path in self._files.items() if known.startswith(digest)]
        return found

    def checkpoint(self, digest: str) -> Path:
        return self._checkpoints[digest]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sidecar(path: Path) -> dict[str, Any]:
    """What is written beside a data file; fails unless it is about these very bytes."""
    meta: dict[str, Any] = json.loads(path.with_name(f"{path.name}.meta.json").read_text(encoding="utf-8"))
    assert meta["digest"] == sha256(path)
    assert meta["rows"] == len(rows(path))
    return meta


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def judge() -> ScriptedServer:
    """A judge behind a server that likes small letters and spaces: what a model of characters learns first."""

    def script(body: Body, attempt: int) -> Reply:
        said = rates_by(likes_words)(prompt_of(body))
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return Reply({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}})

    return ScriptedServer(script=script)


def likes_words(text: str, aspect: str) -> int:
    """1 to 5. The aspects round at different places, so that the mean of four tells more than five texts apart."""
    share = sum(letter.islower() or letter == " " for letter in text) / max(1, len(text))
    return max(1, min(5, round(1 + 4 * share + NUDGE[aspect])))
