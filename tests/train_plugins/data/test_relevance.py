"""relevance ↔ aligned and shifted data, real and made up."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.errors import DataError
from train_plugins.data.relevance import LEAST_ROWS, Relevance, measure, require_aligned, texts_of

Pair = tuple[str, str]


def shifted(pairs: list[Pair], by: int) -> list[Pair]:
    """Every prompt with the answer that stands `by` rows further down."""
    return [(prompt, pairs[(i + by) % len(pairs)][1]) for i, (prompt, _) in enumerate(pairs)]


def echoing(n: int, seed: int = 0) -> list[Pair]:
    """Answers that repeat a rare word of their prompt among common ones."""
    draw = random.Random(seed)
    common = ["the", "answer", "is", "often", "about", "things", "like", "this"]
    found = []
    for _ in range(n):
        rare = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=9))
        prompt = f"Tell me about {rare}, please."
        found.append((prompt, " ".join([*draw.choices(common, k=12), rare, *draw.choices(common, k=6)])))
    return found


def unrelated(n: int, seed: int = 0) -> list[Pair]:
    draw = random.Random(seed)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    return [(" ".join(draw.choices(words, k=6)), " ".join(draw.choices(words, k=9))) for _ in range(n)]


def test_answers_that_repeat_their_prompt_rank_first() -> None:
    found = measure(echoing(300))
    assert found.finding == "aligned"
    assert found.rank is not None
    assert found.rank > 0.97
    assert all(0.4 < found.ranks[offset] < 0.6 for offset in (-2, -1, 1, 2))  # chance


@pytest.mark.parametrize("by", [1, -1, 2, -2])
def test_a_shift_is_an_error_that_names_the_offset(by: int) -> None:
    found = measure(shifted(echoing(300), by))
    # The answer of row i + by stands in row i: row i's own answer is now found in row i - by.
    assert found.shift == -by
    with pytest.raises(DataError, match=rf"pairs\.jsonl: .*shifted.*offset [+-]{abs(by)} rows"):
        require_aligned(found, "pairs.jsonl")


def test_a_shift_of_many_rows_is_a_warning() -> None:
    found = measure(shifted(echoing(300), 7))
    assert (found.finding, found.shift) == ("weak", None)
    assert "hardly fit" in found.sentence()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [LEAST_ROWS, 40])
def test_unrelated_texts_are_never_called_shifted(n: int, seed: int) -> None:
    assert measure(unrelated(n, seed), seed=seed).shift is None


def test_equal_rows_rank_in_the_middle() -> None:
    # Every other answer overlaps as much: 20 ties, each half a place, give 0.5.
    found = measure([("one two three", "one two four")] * 100)
    assert found.ranks == {-2: 0.5, -1: 0.5, 0: 0.5, 1: 0.5, 2: 0.5}
    assert found.shift is None


def test_few_rows_say_nothing() -> None:
    found = measure(echoing(LEAST_ROWS - 1))
    assert (found.rank, found.shift, found.finding) == (None, None, "too_few")
    assert found.as_json()["mean_rank"] is None
    assert measure([]).finding == "too_few"
    assert measure(echoing(LEAST_ROWS)).rank is not None


@pytest.mark.parametrize("n", [8, 9, 20, 24, 25, 26, 63, 64, 65, 69, 129])
def test_any_number_of_rows_has_its_ranks(n: int) -> None:
    found = measure(echoing(n))
    assert found.rank is not None
    assert found.rank > 0.9


def test_odd_texts_are_ranked_too() -> None:
    odd = ["", "a", "\ud800", "日本語の長い文", "\x00", "🙂" * 9000, "abc", "ab"]
    assert measure([(text, text) for text in odd * 3]).rank is not None


def test_the_same_rows_give_the_same_ranks() -> None:
    assert measure(echoing(100)) == measure(echoing(100))
    assert measure(echoing(100), seed=1).ranks != measure(echoing(100), seed=2).ranks


def test_a_row_is_its_last_exchange() -> None:
    user, answer = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
    second = [{"role": "user", "content": "u2"}, {"role": "assistant", "content": "a2"}]
    assert list(texts_of([user, answer, *second])) == [("u2", "a2")]
    assert list(texts_of([user])) == []
    assert list(texts_of([{"role": "system", "content": "s"}, user, answer])) == [("u", "a")]


# -- the real files --


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_alpaca(row: dict[str, Any]) -> Pair:
    return f"{row['instruction']}\n{row['input']}", row.get("output") or row.get("response") or ""


def of_hh(row: dict[str, Any]) -> Pair:
    before, _, answer = row["chosen"].rpartition("\n\nAssistant:")
    return before.rpartition("\n\nHuman:")[2].strip(), answer.strip()


READ: dict[str, Callable[[dict[str, Any]], Pair]] = {
    "sft/oasst1_en100": lambda row: (row["messages"][-2]["content"], row["messages"][-1]["content"]),
    "preference/oasst1_en100": lambda row: (row["messages"][-1]["content"], row["chosen"]),
    "sft/alpaca_en_demo": of_alpaca,
    "sft/code_alpaca_2k": of_alpaca,
    "sft/gpteacher_codegen": of_alpaca,
    "sft/gpteacher_roleplay": of_alpaca,
    "preference/dpo_en_demo": lambda row: (row["conversations"][-1]["value"], row["chosen"]["value"]),
    "preference/hh_rlhf_harmless": of_hh,
}
# file: mean rank of its own answers (from, to), the highest once they are shifted by one row
FACTS = {
    "sft/oasst1_en100": (0.89, 0.99, 0.71),  # 0.91; neighbours share topics
    "preference/oasst1_en100": (0.89, 0.99, 0.71),
    "sft/alpaca_en_demo": (0.91, 0.99, 0.53),
    "sft/code_alpaca_2k": (0.91, 0.99, 0.53),
    "sft/gpteacher_codegen": (0.91, 0.99, 0.53),
    "sft/gpteacher_roleplay": (0.91, 0.99, 0.53),
    "preference/dpo_en_demo": (0.91, 0.99, 0.53),
    "preference/hh_rlhf_harmless": (0.71, 0.77, 0.53),  # short refusals
}


@pytest.mark.parametrize("name", FACTS)
def test_real_data_is_aligned_and_a_shift_of_one_is_found(name: str, shared_data: Path) -> None:
    path = shared_data / "train" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip(f"real data is absent: {path}")
    pairs = [READ[name](row) for row in rows_of(path)]
    low, high, moved = FACTS[name]
    own = measure(pairs)
    assert own.finding == "aligned"
    assert own.rank is not None
    assert low <= own.rank <= high
    for by in (1, -1, 2, -2):
        found = measure(shifted(pairs[:700], by))
        assert found.shift == -by
        assert found.rank is not None
        assert found.rank <= moved


@pytest.mark.slow
def test_a_thousand_rows_cost_less_than_a_third_of_a_second(shared_data: Path) -> None:
    path = shared_data / "train" / "sft" / "gpteacher_codegen.jsonl"
    pairs = [of_alpaca(row) for row in rows_of(path)] * 3  # 9,540 rows
    measure(pairs[:100])
    began = time.process_time()
    measure(pairs)
    assert (time.process_time() - began) / len(pairs) * 1000 < 0.3


# -- the command --


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def sft(pairs: list[Pair]) -> list[dict[str, Any]]:
    return [{"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": a}]} for p, a in pairs]


def test_the_command_passes_sound_rows_and_refuses_shifted_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = (
        write(tmp_path / "good.jsonl", sft(echoing(60))),
        write(tmp_path / "bad.jsonl", sft(shifted(echoing(60), 1))),
    )
    assert main(["data", "relevance", str(good)]) == 0
    assert "mean rank 1.00 of 60 rows" in capsys.readouterr().out
    assert main(["data", "relevance", str(good), str(bad)]) == 2
    told = capsys.readouterr()
    assert "bad.jsonl: the answers are shifted" in told.err
    assert "offset -1 rows" in told.err
    assert "good.jsonl" in told.out


def test_the_command_looks_at_both_sides_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = echoing(60)
    chosen, rejected = sft(pairs), sft([(p, f"{a} no") for p, a in shifted(pairs, 2)])
    rows = [{"chosen": c["messages"], "rejected": r["messages"]} for c, r in zip(chosen, rejected, strict=True)]
    assert main(["data", "relevance", str(write(tmp_path / "p.jsonl", rows)), "--json"]) == 2
    told = capsys.readouterr()
    found = {each["side"]: (each["finding"], each["shift"]) for each in json.loads(told.out)}
    assert found == {"chosen": ("aligned", None), "rejected": ("shifted", -2)}
    assert "p.jsonl, rejected" in told.err


def test_the_command_warns_of_weak_relevance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "relevance", str(write(tmp_path / "w.jsonl", sft(unrelated(60))))]) == 0
    assert "warning:" in capsys.readouterr().err


def test_rows_without_answers_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"messages": [{"role": "user", "content": "u"}], "ground_truth": "4", "dataset": "gsm8k"}
    assert main(["data", "relevance", str(write(tmp_path / "r.jsonl", [row]))]) == 2
    assert "no row has an answer" in capsys.readouterr().err


def test_the_finding_as_json() -> None:
    found = Relevance(100, {0: 0.6, 1: 0.9}, 1).as_json()
    assert found["by_offset"] == {"0": 0.6, "+1": 0.9}
    assert (found["finding"], found["shift"]) == ("shifted", 1)
