"""What no reward may be made of: unseen benchmarks under any name, their constraints, data and prompts; test rows.

Looked for before any model is loaded, in what a recipe says and in the files that are there, and told all at once.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from evalsuite.errors import DataError, EvalsuiteError, UnseenBudget
from evalsuite.trainers.types import Places
from train_plugins.rlvr.fingerprints import Held, asked, held_prompts
from train_plugins.rlvr.rewarding import names_of

MIX = (".yaml", ".yml")
ORIGINS = ("origin", "hub", "path", "name", "source", "id")
"""What of the facts of a data set says where it is from."""


@dataclass(frozen=True)
class Unseen:
    """The unseen benchmarks as they may be called: by name, and by the ids of their data sets."""

    names: Mapping[str, str]
    ids: Mapping[str, str]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        ids = sorted(map(re.escape, self.ids), key=len, reverse=True)
        return re.compile(rf"(?<![\w.-])(?:{'|'.join(ids)})(?![\w-])" if ids else r"(?!)")

    def named(self, name: str) -> str | None:
        """The unseen benchmark of that name, however it is spelled; None for any other name."""
        return self.names.get(_plain(name)) or self.names.get(_plain(name.partition("@")[0])) or self.origin(name)

    def origin(self, text: str) -> str | None:
        """The unseen benchmark whose data set a text speaks of."""
        found = self._pattern.search(text.casefold())
        return self.ids[found[0]] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")


def refuse_unseen(verifiers: Mapping[str, str], files: Sequence[Path], places: Places | None = None) -> None:
    """Refuses rewards and data of unseen benchmarks, and test rows of all others; returns when there are none.

    Raises UnseenBudget with every reason, a line each, else DataError for test rows. Files that cannot be read are
    left to those who train on them.
    """
    places = places or Places()
    unseen = find_unseen(places.benchmarks)
    reasons = list(_of_names(verifiers, unseen))
    held = held_prompts(places.benchmarks, places.roots) if files else ()
    tests: list[str] = []
    for file in files:
        reasons += _of_origins(file, unseen)
        if file.suffix not in MIX:
            seen = _look(file, verifiers, held)
            reasons += _of_rows(file, seen, unseen)
            reasons += _of_prompts(file, seen, held, unseen=True)
            tests += _of_prompts(file, seen, held, unseen=False)
    if reasons:
        raise UnseenBudget("\n".join(dict.fromkeys([*reasons, *tests])))
    if tests:
        raise DataError("\n".join(dict.fromkeys(tests)))


def find_unseen(extra: Sequence[Path] = ()) -> Unseen:
    """All unseen benchmarks; `extra` are folders with benchmarks of the user's own."""
    from evalsuite.benchmark import known_benchmarks, read_benchmark
    from evalsuite.suite import known_aliases

    aliases = known_aliases()
    names: dict[str, str] = {}
    ids: dict[str, str] = {}
    for folder in known_benchmarks(extra).values():
        benchmark = read_benchmark(folder)
        if benchmark.meta.split == "unseen":
            names[_plain(benchmark.name)] = benchmark.name
            own = {task.dataset for task in benchmark.tasks if task.dataset}
            same = {other for each in own for other in aliases.get(each, ())}
            same |= {key for key, others in aliases.items() if own & set(others)}
            ids |= {each.casefold(): benchmark.name for each in own | same}
    return Unseen(names, ids)


# -- what the recipe says --


def _of_names(verifiers: Mapping[str, str], unseen: Unseen) -> Iterator[str]:
    for dataset, target in verifiers.items():
        for name in names_of(dataset, {}) + names_of(target, {}):
            if benchmark := unseen.named(name):
                yield (
                    f"options.verifiers: {dataset}: {target} names the unseen benchmark {benchmark}; what is rewarded "
                    "for it is no longer unseen"
                )


def _of_origins(file: Path, unseen: Unseen) -> Iterator[str]:
    """Of the facts beside a data set, or of a mix that is not built yet."""
    for origin in dict.fromkeys(_origins(file)):
        if benchmark := unseen.origin(origin) or unseen.names.get(_plain(origin)):
            yield f"{file.name} is made of {origin!r}, the data of the unseen benchmark {benchmark}; leave it out"


def _origins(file: Path) -> Iterator[str]:
    facts = _facts(file)
    sources = facts.get("sources")
    for each in [{"origin": facts.get("origin")}, *(sources if isinstance(sources, list) else ())]:
        told = [each.get(key) for key in ORIGINS] if isinstance(each, Mapping) else [each]
        for value in told:
            yield from [value] if isinstance(value, str) else map(str, value) if isinstance(value, list) else ()


def _facts(file: Path) -> Mapping[str, Any]:
    from evalsuite.loop.mixes import read_mix
    from train_plugins.data.rows import read_meta

    try:
        return read_mix(file) if file.suffix in MIX else read_meta(file)
    except (EvalsuiteError, OSError):
        return {}


# -- what the rows say --


@dataclass(slots=True)
class _Seen:
    """How often each word stands in the rows of a file, and the first row that holds it (counted from 1)."""

    datasets: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    constraints: Counter[str] = field(default_factory=Counter)
    prompts: Counter[str] = field(default_factory=Counter)
    first: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, kind: str, words: Iterable[str], number: int) -> None:
        counter: Counter[str] = getattr(self, kind)
        for word in dict.fromkeys(words):
            counter[word] += 1
            self.first.setdefault((kind, word), number)

    def told(self, kind: str, word: str) -> str:
        n = getattr(self, kind)[word]
        return f"{n} row{'s' * (n != 1)}, the first is row {self.first[kind, word]}"


def _look(file: Path, verifiers: Mapping[str, str], held: Sequence[Held]) -> _Seen:
    from train_plugins.data.rows import read_lines

    seen, owners = _Seen(), _owners(held)
    named: dict[str, tuple[str, ...]] = {}
    try:
        for number, (_, row) in enumerate(read_lines(file), 1):
            if not isinstance(row, Mapping):
                continue
            dataset = row.get("dataset")
            key = str(dataset)
            if key not in named:
                named[key] = _names(dataset, verifiers)
            seen.note("datasets", named[key], number)
            seen.note("sources", [str(row.get("source", ""))], number)
            seen.note("constraints", _constraints(row), number)
            if owners and isinstance(messages := row.get("messages"), list):
                texts = [each for each in messages if isinstance(each, Mapping)]
                seen.note("prompts", [name for mark in asked(texts) for name in owners.get(mark, ())], number)
    except (EvalsuiteError, OSError):
        pass
    return seen


def _names(dataset: Any, verifiers: Mapping[str, str]) -> tuple[str, ...]:
    """All that a row's `dataset` says, before the mapping and after it."""
    if not isinstance(dataset, str | list | tuple):
        return ()
    own = dataset if isinstance(dataset, str) else [str(each) for each in dataset]
    return tuple(dict.fromkeys((*names_of(own, {}), *names_of(own, verifiers))))


def _owners(held: Sequence[Held]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = {}
    for each in held:
        for mark in each.prompts:
            found.setdefault(mark, []).append(each.benchmark)
    return found


def _constraints(row: Mapping[str, Any]) -> Iterator[str]:
    """The ids and function names of a row's label, and of the columns of IFEval where it has them."""
    label = row.get("ground_truth")
    if isinstance(label, str):
        if label[:1] not in "{[" or not ("func_name" in label or "instruction_id" in label):
            label = None
        else:
            try:
                label = json.loads(label)
            except (ValueError, RecursionError):
                label = None
    for each in [*(label if isinstance(label, list) else [label]), row]:
        if isinstance(each, Mapping):
            for key in ("instruction_id", "instruction_id_list", "func_name"):
                found = each.get(key)
                yield from [found] if isinstance(found, str) else map(str, found) if isinstance(found, list) else ()


def _of_rows(file: Path, seen: _Seen, unseen: Unseen) -> Iterator[str]:
    for name in seen.datasets:
        if benchmark := unseen.named(name):
            yield (
                f"{file.name}: dataset names {name!r}, the unseen benchmark {benchmark} "
                f"({seen.told('datasets', name)}); leave these rows out"
            )
    for source in seen.sources:
        if benchmark := unseen.origin(source) or unseen.names.get(_plain(source)):
            yield (
                f"{file.name}: source is {source!r}, the data of the unseen benchmark {benchmark} "
                f"({seen.told('sources', source)}); leave these rows out"
            )
    if seen.constraints:
        only = unseen_constraints()
        for name in seen.constraints:
            if id := only.get(name.casefold()):
                yield (
                    f"{file.name}: the constraint {id} belongs to unseen benchmarks alone "
                    f"({seen.told('constraints', name)}); reward those of IFEval"
                )


def unseen_constraints() -> dict[str, str]:
    """Ids that only unseen benchmarks use: whole, and the part behind the colon where IFEval has none such."""
    from evalsuite.verify.constraints import IFEVAL_IDS
    from evalsuite.verify.constraints.ood import EXTRA_IDS, OOD_IDS, OTHER_NAMES

    taken = {id.partition(":")[2] for id in IFEVAL_IDS}
    ids = sorted({*OOD_IDS, *EXTRA_IDS, *OTHER_NAMES} - set(IFEVAL_IDS))
    short = {tail: id for id in ids if (tail := id.partition(":")[2]) and tail not in taken}
    return {**short, **{id.casefold(): id for id in ids}}


def _of_prompts(file: Path, seen: _Seen, held: Sequence[Held], *, unseen: bool) -> Iterator[str]:
    for each in held:
        if each.benchmark in seen.prompts and (each.split == "unseen") is unseen:
            kind = f"the unseen benchmark {each.benchmark}" if unseen else f"the test set of {each.benchmark}"
            yield (
                f"{file.name}: {seen.told('prompts', each.benchmark)}, ask what {kind} asks (contamination; prompts "
                "are not shown); leave these rows out: evalsuite decontam clean"
            )
