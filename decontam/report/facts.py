"""What reports are made of: the rule, the evals with what protects them, the data sets, the tables of matches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from decontam.errors import DecontamError
from decontam.rules import Rule
from decontam.types import EvalSet

LIMIT = 0.02  # a data set is contaminated above this share of an eval's instances (Tülu 3, section 3.2)
EXACT, CAPPED, SHORT = 1, 2, 4  # bits of a match table's `flags`


@dataclass(frozen=True, slots=True)
class EvalFacts:
    """An eval and how far the rule can protect it. Instances are numbered within the eval.

    `sizes` has the number of positions of each field of each instance, `uncommon` that without the positions of common
    windows. A skipped instance lacks a field and leaves the denominator. `unprotected` maps a reason (too short, own
    score too low, an empty field, boilerplate only) to instances; one instance may have several reasons.
    """

    eval: EvalSet
    sizes: Sequence[Sequence[int]]
    uncommon: Sequence[Sequence[int]]
    skipped: Sequence[int] = ()
    unprotected: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """The denominator of this eval's rates."""
        return len(self.eval.ids) - len(set(self.skipped))

    @property
    def n_unprotected(self) -> int:
        """Instances with any reason, each once."""
        return len({i for instances in self.unprotected.values() for i in instances})


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """One training data set as it was read. `why` says what makes it incomplete, as reports print it."""

    name: str
    digest: str
    path: str  # as the user gave it
    n_rows: int
    complete: bool = True
    why: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ShardTables:
    """The match table of a shard, and that of its near-duplicates. `first_row` is added to every row number."""

    dataset: str
    file: str
    matches: Any  # pyarrow.Table
    near: Any = None  # pyarrow.Table | None
    first_row: int = 0


@dataclass(frozen=True, slots=True)
class Scan:
    """A finished scan. Shards are in order of data set, file and place in the file; evals in the order of the index."""

    rule: Rule
    cap: int
    evals: Sequence[EvalFacts]
    datasets: Sequence[DatasetFacts]
    shards: Sequence[ShardTables]
    near: bool = False
    short: bool = False
    limit: float = LIMIT


class Texts(Protocol):
    """Fetches training text for display. Rows map to the byte offset of their line, -1 where that is not known."""

    def __call__(self, dataset: str, file: str, rows: Mapping[int, int]) -> Mapping[int, Mapping[int, str]]:
        """Row to turn to text; a row that cannot be read is absent."""
        ...


def refuse_evals(evals: Sequence[EvalSet]) -> None:
    """Raises DecontamError for names that cannot be file names and ids that cannot be lines, before anything is read.

    `clean_ids/<eval>.txt` holds one id a line.
    """
    names = [each.name for each in evals]
    for name in names:
        if not name or name.startswith(".") or "/" in name or not name.isprintable() or len(name.encode()) > 200:
            raise DecontamError(f"eval name {name!r} cannot name a file; expected printable characters without '/'")
        if names.count(name) > 1:
            raise DecontamError(f"{names.count(name)} evals are named {name!r}; give each a name of its own")
    for each in evals:
        if broken := [i for i in each.ids if not i.strip() or i.splitlines() != [i] or not _is_text(i)]:
            raise DecontamError(f"eval {each.name!r}: sample id {broken[0]!r} is no single line of text")


def _is_text(text: str) -> bool:
    """Whether a file of UTF-8 can hold it: a lone surrogate is none."""
    return not any("\ud800" <= c <= "\udfff" for c in text)
