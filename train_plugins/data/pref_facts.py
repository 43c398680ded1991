"""What preference pairs say of their making: models, judge and prompts, each by a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train_plugins.data.asking import Engine
from train_plugins.data.pref_config import PreferenceFile
from train_plugins.data.responses import PromptRow


def facts_of(file: PreferenceFile, engines: Mapping[str, Engine], judge: Engine, command: str) -> dict[str, Any]:
    """The sidecar of the pairs, but for what the writer and the report add."""
    config = file.config
    prompts = [{"file": Path(name).name, "digest": _file_digest(file.folder / name)} for name in config.prompts]
    models = {
        model.name: {"on_policy": model.on_policy, "weight": model.weight, **_who(engines[model.name])}
        for model in config.models
    }
    return {
        "kind": "preference",
        "name": config.name,
        "licence": config.licence,
        "origin": "generated",
        "made_by": "synthetic:" + ",".join(model.name for model in config.models),
        "skills": [*config.skills],
        "made": {
            "by": "evalsuite data preferences",
            "command": command,
            "recipe_digest": file.digest,
            "seed": config.seed,
            "prompts": prompts,
            "models": models,
            "judge": {"id": judge_id(file, judge.digest), "model": judge.name, **_who(judge)},
            "aspects": [aspect.name for aspect in file.aspects],
            "form": config.responses.form,
            "ties": config.ties,
            "min_margin": config.min_margin,
        },
        "decontamination": [],
    }


def judge_id(file: PreferenceFile, engine: str) -> str:
    """16 hex digits for who judged: the engine with what it is asked and how."""
    judge = file.config.judge
    wordings = [aspect.question("", ("",)).content for aspect in file.aspects]
    asked = json.dumps([engine, wordings, repr(judge.asked_with), file.config.seed])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def prompt_digest(prompt: PromptRow) -> str:
    """sha256 of the conversation, as rows carry it."""
    text = json.dumps([[m.role, m.content] for m in prompt.messages], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _who(engine: Engine) -> dict[str, Any]:
    return {"digest": engine.digest, **engine.identity}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
