"""Asking engines with a journal: what is stored, what is asked again, what is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import CheckpointError, EvalsuiteError, Incomplete, UsageError
from evalsuite.models.fake import FakeModel
from evalsuite.trainers.options import parse
from evalsuite.types import Message, Sampling
from tests.servers import Reply, ScriptedServer
from train_plugins.data.asking import Answered, Engine, EngineOptions, Question, ask, open_engine, seed_of

SAMPLING = Sampling(32, temperature=0.7, seed=5)


def question(key: str, text: str = "", sampling: Sampling = SAMPLING) -> Question:
    return Question(key, (Message("user", text or f"say {key}"),), sampling)


def fake(identity: str = "a", **options: Any) -> tuple[Engine, list[FakeModel]]:
    """An engine, and every model that it opens."""
    opened: list[FakeModel] = []

    def open_model() -> FakeModel:
        opened.append(FakeModel(answers=lambda r: f"{r.prompt.messages[-1].content}!", **options))
        return opened[-1]

    return Engine("fake", {"weights": identity}, open_model), opened


def answers(engine: Engine, questions: Sequence[Question], journal: Path) -> dict[str, Answered]:
    return {q.key: a for q, a in ask(engine, questions, journal)}


def served(url: str, **options: Any) -> EngineOptions:
    return EngineOptions(f"api:{url}", served_model="m", **options)


def test_every_question_is_answered_once_and_never_asked_again(tmp_path: Path) -> None:
    questions = [question(f"q{i}") for i in range(20)]
    first, _ = fake()
    found = answers(first, questions, tmp_path)
    assert {key: a.text for key, a in found.items()} == {f"q{i}": f"say q{i}!" for i in range(20)}
    again, opened = fake()
    assert answers(again, questions, tmp_path) == found
    assert opened == []  # nothing was left, so no model was loaded


def test_only_what_is_new_is_asked(tmp_path: Path) -> None:
    engine, _ = fake()
    answers(engine, [question("a"), question("b")], tmp_path)
    with ScriptedServer() as server:
        api = open_engine(served(server.url))
        answers(api, [question("a"), question("b")], tmp_path)
        answers(api, [question("a"), question("b"), question("c")], tmp_path)
        api.close()
        # Two of the first call: another engine answers for itself. One of the second.
        assert sorted(body["messages"][0]["content"] for body in server.asked()) == ["say a", "say b", "say c"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(question("q", "another text"), id="messages"),
        pytest.param(question("q2", "say q"), id="key"),
        pytest.param(question("q", sampling=replace(SAMPLING, seed=6)), id="seed"),
        pytest.param(question("q", sampling=replace(SAMPLING, temperature=0.8)), id="temperature"),
    ],
)
def test_what_an_answer_depends_on_is_part_of_its_key(tmp_path: Path, other: Question) -> None:
    engine, opened = fake()
    answers(engine, [question("q")], tmp_path)
    engine.close()
    answers(engine, [other], tmp_path)
    assert len(opened) == 2


def test_another_model_answers_for_itself(tmp_path: Path) -> None:
    answers(fake("a")[0], [question("q")], tmp_path)
    other, opened = fake("b")
    answers(other, [question("q")], tmp_path)
    assert len(opened) == 1


def test_a_failed_answer_is_no_answer_and_is_asked_for_again(tmp_path: Path) -> None:
    questions = [question(f"q{i}") for i in range(6)]
    broken, _ = fake(fail_every=3)
    failed = {key for key, a in answers(broken, questions, tmp_path).items() if a.finish == "error"}
    assert len(failed) == 2  # of 6, every third
    whole, opened = fake()
    assert all(a.finish == "stop" for a in answers(whole, questions, tmp_path).values())
    assert len(opened) == 1


def test_a_crash_in_the_middle_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    questions = [question(f"q{i}") for i in range(10)]
    seen: list[str] = []
    dying, _ = fake(crash_after=4)
    with pytest.raises(RuntimeError, match="fake"):
        seen.extend(q.key for q, _ in ask(dying, questions, tmp_path))
    assert len(seen) == 4
    whole, _ = fake()
    order = [q.key for q, _ in ask(whole, questions, tmp_path)]
    assert sorted(order[:4]) == sorted(seen)  # what was there comes first
    assert sorted(order) == sorted(q.key for q in questions)


def test_two_equal_questions_are_refused(tmp_path: Path) -> None:
    engine, _ = fake()
    with pytest.raises(UsageError, match="the question 'q' is asked twice"):
        answers(engine, [question("p"), question("q"), question("q")], tmp_path)


def test_a_template_that_refuses_system_turns_gets_them_merged(tmp_path: Path) -> None:
    class NoSystem(FakeModel):
        def render(self, messages: Any, add_generation_prompt: bool = True) -> str:
            if messages[0]["role"] == "system":
                raise CheckpointError("no system turns")
            return super().render(messages, add_generation_prompt)

    engine = Engine("fake", {}, lambda: NoSystem(answers=lambda r: r.prompt.text))
    turns = (Message("system", "be brief"), Message("user", "hello"))
    found = answers(engine, [Question("q", turns, SAMPLING)], tmp_path)
    assert found["q"].text == "<|user|>\nbe brief\n\nhello\n<|assistant|>\n"


PRICES = "m: {read: 1000000, written: 2000000, dated: 2026-01-01}\n"  # a dollar a token read, two for one written


def test_dollars_are_counted_over_all_starts(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(PRICES)
    (tmp_path / "j").mkdir()
    with ScriptedServer() as server:  # each answer: "say a" is 2 words + 1 = 3 tokens read, 3 written, so 9 dollars
        options = served(server.url, prices="prices.yaml", max_cost_usd=105.0)
        with open_engine(options, tmp_path) as engine:
            first = answers(engine, [question("a"), question("b")], tmp_path / "j")
        assert sum(a.cost_usd for a in first.values()) == 18.0
        # Reserved for the next: 24 bytes of transcript / 2 + 8 = 20 tokens read and 32 written, 84 dollars. 18 + 84 is
        # within 105, 27 + 84 is not.
        with open_engine(options, tmp_path) as engine:
            answers(engine, [question("c")], tmp_path / "j")
        with open_engine(options, tmp_path) as engine, pytest.raises(Incomplete, match="max-cost-usd 105"):
            answers(engine, [question("d")], tmp_path / "j")
        assert len(server.asked()) == 3
        with open_engine(replace(options, max_cost_usd=200.0), tmp_path) as engine:
            assert answers(engine, [question("d")], tmp_path / "j")["d"].finish == "stop"


def test_failed_requests_do_not_stop_the_others(tmp_path: Path) -> None:
    refuse = Reply({"error": "no"}, 400)
    with ScriptedServer(lambda body, n: refuse if "say b" in str(body["messages"]) else None) as server:
        with open_engine(served(server.url, concurrency=1)) as engine:
            found = answers(engine, [question("a"), question("b"), question("c")], tmp_path)
        assert [found[key].finish for key in "abc"] == ["stop", "error", "stop"]
        assert "400" in found["b"].why


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"model": "gpt-4o"}, "expected api:URL, hf:FOLDER or vllm:FOLDER"),
        ({"model": "vlm:x"}, "did you mean 'vllm'"),
        ({"model": "api:http://127.0.0.1:1/v1"}, "needs served_model"),
        ({"model": "hf:x", "served_model": "m", "prices": "p"}, "served_model, prices is for api: models"),
        ({"model": "api:u", "served_model": "m", "max_cost_usd": 1.0}, "max_cost_usd needs prices"),
        ({"model": "hf:x", "temperature": -1.0}, "temperature is -1.0; expected 0 or more"),
        ({"model": "hf:x", "temprature": 1.0}, "unknown key 'temprature'; did you mean 'temperature'"),
    ],
)
def test_options_that_cannot_be_are_named(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(EngineOptions, raw, "engine")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (EngineOptions("hf:nowhere"), "nowhere"),
        (EngineOptions("api:ftp://x", served_model="m"), "no base URL"),
        (EngineOptions("api:https://x/v1", served_model="m", api_key_env="UNSET_KEY_NAME"), "UNSET_KEY_NAME"),
    ],
)
def test_an_engine_that_cannot_be_opened_says_why_before_anything_is_asked(options: EngineOptions, said: str) -> None:
    with pytest.raises(EvalsuiteError) as caught:
        open_engine(options)
    assert said in str(caught.value)


def test_a_port_on_this_machine_is_no_part_of_the_identity() -> None:
    one, other = served("http://127.0.0.1:1/v1"), served("http://localhost:2/v1")
    assert open_engine(one).digest == open_engine(other).digest
    assert open_engine(one).digest != open_engine(replace(one, served_model="n")).digest


def test_seeds_depend_on_all_parts_alone() -> None:
    assert seed_of(1, "a") == seed_of(1, "a") != seed_of(1, "b")
    assert seed_of("ab", "c") != seed_of("a", "bc")
    assert all(0 <= seed_of(i) < 2**63 for i in range(100))
