"""Runs a job: plans it, does what is not done, and writes the reports when nothing is missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from decontam.errors import DecontamError
from decontam.job.folder import begun, clear, held, refuse_foreign, refuse_unwritable
from decontam.job.local import Runner
from decontam.job.plan import Job, Plan, begin, compare, make_plan
from decontam.job.progress import Observer
from decontam.job.reduce import Finished, Unfit, first_broken, reduce
from decontam.job.work import Done, Failed, Piece, Source, shard_done, source_digest

TICK_S = 1.0  # between two looks at files that are read as one piece


class Incomplete(DecontamError):
    """Not everything could be read; nothing is wrong with the command."""

    exit_code = 3


def run(
    job: Job, out: Path, runner: Runner, observer: Observer, *, strict: bool = False, fresh: bool = False
) -> Finished:
    """Scans what is not scanned yet and writes the reports.

    Raises DecontamError when the folder is of another job or in use, when the selectors fit no row, with `strict` at
    the first broken row; Incomplete when a file changed or could not be read. A run that is killed or raises leaves
    whole files only, and the same call goes on from there.
    """
    plan = make_plan(job)
    refuse_foreign(out)
    with held(out):
        begin(plan, out, fresh)
        failed = _do_pieces(plan, out, runner, observer, strict)
        if strict and (broken := first_broken(plan, out)):
            raise DecontamError(f"{broken}; mend it, or scan without --strict to count such rows")
        if failed:
            raise Incomplete(_told(failed))
        try:
            return reduce(plan, out, observer.say)
        except Unfit:
            clear(out)  # else the folder would be refused to the same command with better selectors
            raise


def refuse_out(job: Job, out: Path, *, fresh: bool = False) -> None:
    """Raises DecontamError when the job could not be run into this folder: of another job or in use, no folder of ours,
    or not to be written. The job's index need not be built yet."""
    refuse_unwritable(out)
    if begun(out):
        with held(out):
            if not fresh:
                compare(make_plan(job), out)


def _do_pieces(plan: Plan, out: Path, runner: Runner, observer: Observer, strict: bool) -> list[Failed]:
    """Does the pieces that are not done. With `strict` it stops after the first shard that has a broken row."""
    on_disk = plan.on_disk()
    before = {shard.number: done for shard in plan.shards if (done := shard_done(out, shard)) is not None}
    observer.planned(sum(on_disk.values()), len(plan.shards), len(before), sum(on_disk[number] for number in before))
    broken = [done for done in before.values() if done.counts.n_broken]
    failed: list[Failed] = []

    def stop() -> bool:
        return strict and bool(broken)

    with _ticking(observer):
        for outcome in runner(plan.task(out), _pieces(plan, out, before), stop):
            if isinstance(outcome, Failed):
                failed.append(outcome)
            elif not isinstance(outcome.piece, Source):
                if outcome.counts.n_broken:
                    broken.append(outcome)
                observer.scanned(outcome, on_disk[outcome.piece.number])
    return failed


@contextmanager
def _ticking(observer: Observer) -> Iterator[None]:
    """Meanwhile the observer is told now and then how far the compressed files are that this process reads."""
    from decontam.inputs.meter import bytes_under_way

    over = threading.Event()

    def tick() -> None:
        while not over.wait(TICK_S):
            observer.reading(bytes_under_way())

    ticker = threading.Thread(target=tick, name="decontam-ticker", daemon=True)
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()


def _pieces(plan: Plan, out: Path, done: dict[int, Done]) -> Sequence[Piece]:
    """What is left to do, in order; each file is digested next to its scan, while the system still has it in memory."""
    pieces: list[Piece] = []
    for source in plan.sources:
        pieces += [source] if source_digest(out, source) is None else []
        pieces += [s for s in plan.shards if source.holds(s) and s.number not in done]
    return pieces


def _told(failed: Sequence[Failed]) -> str:
    """One line on the files that failed, each once."""
    why: dict[str, str] = {}
    for each in failed:
        why.setdefault(each.piece.file, each.why)
    told_files = "; ".join(f"{file} {reason}" for file, reason in sorted(why.items()))
    return f"{told_files}; no reports were written (scan again with --fresh when the data is at rest)"
