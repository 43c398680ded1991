"""All ids beyond IFEval: how many there are, and what holds of every one of them on any text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.errors import DataError
from evalsuite.verify.constraints import IFEVAL_IDS, Variant, all_constraints, followed_both
from evalsuite.verify.constraints.ood import (
    EXTRA_IDS,
    IFBENCH_IDS,
    OOD_IDS,
    OTHER_NAMES,
    RETIRED_IDS,
    check_rows,
    tools,
)
from evalsuite.verify.constraints.registry import find_constraint

REFERENCE = "The old mill stands by the river, and its wheel still turns."

# One set of parameters per id that takes any.
PARAMS: dict[str, dict[str, Any]] = {
    "count:word_count_range": {"min_words": 2, "max_words": 6},
    "count:unique_word_count": {"N": 3},
    "count:conjunctions": {"small_n": 2},
    "count:person_names": {"N": 1},
    "count:countries": {"percentage": 1},
    "count:levenshtein": {"reference_text": REFERENCE, "N": 12},
    "count:numbers": {"N": 1},
    "count:pronouns": {"N": 2},
    "count:words_japanese": {"N": 3},
    "count:words_french": {"N": 2},
    "ratio:stop_words": {"percentage": 30},
    "ratio:overlap": {"reference_text": REFERENCE, "percentage": 50},
    "words:repeats": {"small_n": 1},
    "sentence:increment": {"small_n": 1},
    "sentence:keyword": {"word": "mill", "N": 1},
    "format:options": {"options": "yes/no/maybe"},
    "format:list": {"sep": "-"},
    "count:keywords_multiple": {f"keyword{n}": letter for n, letter in enumerate("qwxzj", 1)},
    "words:keywords_specific_position": {"keyword": "mill", "n": 1, "m": 3},
    "custom:keywords_specific_position": {"keyword": "mill", "n": 1, "m": 3},
    "words:words_position": {"keyword": "old"},
    "repeat:repeat_change": {"prompt_to_repeat": REFERENCE},
    "repeat:repeat_span": {"prompt_to_repeat": REFERENCE, "n_start": 1, "n_end": 3},
}
KNOWN = sorted((*OOD_IDS, *EXTRA_IDS, *OTHER_NAMES))
ASKS = [(id, v) for id in KNOWN for v in get_args(Variant) if v in find_constraint(id, "tulu3").checks]

PIECES = st.sampled_from(
    [*REFERENCE.split(), *".?!,;:*-\"'()[]{}#/1😀“”é", "\n", "\n\n", "  ", "\t", "\r\n", "\0", "\ud800"]
)
TEXT = st.one_of(st.text(max_size=2000), st.lists(PIECES, max_size=60).map(" ".join), st.lists(PIECES).map("".join))


def test_there_are_25_and_52_and_9_ids_and_of_ifbench_58() -> None:
    assert (len(IFEVAL_IDS), len(OOD_IDS), len(EXTRA_IDS), len(IFBENCH_IDS)) == (25, 52, 9, 58)
    everything = [*IFEVAL_IDS, *OOD_IDS, *EXTRA_IDS, *OTHER_NAMES]
    assert len(everything) == len(set(everything)) == 25 + 52 + 9 + 2
    assert set(all_constraints()) == set(everything)


def test_the_52_are_10_12_5_3_11_and_11_by_category() -> None:
    sizes = {"count": 10, "format": 12, "ratio": 5, "sentence": 3, "words": 11, "custom": 11}
    assert Counter(all_constraints()[id].category for id in OOD_IDS) == sizes


def test_ifbench_has_checks_for_its_58_and_not_for_the_three_that_were_retired() -> None:
    for id in IFBENCH_IDS:
        assert set(find_constraint(id).checks) == {"tulu3", "ifbench"}
    for id in RETIRED_IDS:
        with pytest.raises(DataError, match="no instruction id"):
            find_constraint(id, "ifbench")


def test_every_check_says_in_one_line_what_it_checks() -> None:
    for id in KNOWN:
        about = all_constraints()[id].about
        assert about.endswith((".", ").")), id
        assert len(about) < 125, id


def test_every_id_has_parameters_here_that_it_takes() -> None:
    for id, variant in ASKS:
        row = {"key": id, "instruction_id_list": [id], "kwargs": [PARAMS.get(id, {})]}
        check_rows([row], variant)
        assert set(find_constraint(id).params) == set(PARAMS.get(id, {}))


def test_only_ifbench_asks_punkt_for_the_sentences_of_most_ids() -> None:
    asking = {id for id in IFBENCH_IDS if "sentences" in tools([id], "ifbench")}
    assert len(asking) == 15
    assert {id for id in asking if "sentences" in tools([id], "tulu3")} == {
        "format:title_case",
        "words:keywords_specific_position",
        "words:start_verb",
        "words:words_position",
    }


@given(TEXT, st.sampled_from(ASKS))
@settings(max_examples=1500, deadline=None)
def test_no_text_breaks_a_check_and_strict_implies_loose(text: str, ask: tuple[str, Variant]) -> None:
    id, variant = ask
    (strict,), (loose,) = followed_both(text, [id], [PARAMS.get(id, {})], variant=variant)
    assert loose.ok or not strict.ok
    assert (strict.why == "") == strict.ok


@pytest.mark.parametrize(
    "text", ["", ".", "\ud800", "\0", "\r", "``", "'", "\ue000", "\ue001\ue001", "<prd>", '"""', "\u2028"]
)
def test_no_odd_text_breaks_a_check_called_by_itself(text: str) -> None:
    for id, variant in ASKS:
        constraint = find_constraint(id)
        params = {name: parse(PARAMS[id][name]) for name, parse in constraint.params.items()}
        assert constraint.objection(text, params, variant) != ""


def test_nulls_and_whole_floats_change_nothing() -> None:
    names = {name: None for kwargs in PARAMS.values() for name in kwargs}
    for id, variant in ASKS:
        given: Mapping[str, Any] = PARAMS.get(id, {})
        filled = names | {name: float(v) if isinstance(v, int) else v for name, v in given.items()}
        for text in (REFERENCE, "old mill", "* a - b\n* c - d\nYes"):
            plain = followed_both(text, [id], [given], variant=variant)
            assert followed_both(text, [id], [filled], variant=variant) == plain


@pytest.mark.parametrize("variant", get_args(Variant))
def test_verdicts_depend_on_neither_order_nor_earlier_calls(variant: Variant) -> None:
    ids = [id for id, v in ASKS if v == variant]
    kwargs = [PARAMS.get(id, {}) for id in ids]
    for text in (REFERENCE, "One. Two?\n* a - b\n* c", "14, 21, 28, 35, 42, 49", '"a" b\n\n c'):
        forward = followed_both(text, ids, kwargs, variant=variant)
        backward = followed_both(text, ids[::-1], kwargs[::-1], variant=variant)
        assert [checks[::-1] for checks in backward] == list(forward)
        alone = [followed_both(text, [i], [k], variant=variant) for i, k in zip(ids, kwargs, strict=True)]
        assert [strict for (strict,), _ in alone] == list(forward[0])
        assert [loose for _, (loose,) in alone] == list(forward[1])
