"""Preference files: which prompts, whose answers, who judges them, and what makes a pair."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from evalsuite.errors import UsageError
from evalsuite.trainers.files import digest_of_json
from evalsuite.trainers.options import parse
from evalsuite.types import Sampling
from train_plugins.data.asking import EngineOptions
from train_plugins.data.aspects import TULU, Aspect, load_aspects
from train_plugins.data.licences import LicenceRule, licence_problems
from train_plugins.data.pairs import Ties
from train_plugins.data.ratings import least_of
from train_plugins.data.relevance import MIN_RELEVANCE

SCHEMA = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Form = Literal["several", "one_side_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolModel(EngineOptions):
    """A model that writes answers, as an engine and by the name that rows call it.

    `weight` is how often it is drawn for a prompt, `on_policy` says that it is the model to be trained. What limits it
    (`max_cost_usd`, `max_tokens_total`) limits this model alone.
    """

    name: str
    on_policy: bool = False
    weight: float = 1.0

    def __post_init__(self) -> None:
        # No super(): a class with slots is made anew, and the compiler's cell still holds the old one.
        problems = list(EngineOptions._problems(self))
        if not NAME.fullmatch(self.name):
            problems.append(f"name is {self.name!r}; expected letters, digits, dots and dashes")
        if not self.weight > 0:
            problems.append(f"weight is {self.weight:g}; expected more than 0")
        if problems:
            raise UsageError("; ".join(problems))


@dataclass(frozen=True, slots=True)
class Responses:
    """How answers are asked for: `n` different models for each prompt, or a pair of which one is on-policy.

    A model that gives no answer is replaced by the next that is drawn; a prompt with fewer than `at_least` answers in
    the end is dropped. `cut: drop` counts an answer that reached `max_tokens` as none.
    """

    form: Form = "several"
    n: int = 4
    at_least: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 7500
    cut: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        wrong = []
        if self.n < 2:
            wrong.append(f"n is {self.n}; a pair needs 2 or more")
        if self.at_least is not None and not 2 <= self.at_least <= self.wanted:
            wrong.append(f"at_least is {self.at_least}; expected 2 to {self.wanted}")
        if self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            wrong.append("expected max_tokens of 1 or more, temperature of 0 or more, top_p above 0 and up to 1")
        if wrong:
            raise UsageError("; ".join(wrong))

    @property
    def wanted(self) -> int:
        return 2 if self.form == "one_side_model" else self.n

    @property
    def least(self) -> int:
        return self.wanted if self.at_least is None else self.at_least

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.max_tokens, temperature=self.temperature, top_p=self.top_p)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions(EngineOptions):
    """The model that rates, for each of the `aspects`: shipped ones by name, own ones by file.

    A text with fewer than `min_aspects` ratings (none given: all but one of three or more) is asked about once more,
    then its prompt is dropped.
    """

    aspects: tuple[str, ...] = TULU
    min_aspects: int | None = None

    def __post_init__(self) -> None:
        problems = list(EngineOptions._problems(self))
        if not self.aspects:
            problems.append("aspects is empty; expected at least one")
        if self.min_aspects is not None and not 1 <= self.min_aspects <= len(self.aspects):
            problems.append(f"min_aspects is {self.min_aspects}; expected 1 to {len(self.aspects)}")
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def least(self) -> int:
        return least_of(len(self.aspects)) if self.min_aspects is None else self.min_aspects

    @property
    def asked_with(self) -> Sampling:
        """Tülu 3 judges at temperature 0.1."""
        return self.sampling(Sampling(2048, temperature=0.1), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceConfig:
    """A whole preference file. Paths in it count from the folder it lies in.

    `licence` is an SPDX id for the rows that come out. More than `max_failed` of the prompts lost to requests that
    failed ends the command before anything is written: the same command asks for those again. `max_cost_usd` and
    `max_tokens_total` are for all servers and all starts together.
    """

    schema: int
    name: str
    seed: int
    prompts: tuple[str, ...]
    models: tuple[PoolModel, ...]
    judge: JudgeOptions
    licence: str
    responses: Responses = Responses()
    ties: Ties = "drop"
    min_margin: float = 0.0
    limit: int | None = None
    max_cost_usd: float | None = None
    max_tokens_total: int | None = None
    max_failed: float = 0.05
    min_relevance: float = MIN_RELEVANCE
    allow_template_text: bool = False
    skills: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise UsageError("; ".join(problems))

    def model(self, name: str) -> PoolModel:
        return next(model for model in self.models if model.name == name)

    @property
    def on_policy(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models if model.on_policy)

    def _problems(self) -> Iterator[str]:
        if self.schema != SCHEMA:
            yield f"schema is {self.schema}; this version reads {SCHEMA}"
        if not NAME.fullmatch(self.name):
            yield f"name is {self.name!r}; expected letters, digits, dots and dashes"
        if not self.prompts:
            yield "prompts is empty; expected files of rows"
        names = Counter(model.name for model in self.models)
        yield from (f"models: the name {name!r} is there {n} times" for name, n in names.items() if n > 1)
        wanted = self.responses.wanted
        if len(self.models) < wanted:
            yield f"{wanted} answers of different models are wanted (responses.n), there are {len(self.models)} models"
        if self.responses.form == "one_side_model" and len(self.on_policy) in (0, len(self.models)):
            yield "form one_side_model pairs a model of on_policy: true with one that is not; models have no such two"
        engines = [(model.name, model) for model in self.models] + [("judge", self.judge)]
        unpriced = [name for name, each in engines if each.engine == "api" and each.prices is None]
        if self.max_cost_usd is not None and unpriced:
            yield f"max_cost_usd needs prices (a YAML file) for {', '.join(unpriced)}"
        if not self.licence.strip():
            yield "licence is empty; expected an SPDX id"
        yield from licence_problems(LicenceRule(unknown="allow"), {"licence": self.licence})
        for name, low in (("min_margin", 0), ("max_failed", 0), ("min_relevance", 0), ("limit", 1), ("max_cost_usd", 0),
                          ("max_tokens_total", 1)):  # fmt: skip
            if (value := getattr(self, name)) is not None and value < low:
                yield f"{name} is {value:g}; expected {low} or more"


@dataclass(frozen=True, slots=True)
class PreferenceFile:
    """A file that was read: its digest is that of the content, not of comments or layout."""

    config: PreferenceConfig
    aspects: tuple[Aspect, ...]
    digest: str
    folder: Path


def read_preferences(path: Path) -> PreferenceFile:
    """Raises UsageError with every problem, one a line."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}; expected a YAML file") from error
    config = parse(PreferenceConfig, raw, str(path))
    aspects = load_aspects(config.judge.aspects, path.parent)
    return PreferenceFile(config, aspects, digest_of_json(raw), path.parent)
