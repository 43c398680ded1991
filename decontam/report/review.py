"""Matches one by one in a terminal: both sides with their runs marked, and a key for each decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from decontam.report.decisions import Decision, append_decision, read_decisions
from decontam.report.facts import Texts
from decontam.report.listing import Ahead
from decontam.report.match import Key, Match
from decontam.report.passages import Instances, Passage, Piece, sides, visible, visible_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

SIDE_BY_SIDE = 100  # columns from which both texts fit beside each other
MARKED = "black on yellow"
RAISED = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹˒")
KEYS = "n next   p previous   a accept (it is real)   r reject (chance)   w why   q quit"
ACTIONS = {"\r": "n", "\n": "n", " ": "n", "\x1b[C": "n", "\x1b[B": "n", "\x1b[D": "p", "\x1b[A": "p"}
STOPS = ("q", "\x03", "\x04", "\x1b", "")


@dataclass
class Session:
    """Where a reviewer is. Decisions are kept in `out` as they are made, so that any stop loses nothing."""

    out: Path
    matches: Sequence[Match]
    instances: Instances
    ahead: Ahead
    decided: dict[Key, Decision]
    about: str = ""  # what the rule is
    at: int = 0
    why: bool = False
    opened: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def begin(cls, out: Path, matches: Sequence[Match], instances: Instances, texts: Texts, about: str = "") -> Session:
        """At the first match without a decision."""
        decided = read_decisions(out)
        session = cls(out, matches, instances, Ahead(matches, texts), decided, about)
        session.counts = {"accept": 0, "reject": 0}
        first: int | None = None if decided else 0
        for i, match in enumerate(matches) if decided else ():
            if match.key in decided:
                session.counts[decided[match.key]] += 1
            elif first is None:
                first = i
        session.at = first or 0
        return session

    def press(self, key: str) -> bool:
        """Does what a key says; False when the reviewer is done."""
        key = ACTIONS.get(key, key.lower())
        if key in STOPS:
            return False
        if key == "n":
            self._go(self.at + 1)
        elif key == "p":
            self._go(self.at - 1)
        elif key == "w":
            self.why = not self.why
        elif key == "o":
            self.opened = not self.opened
        elif key == "a":
            self._decide("accept")
        elif key == "r":
            self._decide("reject")
        return True

    def _go(self, at: int) -> None:
        if 0 <= at < len(self.matches):
            self.at, self.opened = at, False

    def _decide(self, decision: Decision) -> None:
        match = self.matches[self.at]
        before = self.decided.get(match.key)
        if before != decision:
            append_decision(self.out, match, decision)
            self.decided[match.key] = decision
            self.counts[decision] += 1
            if before is not None:
                self.counts[before] -= 1
        self._go(self.at + 1)

    def screen(self, width: int) -> Iterator[RenderableType]:
        """What is shown now, from top to bottom."""
        from rich.text import Text

        match = self.matches[self.at]
        left = len(self.matches) - sum(self.counts.values())
        place = f"{self.at + 1:,} of {len(self.matches):,}"
        yield Text(
            f"{place}   {self.counts['accept']:,} accepted, {self.counts['reject']:,} rejected, {left:,} left",
            "dim",
        )
        yield from shown(match, self.both(self.at), self.decided.get(match.key), width, opened=self.opened)
        if self.why:
            yield from (Text(line) for line in reasons(match, self.instances, self.about))
            yield Text("")
        yield Text(KEYS + ("   o open" if match.kind == "safety" else ""), "dim")

    def both(self, at: int) -> tuple[list[Passage], list[Passage]]:
        """The two sides of the match at this place."""
        return sides(self.matches[at], self.ahead.message(at), self.instances)


def run(session: Session, console: Console, read_key: Callable[[], str]) -> None:
    """Shows and asks until the reviewer quits."""
    if not session.matches:
        console.print("no matches to review", markup=False)
        return
    while True:
        console.clear()
        for each in session.screen(console.width):
            console.print(each)
        try:
            if not session.press(read_key()):
                return
        except (EOFError, KeyboardInterrupt):
            return


def printed(session: Session, *, opened: bool = False) -> Iterator[str]:
    """All matches as plain text; runs stand in double brackets that begin with their number."""
    for at, match in enumerate(session.matches):
        yield f"{_title(match)}{_mark(session.decided.get(match.key))}\n"
        yield f"  {_scores(match)}\n"
        if match.kind == "safety" and not opened:
            yield "  (text of a safety eval, not shown: --open)\n\n"
            continue
        for side, passages in zip(("training", match.eval), session.both(at), strict=True):
            for passage in passages:
                name = f"{side}, {passage.title}" if passage.title else side
                text = "".join(map(_bracketed, passage.pieces)).replace("\n", "\n    ")
                yield f"  {visible(name)}:\n    {text}\n"
        yield "\n"


# -- one match --


def shown(
    match: Match,
    both: tuple[list[Passage], list[Passage]],
    decision: Decision | None,
    width: int,
    *,
    opened: bool,
) -> Iterator[RenderableType]:
    """A match for a terminal of that width. Nothing is read as markup, and no control character gets through."""
    from rich.table import Table
    from rich.text import Text

    yield Text(_title(match) + _mark(decision), "bold")
    yield Text(_scores(match))
    yield Text("")
    if match.kind == "safety" and not opened:
        yield Text("text of a safety eval, may be offensive: press o to read it", "italic")
        yield Text("")
        return
    texts = [_side(name, passages) for name, passages in zip(("training text", match.eval), both, strict=True)]
    if width < SIDE_BY_SIDE:
        for text in texts:
            yield text
            yield Text("")
        return
    grid = Table.grid(padding=(0, 3), expand=True)
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(*texts)
    yield grid
    yield Text("")


def reasons(match: Match, instances: Instances, about: str) -> Iterator[str]:
    """Why it was flagged: what is covered in each field, what the cap leaves, and every run on both sides."""
    names, texts = instances.get((match.eval, match.instance), ((), ()))
    yield visible(f"{match.rule}: {about}" if about else match.rule)
    for name, (covered, n), (kept, uncommon) in zip(names, match.covered, match.capped, strict=False):
        told = f"{name}: {covered} of {n} positions are in matching windows; {kept} of {uncommon} without common ones"
        yield visible(told)
    if match.covered:
        yield f"{100 * match.common_share:.0f} % of what is covered is in common windows"
    if match.boilerplate:
        yield "the cap acquits it: what is common to many instances makes the match"
    for i, run in enumerate(match.runs, 1):
        text = (
            dict(zip(names, texts, strict=True)).get(run.field) or ""
            if run.field
            else "\n".join(t or "" for t in texts)
        )
        start, stop = run.eval
        what = visible(
            text[start:stop] if stop - start <= 60 else f"{text[start : start + 45]} … {text[stop - 12 : stop]}"
        )
        spans = f"training {run.train[0]}–{run.train[1]}, {run.field or 'eval'} {start}–{stop}"
        size = f", {run.k} positions" if run.k else ""
        yield visible(f"  {i}  {spans}{size}: ") + (what if match.kind != "safety" else "(not shown)")


def _title(match: Match) -> str:
    told = [f"{match.eval}, {match.instance}", f"{match.dataset}, {match.file} row {match.row:,}"]
    told += [f"id {match.id}"] if match.id is not None else []
    told += [f"turn {match.turn}"] if match.turn else []
    told += ["completion"] if match.where == "completion" else []
    return visible(" · ".join(told))


def _scores(match: Match) -> str:
    if "near" in match.flags:
        return f"near-duplicate, {match.score:.1f} of 100"
    if "short" in match.flags:
        return "the whole text of an instance that is too short for the rule"
    verdict = "boilerplate: the cap acquits it" if match.boilerplate else "stays with the cap"
    return f"score {match.score:.3f}, without common phrases {match.capped_score:.3f} ({verdict})"


def _mark(decision: Decision | None) -> str:
    return {None: "", "accept": "  [accepted]", "reject": "  [rejected]"}[decision]


def _side(name: str, passages: Sequence[Passage]) -> Text:
    from rich.text import Text

    text = Text()
    for i, passage in enumerate(passages):
        title = f"{name}, {passage.title}" if passage.title else name
        text.append(("\n\n" if i else "") + visible(title) + "\n", "dim")
        for piece in passage.pieces:
            if piece.runs:
                text.append(",".join(map(str, piece.runs)).translate(RAISED), "dim")
            text.append(visible_lines(piece.text), MARKED if piece.runs else None)
            text.append(_cut(piece), "dim italic")
    return text


def _bracketed(piece: Piece) -> str:
    text = visible_lines(piece.text)
    return (f"[[{','.join(map(str, piece.runs))}: {text}]]" if piece.runs else text) + _cut(piece)


def _cut(piece: Piece) -> str:
    return f" … {piece.cut:,} characters … " if piece.cut else ""
