"""decontam/near/stages.py ↔ what packages offer under `decontam.stages`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from decontam.errors import DecontamError
from decontam.near import build
from decontam.near.stages import Opinion, Pair, judged, known_stages, load_stages
from tests.decontam.near.world import CAT, DEFAULT, SHIP, evals_of

PLUGIN = '''
LIMIT = 100

def overlap(pairs):
    """How many words of the instance stand in the message, in per cent; nothing for all of them."""
    scores = []
    for pair in pairs:
        words = set(pair.eval.lower().split())
        share = 100 * len(words & set(pair.train.lower().split())) / len(words)
        scores.append(None if share == 100 else share)
    return scores
'''
POINTS = """[decontam.stages]
overlap = nearplugin:overlap
number = nearplugin:LIMIT
gone = nearplugin:gone
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with three entry points, of which one works."""
    (tmp_path / "nearplugin.py").write_text(PLUGIN)
    about = tmp_path / "nearplugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: nearplugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_a_stage_of_a_package_judges_the_candidates() -> None:
    assert known_stages()["overlap"] == "nearplugin:overlap"
    part = " ".join(CAT.split()[:8])  # below the cut-off, yet a candidate
    index = build([evals_of(CAT, SHIP), evals_of(CAT, name="again")])
    n_words, n_missing = len(set(CAT.lower().split())), len(set(CAT.lower().split()) - set(part.lower().split()))
    share = 100 * (n_words - n_missing) / n_words
    assert judged(load_stages(["overlap"]), index, ["no match", part, SHIP], DEFAULT) == [
        Opinion("overlap", 1, 0, share),
        Opinion("overlap", 1, 2, share),
    ]


def test_a_stage_is_given_both_texts_whole() -> None:
    seen: list[Pair] = []

    def watch(pairs: Sequence[Pair]) -> list[None]:
        seen.extend(pairs)
        return [None] * len(pairs)

    message = f"Note: {SHIP} Thanks!"
    head, tail = SHIP.split(" leaves ")
    index = build([evals_of(CAT, (head, f"leaves {tail}"))])
    assert judged({"watch": watch}, index, ["", message], DEFAULT) == []
    assert seen == [Pair(1, 1, message, f"{head}\nleaves {tail}", len(SHIP.split()) - 2)]


def test_a_stage_is_not_called_for_nothing() -> None:
    def fail(pairs: Sequence[Pair]) -> list[None]:
        raise AssertionError(pairs)

    assert judged({"fail": fail}, build([evals_of(CAT)]), [SHIP], DEFAULT) == []


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("overlab", "no stage named 'overlab'; did you mean 'overlap'"),
        ("number", "'nearplugin:LIMIT' is a int, expected a callable"),
        ("gone", "'nearplugin:gone' cannot be loaded"),
    ],
)
def test_a_stage_that_cannot_be_had_is_named(name: str, message: str) -> None:
    with pytest.raises(DecontamError, match=message):
        load_stages([name])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([], "stage 'odd' gave 0 scores for 1 pairs"),
        ([1.0, 2.0], "stage 'odd' gave 2 scores for 1 pairs"),
        ([101], "the score 101, expected a number from 0 to 100 or None"),
        ([float("nan")], "the score nan"),
        (["high"], "the score 'high'"),
    ],
)
def test_scores_that_make_no_sense_are_refused(scores: list[float | None], message: str) -> None:
    with pytest.raises(DecontamError, match=message):
        judged({"odd": lambda pairs: scores}, build([evals_of(CAT)]), [CAT], DEFAULT)
