"""Answers of a pool of models to prompts: who is asked follows from the seed, and who fails is replaced.

Upstream, a prompt that one model had failed on was lost for all, and rows were joined by position after some had been
dropped, so that every later prompt got another prompt's answers. Here everything is found by the id of its prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError
from evalsuite.progress import Observer
from evalsuite.types import Message
from train_plugins.data.asking import Answered, Engine, Question, ask, seed_of
from train_plugins.data.badrows import BadRow, Tally
from train_plugins.data.kinds import RowRules
from train_plugins.data.pref_config import PoolModel, PreferenceConfig
from train_plugins.data.rows import check_row, content_id, kind_of, read_lines


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A conversation that ends with the user. `id` and `source` are those of its row."""

    id: str
    source: str
    messages: tuple[Message, ...]


@dataclass(slots=True)
class Gathered:
    """The answers to one prompt, by model, and why models that were asked gave none: (reason, what happened)."""

    prompt: PromptRow
    texts: dict[str, str] = field(default_factory=dict)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def tried(self) -> set[str]:
        return {*self.texts, *self.failed}


def read_prompts(path: Path, rules: RowRules) -> list[PromptRow]:
    """The prompts of a file: of canonical rows of any kind, or of rows with `messages` that end with the user.

    Of an SFT row it is what stands before the last answer, of a pair what both sides share. Raises DataError with
    all reasons, and the first rows as file:line, when a row is none.
    """
    found, tally = [], Tally()
    for line, row in read_lines(path):
        tally.n_rows += 1
        if isinstance(row, BadRow):
            tally.add([row])
            continue
        messages, problems = _prompt_of(row, rules)
        if problems:
            tally.add([BadRow(str(path), line, *problem) for problem in problems])
            continue
        turns = tuple(Message(each["role"], each["content"]) for each in messages)
        source = str(row.get("source") or path.name.split(".")[0])
        found.append(PromptRow(str(row.get("id") or content_id({"messages": messages})), source, turns))
    if tally.n_bad:
        raise DataError("\n".join(tally.lines()))
    if not found:
        raise DataError(f"{path} has no rows; expected one prompt a line")
    return found


def distinct(prompts: Sequence[PromptRow]) -> tuple[list[PromptRow], int]:
    """(prompts, how many were there a second time). Raises DataError when one id stands for two prompts."""
    found: dict[str, PromptRow] = {}
    for prompt in prompts:
        known = found.setdefault(prompt.id, prompt)
        if known.messages != prompt.messages:
            raise DataError(f"two prompts have the id {prompt.id!r} ({known.source}, {prompt.source}); ids must differ")
    return list(found.values()), len(prompts) - len(found)


def gather(
    config: PreferenceConfig,
    prompts: Sequence[PromptRow],
    engine_of: Callable[[PoolModel], Engine],
    journal: Path,
    observer: Observer | None = None,
) -> dict[str, Gathered]:
    """The answers to every prompt, by its id; each model has a journal of its own under its name.

    One model is open at a time: those of local folders fill the memory. `engine_of` is called before a model is asked.
    In each round the models are asked for what is still wanted; a prompt is done when it has its answers or every
    model was tried.
    """
    found = {prompt.id: Gathered(prompt) for prompt in prompts}
    orders = {prompt.id: order_of_models(config, prompt.id) for prompt in prompts}
    for _ in range(len(config.models)):
        asked: dict[str, list[Gathered]] = {}
        for each in found.values():
            for name in _next(config, orders[each.prompt.id], each):
                asked.setdefault(name, []).append(each)
        for model in config.models:
            if model.name in asked:
                _ask(config, model, asked[model.name], engine_of(model), journal / model.name, observer)
        if not asked:
            break
    return found


def order_of_models(config: PreferenceConfig, prompt: str) -> tuple[str, ...]:
    """All models in the order in which they are asked about a prompt, drawn by weight without replacement.

    Exponential waiting times: the next is model m with probability w_m over the weights that are left (Efraimidis and
    Spirakis 2006).
    """

    def waits(model: PoolModel) -> float:
        uniform = (seed_of(config.seed, prompt, "models", model.name) + 1) / (2**63 + 1)
        return -math.log(uniform) / model.weight

    return tuple(model.name for model in sorted(config.models, key=waits))


def _next(config: PreferenceConfig, order: Sequence[str], gathered: Gathered) -> list[str]:
    """Whom to ask now."""
    untried = [name for name in order if name not in gathered.tried]
    if config.responses.form == "several":
        return untried[: max(0, config.responses.n - len(gathered.texts))]
    sides = (set(config.on_policy), {model.name for model in config.models} - set(config.on_policy))
    lacking = [side for side in sides if not side & set(gathered.texts)]
    return [name for side in lacking for name in [n for n in untried if n in side][:1]]


def _ask(
    config: PreferenceConfig,
    model: PoolModel,
    wanted: Sequence[Gathered],
    engine: Engine,
    journal: Path,
    observer: Observer | None,
) -> None:
    by_id = {each.prompt.id: each for each in wanted}
    questions = [_question(config, model, each.prompt) for each in wanted]
    with engine:
        for question, answer in ask(engine, questions, journal, observer, f"answers of {model.name}"):
            gathered = by_id[question.key]
            reason, why = _fault(config, answer)
            if reason:
                gathered.failed[model.name] = reason, why
            else:
                gathered.texts[model.name] = answer.text.strip()


def _question(config: PreferenceConfig, model: PoolModel, prompt: PromptRow) -> Question:
    seed = seed_of(config.seed, prompt.id, "answer", model.name)
    return Question(prompt.id, prompt.messages, model.sampling(config.responses.sampling, seed))


def _fault(config: PreferenceConfig, answer: Answered) -> tuple[str, str]:
    """(reason, what happened) when an answer cannot be used; two empty strings when it can."""
    if answer.finish == "error":
        return "request_failed", answer.why
    if answer.finish == "length" and config.responses.cut == "drop":
        return "cut", f"reached {answer.n_tokens} tokens"
    return ("", "") if answer.text.strip() else ("empty", "the answer is blank")


def _prompt_of(row: Any, rules: RowRules) -> tuple[Sequence[Mapping[str, str]], Sequence[tuple[str, str, str]]]:
    if not isinstance(row, Mapping) or kind_of(row) != "sft":
        kind = kind_of(row) if isinstance(row, Mapping) else "sft"
        problems = check_row(row, kind, rules)
        if problems:
            return (), problems
        return (row["chosen"][:-1] if kind == "preference" else row["messages"]), ()
    messages = row.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, Mapping) for m in messages):
        return (), check_row(row, "sft", rules)
    while messages and messages[-1].get("role") == "assistant":
        messages = messages[:-1]
    if not messages:
        return (), [("role_order", "messages hold no user turn", "a conversation that ends with the user")]
    # What the answer was does not count, so any will do to have the turns before it checked.
    return messages, check_row({**row, "messages": [*messages, {"role": "assistant", "content": "a"}]}, "sft", rules)
