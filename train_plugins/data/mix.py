"""Makes one training file of many sources: exact counts after doubles, filters and decontamination, bytes by the seed.

Beside NAME.jsonl lie NAME.jsonl.meta.json (what it is), NAME.card.md (the same to read), NAME.provenance.jsonl (where
each row came from, in the order of the rows) and NAME.prompts (16 bytes for each user turn, to look up later benchmarks
in). All is made in a hidden folder beside them; NAME.jsonl gets its name last.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from evalsuite.errors import UsageError
from evalsuite.trainers.files import digest_of_json, load_json, replace_json, sync_folder
from train_plugins.data.card import card
from train_plugins.data.collect import Collected, Place, collect, find
from train_plugins.data.dedup import Seen
from train_plugins.data.draw import Drawn, Share, merged, shares
from train_plugins.data.licences import joined, spelled
from train_plugins.data.mixfile import Mix, content_of, digest_of
from train_plugins.data.prompts import SUFFIX, prompt_hash, user_turns, write_prompts
from train_plugins.data.rows import Kind
from train_plugins.data.screen import Cleaned, Screen, clean, final_report
from train_plugins.data.tally import CountFn, Tally, count_words
from train_plugins.data.writing import WRITABLE, Written, read_meta, sidecar, write_dataset

MADE_BY = "evalsuite data mix"
VERSION = 1  # of what a mix does: files made by another version are made again
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files of a finished mix. Raises UsageError for a name that cannot be written, before anything is read."""

    data: Path

    def __post_init__(self) -> None:
        if not self.stem:
            raise UsageError(f"{self.data}: its name ends in none of {', '.join(WRITABLE)}")

    @property
    def stem(self) -> str:
        return next((self.data.name.removesuffix(end) for end in WRITABLE if self.data.name.endswith(end)), "")

    @property
    def card(self) -> Path:
        return self.data.with_name(f"{self.stem}.card.md")

    @property
    def provenance(self) -> Path:
        return self.data.with_name(f"{self.stem}.provenance.jsonl")

    @property
    def prompts(self) -> Path:
        return self.data.with_name(f"{self.stem}{SUFFIX}")

    @property
    def work(self) -> Path:
        return self.data.with_name(f".{self.data.name}.mix")


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything before counts are drawn."""

    kind: Kind
    collected: Mapping[str, Collected]
    cleaned: Mapping[str, Cleaned]


def run_mix(
    mix: Mix,
    out: Path,
    screen: Screen,
    roots: Sequence[Path] = (),
    *,
    processes: int = 1,
    count: CountFn = count_words,
    unit: str = "words",
    fresh: bool = False,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Makes `out` and what lies beside it, and returns its sidecar; the same mix of the same files again is kept.

    A killed run goes on from its last finished step. Raises DataError for missing sources, rows that cannot be used,
    too few rows and data that is not clean, UsageError where another process makes the same file.
    """
    outputs = Outputs(out)
    places = find(mix, roots)
    key = digest_of_json({"mix": content_of(mix), "unit": unit, "version": VERSION,
                          "sources": {name: place.digest for name, place in places.items()}})  # fmt: skip
    if not fresh and _is_done(outputs, key):
        say(f"{out}: made already of the same sources by the same mix")
        return read_meta(out)
    _refuse(outputs, places)
    with _work(outputs, key, fresh) as work:
        ready = _candidates(mix, places, screen, work, processes, say)
        parts = shares(mix, ready.collected, ready.cleaned)
        _tell(parts, ready, say)
        tally = Tally({source.name: source for source in mix.sources}, count)
        meta = _meta(mix, key, places, ready, parts, unit)
        staged = Outputs(work / "out" / out.name)
        written = _write(mix, staged, places, ready, parts, tally, meta)
        meta["report"] = tally.report()
        if mix.decontam.against:
            say(f"{out.name}: scanning the finished file")
            meta["decontamination"] = [final_report(staged.data, written.digest, ready.kind, screen)]
        _finish(staged, written, meta)
        _publish(staged, outputs)
        shutil.rmtree(work)
    return read_meta(out)


def _is_done(outputs: Outputs, key: str) -> bool:
    import hashlib

    if not (outputs.data.is_file() and sidecar(outputs.data).is_file()):
        return False
    meta = read_meta(outputs.data)
    others = (outputs.card, outputs.provenance, outputs.prompts)
    if meta.get("key") != key or not all(path.is_file() for path in others):
        return False
    with outputs.data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == meta.get("digest")


def _refuse(outputs: Outputs, places: Mapping[str, Place]) -> None:
    """Raises UsageError where a file would be lost: one of the sources, or one that no mix has made."""
    data = outputs.data
    if not data.exists():
        return
    if any(data.samefile(path) for place in places.values() for path in place.files):
        raise UsageError(f"{data} is one of the sources; name another file with -o")
    made = read_meta(data).get("made")
    if not (isinstance(made, dict) and made.get("by") == MADE_BY):
        raise UsageError(f"{data} is there and no mix has made it; name another file with -o, or remove it")


@contextmanager
def _work(outputs: Outputs, key: str, fresh: bool) -> Iterator[Path]:
    """The folder of what is half done, ours alone; emptied where it belongs to another mix or other sources."""
    outputs.data.parent.mkdir(parents=True, exist_ok=True)
    lock = outputs.work.with_name(f"{outputs.work.name}.lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino != lock.stat().st_ino:  # its maker has just finished
                raise OSError(lock)
        except OSError as error:
            raise UsageError(f"{outputs.data}: another process is making it") from error
        if fresh or (load_json(outputs.work / "key.json") or {}).get("key") != key:
            shutil.rmtree(outputs.work, ignore_errors=True)
            outputs.work.mkdir()
            replace_json(outputs.work / "key.json", {"key": key})
        try:
            yield outputs.work
        finally:
            lock.unlink(missing_ok=True)


def _candidates(mix: Mix, places: Mapping[str, Place], screen: Screen, work: Path, processes: int, say: Say) -> Ready:
    """Collects each source, then cleans all of them at once; steps that were finished before are not done again."""
    files = {source.name: work / "candidates" / f"{source.name}.jsonl" for source in mix.sources}
    done = load_json(work / "collected.json")
    if done is None:
        done = _collect_all(mix, places, files, processes, say)
        replace_json(work / "collected.json", done)
    kind: Kind = done["kind"]
    collected = {name: Collected(each["n_in"], each["dropped"], each["n_left"]) for name, each in done["of"].items()}
    if not mix.decontam.against:
        return Ready(kind, collected, {name: Cleaned(path) for name, path in files.items()})
    say(f"looking for texts of {', '.join(screen.names)} in {sum(c.n_left for c in collected.values()):,} candidates")
    return Ready(kind, collected, clean(files, kind, screen, work))


def _collect_all(
    mix: Mix, places: Mapping[str, Place], files: Mapping[str, Path], processes: int, say: Say
) -> dict[str, Any]:
    seen = Seen(mix.dedup, mix.near)
    kind: Kind | None = None
    found: dict[str, Any] = {}
    for source in mix.sources:
        files[source.name].parent.mkdir(exist_ok=True)
        got, kind = collect(mix, source, places[source.name], seen, kind, files[source.name], processes)
        found[source.name] = {"n_in": got.n_in, "dropped": dict(got.dropped), "n_left": got.n_left}
        say(f"{source.name}: {got.n_in:,} rows, {got.n_left:,} left")
    return {"kind": kind, "of": found}


def _tell(parts: Sequence[Share], ready: Ready, say: Say) -> None:
    for share in parts:
        name = share.source.name
        if share.source.fraction is not None:
            say(f"{name}: {share.source.fraction:g} of {share.n_left:,} rows are {share.taken:,}")
        if share.passes > 1:
            say(f"{name}: {share.n_left:,} rows taken {share.taken / share.n_left:.2f} times")
        if share.wanted is not None and share.taken < share.wanted:
            say(f"warning: {name}: {share.wanted:,} wanted, {share.taken:,} taken (short: allowed)")


def _write(
    mix: Mix, outputs: Outputs, places: Mapping[str, Place], ready: Ready, parts: Sequence[Share], tally: Tally,
    meta: Mapping[str, Any],
) -> Written:  # fmt: skip
    """Writes the rows, and beside them provenance and prompts, in one pass."""
    hashes: set[bytes] = set()
    about = {share.source.name: _about(mix, share, places, ready) for share in parts}
    outputs.data.parent.mkdir(exist_ok=True)
    with outputs.provenance.open("w", encoding="utf-8") as file:

        def rows() -> Iterator[dict[str, Any]]:
            for drawn in merged(mix, parts):
                tally.add(drawn.source, drawn.row)
                hashes.update(prompt_hash(text) for text in user_turns(drawn.row))
                _note(file, drawn, about[drawn.source])
                yield drawn.row

        written = write_dataset(outputs.data, rows(), meta)
        file.flush()
        os.fsync(file.fileno())
    write_prompts(outputs.prompts, hashes)
    return written


def _note(file: TextIO, drawn: Drawn, about: Mapping[str, Any]) -> None:
    copy = {"pass": drawn.copy + 1} if drawn.copy else {}
    line = {"id": drawn.row["id"], "source": drawn.source, "row_id": drawn.row_id, **copy, **about}
    file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def _about(mix: Mix, share: Share, places: Mapping[str, Place], ready: Ready) -> dict[str, Any]:
    """What the rows of a source share; a source that no revision is named of has the digest of its files."""
    source = share.source
    changed = ready.cleaned[source.name].n_changed
    steps = [f"convert:{source.format}"] if source.format else []
    steps += [f"decontam:{mix.decontam.how}"] if changed else []
    revision = source.revision or f"sha256:{places[source.name].digest}"
    return {"origin": source.origin, "revision": revision, "licence": spelled(source.licence), "transformations": steps}


def _meta(
    mix: Mix, key: str, places: Mapping[str, Place], ready: Ready, parts: Sequence[Share], unit: str
) -> dict[str, Any]:
    """The sidecar, as far as it is known before the rows are written."""
    waived = {"decontamination_waived": mix.decontam.waive} if mix.decontam.waive else {}
    return {
        "name": mix.name,
        "kind": ready.kind,
        "about": mix.about,
        "licence": joined(share.source.licence for share in parts if share.taken),
        "origin": ", ".join(sorted({share.source.origin for share in parts if share.taken})),
        "made_by": ", ".join(sorted({share.source.made_by for share in parts if share.taken})),
        "skills": sorted({skill for share in parts if share.taken for skill in share.source.skills}),
        "made": {"by": MADE_BY, "mix": digest_of(mix), "seed": mix.seed, "version": VERSION,
                 "dedup": mix.dedup},
        "key": key,
        "unit": unit,
        "sources": [_of_source(share, places, ready) for share in parts],
        "decontamination": [],
        **waived,
    }  # fmt: skip


def _of_source(share: Share, places: Mapping[str, Place], ready: Ready) -> dict[str, Any]:
    """A line of the manifest: rows in = rows left + dropped, and rows left = taken + not drawn without upsampling."""
    source = share.source
    had, cleaned = ready.collected[source.name], ready.cleaned[source.name]
    dropped = {reason: n for reason, n in had.dropped.items() if n}
    if cleaned.n_dropped:
        dropped["decontamination"] = cleaned.n_dropped
    return {
        "name": source.name, "origin": source.origin, "licence": spelled(source.licence), "made_by": source.made_by,
        "skills": list(source.skills), "revision": source.revision, "digest": places[source.name].digest,
        "format": source.format, "rows_in": had.n_in, "dropped": dropped, "left": share.n_left,
        "wanted": share.wanted, "rows_out": share.taken, "passes": share.passes,
        "changed": cleaned.n_changed, "eval_hits": dict(cleaned.hits), "note": source.note,
    }  # fmt: skip


def _finish(outputs: Outputs, written: Written, meta: Mapping[str, Any]) -> None:
    """The sidecar with all that is known now, and the card that is made of it."""
    replace_json(sidecar(outputs.data), {"schema": 1, "digest": written.digest, "rows": written.n_rows, **meta})
    outputs.card.write_text(card(read_meta(outputs.data), outputs.data.name), encoding="utf-8")


def _publish(staged: Outputs, outputs: Outputs) -> None:
    """Gives all files their names, the data last: who finds it finds all of it, and nothing of an earlier mix."""
    outputs.data.unlink(missing_ok=True)
    for source, target in (
        (staged.prompts, outputs.prompts),
        (staged.provenance, outputs.provenance),
        (staged.card, outputs.card),
        (sidecar(staged.data), sidecar(outputs.data)),
        (staged.data, outputs.data),
    ):
        os.replace(source, target)
    sync_folder(outputs.data.parent)
