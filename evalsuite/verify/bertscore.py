"""Which of two texts is nearer to a reference by BERTScore F1 (Zhang et al. 2020, arXiv 1904.09675).

The package `bert_score` and its weights are the user's: without them there is a reason in place of a scorer.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from evalsuite.verify.judge import NoVerdict
from evalsuite.verify.pairwise import TIE

N_LAYERS = 17  # of a local roberta-large; a named model brings its own


class F1(Protocol):
    """F1 of each text against its reference. `identity` is the scorer's hash string (model, layer, idf, version)."""

    @property
    def identity(self) -> str: ...

    def __call__(self, texts: Sequence[str], references: Sequence[str], /) -> Sequence[float]: ...


@dataclass(frozen=True, slots=True)
class Triple:
    """A candidate and a baseline that answer the same request, and what a person wrote."""

    candidate: str
    baseline: str
    reference: str


_known: dict[str, float] = {}  # F1 of baselines: they are the same for every candidate


def preferences(
    triples: Sequence[Triple], f1: F1 | NoVerdict | None = None, known: MutableMapping[str, float] = _known
) -> list[float | NoVerdict]:
    """For each triple 1 when the candidate's F1 is larger, 0 when the baseline's is, 0.5 when they are equal.

    `known` holds the baselines' F1 by scorer and texts, so that each is computed once for all candidates. Without a
    scorer, or when it fails, every answer is the reason why.
    """
    if not triples:
        return []
    scorer = load() if f1 is None else f1
    if isinstance(scorer, NoVerdict):
        return [scorer] * len(triples)
    try:
        return _compared(triples, scorer, known)
    except Exception as error:  # out of memory, an incompatible package: these samples fail, the others do not
        return [NoVerdict("engine", f"bertscore failed ({_in_a_line(error)})")] * len(triples)


@cache
def load(model: str | None = None, n_layers: int = N_LAYERS) -> F1 | NoVerdict:
    """The installed package's scorer for English, or for a `model` folder of roberta-large; a reason when it has none.

    Defaults are the package's own, whatever they are: its hash string goes into the scorer's identity.
    """
    try:
        make: Any = import_module("bert_score").BERTScorer
    except ImportError:
        return NoVerdict("engine", "no bertscore: the package bert_score is not installed (pip install bert_score)")
    try:
        scorer = make(lang="en") if model is None else make(model_type=model, num_layers=n_layers)
    except Exception as error:  # whatever the package raises for weights that it cannot read
        return NoVerdict("engine", f"no bertscore: its model cannot be loaded ({_in_a_line(error)})")
    return _Package(scorer, str(scorer.hash))


@dataclass(frozen=True, slots=True)
class _Package:
    scorer: Any
    identity: str

    def __call__(self, texts: Sequence[str], references: Sequence[str]) -> list[float]:
        # The package gives 0 to a text without words, or fails on it (0.3.13 with transformers 5).
        worded = [n for n, pair in enumerate(zip(texts, references, strict=True)) if all(t.strip() for t in pair)]
        values = [0.0] * len(texts)
        if worded:
            _, _, f1 = self.scorer.score([texts[n] for n in worded], [references[n] for n in worded])
            for n, value in zip(worded, f1, strict=True):
                values[n] = float(value)
        return values


def _compared(triples: Sequence[Triple], scorer: F1, known: MutableMapping[str, float]) -> list[float | NoVerdict]:
    new = {k: t for t in triples if (k := _key(scorer.identity, t)) not in known}
    if new:
        values = scorer([t.baseline for t in new.values()], [t.reference for t in new.values()])
        known.update(zip(new, map(float, values), strict=True))
    candidates = scorer([t.candidate for t in triples], [t.reference for t in triples])
    return [_larger(float(c), known[_key(scorer.identity, t)]) for c, t in zip(candidates, triples, strict=True)]


def _in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _larger(candidate: float, baseline: float) -> float:
    return TIE if candidate == baseline else float(candidate > baseline)


def _key(identity: str, triple: Triple) -> str:
    parts = (identity, triple.baseline, triple.reference)
    return hashlib.sha256("\0".join(f"{len(p)}:{p}" for p in parts).encode("utf-8", "surrogatepass")).hexdigest()
