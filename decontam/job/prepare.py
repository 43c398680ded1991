"""From what a user names to a job: data sets, the selectors that fit them, and the index of the evals."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decontam.errors import DecontamError
from decontam.job.folder import told
from decontam.job.plan import Job
from decontam.job.protection import own_matches
from decontam.job.work import KERNEL, PLAIN, Options, Scanner
from decontam.rules import Rule, find_rule
from decontam.types import EvalSet

if TYPE_CHECKING:
    from decontam.inputs import Dataset
    from decontam.select import Selection


def prepare(
    train: Sequence[str],
    evals: Sequence[EvalSet],
    *,
    select: Sequence[str] = (),
    scan_all: bool = False,
    rule: str = "tulu3",
    cap: int = 50,
    drop_empty_fields: bool = False,
    limit: float = 0.02,
    options: Options = PLAIN,
    shard_bytes: int = 64 << 20,
    cache: Path,
    rebuild: bool = False,
    index: Path | None = None,
    scanner: Scanner = KERNEL,
    say: Callable[[str], None] = print,
    ready: Callable[[Job], None] = lambda job: None,
) -> Job:
    """The job that scans `train` against `evals`; builds the index where the cache has none. `say` is told of choices.

    A built `index` brings its own evals, rule, cap and ways of reading. `ready` is asked before an index is built,
    which may take minutes: what it raises is raised. Raises DecontamError for data that is not
    there, selectors that cannot be read and evals that cannot be told apart.
    """
    from decontam.inputs import discover

    if index is not None:
        opened = scanner.open(index)
        _refuse_lack(opened.meta, index, options)
        _refuse_other_evals(opened, index)
        evals, rule, cap = opened.evals, opened.rule.name, opened.meta["cap"]
        drop_empty_fields = opened.meta["drop_empty_fields"]
    known = find_rule(rule)
    datasets = tuple(discover(each) for each in train)
    selections = tuple(_selection(dataset, select, scan_all, say) for dataset in datasets)
    built = {"cap": cap, "short": options.short, "near": bool(options.near), "drop_empty_fields": drop_empty_fields}
    if index is None:
        refuse_settings(evals, known, options.short)
    job = Job(
        datasets=datasets,
        paths=tuple(_path(each, dataset) for each, dataset in zip(train, datasets, strict=True)),
        selections=selections,
        evals=tuple(evals),
        rule=known,
        index=index or scanner.where(evals, known, cache=cache, **built),
        cap=cap,
        limit=limit,
        drop_empty_fields=drop_empty_fields,
        options=options,
        shard_bytes=shard_bytes,
        scanner=scanner,
    )
    ready(job)
    if index is not None:
        return job
    return replace(job, index=build_index(scanner, evals, known, cache=cache, rebuild=rebuild, **built))


def _refuse_lack(meta: Mapping[str, Any], index: Path, options: Options) -> None:
    """Raises DecontamError where an index was built without what the scan is to look for."""
    for wanted, key, option in ((options.short, "short", "--short exact"), (options.near, "near", "--near-dup")):
        if wanted and not meta[key]:
            raise DecontamError(f"{index}: built without {option}; build one with it (python -m decontam index --help)")


def _refuse_other_evals(opened: Any, index: Path) -> None:
    """Raises DecontamError where the texts in an index's folder are not those that its arrays were made of."""
    from decontam.index import content_digest

    if [content_digest(each) for each in opened.evals] != [each["content"] for each in opened.meta["evals"]]:
        raise DecontamError(f"{index}: its evals.jsonl was changed since it was built; --rebuild-index")


def build_index(scanner: Scanner, evals: Sequence[EvalSet], rule: Rule, *, cache: Path, **settings: Any) -> Path:
    """The folder of the index of the evals, with what it cannot protect, built when the cache lacks it."""
    refuse_settings(evals, rule, bool(settings.get("short")))
    with told(cache):
        index = scanner.build(evals, rule, cache=cache, **settings)
    own_matches(scanner, index, evals)
    return index


def refuse_settings(evals: Sequence[EvalSet], rule: Rule, short: bool) -> None:
    """Raises DecontamError for evals and settings of which no index can be made."""
    from decontam.report.facts import refuse_evals
    from decontam.windows import SHORT_TOKENS

    if not evals:
        raise DecontamError("no evals given; name some with --evals (see: python -m decontam scan --help)")
    if short and rule.analyzer != "pattern":
        raise DecontamError(f"--short exact compares words as tulu3 does, rule {rule.name!r} has others; leave it out")
    if short and rule.n < SHORT_TOKENS:
        raise DecontamError(
            f"--short exact is for what a rule is too long for, rule {rule.name!r} is not; leave it out"
        )
    refuse_evals(evals)


def _path(argument: str, dataset: Dataset) -> str:
    """The path of `NAME=PATH`."""
    named = f"{dataset.name}="
    return argument.removeprefix(named) if not os.path.lexists(argument) else argument


def _selection(dataset: Dataset, given: Sequence[str], scan_all: bool, say: Callable[[str], None]) -> Selection:
    """The selectors given, else those that the first rows suggest, told."""
    from decontam.inputs import first_rows, why_no_rows
    from decontam.select import auto_select, parse_selectors

    rows = first_rows(dataset)
    if not rows and not given:
        raise DecontamError(why_no_rows(dataset))
    selection = (parse_selectors(given) if given else auto_select(rows, dataset.name)).checked(rows)
    if scan_all:
        selection = selection.with_scan_all()
    n = len(dataset.files)
    note = f"; {dataset.note}" if dataset.note else ""
    say(f"{dataset.name}: {f'{n:,} files' if n > 1 else '1 file'}, selected {', '.join(selection.spec)}{note}")
    return selection
