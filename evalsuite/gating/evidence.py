"""What a gate gathers before it judges: checks of the candidate, its training data, the last gate's spread."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evalsuite.checkpoint.files import read_json
from evalsuite.errors import CheckpointError, EngineError, UsageError
from evalsuite.gate.facts import Check, Contamination, Training
from evalsuite.gate.margins import Spread, history_of
from evalsuite.journal import Journal, KeyMaker
from evalsuite.registry.manifest import declared_digest
from evalsuite.types import GenerateRequest, Message, Prompt, Response, Sampling

if TYPE_CHECKING:
    from evalsuite.gating.sides import Live
    from evalsuite.registry import Event, Registry

INFRA_TOKENS = 64
INFRA_PROMPT = "Say hello in one sentence."
DECONTAMINATION = "decontam/1"  # schema of decontamination's verdict.json
REPORTS = "decontam"  # the folder of reports below the results


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
    mine = _own_template(candidate)
    if champion is None:
        return Check("chat_template", True, "no champion to compare with")
    theirs = _own_template(champion)
    if mine == theirs:
        return Check("chat_template", True, "the champion's")
    words = f"{mine[:12] or 'none'}, the champion's is {theirs[:12] or 'none'}"
    return Check("chat_template", accepted, f"{words} (accepted)" if accepted else f"{words} (--accept-template)")


def _own_template(side: Live) -> str:
    """Digest of the template that the checkpoint comes with, whatever --chat-template says; else of what it says."""
    from evalsuite.models.chat import TEMPLATE_DATE, ChatTemplate

    if side.job.path is None:
        return side.job.engine.template_digest
    try:
        return ChatTemplate.from_checkpoint(side.job.path, None, now=TEMPLATE_DATE).digest
    except CheckpointError:
        return side.job.engine.template_digest


# -- training data --


def training_of(
    folder: Path | None,
    results: Path,
    benchmarks: Sequence[str],
    datasets: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Training:
    """What a checkpoint says of its training data, with the decontamination reports under results/decontam.

    A trainer writes `evalsuite.json` beside the weights: `data` is a list of {path, digest}. A report counts when it is
    of that digest, names every benchmark of the gate, and read the data that the gate asks: `datasets` has the digests
    of a benchmark's data (see `dataset_digests`), where they are known. Of several reports the worst counts.
    """
    if folder is None:
        return Training()
    declared = read_json(folder / "evalsuite.json")
    digest = declared_digest(declared)
    data = declared.get("data")
    if not isinstance(data, list) or not data:
        return Training(digest=digest)
    named = _named(data)
    waived = str(declared.get("decontamination_waived") or "")
    wanted = {name: frozenset(datasets.get(name, ())) for name in benchmarks}
    return Training(True, named, reports_of(results / REPORTS, named, wanted), waived, digest=digest)


def dataset_digests(dataset: Mapping[str, Any]) -> frozenset[str]:
    """The digest that a report on a benchmark must have read, from the `dataset` of its plan or result, as a set;
    empty where none is known."""
    return frozenset({dataset_digest(dataset)} - {""})


def dataset_digest(dataset: Mapping[str, Any]) -> str:
    """What identifies the data of a benchmark: the digest of a local copy, the commit of a hub one, "" for neither.

    Of several parts (one for each config) it is the sha256 of theirs, sorted: a report on one of 27 is none of all.
    """
    parts = [str(d.get("digest") or d.get("commit") or "") for d in dataset.get("parts") or [dataset]]
    if len(parts) < 2 or not all(parts):
        return parts[0] if len(parts) == 1 else ""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def _named(data: Sequence[Any]) -> dict[str, str]:
    """Name to digest of each data set; "" where none is given, which no report can be of. No entry hides another."""
    named: dict[str, str] = {}
    for each in data:
        entry = each if isinstance(each, Mapping) else {"path": each}
        name, digest = str(entry.get("path") or entry.get("name") or "unnamed data"), str(entry.get("digest") or "")
        if named.get(name, digest) != digest:
            name = f"{name} ({digest[:12] or 'no digest'})"
        named[name] = digest
    return named


def reports_of(
    folder: Path, named: Mapping[str, str], wanted: Mapping[str, frozenset[str]]
) -> dict[str, Contamination]:
    """The worst of all reports on each data set, by its digest; raises UsageError for one that cannot be read.

    `named` is name to digest of the data, `wanted` benchmark to digests of its data (see `training_of`). A report on
    some of the benchmarks is no report, but what it found still counts beside one that is.
    """
    found: dict[str, list[tuple[bool, Contamination]]] = {}
    for path, raw in read_reports(folder):
        fresh = _fresh(raw["evals"], wanted)
        for each in raw["training"]:
            digest = str(each["digest"])
            if digest and digest in named.values():
                report = _report(path, raw, digest, fresh, str(each.get("name", digest)))
                found.setdefault(digest, []).append((len(fresh) == len(wanted), report))
    return {digest: _worst(reports) for digest, reports in found.items() if any(whole for whole, _ in reports)}


def read_reports(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, content) of every report below a folder; raises UsageError for one that cannot be read."""
    for path in sorted(folder.rglob("verdict.json")) if folder.is_dir() else ():
        yield path, _read(path)


def _fresh(evals: Any, wanted: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """The benchmarks that a report is about, without those whose data was another than what the gate asks."""

    def digest(name: str) -> str:
        entry = evals[name] if isinstance(evals, Mapping) else ""
        return str((entry.get("digest") if isinstance(entry, Mapping) else entry) or "")

    return frozenset(n for n, known in wanted.items() if n in evals and (not known or digest(n) in {"", *known}))


def _report(path: Path, raw: Mapping[str, Any], digest: str, fresh: frozenset[str], name: str) -> Contamination:
    rates = {b: rate for b, rate in raw["rates"].get(digest, {}).items() if b in fresh}
    for benchmark, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise UsageError(f"{path}: rates.{digest[:12]}.{benchmark} is {rate!r}; expected a number from 0 to 1")
    touched = {b: ids for b in sorted(fresh) if (ids := _touched(path.parent / "clean_ids" / f"{b}.txt"))}
    # A benchmark without a rate was not looked at, whatever the report says of itself.
    return Contamination(name, raw["complete"] is True and rates.keys() == fresh, rates, touched)


def _worst(reports: Sequence[tuple[bool, Contamination]]) -> Contamination:
    """Of (is about every benchmark, report) of one data set: the highest rates, complete when all whole ones are."""
    fractions: dict[str, float] = {}
    touched: dict[str, frozenset[str]] = {}
    for _, report in reports:
        fractions |= {b: max(rate, fractions.get(b, 0.0)) for b, rate in report.fractions.items()}
        touched |= {b: ids | touched.get(b, frozenset()) for b, ids in report.touched.items()}
    complete = all(report.complete for whole, report in reports if whole)
    return Contamination(reports[0][1].data, complete, fractions, touched)


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
    if wrong := next(_misshapen(raw), None):
        raise UsageError(f"{path}: not a decontamination verdict ({wrong})")
    found: dict[str, Any] = raw
    return found


def _misshapen(raw: Mapping[str, Any]) -> Iterator[str]:
    if not (isinstance(raw["training"], list) and all(isinstance(t, dict) and "digest" in t for t in raw["training"])):
        yield "training is no list of {name, digest}"
    if not isinstance(raw["evals"], dict | list):
        yield "evals is neither a mapping nor a list of benchmarks"
    if not (isinstance(raw["rates"], dict) and all(isinstance(rates, dict) for rates in raw["rates"].values())):
        yield "rates is no mapping of training digest to {benchmark: rate}"


def _touched(path: Path) -> frozenset[str]:
    if not path.is_file():
        return frozenset()
    return frozenset(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


# -- the registry's memory --


def attempt_event(registry: Registry, gate_id: str) -> Event | None:
    """The event that opened this very gate, when it was run before."""
    return next((e for e in registry.events() if e.event == "attempt" and e.detail.get("gate_id") == gate_id), None)


def last_verdict(registry: Registry, ref: str | None, suite: str, policy: str, candidate: str) -> str | None:
    """Digest of the verdict whose measured spreads plan the next gate: the newest for the ref on the suite.

    Made by the same policy, so that nobody chooses how much is measured, and never on the candidate itself: a margin
    from the results that it is tested on is no margin.
    """
    for event in reversed(registry.events()):
        fits = event.event == "verdict" and event.ref == ref and event.id != candidate
        if fits and event.detail.get("suite") == suite and event.detail.get("policy") == policy:
            return event.verdict
    return None


def gates_before(registry: Registry, sides: Mapping[str, str]) -> int:
    """How many other gates of this candidate against this champion were begun: each is another chance to pass."""
    pair = [sides["candidate"], sides.get("champion")]
    opened = [e.detail.get("sides") or {} for e in registry.events() if e.event == "attempt"]
    return sum([known.get("candidate"), known.get("champion")] == pair for known in opened)


def spreads_of(registry: Registry, verdict: str | None) -> dict[tuple[str, str, int], Spread]:
    """What a verdict measured, by (benchmark, reference, K); nothing without one."""
    return history_of(registry.get(verdict)["findings"]) if verdict is not None else {}
