"""What a scan left in its folder, as far as cleaning needs it: the files, how they were read, what was found."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from decontam.clean.decide import Hit
from decontam.errors import DecontamError
from decontam.report.decisions import FILE, read_decisions
from decontam.report.match import Key, Match, read_matches
from decontam.rules import Rule, find_rule

if TYPE_CHECKING:
    from decontam.select import Selection
    from decontam.types import EvalSet

By = Literal["exact", "capped", "near", "reviewed"]
BYS: tuple[By, ...] = ("exact", "capped", "near", "reviewed")
Also = Literal["near", "short"]
ALSO: tuple[Also, ...] = ("near", "short")
Hits = Mapping[tuple[str, str], Mapping[int, Sequence[Hit]]]  # by (data set, file), by row


@dataclass(frozen=True, slots=True)
class Source:
    """A training file as it was scanned. `name` is what it is called below the folder of cleaned data, `relative` what
    the digest of its data set calls it."""

    file: str  # as reports name it
    path: Path
    name: str
    relative: str
    format: str
    size: int
    mtime_ns: int
    ends: str


@dataclass(frozen=True, slots=True)
class Data:
    """A training data set as it was scanned; `folder` holds its files under their names."""

    name: str
    digest: str
    folder: Path
    selection: Selection
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """A finished scan. `rule` is the report's own words for the rule, `near` the profile of near-duplicates, if any."""

    out: Path
    data: tuple[Data, ...]
    rule: Mapping[str, Any]
    complete: bool
    drop_empty_fields: bool
    near: str

    def find_rule(self) -> Rule:
        """The rule itself; raises DecontamError when this version decides otherwise than the scan did."""
        rule = find_rule(str(self.rule["name"]))
        if rule.digest != self.rule["digest"]:
            raise DecontamError(f"{self.out}: scanned by another version of the rule {rule.name!r}; scan again")
        return rule

    def evals(self) -> list[EvalSet]:
        from decontam.evals import from_jsonl

        return from_jsonl(self.out / "evals.jsonl")


def read_scan(out: Path, root: Path | None = None) -> Scan:
    """The scan in a folder; relative paths of its files count from `root`, else from here. Raises DecontamError."""
    if not out.is_dir():
        raise DecontamError(f"{out}: no such folder; expected what `decontam scan --out {out}` writes")
    manifest = _json(out / "manifest.json", out)
    verdict = _json(out / "verdict.json", out)
    try:
        data = tuple(
            _data(told, trained, manifest["files"], root or Path())
            for told, trained in zip(manifest["datasets"], verdict["training"], strict=True)
        )
        return Scan(
            out,
            data,
            verdict["rule"],
            bool(verdict["complete"]),
            bool(manifest["drop_empty_fields"]),
            str(manifest["options"]["near"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DecontamError(
            f"{out}: manifest.json and verdict.json are not of one finished scan ({type(error).__name__}: {error});"
            " run the scan again"
        ) from error


def refuse_changed(source: Source) -> None:
    from decontam.inputs import fingerprint

    if not source.path.is_file():
        raise DecontamError(
            f"{source.path}: no such file; run where the scan ran, or say with --root what its paths count from"
        )
    found = fingerprint(str(source.path))
    if (found["size"], found["mtime_ns"], found["sha256"]) != (source.size, source.mtime_ns, source.ends):
        raise DecontamError(f"{source.path}: changed since the scan; scan again, then clean")


def read_hits(out: Path, by: By, also: Collection[Also] = ()) -> Hits:
    """What is to be cleaned, as `by` and `also` choose it."""
    hits: dict[tuple[str, str], dict[int, list[Hit]]] = {}
    for match, kinds in _chosen(out, by, also):
        score = match.score / 100 if kinds == {"near"} else match.score
        spans = tuple(run.train for run in match.runs)
        hit = Hit(match.turn, match.eval, match.instance, score, spans, match.id, frozenset(kinds))
        hits.setdefault((match.dataset, match.file), {}).setdefault(match.row, []).append(hit)
    return hits


def _chosen(out: Path, by: By, also: Collection[Also]) -> Iterator[tuple[Match, set[str]]]:
    """The matches that are wanted, each with what found it."""
    accepted = _accepted(out) if by == "reviewed" else set()
    for match in read_matches(out / "matches.jsonl"):
        kinds = set(match.flags) & {"exact", "short"}
        wanted = {"exact": "exact", "capped": "capped", "near": "", "reviewed": ""}[by] in match.flags
        if match.key in accepted or wanted or ("short" in also and "short" in kinds):
            yield match, kinds
    path = out / "near.jsonl"
    if (by == "near" or "near" in also) and not path.is_file():
        raise DecontamError(f"{path}: no such file; near-duplicates are found by `decontam scan --near-dup`")
    if path.is_file() and (by in ("near", "reviewed") or "near" in also):
        for match in read_matches(path):
            if match.key in accepted or by == "near" or "near" in also:
                yield match, {"near"}


def _accepted(out: Path) -> set[Key]:
    decisions = read_decisions(out)
    if not decisions:
        raise DecontamError(f"{out / FILE}: no decision yet; look at the matches with `decontam review {out}` first")
    return {key for key, decision in decisions.items() if decision == "accept"}


def _data(told: Mapping[str, Any], trained: Mapping[str, Any], files: Sequence[Any], root: Path) -> Data:
    from decontam.select import parse_selectors

    name = str(told["name"])
    if trained["name"] != name:
        raise ValueError(f"{trained['name']!r} is not {name!r}")
    mine = [f for f in files if f["dataset"] == name]
    paths = [os.path.join(root, f["file"]) for f in mine]
    given = os.path.join(root, str(trained["path"]))
    is_folder = os.path.isdir(given)
    folder = given if is_folder else os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in paths])
    sources = tuple(_source(f, path, folder, is_folder) for f, path in zip(mine, paths, strict=True))
    return Data(name, str(trained["digest"]), Path(folder), parse_selectors(told["selectors"]), sources)


def _source(told: Mapping[str, Any], path: str, folder: str, is_folder: bool) -> Source:
    name = os.path.relpath(path, folder)
    relative = name if is_folder else str(told["file"])  # of a pattern
    return Source(
        told["file"], Path(path), name, relative, told["format"], told["size"], told["mtime_ns"], told["ends"]
    )


def _json(path: Path, out: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DecontamError(f"{path}: no such file; expected the folder of a finished scan, scan into {out} first")
    try:
        found: dict[str, Any] = json.loads(_text(path))
        if not isinstance(found, dict):
            raise ValueError("not an object")
        return found
    except ValueError as error:
        raise DecontamError(f"{path}: not JSON ({error}); run the scan again") from error


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise DecontamError(f"{path}: cannot be read ({error.strerror}); run the scan again") from error
