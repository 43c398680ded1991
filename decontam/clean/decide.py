"""Decides what becomes of a row that a scan found something in: the four ways to clean, and the recipe of GPT-3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

from decontam.clean.change import Change, Path, Tag, changed, tags_of, tree
from decontam.clean.spans import MASK, Span, cut, hidden, is_empty, merge, widened
from decontam.errors import BrokenRow, DecontamError
from decontam.row import id_of

if TYPE_CHECKING:
    from decontam.select import Selection

How = Literal["drop-row", "drop-turn", "mask-span", "tag", "gpt3"]
HOWS: tuple[How, ...] = ("drop-row", "drop-turn", "mask-span", "tag", "gpt3")
USERS = frozenset({"user", "human", "prompter"})
SYSTEMS = frozenset({"system", "developer"})
MOST_ROUNDS = 16  # of masking what a message still holds, before its row goes


@dataclass(frozen=True, slots=True)
class Hit:
    """One eval instance found in one message of a row. `spans` are characters of the message, `score` is 0..1, and
    `by` says what found it: exact, short or near."""

    turn: int
    eval: str
    instance: str
    score: float
    spans: tuple[Span, ...]
    id: str | None = None  # of the row
    by: frozenset[str] = frozenset({"exact"})


@dataclass(frozen=True, slots=True)
class Way:
    """How rows are cleaned. A message with more than `most_cuts` places to cut takes its row with it (0: no limit)."""

    how: How = "drop-row"
    window: int = 0
    min_slice: int = 20
    most_cuts: int = 0


StillHeld = Callable[[str, Sequence[Hit]], Sequence[Span]]  # where a masked message still holds those instances


def way_of(how: How, window: int | None = None, min_slice: int | None = None) -> Way:
    """The way of that name. The defaults of mask-span are ours.

    `gpt3` cuts 200 characters on both sides, drops slices of up to 200, and the row at the eleventh place to cut
    (GPT-3, arXiv 2005.14165, appendix C). Published code counts every n-gram, here those that overlap count once.
    """
    default = Way(how, 200, 201, 10) if how == "gpt3" else Way(how)
    return Way(
        how,
        default.window if window is None else window,
        default.min_slice if min_slice is None else min_slice,
        default.most_cuts,
    )


def decide(row: dict[str, Any], hits: Sequence[Hit], select: Selection, way: Way, still_held: StillHeld) -> Change:
    """What becomes of the row; raises DecontamError when it is not the row that was scanned."""
    texts = _texts(row, hits, select)
    if way.how == "drop-row":
        return Change(drop="row")
    if way.how == "tag":
        return Change(tags=tags_of(Tag(hit.eval, hit.instance, hit.score) for hit in hits))
    if way.how == "drop-turn":
        return _without(row, sorted(texts), select, {})
    return _masked(row, hits, texts, select, way, still_held)


def _texts(row: Mapping[str, Any], hits: Sequence[Hit], select: Selection) -> dict[int, str]:
    """The text of each message that was hit, by turn."""
    told = id_of(row.get("id"))
    try:
        texts = {message.turn: message.text for message in select.messages(row)}
    except BrokenRow as error:
        raise DecontamError(f"not the row that was scanned ({error}); scan the data again") from error
    for hit in hits:
        if hit.turn not in texts or hit.id != told:
            raise DecontamError(f"not the row that was scanned (id {told!r}, expected {hit.id!r}); scan the data again")
        if any(not 0 <= start <= stop <= len(texts[hit.turn]) for start, stop in hit.spans):
            raise DecontamError(f"turn {hit.turn} is shorter than the text that was scanned; scan the data again")
    return {hit.turn: texts[hit.turn] for hit in hits}


def _masked(
    row: Mapping[str, Any],
    hits: Sequence[Hit],
    texts: Mapping[int, str],
    select: Selection,
    way: Way,
    still_held: StillHeld,
) -> Change:
    """Masks message by message; one of which nothing is left goes the way of drop-turn."""
    written: dict[Path, str] = {}
    empty: list[int] = []
    for turn, text in sorted(texts.items()):
        runs = _runs(text, [hit for hit in hits if hit.turn == turn], way, still_held)
        if way.most_cuts and len(runs) > way.most_cuts:
            return Change(drop=f"more than {way.most_cuts} places to cut")
        cuts = widened(runs, len(text), way.window, way.min_slice)
        if is_empty(text, cuts):
            empty.append(turn)
        for part in select.locate(row, turn):
            inside = _inside(cuts, part.start, part.stop)
            if inside:
                written[part.path] = cut(text[part.start : part.stop], inside, MASK)
    return _without(row, empty, select, written) if empty else Change(texts=written)


def _runs(text: str, hits: Sequence[Hit], way: Way, still_held: StillHeld) -> list[Span]:
    """All that evals hold of a message. A scan places each window where it first occurs, so a text that stands in a
    message twice shows its second self only when the first is masked."""
    runs = merge(span for hit in hits for span in hit.spans)
    for _ in range(MOST_ROUNDS):
        cuts = widened(runs, len(text), way.window, way.min_slice)
        left = [] if is_empty(text, cuts) else still_held(hidden(text, cuts), hits)
        if not left:
            return runs
        runs = merge([*runs, *left])
    return [(0, len(text))]


def _inside(cuts: Sequence[Span], start: int, stop: int) -> list[Span]:
    """The cuts within characters start..stop-1, counted from `start`."""
    return [(max(a, start) - start, min(b, stop) - start) for a, b in cuts if a < stop and b > start]


def _without(row: Mapping[str, Any], turns: Sequence[int], select: Selection, texts: Mapping[Path, str]) -> Change:
    """Takes the exchanges of those turns out of the row's conversation. The row goes where there is no such thing: a
    plain field, a text before the first user turn, several conversations that belong together, no user turn left; and
    where a selector such as "the first user turn" would then pick a text that no scan has seen."""
    removed: dict[Path, set[int]] = {}
    for turn in turns:
        parts = select.locate(row, turn)
        place = _place(row, parts[0].path) if parts else None
        if place is None:
            return Change(drop="not in a conversation")
        path, index = place
        exchange = next((e for e in _exchanges(_value(row, path)) if index in e), None)
        if exchange is None:
            return Change(drop="before the first user turn")
        if _others(row, path):
            return Change(drop="one of several conversations")
        removed.setdefault(path, set()).update(exchange)
    for path, gone in removed.items():
        if not any(i not in gone and _role(m) in USERS for i, m in enumerate(_value(row, path))):
            return Change(drop="no user turn left")
    kept = {p: t for p, t in texts.items() if not any(_is_below(p, path, gone) for path, gone in removed.items())}
    change = Change(texts=kept, removed={path: frozenset(gone) for path, gone in removed.items()})
    seen = {message.text for message in select.messages(changed(row, tree(Change(texts=texts))))}
    if not seen.issuperset(message.text for message in select.messages(changed(row, tree(change)))):
        return Change(drop="another turn would be matched")
    return change


def _place(row: Mapping[str, Any], path: Path) -> tuple[Path, int] | None:
    """The path of the conversation that `path` leads into, and the position of the message in it."""
    for depth, key in enumerate(path):
        if isinstance(key, int) and _is_conversation(_value(row, path[:depth])):
            return path[:depth], key
    return None


def _exchanges(conversation: Sequence[Mapping[str, Any]]) -> list[range]:
    """Each user turn, or several in a row, with what answers it: all up to the next user or system turn."""
    roles = [_role(message) for message in conversation]
    exchanges: list[range] = []
    start: int | None = None
    for i, role in enumerate([*roles, "system"]):
        begins = role in USERS and (i == 0 or roles[i - 1] not in USERS)
        if start is not None and (begins or role in SYSTEMS):
            exchanges.append(range(start, i))
            start = None
        if begins:
            start = i
    return exchanges


def _others(row: Mapping[str, Any], path: Path) -> bool:
    """Whether the row holds conversations beside the one at `path`, such as `rejected` beside `chosen`."""
    beside = _value(row, path[:-1])
    return isinstance(beside, Mapping) and any(k != path[-1] and _is_conversation(v) for k, v in beside.items())


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, Mapping) and _role(m) for m in value)


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role", message.get("from"))
    return role if isinstance(role, str) else ""


def _is_below(path: Path, conversation: Path, gone: set[int]) -> bool:
    depth = len(conversation)
    return path[:depth] == conversation and len(path) > depth and path[depth] in gone


def _value(row: Any, path: Path) -> Any:
    return reduce(lambda value, key: value[key], path, row)
