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
from evalsuite.notify import notify
from evalsuite.registry import Event, Ref, Registry
from evalsuite.registry.manifest import manifest_of
from evalsuite.registry.refs import moves

__all__ = ["JUDGED", "NotPromoted", "Promoted", "Regate", "manifest_of", "promote"]

JUDGED = ("champion", "release")
"""Refs that need a verdict; the others are pointed by a person."""

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

        Large files count as unchanged while size, modification time and inode are; `paranoid` reads every byte.
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
    reason: str = "",
    paranoid: bool = False,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    retries: int = 0,
    regate: Regate | None = None,
) -> Promoted:
    """Points a ref to a checkpoint. champion and release need a verdict that is final and says promote.

    `verdict` is the digest of the one meant, the newest on this checkpoint when None; `policy_digest` is the policy it
    must have been made by. When the champion was replaced since (LostRace), up to `retries` times `regate` is called,
    or, without it, a newer verdict is looked for. Raises NotPromoted, LostRace, RegistryError, CheckpointError.
    """
    reader = _Reader(checkpoint_path, allow_pickle, trust_remote_code, paranoid)
    _refuse_reward_model(checkpoint_path.expanduser())
    checkpoint = reader.open()
    if ref not in JUDGED:
        return _point(registry, checkpoint, reader, ref, reason)
    while True:
        ruling = _ruling(registry, checkpoint, ref, verdict, policy_digest)
        try:
            return _promote(registry, checkpoint, reader, ref, ruling, reason)
        except LostRace:
            if not retries:
                raise
            retries -= 1
            verdict = regate(checkpoint.path) if regate else _newer(registry, checkpoint, ref, ruling)
            if verdict is None:
                raise


# -- may it? --


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
    _check_outcome(ruling, checkpoint, gate)
    return ruling


def _check_outcome(ruling: _Ruling, checkpoint: Checkpoint, gate: str) -> None:
    verdict, short = ruling.verdict, ruling.digest[:12]
    if verdict["candidate"]["digest"] != checkpoint.digest:
        raise RegistryError(f"verdict {short} is on another checkpoint ({verdict['candidate']['name']!r}); run {gate}")
    if not verdict["final"]:
        raise RegistryError(f"verdict {short} is not final; run {gate} to its end")
    outcome = verdict["outcome"]
    if outcome != "promote" and ruling.overridden is None:
        raise NotPromoted(
            f"{checkpoint.name}: the verdict is {outcome!r} (see: evalsuite gate explain {short}); to promote it all "
            f"the same: evalsuite gate override {short} --reason TEXT --by NAME",
            outcome,
        )
    if verdict["champion"] is None and not verdict["bootstrap"] and verdict["ref"] == "champion":
        raise RegistryError(f"verdict {short} was made without a champion; first checkpoint? run {gate} --bootstrap")


def _newer(registry: Registry, checkpoint: Checkpoint, ref: str, ruling: _Ruling) -> str | None:
    found = registry.verdict_of(checkpoint.digest, ref)
    return found[0] if found and found[0] != ruling.digest else None


# -- do it --


def _promote(
    registry: Registry, checkpoint: Checkpoint, reader: _Reader, ref: str, ruling: _Ruling, reason: str
) -> Promoted:
    """One compare-and-swap. Only the champion's generation is compared: a release replaces whatever was released."""
    done = _already(registry, ref, checkpoint, ruling)
    if done is None:
        by = ruling.overridden_by
        override = {"overridden_by": by, "override": ruling.overridden.seq} if ruling.overridden else {}
        try:
            moved = registry.promote(
                ref,
                checkpoint_id=checkpoint.digest,
                manifest=manifest_of(checkpoint, _evidence(ruling)),
                expected_generation=ruling.generation if ref == "champion" else None,
                verdict=ruling.digest,
                reason=reason,
                event="bootstrap" if ref == "champion" and ruling.verdict["bootstrap"] else "promote",
                detail=override,
                check=lambda: reader.check(checkpoint),
            )
        except LostRace:
            # The race may have been lost to a process that promoted this very verdict.
            done = _already(registry, ref, checkpoint, ruling)
            if done is None:
                raise
        else:
            told = _tell(registry, ruling, {"ref": ref, "generation": moved.generation, "overridden_by": by})
            done = _promoted(ref, moved, checkpoint, ruling, warnings=told)
    if ref == "champion":
        _set_first_anchor(registry)
    return done


def _already(registry: Registry, ref: str, checkpoint: Checkpoint, ruling: _Ruling) -> Promoted | None:
    """The promotion by this verdict, when it was made before: the command was killed, or is simply typed again."""
    current = registry.ref(ref)
    if current is None or current.id != checkpoint.digest:
        return None
    if registry.events()[current.event_seq - 1].verdict != ruling.digest:
        return None
    return _promoted(ref, current, checkpoint, ruling, already=True)


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
