"""The rows of a run as prompts, and which of them an iteration asks. For the worker process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evalsuite.errors import DataError
from evalsuite.trainers.files import load_json
from train_plugins.order import Order
from train_plugins.rlvr.options import RLVROptions
from train_plugins.rlvr.rollouts import Prompt
from train_plugins.worker import Run, load_rows


def read_rows(run: Run) -> list[dict[str, Any]]:
    """The job's rows in order. Their labels are for `check_rows`, which knows the verifiers that the options name."""
    return load_rows(run, "rlvr", labels=False)


def read_prompts(run: Run, tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> tuple[Prompt, ...]:
    """The rows as prompts. One whose prompt is too long is dropped, never cut; their number is told as a warning.

    Raises DataError where none is left, or fewer than an iteration asks.
    """
    options: RLVROptions = run.options
    prompts, dropped = [], []
    for number, row in enumerate(rows):
        ids = prompt_ids(tokenizer, row["messages"])
        if len(ids) > options.prompt_tokens:
            dropped.append(len(ids))
            continue
        label = row["ground_truth"]
        prompts.append(Prompt(number, str(row.get("id", number)), ids, _name(row["dataset"]), label, row))
    if dropped:
        run.warn(
            "overlong",
            f"{len(dropped)} of {len(rows)} prompts are longer than {options.prompt_tokens} tokens and were dropped; "
            f"the longest has {max(dropped):,}",
        )
    if len(prompts) < options.prompts_per_iteration:
        raise DataError(_too_few(options, len(prompts), dropped))
    _warn_of_window(run, max(len(prompt.ids) for prompt in prompts))
    return tuple(prompts)


def _warn_of_window(run: Run, longest: int) -> None:
    """Where prompt and response may become longer than anything that the model has positions for."""
    options: RLVROptions = run.options
    config = load_json(run.job.start.path / "config.json") if run.job.start else None
    window = (config or {}).get("max_position_embeddings")
    if isinstance(window, int) and longest + options.response_tokens > window:
        run.warn(
            "window",
            f"the longest prompt has {longest:,} tokens, responses up to {options.response_tokens:,}: more than the "
            f"{window:,} that the model has positions for, and what it writes there is noise; lower response_tokens",
        )


def _too_few(options: RLVROptions, n: int, dropped: Sequence[int]) -> str:
    asked = options.prompts_per_iteration
    if n + len(dropped) < asked:  # longer prompts would not be enough either
        told = f" of which {n} fit prompt_tokens," if dropped else ""
        return f"the data has {n + len(dropped)} prompts,{told} an iteration asks {asked}; lower prompts_per_iteration"
    enough = sorted(dropped)[asked - n - 1]
    return (
        f"{n} of {n + len(dropped)} prompts have at most {options.prompt_tokens} tokens, an iteration asks {asked}; "
        f"raise prompt_tokens (to {enough:,} at least) or lower prompts_per_iteration"
    )


def _name(dataset: str | Sequence[str]) -> str:
    """What a row has under `dataset`; several verifiers as one text."""
    return dataset if isinstance(dataset, str) else ",".join(dataset)


def prompt_ids(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
    """Token ids of a conversation that ends with the header of the assistant's turn."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


class PromptOrder:
    """Every epoch is a permutation of the prompts, and iterations take `per_iteration` after one another: an iteration
    may end one epoch and begin the next. `shuffles` holds (iteration, seed), as a run keeps them. `first_twice` has
    the second iteration ask what the first one asked."""

    def __init__(
        self, n_prompts: int, per_iteration: int, shuffles: Sequence[tuple[int, int]], *, first_twice: bool = False
    ) -> None:
        self.per_iteration, self.first_twice = per_iteration, first_twice
        # What the first iteration asked keeps its seed when it is asked again.
        places = [max(self._n_asked(step), min(step, 1) * per_iteration) for step, _ in shuffles]
        self._order = Order(n_prompts, 1, [(at, seed) for at, (_, seed) in zip(places, shuffles, strict=True)])

    def numbers(self, iteration: int) -> tuple[int, ...]:
        """Places of an iteration's prompts; iterations count from 1."""
        first = self._n_asked(iteration - 1)
        return tuple(self._order.rows(first + i)[0] for i in range(self.per_iteration))

    def _n_asked(self, iterations: int) -> int:
        """How many places of the order the first iterations have used up."""
        return (iterations - (self.first_twice and iterations > 0)) * self.per_iteration
