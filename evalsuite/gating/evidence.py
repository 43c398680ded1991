"""What a gate gathers before it judges: checks of the candidate, its training data, the last gate's spread."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalsuite.checkpoint.files import read_json
from evalsuite.errors import EngineError, UsageError
from evalsuite.gate.facts import Check, Contamination, Training
from evalsuite.gate.margins import Spread, history_of
from evalsuite.journal import Journal, KeyMaker
from evalsuite.types import GenerateRequest, Message, Prompt, Response, Sampling

if TYPE_CHECKING:
    from evalsuite.gating.sides import Live
    from evalsuite.registry import Event, Registry

INFRA_TOKENS = 64
INFRA_PROMPT = "Say hello in one sentence."
DECONTAMINATION = "decontam/1"  # schema of decontamination's verdict.json


def infra_checks(
    wanted: Sequence[str], candidate: Live, champion: Live | None, accept_template: bool
) -> Iterator[Check]:
    """The cheap checks that come before any score; one that fails blocks without a sample asked."""
    for name in wanted:
        if name == "loads":
            yield Check(name, True, "config, tokenizer and weights are whole")
        elif name == "finite_weights":
            yield Check(name, True, "no NaN or Inf in the weights")  # open_checkpoint refuses any other
        elif name == "generates":
            yield _generates(candidate)
        elif name == "chat_template":
            yield _template(candidate, champion, accept_template)


def _generates(side: Live) -> Check:
    """64 tokens on one prompt, remembered in the journal so that a gate that is repeated loads no weights for it."""
    job = side.job
    render = job.render
    message = Message("user", INFRA_PROMPT)
    text = render([{"role": message.role, "content": message.content}], True) if render else INFRA_PROMPT
    request = GenerateRequest(Prompt(text, render is not None, (message,)), Sampling(INFRA_TOKENS))
    key = KeyMaker(job.checkpoint.digest, "infra", job.engine.fingerprint()).key("generates", 0, request)
    header = {"benchmark": "_infra", "checkpoint": job.checkpoint.digest, "engine": job.engine.fingerprint()}
    with Journal(job.journal / "_infra", header, wait=job.wait) as journal:
        stored = journal.get(key)
        if stored is None or stored.failed:
            try:
                _, answer = next(iter(side.infra(lambda model: model.generate([request]))))
            except EngineError as error:
                return Check("generates", False, f"the engine cannot start: {error}")
            journal.append(key, "generates", 0, answer)
        else:
            found = stored.answer
            assert isinstance(found, Response)
            answer = found
    if answer.finish == "error":
        return Check("generates", False, f"cannot generate: {answer.why}")
    return Check("generates", True, f"{answer.n_tokens} tokens on one prompt")


def _template(candidate: Live, champion: Live | None, accepted: bool) -> Check:
    mine = candidate.job.engine.template_digest
    if champion is None:
        return Check("chat_template", True, "no champion to compare with")
    theirs = champion.job.engine.template_digest
    if mine == theirs:
        return Check("chat_template", True, "the champion's")
    words = f"{mine[:12] or 'none'}, the champion's is {theirs[:12] or 'none'}"
    return Check("chat_template", accepted, f"{words} (accepted)" if accepted else f"{words} (--accept-template)")


# -- training data --


def training_of(folder: Path | None, results: Path, benchmarks: Sequence[str]) -> Training:
    """What a checkpoint says of its training data, with the decontamination reports under results/decontam.

    A trainer writes `evalsuite.json` beside the weights: `data` is a list of {path, digest}. A report counts when it is
    of that digest and names every benchmark of the gate.
    """
    declared = read_json(folder / "evalsuite.json") if folder is not None else {}
    data = declared.get("data")
    if not isinstance(data, list) or not data:
        return Training()
    named = {str(d.get("path") or d.get("name")): str(d.get("digest") or "") for d in data if isinstance(d, Mapping)}
    waived = str(declared.get("decontamination_waived") or "")
    found = dict(_reports(results / "decontam", set(named.values()), set(benchmarks)))
    return Training(True, named, found, waived)


def _reports(folder: Path, digests: set[str], benchmarks: set[str]) -> Iterator[tuple[str, Contamination]]:
    """(training digest, report) of every verdict.json that fits; raises UsageError for one that cannot be read."""
    for path in sorted(folder.rglob("verdict.json")) if folder.is_dir() else ():
        raw = _read(path)
        if not benchmarks <= set(raw["evals"]):
            continue
        touched = {name: ids for name in benchmarks if (ids := _touched(path.parent / "clean_ids" / f"{name}.txt"))}
        for each in raw["training"]:
            digest = str(each["digest"])
            if digest in digests and digest:
                rates = {str(b): float(rate) for b, rate in raw["rates"].get(digest, {}).items() if b in benchmarks}
                yield digest, Contamination(str(each.get("name", digest)), bool(raw["complete"]), rates, touched)


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != DECONTAMINATION:
            raise UsageError(f"{path}: schema {raw['schema']!r}, this version reads {DECONTAMINATION!r}")
        missing = [key for key in ("training", "evals", "rates", "complete") if key not in raw]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: not a decontamination verdict ({type(error).__name__}: {error})") from error
    if missing:
        raise UsageError(f"{path}: not a decontamination verdict ({missing[0]} is missing)")
    found: dict[str, Any] = raw
    return found


def _touched(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


# -- the registry's memory --


def attempt_event(registry: Registry, gate_id: str) -> Event | None:
    """The event that opened this very gate, when it was run before."""
    return next((e for e in registry.events() if e.event == "attempt" and e.detail.get("gate_id") == gate_id), None)


def last_verdict(registry: Registry, ref: str | None, suite: str) -> str | None:
    """Digest of the newest verdict for a ref on a suite (its digest): its measured spreads plan the next gate."""
    for event in reversed(registry.events()):
        if event.event == "verdict" and event.ref == ref and event.detail.get("suite") == suite:
            return event.verdict
    return None


def spreads_of(registry: Registry, verdict: str | None) -> dict[tuple[str, str, int], Spread]:
    """What a verdict measured, by (benchmark, reference, K); nothing without one."""
    return history_of(registry.get(verdict)["findings"]) if verdict is not None else {}
