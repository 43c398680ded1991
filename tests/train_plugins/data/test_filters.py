"""Filters, prompts and licences: what each keeps, by tables of cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalsuite.errors import DataError, UsageError
from tests.train_plugins.data.mixing import make, row, source, write_mix, write_rows
from train_plugins.data.filters import Filters, language, reason, texts
from train_plugins.data.licences import LicenceRule, licence_problems, spelled
from train_plugins.data.prompts import (
    conversation_hash,
    normalised,
    prompt_hash,
    read_prompts,
    trained_on,
    write_prompts,
)

GERMAN = "Der Leuchtturm an der Küste half den Schiffen, nachts sicher in den Hafen zu finden."
ENGLISH = "The lighthouse on the coast helped the ships to find their way into the harbour at night."


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    said = {"role": "user", "content": prompt}
    return {
        "chosen": [said, {"role": "assistant", "content": chosen}],
        "rejected": [said, {"role": "assistant", "content": rejected}],
    }


@pytest.mark.parametrize(
    ("filters", "answer", "why"),
    [
        # The prompt "Why so?" has two words.
        ({"min_words": 4}, "One two.", ""),
        ({"min_words": 5}, "One two.", "too_short"),
        ({"max_words": 4}, "One two.", ""),
        ({"max_words": 3}, "One two.", "too_long"),
        ({"min_words": 0}, "One", ""),
        ({"drop_if_mentions": ("ChatGPT",)}, "I am chatgpt, yes.", "mentions"),
        ({"drop_if_mentions": ("ChatGPT",)}, "ChatGPTs are many.", ""),
        ({"drop_if_mentions": ("Open AI",)}, "Made by Open\n AI.", "mentions"),
        ({"drop_if_mentions": ("C++",)}, "Use C++ here", "mentions"),
        ({"drop_if_mentions": ("why",)}, "It is so.", ""),  # the prompt may mention it
        ({"language": ("en",)}, ENGLISH, ""),
        ({"language": ("en",)}, GERMAN, "language"),
        ({"language": ("de", "en")}, GERMAN, ""),
        ({"language": ("de",)}, "Ok.", ""),  # too short to tell
    ],
)
def test_a_filter_says_why_a_row_goes(filters: dict[str, Any], answer: str, why: str) -> None:
    assert reason(row("1", "Why so?", answer), Filters(**filters)) == why


def test_the_language_is_told_without_code_and_the_same_each_time() -> None:
    code = "```python\n" + "for index in range(number): print(index, number, answer)\n" * 20 + "```"
    told = row("1", GERMAN, f"Hier ist der Code dazu:\n{code}")
    assert [language(told) for _ in range(5)] == ["de"] * 5
    assert language(row("1", "?", code)) == ""


def test_of_a_pair_both_answers_have_a_length_and_only_the_chosen_one_is_learned() -> None:
    made = pair("Why so?", "One two three.", "Ask ChatGPT.")
    assert texts(made) == ["Why so?", "One two three.", "Ask ChatGPT."]
    assert reason(made, Filters(drop_if_mentions=("ChatGPT",))) == ""
    assert reason(made, Filters(max_words=6)) == "too_long"  # 2 + 3 + 2 = 7


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"language": ("english",)}, "no language 'english'"),
        ({"language": ("zh",)}, "no language 'zh'"),
        ({"min_words": 9, "max_words": 8}, "min_words is above max_words"),
        ({"drop_if_mentions": (" ",)}, "drop_if_mentions has an empty text"),
    ],
)
def test_filters_that_cannot_be_meant_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Filters(**options)


def test_a_source_filters_over_the_mix_and_every_row_that_goes_is_counted(tmp_path: Path) -> None:
    rows = [row("1", ENGLISH), row("2", GERMAN, GERMAN), row("3", "Say hi", "I am ChatGPT."), row("4", "No " * 50)]
    write_rows(tmp_path / "a.jsonl", rows)
    write_rows(tmp_path / "b.jsonl", [row("5", "Say ho", "ChatGPT here.")])
    filters = {"max_words": 40, "drop_if_mentions": ["ChatGPT"], "language": ["en"]}
    more = {"filters": {"drop_if_mentions": []}}
    meta = make(write_mix(tmp_path, source("a.jsonl"), source("b.jsonl", **more), filters=filters))
    assert meta["sources"][0]["dropped"] == {"language": 1, "mentions": 1, "too_long": 1}
    assert (meta["sources"][0]["left"], meta["sources"][1]["left"]) == (1, 1)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Why?", "why", True),
        ("Tell me,  please:\n why!", "tell me please why", True),
        ("Say “hello” now.", 'say "hello" now', True),
        ("ｆｕｌｌ width", "full width", True),
        ("What is 5*3?", "What is 5/3?", False),
        ("2+2", "2-2", False),
        ("कि", "के", False),  # vowel signs are no letters, and still make another word
        ("?", "!", False),
        ("a b", "ab", False),
    ],
)
def test_prompts_are_the_same_but_for_layout_case_and_closing_punctuation(one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same
    assert (prompt_hash(one) == prompt_hash(other)) is same


def test_conversations_are_the_same_when_the_user_says_the_same_in_each_turn() -> None:
    talk = {
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "a"},
            {"role": "user", "content": "b"},
        ]
    }
    other = {
        "messages": [
            {"role": "user", "content": "A"},
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": "b."},
        ]
    }
    joined = {"messages": [{"role": "user", "content": "a b"}]}
    assert conversation_hash(talk) == conversation_hash(other) != conversation_hash(joined)


def test_a_benchmark_that_came_later_is_looked_up_in_the_prompts_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "old.prompts"
    assert write_prompts(path, [prompt_hash(t) for t in ("What is 2+2?", "Who?", "what is 2+2")]) == 2
    assert trained_on(path, {"q1": "WHAT IS 2+2 ?", "q2": "What is 2+3?"}) == ("q1",)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="31 bytes are no hashes of 16 bytes"):
        read_prompts(path)


@pytest.mark.parametrize(
    ("licence", "forbid", "unknown", "told"),
    [
        ("Apache-2.0", ["CC-BY-NC-4.0"], "forbid", ""),
        ("cc-by-nc-4.0", ["CC-BY-NC-4.0"], "forbid", "the licence CC-BY-NC-4.0 is forbidden"),
        ("MIT AND CC-BY-NC-4.0", ["CC-BY-NC-4.0"], "forbid", "the licence CC-BY-NC-4.0 is forbidden"),
        ("unknown", [], "forbid", "the licence is unknown"),
        ("MIT AND unknown", [], "forbid", "the licence is unknown"),
        ("not stated", [], "allow", ""),
        ("LicenseRef-Llama-3", [], "forbid", ""),
        ("Apache 2", [], "forbid", "did you mean 'Apache-2.0'?; another one is written LicenseRef-Apache-2"),
        ("MIT", ["CC-NC"], "forbid", "licence.forbid: 'CC-NC' is no SPDX id"),
    ],
)
def test_licences_are_refused_by_id(licence: str, forbid: list[str], unknown: Any, told: str) -> None:
    found = "\n".join(licence_problems(LicenceRule(tuple(forbid), unknown), {"a": licence}))
    assert told in found
    assert bool(found) is bool(told)


def test_ids_are_spelled_as_spdx_does() -> None:
    assert [spelled(each) for each in ("ODC-BY-1.0", "apache-2.0", "", "unconfirmed")] == [
        "ODC-By-1.0",
        "Apache-2.0",
        "unknown",
        "unknown",
    ]
