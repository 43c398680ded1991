"""lm-eval's own IFEval checker, made to run offline: what ours is compared with. Only tests may import this."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from evalsuite.verify.constraints.sentences import split_sentences

CASES = Path(__file__).resolve().parents[4] / "benchmarks" / "ifeval" / "cases.jsonl"


def cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


def bodies(response: str) -> list[str]:
    """A response and what a model might have made of it: a polite opening, bold, a fence, capitals, one line less."""
    return [
        response,
        f"Sure, here you are:\n{response}",
        f"{response}\nI hope this helps, bye!",
        f"**{response}**",
        f"```\n{response}\n```",
        response.upper(),
        response.partition("\n")[2],
        f"{response}\n\n{response}",
    ]


@functools.cache
def upstream() -> ModuleType:
    """`lm_eval.tasks.ifeval.utils`. Its import would download punkt, and its sentence splitter needs those data.

    Sentences come from our splitter instead, words from nltk's real tokenizer, languages from langdetect with seed 0.
    """
    import langdetect
    import nltk
    from nltk.tokenize.destructive import NLTKWordTokenizer

    with mock.patch.object(nltk.data, "find", return_value="here"):
        from lm_eval.tasks.ifeval import instructions_util, utils
    tokenizer = NLTKWordTokenizer()
    instructions_util._get_sentence_tokenizer = lambda: SimpleNamespace(tokenize=split_sentences)
    instructions_util.nltk = SimpleNamespace(
        tokenize=nltk.tokenize,
        word_tokenize=lambda text: [w for s in split_sentences(text) for w in tokenizer.tokenize(s)],
    )
    langdetect.DetectorFactory.seed = 0
    return utils


def official(response: str, ids: Sequence[str], kwargs: Sequence[Mapping[str, Any]]) -> tuple[list[bool], list[bool]]:
    """(strict, loose) verdicts of lm-eval's code, one for each instruction."""
    utils = upstream()
    row = utils.InputExample(key=0, instruction_id_list=list(ids), prompt="", kwargs=[dict(k) for k in kwargs])
    judges: tuple[Callable[..., Any], ...] = (
        utils.test_instruction_following_strict,
        utils.test_instruction_following_loose,
    )
    strict, loose = (judge(row, response).follow_instruction_list for judge in judges)
    return strict, loose
