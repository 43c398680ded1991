"""AlpacaEval 2: is the response preferred to GPT-4 Turbo's, length aside (Dubois et al. 2024, arXiv 2404.04475)?

Order, preference and metrics are those of tatsu-lab/alpaca_eval @cd543a1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from evalsuite.errors import DataError
from evalsuite.types import Doc, Score
from evalsuite.verify import pairwise
from evalsuite.verify.gamed import Gamed, read_difficulties, read_gamed
from evalsuite.verify.judge import Ask, NoVerdict, Verdict
from evalsuite.verify.length_control import (
    LABELS,
    N_INSTRUCTIONS,
    Fit,
    Pair,
    Variant,
    Weights,
    bootstrap,
    fit,
    is_extreme,
    unusable,
)
from evalsuite.verify.summary import JudgedRow, Summary, SummaryContext

ORDER_SEED = 0  # the default of upstream's annotator class
FOLDER = "tatsu-lab/alpaca_eval"
GAMED, DIFFICULTIES = "df_gamed.csv", "instruction_difficulty.csv"
CLOSE = 1e-6
Parts = dict[str, tuple[float, float | None, int]]


def asks(response: str, doc: Doc) -> tuple[Ask, ...]:
    """One question to the judge; none when the response is the baseline's own text, which upstream calls a draw."""
    if response == doc["output"]:
        return ()
    fields = {"instruction": str(doc["instruction"]), "output_1": str(doc["output"]), "output_2": response}
    return (Ask("pairwise", fields, pairwise.is_swapped(fields["instruction"], ORDER_SEED)),)


def verify_judged(response: str, doc: Doc, verdicts: Sequence[Verdict | NoVerdict]) -> Score:
    """The judge's preference for the response, 0 to 1 (upstream's minus 1). Raises Unjudged when there is none."""
    return pairwise.score(pairwise.preference(verdicts) if verdicts else pairwise.TIE)


def verify_unasked(pairs: Sequence[tuple[str, Doc]]) -> list[Score | NoVerdict]:
    """Draws: the judge is only spared where both texts are the same."""
    return [pairwise.score(pairwise.TIE) for _ in pairs]


def summary(rows: Sequence[JudgedRow], context: SummaryContext) -> Summary:
    """The length-controlled win rate; its standard error is that over resampled instructions.

    Without the user's df_gamed.csv, or on a table of other than 805 rows, the column is absent, and `LC (noreg)` or
    `LC (minimal)` stands among the parts.
    """
    pairs = [_pair(row) for row in rows]
    parts = _plain(pairs)
    if rows and all(row.response == row.doc["output"] for row in rows):
        parts |= _weights(Weights(0.0, 0.0, 0.0), len(rows))
        return Summary(0.5, 0.0, parts, ("every response is the baseline's own: LC is 50 by definition",))
    if why := unusable(pairs):
        return Summary(None, None, parts, (f"LC is absent: {why}",))
    n_table = int(rows[0].doc["n_table"])
    whole = n_table == N_INSTRUCTIONS
    files = _find_files(context) if whole else _Files(None)
    files.check({pair.position for pair in pairs})
    fits = {variant: fit(pairs, variant, files.gamed, files.difficulties) for variant in files.variants()}
    best = next(iter(fits.values()))
    stderr = stdev(bootstrap(pairs, best, files.gamed, files.difficulties, seed=context.seed))
    parts |= {LABELS[v]: (f.value, stderr if f is best else None, len(pairs)) for v, f in fits.items()}
    parts |= {"lc_standard_error": (best.spread, None, len(pairs)), **_weights(best.weights, len(pairs))}
    notes = (*files.notes, *_warnings(best, parts))
    if best.variant != "length_controlled_v1":
        why = f"no {GAMED} in <data root>/{FOLDER}/" if whole else _misplaced(n_table)
        absent = f"LC is absent: {why}; {LABELS[best.variant]} is another measurement"
        return Summary(None, None, parts, (absent, *notes))
    return Summary(best.value, stderr, parts, notes)


def process_results(doc: Doc, results: Sequence[Any]) -> dict[str, float]:
    """What stock lm-eval can say without a judge: how long the response is, in characters."""
    return {"avg_length": float(len(results[0]))}


def process_docs(docs: Any) -> Any:
    """The rows with their position, which is how difficulties are known, and the size of the table that it is of."""
    return docs.add_column("position", list(range(len(docs)))).add_column("n_table", [len(docs)] * len(docs))


def prompt(doc: Doc) -> str:
    """The instruction alone, verbatim."""
    return str(doc["instruction"])


def target(doc: Doc) -> str:
    """Nothing: there is no one right answer."""
    return ""


def _pair(row: JudgedRow) -> Pair:
    preference = None if row.score is None else row.score.value
    return Pair(int(row.doc["position"]), preference, len(row.doc["output"]), len(row.response))


def _plain(pairs: Sequence[Pair]) -> Parts:
    """The metrics without length control. Failed judgements are dropped, as upstream does."""
    known = [p.preference for p in pairs if p.preference is not None]
    if not known:
        return {}
    n = len(known)
    wins, losses = sum(p > pairwise.TIE for p in known), sum(p < pairwise.TIE for p in known)
    draws = n - wins - losses
    counts = {"n_wins": wins, "n_wins_base": losses, "n_draws": draws, "n_total": n}
    return {
        "win_rate": (fmean(known), stdev(known) / n**0.5 if n > 1 else None, n),
        "discrete_win_rate": ((wins + draws / 2) / n, None, n),
        "avg_length": (fmean(p.length for p in pairs), None, len(pairs)),
        **{name: (float(count), None, n) for name, count in counts.items()},
    }


def _weights(weights: Weights, n: int) -> Parts:
    named = {"length": weights.length, "difficulty": weights.difficulty, "model": weights.model}
    return {f"lc_weight_{name}": (value, None, n) for name, value in named.items()}


def _misplaced(n_table: int) -> str:
    return f"the table has {n_table} rows, and difficulties are known by the position among {N_INSTRUCTIONS}"


def _warnings(best: Fit, parts: Parts) -> Iterator[str]:
    if is_extreme(parts["win_rate"][0], best.value):
        yield (
            f"{LABELS[best.variant]} {100 * best.value:.1f} is far from the win rate {100 * parts['win_rate'][0]:.1f}:"
            " the regression may have failed"
        )


@dataclass(frozen=True, slots=True)
class _Files:
    """What the user has of upstream's regression files."""

    gamed: Gamed | None
    difficulties: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def variants(self) -> tuple[Variant, ...]:
        """What can be fitted with them, the best first."""
        if self.gamed is not None:
            return ("length_controlled_v1", "length_controlled_noreg", "length_controlled_minimal")
        return ("length_controlled_noreg", "length_controlled_minimal") if self.difficulties else _MINIMAL

    def check(self, positions: set[int]) -> None:
        """Raises DataError when an instruction has no difficulty."""
        if self.difficulties and (lacking := sorted(positions - self.difficulties.keys())):
            raise DataError(
                f"{FOLDER}: no difficulty for {len(lacking)} of {len(positions)} instructions, the first at position"
                f" {lacking[0]}; expected {GAMED} and {DIFFICULTIES} of the same 805 instructions"
            )


_MINIMAL: tuple[Variant, ...] = ("length_controlled_minimal",)


def _find_files(context: SummaryContext) -> _Files:
    found = dict(context.files)
    for root in reversed(context.data_roots):
        found |= {name: path for name in (GAMED, DIFFICULTIES) if (path := root / FOLDER / name).is_file()}
    gamed = read_gamed(found[GAMED]) if GAMED in found else None
    listed = read_difficulties(found[DIFFICULTIES]) if DIFFICULTIES in found else {}
    if gamed is None:
        return _Files(None, listed)
    far = [i for i, d in listed.items() if abs(d - gamed.difficulties.get(i, d)) > CLOSE]
    notes = (f"{GAMED} and {DIFFICULTIES} differ in {len(far)} difficulties; those of {GAMED} are used",) if far else ()
    return _Files(gamed, gamed.difficulties, notes)
