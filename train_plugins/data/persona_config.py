"""personas.yaml: how many rows of which skills, for whose prompts, written and answered by which models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evalsuite.errors import DataError, UsageError, did_you_mean
from evalsuite.trainers.options import parse
from train_plugins.data.asking import EngineOptions
from train_plugins.data.licences import LicenceRule, licence_problems
from train_plugins.data.persona_prompts import SKILLS, Skill
from train_plugins.data.scanning import ScanRule

SCHEMA = 1
SHIPPED = Path(__file__).with_name("personas.txt")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
FIELDS = ("persona", "input persona", "text")  # of rows of persona files; the second is PersonaHub's


@dataclass(frozen=True, slots=True)
class SkillOptions:
    """How many rows, and engines of its own where they differ from those of the file."""

    count: int
    engine: EngineOptions | None = None
    answer_engine: EngineOptions | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How often a reply is asked for again, and which share of replies may fail to come at all.

    `prompt_retries` and `answer_retries` count the tries after the first. Above `max_failed` nothing is written: the
    same command asks again.
    """

    prompt_retries: int = 1
    answer_retries: int = 2
    max_failed: float = 0.01

    def __post_init__(self) -> None:
        if min(self.prompt_retries, self.answer_retries) < 0 or not 0 <= self.max_failed <= 1:
            raise UsageError("retries are whole numbers from 0 up, max_failed is a share from 0 to 1")


@dataclass(frozen=True, slots=True)
class PersonaConfig:
    """The file. `personas` is `shipped` (40 lines, for trying things out), a path, or `hub:OWNER/NAME[:CONFIG]`.

    `engine` writes prompts, and answers too unless there is an `answer_engine`.
    """

    schema: int
    name: str
    seed: int
    personas: str
    skills: Mapping[str, int | SkillOptions]
    engine: EngineOptions
    answer_engine: EngineOptions | None = None
    limits: Limits = field(default_factory=Limits)
    decontam: ScanRule = field(default_factory=ScanRule)
    licence: str = "unknown"

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise UsageError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        if self.schema != SCHEMA:
            yield f"schema is {self.schema}, this version reads {SCHEMA}"
        if not NAME.fullmatch(self.name):
            yield f"name is {self.name!r}; expected letters, digits, dots, dashes: it becomes a folder"
        for skill in self.skills:
            if skill not in SKILLS:
                yield f"no skill {skill!r}{did_you_mean(skill, SKILLS)}; there are {', '.join(SKILLS)}"
            elif self.count(skill) < 0:
                yield f"skills.{skill} is {self.count(skill)}; expected 0 or more rows"
        yield from licence_problems(LicenceRule(unknown="allow"), {"licence": self.licence})
        if self.skills and not any(self.count(skill) for skill in self.skills if skill in SKILLS):
            yield "skills asks for no row; say how many rows of at least one"
        if not self.skills:
            yield f"skills is empty; say how many rows of {', '.join(SKILLS)}"

    def count(self, skill: Skill) -> int:
        found = self.skills.get(skill, 0)
        return found if isinstance(found, int) else found.count

    def engine_for(self, skill: Skill, *, answers: bool) -> EngineOptions:
        """Who writes the prompts of a skill, or answers them."""
        own = self.skills.get(skill)
        mine = own if isinstance(own, SkillOptions) else SkillOptions(0)
        writer = mine.engine or self.engine
        return (mine.answer_engine or self.answer_engine or writer) if answers else writer


def load_config(path: Path) -> tuple[PersonaConfig, dict[str, Any]]:
    """The file, parsed and as it stands. Raises UsageError with everything that is wrong with it, one a line."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    return parse(PersonaConfig, raw, str(path)), raw


def read_personas(named: str, where: Path, roots: tuple[Path, ...] = (), *, offline: bool = False) -> tuple[str, ...]:
    """Every persona once, in the order of the file. Relative paths count from `where`; a hub id is looked for in roots.

    A file holds one persona a line (.txt), or rows with a field `persona`, `input persona` or `text`. Raises DataError
    when there are none.
    """
    if named == "shipped":
        texts: Iterable[str] = SHIPPED.read_text(encoding="utf-8").splitlines()
    elif named.startswith("hub:"):
        texts = _of_rows(_hub_rows(named, roots, offline), named)
    else:
        path = where / Path(named).expanduser()
        if not path.exists():
            raise DataError(f"personas: no file {path}; expected a path, `shipped` or hub:OWNER/NAME")
        texts = _of_text(path) if path.suffix == ".txt" else _of_file(path)
    found = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not found:
        raise DataError(f"personas: {named} holds none; expected one a line, or rows with a field `persona`")
    return found


def _of_text(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.object[error.start]:#04x} at byte {error.start + 1} is no UTF-8"
        ) from error


def _of_file(path: Path) -> Iterator[str]:
    from train_plugins.data.rows import BadRow, read_lines

    for line, row in read_lines(path):
        if isinstance(row, BadRow):
            raise DataError(str(row))
        yield from _of_rows([row], f"{path}:{line}")


def _of_rows(rows: Iterable[Any], where: str) -> Iterator[str]:
    for row in rows:
        name = next((name for name in FIELDS if isinstance(row, Mapping) and isinstance(row.get(name), str)), None)
        if name is None:
            has = ", ".join(map(str, row)) if isinstance(row, Mapping) else json.dumps(row)[:60]
            raise DataError(f"{where}: no field {' or '.join(map(repr, FIELDS))}; it has {has}")
        yield row[name]


def _hub_rows(named: str, roots: tuple[Path, ...], offline: bool) -> Any:
    from evalsuite.data import DatasetSpec, go_offline_when_local, load, resolve_all

    _, id, *more = named.split(":")
    spec = DatasetSpec(id, more[0] if more else None, ("train",))
    found = resolve_all([spec], roots, offline=offline)
    go_offline_when_local(found.values())
    return load(found[spec], "train")
