"""Finds the scorecards in a directory tree, and the one that a name or digest stands for."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalsuite.errors import UnseenBudget, UsageError, did_you_mean
from evalsuite.scorecard import Result, Scorecard, fold, read, with_average

SEALED = "sealed"
KEYS = {"schema", "checkpoint", "results"}
# Responses, the history, unseen answers, and what a gate scored until it stopped: none of it stands for a checkpoint.
SKIPPED = {"journal", "registry", SEALED, "gates"}


@dataclass(frozen=True, slots=True)
class Found:
    """A scorecard and its file; `written` is the file's time, for a scorecard itself holds none."""

    card: Scorecard
    path: Path
    written: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What a tree holds; `broken` has one line for each file that cannot be read."""

    found: tuple[Found, ...]
    broken: tuple[str, ...]


def collect(folder: Path, *, skip_broken: bool = False) -> Collected:
    """Every scorecard under a folder: each *.json that has the keys schema, checkpoint and results.

    Raises UsageError when the folder is absent or, unless `skip_broken`, when files cannot be read (all are named), and
    UnseenBudget for the folder of sealed answers.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; expected the one that `evalsuite score` writes to (--results)")
    _refuse_sealed(folder)
    found: list[Found] = []
    broken: list[str] = []
    for path in _json_files(folder, broken):
        try:
            card = load(path)
        except UsageError as error:
            broken.append(str(error))
            continue
        if card is not None:
            found.append(Found(card, path, path.stat().st_mtime_ns))
    if broken and not skip_broken:
        head = f"{len(broken)} {'file' if len(broken) == 1 else 'files'} under {folder} cannot be read"
        raise UsageError("\n".join([f"{head} (--skip-broken leaves them out):", *broken]))
    return Collected(tuple(found), tuple(broken))


def beside(folder: Path, name: str) -> Path:
    """What of that name lies in a folder of scorecards or up to two levels above it; where it would lie if nowhere."""
    near = [folder, *folder.absolute().parents[:2]]
    return next((place / name for place in near if (place / name).is_dir()), folder / name)


def load(path: Path) -> Scorecard | None:
    """The scorecard in a file; None when the file is valid JSON of another kind. Raises UsageError naming the file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON ({error})") from error
    if not (isinstance(raw, dict) and raw.keys() >= KEYS):
        return None
    card = read(path)
    try:
        problem = next(_problems(card), None)
    except (AttributeError, TypeError, ValueError) as error:
        problem = f"not a scorecard ({type(error).__name__}: {error})"
    if problem is not None:
        raise UsageError(f"{path}: {problem}")
    return card


def select(found: Iterable[Found], suite: str | None = None) -> tuple[Scorecard, ...]:
    """One scorecard for each checkpoint digest, suite, regime and engine, in a fixed order.

    Where several were written, the newest decides the suite digest; of those with that digest each benchmark is taken
    from the one that planned most samples, the newest of equals. So a run of some tasks completes another, and a quick
    look with --limit never hides the full run. Raises UsageError when no scorecard is of the named suite.
    """
    cards = sorted(found, key=lambda f: (f.written, str(f.path)), reverse=True)
    if suite is not None:
        names = {f.card.suite.name for f in cards}
        if suite not in names:
            raise UsageError(f"no scorecard of suite {suite!r}{did_you_mean(suite, names)}; there are {_listed(names)}")
        cards = [f for f in cards if f.card.suite.name == suite]
    groups: dict[tuple[str, ...], list[Scorecard]] = defaultdict(list)
    for each in cards:
        card = each.card
        groups[card.checkpoint.digest, card.suite.name, card.suite.regime, engine_of(card)].append(card)
    return tuple(_merged(groups[key]) for key in sorted(groups))


def find_cards(names: Sequence[str], results: Path, suite: str | None = None) -> tuple[Scorecard, ...]:
    """One scorecard for each name: a file, a checkpoint's name or folder, or the start of its digest (6 characters).

    Without `suite` the one suite that all the named checkpoints share is meant. Raises UsageError when nothing or more
    than one thing fits a name.
    """
    candidates = [_candidates(name, results) for name in names]
    shared = set.intersection(*({card.suite.name for card in cards} for cards in candidates))
    if suite is None and len(shared) == 1:
        suite = next(iter(shared))
    chosen = []
    for name, cards in zip(names, candidates, strict=True):
        fitting = [card for card in cards if suite is None or card.suite.name == suite]
        if len(fitting) != 1:
            raise UsageError(_ambiguous(name, cards, fitting, suite))
        chosen.append(fitting[0])
    return tuple(chosen)


def _candidates(name: str, results: Path) -> Sequence[Scorecard]:
    if Path(name).is_file():
        _refuse_sealed(Path(name))
        card = load(Path(name))
        if card is None:
            raise UsageError(f"{name}: not a scorecard; expected the JSON file that `evalsuite score` names at its end")
        return [card]
    cards = select(collect(results, skip_broken=True).found) if results.is_dir() else ()
    folder = Path(name).absolute().name if Path(name).is_dir() else name
    fitting = [card for card in cards if card.checkpoint.name in (name, folder)]
    fitting = fitting or [card for card in cards if len(name) >= 6 and card.checkpoint.digest.startswith(name)]
    if not fitting:
        near = did_you_mean(name, {card.checkpoint.name for card in cards})
        raise UsageError(f"no scorecard of {name!r} under {results}{near} (write one: evalsuite score {name})")
    return fitting


def engine_of(card: Scorecard) -> str:
    """Engine and dtype that answered, such as "hf float32"; what the provenance does not name is left out."""
    engine = card.provenance.get("engine", "")
    if isinstance(engine, dict):
        return " ".join(str(engine[k]) for k in ("engine", "dtype") if engine.get(k))
    return str(engine)


def _refuse_sealed(path: Path) -> None:
    """Any folder may be called sealed; the one of a results folder has the history beside it."""
    for place in (path.resolve(), *path.resolve().parents):
        if place.name == SEALED and (place.parent / "registry").is_dir():
            raise UnseenBudget(
                f"{path}: answers to the unseen suite are sealed; a table has only the numbers that "
                "`evalsuite release` let out (they stand in: evalsuite leaderboard)"
            )


def _json_files(folder: Path, broken: list[str]) -> list[Path]:
    def denied(error: OSError) -> None:
        broken.append(f"{error.filename}: cannot be read ({error.strerror})")

    paths = []
    for here, folders, files in os.walk(folder, onerror=denied):
        folders[:] = sorted(d for d in folders if d not in SKIPPED and not d.startswith("."))
        paths += [Path(here, name) for name in sorted(files) if name.endswith(".json") and not name.startswith(".")]
    return paths


def _problems(card: Scorecard) -> Iterator[str]:
    """What the types promise and a file edited by hand may break; a table must neither crash nor lie over it."""
    names = [card.checkpoint.name, card.checkpoint.digest, card.suite.name, card.suite.regime, card.suite.digest]
    names += [*card.suite.columns, *card.suite.columns.values(), *card.suite.missing, *card.provenance]
    names += [text for result in card.results for text in (result.benchmark, result.metric, result.digest)]
    if not all(isinstance(name, str) for name in names):
        yield "checkpoint, suite and benchmarks need names and digests that are text"
    if card.average is not None and not _is_score(card.average):
        yield f"the average is {card.average!r}, expected a number from 0 to 1"
    for result in card.results:
        scores = result.scores.values()
        # Millions of scores have few types and few values: a culprit is looked for only when there is one.
        good = set(map(type, scores)) <= {int, float} and all(map(_is_score, set(scores)))
        for sample, score in () if good else result.scores.items():
            if not _is_score(score):
                yield f"{result.benchmark}: the score of sample {sample!r} is {score!r}, expected a number from 0 to 1"
        for what, value in (("value", result.value), ("standard error", result.stderr)):
            if value is not None and not _is_score(value):
                yield f"{result.benchmark}: the {what} is {value!r}, expected a number from 0 to 1"
        if result.n_planned != result.n + result.n_failed:
            yield (
                f"{result.benchmark}: {result.n_planned} samples planned, but {result.n} scored and "
                f"{result.n_failed} failed"
            )


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value <= 1


def _merged(cards: Sequence[Scorecard]) -> Scorecard:
    """The newest card, completed from older ones of the same suite digest; `cards` are newest first."""
    newest = cards[0]
    same = [card for card in cards if card.suite.digest == newest.suite.digest]
    if len(same) == 1:
        return newest
    results: dict[str, Result] = {}
    columns: dict[str, str] = {}
    judges: dict[str, str] = {}  # by protocol; the newest card decides, so that no average mixes two of them
    for card in same:
        if any(judges.setdefault(*_judge(result)) != _judge(result)[1] for result in card.results if result.judge):
            continue
        columns |= {c: b for c, b in dict(card.suite.columns).items() if c not in columns}
        for result in card.results:
            held = results.get(result.benchmark)
            if held is None or result.n_planned > held.n_planned:
                results[result.benchmark] = result
    order = max((list(dict(c.suite.columns)) for c in same), key=len)
    columns = _folded({c: columns[c] for c in [*order, *(c for c in columns if c not in order)]}, newest.suite.groups)
    missing = tuple(c for c in newest.suite.missing if c not in columns)
    suite = replace(newest.suite, columns=columns, missing=missing)
    chosen = tuple(results[b] for c in columns.values() for b in newest.suite.groups.get(c, (c,)) if b in results)
    return with_average(replace(newest, suite=suite, results=chosen))


def _judge(result: Result) -> tuple[str, str]:
    """(protocol, digest) of who judged."""
    return str(result.judge.get("protocol")), str(result.judge.get("digest"))


def _folded(columns: Mapping[str, str], groups: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Cards that hold a group, and cards that hold some of its benchmarks: each column once, the group where it can."""
    spread = {b: b for name in columns.values() for b in groups.get(name, ())}
    return fold({c: b for c, b in columns.items() if b not in groups} | spread, groups)


def _ambiguous(name: str, cards: Sequence[Scorecard], fitting: Sequence[Scorecard], suite: str | None) -> str:
    listed = _listed(map(_described, fitting or cards))
    if not fitting:
        return f"{name!r} was not scored on suite {suite!r}; there are {listed}"
    return f"{name!r} stands for {len(fitting)} scorecards: {listed}; use --suite, or name the file"


def _described(card: Scorecard) -> str:
    suite, engine = card.suite, engine_of(card) or "engine unknown"
    return f"{suite.name} ({suite.regime}, {engine}, checkpoint {card.checkpoint.digest[:8]})"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
