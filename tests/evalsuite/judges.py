"""Judges made on the spot: a protocol with a function behind it instead of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from evalsuite.judge import Judge
from evalsuite.judging import Judged, judge_asks
from evalsuite.models.fake import FakeModel
from evalsuite.plan import Plan
from evalsuite.protocol import Protocol, load_protocol
from evalsuite.types import GenerateRequest, LoglikRequest, Response
from evalsuite.verify.judge import Ask, Verdict
from evalsuite.verify.judge_prompt import fenced_blocks


def make_judge(
    answers: Callable[[GenerateRequest], str] | None = None,
    *,
    protocol: Protocol | str = "demo",
    local: bool = True,
    discrete: bool = False,
    who: Mapping[str, str] | None = None,
    positions: Any = None,
    parser: str | None = None,
    model: Any = None,
    **options: Any,
) -> Judge:
    found = load_protocol(protocol) if isinstance(protocol, str) else protocol
    model = model or FakeModel(answers=answers, **options)
    return Judge(
        found,
        found.templates,
        who or {"engine": "fake", "model": "fake"},
        lambda: model,
        model.render,
        local=local,
        discrete=discrete,
        positions=positions,
        parser=parser,
    )


def blocks(request: GenerateRequest | LoglikRequest) -> dict[str, str]:
    """What stands between fences in a judge's prompt, by field."""
    prompt = request.prompt if isinstance(request, GenerateRequest) else request.context
    return dict(fenced_blocks(prompt.text))


def prefers_longer(request: GenerateRequest) -> str:
    shown = blocks(request)
    first, second = len(shown["output_1"]), len(shown["output_2"])
    return "A" if first > second else "B" if second > first else "tie"


def pair(candidate: str, baseline: str = "same", swapped: bool = False, instruction: str = "Say something.") -> Ask:
    return Ask("compare", {"instruction": instruction, "output_1": baseline, "output_2": candidate}, swapped)


def plan_of(n: int, asks: Callable[[str, Any], tuple[Ask, ...]], name: str = "toy") -> tuple[Plan, Any]:
    """A plan of n samples whose benchmark asks `asks(response, doc)`, and a response to each of them."""
    benchmark: Any = SimpleNamespace(name=name, prompt_digest="digest", module=SimpleNamespace(asks=asks))
    docs = {f"q{i}": {"baseline": "b" * (i % 7), "swapped": i % 2 == 1} for i in range(n)}
    responses = {(sample, 0): Response("c" * (i % 5), "stop", 3) for i, sample in enumerate(docs)}
    return Plan(benchmark, [], docs, {}, {}, (), {}), responses


def against_baseline(response: str, doc: Any) -> tuple[Ask, ...]:
    return (pair(response, doc["baseline"], doc["swapped"]),)


def one_token(protocol: Protocol | None = None) -> Protocol:
    """The demo protocol, answered with one of the tokens m and M."""
    found = protocol or load_protocol("demo")
    answer = replace(found.answer, kind="next_token", options=("m", "M"), max_tokens=1, top_logprobs=5)
    return replace(found, answer=answer, parser="m_or_M")


def judged(judge: Judge, folder: Path, *asks: Ask, **options: Any) -> Judged:
    return judge_asks("toy", "digest", {(f"q{i}", 0): (ask,) for i, ask in enumerate(asks)}, judge, folder, **options)


def kinds(found: Judged) -> list[str | float | None]:
    """The preference of each verdict, or the kind of its failure."""
    return [v.preference if isinstance(v, Verdict) else v.kind for several in found.verdicts.values() for v in several]


class Refuses:
    """A model that must not be asked anything."""

    name = "refuses"
    max_length = 1

    def render(self, messages: Any, add_generation_prompt: bool = True) -> str:
        return make_judge().model().render(messages, add_generation_prompt)

    def generate(self, requests: Any, wanted: Any = None) -> Iterator[Any]:
        raise AssertionError(f"asked for {wanted}")

    loglikelihood = generate

    def close(self) -> None: ...
