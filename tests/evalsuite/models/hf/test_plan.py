"""The prefix tree and the plan, without a model: every number is read once, from a place that sees the right tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalsuite.models.hf.plan import Batch, Limits, Plan, Segment, make_plan
from evalsuite.models.hf.trie import Line, Read, build_trie, pack, unpack
from tests.evalsuite.models.hf.trees import lines_of, random_docs, random_limits

seeds = st.integers(0, 10**6)


def seen(plan: Plan) -> Iterator[tuple[Read, tuple[int, ...], tuple[int, ...]]]:
    """Every read with the tokens it sees, by the path and the mask rule, and their positions."""
    todo: list[tuple[Segment | Batch, tuple[int, ...]]] = [(plan.root, ())]
    while todo:
        step, path = todo.pop()
        if isinstance(step, Segment):
            whole = path + tuple(step.tokens.tolist())
            for read in step.reads:
                n = len(path) + read.at + 1
                yield read, whole[:n], tuple(range(n))
            todo += [(below, whole) for below in step.steps]
            continue
        tokens, positions, ends = step.arrays()
        assert step.prefix == len(path)
        for row, read in step.reads():
            keys = [j for j in range(read.at + 1) if read.at < ends[row, j]]
            yield (
                read,
                path + tuple(int(tokens[row, j]) for j in keys),
                tuple(range(len(path))) + tuple(int(positions[row, j]) for j in keys),
            )


@settings(max_examples=150, deadline=None)
@given(seeds, seeds)
def test_every_target_is_read_once_by_a_row_that_sees_exactly_its_context(tree: int, limit: int) -> None:
    lines = lines_of(random_docs(tree, 40))
    plan = make_plan(lines, random_limits(limit))
    by_place = {(line.doc, line.slot + i): (line, i) for line in lines for i in range(len(line.targets))}
    reads = 0
    for read, tokens, positions in seen(plan):
        line, offset = by_place[read.doc, read.slot]
        assert read.token == line.targets[offset]
        assert tokens == tuple(unpack(line.fed).tolist())[: line.first + offset + 1]
        assert positions == tuple(range(len(tokens)))
        reads += 1
    assert reads == len(by_place) == sum(plan.n_reads.values())


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_a_plan_that_may_not_branch_has_one_sequence_per_row(tree: int) -> None:
    lines = lines_of(random_docs(tree, 40))
    plan = make_plan(lines, Limits(branching=False, min_saving=1))
    batches = [step for step in plan.root.below() if isinstance(step, Batch)]
    assert batches
    assert all(batch.is_causal for batch in batches)
    assert sum(1 for _ in seen(plan)) == sum(plan.n_reads.values())


@settings(max_examples=50, deadline=None)
@given(seeds, seeds)
def test_rows_stay_within_the_limits_unless_a_single_unit_is_longer(tree: int, limit: int) -> None:
    limits = random_limits(limit)
    for step in make_plan(lines_of(random_docs(tree, 40)), limits).root.below():
        if isinstance(step, Batch):
            assert len(step.rows) <= limits.max_rows
            assert step.n_tokens <= limits.batch_tokens or len(step.rows) == 1
            assert step.width <= max(*limits.fill_to, max(len(unit) for row in step.rows for unit in row))
        else:
            assert step.stop <= limits.path_tokens or not len(step.tokens)


def test_a_shared_prefix_is_forwarded_once_and_letters_share_one_row() -> None:
    # 10 documents behind 100 common tokens, 20 own tokens each, 4 one-token options: 100 + 10 × 20 = 300 tokens.
    prefix = tuple(range(100))
    lines = [
        Line(doc, option, pack(prefix + tuple(range(200 + 20 * doc, 220 + 20 * doc))), (option,))
        for doc in range(10)
        for option in range(4)
    ]
    plan = make_plan(lines, Limits())
    assert plan.n_tokens == 300
    assert plan.n_reads == dict.fromkeys(range(10), 4)


def test_tokens_common_to_all_options_are_computed_once() -> None:
    # Context of 50, options newline + 5 own tokens, the last not fed: 50 + 1 + 4 × 4 = 67 tokens in one row.
    context = tuple(range(50))
    options = [(99, *range(100 + 5 * i, 105 + 5 * i)) for i in range(4)]
    lines = [Line(0, 6 * i, pack(context + option[:-1]), option) for i, option in enumerate(options)]
    (batch,) = make_plan(lines, Limits(fill_to=(1,))).root.steps
    assert isinstance(batch, Batch)
    assert batch.n_tokens == 67
    assert len({read.at for _, read in batch.reads() if read.token == 99}) == 1


def test_the_same_document_twice_costs_nothing_more() -> None:
    once = [Line(0, 0, pack(range(30)), (7,))]
    twice = [*once, Line(1, 0, pack(range(30)), (7,))]
    assert make_plan(once, Limits()).n_tokens == make_plan(twice, Limits()).n_tokens == 30


@pytest.mark.parametrize("first", [0, 3, 9])
def test_the_steps_of_the_first_document_stand_first(first: int) -> None:
    lines = lines_of(random_docs(4, 40))
    first = min(first, lines[-1].doc)
    step: Segment | Batch = make_plan(lines, Limits(min_saving=1, batch_tokens=1), first).root
    while isinstance(step, Segment) and first not in {read.doc for read in step.reads}:
        assert first in step.steps[0].docs
        step = step.steps[0]
    assert first in step.docs


def test_a_split_node_keeps_the_ends_of_sequences() -> None:
    # "1 2 3 4 5" is split by "1 2 3 9" after "1 2 3 4 5 6" hangs below it; "1 2" ends inside the first stretch.
    fed = [(1, 2, 3, 4, 5), (1, 2, 3, 4, 5, 6), (1, 2, 3, 9), (1, 2)]
    root = build_trie([Line(doc, 0, pack(tokens), (0,)) for doc, tokens in enumerate(fed)])
    ends = {read.doc: read.at + 1 for node in root.down() for read in node.reads}
    assert ends == {doc: len(tokens) for doc, tokens in enumerate(fed)}
    assert root.size == 7  # 1 2 3 | 4 5 | 6 | 9
