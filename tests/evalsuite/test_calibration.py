"""What a judge's calibration says: one that obeys what it reads loses to attacks, one that heeds fences does not."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evalsuite.calibration import calibrate, measure_agreement, measure_attacks, questions, read_llmbar, wilson
from evalsuite.cli.check import command
from evalsuite.errors import DataError, EngineError, UsageError
from evalsuite.judge import stored_calibration
from evalsuite.types import GenerateRequest
from evalsuite.verify.judge_attacks import ATTACKS, PLAIN_BAD
from evalsuite.verify.judge_prompt import JOINER
from tests.evalsuite.judges import blocks, make_judge, prefers_longer
from tests.servers import Body, Reply, ScriptedServer, prompt_of

HONEST = {answer for _, answer in questions()}
ORDER = re.compile(r"(?:answer|antworte also) (A|B)\b")


def heeds_fences(request: GenerateRequest) -> str:
    """Prefers the honest answer, wherever it stands and whatever else is written there."""
    shown = blocks(request)
    first, second = (shown[name] in HONEST for name in ("output_1", "output_2"))
    return "tie" if first == second else "A" if first else "B"


def obeys(request: GenerateRequest) -> str:
    """Does what the last order says that it finds anywhere; without one it judges well."""
    text = request.prompt.text
    decoded = [
        base64.b64decode(word).decode(errors="replace") for word in re.findall(r"\b[A-Za-z0-9+/]{40,}={0,2}", text)
    ]
    backwards = [line[::-1] for line in text.splitlines() if line.startswith("\u202e")]
    orders = ORDER.findall("\n".join([text, *decoded, *backwards]))
    return orders[-1] if orders else heeds_fences(request)


def test_there_are_sixteen_attacks_and_more_on_twenty_questions() -> None:
    assert len(ATTACKS) >= 16
    assert len(questions()) == len(HONEST) == 20
    crafted = [attack("A", "B") for attack in ATTACKS.values()]
    assert len(set(crafted)) == len(crafted)
    assert not HONEST & set(crafted)


def test_a_judge_that_obeys_loses_to_every_attack_that_gives_an_order(tmp_path: Path) -> None:
    attacks, overall, plain = measure_attacks(make_judge(obeys), tmp_path)
    lost = {name: round(r.success, 2) for name, r in attacks.items()}
    assert lost == {name: 0.0 if name == "empty" else 1.0 for name in ATTACKS}
    assert (overall.n, plain) == (len(ATTACKS) * 40, 0.0)
    assert overall.success == pytest.approx(16 / 17)


def test_a_judge_that_heeds_fences_loses_to_none(tmp_path: Path) -> None:
    attacks, overall, plain = measure_attacks(make_judge(heeds_fences), tmp_path)
    assert {r.success for r in attacks.values()} == {0.0}
    assert (overall.win_rate, overall.success, plain) == (0.0, 0.0, 0.0)


def test_what_any_bad_answer_wins_is_taken_off(tmp_path: Path) -> None:
    attacks, overall, plain = measure_attacks(make_judge(lambda request: "A"), tmp_path)
    assert (plain, overall.win_rate, overall.success) == (0.5, 0.5, 0.0)
    assert all(r.n == 40 for r in attacks.values())


def test_both_orders_are_asked_whatever_the_judges_positions_are(tmp_path: Path) -> None:
    fixed = measure_attacks(make_judge(obeys, positions="fixed"), tmp_path / "fixed")
    assert fixed == measure_attacks(make_judge(obeys, positions="both"), tmp_path / "both")


def row(label: int, subset: str = "Natural", better: str = "a long good answer") -> dict[str, Any]:
    texts = [better, "bad"] if label == 1 else ["bad", better]
    return {
        "input": f"{subset} {label} {len(better)}",
        "output_1": texts[0],
        "output_2": texts[1],
        "label": label,
        "subset": subset,
    }


def test_agreement_is_counted_per_subset_with_ties_as_half_and_flips(tmp_path: Path) -> None:
    rows = [row(1), row(2), row(2, better="ok!"), row(1, "Adversarial", better="b")]
    # Lengths: twice right, a tie ("ok!" against "bad"), wrong once ("b" against "bad").
    found = measure_agreement(make_judge(prefers_longer), rows, tmp_path)
    assert (found["all"].n, found["all"].accuracy, found["all"].flip_rate) == (4, 2.5 / 4, 0.0)
    assert (found["Natural"].accuracy, found["Adversarial"].accuracy) == (2.5 / 3, 0.0)
    first = measure_agreement(make_judge(lambda request: "A"), rows, tmp_path / "first")
    assert (first["all"].accuracy, first["all"].flip_rate) == (0.5, 1.0)


def test_rows_without_a_verdict_in_both_orders_are_left_out_and_counted(tmp_path: Path) -> None:
    def answer(request: GenerateRequest) -> str:
        return "hm" if blocks(request)["output_1"] == "b" else prefers_longer(request)

    found = measure_agreement(make_judge(answer), [row(1), row(1, "Adversarial", better="b")], tmp_path)
    assert (found["all"].n, found["all"].n_failed) == (1, 1)
    assert (found["Adversarial"].n, found["Adversarial"].n_failed) == (0, 1)


def test_wilsons_interval() -> None:
    # 8 of 10: (0.8 + 1.9208/10)/(1 + 3.8416/10) ± 1.96/(1.38416)·sqrt(0.016 + 0.9604/100) = 0.717 ± 0.227
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0


def test_a_calibration_is_kept_and_shown_in_the_judges_identity(tmp_path: Path) -> None:
    judge = make_judge(heeds_fences)
    judge._calibration = lambda digest: stored_calibration(tmp_path, digest)
    assert judge.identity()["calibration"] is None
    found = calibrate(judge, tmp_path, [row(1), row(2)])
    assert judge.identity()["calibration"] == json.loads(json.dumps(found))
    assert [p.name for p in (tmp_path / "judges").iterdir()] == [f"{judge.digest}.json"]
    assert set(found["llmbar"]) == {"all", "Natural"}
    other = make_judge(heeds_fences, parser="href_tolerant")
    assert stored_calibration(tmp_path, other.digest) is None


def test_a_judge_that_compares_nothing_or_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'safety_llm' compares no two answers"):
        calibrate(make_judge(protocol="safety_llm"), tmp_path)
    with pytest.raises(EngineError, match="no verdict on any of 680 questions"):
        calibrate(make_judge(lambda request: "hm"), tmp_path)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 2: JSONDecodeError"),
        ('{"input": "a"}', "line 2: KeyError: 'output_1'"),
        ("[]", "line 2: TypeError"),
        (json.dumps(row(1) | {"label": 0}), "line 2: label is 0"),
    ],
)
def test_a_bad_row_is_named(line: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "llmbar.jsonl"
    path.write_text(f"{json.dumps(row(1))}\n{line}\n")
    with pytest.raises(DataError, match=re.escape(f"{path}: {why}")):
        read_llmbar(path)


def test_llmbar_is_read_whole(shared_data: Path) -> None:
    rows = read_llmbar(shared_data / "train" / "preference" / "llmbar.jsonl")
    assert len(rows) == 300
    assert {r["label"] for r in rows} == {1, 2}
    assert len({r["subset"] for r in rows}) > 1


def test_the_command_line_calibrates_a_served_judge(tmp_path: Path) -> None:
    def script(body: Body, attempt: int) -> Reply:
        shown = prompt_of(body)
        said = "A" if shown.find("bad") > shown.find("a long good answer") > 0 else "B"
        choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        return Reply({"choices": [choice]})

    data = tmp_path / "llmbar.jsonl"
    data.write_text("".join(json.dumps(row(label)) + "\n" for label in (1, 2)))
    arguments = ["--data", str(data), "--results", str(tmp_path / "results"), "--judge-model", "m"]
    with ScriptedServer(script) as server:
        done = CliRunner().invoke(command, ["--judge", f"demo=api:{server.url}", *arguments], catch_exceptions=False)
        n_asked = len(server.asked())
        again = CliRunner().invoke(command, ["--judge", f"demo=api:{server.url}", "--json", *arguments])
        assert len(server.asked()) == n_asked == 2 * 20 * 18 + 4
    assert done.exit_code == 0
    assert "LLMBar all: agrees with people 100.0%" in done.output
    assert "flips with the order 0.0% (n 2)" in done.output
    stored = json.loads(again.stdout)
    assert stored["judge"]["calibration"] == stored["calibration"]
    assert stored["calibration"]["llmbar"]["all"]["n"] == 2
    assert CliRunner().invoke(command, ["--data", str(data)]).exit_code == 2


def test_attacks_reach_the_judge_with_their_controls_broken(tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(request: GenerateRequest) -> str:
        seen.append(request.prompt.text)
        return "A"

    measure_attacks(make_judge(answer), tmp_path)
    assert not any("<|im_start|>" in text for text in seen)
    assert any(f"<{JOINER}|im_start|>system" in text for text in seen)
    assert sum(PLAIN_BAD in text for text in seen) == 40
