"""Gates over generated benchmarks with engines that answer from a rule: who is wrong about what, who was asked what."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from evalsuite import run as running
from evalsuite.gate.policy import Method, Policy, Rule
from evalsuite.gate.verdict import Finding
from evalsuite.gating import Gated, GateJob, gate
from evalsuite.models import EngineSpec
from evalsuite.models.fake import FakeModel
from evalsuite.registry import Registry
from evalsuite.score import Job
from evalsuite.scorecard import CheckpointRef
from evalsuite.suite import Suite, adhoc_suite
from evalsuite.types import GenerateRequest
from tests.toy import make_benchmark

Wrong = Callable[[GenerateRequest], bool]

N, LOOKS = 400, 4
LOOK = N // LOOKS
"""Items of a benchmark, and of one look at it."""

POLICY = Policy(method=Method(looks=LOOKS), default=Rule(margin=0.1, block_null="zero"), infra=())
"""At the planned disagreement of .15 the standard error is √(.15/400) = .019, so a margin of .1 is five of them."""


def number(request: GenerateRequest) -> int:
    """n of `toy: what is n + n?`; −1 for any other prompt."""
    words = request.prompt.text.split()
    return int(words[3]) if words[1:3] == ["what", "is"] else -1


def never(request: GenerateRequest) -> bool:
    return False


def every(nth: int, of: int = 0) -> Wrong:
    """Wrong about every n-th question."""
    return lambda request: number(request) % nth == of


def about(numbers: Collection[int]) -> Wrong:
    return lambda request: number(request) in numbers


@dataclass
class Checkpoint:
    """One side. `asked` has (benchmark, number of the question, seed) of everything it answered; greedy is seed 0."""

    name: str
    wrong: Wrong = never
    fails: Wrong = never  # questions on which its engine breaks
    broken: str = ""  # why its engine cannot start
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def numbers(self, benchmark: str = "toy") -> list[int]:
        """The questions it was asked, in order, without the one that only checks whether it generates."""
        return [n for b, n, _ in self.asked if b == benchmark and n >= 0]

    def answer(self, request: GenerateRequest) -> str:
        n = number(request)
        benchmark = request.prompt.text.split()[0].strip(":") if n >= 0 else ""
        self.asked.append((benchmark, n, request.sampling.seed))
        if n < 0:
            return "Hello to you"
        return "no idea" if self.wrong(request) else str(2 * n)


class Engine(FakeModel):
    """Fails on the questions that its checkpoint says, so that a failure goes away when the checkpoint is mended."""

    def __init__(self, who: Checkpoint, **options: Any) -> None:
        super().__init__(answers=who.answer, **options)
        self.who = who

    def generate(self, requests: Any, wanted: Any = None) -> Any:
        for i, answer in super().generate(requests, wanted):
            broken = self.who.fails(requests[i])
            yield i, replace(answer, text="", finish="error", why="the device is lost") if broken else answer


@dataclass
class World:
    """Benchmarks, results and a registry in a folder, and the sides that gates there are about."""

    root: Path
    names: tuple[str, ...] = ("toy",)
    opened: list[Engine] = field(default_factory=list)
    latency_s: float = 0.0

    @property
    def order_of_engines(self) -> list[str]:
        """Whose engine was opened, one after another."""
        return [engine.who.name for engine in self.opened]

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def registry(self) -> Registry:
        return Registry.at(self.results, actor="ann", host="desk")

    @property
    def suite(self) -> Suite:
        return adhoc_suite(self.names, [self.root / "benchmarks"])

    def job(self, who: Checkpoint, **changes: Any) -> Job:
        suite = self.suite
        job = Job(
            suite,
            dict(suite.columns),
            CheckpointRef(who.name, who.digest),
            self.root / who.name,
            EngineSpec("fake", "asked for", "none", options={"who": who}),
            None,
            self.results,
            command=f"evalsuite gate {who.name}",
        )
        return replace(job, **changes)

    def gate_job(self, mine: Checkpoint, theirs: Checkpoint | None, policy: Policy = POLICY, **facts: Any) -> GateJob:
        anchor = facts.pop("anchor", None)
        facts = {"ref": "champion", "generation": 1 if theirs else None, "registry": self.registry, **facts}
        return GateJob(
            policy,
            self.job(mine),
            self.job(theirs) if theirs else None,
            self.job(anchor) if anchor else None,
            results=self.results,
            **facts,
        )

    def gate(self, mine: Checkpoint, theirs: Checkpoint | None, policy: Policy = POLICY, **facts: Any) -> Gated:
        return gate(self.gate_job(mine, theirs, policy, **facts))

    def events(self, kind: str) -> list[Any]:
        return [event for event in self.registry.events() if event.event == kind]

    def written(self) -> dict[str, bytes]:
        """Every verdict in results/gates, by its file's name."""
        return {path.name: path.read_bytes() for path in sorted((self.results / "gates").glob("*"))}

    def answers(self, who: str = "") -> Counter[str]:
        """How often each key stands in the journals (of one checkpoint): once, where nothing was asked twice."""
        folder = self.results / "journal" / (Checkpoint(who).digest[:12] if who else "")
        lines = [line for path in folder.rglob("*.jsonl") for line in path.open()]
        return Counter(line.split('"key":"')[1][:32] for line in lines if '"key":"' in line)

    def open(self, spec: EngineSpec, checkpoint: Path | None) -> FakeModel:
        from evalsuite.errors import EngineError

        who: Checkpoint = spec.options["who"]
        if who.broken:
            raise EngineError(who.broken)
        assert all(engine.closed for engine in self.opened), "two engines want the device at once"
        self.opened.append(Engine(who, latency_s=self.latency_s))
        return self.opened[-1]


def pairs(gated: Gated) -> dict[tuple[str, str], Finding]:
    """The comparisons of a verdict, by benchmark and reference."""
    found = gated.verdict.findings
    return {(f.benchmark, f.reference): f for f in found if f.rule == "must_not_regress"}


def pair(gated: Gated) -> Finding:
    """The one comparison of a verdict."""
    (found,) = pairs(gated).values()
    return found


def make_world(root: Path, names: tuple[str, ...] = ("toy",), n: int = N, **options: Any) -> World:
    """A world whose questions name their benchmark."""
    for name in names:
        make_benchmark(root / "benchmarks", name, n, choices=name.startswith("choose"))
        verify = root / "benchmarks" / name / "verify.py"
        verify.write_text(verify.read_text().replace("What is", f"{name}: what is"))
    return World(root, names, **options)


@contextmanager
def world_in(root: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[World]:
    world = make_world(root, **options)
    monkeypatch.setattr(running, "open_model", world.open)
    yield world
    assert all(engine.closed for engine in world.opened)
