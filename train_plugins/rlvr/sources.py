"""Where the rollouts of an iteration come from: in turns with the learner, or one iteration ahead of it. Worker only.

Iteration k improves the weights of version k - 1. In turns its rollouts are written by version k - 1; ahead they are
written while iteration k - 1 trains, by version k - 2: never older, and never by two versions at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.prompts import PromptOrder
from train_plugins.rlvr.rollouts import Batch, Prompt, Request, Response, Reward, Rollout

if TYPE_CHECKING:
    from train_plugins.rlvr.rewarding import Rewarder
    from train_plugins.worker import Run

MAX_STALENESS = 1


class Writer(Protocol):
    """Has responses written. `ask` may return before they are there, `answer` waits for them; at most one request is
    under way. `version` counts the updates of the weights that write."""

    def ask(self, request: Request, version: int) -> None: ...

    def answer(self) -> tuple[int, list[Response], Mapping[str, float]]:
        """(version of the weights that wrote, responses, seconds of each part)."""
        ...

    def close(self) -> None: ...


class Turns:
    """A generator that shares the learner's process and weights: every process writes its part of the prompts."""

    def __init__(self, generator: Any, run: Run) -> None:
        self.generator, self.run = generator, run
        self._asked: tuple[Request, int] | None = None

    def ask(self, request: Request, version: int) -> None:
        self._asked = (request, version)

    def answer(self) -> tuple[int, list[Response], Mapping[str, float]]:
        assert self._asked is not None
        (request, version), self._asked = self._asked, None
        began, cpu = time.monotonic(), time.process_time()
        parts = [self.generator.generate(part) if (part := _part(request, self.run)).numbers else []]
        if self.run.processes > 1:
            from accelerate.utils import gather_object

            parts = gather_object(parts)
        spent = {"generate_s": time.monotonic() - began, "generate_cpu_s": time.process_time() - cpu}
        return version, [response for part in parts for response in part], spent

    def close(self) -> None:
        self.generator.close()


def _part(request: Request, run: Run) -> Request:
    """The prompts that this process writes to: neighbours, so that parts put end to end are the whole."""
    n = len(request.numbers)
    own = slice(run.rank * n // run.processes, (run.rank + 1) * n // run.processes)
    return Request(request.seed, request.iteration, request.numbers[own], request.prompts[own], request.samples)


class Source:
    """Gives the batch of each iteration, with scores. `version()` is that of the learner's weights now."""

    def __init__(self, run: Run, prompts: Sequence[Prompt], tokenizer: Any, writer: Writer, rewarder: Rewarder) -> None:
        self.run, self.prompts, self.tokenizer, self.writer, self.rewarder = run, prompts, tokenizer, writer, rewarder
        self.options: RLVROptions = run.options
        twice = self.options.first_prompts == "twice"
        self.order = PromptOrder(len(prompts), self.options.prompts_per_iteration, run.shuffles, first_twice=twice)
        self._asked: int | None = None

    def take(self, iteration: int) -> Batch:
        """The rollouts of an iteration; those of the next one are asked for before this returns where they may be."""
        if self._asked != iteration:
            self._ask(iteration)
        version, responses, seconds = self.writer.answer()
        self._asked = None
        if self.options.mode == "async" and iteration < self.options.n_iterations:
            self._ask(iteration + 1)
        staleness = iteration - 1 - version
        if not 0 <= staleness <= MAX_STALENESS:
            raise AssertionError(f"iteration {iteration} was given rollouts of version {version}: {staleness} too old")
        return self._scored(iteration, version, self._chosen(iteration), responses, seconds)

    def once(self, label: int, rows: Sequence[Prompt], samples: int) -> Batch:
        """Rollouts outside the iterations, by the weights of now. `label` (0 or less) is what their seeds hang on."""
        request = Request(self._seed, label, tuple(p.number for p in rows), tuple(p.ids for p in rows), samples)
        self.writer.ask(request, self.run.step_now)
        version, responses, seconds = self.writer.answer()
        return self._scored(label, version, rows, responses, seconds, samples)

    def close(self) -> None:
        self.writer.close()
        self.rewarder.close()

    @property
    def _seed(self) -> int:
        return int(self.run.shuffles[-1][1])

    def _chosen(self, iteration: int) -> list[Prompt]:
        return [self.prompts[i] for i in self.order.numbers(iteration)]

    def _ask(self, iteration: int) -> None:
        rows = self._chosen(iteration)
        numbers, ids = tuple(p.number for p in rows), tuple(p.ids for p in rows)
        self.writer.ask(
            Request(self._seed, iteration, numbers, ids, self.options.samples_per_prompt), self.run.step_now
        )
        self._asked = iteration

    def _scored(
        self, iteration: int, version: int, rows: Sequence[Prompt], responses: Sequence[Response],
        seconds: Mapping[str, float], samples: int | None = None,
    ) -> Batch:  # fmt: skip
        each = samples or self.options.samples_per_prompt
        asked = [(prompt, i) for prompt in rows for i in range(each)]
        decoded = self.tokenizer.batch_decode([list(r.ids) for r in responses], skip_special_tokens=True)
        texts = [text.strip() for text in decoded]
        began, cpu = time.monotonic(), time.process_time()
        rewards = self._rewards([(p.dataset, text, p.row) for (p, _), text in zip(asked, texts, strict=True)])
        spent = {"verify_s": time.monotonic() - began, "verify_cpu_s": time.process_time() - cpu}
        rollouts = tuple(
            Rollout(prompt, i, response, text, reward, score_of(self.options, reward, response))
            for (prompt, i), response, text, reward in zip(asked, responses, texts, rewards, strict=True)
        )
        return Batch(iteration, version, rollouts, {**seconds, **spent})

    def _rewards(self, items: list[tuple[str, str, Mapping[str, Any]]]) -> list[Reward]:
        """Verified on the main process alone: verifiers may keep pools, and all have to hear the same."""
        rewards = self.rewarder(items) if self.run.is_main else []
        return list(self.run.ranks.agree(rewards))


def score_of(options: RLVROptions, reward: Reward, response: Response) -> float:
    """`reward_value` for each verified part; a response that did not end has the penalty in place of it."""
    if not response.finished and options.eos_penalty is not None:
        return options.eos_penalty
    return options.reward_value * reward.total
