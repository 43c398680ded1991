"""AlpacaEval 2's length-controlled win rate (Dubois et al. 2024, arXiv 2404.04475): a regression, then its average.

A logistic model of the judge's preferences on the difference in length, the difficulty of the instruction and the model
itself; the win rate is what it predicts where both answers are equally long. `length_controlled_v1` of
tatsu-lab/alpaca_eval @cd543a1 (`metrics/glm_winrate.py`) with its regularising rows and its choice of C. Two things
differ: difficulties are joined by the position of the instruction, where upstream goes by row label, and the standard
error comes from resampled instructions, where upstream's is the spread of the predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from evalsuite.verify.gamed import Gamed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

Variant = Literal["length_controlled_v1", "length_controlled_noreg", "length_controlled_minimal"]

# Only the first is the published number; the others never stand under its name.
LABELS: Mapping[Variant, str] = {
    "length_controlled_v1": "LC",
    "length_controlled_noreg": "LC (noreg)",
    "length_controlled_minimal": "LC (minimal)",
}
N_INSTRUCTIONS = 805
N_RESAMPLES = 200
MIN_ROWS = 50
N_FOLDS = 5
GAMED_WEIGHT = 0.2 / 2  # of a row of either gamed baseline
SOLVER_SEED = 123
CLIP = 1e-15


@dataclass(frozen=True, slots=True)
class Pair:
    """A candidate and the baseline on one instruction: lengths in characters, `preference` for the candidate 0 to 1.

    `position` is that of the instruction in the whole dataset. `preference` None is a failed judgement: such a row is
    not learnt from, but it has a length and a prediction, as upstream.
    """

    position: int
    preference: float | None
    baseline_length: int
    length: int


@dataclass(frozen=True, slots=True)
class Weights:
    """Coefficients of a model: of tanh of the length difference, of the difficulty, and its own."""

    length: float
    difficulty: float
    model: float


@dataclass(frozen=True, slots=True)
class Fit:
    """`value` is the win rate at equal lengths, 0 to 1; `spread` upstream's `lc_standard_error`, also 0 to 1."""

    variant: Variant
    value: float
    spread: float
    weights: Weights
    C: float


def fit(
    pairs: Sequence[Pair], variant: Variant, gamed: Gamed | None = None, difficulties: Mapping[int, float] = {}
) -> Fit:
    """Fits one variant; raises ValueError when `unusable` has a reason. `length_controlled_v1` needs `gamed`.

    C is the best of ten by 5-fold cross-validation over rows; both copies of a row stay in one fold.
    """
    if why := unusable(pairs):
        raise ValueError(why)
    rows = _Rows.of(pairs, variant, difficulties)
    train = _training(rows, variant, gamed)
    C = _best_C(train)
    weights, predicted = _solve(train, C, rows, variant)
    spread = float(predicted.std(ddof=1)) / len(pairs) ** 0.5
    return Fit(variant, float(predicted.mean()), spread, weights, C)


def bootstrap(
    pairs: Sequence[Pair],
    fitted: Fit,
    gamed: Gamed | None = None,
    difficulties: Mapping[int, float] = {},
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> tuple[float, ...]:
    """The win rate on resampled instructions, refitted with C as it was chosen. Two models share the draws of a seed,
    so that their difference can be taken draw by draw. The gamed rows are given, not drawn.
    """
    import numpy as np

    rows = _Rows.of(pairs, fitted.variant, difficulties)
    n = max(N_INSTRUCTIONS, 1 + max(p.position for p in pairs))
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_resamples)
    values = []
    for counts in drawn[:, [p.position for p in pairs]]:
        weighted = rows.drawn(counts.astype(np.float64))
        if weighted is not None:
            train = _training(weighted, fitted.variant, gamed)
            _, predicted = _solve(train, fitted.C, weighted, fitted.variant)
            values.append(float(np.average(predicted, weights=weighted.counts)))
    return tuple(values)


def unusable(pairs: Sequence[Pair]) -> str:
    """Why there is no length-controlled win rate of these rows; empty when there is one."""
    known = [p.preference for p in pairs if p.preference is not None]
    if len(known) < MIN_ROWS:
        return f"{len(known)} judged rows are too few, {MIN_ROWS} are needed"
    if len({p.baseline_length - p.length for p in pairs}) == 1:
        return "all responses differ from the baseline by the same number of characters"
    return "all preferences are equal" if len(set(known)) == 1 else ""


def against(weights: Weights, other: Weights, difficulties: Sequence[float]) -> float:
    """The length-controlled win rate over another model than the baseline, from both models' weights."""
    import numpy as np

    d = np.array(difficulties, dtype=np.float64)
    return float(_sigmoid(weights.model - other.model + (weights.difficulty - other.difficulty) * d).mean())


def is_extreme(win_rate: float, controlled: float) -> bool:
    """Upstream's warning: length control moved the win rate (both 0 to 1) by more than it usually does."""
    lowest = min(win_rate - win_rate / 4, win_rate - 0.1)
    return controlled < lowest or controlled > max(win_rate + (1 - win_rate) / 4, win_rate + 0.1)


# -- the regression --


@dataclass(frozen=True, slots=True)
class _Rows:
    """A model's rows as arrays: difference in length, difficulty, preference (NaN: none) and how often each counts."""

    delta: Floats
    difficulty: Floats
    preference: Floats
    counts: Floats

    @classmethod
    def of(cls, pairs: Sequence[Pair], variant: Variant, difficulties: Mapping[int, float]) -> _Rows:
        import numpy as np

        delta = np.array([p.baseline_length - p.length for p in pairs], dtype=np.float64)
        if variant == "length_controlled_minimal":
            difficulty = np.zeros(len(pairs))
        else:
            difficulty = np.array([difficulties[p.position] for p in pairs], dtype=np.float64)
        preference = np.array([np.nan if p.preference is None else p.preference for p in pairs], dtype=np.float64)
        return cls(delta, difficulty, preference, np.ones(len(pairs)))

    def drawn(self, counts: Floats) -> _Rows | None:
        """The rows that were drawn, with how often; None when nothing can be learnt from them."""
        some = counts > 0
        rows = _Rows(self.delta[some], self.difficulty[some], self.preference[some], counts[some])
        return rows if rows.counts.sum() > 1 and rows.scale() > 0 else None

    def scale(self) -> float:
        """Sample standard deviation of the differences in length, which are not centred afterwards."""
        import numpy as np

        mean = np.average(self.delta, weights=self.counts)
        squares = self.counts * (self.delta - mean) ** 2
        return float(np.sqrt(squares.sum() / (self.counts.sum() - 1)))


@dataclass(frozen=True, slots=True)
class _Training:
    """Features (rows × columns), soft targets 0 to 1 and weights, before every row is taken twice."""

    features: Floats
    target: Floats
    weight: Floats


def _training(rows: _Rows, variant: Variant, gamed: Gamed | None) -> _Training:
    import numpy as np

    known = ~np.isnan(rows.preference)
    tanh = np.tanh(rows.delta / rows.scale())
    mine = _features(tanh, rows.difficulty, np.ones(len(tanh)), variant)[known]
    if variant != "length_controlled_v1":
        return _Training(mine, rows.preference[known], rows.counts[known])
    if gamed is None:
        raise ValueError("length_controlled_v1 needs the rows of the gamed baselines (df_gamed.csv)")
    theirs = _features(
        np.tanh(np.array(gamed.std_delta_len)), np.array(gamed.difficulty), np.zeros(len(gamed.preference)), variant
    )
    return _Training(
        np.concatenate([theirs, mine]),
        np.concatenate([np.array(gamed.preference), rows.preference[known]]),
        np.concatenate([np.full(len(theirs), GAMED_WEIGHT), rows.counts[known]]),
    )


def _features(tanh: Floats, difficulty: Floats, model: Floats, variant: Variant) -> Floats:
    import numpy as np

    columns = [tanh, model] if variant == "length_controlled_minimal" else [tanh, difficulty, model]
    return np.column_stack(columns)


def _solve(train: _Training, C: float, rows: _Rows, variant: Variant) -> tuple[Weights, Floats]:
    """The coefficients, and what they predict for the model's own rows at equal length."""
    import numpy as np

    n = len(train.target)
    found = [float(c) for c in _regression(train, np.arange(n), C)]
    weights = Weights(found[0], 0.0 if len(found) == 2 else found[1], found[-1])
    return weights, _sigmoid(weights.model + weights.difficulty * rows.difficulty)


def _best_C(train: _Training) -> float:  # noqa: N802 - scikit-learn's name
    """The C with the best mean score over the held-out folds, the smallest of equals."""
    import numpy as np

    n = len(train.target)
    twice = np.zeros((2 * n, 1))
    folds = list(_sklearn("model_selection").GroupKFold(N_FOLDS).split(twice, groups=np.tile(np.arange(n), 2)))
    kept = [np.unique(learn % n) for learn, _ in folds]
    held = [np.unique(rest % n) for _, rest in folds]
    candidates = np.logspace(-4, 4, 10)
    scores = [_path(train, learn, rest, candidates) for learn, rest in zip(kept, held, strict=True)]
    return float(candidates[int(np.argmax(np.sum(scores, axis=0)))])


def _path(train: _Training, learn: Rows, rest: Rows, candidates: Floats) -> list[float]:
    """The held-out score of every C on one fold."""
    import numpy as np

    # One generator for the whole path, as LogisticRegressionCV has it: liblinear's coordinate order shows in the last
    # digits of a score, and so in which of two near-equal C is best.
    state = np.random.RandomState(SOLVER_SEED)
    return [_score(train, rest, _regression(train, learn, C, state)) for C in candidates]


def _regression(train: _Training, rows: Rows, C: float, state: int | np.random.RandomState = SOLVER_SEED) -> Floats:
    """L1 logistic regression without intercept on soft targets: each row once as a 1 and once as a 0, by its share."""
    import numpy as np

    features, target, weight = train.features[rows], train.target[rows], train.weight[rows]
    labels = np.repeat([1, 0], len(rows))
    shares = np.concatenate([weight * target, weight * (1 - target)])
    model = _maker()(C, state)
    model.fit(np.concatenate([features, features]), labels, sample_weight=shares)
    coefficients: Floats = model.coef_[0]
    return coefficients


def _score(train: _Training, rows: Rows, coefficients: Floats) -> float:
    """Mean weighted log-likelihood of the soft targets."""
    import numpy as np

    p = np.clip(_sigmoid(train.features[rows] @ coefficients), CLIP, 1 - CLIP)
    y = train.target[rows]
    return float(np.mean(train.weight[rows] * (y * np.log(p) + (1 - y) * np.log(1 - p))))


@cache
def _maker() -> Callable[[float, Any], Any]:
    """Makes the regression for a C and a random state. scikit-learn 1.8 deprecates `penalty`, 1.10 removes it."""
    version = tuple(int(part) for part in import_module("sklearn").__version__.split(".")[:2])
    l1: dict[str, Any] = {"l1_ratio": 1.0} if version >= (1, 8) else {"penalty": "l1"}
    made = _sklearn("linear_model").LogisticRegression
    return lambda C, state: made(C=C, solver="liblinear", fit_intercept=False, random_state=state, **l1)


def _sklearn(name: str) -> Any:
    return import_module(f"sklearn.{name}")


def _sigmoid(x: Any) -> Any:
    import numpy as np

    return np.exp(-np.logaddexp(0, -x))
