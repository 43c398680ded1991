"""From a verdict to a new champion: the checks before the registry's compare-and-swap, and the word after it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalsuite.checkpoint import Checkpoint, digest_of, open_checkpoint
from evalsuite.checkpoint.files import read_json
from evalsuite.errors import CheckpointError, EvalsuiteError, LostRace, RegistryError, UsageError
from evalsuite.gate.verdict import from_raw, outcome_of
from evalsuite.notify import notify
from evalsuite.registry import Event, Ref, Registry
from evalsuite.registry.manifest import declared_digest, manifest_of
from evalsuite.registry.refs import check_name, moves

__all__ = ["CHOSEN", "NotPromoted", "Promoted", "Regate", "manifest_of", "promote"]

CHOSEN = ("anchor", "candidate")
"""Refs that a person points; the champion needs a verdict, and the release a look (see release.py)."""

Regate = Callable[[Path], str]
"""Gates a checkpoint again, against the champion there is now; returns the digest of the recorded verdict."""


class NotPromoted(EvalsuiteError):
    """The verdict does not allow it. Exits as the gate did: 1 blocked, 3 held."""

    def __init__(self, message: str, outcome: str) -> None:
        super().__init__(message)
        self.exit_code = 1 if outcome == "block" else 3


@dataclass(frozen=True, slots=True)
class Promoted:
    """What a ref points to now. `already` means that it did before, by this verdict: nothing was written."""

    ref: str
    generation: int
    name: str
    path: str
    id: str
    verdict: str | None
    already: bool = False
    overridden_by: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ruling:
    """A verdict that allows a promotion."""

    digest: str
    verdict: Mapping[str, Any]
    overridden: Event | None

    @property
    def generation(self) -> int:
        """The champion's when it was judged; 0 when there was none."""
        champion = self.verdict.get("champion")
        return int(champion["generation"]) if champion else 0

    @property
    def overridden_by(self) -> str:
        return str(self.overridden.detail.get("by") or self.overridden.actor) if self.overridden else ""


@dataclass(frozen=True, slots=True)
class _Why:
    """What a person says for the log: of the promotion, and of a policy that is not the champion's."""

    reason: str
    new_policy: str


@dataclass(frozen=True, slots=True)
class _Reader:
    """How the checkpoint's folder is read, the same way each time: its digest depends on it."""

    path: Path
    allow_pickle: bool
    trust_remote_code: bool
    paranoid: bool

    def open(self) -> Checkpoint:
        return open_checkpoint(self.path, allow_pickle=self.allow_pickle, trust_remote_code=self.trust_remote_code)

    def check(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError when the folder is no longer what was opened.

        Large files count as unchanged while size, inode and times of change are; `paranoid` reads every byte.
        """
        again = _read_all(checkpoint) if self.paranoid else self.open().files
        if digest_of(again) != checkpoint.digest:
            changed = sorted(name for name, sha256 in checkpoint.files.items() if again.get(name) != sha256)
            raise CheckpointError(
                f"{checkpoint.path / (changed or sorted(again))[0]}: changed since it was judged; nothing was "
                "promoted: wait until whoever writes there is done, then gate again"
            )


def promote(
    registry: Registry,
    checkpoint_path: Path,
    *,
    ref: str = "champion",
    verdict: str | None = None,
    policy_digest: str | None = None,
    new_policy: str = "",
    reason: str = "",
    paranoid: bool = False,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    retries: int = 0,
    regate: Regate | None = None,
) -> Promoted:
    """Points a ref to a checkpoint. The champion needs a verdict that is final and says promote.

    `verdict` is the digest of the one meant, the newest on this checkpoint when None; `policy_digest` is the policy it
    must have been made by, else the one that the present champion was judged by, unless `new_policy` says why another
    is right. When the champion was replaced since (LostRace), up to `retries` times `regate` is called, or, without it,
    a newer verdict is looked for. Raises NotPromoted, LostRace, RegistryError, CheckpointError, UsageError.
    """
    _check_asked(checkpoint_path, ref, new_policy)
    if checkpoint_path.is_file():
        raise UsageError(f"{checkpoint_path} is a file; a checkpoint is promoted by its folder")
    reader = _Reader(checkpoint_path, allow_pickle, trust_remote_code, paranoid)
    _refuse_reward_model(checkpoint_path.expanduser())
    checkpoint = reader.open()
    if ref in CHOSEN:
        return _point(registry, checkpoint, reader, ref, reason)
    while True:
        ruling = _ruling(registry, checkpoint, ref, verdict, policy_digest)
        try:
            return _promote(registry, checkpoint, reader, ruling, _Why(reason, new_policy.strip()))
        except LostRace:
            if not retries:
                raise
            retries -= 1
            verdict = regate(checkpoint.path) if regate else _newer(registry, checkpoint, ref, ruling)
            if verdict is None:
                raise


# -- may it? --


def _check_asked(folder: Path, ref: str, new_policy: str) -> None:
    check_name(ref)
    if ref == "release":
        raise RegistryError(
            "a release is a checkpoint that was looked at on the unseen suite and passed; run evalsuite release "
            f"{folder}, which moves the ref itself"
        )
    if new_policy and ref in CHOSEN:
        raise UsageError(f"{ref} is chosen without a verdict, so no policy is compared; leave --new-policy out")


def _refuse_reward_model(folder: Path) -> None:
    if read_json(folder / "evalsuite.json").get("stage") == "rm":
        raise CheckpointError(f"{folder}: a reward model has no text to score, so it cannot be promoted")


def _ruling(
    registry: Registry, checkpoint: Checkpoint, ref: str, wanted: str | None, policy_digest: str | None
) -> _Ruling:
    found = registry.verdict_of(checkpoint.digest, ref)
    gate = f"evalsuite gate {checkpoint.path}"
    if found is None:
        raise RegistryError(
            f"{checkpoint.name}: no verdict on it for {ref!r} in the log of {registry.root}; run {gate}"
        )
    newest, verdict, _ = found
    if wanted is not None and registry.find(wanted) != newest:
        raise RegistryError(
            f"verdict {wanted[:12]} is not the newest on {checkpoint.name}, that is {newest[:12]}; name that one or "
            f"none (see: evalsuite registry log)"
        )
    if policy_digest is not None and verdict["policy"] != policy_digest:
        raise RegistryError(
            f"verdict {newest[:12]} was made by policy {verdict['policy'][:12]}, required is {policy_digest[:12]}; "
            f"run {gate} with the required --policy"
        )
    ruling = _Ruling(newest, verdict, registry.override_of(newest))
    _check_whole(ruling, ref, gate)
    _check_outcome(ruling, checkpoint, gate)
    return ruling


def _check_whole(ruling: _Ruling, ref: str, gate: str) -> None:
    """The outcome follows from the findings: an edited verdict is no verdict, whoever has recorded it."""
    short = ruling.digest[:12]
    try:
        verdict = from_raw(ruling.verdict)
    except UsageError as error:
        raise RegistryError(f"verdict {short}: {error}; run {gate}") from error
    if verdict.ref != ref:
        raise RegistryError(f"verdict {short} was asked for {verdict.ref!r}, not for {ref!r}; run {gate}")
    if not verdict.final or verdict.needs:
        raise RegistryError(f"verdict {short} is not final; run {gate} to its end")
    if verdict.outcome != (due := outcome_of(verdict.findings)):
        raise RegistryError(
            f"verdict {short} says {verdict.outcome!r} and its findings come to {due!r}: it was not made by a gate; "
            f"run {gate}"
        )


def _check_outcome(ruling: _Ruling, checkpoint: Checkpoint, gate: str) -> None:
    verdict, short = ruling.verdict, ruling.digest[:12]
    if verdict["candidate"]["digest"] != checkpoint.digest:
        raise RegistryError(f"verdict {short} is on another checkpoint ({verdict['candidate']['name']!r}); run {gate}")
    outcome = verdict["outcome"]
    if outcome != "promote" and ruling.overridden is None:
        raise NotPromoted(
            f"{checkpoint.name}: the verdict is {outcome!r} (see: evalsuite gate explain {short}); to promote it all "
            f"the same: evalsuite gate override {short} --reason TEXT --by NAME",
            outcome,
        )
    if verdict["champion"] is None and not verdict["bootstrap"]:
        raise RegistryError(f"verdict {short} was made without a champion; first checkpoint? run {gate} --bootstrap")


def _newer(registry: Registry, checkpoint: Checkpoint, ref: str, ruling: _Ruling) -> str | None:
    found = registry.verdict_of(checkpoint.digest, ref)
    return found[0] if found and found[0] != ruling.digest else None


def _policy_change(registry: Registry, ruling: _Ruling, new_policy: str) -> dict[str, str]:
    """What the event says of a policy that is not the champion's: nothing where it is the same or nothing to compare.

    Raises RegistryError where nobody said why: with a policy of one's own choice anything can be promoted.
    """
    current = registry.ref("champion")
    if current is None or current.generation != ruling.generation:
        return {}  # the first one, or a race that is lost anyway
    before, now = _policy_of(registry, current), ruling.verdict["policy"]
    if before in (None, now):
        return {}
    if not new_policy:
        raise RegistryError(
            f"verdict {ruling.digest[:12]} was made by policy {now[:12]}, that of the champion by {before[:12]}; gate "
            "with the champion's policy, or: evalsuite promote … --new-policy REASON accepts it; it is logged"
        )
    return {"policy": now, "new_policy": new_policy}


def _policy_of(registry: Registry, champion: Ref) -> str | None:
    """The policy of the verdict that made the champion; None when it was pointed without one."""
    verdict = registry.events()[champion.event_seq - 1].verdict
    return str(registry.get(verdict)["policy"]) if verdict else None


# -- do it --


def _promote(registry: Registry, checkpoint: Checkpoint, reader: _Reader, ruling: _Ruling, why: _Why) -> Promoted:
    """One compare-and-swap on the champion's generation."""
    done = _already(registry, checkpoint, ruling)
    if done is None:
        change = _policy_change(registry, ruling, why.new_policy)
        try:
            moved = _swap(registry, checkpoint, reader, ruling, why.reason, change)
        except LostRace:
            # The race may have been lost to a process that promoted this very verdict.
            done = _already(registry, checkpoint, ruling)
            if done is None:
                raise
        else:
            by = ruling.overridden_by
            told = _tell(registry, ruling, {"ref": "champion", "generation": moved.generation, "overridden_by": by})
            done = _promoted("champion", moved, checkpoint, ruling, warnings=told)
    _set_first_anchor(registry)
    return done


def _swap(
    registry: Registry,
    checkpoint: Checkpoint,
    reader: _Reader,
    ruling: _Ruling,
    reason: str,
    change: Mapping[str, str],
) -> Ref:
    def check() -> None:
        reader.check(checkpoint)
        _check_declared(checkpoint, ruling)

    override = {"overridden_by": ruling.overridden_by, "override": ruling.overridden.seq} if ruling.overridden else {}
    return registry.promote(
        "champion",
        checkpoint_id=checkpoint.digest,
        manifest=manifest_of(checkpoint, _evidence(ruling)),
        expected_generation=ruling.generation,
        verdict=ruling.digest,
        reason=reason,
        event="bootstrap" if ruling.verdict["bootstrap"] else "promote",
        detail={**override, **change},
        check=check,
    )


def _check_declared(checkpoint: Checkpoint, ruling: _Ruling) -> None:
    """What the trainer says of the data is outside the checkpoint's digest, and the gate has judged by it."""
    declared, path = ruling.verdict.get("declared"), checkpoint.path / "evalsuite.json"
    if declared is None:
        return  # a verdict from before this was kept
    if declared != declared_digest(read_json(path)):
        raise CheckpointError(
            f"{path}: changed since it was judged; nothing was promoted: restore it, or run evalsuite gate "
            f"{checkpoint.path}"
        )


def _already(registry: Registry, checkpoint: Checkpoint, ruling: _Ruling) -> Promoted | None:
    """The promotion by this verdict, when it was made before: the command was killed, or is simply typed again."""
    current = registry.ref("champion")
    if current is None or current.id != checkpoint.digest:
        return None
    if registry.events()[current.event_seq - 1].verdict != ruling.digest:
        return None
    return _promoted("champion", current, checkpoint, ruling, already=True)


def _promoted(
    ref: str,
    moved: Ref,
    checkpoint: Checkpoint,
    ruling: _Ruling | None,
    *,
    already: bool = False,
    warnings: tuple[str, ...] = (),
) -> Promoted:
    return Promoted(
        ref=ref,
        generation=moved.generation,
        name=checkpoint.name,
        path=str(checkpoint.path),
        id=checkpoint.digest,
        verdict=ruling.digest if ruling else None,
        already=already,
        overridden_by=ruling.overridden_by if ruling else "",
        warnings=warnings,
    )


def _set_first_anchor(registry: Registry) -> None:
    """Without an anchor the first champion becomes it, also when the process that made it champion was killed."""
    if registry.ref("anchor") is not None:
        return
    first = moves(registry.events(), "champion")[0]
    with suppress(LostRace):  # another process has just set it
        registry.promote(
            "anchor",
            checkpoint_id=str(first.id),
            manifest=registry.get(first.detail["manifest"]),
            expected_generation=0,
            verdict=first.verdict,
            reason="the first champion",
            event="anchor",
        )


def _point(registry: Registry, checkpoint: Checkpoint, reader: _Reader, ref: str, reason: str) -> Promoted:
    """Moves a ref that a person chooses: an event with a reason instead of a verdict."""
    if ref == "anchor" and not reason.strip():
        raise UsageError("an anchor is chosen by a person, who says why; add --reason TEXT")
    current = registry.ref(ref)
    if current is not None and current.id == checkpoint.digest:
        return _promoted(ref, current, checkpoint, None, already=True)
    moved = registry.promote(
        ref,
        checkpoint_id=checkpoint.digest,
        manifest=manifest_of(checkpoint),
        expected_generation=None,
        verdict=None,
        reason=reason,
        event="anchor" if ref == "anchor" else "promote",
        check=lambda: reader.check(checkpoint),
    )
    return _promoted(ref, moved, checkpoint, None)


def _evidence(ruling: _Ruling) -> dict[str, Any]:
    kept = ("gate_id", "policy", "suite", "attempt", "cost", "versions")
    return {"verdict": ruling.digest, **{name: ruling.verdict.get(name) for name in kept}}


def _tell(registry: Registry, ruling: _Ruling, event: Mapping[str, Any]) -> tuple[str, ...]:
    """Notifies whom the verdict's policy names, when the policy is among the objects."""
    try:
        targets = registry.get(ruling.verdict["policy"]).get("notify") or ()
    except RegistryError:
        return ()
    return notify(ruling.verdict, targets, event=event)


# -- every byte --


def _read_all(checkpoint: Checkpoint) -> dict[str, str]:
    found = {}
    for name in checkpoint.files:
        path = checkpoint.path / name
        try:
            with open(path, "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror}); nothing was promoted") from error
    return found
