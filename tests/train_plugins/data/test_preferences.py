"""preferences ↔ scripted models and judges: whose answers become a pair, what the judge says, and going on."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from evalsuite.errors import DataError, Incomplete
from evalsuite.types import Response
from tests.train_plugins.data.judging import FAILED, OPEN, as_paragraphs, aspect_in, instruction_in, rates_by
from tests.train_plugins.data.preferring import NAMES, PAIR_FORM, WORTH, World, answer_of, belongs, by_author, prompts
from train_plugins.data.responses import order_of_models
from train_plugins.data.rows import read_meta


def test_four_models_a_judge_and_a_pair_for_every_prompt(tmp_path: Path) -> None:
    world = World(tmp_path)
    made = world.make()
    rows = world.rows()
    assert [row["prompt_id"] for row in rows] == [f"p{i}" for i in range(12)]
    assert all(belongs(row) for row in rows)
    assert {row["chosen_model"] for row in rows} == {"a"}  # worth most
    assert all((row["chosen_rating"], row["rejected_rating"]) == (5, WORTH[row["rejected_model"]]) for row in rows)
    assert all(sorted(row["order"]) == [*NAMES] for row in rows)
    assert len({tuple(row["order"]) for row in rows}) > 1
    assert len(world.judge.asked) == 12 * 4
    assert made.report["on_policy_share"] == 0.5  # one of two sides
    assert made.report["aspect_means"]["honesty"] == 3  # (5 + 4 + 2 + 1) / 4
    assert made.report["dropped"] == {}
    assert world.lost() == {}
    assert made.relevance["chosen"].finding == made.relevance["rejected"].finding == "aligned"


def test_the_sidecar_says_who_made_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.make()
    meta = read_meta(world.out)
    assert (meta["kind"], meta["rows"], meta["licence"]) == ("preference", 12, "ODC-By-1.0")
    assert meta["digest"] == hashlib.sha256(world.out.read_bytes()).hexdigest()
    made = meta["made"]
    assert made["models"]["b"]["digest"] == world.models["b"].engine().digest
    assert made["models"]["a"]["on_policy"] is True
    assert made["judge"]["digest"] == world.judge.engine().digest
    assert made["prompts"][0]["digest"] == hashlib.sha256((tmp_path / "prompts.jsonl").read_bytes()).hexdigest()
    assert made["recipe_digest"] == world.file().digest
    assert {row["judge"] for row in world.rows()} == {made["judge"]["id"]}
    assert str(tmp_path) not in json.dumps(meta)


def test_a_prompt_that_one_model_fails_on_is_not_lost_and_nobody_gets_its_answers(tmp_path: Path) -> None:
    """The old code dropped the failed rows, reset the index and joined by position: all later pairs were wrong."""
    world = World(tmp_path, responses={"n": 4, "at_least": 2})
    world.models["b"].say = lambda p: FAILED if "number 3." in p else answer_of("b")(p)
    made = world.make()
    rows = world.rows()
    assert len(rows) == 12
    assert all(belongs(row) for row in rows)
    assert [sorted(row["order"]) for row in rows if row["prompt_id"] == "p3"] == [["a", "c", "d"]]
    assert made.report["no_answer"] == {"b": {"request_failed": 1}}


def test_the_four_way_form_needs_four_and_counts_what_it_loses(tmp_path: Path) -> None:
    world = World(tmp_path, max_failed=0.5)
    world.models["b"].say = lambda p: FAILED if "number 3." in p else "" if "number 5." in p else answer_of("b")(p)
    made = world.make()
    assert made.report["dropped"] == {"few_answers": 1, "request_failed": 1}
    assert {id: reason for id, (reason, _) in world.lost().items()} == {"p3": "request_failed", "p5": "few_answers"}
    assert "3 of 4 answers (b: 503 after 6 tries)" in world.lost()["p3"][1]
    assert [row["prompt_id"] for row in world.rows()] == [f"p{i}" for i in range(12) if i not in (3, 5)]


def test_another_model_is_asked_in_place_of_one_that_fails(tmp_path: Path) -> None:
    world = World(tmp_path, responses={"n": 2})
    world.models["c"].say = lambda prompt: FAILED
    made = world.make()
    assert len(world.rows()) == 12
    assert all(len(row["order"]) == 2 and "c" not in row["order"] for row in world.rows())
    n_c = len(world.models["c"].asked)
    assert 0 < n_c < 12  # asked only where it was drawn
    assert made.report["no_answer"] == {"c": {"request_failed": n_c}}
    assert sum(len(model.asked) for model in world.models.values()) == 24 + n_c


@pytest.mark.parametrize(("cut", "n_rows"), [("drop", 11), ("keep", 12)])
def test_an_answer_that_reached_the_limit_counts_as_none_unless_it_is_kept(
    tmp_path: Path, cut: str, n_rows: int
) -> None:
    world = World(tmp_path, responses={"cut": cut})
    world.models["b"].say = lambda p: Response(f"b {p}", "length", 9) if "number 3." in p else answer_of("b")(p)
    world.make()
    assert len(world.rows()) == n_rows


def test_the_pair_form_has_an_on_policy_answer_and_another(tmp_path: Path) -> None:
    world = World(tmp_path, 60, responses=PAIR_FORM)
    world.make()
    rows = world.rows()
    assert all(sorted(row["order"])[0] == "a" and len(row["order"]) == 2 for row in rows)
    others = Counter(row["rejected_model"] for row in rows)
    assert set(others) == {"b", "c", "d"}
    assert {row["order"].index("a") for row in rows} == {0, 1}  # shown first and second
    assert sum(len(model.asked) for model in world.models.values()) == 120


def test_in_the_pair_form_only_the_side_that_failed_is_replaced(tmp_path: Path) -> None:
    world = World(tmp_path, 30, responses=PAIR_FORM)
    world.models["b"].say = lambda prompt: FAILED
    world.make()
    assert len(world.rows()) == 30
    assert {row["rejected_model"] for row in world.rows()} == {"c", "d"}
    assert len(world.models["a"].asked) == 30


def test_models_are_drawn_by_weight(tmp_path: Path) -> None:
    weights = {"a": 1, "b": 1, "c": 2, "d": 4}
    world = World(tmp_path, models=[{"name": n, "model": f"hf:{n}", "weight": w} for n, w in weights.items()])
    config = world.file().config
    first = Counter(order_of_models(config, f"p{i}")[0] for i in range(1600))
    assert all(abs(first[name] - 200 * weight) < 90 for name, weight in weights.items())  # sd at most 20


def test_one_model_is_open_at_a_time(tmp_path: Path) -> None:
    OPEN.clear()
    world = World(tmp_path)
    world.make()
    everyone = [*world.models.values(), world.judge]
    assert [model.n_open_most for model in everyone] == [1] * 5
    assert [model.n_open for model in everyone] == [1] * 5
    assert OPEN == []


def test_the_same_command_asks_nothing_again_and_writes_the_same_bytes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.make()
    before, asked = world.out.read_bytes(), world.asked()
    world.make()
    assert world.out.read_bytes() == before
    assert world.asked() == asked


def test_a_run_that_died_goes_on(tmp_path: Path) -> None:
    whole = World(tmp_path)
    whole.make()
    (tmp_path / "second").mkdir()
    world = World(tmp_path / "second")
    tries: list[str] = []

    def dies(question: str) -> str:
        tries.append(question)
        if len(tries) == 20:
            raise KeyboardInterrupt
        return str(rates_by(by_author)(question))

    world.judge.say = dies
    with pytest.raises(KeyboardInterrupt):
        world.make()
    assert not world.out.exists()
    world.make()
    assert world.out.read_bytes() == whole.out.read_bytes()
    assert all(len(model.asked) == 12 for model in world.models.values())
    assert len(tries) == 48 + 1  # the question it died of is the only one that was asked twice


def test_the_seed_and_the_order_of_the_prompts(tmp_path: Path) -> None:
    drawn = {}
    for name, seed, turned in (("one", 7, False), ("two", 7, True), ("three", 8, False)):
        (tmp_path / name).mkdir()
        rows = prompts(30)
        world = World(tmp_path / name, rows=rows[::-1] if turned else rows, seed=seed)
        world.make()
        drawn[name] = {row["prompt_id"]: (row["rejected_model"], row["order"]) for row in world.rows()}
    assert drawn["one"] == drawn["two"]
    assert drawn["one"] != drawn["three"]


# -- what the judge says --


def test_ratings_stay_with_their_texts_through_preambles_and_blank_lines(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.judge.say = rates_by(by_author, as_paragraphs)
    made = world.make()
    assert {row["chosen_model"] for row in world.rows()} == {"a"}
    assert made.report["ratings_missing"] == {}


def test_not_applicable_is_in_no_mean(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.judge.say = rates_by(lambda text, aspect: "N/A" if aspect == "honesty" else WORTH[text[0]])
    made = world.make()
    assert {row["chosen_rating"] for row in world.rows()} == {5.0}  # with -1 it would be (15 - 1) / 4 = 3.5
    assert made.report["ratings_missing"] == {"not_applicable": 12 * 4}
    assert made.report["prompts_asked_again"] == 0
    assert world.rows()[0]["ratings"][0]["honesty"] is None


def test_too_few_ratings_after_a_second_try_drop_the_prompt(tmp_path: Path) -> None:
    world = World(tmp_path)

    def silent_on_third(question: str) -> str:
        silent = "number 3." in instruction_in(question) and aspect_in(question) in ("honesty", "truthfulness")
        return "Hard to say." if silent else str(rates_by(by_author)(question))

    world.judge.say = silent_on_third
    made = world.make()
    assert made.report["dropped"] == {"few_ratings": 1}
    assert made.report["prompts_asked_again"] == 1
    assert len(world.judge.asked) == 48 + 2
    assert "p3" in world.lost()


def test_ties_are_dropped_or_drawn(tmp_path: Path) -> None:
    for ties, n_rows in (("drop", 0), ("seeded", 12)):
        (tmp_path / ties).mkdir()
        world = World(tmp_path / ties, ties=ties)
        world.judge.say = rates_by(lambda text, aspect: 5 if text[0] in "ab" else 2)
        if n_rows == 0:
            with pytest.raises(DataError, match=r"no pair came out of 12 prompts \(tie 12\), such as p0: a, b share"):
                world.make()
            assert not world.out.exists()
            continue
        world.make()
        assert {row["chosen_model"] for row in world.rows()} == {"a", "b"}
        assert all(row["chosen_rating"] > row["rejected_rating"] for row in world.rows())


def test_min_margin_keeps_only_rejected_texts_that_far_below(tmp_path: Path) -> None:
    world = World(tmp_path, 40, min_margin=3)
    world.make()
    assert {row["rejected_model"] for row in world.rows()} == {"c", "d"}  # 5 - 2 and 5 - 1


def test_a_text_that_could_forge_a_turn_is_dropped_with_its_reason(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.models["a"].say = lambda p: f"a {p}" + (" <|user|>\n" if "number 3." in p else "")
    world.make()
    assert world.lost()["p3"][0] == "template_token"
    (tmp_path / "open").mkdir()
    world = World(tmp_path / "open", allow_template_text=True)
    world.models["a"].say = lambda p: f"a {p} <|user|>\n"
    assert world.make().written.n_rows == 12


# -- what cannot be --


def test_a_judge_that_is_down_writes_nothing_and_the_same_command_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.judge.say = lambda question: FAILED
    with pytest.raises(Incomplete, match=r"requests failed for 12 of 12 prompts.*503 after 6 tries.*asks again"):
        world.make()
    assert not world.out.exists()
    n_answers = sum(len(model.asked) for model in world.models.values())
    world.judge.say = rates_by(by_author)
    world.make()
    assert len(world.rows()) == 12
    assert sum(len(model.asked) for model in world.models.values()) == n_answers


def test_answers_that_are_shifted_against_their_prompts_are_an_error(tmp_path: Path) -> None:
    """As if every model were sent the prompt before: the old defect, one row further."""
    world = World(tmp_path, 40)
    texts = [row["messages"][0]["content"] for row in prompts(40)]
    before = {text: texts[i - 1] for i, text in enumerate(texts)}
    for name, model in world.models.items():
        model.say = lambda prompt, name=name: f"{name} {before[prompt]}"  # type: ignore[misc]
    with pytest.raises(DataError, match=r"shifted against their prompts: those at offset \+1 rows"):
        world.make()
    assert not world.out.exists()
