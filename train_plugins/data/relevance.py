"""Whether answers belong to their prompts: every row's answer is ranked against those of other rows.

Data whose answers were shifted by one row looks well when read row by row and teaches nothing. An answer repeats words
of its prompt; so the idf-weighted overlap of their character 4-grams is higher than with 20 answers of other rows in
most rows of sound data. Whether that is still so one or two rows further down tells a shift.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from evalsuite.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_RELEVANCE = 0.65
OTHERS = 20
OFFSETS = (-2, -1, 0, 1, 2)
SURE = 4.0  # standard errors by which an offset must rank higher: unrelated texts would reach 3 now and then
LEAST_ROWS = 8  # below, four offsets tell nothing
LEAST_SD = 0.25  # few rows may all agree by chance; their spread is not believed below this
LONGEST = 8000  # characters of a text that are looked at
BUCKETS = 1 << 16
GROUP = 64  # rows ranked against the same other answers

Finding = Literal["aligned", "shifted", "weak", "too_few"]


@dataclass(frozen=True, slots=True)
class Relevance:
    """Mean ranks (0 to 1; a half is chance) of the answers that stand `offset` rows after a prompt.

    `shift` is the offset that ranks higher than 0, beyond doubt; None where there is none.
    """

    n_rows: int
    ranks: Mapping[int, float]
    shift: int | None
    min_relevance: float = MIN_RELEVANCE

    @property
    def rank(self) -> float | None:
        """The mean rank of the rows' own answers; None for too few rows."""
        return self.ranks.get(0)

    @property
    def finding(self) -> Finding:
        if self.rank is None:
            return "too_few"
        if self.shift is not None:
            return "shifted"
        return "weak" if self.rank < self.min_relevance else "aligned"

    def sentence(self) -> str:
        """What was found, for a person."""
        if self.rank is None:
            return f"relevance: {self.n_rows} rows are too few to tell (at least {LEAST_ROWS})"
        rank = f"mean rank {self.rank:.2f} of {self.n_rows} rows"
        if self.shift is not None:
            return (
                f"the answers are shifted against their prompts: those at offset {self.shift:+d} rows fit better "
                f"(mean rank {self.ranks[self.shift]:.2f}) than the rows' own ({self.rank:.2f}); "
                "join the answers to their prompts again, by id"
            )
        if self.finding == "weak":
            return f"the answers hardly fit their prompts: {rank}, below {self.min_relevance:g}; look at a few rows"
        return f"relevance: {rank} (a half is chance)"

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.n_rows,
            "mean_rank": self.rank,
            "by_offset": {f"{offset:+d}" if offset else "0": rank for offset, rank in self.ranks.items()},
            "shift": self.shift,
            "min_relevance": self.min_relevance,
            "finding": self.finding,
        }


def require_aligned(found: Relevance, where: str) -> None:
    """Raises DataError when the answers are shifted."""
    if found.shift is not None:
        raise DataError(f"{where}: {found.sentence()}")


def measure(
    pairs: Iterable[tuple[str, str]], *, min_relevance: float = MIN_RELEVANCE, seed: int = 0, others: int = OTHERS
) -> Relevance:
    """Ranks of (prompt, answer) in the order of the rows: 0.1–0.3 CPU-seconds for 1,000 rows.

    The overlap of an answer is the summed idf of the 4-grams it shares with the prompt, divided by the square root of
    the summed idf of all its own: a long answer shares more with any prompt.
    """
    import numpy as np

    prompts, answers = _hashed(pairs)
    n = len(prompts)
    if n < LEAST_ROWS:
        return Relevance(n, {}, None, min_relevance)
    table = _Answers(answers)
    rng = np.random.default_rng(seed)
    ranks = np.full((n, len(OFFSETS)), np.nan)
    size = max(1, min(GROUP, n - 2 * max(OFFSETS) - others))
    for start in range(0, n, size):
        group = range(start, min(start + size, n))
        _rank_group(table, prompts, group, _panel(rng, n, group, others), ranks)
    means = {offset: float(mean) for offset, mean in zip(OFFSETS, np.nanmean(ranks, axis=0), strict=True)}
    return Relevance(n, means, _shift(ranks), min_relevance)


def texts_of(messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(last user turn, answer to it) of a conversation that ends with the assistant; nothing of another."""
    user = next((each["content"] for each in reversed(messages) if each["role"] == "user"), None)
    if user is not None and messages[-1]["role"] == "assistant":
        yield user, messages[-1]["content"]


# -- arithmetic --


class _Answers:
    """The distinct 4-grams of all answers in one row, and what each gram is worth."""

    def __init__(self, grams: Sequence[NDArray[np.uint16]]) -> None:
        import numpy as np

        self.starts = np.zeros(len(grams) + 1, dtype=np.intp)
        np.cumsum([len(g) for g in grams], out=self.starts[1:])
        self.grams = np.concatenate(grams)
        in_rows = np.bincount(self.grams, minlength=BUCKETS)
        # A little above zero even where every answer has the gram: an empty overlap must stay below a common one.
        self.idf = (np.log((len(grams) + 1) / (in_rows + 1)) + 1e-3).astype(np.float32)
        self.scale = 1 / np.sqrt(np.add.reduceat(self.idf[self.grams], self.starts[:-1]))
        self.marked = np.zeros(BUCKETS, dtype=np.float32)

    def overlaps(self, grams: NDArray[np.intp], starts: NDArray[np.intp], rows: Any) -> NDArray[np.float32]:
        """Overlaps with the prompt that is marked of answers that lie one after another in `grams`."""
        import numpy as np

        found: NDArray[np.float32] = np.add.reduceat(self.marked[grams], starts) * self.scale[rows]
        return found

    def together(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(grams, starts) of some answers, one after another."""
        import numpy as np

        pieces = [self.grams[self.starts[i] : self.starts[i + 1]] for i in rows]
        starts = np.cumsum([0, *map(len, pieces)])[:-1]
        return np.concatenate(pieces).astype(np.intp), starts


def _rank_group(
    table: _Answers,
    prompts: Sequence[NDArray[np.uint16]],
    group: range,
    panel: NDArray[np.intp],
    ranks: NDArray[np.float64],
) -> None:
    """Fills the rows of `ranks`: the share of the panel's answers that overlap less, ties counting half."""
    import numpy as np

    n, reach = len(prompts), max(OFFSETS)
    panel_grams, panel_starts = table.together(panel)
    for i in group:
        prompt = prompts[i]
        table.marked[prompt] = table.idf[prompt]
        low, high = max(0, i - reach), min(n, i + reach + 1)
        begin = table.starts[low]
        near_grams = table.grams[begin : table.starts[high]].astype(np.intp)
        near = table.overlaps(near_grams, table.starts[low:high] - begin, slice(low, high))
        others = table.overlaps(panel_grams, panel_starts, panel)
        below = np.count_nonzero(others < near[:, None], axis=1) + np.count_nonzero(others <= near[:, None], axis=1)
        ranks[i, low - i + reach : high - i + reach] = below / (2 * len(panel))
        table.marked[prompt] = 0


def _panel(rng: np.random.Generator, n: int, group: range, others: int) -> NDArray[np.intp]:
    """Rows to rank a group against: none of the group, nor of the rows whose offsets are looked at."""
    import numpy as np

    reach = max(OFFSETS)
    low, high = max(0, group.start - reach), min(n, group.stop + reach)
    free = n - (high - low)
    picked = rng.choice(free, size=min(others, free), replace=False)
    return np.asarray(np.where(picked >= low, picked + (high - low), picked), dtype=np.intp)


def _shift(ranks: NDArray[np.float64]) -> int | None:
    """The offset whose ranks are higher than those of offset 0 by more than chance, the highest of them."""
    import numpy as np

    own = ranks[:, OFFSETS.index(0)]
    best: tuple[float, int] | None = None
    for column, offset in enumerate(OFFSETS):
        more = ranks[:, column] - own
        more = more[~np.isnan(more)]
        if offset == 0 or len(more) < LEAST_ROWS // 2:
            continue
        error = max(float(more.std(ddof=1)), LEAST_SD) / np.sqrt(len(more))
        mean = float(more.mean())
        if mean > SURE * error and (best is None or mean > best[0]):
            best = mean, offset
    return best[1] if best else None


def _hashed(pairs: Iterable[tuple[str, str]]) -> tuple[list[NDArray[np.uint16]], list[NDArray[np.uint16]]]:
    prompts, answers = [], []
    for prompt, answer in pairs:
        prompts.append(_grams(prompt))
        answers.append(_grams(answer))
    return prompts, answers


def _grams(text: str) -> NDArray[np.uint16]:
    """The distinct hashed 4-grams of a text in lower case; never none."""
    import numpy as np

    data = text[:LONGEST].lower().encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(data.ljust(16, b"\0"), dtype=np.uint32)
    hashed = codes[:-3] * np.uint32(0x9E3779B1)
    for place, factor in ((1, 0x85EBCA6B), (2, 0xC2B2AE35), (3, 0x27D4EB2F)):
        hashed ^= codes[place : len(codes) - 3 + place]
        hashed *= np.uint32(factor)
    # A radix sort, which for 16 bits is many times faster than np.unique's hash table.
    ordered = np.sort((hashed >> np.uint32(16)).astype(np.uint16), kind="stable")
    distinct: NDArray[np.uint16] = ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]
    return distinct
