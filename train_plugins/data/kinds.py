"""The three kinds of canonical rows: their fields, what counts as their content, and which rules hold for them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from train_plugins.data.jsontext import content_bytes
from train_plugins.data.texts import TEMPLATE_TOKENS

Kind = Literal["sft", "preference", "rlvr"]
Problem = tuple[str, str, str]
"""code, what was found, what was expected."""

KINDS: tuple[Kind, ...] = ("sft", "preference", "rlvr")
ROLES = ("system", "user", "assistant")
REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    "sft": ("messages",),
    "preference": ("chosen", "rejected"),
    "rlvr": ("messages", "ground_truth", "dataset"),
}
OPTIONAL: Mapping[Kind, tuple[str, ...]] = {
    "sft": (),
    "preference": ("chosen_rating", "rejected_rating", "chosen_model", "rejected_model", "ratings"),
    "rlvr": ("constraint_type", "constraint"),
}
CONTENT: Mapping[Kind, tuple[str, ...]] = {
    "sft": REQUIRED["sft"],
    "preference": REQUIRED["preference"],
    "rlvr": (*REQUIRED["rlvr"], *OPTIONAL["rlvr"]),
}


@dataclass(frozen=True, slots=True)
class RowRules:
    """What is let through. `max_chars` is about all texts of a row; `verifiers` None: those that evalsuite has.

    `labels` False: what an rlvr row names and its label are left to whoever knows more verifiers.
    """

    allow_tools: bool = False
    allow_template_text: bool = False
    merge_turns: bool = False
    max_chars: int = 1_000_000
    template_tokens: tuple[str, ...] = TEMPLATE_TOKENS
    verifiers: frozenset[str] | None = None
    labels: bool = True


RULES = RowRules()


def rules_meta(rules: RowRules) -> dict[str, Any]:
    """What a sidecar says of the rules: only what lets more through than the usual ones."""
    allowed = [name for name in ("tools", "template_text") if getattr(rules, f"allow_{name}")]
    longer = {"max_chars": rules.max_chars} if rules.max_chars > RULES.max_chars else {}
    return ({"allow": allowed} if allowed else {}) | longer


def rules_of(meta: Mapping[str, Any]) -> RowRules:
    """The rules that a sidecar tells of; the usual ones where it tells none."""
    allowed = meta.get("allow") or ()
    longest = meta.get("max_chars")
    return RowRules(
        allow_tools="tools" in allowed,
        allow_template_text="template_text" in allowed,
        max_chars=longest if isinstance(longest, int) else RULES.max_chars,
    )


def content_id(row: Mapping[str, Any], texts_only: bool = False) -> str:
    """16 hex digits of the sha256 of what the row says; its id, source and ratings do not count.

    `texts_only` promises that its messages hold roles and texts, and no number.
    """
    content = {name: row[name] for name in CONTENT[kind_of(row)] if name in row}
    return hashlib.sha256(content_bytes(content, texts_only)).hexdigest()[:16]


def kind_of(row: Mapping[str, Any]) -> Kind:
    """What a canonical row is for, by its fields."""
    if "chosen" in row or "rejected" in row:
        return "preference"
    return "rlvr" if "ground_truth" in row else "sft"
