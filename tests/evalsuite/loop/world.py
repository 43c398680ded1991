"""A gate and a registry in a folder, and a program that runs a loop with them: what the kill tests kill.

The gate keeps its verdicts by content and by the champion's generation, as the real one does through its journals:
`work.txt` has a line for each verdict that was worked out, not for each that was asked for. A promotion by a verdict
against another generation is a lost race.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from evalsuite.checkpoint import open_checkpoint
from evalsuite.errors import LostRace
from evalsuite.loop import Ended, Gated, Hooks, make_plan, run_loop
from evalsuite.loop.view import Lines
from evalsuite.recipe import Stage, load_recipe
from evalsuite.trainers.files import load_json, replace_json


class World:
    def __init__(self, root: Path, outcomes: Mapping[str, str], seconds: float = 0.0, race: str = "") -> None:
        self.root, self.outcomes, self.seconds, self.race = root, outcomes, seconds, race
        root.mkdir(parents=True, exist_ok=True)

    def gate(self, path: Path, stage: Stage) -> Gated:
        digest = open_checkpoint(path).digest
        against = self.generation()
        verdict, outcome = f"{digest[:8]}-{against}", self.outcomes[path.name]
        if verdict not in (line[1] for line in self._worked()):
            time.sleep(self.seconds)
            # One write is the whole verdict, so that no kill leaves half of it.
            with (self.root / "work.txt").open("a") as file:
                file.write(f"{path.name} {verdict}\n")
        return Gated(outcome, verdict, f"says {outcome}", {"used": 0.25})

    def _worked(self) -> list[list[str]]:
        file = self.root / "work.txt"
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    def promote(self, path: Path, verdict: str) -> int:
        head = self.head()
        digest = open_checkpoint(path).digest
        if head is not None and head["id"] == digest:
            return int(head["generation"])
        if path.name == self.race and not (self.root / "raced").exists():
            self._point("somebody else's", path)
            (self.root / "raced").touch()
        if verdict.rpartition("-")[2] != str(self.generation()):
            raise LostRace("the champion changed since the verdict")
        return self._point(digest, path)

    def _point(self, digest: str, path: Path) -> int:
        generation = self.generation() + 1
        replace_json(self.root / "head.json", {"id": digest, "generation": generation, "path": str(path)})
        return generation

    def generation(self) -> int:
        head = self.head()
        return int(head["generation"]) if head else 0

    def head(self) -> dict | None:
        return load_json(self.root / "head.json")

    def champion(self) -> Path | None:
        head = self.head()
        return Path(head["path"]) if head else None

    def work(self) -> list[str]:
        return [line[0] for line in self._worked()]

    @property
    def hooks(self) -> Hooks:
        return Hooks(self.gate, self.promote, self.champion)


def main(recipe: str, out: str, root: str, outcomes: str) -> Ended:
    seconds, race = float(os.environ.get("GATE_SECONDS", "0")), os.environ.get("RACE", "")
    world = World(Path(root), json.loads(outcomes), seconds, race)
    return run_loop(make_plan(load_recipe(Path(recipe)), Path(out)), world.hooks, Lines())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]).code)
