"""Sources of a few rows, mix files over them, and a stand-in for `evalsuite decontam` that knows one word."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from train_plugins.data.mix import run_mix
from train_plugins.data.mixfile import load_mix, suites_of
from train_plugins.data.screen import Screen

WAIVED = {"waive": "made up for a test"}
POISON = "xyzzy"


def row(identity: str, prompt: str, answer: str = "Yes, it is so.", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"id": identity, "source": "made", "messages": messages, **more}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def source(path: str, **more: Any) -> dict[str, Any]:
    about = {"count": "all", "licence": "MIT", "origin": "o", "skills": ["chat"], "made_by": "human"}
    return {"path": path, **about, **more}


def write_mix(folder: Path, *sources: Mapping[str, Any], **more: Any) -> Path:
    path = folder / "mix.yaml"
    content = {"schema": 1, "name": "m", "seed": 7, "decontam": WAIVED, "sources": list(sources), **more}
    path.write_text(yaml.safe_dump(content))
    return path


def make(path: Path, out: str = "m.jsonl", run: Any = None, **more: Any) -> dict[str, Any]:
    """Runs the mix file with what it writes beside it; returns the sidecar."""
    mix = load_mix(path)
    screen = Screen(mix.decontam, suites_of(mix), path.parent / "results", (), run or no_decontam)
    return run_mix(mix, path.parent / out, screen, **more)


def no_decontam(arguments: Sequence[str], folder: Path) -> int:
    raise AssertionError(f"no scan was asked for: {arguments}")


class Decontam:
    """Finds rows whose prompt has POISON, as the files of `evalsuite decontam` tell it; keeps what it was asked.

    `die_at` is the number of the call that dies in the middle.
    """

    def __init__(self, die_at: int | None = None, action: str = "none") -> None:
        self.calls: list[list[str]] = []
        self.die_at, self.action = die_at, action

    def __call__(self, arguments: Sequence[str], folder: Path) -> int:
        self.calls.append(list(arguments))
        if len(self.calls) == self.die_at:
            raise KeyboardInterrupt
        return self._scan(arguments, folder) if arguments[0] == "scan" else self._clean(arguments)

    def _scan(self, arguments: Sequence[str], folder: Path) -> int:
        given = [each.rpartition("=")[::2] for each in arguments[1 : arguments.index("--suite")]]
        out = Path(arguments[arguments.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        training, matches, actions, rates = [], [], {}, {}
        for name, path in given:
            found = [i for i, each in enumerate(read(folder / path)) if POISON in each["messages"][0]["content"]]
            digest = hashlib.sha256((folder / path).read_bytes()).hexdigest()
            training.append({"name": name or path, "digest": digest, "path": path})
            matches += [{"dataset": name or path, "file": path, "row": i, "eval": "toy"} for i in found]
            actions[digest] = {"toy": self.action if found else "none"}
            rates[digest] = {"toy": 0.5 if found else 0.0}
        write_rows(out / "matches.jsonl", matches)
        verdict = {
            "schema": "decontam/1",
            "complete": True,
            "training": training,
            "actions": actions,
            "rates": rates,
            "rule": {"name": "tulu3"},
            "evals": {"toy": {"digest": "d"}},
            "exit": int(bool(matches)),
        }
        (out / "verdict.json").write_text(json.dumps(verdict))
        return int(bool(matches))

    def _clean(self, arguments: Sequence[str]) -> int:
        report, into = Path(arguments[1]), Path(arguments[arguments.index("-o") + 1])
        into.mkdir()
        files = []
        for each in json.loads((report / "verdict.json").read_text())["training"]:
            rows = read(Path(each["path"]))
            left = [r for r in rows if POISON not in r["messages"][0]["content"]]
            write_rows(into / f"{each['name']}.jsonl", left)
            files.append({"dataset": each["name"], "written": f"{each['name']}.jsonl",
                          "n_dropped": len(rows) - len(left), "n_changed": 0})  # fmt: skip
        (into / "cleaning.json").write_text(json.dumps({"files": files}))
        return 0
