"""Sentences, words and languages: the backends, their agreement with the reference tools, and what is recorded."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.verify.constraints import IFEVAL_IDS, fallbacks, language_tools, tools
from evalsuite.verify.constraints.guess_language import guess_language
from evalsuite.verify.constraints.ifeval_phrases import PHRASES
from evalsuite.verify.constraints.params import LANGUAGES
from evalsuite.verify.constraints.sentences import ABBREVIATIONS, OPENERS, split_sentences
from evalsuite.verify.constraints.words import split_words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n", []),
        ("One", ["One"]),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("One.Two", ["One.Two"]),
        ('"Go!" he said. She went.', ['"Go!"', "he said.", "She went."]),
        ("(So it is.) Then we left.", ["(So it is.)", "Then we left."]),
        ("Dr. Smith met Mrs. Jones.", ["Dr. Smith met Mrs. Jones."]),
        ("It was 5 p.m. The sun set.", ["It was 5 p.m.", "The sun set."]),
        ("It was 5 p.m. on Monday.", ["It was 5 p.m. on Monday."]),
        ("Use tools, e.g. hammers.", ["Use tools, e.g.", "hammers."]),  # punkt's English model does not know "e.g."
        ("Bring etc. and go.", ["Bring etc.", "and go."]),
        ("J. Smith came.", ["J. Smith came."]),
        ("That is plan B. The end.", ["That is plan B.", "The end."]),
        ("It has vitamin C. The end.", ["It has vitamin C. The end."]),  # "c." is in the model's list
        ("1. Apples\n2. pears", ["1.", "Apples\n2. pears"]),
        ("Wait... what?", ["Wait... what?"]),
        ("Wait... What?", ["Wait...", "What?"]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("Yes. Really?!", ["Yes.", "Really?", "!"]),
        ("It isn't. Go.", ["It isn't.", "Go."]),
        ("We live in the U.S. (e.g., in Ohio).", ["We live in the U.S.", "(e.g., in Ohio)."]),
        ("**Bold.** Next.", ["**Bold.", "** Next."]),
        ("Pi is 3.14 or so. End.", ["Pi is 3.14 or so.", "End."]),
    ],
)
def test_sentences_end_where_punkt_ends_them(text: str, expected: list[str]) -> None:
    assert split_sentences(text) == expected


def punkt_with_our_knowledge() -> object:
    """nltk's algorithm, with our two word lists in place of its trained data."""
    from nltk.tokenize.punkt import _ORTHO_LC, _ORTHO_MID_UC, _ORTHO_UC, PunktSentenceTokenizer

    punkt = PunktSentenceTokenizer()
    punkt._params.abbrev_types = set(ABBREVIATIONS)
    punkt._params.sent_starters = set(OPENERS)
    for word in OPENERS:
        punkt._params.ortho_context[word] = _ORTHO_LC | _ORTHO_UC | _ORTHO_MID_UC
    return punkt


def test_the_rules_follow_punkts_algorithm_on_made_up_prose() -> None:
    punkt = punkt_with_our_knowledge()
    rng = random.Random(0)
    parts = (
        "The the dog Smith J. B. p.m. U.S. e.g. etc. Dr. isn't. 3. 3.14 1.) (a.m.) \"Go! wait... What? no.) [x]. 'tis. "
        "**B.** end. end.” Inc.: so; yes! - -- ok?! x. !! !!!a' .) ?" + " \n"
    ).split(" ")
    texts = [" ".join(rng.choices(parts, k=12)) for _ in range(4000)]
    same = [split_sentences(t) == [s.strip() for s in punkt.tokenize(t)] for t in texts]  # type: ignore[attr-defined]
    assert sum(same) / len(same) > 0.999


@pytest.mark.slow
def test_the_rules_follow_punkts_algorithm_on_real_answers(hub_data: Path) -> None:
    punkt = punkt_with_our_knowledge()
    baseline = hub_data / "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline"
    texts = [json.loads(line)["output"] for path in baseline.glob("*.jsonl") for line in path.open(encoding="utf-8")]
    counts = [(len(split_sentences(t)), len(punkt.tokenize(t))) for t in texts]  # type: ignore[attr-defined]
    assert sum(a == b for a, b in counts) / len(counts) > 0.999


WORDS = """
NASA I A-B don't DON'T it's IT'S CANNOT gonna U.S.A. (HE) "SHE" 'TIS 'WE' A,B A,1 10:30 A:B A--B A...B A..B ROCK'N'ROLL
d'ye D'YE MORE'N WANNA wanna, I'D'VE HE'LL'S X's Y' ’S ‘Q’ “R” A/B A_B E.G. 3D; ÉTÉ ß ISN'T. 42 --
"""


@given(st.lists(st.sampled_from(WORDS.split()), max_size=12))
@settings(max_examples=1500, deadline=None)
def test_capital_words_are_counted_as_nltks_tokenizer_counts_them(words: list[str]) -> None:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    text = " ".join(words)
    theirs = sum(map(str.isupper, NLTKWordTokenizer().tokenize(text)))
    assert sum(map(str.isupper, split_words(text))) == theirs


def test_a_language_is_told_the_same_way_every_time_and_in_any_order() -> None:
    texts = [". ".join(p) for p in PHRASES.values()] + ["ok", "taxi hotel", "No. 7", "a b c d"]
    first = [language_tools.language_of.__wrapped__(t) for t in texts]
    second = [language_tools.language_of.__wrapped__(t) for t in reversed(texts)]
    assert first == second[::-1]
    assert first[: len(PHRASES)] == list(PHRASES)


def test_a_language_does_not_depend_on_the_seed_that_others_set() -> None:
    import langdetect

    text = "taxi hotel ok"
    before = language_tools.language_of.__wrapped__(text)
    langdetect.DetectorFactory.seed = random.randrange(10**6)
    assert {language_tools.language_of.__wrapped__(text) for _ in range(5)} == {before}


def test_the_first_fifty_thousand_characters_decide_the_language() -> None:
    german = "Das Wetter ist heute schön und die Kinder spielen im Garten. "
    english = "The weather is nice today and the children play in the garden. "
    assert language_tools.language_of(german * 1000 + english * 10_000) == "de"


def test_text_without_letters_has_no_language() -> None:
    assert language_tools.language_of("12345 !?") is None
    assert guess_language("12345 !?") is None


def test_the_fall_back_tells_the_thirty_languages_apart() -> None:
    assert set(PHRASES) == set(LANGUAGES)
    assert [guess_language(". ".join(p)) for p in PHRASES.values()] == list(PHRASES)
    alone = [(guess_language(line), code) for code, lines in PHRASES.items() for line in lines]
    assert sum(a == b for a, b in alone) >= 0.95 * len(alone)


def test_the_backends_are_named_and_a_fall_back_comes_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(tools(IFEVAL_IDS)) == {"language", "sentences", "words"}
    assert tools(["punctuation:no_comma"]) == {}
    assert tools(IFEVAL_IDS)["language"].startswith("langdetect 1.")
    monkeypatch.setattr(language_tools, "_has_punkt", lambda: False)
    language_tools.backend.cache_clear()
    assert tools(IFEVAL_IDS)["sentences"] == "rules"
    assert [f.partition(";")[0] for f in fallbacks(IFEVAL_IDS)] == ["nltk's punkt_tab data are absent"]
    language_tools.backend.cache_clear()


def test_importing_the_constraints_loads_no_language_package() -> None:
    code = (
        "import sys, evalsuite.verify.constraints\n"
        "assert not {'nltk', 'langdetect', 'numpy', 'lm_eval', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_punkt_answers_where_its_data_are_found(tmp_path: Path) -> None:
    """Data made of our word lists, in the layout of punkt_tab: what nltk reads, though not what it was trained to."""
    folder = tmp_path / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    (folder / "abbrev_types.txt").write_text("\n".join(ABBREVIATIONS))
    (folder / "sent_starters.txt").write_text("\n".join(OPENERS))
    (folder / "collocations.tab").write_text("##number##\tinc")
    (folder / "ortho_context.tab").write_text("the\t46")
    code = (
        "from evalsuite.verify.constraints import fallbacks, tools, followed\n"
        "asked = {'num_sentences': 2, 'relation': 'at least'}\n"
        "check, = followed('So it is. Dr. Who?', ['length_constraints:number_sentences'], [asked], mode='strict')\n"
        "assert check.ok and check.backend == 'sentences: punkt', check\n"
        "assert tools()['sentences'] == 'punkt' and not fallbacks()"
    )
    environment = {**os.environ, "NLTK_DATA": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
