"""Makes training data for personas: models write prompts and answers, every text is checked before it becomes a row.

Prompts are written, doubles go, answers are written, pairs get an answer to a relaxed prompt; a reply that fails its
check is asked for again, then the row is dropped and counted. All replies are journaled, so the same command goes on
after any crash, and the same replies give the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsuite.progress import Observer, Silent
from train_plugins.data.persona_asking import PAIRS, Asking, OpenFn, Report, left, relaxed_of, stages
from train_plugins.data.persona_checks import find_doubles
from train_plugins.data.persona_config import PersonaConfig
from train_plugins.data.persona_prompts import SKILLS, Task, plan_tasks
from train_plugins.data.persona_rows import SKILL_NAMES, Draft, rows_of
from train_plugins.data.rows import Kind, check_row, write_dataset
from train_plugins.data.scanning import RunFn, Scanned, run_decontam, without_benchmarks
from train_plugins.data.writing import sidecar


def plan(config: PersonaConfig, personas: tuple[str, ...], limit: int | None = None) -> tuple[Task, ...]:
    """Every row that is to be made, at most `limit` of a skill."""
    counts = {skill: config.count(skill) for skill in SKILLS}
    most = {skill: n if limit is None else min(n, limit) for skill, n in counts.items()}
    return tuple(task for skill in SKILLS for task in plan_tasks(skill, most[skill], personas, config.seed))


def make_rows(
    config: PersonaConfig,
    tasks: Sequence[Task],
    out: Path,
    *,
    where: Path = Path(),
    made: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
    scan_options: Sequence[str] = (),
    open_one: OpenFn | None = None,
    run: RunFn = run_decontam,
) -> Report:
    """Asks, checks, cleans and writes `<out>/<name>/<skill>.<kind>.jsonl` with sidecars; `made` goes into those.

    Raises Incomplete when more replies failed to come than the limits allow, or a limit on spending would be crossed:
    nothing is written then, and the same command goes on. Raises what engines and the decontamination raise.
    """
    report = Report(config.name, planned=dict(Counter(task.skill for task in tasks)))
    work = out / f".{config.name}.work"
    drafts = [Draft(task, task.constraints) for task in tasks]
    asking = Asking(config, work / "journal", observer or Silent(), report, open_one, where)
    with asking:
        prompts, *others = stages(config)
        asking.run(prompts, drafts)
        written = left(drafts)
        for draft, double in zip(written, list(find_doubles(d.prompt for d in written)), strict=True):
            draft.dropped = double
        for stage in others:
            asking.run(stage, drafts)
    report.models = asking.models()
    scanned = _scan(drafts, config, work, scan_options, run)
    report.decontamination = scanned.facts
    _write(drafts, config, out / config.name, report, dict(made or {}))
    return report


def _scan(drafts: Sequence[Draft], config: PersonaConfig, work: Path, options: Sequence[str], run: RunFn) -> Scanned:
    candidates = []
    for draft in left(drafts):
        turns = [{"role": "user", "content": draft.prompt}, {"role": "assistant", "content": draft.answer}]
        candidates.append({"id": draft.task.key, "messages": turns})
    scanned = without_benchmarks(candidates, config.decontam, work / "decontam", options, run)
    for draft in left(drafts):
        if draft.task.key not in scanned.kept:
            draft.dropped = "decontamination"
    return scanned


def _write(
    drafts: Sequence[Draft], config: PersonaConfig, folder: Path, report: Report, made: Mapping[str, Any]
) -> None:
    by_file: dict[tuple[str, Kind], list[dict[str, Any]]] = {}
    for draft in left(drafts):
        words = relaxed_of(draft, config).words if draft.task.skill in PAIRS else ""
        rows = list(rows_of(draft, config.name, words))
        bad = next((code for kind, row in rows for code, *_ in check_row(row, kind)), "")
        if bad:
            draft.dropped = f"row: {bad}"
            continue
        for kind, row in rows:
            by_file.setdefault((draft.task.skill, kind), []).append(row)
    _count(drafts, report)
    for skill, kind in _files(report.planned):
        path = folder / f"{skill}.{kind}.jsonl"
        if kept := by_file.get((skill, kind), []):
            by = sorted({model for d in left(drafts) if d.task.skill == skill for model in d.models.values()})
            meta = {"made_by": f"synthetic:{'+'.join(by)}", **_meta(config, skill, kind, report, made)}
            written = write_dataset(path, kept, meta)
            facts = {"path": str(path), "kind": kind, "rows": written.n_rows, "digest": written.digest}
            report.files.append(facts)
        else:  # of an earlier run
            path.unlink(missing_ok=True)
            sidecar(path).unlink(missing_ok=True)


def _count(drafts: Sequence[Draft], report: Report) -> None:
    for draft in drafts:
        skill = draft.task.skill
        if draft.dropped:
            reasons = report.dropped.setdefault(skill, {})
            reasons[draft.dropped] = reasons.get(draft.dropped, 0) + 1
        else:
            report.written[skill] = report.written.get(skill, 0) + 1


def _files(planned: Mapping[str, int]) -> Iterator[tuple[str, Kind]]:
    for skill in planned:
        if skill in PAIRS:
            yield skill, "preference"
            continue
        yield skill, "sft"
        if skill in ("grade_math", "instruction_following"):
            yield skill, "rlvr"


def _meta(config: PersonaConfig, skill: str, kind: Kind, report: Report, made: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": kind,
        "licence": config.licence,
        "origin": "generated",
        "skills": [SKILL_NAMES.get(skill, "math")],
        "made": {**made, "seed": config.seed, "models": report.models},
        "planned": report.planned[skill],
        "dropped": report.dropped.get(skill, {}),
        "decontamination": dict(report.decontamination),
    }
