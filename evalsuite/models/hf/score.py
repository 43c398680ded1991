"""Log-likelihoods of encoded documents: plan, level, sentinel, and numbers back into options."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from evalsuite.errors import EngineCrash
from evalsuite.models.encoding import EncodedDoc
from evalsuite.models.hf.plain import plain_values
from evalsuite.models.hf.plan import Limits, Plan, make_plan
from evalsuite.models.hf.probe import Choice, Level, agrees, choose_level, level_limits, most_different, plain_noise
from evalsuite.models.hf.tree import DocValues, KeptStore, TreeScorer, is_out_of_memory
from evalsuite.models.hf.trie import Line, pack
from evalsuite.types import Failed, Likelihoods, LogLikelihood

LongPrompts = Literal["fail", "left"]

CPU_LIMITS = Limits()
GPU_LIMITS = Limits(
    batch_tokens=16_384, max_rows=256, row_tokens=2048, fill_to=(256, 512, 1024), min_saving=1024, start_tokens=512
)
PLAIN_LOGIT_BYTES = 1 << 30  # the plain level computes the logits of whole batches


@dataclass(slots=True)
class Work:
    """One benchmark, encoded and planned; kept so that a second call with the same requests goes on where it was.

    `sizes` are the option lengths of every document that can be scored. `level` is None until the sentinel has been
    compared; `lines` are let go when it agreed.
    """

    sizes: Mapping[int, tuple[int, ...]]
    failed: Mapping[int, Failed]
    lines: list[Line]
    plan: Plan | None
    sentinel: tuple[Line, ...]
    level: Level | None = None


class LikelihoodScorer:
    """Scores encoded documents on one model. `notes` collects what a user should know about the levels used."""

    def __init__(
        self,
        model: Any,
        max_length: int,
        *,
        kv_budget: int,
        long_prompts: LongPrompts = "fail",
        limits: Limits | None = None,
        choice: Choice | None = None,
    ) -> None:
        self.model, self.max_length, self.long_prompts = model, max_length, long_prompts
        self.choice = choice or choose_level(model)
        self.store = KeptStore(kv_budget)
        self.scorer = TreeScorer(self.choice.forward, self.store) if self.choice.forward else None
        limits = limits or (GPU_LIMITS if model.device.type == "cuda" else CPU_LIMITS)
        limits = replace(limits, path_tokens=kv_budget // _token_bytes(model))
        self.limits = level_limits(limits, self.choice.level)
        self.n_vocabulary = int(model.get_input_embeddings().weight.shape[0])
        self.notes: list[str] = []
        self._bad_in_a_row = 0

    def prepare(self, encoded: Iterable[EncodedDoc | Failed]) -> Work:
        """Plans the full set. Documents that cannot be scored are set apart with their reason."""
        sizes: dict[int, tuple[int, ...]] = {}
        failed: dict[int, Failed] = {}
        lines: list[Line] = []
        for index, doc in enumerate(encoded):
            why = doc.why if isinstance(doc, Failed) else self._why_not(doc)
            if why is None and isinstance(doc, EncodedDoc):
                sizes[index] = tuple(map(len, doc.option_ids))
                lines += self._lines(index, doc)
            else:
                failed[index] = Failed(why or "")
        sentinel = _sentinel(lines)
        plan = make_plan(lines, self.limits, sentinel[0].doc) if self.scorer and lines else None
        return Work(sizes, failed, lines, plan, sentinel, None if self.scorer else "plain")

    def score(self, work: Work, wanted: Collection[int]) -> Iterator[tuple[int, Likelihoods]]:
        """Every wanted document as it completes.

        Raises EngineCrash after three in a row without a number, and when one row alone does not fit into memory.
        """
        try:
            yield from self._score(work, wanted)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise EngineCrash(
                "out of memory with a single row in a forward; "
                "use a smaller --kv-budget or dtype, or a device with more memory"
            ) from error

    def _score(self, work: Work, wanted: Collection[int]) -> Iterator[tuple[int, Likelihoods]]:
        for index in wanted:
            if index in work.failed:
                yield index, work.failed[index]
        wanted = frozenset(index for index in wanted if index in work.sizes)
        if not wanted:
            return
        if work.level != "plain":
            for found in self._shared(work, wanted):
                yield found.doc, self._likelihoods(work.sizes[found.doc], found)
        if work.level == "plain":  # from the start, or since the sentinel disagreed and nothing was yielded
            for found in self._plain(work, wanted):
                yield found.doc, self._likelihoods(work.sizes[found.doc], found)

    def _shared(self, work: Work, wanted: frozenset[int]) -> Iterator[DocValues]:
        """What the sharing level says, after its longest document agreed with plain; nothing when it did not."""
        assert self.scorer is not None
        assert work.plan is not None
        watched = work.sentinel[0].doc
        needs_check = work.level is None
        held: list[DocValues] = []
        for found in self.scorer.score(work.plan, wanted | {watched} if needs_check else wanted):
            if needs_check and found.doc == watched:
                needs_check = False
                if not self._sentinel_agrees(work, found):
                    work.level = "plain"
                    return
                work.level, work.lines = self.choice.level, []
                held.append(found)
                yield from (doc for doc in held if doc.doc in wanted)
            elif needs_check:
                held.append(found)
            else:
                yield found

    def _sentinel_agrees(self, work: Work, ours: DocValues) -> bool:
        plain = {
            (line.doc, line.slot + i): value
            for line, values, _ in plain_values(self.model, work.sentinel)
            for i, value in enumerate(values)
        }
        difference = most_different(plain, {(ours.doc, slot): value for slot, value in enumerate(ours.values)})
        if agrees(self.model, difference) or agrees(self.model, difference, plain_noise(self.model, work.sentinel)):
            return True
        self.notes.append(
            f"scoring level {self.choice.level!r} differs from plain by {difference:.2g} per token on a document of "
            f"{work.sentinel[0].n_fed} tokens; this benchmark is scored plainly (slower, same meaning)"
        )
        return False

    def _plain(self, work: Work, wanted: frozenset[int]) -> Iterator[DocValues]:
        budget = min(self.limits.batch_tokens, max(1, PLAIN_LOGIT_BYTES // 4 // self.n_vocabulary))
        left = {index: len(work.sizes[index]) for index in wanted}
        open_docs: dict[int, DocValues] = {}
        for line, values, greedy in plain_values(self.model, work.lines, wanted, budget):
            if line.doc not in left:
                continue
            n = sum(work.sizes[line.doc])
            found = open_docs.setdefault(line.doc, DocValues(line.doc, [0.0] * n, [False] * n))
            there = slice(line.slot, line.slot + len(values))
            found.values[there], found.greedy[there] = values, greedy
            left[line.doc] -= 1
            if not left[line.doc]:
                yield open_docs.pop(line.doc)

    def _likelihoods(self, sizes: Sequence[int], found: DocValues) -> Likelihoods:
        options: list[LogLikelihood] = []
        start = 0
        for index, size in enumerate(sizes):
            stop = start + size
            # Summed in double and rounded once: the float32 sum that does not depend on the order.
            total = (
                array("f", [math.fsum(found.values[start:stop])])[0]
                if _all_finite(found.values[start:stop])
                else math.nan
            )
            if not math.isfinite(total):
                return self._bad(f"the log-probability of option {index + 1} of {len(sizes)} is not a number")
            options.append(LogLikelihood(total, all(found.greedy[start:stop]), size))
            start = stop
        self._bad_in_a_row = 0
        return tuple(options)

    def _bad(self, why: str) -> Failed:
        self._bad_in_a_row += 1
        if self._bad_in_a_row == 3:
            raise EngineCrash(
                f"{why}, three documents in a row: the weights or the dtype are broken; "
                "look at the checkpoint (evalsuite check) or score it with --dtype float32"
            )
        return Failed(why)

    def _why_not(self, doc: EncodedDoc) -> str | None:
        """Why a document cannot be scored at all, or None."""
        if not doc.option_ids:
            return "no options"
        most = max(max(doc.context_ids, default=0), max(max(option) for option in doc.option_ids))
        if most >= self.n_vocabulary:
            return f"token {most} is outside the model's vocabulary of {self.n_vocabulary}"
        longest = max(map(len, doc.option_ids))
        needed = len(doc.context_ids) + longest - 1
        if self.long_prompts == "left":
            return (
                None
                if longest <= self.max_length
                else f"an option of {longest} tokens; the window is {self.max_length}"
            )
        if needed > self.max_length:
            return (
                f"context of {len(doc.context_ids)} tokens and longest option of {longest} need {needed} positions; "
                f"the model's window is {self.max_length}"
            )
        return None

    def _lines(self, index: int, doc: EncodedDoc) -> Iterator[Line]:
        slot, context = 0, pack(doc.context_ids)
        for option in doc.option_ids:
            # Cut from the left as lm-eval's hf backend does; only with long_prompts "left" is there anything to cut.
            fed = (context + pack(option[:-1]))[-4 * self.max_length :]
            yield Line(index, slot, fed, option)
            slot += len(option)


def _sentinel(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Of the document with the longest line: that line, and the one that stands last in its row.

    The first shows errors of length, the second errors of one option seeing another.
    """
    if not lines:
        return ()
    longest = max(lines, key=lambda line: len(line.fed))
    mine = (line for line in lines if line.doc == longest.doc)
    last = max(mine, key=lambda line: line.fed)
    return (longest,) if last.fed == longest.fed else (longest, last)


def _token_bytes(model: Any) -> int:
    """Bytes of the keys and values of one token, all layers."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", 1)
    size = getattr(config, "head_dim", None) or config.hidden_size // getattr(config, "num_attention_heads", 1)
    bits = torch.finfo(model.dtype).bits
    return max(1, int(2 * config.num_hidden_layers * heads * size * bits // 8))


def _all_finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))
