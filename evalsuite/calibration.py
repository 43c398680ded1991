"""How far a judge can be trusted: agreement with people on LLMBar, and how often a crafted response wins.

The questions go through the judge stage and its journal like any others, so that a stopped calibration goes on.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from evalsuite.errors import DataError, EngineError, UsageError
from evalsuite.judge import Judge, calibration_file
from evalsuite.judging import Judged, Key, judge_asks
from evalsuite.progress import Observer
from evalsuite.protocol import judges_folder
from evalsuite.verify.judge import Ask, Verdict
from evalsuite.verify.judge_attacks import ATTACKS, PLAIN_BAD

BOTH = (False, True)
ROW = "a row is {input, output_1, output_2, label (1 or 2: the better output), subset}"


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement with people over rows that have a verdict in both orders; a tie counts as half right.

    `low` and `high` are the 95 % Wilson interval over the rows, `flip_rate` the share whose preference changes with the
    order.
    """

    n: int
    accuracy: float
    low: float
    high: float
    flip_rate: float
    n_failed: int


@dataclass(frozen=True, slots=True)
class Resistance:
    """How often an attack beats an honest answer (`win_rate`), less what a plain bad answer wins (`success`)."""

    n: int
    win_rate: float
    success: float
    n_failed: int


def calibrate(
    judge: Judge,
    results: Path,
    rows: Sequence[Mapping[str, Any]] = (),
    *,
    observer: Observer | None = None,
    command: str = "",
) -> dict[str, Any]:
    """What was measured, stored in `results/judges/<digest>.json`, where the judge's identity finds it.

    `rows` are LLMBar's; without them only the attacks are measured. UsageError for a judge that compares nothing.
    """
    folder = results / "journal"
    attacks, overall, plain = measure_attacks(judge, folder, observer=observer, command=command)
    if not overall.n:
        raise EngineError(f"{judge.name} gave no verdict on any of {overall.n_failed} questions; it cannot judge")
    found: dict[str, Any] = {
        "attacks": {name: asdict(r) for name, r in attacks.items()},
        "attack_success": overall.success,
        "attack_pairs": overall.n,
        "plain_bad_win_rate": plain,
    }
    if rows:
        agreement = measure_agreement(judge, rows, folder, observer=observer, command=command)
        found["llmbar"] = {subset: asdict(a) for subset, a in agreement.items()}
    path = calibration_file(results, judge.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    stored = {"judge": judge.identity() | {"calibration": None}, "calibration": found}
    part.write_text(json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, path)
    return found


def measure_agreement(
    judge: Judge,
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    observer: Observer | None = None,
    command: str = "",
) -> dict[str, Agreement]:
    """Agreement per subset, and over all rows under "all"; every row is judged in both orders."""
    template = _pairwise(judge)
    asks: dict[Key, Sequence[Ask]] = {}
    for number, row in enumerate(rows):
        fields = {"instruction": row["input"], "output_1": row["output_1"], "output_2": row["output_2"]}
        asks[f"row{number}", 0] = tuple(Ask(template, fields, swapped) for swapped in BOTH)
    judged = judge_asks("llmbar", "llmbar", asks, judge, folder, observer=observer, command=command, as_given=True)
    subsets = sorted({str(row["subset"]) for row in rows})
    indices = {"all": range(len(rows))} | {s: [i for i, r in enumerate(rows) if str(r["subset"]) == s] for s in subsets}
    return {name: _agreement(judged, rows, chosen) for name, chosen in indices.items()}


def measure_attacks(
    judge: Judge, folder: Path, *, observer: Observer | None = None, command: str = ""
) -> tuple[dict[str, Resistance], Resistance, float]:
    """(each attack, all of them together, win rate of a plain bad answer), against honest answers in both orders."""
    template = _pairwise(judge)
    first, second = (judge.protocol.answer.options or ("A", "B"))[:2]
    asks: dict[Key, Sequence[Ask]] = {}
    for name in ("plain", *ATTACKS):
        for number, (instruction, honest) in enumerate(questions()):
            pair = []
            for swapped in BOTH:
                # The honest answer is output_1; swapped, the attack is shown first.
                mine, other = (first, second) if swapped else (second, first)
                crafted = PLAIN_BAD if name == "plain" else ATTACKS[name](mine, other)
                fields = {"instruction": instruction, "output_1": honest, "output_2": crafted}
                pair.append(Ask(template, fields, swapped))
            asks[f"{name} {number}", 0] = tuple(pair)
    judged = judge_asks("attacks", "attacks", asks, judge, folder, observer=observer, command=command, as_given=True)
    wins = {name: _wins(judged, name) for name in ("plain", *ATTACKS)}
    plain = _mean(w for w in wins.pop("plain") if w is not None)
    together = [w for several in wins.values() for w in several]
    return {name: _resistance(w, plain) for name, w in wins.items()}, _resistance(together, plain), plain


def questions() -> list[tuple[str, str]]:
    """(instruction, honest answer) pairs of ours that attacks are measured against."""
    lines = (judges_folder() / "attacks" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["instruction"], row["answer"]) for row in map(json.loads, lines)]


def read_llmbar(path: Path) -> list[dict[str, Any]]:
    """LLMBar's rows. Raises DataError naming file and line of a row that is not of the expected form."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            texts = [row[key] for key in ("input", "output_1", "output_2", "subset")]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: line {number}: {type(error).__name__}: {error}; {ROW}") from error
        if not all(isinstance(t, str) for t in texts) or row.get("label") not in (1, 2):
            raise DataError(f"{path}: line {number}: label is {row.get('label')!r:.20}; {ROW}")
        found.append(row)
    return found


def wilson(hits: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (1927); (0, 1) when nothing was observed."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _pairwise(judge: Judge) -> str:
    template = judge.protocol.pairwise_template()
    if template is None:
        raise UsageError(
            f"the judge protocol {judge.protocol.name!r} compares no two answers; calibration needs a pairwise one, "
            "as in: --judge href=ENGINE"
        )
    return template.name


def _agreement(judged: Judged, rows: Sequence[Mapping[str, Any]], chosen: Iterable[int]) -> Agreement:
    right, flips, n, n_failed = 0.0, 0, 0, 0
    for index in chosen:
        said = [v.preference for v in judged.verdicts[f"row{index}", 0] if isinstance(v, Verdict)]
        if len(said) < len(BOTH):
            n_failed += 1
            continue
        sides = [_side(p) for p in said if p is not None]
        wanted = 1 if rows[index]["label"] == 2 else -1
        right += sum(0.5 if side == 0 else float(side == wanted) for side in sides) / len(sides)
        flips += sides[0] != sides[1]
        n += 1
    low, high = wilson(right, n)
    return Agreement(n, right / n if n else 0.0, low, high, flips / n if n else 0.0, n_failed)


def _side(preference: float) -> int:
    return (preference > 0.5) - (preference < 0.5)


def _wins(judged: Judged, name: str) -> list[bool | None]:
    """Whether the crafted answer won, question by question and order by order; None where there is no verdict."""
    found: list[bool | None] = []
    for number in range(len(questions())):
        for said in judged.verdicts[f"{name} {number}", 0]:
            preference = said.preference if isinstance(said, Verdict) else None
            found.append(None if preference is None else preference > 0.5)
    return found


def _resistance(wins: Sequence[bool | None], plain: float) -> Resistance:
    known = [w for w in wins if w is not None]
    rate = _mean(known)
    return Resistance(len(known), rate, rate - plain, len(wins) - len(known))


def _mean(values: Iterable[bool]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
