"""W9: instruction checks, strict and loose: our 25 IFEval ids against lm-eval's own code, and the 52 of IFEval-OOD.

Real rows and answers where the data is (541 IFEval rows, output i of AlpacaEval's baseline answers row i), else our
own IFEval-OOD prompts with text of words. Both sides use the same sentence splitter and language identification.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evalsuite.verify.constraints import followed_both
from tests.evalsuite.verify.constraints.oracle import official
from tests.tiny import words

ROOT = Path(__file__).resolve().parents[2]
GOAL = 1.5
BUDGET_S = 2.0  # CPU-seconds for a thousand responses

Row = tuple[str, Sequence[str], Sequence[Mapping[str, Any]]]


def run(scale: float = 1.0) -> list[dict[str, Any]]:
    """IFEval against lm-eval; and a thousand responses of each kind against the budget."""
    from evalsuite.verify.constraints import ood

    assert len(ood.OOD_IDS) == 52
    ifeval = _ifeval()[: max(20, round(541 * scale))]
    ours, theirs, equal = _compared(ifeval)
    n = sum(len(ids) for _, ids, _ in ifeval)
    base = {"unit": "CPU-seconds", "command": "make bench"}
    peer = "lm-eval 0.4.13's own checks, sentences by our splitter on both sides"
    first = {
        "name": "W9 IFEval verdicts",
        "peer": peer,
        "goal": GOAL,
        "ours": round(ours, 2),
        "theirs": round(theirs, 2),
    }
    first |= {"ratio": round(theirs / ours, 2), "note": f"{n} instructions, strict and loose, first imports included"}
    first |= {"equality": f"{equal} of {len(ifeval)} rows with equal verdicts"}
    rows = [base | first]
    for name, found in (("IFEval", ifeval), ("IFEval-OOD", _ood())):
        thousand = [found[i % len(found)] for i in range(1000)]
        start = time.process_time()
        for response, ids, kwargs in thousand:
            followed_both(response, ids, kwargs)
        spent = time.process_time() - start
        row = {"name": f"W9 a thousand {name} responses", "peer": "the budget, no tool", "goal": 1.0}
        row |= {"ours": round(spent, 2), "theirs": BUDGET_S, "ratio": round(BUDGET_S / spent, 2)}
        rows.append(base | row | {"note": f"{sum(len(ids) for _, ids, _ in thousand)} instructions, strict and loose"})
    return rows


def _compared(rows: list[Row]) -> tuple[float, float, int]:
    """(our CPU-seconds, theirs, rows with equal verdicts)."""
    start = time.process_time()
    mine = [followed_both(*row) for row in rows]
    ours = time.process_time() - start
    start = time.process_time()
    others = [official(*row) for row in rows]
    theirs = time.process_time() - start
    verdicts = [([c.ok for c in strict], [c.ok for c in loose]) for strict, loose in mine]
    return ours, theirs, sum(a == (list(b[0]), list(b[1])) for a, b in zip(verdicts, others, strict=True))


def _hub() -> Path:
    return Path(os.environ.get("EVALSUITE_SHARED_DATA", ROOT.parent / "shared" / "data")) / "hub"


def _answers() -> list[str]:
    file = _hub() / "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline/eval.jsonl"
    if file.is_file():
        return [json.loads(line)["output"] for line in file.read_text(encoding="utf-8").split("\n") if line]
    draw, pool = words()
    return ["\n\n".join(" ".join(draw.choices(pool, k=60)) + "." for _ in range(5)) for _ in range(200)]


def _ifeval() -> list[Row]:
    file = _hub() / "google/IFEval/default/train.jsonl"
    if not file.is_file():
        file = ROOT / "benchmarks/ifeval_ood/prompts.jsonl"
    return _rows(file)


def _ood() -> list[Row]:
    return _rows(ROOT / "benchmarks/ifeval_ood/prompts.jsonl")


def _rows(file: Path) -> list[Row]:
    answers = _answers()
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return [
        (
            answers[i % len(answers)],
            r["instruction_id_list"],
            [{k: v for k, v in given.items() if v is not None} for given in r["kwargs"]],
        )
        for i, r in enumerate(rows)
    ]
