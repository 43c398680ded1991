"""Gates over scorecards alone: what a card lacks is missing, and what is no whole card of this suite is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite.__main__ import main
from evalsuite.errors import PolicyError, UsageError
from evalsuite.gate.policy import Floor, Policy
from evalsuite.gate.verdict import Finding, Verdict
from evalsuite.gating import GateJob
from evalsuite.gating.stored import completed, stored, suite_of
from evalsuite.progress import Silent
from evalsuite.scorecard import Result, Scorecard, SuiteRef, write
from evalsuite.suite import Suite, load_suite
from tests.evalsuite.cards import make_card, make_result
from tests.evalsuite.gating.world import POLICY

RIGHT = [1.0, 0.0] * 200
"""Half right, and so on both sides: no difference on 400 items clears a margin of ten points."""


def judged(digest: str, **changes: Any) -> Result:
    about = {"digest": digest, "model": f"model of {digest}"} if digest else {}
    return make_result("a", RIGHT, judge=about, **changes)


def ruled(new: Scorecard, old: Scorecard, policy: Policy = POLICY, **more: Any) -> Verdict:
    return stored(GateJob(policy, new, old, dry_run=True, **more), new, Silent()).play()


def missing(verdict: Verdict) -> list[Finding]:
    return [f for f in verdict.findings if f.rule == "missing"]


def test_two_whole_cards_are_compared() -> None:
    verdict = ruled(make_card("new", {"a": RIGHT}), make_card("old", {"a": RIGHT}))
    assert (verdict.outcome, missing(verdict)) == ("promote", [])


# -- what is missing --


@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_a_benchmark_that_either_card_lacks_blocks(who: str) -> None:
    whole, part = {"a": RIGHT, "b": RIGHT}, {"a": RIGHT}
    new, old = (part, whole) if who == "candidate" else (whole, part)
    verdict = ruled(make_card("new", new), make_card("old", old))
    assert verdict.outcome == "block"
    assert {(f.benchmark, f.reference, f.outcome) for f in missing(verdict)} == {("b", who, "block")}


def test_a_benchmark_that_the_anchor_alone_has_is_missing_on_both_other_sides() -> None:
    new, old = make_card("new", {"a": RIGHT}), make_card("old", {"a": RIGHT})
    verdict = ruled(new, old, anchor=make_card("first", {"a": RIGHT, "b": RIGHT}))
    assert verdict.outcome == "block"
    assert {(f.benchmark, f.reference) for f in missing(verdict)} == {("b", "candidate"), ("b", "champion")}


def test_a_column_that_no_card_has_blocks() -> None:
    cards = [make_card(name, {"a": RIGHT}, missing=("b",)) for name in ("new", "old")]
    verdict = ruled(cards[0], cards[1])
    (found,) = [f for f in verdict.findings if f.outcome == "block"]
    assert verdict.outcome == "block"
    assert "no scorecard has b of the suite" in found.why


@pytest.fixture(scope="module")
def safety() -> Suite:
    return load_suite("tulu3-safety")


def of_suite(suite: Suite, name: str, columns: Sequence[str]) -> Scorecard:
    card = make_card(name, {suite.columns[c].name: RIGHT for c in columns})
    return replace(card, suite=suite.ref(columns))


def test_the_columns_of_a_shipped_suite_are_known_where_the_cards_do_not_name_them(safety: Suite) -> None:
    new, old = (of_suite(safety, name, ["xstest"]) for name in ("new", "old"))
    verdict = ruled(new, old)
    (found,) = [f for f in verdict.findings if f.outcome == "block"]
    others = [b.name for c, b in safety.columns.items() if c != "xstest"]
    assert len(others) == 5
    assert all(name in found.why for name in others)


def test_a_column_that_was_published_and_is_not_shipped_is_not_missed(safety: Suite) -> None:
    card = of_suite(safety, "new", list(safety.columns))
    card = replace(card, suite=replace(card.suite, missing=("never_released",)))
    assert completed(card, safety).suite.missing == ()
    assert completed(card, replace(safety, regime="another")).suite == card.suite


# -- which suite --


def test_the_suite_of_a_card_is_found_by_its_digest(safety: Suite) -> None:
    ref = safety.ref(list(safety.columns))
    assert suite_of(ref) == safety
    assert suite_of(replace(ref, regime=f"{ref.regime}+other_protocol")) == safety
    assert suite_of(replace(ref, digest="0" * 64)) is None
    assert suite_of(replace(ref, name="nobodys")) is None
    repaired = load_suite("tulu3-safety", quirks=False)
    assert repaired.digest != safety.digest
    assert suite_of(repaired.ref([])) == repaired


def test_a_suite_that_is_named_must_be_that_of_the_card(safety: Suite) -> None:
    with pytest.raises(UsageError, match=r"--suite tulu3-safety: it is tulu3-safety@sha256:.* here.*sha256:0{12} at"):
        suite_of(replace(safety.ref([]), digest="0" * 64), "tulu3-safety")
    with pytest.raises(UsageError, match="did you mean 'tulu3-safety'"):
        suite_of(safety.ref([]), "tulu3-safty")


# -- what is refused --


def noted(name: str, note: str) -> Scorecard:
    return make_card(name, {"a": make_result("a", RIGHT, notes=(note,))})


@pytest.mark.parametrize("note", ["8 of 400 samples, drawn by seed 1234", "partial dataset 400/800", "more rows than"])
@pytest.mark.parametrize("who", ["candidate", "champion"])
def test_a_card_that_is_not_of_whole_benchmarks_is_refused(note: str, who: str) -> None:
    whole, part = make_card("whole", {"a": RIGHT}), noted("part", note)
    new, old = (part, whole) if who == "candidate" else (whole, part)
    with pytest.raises(UsageError) as caught:
        ruled(new, old)
    assert f"the scorecard of the {who}, part, is not of whole benchmarks (a: {note})" in str(caught.value)


def test_two_cards_of_the_same_few_samples_are_refused() -> None:
    cards = [make_card(name, {"a": RIGHT[:8]}, provenance={"limit": 8}) for name in ("new", "old")]
    with pytest.raises(UsageError) as caught:
        ruled(cards[0], cards[1])
    assert [line.split(",")[0] for line in str(caught.value).splitlines()] == [
        "the scorecard of the candidate",
        "the scorecard of the champion",
    ]
    assert "(--limit 8)" in str(caught.value)


def test_notes_of_another_kind_are_no_reason_to_refuse() -> None:
    assert ruled(noted("new", "prompt: paraphrased"), make_card("old", {"a": RIGHT})).outcome == "promote"


def test_a_benchmark_that_stands_twice_in_a_card_is_refused() -> None:
    new = make_card("new", {"a": RIGHT})
    twice = replace(new, results=(*new.results, make_result("a", [0.0] * 400)))
    with pytest.raises(UsageError, match="a: the scorecard of the candidate has 2 results of it"):
        ruled(twice, make_card("old", {"a": RIGHT}))


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ("j1", "j2", r"model of j1 \(j1\) and model of j2 \(j2\)"),
        ("j1", "", r"model of j1 \(j1\) and no judge"),
        ("", "j2", r"no judge and model of j2 \(j2\)"),
    ],
)
def test_both_sides_need_the_same_judge(mine: str, theirs: str, said: str) -> None:
    new, old = make_card("new", {"a": judged(mine)}), make_card("old", {"a": judged(theirs)})
    with pytest.raises(UsageError, match=f"a: candidate and champion were judged by {said}"):
        ruled(new, old)


def test_the_same_judge_on_both_sides_is_fine() -> None:
    assert ruled(make_card("new", {"a": judged("j1")}), make_card("old", {"a": judged("j1")})).outcome == "promote"


def test_a_bound_on_a_category_that_no_item_has_names_those_there_are() -> None:
    kinds = ["even", "odd"] * 200
    cards = [make_card(n, {"a": make_result("a", RIGHT, categories=kinds)}) for n in ("new", "old")]
    with pytest.raises(PolicyError) as caught:
        ruled(cards[0], cards[1], replace(POLICY, safety={"a/evn": Floor(0.1)}))
    assert "safety.a/evn: 'a' has no category 'evn'; did you mean 'even'? (there are even, odd)" in str(caught.value)
    verdict = ruled(cards[0], cards[1], replace(POLICY, safety={"a/even": Floor(0.1)}))
    assert verdict.outcome == "promote"


# -- the command --


POLICY_FILE = """
suite: {suite}
method: {{looks: 4}}
must_not_regress: {{default: {{margin: 0.1, block_null: zero}}{rules}}}
"""


def command(folder: Path, *more: str, suite: str = "demo", rules: str = "", extra: Sequence[str] = ()) -> int:
    folder.mkdir(exist_ok=True)
    write(make_card("new", dict.fromkeys(("a", *extra), RIGHT), columns={"alpha": "a"}), folder / "new.json")
    write(make_card("old", {"a": RIGHT}, columns={"alpha": "a"}), folder / "old.json")
    (folder / "policy.yaml").write_text(POLICY_FILE.format(suite=suite, rules=rules))
    options = ["--policy", str(folder / "policy.yaml"), "--results", str(folder / "results")]
    return main(["gate", str(folder / "new.json"), "--against", str(folder / "old.json"), *options, *more])


def test_a_policy_may_name_what_the_cards_call_a_benchmark(tmp_path: Path) -> None:
    assert command(tmp_path / "benchmark", rules=", a: {margin: 0.2}") == 0
    assert command(tmp_path / "column", rules=", alpha: {margin: 0.2}") == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"rules": ", alpah: {margin: 0.2}"},
            "no benchmark or column named 'alpah' in the suite; did you mean 'alpha'?",
        ),
        ({"suite": "demo@sha256:00000000"}, "suite is 'demo@sha256:00000000'; use the digest of the suite as it is"),
        ({"suite": "other"}, "suite is 'other'; use a policy for 'demo'"),
        ({"rules": ", a: {tier: advisory}"}, "every benchmark is advisory"),
    ],
)
def test_a_policy_that_does_not_fit_the_cards_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], said: str
) -> None:
    assert command(tmp_path, **change) == 2
    shown = capsys.readouterr()
    assert (shown.out, said in shown.err) == ("", True), shown.err


def test_a_pin_by_the_digest_of_the_cards_is_taken(tmp_path: Path) -> None:
    assert command(tmp_path, suite=f"demo@sha256:{'d' * 12}") == 0


def test_a_scorecard_cannot_be_promoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "--promote") == 2
    assert "a scorecard cannot be promoted; gate the checkpoint's folder" in capsys.readouterr().err


def test_a_benchmark_outside_the_columns_is_compared_too(tmp_path: Path) -> None:
    assert command(tmp_path, extra=["b"]) == 1


def test_a_folder_that_is_not_there_is_said_before_the_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "step-100").mkdir()
    assert main(["gate", str(tmp_path / "step-10"), "--suite", "tulu3-safety", "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "step-10': no such checkpoint folder; did you mean 'step-100'?" in said
    assert "judge" not in said


def test_a_gate_on_an_unseen_suite_is_not_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gate", "plan", "--suite", "tulu3-unseen"]) == 5
    shown = capsys.readouterr()
    assert (shown.out, "Only `evalsuite release` may read it" in shown.err) == ("", True)


def test_a_column_of_one_card_may_be_named_though_the_other_lacks_it() -> None:
    from evalsuite.cli.gate_job import _both

    new = make_card("new", {"a": RIGHT}, missing=("beta",), columns={"alpha": "a"})
    old = make_card("old", {"a": RIGHT, "b": RIGHT}, columns={"alpha": "a", "beta": "b"})
    assert _both(new, old) == SuiteRef("demo", "demo@v1", new.suite.digest, {"alpha": "a", "beta": "b"}, ())
