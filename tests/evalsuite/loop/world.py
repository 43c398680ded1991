"""A gate and a registry in a folder, and a program that runs a loop with them: what the kill tests kill.

The gate keeps its verdicts by content, as the real one does through its journals: `work.txt` has a line for each
verdict that was worked out, not for each that was asked for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from evalsuite.checkpoint import open_checkpoint
from evalsuite.loop import Ended, Gated, Hooks, make_plan, run_loop
from evalsuite.loop.view import Lines
from evalsuite.recipe import Stage, load_recipe
from evalsuite.trainers.files import load_json, replace_json


class World:
    def __init__(self, root: Path, outcomes: Mapping[str, str], seconds: float = 0.0) -> None:
        self.root, self.outcomes, self.seconds = root, outcomes, seconds
        root.mkdir(parents=True, exist_ok=True)

    def gate(self, path: Path, stage: Stage) -> Gated:
        digest = open_checkpoint(path).digest
        stored = load_json(self.root / f"{digest}.json")
        if stored is None:
            time.sleep(self.seconds)
            stored = {"outcome": self.outcomes[path.name]}
            replace_json(self.root / f"{digest}.json", stored)
            with (self.root / "work.txt").open("a") as file:
                file.write(f"{path.name}\n")
        return Gated(stored["outcome"], f"verdict-{digest[:8]}", f"says {stored['outcome']}", {"used": 0.25})

    def promote(self, path: Path, verdict: str) -> int:
        head = self.head()
        digest = open_checkpoint(path).digest
        if head is not None and head["id"] == digest:
            return int(head["generation"])
        generation = head["generation"] + 1 if head else 1
        replace_json(self.root / "head.json", {"id": digest, "generation": generation, "path": str(path)})
        return generation

    def head(self) -> dict | None:
        return load_json(self.root / "head.json")

    def champion(self) -> Path | None:
        head = self.head()
        return Path(head["path"]) if head else None

    def work(self) -> list[str]:
        file = self.root / "work.txt"
        return file.read_text().split() if file.exists() else []

    @property
    def hooks(self) -> Hooks:
        return Hooks(self.gate, self.promote, self.champion)


def main(recipe: str, out: str, root: str, outcomes: str) -> Ended:
    world = World(Path(root), json.loads(outcomes), float(os.environ.get("GATE_SECONDS", "0")))
    return run_loop(make_plan(load_recipe(Path(recipe)), Path(out)), world.hooks, Lines())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]).code)
