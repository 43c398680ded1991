"""A model that writes and answers prompts for personas as it is told: behind a server on loopback, or as an engine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from evalsuite.verify.constraints import followed
from evalsuite.verify.constraints.ifeval_answers import answer
from tests.servers import Reply
from train_plugins.data.persona_constraints import Drawn, settled
from train_plugins.data.persona_prompts import Task, relaxed

Spoil = Callable[[str, str], str | None]
"""(kind of text, what was asked) to a bad reply instead of the good one."""

# Fails "less than" and "do without" of every kind; the other fails "at least" and "use".
LONG = " ".join(["Literally, very special simple basically clearly easily honestly amazing really jkqvxz"] * 60)
SHORT = "No, thanks"


class Author:
    """Good replies to everything that a plan asks, always the same; `spoil` may put a bad one in its place."""

    def __init__(self, tasks: Sequence[Task], seed: int, spoil: Spoil = lambda kind, asked: None) -> None:
        self._tasks = {(task.persona, tuple(one.words for one in task.constraints)): task for task in tasks}
        self._seed, self._spoil = seed, spoil
        self._instructions: dict[str, tuple[Drawn, ...]] = {}
        self._relaxed: dict[str, tuple[Drawn, ...]] = {}
        # Known ahead: a server that is started anew has written none of them.
        for task in tasks:
            if task.constraints:
                text = instruction(task)
                self._instructions[text] = settled(text, task.constraints)
                self._relaxed[loosened(text, relaxed(task, seed))] = self._instructions[text]

    def __call__(self, asked: str) -> str:
        kind = self._kind(asked)
        bad = self._spoil(kind, asked)
        return getattr(self, f"_{kind}")(asked) if bad is None else bad

    def served(self, body: dict[str, Any]) -> Reply:
        """The reply as a chat endpoint sends it."""
        text = self(body["messages"][-1]["content"])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return Reply({"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": len(text.split())}})

    def _kind(self, asked: str) -> str:
        if "Make up one" in asked:
            return "prompt"
        if "Rewrite the instruction" in asked:
            return "rewrite"
        if asked in self._relaxed:
            return "rejected"
        return "constrained" if asked in self._instructions else "solution"

    def _prompt(self, asked: str) -> str:
        persona = re.search(r"^Person: (.*)$", asked, re.MULTILINE)
        assert persona is not None
        words = tuple(re.findall(r"^- (.*)$", asked, re.MULTILINE))
        if words:
            return f"User instruction: {instruction(self._tasks[persona[1], words])}"
        if "Python" in asked:
            return f"Question: Write double(n) for {persona[1]}.\nExample: double(4) == 8"
        return f"**Math problem:** {shown(persona[1])} buys {number(asked)} eggs and 2 more. How many?"

    def _constrained(self, asked: str) -> str:
        constraints = self._instructions[asked]
        return answer([one.id for one in constraints], [one.kwargs for one in constraints])

    def _rewrite(self, asked: str) -> str:
        text = asked.split("assistant:\n\n", 1)[1].split("\n\nAmong other things", 1)[0]
        words = re.search(r"it demands this: (.*)\n", asked)
        assert words is not None
        return f"User instruction: {text.replace(words[1], 'Do as you like.')}"

    def _rejected(self, asked: str) -> str:
        constraints = self._relaxed[asked]
        ids, kwargs = [one.id for one in constraints], [one.kwargs for one in constraints]
        bad = (text for text in (LONG, SHORT) if not all(c.ok for c in followed(text, ids, kwargs, mode="loose")))
        return next(bad)

    def _solution(self, asked: str) -> str:
        if "Python function" in asked:
            return "```python\ndef double(n):\n    return 2 * n\n```"
        found = re.search(r"buys (\d+) eggs", asked)
        assert found is not None, asked
        total = int(found[1]) + 2
        if "####" in asked:
            return f"{found[1]} and 2 make {total:,}.\n#### {total:,}"
        return f"{found[1]} + 2 = {total}.\nFinal Answer: The final answer is ${total}$. I hope it is correct."


def instruction(task: Task) -> str:
    """The request on a line of its own, then the constraints in their own words."""
    return "\n".join([f"Tell me what {shown(task.persona)} needs.", *(one.words for one in task.constraints)])


def loosened(text: str, constraint: Drawn) -> str:
    return text.replace(constraint.words, "Do as you like.")


def shown(persona: str) -> str:
    """Persona in plain words of letters."""
    return persona.removeprefix("A ").removeprefix("a ")


def number(text: str) -> int:
    return 1000 + int(hashlib.sha256(text.encode()).hexdigest()[:4], 16)
