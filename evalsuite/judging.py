"""The judge stage: asks a judge about stored responses, keeps every answer in a journal, and hands back verdicts.

The answers are journaled as they came and read anew each time, so another parser costs no question. The journal's keys
cover the judge, the wording, the texts and their order, not the candidate: equal texts share a verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from evalsuite.distributions import mcnemar
from evalsuite.errors import EngineError, EvalsuiteError, Incomplete
from evalsuite.journal import Answer, Journal, KeyMaker
from evalsuite.judge import NO_LOGPROBS, Judge, Shown, open_judge, pick_judge
from evalsuite.models.api.health import ServerGone
from evalsuite.plan import Plan
from evalsuite.progress import Observer, Silent
from evalsuite.types import GenerateRequest, LoglikRequest, Response
from evalsuite.verify.judge import Ask, NoVerdict, Verdict, turned

__all__ = ["Judge", "Judged", "judge_asks", "judge_plan", "open_judge", "pick_judge"]

TRANSPORT_IN_A_ROW = 20
WITHOUT_LOGPROBS = 10
BIAS_P = 0.001

Key = tuple[str, int]
Said = Verdict | NoVerdict


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge said of one benchmark's responses.

    `verdicts` has the asks of each (sample, response number) in order, () where there was nothing to ask. Of pairwise
    verdicts: `first_wins` and `second_wins` count by position shown, `n_ties` the rest, `n_flips` of `n_both` verdicts
    changed with the order, `longer_by` is the mean length of winner minus loser in characters.
    """

    verdicts: Mapping[Key, tuple[Said, ...]]
    judge: Mapping[str, Any]
    n_asked: int = 0
    n_judged: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)
    first_wins: int = 0
    second_wins: int = 0
    n_ties: int = 0
    n_flips: int = 0
    n_both: int = 0
    longer_by: float | None = None
    n_suspicious: int = 0
    n_broken: int = 0
    tokens_prompt: int | None = None
    tokens_new: int = 0
    dates: tuple[str, ...] = ()

    @property
    def first_rate(self) -> float | None:
        """How often the text shown first wins, of the verdicts that prefer one; near 0.5 unless position counts."""
        decided = self.first_wins + self.second_wins
        return self.first_wins / decided if decided else None

    @property
    def tie_rate(self) -> float | None:
        decided = self.first_wins + self.second_wins + self.n_ties
        return self.n_ties / decided if decided else None

    @property
    def flip_rate(self) -> float | None:
        return self.n_flips / self.n_both if self.n_both else None

    @property
    def identity(self) -> dict[str, Any]:
        """The judge and how it fared, for the scorecard."""
        return {
            **self.judge,
            "dates": list(self.dates),
            "n_asked": self.n_asked,
            "n_judged": self.n_judged,
            "failures": dict(self.failures),
            "modes": dict(self.modes),
            "tokens": {"prompt": self.tokens_prompt, "new": self.tokens_new},
            "first_position_rate": self.first_rate,
            "tie_rate": self.tie_rate,
            "flip_rate": self.flip_rate,
            "winner_longer_by": self.longer_by,
            "n_suspicious": self.n_suspicious,
            "n_controls_broken": self.n_broken,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings for the reader of the scores."""
        return tuple(_notes(self))


def judge_plan(
    plan: Plan,
    responses: Mapping[Key, Response],
    judge: Judge,
    folder: Path,
    *,
    observer: Observer | None = None,
    wait: bool = True,
    fresh: bool = False,
    command: str = "",
) -> Judged:
    """The verdicts on a benchmark's responses; only what no journal under `folder` holds is asked.

    `fresh` asks these questions again; what else is stored stays. Raises EngineError when the judge is gone or gives no
    log-probabilities, Incomplete when interrupted; what was judged is kept, and `command` is what the message says to
    type next.
    """
    module: Any = plan.benchmark.module
    asks: dict[Key, Sequence[Ask]] = {}
    broken: dict[Key, tuple[Said, ...]] = {}
    for key, response in responses.items():
        if response.finish == "error":
            continue
        try:
            asks[key] = tuple(module.asks(response.text, plan.docs[key[0]]))
        except Exception as error:  # one bad sample is a failed sample, never a crashed run
            broken[key] = (NoVerdict("engine", f"the benchmark's asks raised {type(error).__name__}: {error}"),)
    name, about = plan.benchmark.name, plan.benchmark.prompt_digest
    judged = judge_asks(name, about, asks, judge, folder, observer=observer, wait=wait, fresh=fresh, command=command)
    return _with_broken(judged, broken) if broken else judged


def _with_broken(judged: Judged, broken: Mapping[Key, tuple[Said, ...]]) -> Judged:
    """With the samples whose question could not be put together: each is a question without a verdict."""
    failures = Counter(judged.failures) + Counter(engine=len(broken))
    return replace(
        judged,
        verdicts={**judged.verdicts, **broken},
        n_asked=judged.n_asked + len(broken),
        failures=_sorted(failures),
    )


def judge_asks(
    name: str,
    about: str,
    asks: Mapping[Key, Sequence[Ask]],
    judge: Judge,
    folder: Path,
    *,
    observer: Observer | None = None,
    wait: bool = True,
    fresh: bool = False,
    command: str = "",
    as_given: bool = False,
) -> Judged:
    """The verdicts on any questions; `name` is the journal's folder and `about` says what they are asked about.

    `as_given` shows every ask in its own order, whatever the judge's positions are.
    """
    observer = observer or Silent()
    questions = list(_questions(asks, judge, as_given))
    header = {"benchmark": name, "judge": judge.identity(), "command": command}
    place = folder / f"judge-{judge.asked[:12]}" / name
    with Journal(place, header, wait=wait, again=fresh, say=observer.say) as journal:
        stage = _Stage(judge, journal, KeyMaker(judge.asked, about, {}), name, observer, command)
        answers = stage.ask(questions, 0)
        said = [judge.read(answer) for answer in answers]
        if judge.samples:
            # A second try only where the first could not be read, and only of a judge that may answer differently.
            unread = [i for i, s in enumerate(said) if isinstance(s, NoVerdict) and s.kind == "unparsed"]
            for i, answer in zip(unread, stage.ask([questions[i] for i in unread], 1), strict=True):
                answers[i], said[i] = answer, judge.read(answer)
        dates = tuple(journal.described().get("date", ()))
    return _judged(asks, judge, questions, answers, said, dates)


# -- asking --


@dataclass(frozen=True, slots=True)
class _Question:
    """One order of one ask: the `position`-th of its response."""

    key: Key
    position: int
    ask: Ask
    swapped: bool
    shown: Shown


def _questions(asks: Mapping[Key, Sequence[Ask]], judge: Judge, as_given: bool) -> Iterator[_Question]:
    for key, several in asks.items():
        for position, ask in enumerate(several):
            for swapped in (ask.swapped,) if as_given else judge.orders(ask):
                yield _Question(key, position, ask, swapped, judge.shown(ask, swapped))


class _Stage:
    """Asks questions that the journal has no answer to; every answer is stored before the next one is taken."""

    def __init__(
        self, judge: Judge, journal: Journal, keys: KeyMaker, name: str, observer: Observer, command: str
    ) -> None:
        self._judge, self._journal, self._keys = judge, journal, keys
        self._name, self._observer, self._command = name, observer, command
        self._in_a_row = self._n_lacking = self._n_with = 0

    def ask(self, questions: Sequence[_Question], repetition: int) -> list[Answer]:
        """The answers, one for each question; equal questions are asked once."""
        if not questions:
            return []
        unique: dict[str, tuple[Key, GenerateRequest | LoglikRequest]] = {}
        keys = []
        for q in questions:
            request = q.shown.request if not repetition else self._judge.shown(q.ask, q.swapped, repetition).request
            key = self._keys.key(q.key[0], repetition, request)
            keys.append(key)
            unique.setdefault(key, (q.key, request))
        names = list(unique)
        wanted = {i for i, key in enumerate(names) if self._journal.get(key) is None or self._stored(key).failed}
        if not repetition:
            self._observer.planned(f"{self._name} (judge)", len(names), len(names) - len(wanted))
        if wanted:
            self._n_with = len(names) - len(wanted)
            self._answer(names, unique, wanted, repetition)
        return [self._stored(key).answer for key in keys]

    def _stored(self, key: str) -> Any:
        return self._journal.get(key)

    def _answer(
        self,
        names: Sequence[str],
        unique: Mapping[str, tuple[Key, GenerateRequest | LoglikRequest]],
        wanted: set[int],
        repetition: int,
    ) -> None:
        self._journal.describe({"date": datetime.now(UTC).date().isoformat()})
        left = len(wanted)
        try:
            with closing(self._stream([unique[n][1] for n in names], wanted)) as stream:
                for index, answer in stream:
                    kept = self._checked(answer)
                    self._journal.append(names[index], unique[names[index]][0][0], repetition, kept)
                    left -= 1
                    self._observer.answered(f"{self._name} (judge)", kept)
                    self._stop_if_hopeless(kept)
        except ServerGone as error:
            raise self._gone(str(error)) from None
        except KeyboardInterrupt:
            raise Incomplete(f"stopped: {left} judgements of {self._name} are missing{self._go_on}") from None

    def _stream(self, requests: Sequence[Any], wanted: set[int]) -> Any:
        model = self._judge.model()
        if isinstance(requests[0], GenerateRequest):
            return cast("Any", model.generate(requests, wanted))
        return cast("Any", model.loglikelihood(requests, wanted))

    def _checked(self, answer: Answer) -> Answer:
        """An answer without the log-probabilities that it must be read from is a failed one: resume asks again."""
        if self._judge.reads != "top_logprobs" or not isinstance(answer, Response) or answer.finish == "error":
            return answer
        self._n_lacking, self._n_with = self._n_lacking + (not answer.top), self._n_with + bool(answer.top)
        return answer if answer.top else replace(answer, finish="error", why=NO_LOGPROBS)

    def _stop_if_hopeless(self, answer: Answer) -> None:
        if self._n_lacking >= WITHOUT_LOGPROBS and not self._n_with:
            raise EngineError(f"{NO_LOGPROBS}; use a discrete judge (--judge-discrete), which is another identity")
        said = self._judge.read(answer)
        transport = isinstance(said, NoVerdict) and said.kind == "transport"
        self._in_a_row = self._in_a_row + 1 if transport else 0
        if self._in_a_row >= TRANSPORT_IN_A_ROW and isinstance(said, NoVerdict):
            raise self._gone(f"{self._in_a_row} requests in a row failed, the last one with: {said.why}")

    def _gone(self, why: str) -> EvalsuiteError:
        return EngineError(f"the judge is gone: {why}; what was judged is kept{self._go_on}")

    @property
    def _go_on(self) -> str:
        return f"; go on with: {self._command}" if self._command else "; the same command goes on"


# -- counting --


def _judged(
    asks: Mapping[Key, Sequence[Ask]],
    judge: Judge,
    questions: Sequence[_Question],
    answers: Sequence[Answer],
    said: Sequence[Said],
    dates: tuple[str, ...],
) -> Judged:
    grouped: dict[tuple[Key, int], list[Said]] = {}
    for question, verdict in zip(questions, said, strict=True):
        grouped.setdefault((question.key, question.position), []).append(_for_pair(question, verdict))
    verdicts = {
        key: tuple(_together(grouped[key, position]) for position in range(len(several)))
        for key, several in asks.items()
    }
    found = [v for v in said if isinstance(v, Verdict)]
    preferences = [v.preference for v in found if v.preference is not None]
    both = [pair for pair in grouped.values() if len(pair) == 2 and all(isinstance(v, Verdict) for v in pair)]
    return Judged(
        verdicts,
        judge.identity(),
        n_asked=len(questions),
        n_judged=len(found),
        failures=_sorted(Counter(v.kind for v in said if isinstance(v, NoVerdict))),
        modes=_sorted(Counter(v.mode for v in found)),
        first_wins=sum(p < 0.5 for p in preferences),
        second_wins=sum(p > 0.5 for p in preferences),
        n_ties=sum(p == 0.5 for p in preferences),
        n_flips=sum(_flipped(*pair) for pair in both),
        n_both=len(both),
        longer_by=_longer_by(zip(questions, said, strict=True)),
        n_suspicious=sum(q.shown.suspicious for q in questions),
        n_broken=sum(q.shown.n_broken for q in questions),
        tokens_prompt=_prompt_tokens(judge, [q.shown.request for q in questions]),
        tokens_new=sum(a.n_tokens for a in answers if isinstance(a, Response)),
        dates=dates,
    )


def _for_pair(question: _Question, said: Said) -> Said:
    return turned(said) if question.swapped and isinstance(said, Verdict) else said


def _together(said: Sequence[Said]) -> Said:
    """One verdict from both orders: their mean; a failure in either is a failure."""
    failure = next((v for v in said if isinstance(v, NoVerdict)), None)
    if failure is not None or len(said) == 1:
        return failure or said[0]
    first, *_ = verdicts = cast("Sequence[Verdict]", said)
    return replace(first, preference=sum(v.preference or 0.0 for v in verdicts) / len(verdicts))


def _flipped(first: Said, second: Said) -> bool:
    """Whether the two orders prefer different texts, or only one of them prefers any."""
    one, two = (v.preference for v in (first, second) if isinstance(v, Verdict))
    return one is not None and two is not None and (one > 0.5) - (one < 0.5) != (two > 0.5) - (two < 0.5)


def _longer_by(said: Iterable[tuple[_Question, Said]]) -> float | None:
    differences = []
    for question, verdict in said:
        of_pair = _for_pair(question, verdict)
        if isinstance(of_pair, Verdict) and of_pair.preference not in (None, 0.5):
            texts = question.ask.fields
            more = len(texts["output_2"]) - len(texts["output_1"])
            differences.append(more if (of_pair.preference or 0.0) > 0.5 else -more)
    return sum(differences) / len(differences) if differences else None


def _prompt_tokens(judge: Judge, requests: Sequence[GenerateRequest | LoglikRequest]) -> int | None:
    """None where no tokenizer is at hand."""
    if judge.encoder is None or not requests:
        return None
    prompts = [r.prompt if isinstance(r, GenerateRequest) else r.context for r in requests]
    rows = judge.encoder.encode_batch([p.text for p in prompts], chat=prompts[0].chat)
    return sum(map(len, rows))


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _notes(judged: Judged) -> Iterator[str]:
    protocol = judged.judge.get("protocol")
    own = sorted({t["source"] for t in judged.judge.get("templates", {}).values()})
    yield f"judged by {judged.judge.get('model')} ({protocol}, {', '.join(own)})"
    if judged.judge.get("pairwise") and judged.judge.get("calibration") is None:
        yield f"the judge is uncalibrated (evalsuite check --judge {protocol}=ENGINE)"
    if judged.failures:
        kinds = ", ".join(f"{n} {kind}" for kind, n in judged.failures.items())
        yield f"the judge gave no verdict on {judged.n_asked - judged.n_judged} of {judged.n_asked} questions: {kinds}"
    p = mcnemar(judged.first_wins, judged.second_wins)
    if p < BIAS_P and judged.first_rate is not None:
        yield (
            f"warning: the text shown first wins {judged.first_rate:.0%} of {judged.first_wins + judged.second_wins} "
            f"comparisons (p = {p:.1g})"
        )
    if judged.n_flips:
        yield f"{judged.n_flips} of {judged.n_both} verdicts change with the order of the answers"
    if judged.n_suspicious:
        yield f"{judged.n_suspicious} of {judged.n_asked} judged texts look like attempts to steer a judge"
