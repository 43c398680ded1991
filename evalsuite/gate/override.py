"""What a person may overrule: findings of the tiers that the policy names, never failed samples or missing pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalsuite.errors import UsageError
from evalsuite.gate.verdict import Finding, Verdict


def refuse_override(verdict: Verdict, policy: Mapping[str, Any]) -> None:
    """Raises UsageError naming every finding that stands in the way and may not be overruled by this policy."""
    if verdict.outcome == "promote":
        raise UsageError("the verdict is promote; there is nothing to override")
    if not verdict.final:
        raise UsageError("the verdict is not final; run the gate to its end")
    rules = policy["override"]
    held = [f for f in verdict.blocking if not _allowed(f, rules["allow"], rules["never"])]
    if held:
        named = "; ".join(f"{f.benchmark or f.rule} ({f.tier}, {f.rule}): {f.why}" for f in held)
        raise UsageError(f"may not be overridden: {named}")


def _allowed(finding: Finding, allow: list[str], never: list[str]) -> bool:
    if finding.outcome == "error":
        return False  # samples failed: there is nothing to judge by
    return finding.tier in allow and not {finding.tier, _class(finding.rule)} & set(never)


def _class(rule: str) -> str:
    """The word for a rule in `override.never`: infra.loads is of "infra", a slice of "slices"."""
    return {"slice": "slices"}.get(rule, rule.partition(".")[0])
