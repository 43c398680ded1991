"""Scores a plan: walks the prefix tree depth first, computes every stretch once and the rows below it in batches."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from evalsuite.models.hf.cache import Kept, TreeMasks, kept_of, n_bytes, prefix_cache
from evalsuite.models.hf.head import Head, token_values
from evalsuite.models.hf.plan import Batch, Plan, Segment
from evalsuite.models.hf.trie import Read

Path = tuple[Any, ...]
"""What a forward needs of the stretches from the root down; each kind of forward has its own."""

Inputs = dict[str, Any]


@dataclass(frozen=True, slots=True)
class DocValues:
    """All numbers of one document: log-probability and greedy flag of every target token of every option, in order."""

    doc: int
    values: list[float]
    greedy: list[bool]


class Forward(Protocol):
    """One way to share a prefix: how a stretch is added to a path and what the model is given for a batch below one."""

    head: Head

    def stretch(self, segment: Segment, path: Path) -> tuple[Inputs, Any]: ...

    def keep(self, cache: Any) -> Any: ...

    def batch(self, batch: Batch, path: Path) -> Inputs: ...

    def size(self, kept: Any) -> int: ...


class TreeForward:
    """Keys and values kept by stretch, rows that hold trees, masks of our own (level "tree")."""

    def __init__(self, head: Head, masks: TreeMasks) -> None:
        self.head, self.masks = head, masks
        self.device = head.model.device

    def stretch(self, segment: Segment, path: Path) -> tuple[Inputs, Any]:
        n = len(segment.tokens)
        cache = prefix_cache(path, self.masks.n_layers, keep=True)
        inputs: Inputs = {
            "input_ids": self._tensor(segment.tokens[None]).long(),
            "past_key_values": cache,
            "use_cache": True,
        }
        if segment.start:  # without anything in front the model's own causal mask does, and is faster
            positions = torch.arange(segment.start, segment.stop, device=self.device)[None]
            ends = torch.full((1, n), n, device=self.device)
            inputs |= self._placed(positions, ends, segment.start)
        return inputs, cache

    def keep(self, cache: Any) -> Kept:
        return kept_of(cache)

    def batch(self, batch: Batch, path: Path) -> Inputs:
        tokens, positions, ends = batch.arrays()
        if not batch.prefix and batch.is_causal:
            return {"input_ids": self._tensor(tokens), "use_cache": False}
        cache = prefix_cache(path, self.masks.n_layers)
        inputs: Inputs = {"input_ids": self._tensor(tokens), "past_key_values": cache, "use_cache": True}
        return inputs | self._placed(self._tensor(positions), self._tensor(ends), batch.prefix)

    def size(self, kept: Kept) -> int:
        return n_bytes(kept)

    def _placed(self, positions: torch.Tensor, ends: torch.Tensor, prefix: int) -> Inputs:
        inputs: Inputs = {"attention_mask": self.masks.build(ends, positions, prefix)}
        if "position_ids" in self.head.takes:
            inputs["position_ids"] = positions
        return inputs

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


class CopyForward:
    """The model's own cache, copied for every row; one sequence per row (level "prefix-copy")."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.device = head.model.device
        # Purely recurrent families name the argument differently.
        self.argument = "past_key_values" if "past_key_values" in head.takes else "cache_params"

    def stretch(self, segment: Segment, path: Path) -> tuple[Inputs, Any]:
        cache = self._cache(path)
        ids = torch.from_numpy(segment.tokens[None]).to(self.device).long()
        return {"input_ids": ids, self.argument: cache, "use_cache": True}, cache

    def keep(self, cache: Any) -> Any:
        return cache

    def batch(self, batch: Batch, path: Path) -> Inputs:
        tokens, _, _ = batch.arrays()
        cache = self._cache(path)
        if path:
            cache.reorder_cache(torch.zeros(len(batch.rows), dtype=torch.long, device=self.device))
        return {"input_ids": torch.from_numpy(tokens).to(self.device), self.argument: cache, "use_cache": True}

    def size(self, kept: Any) -> int:
        tensors = [t for layer in kept.layers for t in _tensors(vars(layer).values())]
        return sum(t.numel() * t.element_size() for t in tensors)

    def _cache(self, path: Path) -> Any:
        from transformers import DynamicCache

        return copy.deepcopy(path[-1]) if path else DynamicCache(config=self.head.model.config)


class KeptStore:
    """Kept stretches, least recently used first to go when they take more than `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self._kept: OrderedDict[int, tuple[Segment, Any, int]] = OrderedDict()

    def get(self, segment: Segment) -> Any | None:
        found = self._kept.get(id(segment))
        if found is None:
            return None
        self._kept.move_to_end(id(segment))
        return found[1]

    def put(self, segment: Segment, kept: Any, size: int) -> None:
        # The segment is held too: its id stays its own for as long as it is a key.
        self._kept[id(segment)] = (segment, kept, size)
        self.used += size
        while self.used > self.budget and len(self._kept) > 0:
            _, (_, _, gone) = self._kept.popitem(last=False)
            self.used -= gone

    def clear(self) -> None:
        self._kept.clear()
        self.used = 0


class TreeScorer:
    """Runs plans on one model. `n_forwarded` counts the tokens that were computed, padding included."""

    def __init__(self, forward: Forward, store: KeptStore) -> None:
        self.forward, self.store = forward, store
        self.n_forwarded = 0
        self._most_tokens = 1 << 60  # of one forward; falls when memory runs out and stays down

    def score(self, plan: Plan, wanted: Collection[int]) -> Iterator[DocValues]:
        """Every wanted document as soon as its last number is known. Batches without a wanted one are not computed."""
        left = {doc: plan.n_reads[doc] for doc in wanted if doc in plan.n_reads}
        open_docs: dict[int, DocValues] = {}
        for reads, values, greedy in self._walk(plan, frozenset(left)):
            done = []
            for read, value, is_greedy in zip(reads, values, greedy, strict=True):
                if read.doc not in left:
                    continue
                n = plan.n_reads[read.doc]
                found = open_docs.setdefault(read.doc, DocValues(read.doc, [0.0] * n, [False] * n))
                found.values[read.slot], found.greedy[read.slot] = value, is_greedy
                left[read.doc] -= 1
                if not left[read.doc]:
                    done.append(read.doc)
            for doc in done:
                yield open_docs.pop(doc)

    def _walk(
        self, plan: Plan, wanted: frozenset[int]
    ) -> Iterator[tuple[Sequence[Read], Sequence[float], Sequence[bool]]]:
        todo: list[tuple[Segment | Batch, Path]] = [(plan.root, ())]
        while todo:
            step, path = todo.pop()
            if step.docs.isdisjoint(wanted):
                continue
            if isinstance(step, Batch):
                yield self._batch(step, path)
                continue
            if len(step.tokens):
                found, path = self._stretch(step, path, wanted)
                yield found
            todo += [(below, path) for below in reversed(step.steps)]

    @torch.inference_mode()
    def _stretch(self, segment: Segment, path: Path, wanted: frozenset[int]) -> tuple[Any, Path]:
        """Reads of a stretch (none when nobody wants them) and the path with it at the end."""
        reads = segment.reads if any(read.doc in wanted for read in segment.reads) else []
        kept = None if reads else self.store.get(segment)
        found: Any = ((), (), ())
        if kept is None:
            inputs, cache = self.forward.stretch(segment, path)
            self.n_forwarded += len(segment.tokens)
            if reads:
                found = self._read(inputs, [(0, read) for read in reads])
            else:
                self.forward.head.run(inputs)
            kept = self.forward.keep(cache)
            self.store.put(segment, kept, self.forward.size(kept))
        return found, (*path, kept)

    @torch.inference_mode()
    def _batch(self, batch: Batch, path: Path) -> Any:
        if len(batch.rows) > 1 and batch.n_tokens > self._most_tokens:
            return self._halves(batch, path)
        try:
            self.n_forwarded += batch.n_tokens
            return self._read(self.forward.batch(batch, path), list(batch.reads()))
        except RuntimeError as error:
            if len(batch.rows) == 1 or not is_out_of_memory(error):
                raise
        self.store.clear()
        torch.cuda.empty_cache()
        self._most_tokens = batch.n_tokens // 2
        return self._halves(batch, path)

    def _halves(self, batch: Batch, path: Path) -> Any:
        middle = len(batch.rows) // 2
        parts = [
            self._batch(Batch(rows, batch.prefix, batch.docs), path)
            for rows in (batch.rows[:middle], batch.rows[middle:])
        ]
        return tuple([*a, *b] for a, b in zip(*parts, strict=True))

    def _read(self, inputs: Inputs, reads: Sequence[tuple[int, Read]]) -> Any:
        """One forward; every wanted place is read once, whatever the number of tokens that are looked up there."""
        places = sorted({(row, read.at) for row, read in reads})
        index = {place: i for i, place in enumerate(places)}
        ordered = sorted(reads, key=lambda r: index[r[0], r[1].at])
        chunks = self.forward.head.logits(inputs, [row for row, _ in places], [at for _, at in places])
        values, greedy = token_values(
            chunks, [index[row, read.at] for row, read in ordered], [read.token for _, read in ordered]
        )
        return [read for _, read in ordered], values, greedy


def is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _tensors(things: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists and dictionaries."""
    for thing in things:
        if isinstance(thing, torch.Tensor):
            yield thing
        elif isinstance(thing, dict):
            yield from _tensors(thing.values())
        elif isinstance(thing, list | tuple):
            yield from _tensors(thing)
