"""What a preference file and its prompts may be; every problem is told at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import DataError, UsageError
from evalsuite.types import Message
from tests.train_plugins.data.preferring import NAMES, PAIR_FORM, World, prompts


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
