"""preferences ↔ scripted models and judges, a server on the loopback interface, and a real folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalsuite.__main__ import main
from evalsuite.errors import DataError, Incomplete, UsageError
from evalsuite.types import Message, Response
from tests.scripted_lm import make_scripted
from tests.servers import Body, Reply, ScriptedServer, prompt_of
from tests.train_plugins.data.judging import (
    FAILED,
    OPEN,
    Scripted,
    as_json,
    as_paragraphs,
    aspect_in,
    instruction_in,
    rates_by,
    texts_in,
)
from train_plugins.data.agreement import Agreement, measure_agreement, read_judged
from train_plugins.data.asking import Engine, EngineOptions
from train_plugins.data.pref_config import JudgeOptions, PreferenceFile, read_preferences
from train_plugins.data.preferences import Made, grading_of, make_preferences
from train_plugins.data.responses import order_of_models
from train_plugins.data.rows import read_meta, read_rows

NAMES = ("a", "b", "c", "d")
WORTH = {"a": 5, "b": 4, "c": 2, "d": 1}
PAIR_FORM = {"form": "one_side_model"}


def word(prompt: str) -> str:
    """A word that only the answers to this prompt have."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:12]


def prompts(n: int) -> list[dict[str, Any]]:
    return [
        {"id": f"p{i}", "source": "s", "messages": [{"role": "user", "content": f"Say {word(str(i))} number {i}."}]}
        for i in range(n)
    ]


def answer_of(name: str) -> Callable[[str], str | Response]:
    return lambda prompt: f"{name} says: {prompt} It is done."


def by_author(text: str, aspect: str) -> int:
    return WORTH[text[0]]


class World:
    """A preference file in a folder with scripted models behind it."""

    def __init__(self, folder: Path, n: int = 12, *, rows: list[dict[str, Any]] | None = None, **more: Any) -> None:
        self.folder, self.out = folder, folder / "out.jsonl"
        self.models = {name: Scripted(name, answer_of(name)) for name in NAMES}
        self.judge = Scripted("judge", rates_by(by_author))
        self.raw: dict[str, Any] = {
            "schema": 1,
            "name": "pairs",
            "seed": 7,
            "licence": "ODC-By-1.0",
            "prompts": ["prompts.jsonl"],
            "models": [{"name": name, "model": f"hf:{name}", "on_policy": name == "a"} for name in NAMES],
            "judge": {"model": "hf:judge"},
        } | more
        lines = (json.dumps(row) + "\n" for row in (prompts(n) if rows is None else rows))
        (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")

    def file(self) -> PreferenceFile:
        path = self.folder / "prefs.yaml"
        path.write_text(yaml.safe_dump(self.raw), encoding="utf-8")
        return read_preferences(path)

    def make(self) -> Made:
        return make_preferences(self.file(), self.out, opening=self.opening)

    def opening(self, options: EngineOptions, where: Path) -> Engine:
        assert where == self.folder
        return (self.judge if isinstance(options, JudgeOptions) else self.models[options.target]).engine()

    def rows(self) -> list[dict[str, Any]]:
        return list(read_rows(self.out, "preference"))

    def lost(self) -> dict[str, tuple[str, str]]:
        lines = (self.folder / "out.jsonl.dropped.jsonl").read_text(encoding="utf-8").splitlines()
        return {row["id"]: (row["reason"], row["why"]) for row in map(json.loads, lines)}

    def asked(self) -> int:
        return len(self.judge.asked) + sum(len(model.asked) for model in self.models.values())


def belongs(row: Mapping[str, Any]) -> bool:
    """Whether both answers were written for the row's own prompt."""
    prompt = row["chosen"][0]["content"]
    return all(prompt in row[side][-1]["content"] for side in ("chosen", "rejected"))


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


def test_a_bad_file_says_everything_that_is_wrong(tmp_path: Path) -> None:
    world = World(tmp_path, seed="x", ties="dropp", responses={"n": 1}, sed=1)
    world.raw["judge"]["aspects"] = ["honesty"]
    world.raw["judge"]["model"] = "api:http://127.0.0.1/v1"
    world.raw["models"][1]["model"] = "hff:b"
    world.raw["models"][2]["weight"] = 0
    with pytest.raises(UsageError) as caught:
        world.file()
    told = str(caught.value)
    for part in (
        "prefs.yaml.seed: expected a whole number",
        "did you mean 'drop'?",
        "n is 1; a pair needs 2 or more",
        "unknown key 'sed'; did you mean 'seed'?",
        "needs served_model",
        "did you mean 'hf'?",
        "weight is 0; expected more than 0",
    ):
        assert part in told, part


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "too few models": ({"responses": {"n": 5}}, "5 answers of different models are wanted"),
    "no side": ({"responses": PAIR_FORM, "models": [{"name": n, "model": f"hf:{n}"} for n in NAMES]}, "no such two"),
    "two of a name": ({"models": [{"name": "a", "model": f"hf:{n}"} for n in NAMES]}, "'a' is there 4 times"),
    "no licence": ({"licence": " "}, "licence is empty"),
    "another schema": ({"schema": 2}, "schema is 2; this version reads 1"),
    "no prompts": ({"prompts": []}, "prompts is empty"),
    "least": ({"responses": {"at_least": 1}}, "at_least is 1; expected 2 to 4"),
    "aspects": ({"judge": {"model": "hf:j", "min_aspects": 5}}, "min_aspects is 5; expected 1 to 4"),
    "no such aspect": ({"judge": {"model": "hf:j", "aspects": ["honest"]}}, "did you mean 'honesty'?"),
    "a cost for all without prices": (
        {"max_cost_usd": 5, "judge": {"model": "api:http://h/v1", "served_model": "m"}},
        "max_cost_usd needs prices (a YAML file) for judge",
    ),
    "cost without prices": (
        {"judge": {"model": "api:http://h/v1", "served_model": "m", "max_cost_usd": 4}},
        "max_cost_usd needs prices",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, name: str) -> None:
    more, why = REFUSED[name]
    with pytest.raises(UsageError, match=re.escape(why)):
        World(tmp_path, **more).file()


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


KINDS: dict[str, tuple[dict[str, Any], tuple[Message, ...]]] = {
    "only a prompt": ({"messages": [turn("user", "q")]}, (Message("user", "q"),)),
    "sft": ({"messages": [turn("user", "q"), turn("assistant", "a")]}, (Message("user", "q"),)),
    "sft of two exchanges": (
        {"messages": [turn("user", "q"), turn("assistant", "a"), turn("user", "r"), turn("assistant", "b")]},
        (Message("user", "q"), Message("assistant", "a"), Message("user", "r")),
    ),
    "preference": (
        {
            "chosen": [turn("system", "s"), turn("user", "q"), turn("assistant", "a")],
            "rejected": [turn("system", "s"), turn("user", "q"), turn("assistant", "b")],
        },
        (Message("system", "s"), Message("user", "q")),
    ),
    "rlvr": (
        {"messages": [turn("user", "q")], "ground_truth": "4", "dataset": "gsm8k"},
        (Message("user", "q"),),
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_prompts_come_from_rows_of_any_kind(tmp_path: Path, name: str) -> None:
    from train_plugins.data.preferences import load_prompts

    row, expected = KINDS[name]
    found, n_repeated = load_prompts(World(tmp_path, rows=[row]).file())
    assert [prompt.messages for prompt in found] == [expected]
    assert n_repeated == 0


def test_prompts_that_cannot_be_used_are_all_named(tmp_path: Path) -> None:
    rows = [*prompts(1), {"messages": [turn("assistant", "a")]}, {"text": "x"}, {"messages": [turn("user", " ")]}]
    with pytest.raises(DataError) as caught:
        World(tmp_path, rows=rows).make()
    told = str(caught.value)
    assert "3 of 4 rows cannot be used" in told
    for part in ("prompts.jsonl:2: role_order", "prompts.jsonl:3: missing_field", "prompts.jsonl:4: empty_content"):
        assert part in told


def test_the_same_prompt_twice_counts_once_and_one_id_for_two_is_an_error(tmp_path: Path) -> None:
    made = World(tmp_path, rows=[*prompts(12), prompts(12)[0]]).make()
    assert (made.report["prompts"], made.report["repeated_prompts"]) == (12, 1)
    (tmp_path / "two").mkdir()
    with pytest.raises(DataError, match="two prompts have the id 'p0'"):
        World(tmp_path / "two", rows=[*prompts(2), {**prompts(2)[1], "id": "p0"}]).make()


# -- agreement with people --


def judged(n: int) -> list[dict[str, Any]]:
    """Rows whose better output says "good"; it is output 1 in even rows."""
    rows = []
    for i in range(n):
        good, bad = f"good {i}", f"bad {i}"
        first = i % 2 == 0
        texts = {"output_1": good if first else bad, "output_2": bad if first else good}
        rows.append({"input": f"q {i}", **texts, "label": 1 if first else 2, "subset": "even" if first else "odd"})
    return rows


def test_agreement_is_counted_by_subset_with_ties_and_failures_apart(tmp_path: Path) -> None:
    def said(question: str) -> str | Response:
        number = int(instruction_in(question).split()[1])
        if number == 0:
            return as_json(dict.fromkeys(texts_in(question), 3))  # a tie
        if number == 2:
            return FAILED
        right = number not in (4, 5)
        return as_json({n: 5 if t.startswith("good") == right else 1 for n, t in texts_in(question).items()})

    world = World(tmp_path)
    world.judge.say = said
    found = measure_agreement(judged(10), grading_of(world.file(), world.judge.engine(), tmp_path / "j"))
    assert found["all"] == Agreement(10, 6, 2, 1, 1)
    assert found["even"] == Agreement(5, 2, 1, 1, 1)
    assert found["odd"] == Agreement(5, 4, 1, 0, 0)
    assert found["all"].share == 6 / 8
    # Wilson, p 0.75, n 8, z 1.95996: (0.75 + z²/16 ± z √(0.1875/8 + (z/16)²)) / (1 + z²/8)
    # = (0.990091 ± 0.384290) / 1.480182
    assert found["all"].interval == pytest.approx((0.409275, 0.928521), abs=1e-5)


def test_a_judge_that_prefers_the_first_it_sees_agrees_by_chance(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.judge.say = lambda question: as_json({1: 5, 2: 1})
    found = measure_agreement(judged(200), grading_of(world.file(), world.judge.engine(), tmp_path / "j"))
    low, high = found["all"].interval or (0, 0)
    assert low < 0.5 < high


def test_no_decided_row_has_no_share() -> None:
    assert Agreement(2, 0, 0, 1, 1).as_json() == {
        "n": 2, "agree": 0, "disagree": 0, "ties": 1, "failed": 1, "agreement": None, "low": None, "high": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"input": "q", "output_1": "a", "label": 1}, "no output_2"),
        ({"input": "q", "output_1": "a", "output_2": "b", "label": 3}, "label is 3"),
        ({"input": "q", "output_1": "a", "output_2": 4, "label": 1}, "output_2 is no text"),
        ([], "no object"),
    ],
)
def test_a_file_without_choices_is_refused(tmp_path: Path, row: Any, why: str) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(json.dumps(judged(1)[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=rf"j\.jsonl:2: .*{why}"):
        read_judged(path)


# -- the command, with a server --


def judge_server(rating: Callable[[str, str], Any], n_prompt: int = 100) -> ScriptedServer:
    """Models answer a prompt under their names; whatever is asked with "Grade one thing only" is judged."""

    def script(body: Body, attempt: int) -> Reply | None:
        prompt = prompt_of(body)
        said = rates_by(rating)(prompt) if "Grade one thing only" in prompt else f"{body['model']} says: {prompt}"
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}
        return Reply({"choices": [choice], "usage": {"prompt_tokens": n_prompt, "completion_tokens": 10}})

    return ScriptedServer(script=script)


def served(tmp_path: Path, url: str, **judge: Any) -> Path:
    world = World(tmp_path, judge={"model": f"api:{url}", "served_model": "j"} | judge)
    for model in world.raw["models"]:
        model |= {"model": f"api:{url}", "served_model": model["name"]}
    world.file()
    return tmp_path / "prefs.yaml"


def test_the_command_writes_pairs_from_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.jsonl"
    with judge_server(by_author) as server:
        path = served(tmp_path, server.url)
        assert main(["data", "preferences", str(path), "-o", str(out), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        n_asked = len(server.asked())
        assert main(["data", "preferences", str(path), "-o", str(out)]) == 0
        assert len(server.asked()) == n_asked == 12 * 4 + 12 * 4
        path.write_text(path.read_text().replace("seed: 7", "seed: 8"))
        assert main(["data", "preferences", str(path), "-o", str(out)]) == 2
        assert len(server.asked()) == n_asked
    assert (report["pairs"], report["on_policy_share"]) == (12, 0.5)
    table, refused = capsys.readouterr()
    assert "12 pairs" in table
    assert "model a" in table
    assert "was not made by this file; name another with -o, or add --overwrite" in refused
    assert all(belongs(row) for row in read_rows(out, "preference"))
    assert read_meta(out)["made"]["command"] == "evalsuite data preferences prefs.yaml -o out.jsonl"


def test_a_limit_in_dollars_stops_the_command_and_a_higher_one_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jsonl"
    (tmp_path / "prices.yaml").write_text("j: {read: 100, written: 100, dated: 2026-08-01}\n")
    bounds: dict[str, Any] = {"prices": "prices.yaml", "max_tokens": 10, "concurrency": 1}
    with judge_server(by_author) as server:
        # A question has more than 1,000 bytes: its worst case is more than 500 tokens, or 5 cents; it takes 110.
        path = served(tmp_path, server.url, max_cost_usd=0.3, **bounds)
        assert main(["data", "preferences", str(path), "-o", str(out)]) == 3
        told = capsys.readouterr().err
        assert "--max-cost-usd 0.3 would be crossed" in told
        assert not out.exists()
        n_before = len(server.asked())
        path = served(tmp_path, server.url, max_cost_usd=50, **bounds)
        assert main(["data", "preferences", str(path), "-o", str(out)]) == 0
        assert len(server.asked()) == 96
        assert n_before > 48
    assert len(list(read_rows(out, "preference"))) == 12


def test_one_limit_holds_for_all_models_and_all_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each question takes 20 + 10 tokens here: 48 answers 1,440, of which 1,000 are 33.3."""
    out = tmp_path / "out.jsonl"
    with judge_server(by_author, 20) as server:
        path = served(tmp_path, server.url)
        raw = yaml.safe_load(path.read_text())
        for each in (*raw["models"], raw["judge"]):
            each |= {"max_tokens": 10, "concurrency": 1}

        def run(limit: int) -> int:
            path.write_text(yaml.safe_dump(raw | {"max_tokens_total": limit}))
            return main(["data", "preferences", str(path), "-o", str(out)])

        assert run(1000) == 3
        assert "the file's max_tokens_total 1000, less what other models have used" in capsys.readouterr().err
        n_first = len(server.asked())
        assert 30 <= n_first <= 33  # a question is only asked when its worst case fits
        assert run(1000) == 3
        assert len(server.asked()) == n_first
        assert run(40_000) == 0
        assert len(server.asked()) == 96
    assert len(list(read_rows(out, "preference"))) == 12


def test_a_dry_run_asks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = served(tmp_path, "http://127.0.0.1:9/v1")
    assert main(["data", "preferences", str(path), "--dry-run", "--limit", "5"]) == 0
    told = capsys.readouterr().out
    assert "answers" in told
    assert "Text 4:" in told
    assert main(["data", "preferences", str(path), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["prompts"], plan["answers"], plan["ratings_asked"]) == (12, 48, 48)


def test_the_command_refuses_what_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "preferences", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    path = served(tmp_path, "http://127.0.0.1:9/v1")
    assert main(["data", "preferences", str(path), "-o", str(tmp_path / "out.txt")]) == 2
    assert "its name ends in none of" in capsys.readouterr().err


def test_the_command_measures_agreement_on_llmbar(
    tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = shared_data / "train" / "preference" / "llmbar.jsonl"
    if not file.is_file():
        pytest.skip(f"real data is absent: {file}")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()][:60]
    better = {" ".join(row[f"output_{row['label']}"].split()) for row in rows}
    with judge_server(lambda text, aspect: 5 if " ".join(text.split()) in better else 2) as server:
        path = served(tmp_path, server.url)
        arguments = ["data", "preferences", str(path), "-o", str(tmp_path / "o.jsonl"), "--agreement", str(file)]
        assert main([*arguments, "--limit", "60", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)["subsets"]
        assert main([*arguments, "--limit", "60"]) == 0
        assert len(server.asked()) == 60 * 4
    assert found["all"]["n"] == 60
    assert found["all"]["agreement"] > 0.95  # not 1: outputs with broken control strings are other texts
    assert sum(each["n"] for name, each in found.items() if name != "all") == 60
    assert "agreement without ties" in capsys.readouterr().out


@pytest.mark.slow
def test_local_folders_answer_and_judge(tmp_path: Path) -> None:
    """Real engines: two models that say one thing each, and a judge that always prefers the text it sees first."""
    for name, said in (("x", "This is x."), ("y", "That is y."), ("j", as_json({1: 5, 2: 1}))):
        make_scripted(tmp_path / name, said)
    raw = World(tmp_path, 6).raw
    raw["models"] = [{"name": name, "model": f"hf:{name}", "dtype": "float32"} for name in ("x", "y")]
    raw |= {"responses": {"n": 2, "max_tokens": 8}, "judge": {"model": "hf:j", "max_tokens": 8}}
    path = tmp_path / "prefs.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    made = make_preferences(read_preferences(path), tmp_path / "out.jsonl")
    rows = list(read_rows(tmp_path / "out.jsonl", "preference"))
    assert len(rows) == 6
    assert all([row["chosen_model"], row["rejected_model"]] == row["order"] for row in rows)
    assert {row["chosen"][-1]["content"] for row in rows} <= {"This is x.", "That is y."}
    models = read_meta(tmp_path / "out.jsonl")["made"]["models"]
    assert models["x"]["weights"] != models["y"]["weights"]
    assert made.report["cost_usd"] == 0


def test_the_prompts_are_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with judge_server(by_author) as server:
        path = served(tmp_path, server.url)
        (name,) = yaml.safe_load(path.read_text())["prompts"]
        before = (tmp_path / name).read_bytes()
        assert main(["data", "preferences", str(path), "-o", str(tmp_path / name), "--overwrite"]) == 2
        assert server.asked() == []
    assert "holds the prompts; name another file with -o" in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before
