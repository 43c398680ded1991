"""How well decontamination finds the plants of the workload, by kind, with and without the cap, and near-duplicates.

`python -m tests.speed.decontam_quality --rows 20000 --seeds 7,8,9` prints the table of each seed. `against_reference`
compares every decision on a sample with the rule as `decontam/reference.py` writes it down.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.speed.decontam_ours import Bench, workloads_folder
from tests.speed.decontam_workload import KINDS, TRUE_KINDS, Workload

COPIES = KINDS[:3]  # exact, recased and 75 % copies: the recall that has a goal
Pair = tuple[int, str]  # row, eval instance


@dataclass(frozen=True, slots=True)
class Found:
    """What one column of the report says: which (row, instance) pairs."""

    name: str
    pairs: frozenset[Pair]

    def within(self, rows: int) -> Found:
        return Found(self.name, frozenset(pair for pair in self.pairs if pair[0] < rows))


@dataclass(frozen=True, slots=True)
class Quality:
    """Found against planted. A row is falsely flagged when no plant of the six kinds with eval text is in it."""

    name: str
    planted: Mapping[str, int]
    found: Mapping[str, int]
    n_rows: int
    n_false: int
    n_pairs: int
    n_wrong_pairs: int  # whose row has no plant of that instance

    @property
    def precision(self) -> float:
        return 1 - self.n_false / self.n_rows if self.n_rows else 1.0

    @property
    def recall(self) -> float:
        return self.recall_of(COPIES)

    def recall_of(self, kinds: Iterable[str]) -> float:
        chosen = tuple(kinds)
        planted = sum(self.planted[k] for k in chosen)
        return sum(self.found[k] for k in chosen) / planted if planted else 1.0


def found_by(bench: Bench, workload: Workload) -> list[Found]:
    """The pairs flagged by the exact rule, under the cap, and as near-duplicates, from one scan of user turns."""
    bench.scan(workload, "--near-dup")
    matches = [(m["row"], m["instance"], m["flags"]) for m in bench.lines("matches.jsonl")]
    return [
        Found("exact rule", frozenset((row, i) for row, i, flags in matches if "exact" in flags)),
        Found("with the cap", frozenset((row, i) for row, i, flags in matches if "capped" in flags)),
        Found("near-duplicates", frozenset((m["row"], m["instance"]) for m in bench.lines("near.jsonl"))),
    ]


def judged(found: Found, workload: Workload, rows: int | None = None) -> Quality:
    """The pairs against the truth, over the first `rows` rows."""
    rows = rows or workload.rows
    found = found.within(rows)
    truth = [t for t in map(json.loads, workload.truth.read_text().splitlines()) if t["row"] < rows]
    flagged = {row for row, _ in found.pairs}
    # A row with a template alone has no instance of its own: found means flagged at all.
    hit = [(t["kind"], (t["row"], t["eval"]) in found.pairs if t["eval"] else t["row"] in flagged) for t in truth]
    return Quality(
        found.name,
        planted=Counter(kind for kind, _ in hit),
        found=Counter(kind for kind, ok in hit if ok),
        n_rows=len(flagged),
        n_false=len(flagged - {t["row"] for t in truth if t["kind"] in TRUE_KINDS}),
        n_pairs=len(found.pairs),
        n_wrong_pairs=len(found.pairs - {(t["row"], t["eval"]) for t in truth}),
    )


def table(qualities: Iterable[Quality]) -> str:
    """Markdown, a line a column of the report."""
    lines = [f"| | {' | '.join(KINDS)} | rows flagged without a plant | precision | recall | wrong pairs |"]
    lines.append("|---" * (len(KINDS) + 5) + "|")
    for q in qualities:
        kinds = " | ".join(f"{q.found[k]}/{q.planted[k]}" for k in KINDS)
        wrong = f"{q.n_wrong_pairs:,} of {q.n_pairs:,}"
        lines.append(
            f"| {q.name} | {kinds} | {q.n_false:,} of {q.n_rows:,} | {q.precision:.3f} | {q.recall:.3f} | {wrong} |"
        )
    return "\n".join(lines)


def against_reference(bench: Bench, n_rows: int = 200) -> tuple[int, int, int]:
    """(decisions, those flagged, those that differ in flag or numerators) of rows with and without plants.

    A decision is a message and an instance. Both turns are read.
    """
    from decontam.reference import instances_of, matches
    from decontam.rules import find_rule

    workload = bench.workload(4_000, 300)
    planted = [json.loads(line)["row"] for line in workload.truth.read_text().splitlines()]
    chosen = sorted({*planted[: n_rows // 2], *range(n_rows - min(len(planted), n_rows // 2))})
    with workload.train.open(encoding="utf-8") as lines:
        every = list(islice(lines, chosen[-1] + 1))
    sample = bench.scratch / "sample.jsonl"
    sample.write_text("".join(every[row] for row in chosen), encoding="utf-8")
    bench.scan(workload, "--scan", "all", train=sample, name="sample")
    ours = {
        (m["row"], m["turn"], m["instance"]): [tuple(c) for c in m["covered"]]
        for m in bench.lines("matches.jsonl", "sample")
        if "exact" in m["flags"]
    }
    rule = find_rule("tulu3")
    texts = {i["id"]: i["question"] for file in workload.suites for i in map(json.loads, file.open(encoding="utf-8"))}
    ids, instances = list(texts), instances_of(rule, [(text,) for text in texts.values()])
    theirs = {
        (row, turn, ids[i]): list(zip(covered, n, strict=True))
        for row, line in enumerate(every[row] for row in chosen)
        for turn, message in enumerate(json.loads(line)["messages"])
        for i, (covered, n) in matches(rule, instances, message["content"]).items()
    }
    differ = sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())
    return 2 * len(chosen) * len(instances), len(theirs), differ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--seeds", default="7,8,9")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(workloads_folder(), Path(scratch))
        for seed in map(int, options.seeds.split(",")):
            workload = bench.workload(options.rows, seed=seed)
            columns = found_by(bench, workload)
            for rows in sorted({min(20_000, options.rows), options.rows}):
                print(
                    f"\nSeed {seed}, {rows:,} rows:\n\n{table(judged(c, workload, rows) for c in columns)}", flush=True
                )


if __name__ == "__main__":
    main()
