"""Whole runs for personas with a scripted author, and the file that asks for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from evalsuite.models.fake import FakeModel
from tests.train_plugins.data.author import Author, Spoil
from train_plugins.data.asking import Engine, EngineOptions
from train_plugins.data.persona_asking import Report
from train_plugins.data.persona_config import PersonaConfig, read_personas
from train_plugins.data.personas import make_rows, plan
from train_plugins.data.scanning import ScanRule

REPOSITORY = Path(__file__).parents[3]
SHIPPED = read_personas("shipped", Path())
COUNTS = {"math": 3, "grade_math": 3, "algebra": 2, "code": 2, "instruction_following": 6, "if_pairs": 4}


def config(**more: Any) -> PersonaConfig:
    fields: dict[str, Any] = {
        "schema": 1,
        "name": "p",
        "seed": 7,
        "personas": "shipped",
        "skills": COUNTS,
        "engine": EngineOptions("api:http://127.0.0.1:1/v1", served_model="writer"),
        "decontam": ScanRule(waive="a test"),
    }
    return PersonaConfig(**(fields | more))


def run(out: Path, spoil: Spoil = lambda kind, asked: None, asked: list[str] | None = None, **more: Any) -> Report:
    """A whole run with an engine that answers as the author does."""
    extra = {name: more.pop(name) for name in ("run", "scan_options") if name in more}
    chosen = config(**more)
    tasks = plan(chosen, SHIPPED)
    author = Author(tasks, chosen.seed, spoil)

    def reply(text: str) -> str:
        if asked is not None:
            asked.append(text)
        return author(text)

    def open_one(options: EngineOptions) -> Engine:
        name = str(options.served_model)
        return Engine(name, {"name": name}, lambda: FakeModel(answers=lambda r: reply(r.prompt.messages[-1].content)))

    return make_rows(chosen, tasks, out, open_one=open_one, **extra)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.jsonl"))}


def write(path: Path, **more: Any) -> Path:
    raw = {
        "schema": 1,
        "name": "p",
        "seed": 7,
        "personas": "shipped",
        "skills": COUNTS,
        "engine": {"model": "api:http://127.0.0.1:1/v1", "served_model": "m"},
        "decontam": {"waive": "a test"},
    }
    path.write_text(yaml.safe_dump(raw | more))
    return path
