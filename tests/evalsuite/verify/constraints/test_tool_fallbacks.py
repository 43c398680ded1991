"""What answers for a language tool that is absent, what answers when it is there, and how an exact one is demanded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import DataError
from evalsuite.verify.constraints import language_tools, require_exact, tools
from evalsuite.verify.constraints.countries import find_countries
from evalsuite.verify.constraints.ood_count import IDS as COUNT_IDS
from evalsuite.verify.constraints.ood_count import near_reference
from evalsuite.verify.constraints.ood_words import IDS as WORDS_IDS
from evalsuite.verify.constraints.syllables import count_syllables
from evalsuite.verify.constraints.verbs import BASE, NOUNS_TOO, opens_with_verb


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("Is it so?", True),
        ("Run fast.", False),
        ("Run the test.", True),
        ("  Write a poem.", True),
        ("Creating a plan takes time.", True),
        ("Stopped by rain, they left.", True),
        ("Based on this, yes.", True),
        ("Given the facts, no.", True),
        ("Tried and tested.", True),
        ("Seems so.", True),
        ("Don't go.", True),
        ("Let's go.", True),
        ("Can you go?", False),  # a modal verb, MD to the tagger
        ("**Write** a poem.", False),
        ('"Write a poem."', False),
        ("Read/write access.", False),
        ("Run-time error.", False),
        ("During the day.", False),
        ("Nothing else.", False),
        ("Runs are good.", False),
        ("The cat sleeps.", False),
        ("12 go.", False),
        ("", False),
    ],
)
def test_the_verb_list_judges_the_first_word(text: str, verb: bool) -> None:
    assert opens_with_verb(text) == verb


def test_the_verb_list_is_long_and_its_halves_do_not_overlap() -> None:
    assert len(BASE) >= 400
    assert not BASE & NOUNS_TOO


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cat", 1),
        ("water", 2),
        ("table", 2),
        ("make", 1),
        ("apple", 2),
        ("the", 1),
        ("tree", 1),
        ("beautiful", 3),
        ("rhythm", 1),
        ("hmm", 1),
        ("tee", 1),
        ("able", 2),
        ("ale", 1),
        ("3d", 0),
        ("42", 0),
        ("é", 1),
    ],
)
def test_syllables_are_groups_of_vowels(word: str, expected: int) -> None:
    assert count_syllables(word) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("From Peru to Chile, from Chile to Peru.", {"Peru", "Chile"}),
        ("The French and the Chinese met.", set()),
        ("Papua New Guinea", {"Papua New Guinea"}),
        ("Guinea-Bissau borders Guinea.", {"Guinea Bissau", "Guinea"}),
        ("the U.S., the USA and America's United States", {"United States"}),
        ("New Mexico", set()),
        ("South Sudan left Sudan.", {"South Sudan", "Sudan"}),
        ("Côte d'Ivoire or Ivory Coast", {"Ivory Coast"}),
        ("chile and turkey for dinner", set()),
    ],
)
def test_countries_are_found_by_their_longest_names(text: str, expected: set[str]) -> None:
    assert find_countries(text) == expected


SHORT = st.text(alphabet="abc\U0001f600", max_size=14)


@given(SHORT, SHORT, st.integers(0, 15))
@settings(max_examples=1500, deadline=None)
def test_the_distance_is_levenshteins(text: str, reference: str, limit: int) -> None:
    from nltk.metrics.distance import edit_distance

    assert (near_reference(text, reference, limit) is None) == (edit_distance(text, reference) <= limit)


def test_exact_tools_are_demanded_by_naming_what_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_tools, "find_spec", lambda name: None)
    for cached in (language_tools.backend, language_tools._has_punkt, language_tools._has_tagger):
        monkeypatch.setattr(language_tools, cached.__name__, cached.__wrapped__)
    monkeypatch.setattr(language_tools, "_has_spacy", lambda: False)
    require_exact(["words:alphabet", "sentence:keyword"])
    with pytest.raises(DataError, match="punkt_tab data are absent; fetch them with"):
        require_exact(["sentence:keyword"], "ifbench")
    with pytest.raises(DataError) as error:
        require_exact([*COUNT_IDS, *WORDS_IDS])
    for named in ("punkt_tab averaged_perceptron_tagger_eng", "pip install syllapy", "en_core_web_sm"):
        assert named in str(error.value)


def test_a_tool_of_one_variant_is_not_asked_for_in_the_other() -> None:
    assert tools(["count:pronouns"]) == {}
    assert set(tools(["count:pronouns"], "ifbench")) == {"sentences", "words"}
    assert set(tools(["words:start_verb"])) == {"pos", "sentences", "words"}


FAKE_PACKAGES = {
    "syllapy": "def count(word): return len(word)",
    "emoji": "def is_emoji(char): return char == 'x'",
    "en_core_web_sm": "",
    "spacy": """
from types import SimpleNamespace as N
def load(name):
    assert name == 'en_core_web_sm'
    entities = [('Lima, Peru', 'GPE'), ('Peru.', 'GPE'), ('Ann', 'PERSON')]
    return lambda text: N(ents=[N(text=t, label_=l) for t, l in entities])
""",
}


def test_the_packages_answer_where_they_are_installed(tmp_path: Path) -> None:
    """Stand-ins with the functions that we call: that they are called, not that they are right."""
    for name, source in FAKE_PACKAGES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
        (tmp_path / f"{name}-1.2.dist-info").mkdir()
        (tmp_path / f"{name}-1.2.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n"
        )
    code = (
        "from evalsuite.verify.constraints.language_tools import *\n"
        "from evalsuite.verify.constraints import language_tools\n"
        "assert [syllables_in('abcd'), is_emoji('x'), is_emoji('y')] == [4, True, False]\n"
        "assert countries_in('text') == {'Peru'}\n"
        "assert [backend(t) for t in ('syllables', 'emoji', 'countries')] == "
        "['syllapy 1.2', 'emoji 1.2', 'en_core_web_sm 1.2']"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_tagger_answers_where_its_data_are_found(tmp_path: Path) -> None:
    """Made-up data in nltk's layout, under which "Blick" is a verb and every other word a noun."""
    punkt = tmp_path / "tokenizers" / "punkt_tab" / "english"
    punkt.mkdir(parents=True)
    for name in ("abbrev_types.txt", "sent_starters.txt"):
        (punkt / name).write_text("x")
    (punkt / "collocations.tab").write_text("##number##\tinc")
    (punkt / "ortho_context.tab").write_text("the\t46")
    tagger = tmp_path / "taggers" / "averaged_perceptron_tagger_eng"
    tagger.mkdir(parents=True)
    for name, data in (("weights", {"bias": {"NN": 1.0}}), ("tagdict", {"Blick": "VBP"}), ("classes", ["NN", "VBP"])):
        (tagger / f"averaged_perceptron_tagger_eng.{name}.json").write_text(json.dumps(data))
    code = (
        "from evalsuite.verify.constraints.language_tools import backend, starts_with_verb\n"
        "assert backend('pos').startswith('nltk') and backend('pos').endswith('tagger'), backend('pos')\n"
        "assert [starts_with_verb(t) for t in ('Blick it.', 'Is it?', '* Blick', '')] == [True, False, False, False]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "NLTK_DATA": str(tmp_path)})


def test_importing_the_checks_loads_no_language_package() -> None:
    code = (
        "import sys, evalsuite.verify.constraints.ood_count, evalsuite.verify.constraints.ood_words\n"
        "assert not {'nltk', 'langdetect', 'emoji', 'syllapy', 'spacy', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
