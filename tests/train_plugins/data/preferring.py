"""A preference file in a folder: prompts, four scripted models worth 5, 4, 2 and 1, and a judge that knows it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from evalsuite.types import Response
from tests.train_plugins.data.judging import Scripted, rates_by
from train_plugins.data.asking import Engine, EngineOptions
from train_plugins.data.pref_config import JudgeOptions, PreferenceFile, read_preferences
from train_plugins.data.preferences import Made, make_preferences
from train_plugins.data.rows import read_rows

NAMES = ("a", "b", "c", "d")
WORTH = {"a": 5, "b": 4, "c": 2, "d": 1}
PAIR_FORM = {"form": "one_side_model"}


def word(prompt: str) -> str:
    """A word that only the answers to this prompt have."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:12]


def prompts(n: int) -> list[dict[str, Any]]:
    return [
        {"id": f"p{i}", "source": "s", "messages": [{"role": "user", "content": f"Say {word(str(i))} number {i}."}]}
        for i in range(n)
    ]


def answer_of(name: str) -> Callable[[str], str | Response]:
    return lambda prompt: f"{name} says: {prompt} It is done."


def by_author(text: str, aspect: str) -> int:
    return WORTH[text[0]]


class World:
    """A preference file in a folder with scripted models behind it."""

    def __init__(self, folder: Path, n: int = 12, *, rows: list[dict[str, Any]] | None = None, **more: Any) -> None:
        self.folder, self.out = folder, folder / "out.jsonl"
        self.models = {name: Scripted(name, answer_of(name)) for name in NAMES}
        self.judge = Scripted("judge", rates_by(by_author))
        self.raw: dict[str, Any] = {
            "schema": 1,
            "name": "pairs",
            "seed": 7,
            "licence": "ODC-By-1.0",
            "prompts": ["prompts.jsonl"],
            "models": [{"name": name, "model": f"hf:{name}", "on_policy": name == "a"} for name in NAMES],
            "judge": {"model": "hf:judge"},
        } | more
        lines = (json.dumps(row) + "\n" for row in (prompts(n) if rows is None else rows))
        (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")

    def file(self) -> PreferenceFile:
        path = self.folder / "prefs.yaml"
        path.write_text(yaml.safe_dump(self.raw), encoding="utf-8")
        return read_preferences(path)

    def make(self) -> Made:
        return make_preferences(self.file(), self.out, opening=self.opening)

    def opening(self, options: EngineOptions, where: Path) -> Engine:
        assert where == self.folder
        return (self.judge if isinstance(options, JudgeOptions) else self.models[options.target]).engine()

    def rows(self) -> list[dict[str, Any]]:
        return list(read_rows(self.out, "preference"))

    def lost(self) -> dict[str, tuple[str, str]]:
        lines = (self.folder / "out.jsonl.dropped.jsonl").read_text(encoding="utf-8").splitlines()
        return {row["id"]: (row["reason"], row["why"]) for row in map(json.loads, lines)}

    def asked(self) -> int:
        return len(self.judge.asked) + sum(len(model.asked) for model in self.models.values())


def belongs(row: Mapping[str, Any]) -> bool:
    """Whether both answers were written for the row's own prompt."""
    prompt = row["chosen"][0]["content"]
    return all(prompt in row[side][-1]["content"] for side in ("chosen", "rejected"))
