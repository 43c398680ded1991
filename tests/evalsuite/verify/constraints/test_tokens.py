"""Tokens with their marks: the same as nltk's NLTKWordTokenizer gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.constraints.sentences import split_sentences
from evalsuite.verify.constraints.tokens import split_tokens, tokens_of

_WORDS = "a B can not cannot wanna 'tis 'twas 't d'ye more'n gimme s ll n't don't Don'T x 1 2.5 é _"
_MARKS = ". .. ... , : ; \" ' '' `` ` ( ) [ ] { } < > “ ” ‘ ’ « » „ ! ? * - -- --- – — @ # $ % & / \\"
PIECES = st.sampled_from([*_WORDS.split(), *_MARKS.split(), " ", " ", "  ", "\n", "\t", "\u00a0"])


@pytest.mark.parametrize(
    ("sentence", "tokens"),
    [
        ("I can't stop.", "I ca n't stop ."),
        ('"Go," he said (twice).', "`` Go , '' he said ( twice ) ."),
        ("We cannot pay $3.50, sorry!", "We can not pay $ 3.50 , sorry !"),
        ("Mr. Ito's dog... it's 10:30", "Mr. Ito 's dog ... it 's 10:30"),
        ("well-known -- or not", "well-known -- or not"),
        ("I wanna", "I wan na"),
        ("I cannot.", "I can not ."),
        (".", "."),
        ("", ""),
    ],
)
def test_tokens(sentence: str, tokens: str) -> None:
    assert split_tokens(sentence) == tokens.split()


def test_a_text_is_cut_into_sentences_first() -> None:
    assert tokens_of("Go on. Stop.") == ["Go", "on", ".", "Stop", "."]
    assert split_tokens("Go on. Stop.") == ["Go", "on.", "Stop", "."]


@given(st.lists(PIECES, max_size=25).map("".join))
@settings(max_examples=600, deadline=None)
def test_tokens_equal_nltks_on_any_mix_of_marks(sentence: str) -> None:
    nltk = pytest.importorskip("nltk")
    assert split_tokens(sentence) == nltk.NLTKWordTokenizer().tokenize(sentence)


def test_tokens_equal_nltks_on_real_answers(hub_data: Path) -> None:
    tokenize = pytest.importorskip("nltk").NLTKWordTokenizer().tokenize
    baseline = hub_data / "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline"
    outputs = [json.loads(line)["output"] for path in baseline.glob("*.jsonl") for line in path.open(encoding="utf-8")]
    sentences = [sentence for output in outputs[:200] for sentence in split_sentences(output)]
    assert len(sentences) > 1000
    assert [s for s in sentences if split_tokens(s) != tokenize(s)] == []
