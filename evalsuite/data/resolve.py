"""Finds every dataset of a suite before a model is loaded: in a data root, under an alias, in the cache, on the hub.

A root that has the folder but not the promised config, split or columns is an error, never a fall-through to the hub:
half-local data makes wrong numbers. Nothing here imports `datasets`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from evalsuite.data.errors import unexpected
from evalsuite.data.facts import SplitFacts, arrow_cache, content_digest, read_facts
from evalsuite.data.folder import FORMATS, DataFolder, read_folder, split_files
from evalsuite.data.hub import CachedSplits, cached_splits, hub_commit, hub_is_forbidden, refuse_shadow
from evalsuite.data.types import DatasetSpec, Origin, Resolved
from evalsuite.errors import DataError, did_you_mean

HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*")


def resolve_all(
    specs: Sequence[DatasetSpec],
    roots: Sequence[Path],
    *,
    offline: bool,
    aliases: Mapping[str, Sequence[str]] = {},
) -> dict[DatasetSpec, Resolved]:
    """Where each dataset is; raises one DataError that lists every dataset that is missing or not as promised.

    `aliases` name ids under which a root may hold the same data (either way round). `offline`, or HF_HUB_OFFLINE=1,
    forbids the network; the Arrow cache of earlier hub loads still counts, pinned by the commit in its name.
    """
    offline = offline or hub_is_forbidden()
    wanted = tuple(dict.fromkeys(specs))
    reader = _Reader(tuple(roots), aliases)
    outcomes: dict[DatasetSpec, Resolved | DataError | None] = {spec: reader.local(spec) for spec in wanted}
    absent = [spec for spec in wanted if outcomes[spec] is None]
    outcomes |= {spec: _from_cache(spec) for spec in absent} if offline else _ask_hub(absent)
    problems = {spec: o for spec, o in outcomes.items() if not isinstance(o, Resolved)}
    if problems:
        raise DataError(_report(problems, len(wanted), reader.roots, offline))
    return {spec: o for spec, o in outcomes.items() if isinstance(o, Resolved)}


def check_columns(spec: DatasetSpec, split: str, found: Sequence[str]) -> None:
    """Raises DataError unless the split has every column that the benchmark reads."""
    if why := _columns_problem(spec.columns, found):
        raise DataError(f"dataset {spec.id!r} split {split!r} {why}")


class _Reader:
    """Reads dataset folders of the roots, each folder and each config once (BBH asks one folder 27 times)."""

    def __init__(self, roots: tuple[Path, ...], aliases: Mapping[str, Sequence[str]]) -> None:
        self.roots = roots
        self._aliases = aliases
        self._folders: dict[Path, DataFolder] = {}
        self._contents: dict[tuple[Path, str], tuple[str, dict[str, SplitFacts]]] = {}

    def local(self, spec: DatasetSpec) -> Resolved | DataError | None:
        """The dataset from a root, the reason why what stands there cannot be used, or None when none has it."""
        try:
            if Path(spec.id).is_absolute():  # a benchmark of the user's own may name a folder outright
                return self._found(spec, spec.id, [Path(spec.id)])
            for name in _names(spec.id, self._aliases):
                folders = [root / name for root in self.roots if (root / name).is_dir()]
                if folders:
                    return self._found(spec, name, folders)
        except (DataError, OSError) as error:
            return error if isinstance(error, DataError) else unexpected(error, spec)
        return None

    def _found(self, spec: DatasetSpec, name: str, folders: Sequence[Path]) -> Resolved:
        folder = self._folders.get(folders[0]) or read_folder(folders[0])
        self._folders[folders[0]] = folder
        config = folder.config(spec.config)
        digest, facts = self._content(folder, config)
        _check_splits(spec, folder.path, config, facts)
        rows = facts[spec.splits[0]].rows if spec.splits else None
        origin: Origin = "local" if name == spec.id else "alias"
        provenance = {"origin": origin, **_about(spec, config), "digest": digest, "rows": rows}
        notes = [partial] if (partial := _partial(spec, rows)) else []
        if origin == "alias":
            provenance["alias"] = name
            notes.append(f"alias: {name} stands in for {spec.id}")
        if len(folders) > 1:
            provenance["also_in"] = [_root_name(f, name) for f in folders[1:]]
        return Resolved(
            spec, origin, str(folder.path), digest, str(arrow_cache(digest)), rows, provenance, tuple(notes)
        )

    def _content(self, folder: DataFolder, config: str) -> tuple[str, dict[str, SplitFacts]]:
        key = (folder.path, config)
        if key not in self._contents:
            splits = split_files(folder, config)
            files = [p for paths in splits.values() for p in paths]
            digest = content_digest(folder.path, files, folder.description)
            self._contents[key] = digest, read_facts(digest, folder.path, splits)
        return self._contents[key]


def _names(dataset_id: str, aliases: Mapping[str, Sequence[str]]) -> list[str]:
    """The id itself, then its aliases in either direction."""
    if dataset_id in FORMATS:
        raise DataError(
            f"dataset_path {dataset_id!r} is a file format; expected <owner>/<name>, with the files in a root"
        )
    if not HUB_ID.fullmatch(dataset_id) or ".." in dataset_id:
        raise DataError(f"dataset_path {dataset_id!r} is not a dataset id; expected <owner>/<name>")
    back = [key for key, names in aliases.items() if dataset_id in names]
    return list(dict.fromkeys([dataset_id, *aliases.get(dataset_id, ()), *back]))


def _check_splits(spec: DatasetSpec, folder: Path, config: str, facts: Mapping[str, SplitFacts]) -> None:
    problems = []
    for split in spec.splits:
        if split not in facts:
            problems.append(f"no split {split!r}{did_you_mean(split, facts)}; it has {', '.join(facts)}")
            continue
        if facts[split].rows == 0:
            problems.append(f"split {split!r} has no rows")
        if (columns := facts[split].columns) is not None and (why := _columns_problem(spec.columns, columns)):
            problems.append(f"split {split!r} {why}")
        problems += [f"{place} has no {c!r}" for c, place in facts[split].gaps.items() if c in spec.columns]
    if problems:
        raise DataError(f"{folder} (config {config!r}): " + "; ".join(dict.fromkeys(problems)))


def _columns_problem(wanted: Sequence[str], found: Sequence[str]) -> str:
    lacking = [c for c in wanted if c not in found]
    return f"lacks {', '.join(lacking)}; it has {', '.join(found)}, expected {', '.join(wanted)}" if lacking else ""


def _about(spec: DatasetSpec, config: str | None) -> dict[str, Any]:
    split = spec.splits[0] if spec.splits else None
    shown = Path(spec.id).name if Path(spec.id).is_absolute() else spec.id
    return {"id": shown, "config": config, "split": split, "n_expected": spec.n_expected}


def _partial(spec: DatasetSpec, rows: int | None) -> str:
    if rows is None or spec.n_expected is None or rows == spec.n_expected:
        return ""
    kind = "partial dataset" if rows < spec.n_expected else "more rows than the dataset has:"
    return f"{kind} {rows}/{spec.n_expected}"


def _root_name(folder: Path, name: str) -> str:
    return folder.parents[name.count("/")].name


def _from_cache(spec: DatasetSpec) -> Resolved | DataError | None:
    """What an earlier load by hub name left on this machine; None when that is not all that is asked for."""
    try:
        refuse_shadow(spec.id)
    except DataError as error:
        return error
    cached = cached_splits(spec.id, spec.config, spec.revision)
    if cached is None or any(split not in cached.rows for split in spec.splits):
        return None
    if why := _columns_problem(spec.columns, cached.columns):
        return DataError(f"{spec.id} in the Hugging Face cache {why}")
    return _hub_resolved(spec, cached.commit, cached)


def _ask_hub(specs: Sequence[DatasetSpec]) -> dict[DatasetSpec, Resolved | DataError]:
    """One question per id and revision, side by side: a missing dataset must not wait for the ones before it."""
    asked = list(dict.fromkeys((s.id, s.revision) for s in specs))
    if not asked:
        return {}
    with ThreadPoolExecutor(min(8, len(asked))) as pool:
        answers = dict(zip(asked, pool.map(_commit_or_error, asked), strict=True))
    outcomes: dict[DatasetSpec, Resolved | DataError] = {}
    for spec in specs:
        answer = answers[spec.id, spec.revision]
        outcomes[spec] = _hub_resolved(spec, answer) if isinstance(answer, str) else unexpected(answer, spec)
    return outcomes


def _commit_or_error(asked: tuple[str, str | None]) -> str | Exception:
    try:
        refuse_shadow(asked[0])
        return hub_commit(*asked)
    except Exception as error:  # every one is reported, with those of the other datasets
        return error


def _hub_resolved(spec: DatasetSpec, commit: str, cached: CachedSplits | None = None) -> Resolved:
    rows = cached.rows[spec.splits[0]] if cached and spec.splits else None
    provenance = {"origin": "hub", **_about(spec, spec.config), "commit": commit, "rows": rows}
    if cached:
        provenance["from_cache"] = True
    notes = (partial,) if (partial := _partial(spec, rows)) else ()
    return Resolved(spec, "hub", spec.id, commit, None, rows, provenance, notes)


def _report(
    problems: Mapping[DatasetSpec, DataError | None], n_asked: int, roots: Sequence[Path], offline: bool
) -> str:
    """First line: how many and which. Then a line per problem, the same one said once. Last: what to type."""
    ids = list(dict.fromkeys(spec.id for spec in problems))
    lines = dict.fromkeys(str(e) if e else _missing(spec, problems, roots) for spec, e in problems.items())
    head = f"{len(problems)} of {n_asked} datasets cannot be used: {', '.join(ids)}"
    return "\n".join([head, *(f"  {line}" for line in lines), f"  {_advice(ids, roots, offline)}"])


def _missing(spec: DatasetSpec, problems: Mapping[DatasetSpec, DataError | None], roots: Sequence[Path]) -> str:
    """One line for all configs of an id that is nowhere."""
    configs = [s.config for s, error in problems.items() if s.id == spec.id and error is None]
    what = f"{spec.id} ({len(configs)} configs)" if len(configs) > 1 else str(spec)
    places = " or ".join(str(root / spec.id) for root in roots)
    return f"{what} is not on this machine; expected {places or 'a data root, and none was given'}"


def _advice(ids: Sequence[str], roots: Sequence[Path], offline: bool) -> str:
    for root in roots:
        for near in sorted(p for p in root.iterdir() if p.is_dir()):
            if any((near / i).is_dir() for i in ids if HUB_ID.fullmatch(i)):
                return f"the data root that is meant looks like this one: --data-root {near}"
    allow = ", or allow the network (no --offline, no HF_HUB_OFFLINE)" if offline else ""
    supply = "supply each as DIR/<owner>/<name>/ with --data-root DIR (or EVALSUITE_DATA_ROOT)"
    return f"{supply}{allow}; what is there: evalsuite check --data-root DIR"
