"""From a finished draft to rows: preference for pairs, sft for every other skill, rlvr where a verifier can judge."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from train_plugins.data.persona_checks import final_number
from train_plugins.data.persona_constraints import Drawn
from train_plugins.data.persona_prompts import Task
from train_plugins.data.rows import Kind, content_id

# What `evalsuite data mix` and model cards call the skills.
SKILL_NAMES: Mapping[str, str] = {
    "code": "coding",
    "instruction_following": "instruction-following",
    "if_pairs": "instruction-following",
}


@dataclass(slots=True)
class Draft:
    """A row in the making: the texts that were found good so far, by stage, and the models that wrote them.

    `dropped` says at which stage it went and why. `constraints` are those of the task, settled.
    """

    task: Task
    constraints: tuple[Drawn, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    dropped: str = ""

    @property
    def prompt(self) -> str:
        return self.texts["prompt"]

    @property
    def answer(self) -> str:
        return self.texts["answer"]


def rows_of(draft: Draft, name: str, relaxed: str = "") -> Iterator[tuple[Kind, dict[str, Any]]]:
    """The rows of one draft with their kinds; `relaxed` is the constraint that a pair's rejected answer did without."""
    user = {"role": "user", "content": draft.prompt}
    answer = {"role": "assistant", "content": draft.answer}
    if draft.task.skill == "if_pairs":
        rejected = {"role": "assistant", "content": draft.texts["rejected"]}
        models = {"chosen_model": draft.models["answer"], "rejected_model": draft.models["rejected"]}
        content: dict[str, Any] = {"chosen": [user, answer], "rejected": [user, rejected], **models}
        more = {"relaxed": relaxed, "relaxed_prompt": draft.texts["relaxed"]}
        yield "preference", _row(draft, name, content) | more
        return
    yield "sft", _row(draft, name, {"messages": [user, answer]}) | {"prompt": draft.prompt}
    if label := _label(draft):
        yield "rlvr", _row(draft, name, {"messages": [user], **label})


def _label(draft: Draft) -> dict[str, Any]:
    """What a verifier judges an answer to the prompt by; empty where none can."""
    if draft.task.skill == "grade_math":
        return {"ground_truth": final_number(draft.answer), "dataset": "gsm8k"}
    if draft.task.skill == "instruction_following":
        ids = [one.id for one in draft.constraints]
        truth = [{"instruction_id": ids, "kwargs": [dict(one.kwargs) for one in draft.constraints]}]
        return {
            "ground_truth": json.dumps(truth, ensure_ascii=False),
            "dataset": "ifeval",
            "constraint_type": ", ".join(ids),
            "constraint": " ".join(one.words for one in draft.constraints),
        }
    return {}


def _row(draft: Draft, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    task = draft.task
    row = {"id": "", "source": f"{name}/{task.skill}", **content, "skill": task.skill, "persona": task.persona}
    row["id"] = content_id(row)
    return row | ({"constraints": [one.as_row() for one in draft.constraints]} if draft.constraints else {})
