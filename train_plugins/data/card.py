"""The data card of a mix: what a reader of a paper asks about training data, as Markdown made of the sidecar alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MARKUP = re.compile(r"[\\`|<\[\]]|(?<!\w)[*_]|[*_](?!\w)")
HEAD = ("source", "origin", "revision", "licence", "made by", "skills", "rows in", "dropped", "rows out")


def card(meta: Mapping[str, Any], file: str) -> str:
    """Markdown: rows by source and reason, decontamination, licences, rows and tokens by skill and length."""
    parts = [_head(meta, file), _sources(meta), _drops(meta), _decontamination(meta), _composition(meta), _use(file)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(meta: Mapping[str, Any], file: str) -> str:
    made = meta["made"]
    lines = [
        f"# {meta['name']}",
        "",
        *([plain(meta["about"]), ""] if meta["about"] else []),
        f"- file: `{file}`, {meta['rows']:,} rows of kind {meta['kind']}, sha256 `{meta['digest']}`",
        f"- made by: {made['by']}, mix `{made['mix'][:16]}`, seed {made['seed']}, doubles by {made['dedup']}",
        f"- licence: {plain(meta['licence'])}",
        f"- skills: {', '.join(meta['skills'])}",
    ]
    return "\n".join(lines)


def _sources(meta: Mapping[str, Any]) -> str:
    rows = [
        (
            each["name"],
            each["origin"],
            each["revision"] or f"sha256 {each['digest'][:12]}",
            each["licence"],
            each["made_by"],
            ", ".join(each["skills"]),
            f"{each['rows_in']:,}",
            f"{sum(each['dropped'].values()):,}",
            f"{each['rows_out']:,}" + (f" ({each['passes']} passes)" if each["passes"] > 1 else ""),
        )
        for each in meta["sources"]
    ]
    notes = [f"- {each['name']}: {plain(each['note'])}" for each in meta["sources"] if each["note"]]
    more = ["", *notes] if notes else []
    return "\n".join(["## Sources", "", *table([HEAD, *rows], first_number=6), *more])


def _drops(meta: Mapping[str, Any]) -> str:
    reasons = sorted({reason for each in meta["sources"] for reason in each["dropped"]})
    undrawn = [max(0, each["left"] - each["rows_out"]) for each in meta["sources"]]
    rows = [
        (each["name"], *(f"{each['dropped'].get(reason, 0):,}" for reason in reasons), f"{rest:,}")
        for each, rest in zip(meta["sources"], undrawn, strict=True)
    ]
    head = ("source", *(reason.replace("_", " ") for reason in reasons), "not drawn")
    return "\n".join(["## Rows left out", "", *table([head, *rows], first_number=1)])


def _decontamination(meta: Mapping[str, Any]) -> str:
    if waived := meta.get("decontamination_waived"):
        return f"## Decontamination\n\nWaived: {plain(waived)}"
    lines = ["## Decontamination", ""]
    for report in meta["decontamination"]:
        found = ", ".join(f"{name} {rate:.2%}" for name, rate in report["rates"].items()) or "nothing found"
        lines.append(
            f"The finished file against {', '.join(report['suites'])} (evals: {len(report['evals'])}, rule "
            f"{report['rule']}): {found}. Report `{report['report']}`, sha256 `{report['digest'][:16]}`."
        )
    hits = [(each["name"], name, f"{n:,}") for each in meta["sources"] for name, n in each["eval_hits"].items()]
    if hits:
        lines += ["", "Rows of the candidates in which text of an eval was found:", ""]
        lines += table([("source", "eval", "rows"), *hits], first_number=2)
    return "\n".join(lines)


def _composition(meta: Mapping[str, Any]) -> str:
    report, unit = meta["report"], meta["unit"]
    total = f"{report['rows']:,} rows, {report['tokens']:,} {unit}. A source with several skills counts for each."
    lines = ["## Composition", "", total]
    for name, title in (("skill", "skill"), ("licence", "licence"), ("length", f"length in {unit}")):
        rows = [(group, f"{e['rows']:,}", f"{e['tokens']:,}") for group, e in report[name].items()]
        lines += ["", *table([(title, "rows", unit), *rows], first_number=1)]
    return "\n".join(lines)


def _use(file: str) -> str:
    stem = file.split(".jsonl")[0].split(".parquet")[0]
    return (
        "## Files\n\n"
        f"- `{stem}.provenance.jsonl`: for each row, in order: source, id there, revision, licence, changes\n"
        f"- `{stem}.prompts`: 16 bytes of sha256 for each normalised user turn, sorted\n"
        f"- `{file}.meta.json`: everything above as data"
    )


def plain(text: Any) -> str:
    """A text on one line in which nothing is Markdown or HTML: whoever names a source does not write the card."""
    line = MARKUP.sub(r"\\\g<0>", " ".join(str(text).split()))
    return re.sub(r"^(?=[#+-] |\d+[.)] )", r"\\", line)


def table(rows: Sequence[Sequence[str]], first_number: int) -> Iterator[str]:
    """Lines of a Markdown table; columns from `first_number` on are set to the right."""
    head, *rest = rows
    yield _row(head)
    yield _row(["---:" if i >= first_number else "---" for i in range(len(head))])
    yield from (_row([plain(cell) for cell in each]) for each in rest)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
