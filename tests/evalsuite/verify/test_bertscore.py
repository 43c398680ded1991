"""BERTScore preferences with a scorer of three lines, and the reasons where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest

from evalsuite.verify import bertscore
from evalsuite.verify.bertscore import Triple, preferences
from evalsuite.verify.judge import NoVerdict


class Words:
    """F1 of two sets of words; remembers what it was asked."""

    def __init__(self, identity: str = "words") -> None:
        self.identity = identity
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str], references: Sequence[str]) -> list[float]:
        self.asked.append(list(texts))
        pairs = [(set(t.split()), set(r.split())) for t, r in zip(texts, references, strict=True)]
        return [2 * len(t & r) / max(1, len(t) + len(r)) for t, r in pairs]


TRIPLES = [
    Triple("it is six", "it is seven", "six"),  # 2·1/4 against 0
    Triple("seven", "six", "six"),  # 0 against 1
    Triple("six sides", "six corners", "six"),  # 2/3 each
]


def test_the_larger_f1_wins_and_equal_ones_tie() -> None:
    assert preferences(TRIPLES, Words(), {}) == [1.0, 0.0, 0.5]
    assert preferences([], Words(), {}) == []


def test_the_baselines_are_scored_once_for_all_candidates_of_a_scorer() -> None:
    known: dict[str, float] = {}
    scorer = Words()
    preferences(TRIPLES, scorer, known)
    preferences([Triple("other", t.baseline, t.reference) for t in TRIPLES], scorer, known)
    baselines = [t.baseline for t in TRIPLES]
    assert scorer.asked == [baselines, [t.candidate for t in TRIPLES], ["other"] * 3]
    preferences(TRIPLES, another := Words("another"), known)
    assert another.asked[0] == baselines
    assert len(known) == 6


def test_a_row_that_stands_there_twice_is_scored_once() -> None:
    scorer = Words()
    assert preferences([TRIPLES[0], TRIPLES[0]], scorer, {}) == [1.0, 1.0]
    assert scorer.asked[0] == ["it is seven"]


def test_without_a_scorer_every_answer_is_the_reason() -> None:
    absent = NoVerdict("engine", "no bertscore: made up")
    assert preferences(TRIPLES, absent) == [absent] * 3


def test_a_scorer_that_fails_takes_no_run_with_it() -> None:
    class Broken(Words):
        def __call__(self, texts: Sequence[str], references: Sequence[str]) -> list[float]:
            raise RuntimeError("out of memory")

    failed = NoVerdict("engine", "bertscore failed (RuntimeError: out of memory)")
    assert preferences(TRIPLES, Broken(), {}) == [failed] * 3


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A stand-in for the package bert_score, importable while a test runs."""
    module = ModuleType("bert_score")
    monkeypatch.setitem(sys.modules, "bert_score", module)
    bertscore.load.cache_clear()
    yield module
    bertscore.load.cache_clear()


def test_the_package_is_used_with_its_own_defaults_for_english(package: ModuleType) -> None:
    made: list[dict[str, Any]] = []

    class Scorer:
        hash = "roberta-large_L17_no-idf_version=made-up"

        def __init__(self, **options: Any) -> None:
            made.append(options)

        def score(self, texts: list[str], references: list[str]) -> tuple[list[float], list[float], list[float]]:
            return [0.0], [0.0], [len(t) / 10 for t in texts]

    package.BERTScorer = Scorer  # type: ignore[attr-defined]
    scorer = bertscore.load()
    assert not isinstance(scorer, NoVerdict)
    assert scorer.identity == Scorer.hash
    assert scorer(["ab", " ", "abcd"], ["x", "x", "x"]) == [0.2, 0.0, 0.4]  # a blank text is not passed on
    assert bertscore.load() is scorer
    bertscore.load("models/roberta", 5)
    assert made == [{"lang": "en"}, {"model_type": "models/roberta", "num_layers": 5}]


def test_weights_that_are_not_there_are_a_reason_and_no_crash(package: ModuleType) -> None:
    def scorer(**_: Any) -> None:
        raise OSError("no connection to the hub")

    package.BERTScorer = scorer  # type: ignore[attr-defined]
    found = bertscore.load()
    assert found == NoVerdict("engine", "no bertscore: its model cannot be loaded (OSError: no connection to the hub)")


def test_a_package_that_is_not_installed_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bert_score", None)
    bertscore.load.cache_clear()
    found = bertscore.load()
    assert isinstance(found, NoVerdict)
    assert found.why.startswith("no bertscore: the package bert_score is not installed")
    bertscore.load.cache_clear()
