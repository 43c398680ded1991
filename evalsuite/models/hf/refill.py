"""The refilled batch: a step adds one token to all open responses; a finished one makes room for the next prompt."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from torch import Tensor

from evalsuite.models.hf.cache import Kept
from evalsuite.models.hf.prefix import Ids, PrefixPlan
from evalsuite.models.hf.response import Writing
from evalsuite.models.hf.sample import choose
from evalsuite.models.hf.slots import Slots
from evalsuite.models.hf.together import Together

GROUP_TOKENS = 16_384
"""Padded tokens of one prefill, where prompts are computed in groups."""


class Refill:
    """One pass over the waiting responses. Row i of the slots belongs to `open[i]`; rows behind are free.

    `grouped` computes several prompts with the same beginning in one forward, for devices that one prompt does not
    fill; then the rounding of a prompt's keys depends on its neighbours. `together` computes short prompts of equal
    length in one forward where that changes no bit.
    """

    def __init__(
        self,
        slots: Slots,
        n_open: int,
        plan: PrefixPlan,
        prompts: Sequence[Ids],
        *,
        grouped: bool = False,
        together: Together | None = None,
    ) -> None:
        self.slots, self.n_open, self.plan, self.prompts, self.grouped = slots, n_open, plan, prompts, grouped
        self.together = None if grouped else together
        self.open: list[Writing] = []
        self._kept: list[tuple[int, Kept]] = []  # stretches of the path last used, and keys and values up to their ends
        self._most_keys = 0

    def run(self, waiting: Sequence[Writing]) -> Iterator[Writing]:
        """Each response as it finishes. Prompts are taken in the order given."""
        queue = deque(waiting)
        self._most_keys = max((w.most_keys for w in waiting), default=0)
        n_idle = 0  # rows of steps that were left free for a larger group
        while queue or self.open:
            free = self.n_open - len(self.open)
            # A group saves a forward or more, so waiting for it may cost a step, and no more.
            if queue and free and (free >= self._need(queue) or (self.together and n_idle >= self.n_open)):
                yield from self._fill(self._next_group(queue, free))
                n_idle = 0
            else:
                n_idle += free
                yield from self._step()

    def _need(self, queue: deque[Writing]) -> int:
        """How many rows should be free before the next prompts are computed."""
        if self.grouped:
            return max(1, self.n_open // 8)
        return self._n_alike(queue, max(1, self.n_open // 4))

    def _n_alike(self, queue: deque[Writing], most: int) -> int:
        """How many of the next prompts, at most `most`, can be computed in one forward bit for bit; a power of 2."""
        if self.together is None:
            return 1
        path, n_prompt = self.plan.paths[queue[0].index], queue[0].n_prompt
        start = self.plan.n_shared(queue[0].index)
        most = min(most, len(queue), self.together.most_rows(n_prompt - start, start))
        n = 1
        while n < most and self.plan.paths[queue[n].index] == path and queue[n].n_prompt == n_prompt:
            n += 1
        return 1 << n.bit_length() - 1

    def _next_group(self, queue: deque[Writing], free: int) -> list[Writing]:
        """The next prompt, and those behind it that are computed in the same forward."""
        if not self.grouped:
            return [queue.popleft() for _ in range(self._n_alike(queue, free))]
        group = [queue.popleft()]
        path, shared = self.plan.paths[group[0].index], self.plan.n_shared(group[0].index)
        width = group[0].n_prompt - shared
        while queue and len(group) < free and self.plan.paths[queue[0].index] == path:
            width = max(width, queue[0].n_prompt - shared)
            if width * (len(group) + 1) > GROUP_TOKENS:
                break
            group.append(queue.popleft())
        return group

    def _fill(self, group: Sequence[Writing]) -> list[Writing]:
        """Computes the prompts of `group` into the next free rows; returns those finished with their first token."""
        self._reserve(max(w.n_prompt for w in group))
        kept, start = self._shared(self.plan.paths[group[0].index])
        prompts = [self.prompts[w.index] for w in group]
        if self.together and len(group) > 1:
            logits = self.together.fill(self.slots, len(self.open), prompts, kept, start)
        else:
            logits = self.slots.fill(len(self.open), prompts, kept, start)
        self.open += group
        return self._push(group, logits)

    def _shared(self, path: tuple[int, ...]) -> tuple[Kept | None, int]:
        """Keys and values of a path, computing what is not there yet; only one path is kept at a time."""
        depth = 0
        while depth < min(len(path), len(self._kept)) and self._kept[depth][0] == path[depth]:
            depth += 1
        del self._kept[depth:]
        for n in path[depth:]:
            stretch = self.plan.stretches[n]
            kept = self._kept[-1][1] if self._kept else None
            ids = self.prompts[stretch.prompt][stretch.start : stretch.end]
            self._kept.append((n, self.slots.stretch(len(self.open), ids, kept, stretch.start)))
        if not path:
            return None, 0
        return self._kept[-1][1], self.plan.stretches[path[-1]].end

    def _step(self) -> list[Writing]:
        """One token more for every open response; returns those that finished."""
        self._reserve(max(w.position for w in self.open) + 1)
        logits = self.slots.step([w.last for w in self.open], [w.position for w in self.open])
        return self._push(self.open, logits)

    def _push(self, group: Sequence[Writing], logits: Tensor) -> list[Writing]:
        tokens, logprobs = choose(logits, [w.draw() for w in group])
        news = zip(group, tokens, logprobs, strict=True)
        ended = [writing for writing, token, logprob in news if writing.push(token, logprob)]
        for writing in ended:
            if writing.why:  # all of them before rows move, or a broken one leaves a copy behind
                self.slots.clear(self.open.index(writing))
        for writing in ended:
            self._free(self.open.index(writing))
        return ended

    def _free(self, row: int) -> None:
        """The last open row moves into the place of a finished one."""
        last = self.open.pop()
        if row < len(self.open):
            # Its newest token is not in the slot yet.
            self.slots.move(len(self.open), row, last.position)
            self.open[row] = last

    def _reserve(self, n_keys: int) -> None:
        self.slots.reserve(n_keys, self._most_keys)
