"""Pools and judges for tests: an engine whose answers are a function of the question, no model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from evalsuite.models.fake import FakeModel
from evalsuite.types import GenerateRequest, Model, Response
from evalsuite.verify.judge_prompt import fenced_blocks
from train_plugins.data.asking import Engine

Say = Callable[[str], str | Response]


@dataclass
class Scripted:
    """Counts what it was asked. `say` takes the last message; a Response of it stands as it is."""

    name: str
    say: Say
    n_open: int = 0
    n_open_most: int = 0
    asked: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def engine(self) -> Engine:
        return Engine(self.name, {"engine": "scripted", "name": self.name}, lambda: cast("Model", _Model(self)))


class _Model(FakeModel):
    def __init__(self, of: Scripted) -> None:
        super().__init__()
        self.of = of
        of.n_open += 1
        OPEN.append(of.name)
        of.n_open_most = max(of.n_open_most, len(OPEN))

    def generate(self, requests: Sequence[GenerateRequest], wanted: Any = None) -> Any:
        for i in self._order(len(requests), wanted):
            request = requests[i]
            text = (request.prompt.messages or ())[-1].content
            self.of.asked.append(text)
            self.of.seeds.append(request.sampling.seed)
            said = self.of.say(text)
            yield i, said if isinstance(said, Response) else Response(said, "stop", len(said.split()))

    def close(self) -> None:
        if not self.closed:
            OPEN.remove(self.of.name)
        super().close()


OPEN: list[str] = []  # names of the models that are open now
FAILED = Response("", "error", why="503 after 6 tries")


def texts_in(question: str) -> dict[int, str]:
    """The numbered texts of a question to the judge."""
    blocks = dict(fenced_blocks(question))
    return {int(name.removeprefix("text_")): text for name, text in blocks.items() if name.startswith("text_")}


def instruction_in(question: str) -> str:
    return dict(fenced_blocks(question))["instruction"]


def aspect_in(question: str) -> str:
    found = re.search(r"Grade one thing only: ([\w ]+)\.", question)
    assert found is not None
    return found[1].replace(" ", "_")


def as_json(ratings: Mapping[int, Any]) -> str:
    return json.dumps({"ratings": [{"text": n, "reason": "because", "rating": r} for n, r in ratings.items()]})


def as_paragraphs(ratings: Mapping[int, Any]) -> str:
    """The layout of UltraFeedback, with what its parser stumbled over: a preamble and blank lines in rationales."""
    reason = "Rationale: One reason.\n\nAnother reason, in a paragraph of its own."
    parts = [f"#### Output for Text {n}\nRating: {rating}\n{reason}" for n, rating in ratings.items()]
    return "Here is what I think of them.\n\n" + "\n\n".join(parts)


def rates_by(rating: Callable[[str, str], Any], form: Callable[[Mapping[int, Any]], str] = as_json) -> Say:
    """A judge whose rating of a text depends on (text, aspect) alone, whatever its place."""
    return lambda question: form({n: rating(t, aspect_in(question)) for n, t in texts_in(question).items()})
