"""Every verdict of the 25 checks against lm-eval's own code, and the linear scans against the regexes they replace."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.constraints import IFEVAL_IDS, all_constraints, followed_both
from evalsuite.verify.constraints.ifeval_answers import answer
from evalsuite.verify.constraints.ifeval_format import bullets, json_format, placeholders, title
from evalsuite.verify.constraints.ifeval_length import number_of_words
from tests.evalsuite.verify.constraints.oracle import bodies, cases, official

# Identifying a language takes milliseconds for each of up to eight texts, on both sides.
SLOW = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")


def asked() -> list[tuple[str, dict[str, Any]]]:
    """Every (id, parameters) of the hand-written cases, once; without '#', for which upstream draws a random letter."""
    found = {}
    for case in cases():
        for id, named in zip(case["doc"]["instruction_id_list"], case["doc"]["kwargs"], strict=True):
            kwargs = {k: v for k, v in named.items() if v is not None}
            if kwargs.get("letter") != "#":
                found[id, json.dumps(kwargs, sort_keys=True)] = (id, kwargs)
    return list(found.values())


def compare(id: str, asks: Iterable[dict[str, Any]], responses: Iterable[str]) -> Counter[str]:
    """How many verdicts there were of each kind; fails on the first that is not lm-eval's."""
    seen: Counter[str] = Counter()
    texts = list(responses)
    for kwargs in asks:
        for text in texts:
            strict, loose = followed_both(text, [id], [kwargs])
            ours = ([c.ok for c in strict], [c.ok for c in loose])
            assert ours == official(text, [id], [kwargs]), (id, kwargs, text)
            seen["pass" if loose[0].ok else "fail"] += 1
    return seen


def test_the_registry_has_the_25_ids_of_ifeval() -> None:
    assert len(IFEVAL_IDS) == len(set(IFEVAL_IDS)) == 25
    assert set(IFEVAL_IDS) <= set(all_constraints())
    from tests.evalsuite.verify.constraints.oracle import upstream

    upstream()
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    assert set(IFEVAL_IDS) == set(INSTRUCTION_DICT)


def test_every_check_says_in_one_line_what_it_checks() -> None:
    for id in IFEVAL_IDS:
        about = all_constraints()[id].about
        assert about.endswith("."), id
        assert len(about) < 120, id


@pytest.mark.parametrize("id", [i for i in IFEVAL_IDS if i not in SLOW])
def test_verdicts_equal_lm_evals_on_every_handmade_response(id: str) -> None:
    asks = [kwargs for name, kwargs in asked() if name == id]
    texts = dict.fromkeys(text for case in cases() for text in bodies(case["response"]))
    made = [answer([id], [kwargs]) for kwargs in asks]
    texts |= dict.fromkeys(f"{opening}{text}" for whole in made for text in bodies(whole) for opening in ("", "So: "))
    seen = compare(id, asks, texts)
    assert sum(seen.values()) >= 500
    assert min(seen["pass"], seen["fail"]) >= 20


@pytest.mark.parametrize("id", SLOW)
def test_verdicts_that_need_a_language_equal_lm_evals(id: str) -> None:
    texts = dict.fromkeys(
        text for case in cases() if case["doc"]["instruction_id_list"][0] in SLOW for text in bodies(case["response"])
    )
    seen = compare(id, [kwargs for name, kwargs in asked() if name == id], texts)
    assert sum(seen.values()) >= 75
    assert min(seen["pass"], seen["fail"]) >= 6


@pytest.mark.slow
def test_verdicts_equal_lm_evals_on_real_prompts_and_real_answers(hub_data: Path) -> None:
    rows = [json.loads(line) for line in (hub_data / "google/IFEval/default/train.jsonl").open(encoding="utf-8")]
    baseline = hub_data / "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline"
    written = [json.loads(line)["output"] for path in baseline.glob("*.jsonl") for line in path.open(encoding="utf-8")]
    verdicts: Counter[tuple[str, bool]] = Counter()
    for row, output in zip(rows, written, strict=False):
        ids, kwargs = row["instruction_id_list"], row["kwargs"]
        if any(k.get("letter") in ("#", "!") for k in kwargs):
            continue
        made = answer(ids, kwargs)
        slow = any(id in SLOW for id in ids)
        for text in (output, made, made.partition("\n")[2]) if slow else (output, *bodies(made)):
            strict, loose = followed_both(text, ids, kwargs)
            assert ([c.ok for c in strict], [c.ok for c in loose]) == official(text, ids, kwargs), (row["key"], text)
            verdicts.update((c.id, c.ok) for c in loose)
    assert all(verdicts[id, True] and verdicts[id, False] for id in IFEVAL_IDS), verdicts


@pytest.mark.parametrize(
    ("text", "n_words", "n_words_from_nltk_3_10_on"),
    [("½ cup, 2² cups", 4, 3), ("हिन्दी", 3, 1), ("cafe\u0301s", 2, 1), ("snake_case and don't", 4, 4)],
)
def test_words_are_what_nltk_up_to_3_9_counts(text: str, n_words: int, n_words_from_nltk_3_10_on: int) -> None:
    assert number_of_words(text, n_words, "at least") is None
    assert number_of_words(text, n_words + 1, "less than") is None
    from lm_eval.tasks.ifeval.instructions_util import count_words

    assert count_words(text) in (n_words, n_words_from_nltk_3_10_on)


LAYOUT = st.text(alphabet='*- \n\t[]<>a"{}\x0b\u2028', max_size=40)


@given(LAYOUT)
@settings(max_examples=1500, deadline=None)
def test_linear_scans_count_what_the_regexes_count(text: str) -> None:
    stars = re.findall(r"^\s*\*[^\*].*$", text, flags=re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, flags=re.MULTILINE)
    assert bullets(text, len(stars) + len(dashes)) is None
    n = len(re.findall(r"\[.*?\]", text))
    assert placeholders(text, n) is None
    assert placeholders(text, n + 1) is not None
    titles = re.findall(r"<<[^\n]+>>", text)
    assert (title(text) is None) == any(t.lstrip("<").rstrip(">").strip() for t in titles)


def test_deeply_nested_json_is_refused_whatever_the_depth_of_the_caller() -> None:
    assert json_format("[" * 500 + "]" * 500) is None
    assert json_format("[" * 501 + "]" * 501) == "JSON nested deeper than 500"
    assert json_format("[" * 500_000) == "JSON nested deeper than 500"
    assert json_format(json.dumps(["[" * 900])) is None  # inside a string they nest nothing
