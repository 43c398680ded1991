"""The stages of a row for a persona: what a model is told, how its reply is read, and when it is told again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalsuite.errors import Incomplete
from evalsuite.progress import Observer
from evalsuite.types import Message
from train_plugins.data.asking import Answered, Engine, EngineOptions, Question, ask, open_engine, seed_of
from train_plugins.data.persona_checks import (
    ANSWER_CHECKS,
    Checked,
    Refused,
    check_code,
    check_constraints,
    check_rejected,
    read_prompt,
)
from train_plugins.data.persona_config import PersonaConfig
from train_plugins.data.persona_constraints import Drawn, missing_marks, settled
from train_plugins.data.persona_prompts import (
    CONSTRAINED,
    PREFIX,
    SKILLS,
    USUAL,
    Skill,
    ask_answer,
    ask_prompt,
    ask_relaxed,
    relaxed,
)
from train_plugins.data.persona_rows import Draft

PAIRS: tuple[Skill, ...] = ("if_pairs",)
OpenFn = Callable[[EngineOptions], Engine]


@dataclass(frozen=True, slots=True)
class Stage:
    """One text of a row: what a model is told to write it, and what is made of the reply."""

    name: str
    skills: tuple[Skill, ...]
    answers: bool  # the engine that answers, not the one that makes up prompts
    words: Callable[[Draft], str]
    read: Callable[[Draft, str], Checked]
    tries: int


@dataclass(slots=True)
class Report:
    """What came of a run. `dropped` counts rows by skill and reason, `again` replies that were asked for once more."""

    name: str
    planned: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
    again: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    n_tokens: int = 0
    cost_usd: float = 0.0
    models: dict[str, Any] = field(default_factory=dict)
    decontamination: Mapping[str, Any] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"again": dict(sorted(self.again.items()))}


def stages(config: PersonaConfig) -> tuple[Stage, ...]:
    """All of them in order. Between the first and the others doubles go."""
    limits = config.limits
    prompt_tries, answer_tries = 1 + limits.prompt_retries, 1 + limits.answer_retries

    def loosened(draft: Draft) -> str:
        return ask_relaxed(draft.prompt, relaxed_of(draft, config))

    return (
        Stage("prompt", SKILLS, False, lambda draft: ask_prompt(draft.task), _read_prompt, prompt_tries),
        Stage("answer", SKILLS, True, lambda d: ask_answer(d.task.skill, d.prompt), _read_answer, answer_tries),
        Stage("relaxed", PAIRS, False, loosened, lambda d, reply: _read_relaxed(d, reply, config), prompt_tries),
        Stage("rejected", PAIRS, True, lambda d: d.texts["relaxed"], _read_rejected, answer_tries),
    )


def relaxed_of(draft: Draft, config: PersonaConfig) -> Drawn:
    """The constraint of a pair that its rejected answer does without."""
    return relaxed(draft.task, config.seed)


def _read_prompt(draft: Draft, reply: str) -> Checked:
    task = draft.task
    text = read_prompt(reply, PREFIX[task.skill])
    if isinstance(text, Refused):
        return text
    if missing_marks(text, task.constraints):
        return Refused("constraint_lost")
    try:
        draft.constraints = settled(text, task.constraints)
    except ValueError:
        return Refused("no_first_line")
    return text


def _read_answer(draft: Draft, reply: str) -> Checked:
    skill = draft.task.skill
    if not reply.strip():
        return Refused("empty")
    if skill == "code":
        return check_code(reply, draft.prompt)
    if skill in CONSTRAINED:
        return check_constraints(reply, draft.constraints)
    return ANSWER_CHECKS[skill](reply)


def _read_relaxed(draft: Draft, reply: str, config: PersonaConfig) -> Checked:
    text = read_prompt(reply, PREFIX["if_pairs"])
    if isinstance(text, Refused):
        return text
    if text.split() == draft.prompt.split():
        return Refused("not_relaxed")
    kept = [one for one in draft.task.constraints if one != relaxed_of(draft, config)]
    return Refused("constraint_lost") if missing_marks(text, kept) else text


def _read_rejected(draft: Draft, reply: str) -> Checked:
    return check_rejected(reply, draft.constraints)


def left(drafts: Sequence[Draft]) -> list[Draft]:
    """Those that were not dropped."""
    return [draft for draft in drafts if not draft.dropped]


class Asking:
    """Runs stages: all drafts are asked for at once, those whose reply is refused once more, and so on."""

    def __init__(
        self,
        config: PersonaConfig,
        journal: Path,
        observer: Observer,
        report: Report,
        open_one: OpenFn | None,
        where: Path,
    ) -> None:
        self._config, self._journal, self._observer, self._report = config, journal, observer, report
        self._open = open_one or (lambda options: open_engine(options, where))
        self._engines: dict[EngineOptions, Engine] = {}

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self._engines.values():
            engine.close()

    def models(self) -> dict[str, Any]:
        """Who was asked, by name."""
        return {engine.name: dict(engine.identity) for engine in self._engines.values()}

    def run(self, stage: Stage, drafts: Sequence[Draft]) -> None:
        """Fills in the text of a stage, or says why a draft is dropped."""
        todo = [draft for draft in left(drafts) if draft.task.skill in stage.skills]
        n_failed = 0
        by_engine: dict[EngineOptions, list[Draft]] = {}
        for draft in todo:
            options = self._config.engine_for(draft.task.skill, answers=stage.answers)
            by_engine.setdefault(options, []).append(draft)
        for options, those in by_engine.items():
            n_failed += self._with_one(stage, options, those)
        if n_failed > self._config.limits.max_failed * len(todo):
            raise Incomplete(
                f"{n_failed} of {len(todo)} replies of the stage {stage.name!r} did not come (more than "
                f"limits.max_failed {self._config.limits.max_failed:g}); nothing is lost and nothing is written, the "
                "same command asks again"
            )
        self._report.failed += n_failed

    def _with_one(self, stage: Stage, options: EngineOptions, drafts: Sequence[Draft]) -> int:
        """How many replies did not come."""
        engine = self._engine(options)
        refused: dict[str, str] = {}
        todo, n_failed = list(drafts), 0
        for attempt in range(stage.tries):
            if not todo:
                break
            self._report.again[stage.name] += len(todo) if attempt else 0
            replies = self._ask(stage, engine, options, todo, attempt)
            again = []
            for draft in todo:  # in the order of the plan, whatever came first
                said = replies[draft.task.key]
                if said.finish == "error":
                    draft.dropped, n_failed = f"{stage.name}: failed", n_failed + 1
                    continue
                found = Refused("cut_off") if said.finish == "length" else stage.read(draft, said.text)
                if isinstance(found, Refused):
                    refused[draft.task.key] = found.why
                    again.append(draft)
                else:
                    draft.texts[stage.name], draft.models[stage.name] = found, engine.name
            todo = again
        for draft in todo:
            draft.dropped = f"{stage.name}: {refused[draft.task.key]}"
        return n_failed

    def _ask(
        self, stage: Stage, engine: Engine, options: EngineOptions, drafts: Sequence[Draft], attempt: int
    ) -> dict[str, Answered]:
        questions = [self._question(stage, options, draft, attempt) for draft in drafts]
        keys = {question.key: draft.task.key for question, draft in zip(questions, drafts, strict=True)}
        label = f"{stage.name} ({engine.name})" + (f", try {attempt + 1}" if attempt else "")
        found: dict[str, Answered] = {}
        for question, answered in ask(engine, questions, self._journal, self._observer, label):
            found[keys[question.key]] = answered
            self._report.n_tokens += answered.n_tokens
            self._report.cost_usd += answered.cost_usd
        return found

    def _question(self, stage: Stage, options: EngineOptions, draft: Draft, attempt: int) -> Question:
        task = draft.task
        seed = seed_of(self._config.seed, task.key, task.persona, stage.name, attempt)
        messages = (Message("user", stage.words(draft)),)
        sampling = options.sampling(USUAL[task.skill], seed)
        return Question(f"{task.key}/{stage.name}/{attempt}", messages, sampling)

    def _engine(self, options: EngineOptions) -> Engine:
        if options not in self._engines:
            self._engines[options] = self._open(options)
        if options.engine != "api":  # one model at a time in this machine's memory
            for other, engine in self._engines.items():
                if other != options and other.engine != "api":
                    engine.close()
        return self._engines[options]
