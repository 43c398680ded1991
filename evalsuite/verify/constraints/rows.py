"""From the ids and kwargs of a row to instructions that can be checked; a bad row is refused when it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalsuite.errors import DataError, did_you_mean
from evalsuite.verify.constraints.registry import Constraint, Variant, find_constraint

SHOWN = 20


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of one row: what to check, with the parameters parsed."""

    constraint: Constraint
    params: Mapping[str, Any]


def read_instructions(
    ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]], variant: Variant = "tulu3"
) -> tuple[Instruction, ...]:
    """The instructions of a row; raises DataError with everything that is wrong with it.

    A parameter that is None does not count as given: some versions of `datasets` fill every row with all names.
    """
    problems = list(row_problems(ids, kwargs, variant))
    if problems:
        raise DataError("; ".join(problems))
    return tuple(_parse(find_constraint(i, variant), given) for i, given in zip(ids, kwargs, strict=True))


def row_problems(ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]], variant: Variant = "tulu3") -> Iterator[str]:
    """What is wrong with a row, one line each; nothing for a good one."""
    if len(ids) != len(kwargs):
        yield f"{len(ids)} instruction ids but {len(kwargs)} kwargs"
        return
    for id, given in zip(ids, kwargs, strict=True):
        try:
            _parse(find_constraint(id, variant), given)
        except DataError as error:
            yield str(error)


def check_rows(rows: Iterable[Mapping[str, Any]], variant: Variant = "tulu3") -> None:
    """Raises DataError that names every bad or doubled row by its key (the first 20, and how many there are)."""
    keys: Counter[str] = Counter()
    problems: list[str] = []
    for row in rows:
        key = str(row["key"])
        keys[key] += 1
        if keys[key] > 1:
            problems.append(f"row {key}: the key stands twice")
        problems += [f"row {key}: {p}" for p in row_problems(row["instruction_id_list"], row["kwargs"], variant)]
    if problems:
        more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
        raise DataError(f"{len(problems)} problems in the rows: " + "; ".join(problems[:SHOWN]) + more)


def _parse(constraint: Constraint, given: Mapping[str, Any]) -> Instruction:
    values = {name: value for name, value in (given or {}).items() if value is not None}
    problems = [f"{n} is missing" for n in constraint.params if n not in values]
    problems += [
        f"unknown parameter {n!r}{did_you_mean(n, constraint.params)}" for n in values.keys() - constraint.params
    ]
    params = {}
    for name, parse in constraint.params.items():
        if name in values:
            try:
                params[name] = parse(values[name])
            except (ValueError, OverflowError) as error:
                problems.append(f"{name} is {values[name]!r}: {error}")
    together = constraint.agree(**params) if constraint.agree and not problems else None
    if problems or together:
        raise DataError(f"{constraint.id}: {', '.join(problems) or together}")
    return Instruction(constraint, params)
