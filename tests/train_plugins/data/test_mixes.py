"""The mixes that are shipped say what the cards say, and run the same code as any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalsuite.__main__ import main
from evalsuite.suite import load_suite
from train_plugins.data.mixfile import SHIPPED, find_mix, load_mix

SUMS = {
    "tulu3_sft": 939_344, "tulu3_pref_8b": 271_409, "tulu3_pref_70b": 334_367, "tulu3_pref_405b": 360_924,
    "rlvr_gsm_math_if": 29_946, "rlvr_math": 7_500,
}  # fmt: skip
# From the card of allenai/tulu-3-sft-mixture, in its order.
SFT = [
    10_983, 89_982, 9_500, 7_132, 149_960, 49_980, 34_999, 20_000, 29_980, 64_312, 50_000, 50_000, 50_000, 240, 100_000,
    100_000, 5_000, 10_000, 107_276,
]  # fmt: skip


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_mix_is_sound_and_sums_to_what_was_released(path: Path) -> None:
    mix = load_mix(path)
    assert (mix.name, mix.rows) == (path.stem, SUMS[path.stem])
    assert mix.decontam.against == ("tulu3-dev", "tulu3-unseen", "tulu3-safety")
    for suite in mix.decontam.against:
        load_suite(suite)
    assert all(source.origin == source.hub for source in mix.sources)


def test_the_counts_of_the_sft_mix_are_those_of_its_card() -> None:
    mix = load_mix(find_mix("tulu3_sft"))
    assert [source.count for source in mix.sources] == SFT
    non_commercial = [source.name for source in mix.sources if "NC" in source.licence]
    assert non_commercial == ["no_robots"]


def test_the_8b_pairs_are_all_pairs_but_the_unused_prompts_of_wildchat() -> None:
    eight, seventy = (load_mix(find_mix(f"tulu3_pref_{size}")) for size in ("8b", "70b"))
    unused = next(source.count for source in seventy.sources if source.name == "wildchat_unused")
    # 354,192 pairs in all at 8B: 271,409 and 82,783 that its mix leaves out.
    assert (eight.rows or 0) + int(unused or 0) == 354_192
    assert not any(source.name == "wildchat_unused" for source in eight.sources)


def test_without_its_data_a_shipped_mix_prints_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "mix", "tulu3_sft", "--data-root", str(tmp_path), "--offline"]) == 2
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert ["aya", "100,000", "Apache-2.0", "CohereForAI/aya_dataset", "missing"] in lines
    assert lines[-1] == ["sum", "939,344"]
    assert "19 of 19 sources of tulu3_sft are not there" in err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_nothing_has_gets_the_near_miss(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "mix", "tulu3_stf"]) == 2
    assert "did you mean 'tulu3_sft'?" in capsys.readouterr().err
