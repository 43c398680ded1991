"""The quick detector says what langdetect's own says, with the same probabilities to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.constraints.identify import quick_class
from evalsuite.verify.constraints.language_tools import _langdetect

pytest.importorskip("langdetect")
LANGUAGES = {
    "en": "The quick brown fox jumps over the lazy dog, and NASA sees it from far away. E-mail me@example.org at once!",
    "de": "Über den Wolken muss die Freiheit wohl grenzenlos sein, so hat es einer gesungen, den hier viele kennen.",
    "vi": "Chúng tôi rất vui được gặp các bạn ở Hà Nội trong mùa thu năm nay.",
    "ru": "Мы очень рады видеть вас в нашем городе этой осенью.",
    "ja": "これは短い日本語の文章です。カタカナもあります。",
    "ko": "우리는 이번 가을에 여러분을 만나서 매우 기쁩니다.",
    "ar": "نحن سعداء جدا برؤيتكم في مدينتنا هذا الخريف",
    "hi": "हम इस शरद ऋतु में आपसे मिलकर बहुत खुश हैं।",
}
ALPHABET = st.characters(codec="utf-8", max_codepoint=0x1FFF) | st.sampled_from(list("aAbB éÉ  .日本かカ한ş"))


def probabilities(text: str, quick: bool) -> list[tuple[str, float]] | str:
    factory = _langdetect()
    detector: Any = factory.create()
    if quick:
        detector.__class__ = quick_class(factory)
    detector.append(text)
    try:
        return [(p.lang, p.prob) for p in detector.get_probabilities()]
    except Exception as error:
        return str(error)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_found_with_the_same_probabilities(language: str) -> None:
    found = probabilities(LANGUAGES[language], quick=True)
    assert found == probabilities(LANGUAGES[language], quick=False)
    assert found[0][0] == language


@given(st.text(ALPHABET, max_size=120))
@settings(max_examples=400, deadline=None)
def test_any_text_gets_what_langdetect_gives_it(text: str) -> None:
    assert probabilities(text, quick=True) == probabilities(text, quick=False)


def test_real_answers_and_their_capitals_get_the_same(hub_data: Path) -> None:
    file = hub_data / "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline/eval.jsonl"
    answers = [json.loads(line)["output"] for line in file.read_text(encoding="utf-8").split("\n") if line][:40]
    for text in (*answers, *(a.upper() for a in answers[:10]), *("x  " + a.replace(" ", "   ") for a in answers[:5])):
        assert probabilities(text, quick=True) == probabilities(text, quick=False)
