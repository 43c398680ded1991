"""The plain computation against the definition, written out for one sequence at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from evalsuite.models.hf.plain import plain_values
from evalsuite.models.hf.trie import Line, pack
from tests.evalsuite.models.hf.families import EAGER_ONLY, VOCABULARY, make_family
from tests.evalsuite.models.hf.trees import lines_of, random_docs


@pytest.fixture(scope="module")
def llama() -> Any:
    return make_family("llama")


def test_values_are_the_log_softmax_of_the_models_own_logits(llama: Any) -> None:
    line = Line(0, 0, pack([5, 6, 7, 8, 9]), (8, 9, 10))  # context 5 6 7, option 8 9 10
    ((_, values, greedy),) = plain_values(llama, [line])
    with torch.inference_mode():
        logits = llama(input_ids=torch.tensor([[5, 6, 7, 8, 9]])).logits[0]
    expected = [(logits[2 + i] - logits[2 + i].logsumexp(0))[token].item() for i, token in enumerate((8, 9, 10))]
    assert values == pytest.approx(expected, abs=1e-5)
    assert greedy == [int(logits[2 + i].argmax()) == token for i, token in enumerate((8, 9, 10))]
    best = int(logits[4].argmax())
    assert [flags for _, _, flags in plain_values(llama, [Line(0, 0, line.fed, (best,))])] == [[True]]


@pytest.mark.parametrize("name", ["llama", "mpt", "bloom", "mamba", "jamba"])
def test_padding_and_neighbours_change_nothing(name: str) -> None:
    model = make_family(name, "eager" if name in EAGER_ONLY else "sdpa")
    lines = [line for seed in range(2) for line in lines_of(random_docs(seed, VOCABULARY))]
    together = {(line.fed, line.targets): values for line, values, _ in plain_values(model, lines, None, 512)}
    for line in lines[::9]:
        ((_, alone, _),) = plain_values(model, [line])
        assert together[line.fed, line.targets] == pytest.approx(alone, abs=2e-5)


def test_only_batches_with_a_wanted_document_are_computed_and_they_come_whole(llama: Any) -> None:
    lines = [Line(doc, 0, pack(range(3, 13 + doc)), (5,)) for doc in range(8)]
    pairs = {line.doc: values for line, values, _ in plain_values(llama, lines, None, 40)}
    some = {line.doc: values for line, values, _ in plain_values(llama, lines, {3}, 40)}
    assert 3 in some
    assert len(some) < len(pairs)
    assert all(pairs[doc] == values for doc, values in some.items())  # bit for bit
