"""Asks a model many questions and keeps every answer, so that a run that was killed goes on where it stopped.

Any engine of evalsuite answers: a server (`api:URL`), or a folder with a checkpoint (`hf:FOLDER`, `vllm:FOLDER`). The
answers stand in a journal (evalsuite.journal); what was spent on a server stands beside it, so that a limit in dollars
or tokens holds over all starts of a command together. Importing this loads no engine.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from evalsuite.errors import CheckpointError, UsageError, did_you_mean
from evalsuite.models.late import LateModel
from evalsuite.progress import Observer, Silent
from evalsuite.types import Finish, GenerateRequest, Message, Model, Prompt, Response, Sampling

if TYPE_CHECKING:
    from evalsuite.journal import Journal

ENGINES = ("api", "hf", "vllm")
SPEC = re.compile(r"(\w+):(.+)")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
FOR_SERVERS = ("served_model", "api_key_env", "tokenizer", "revision", "prices", "max_tokens_total", "max_cost_usd")


@dataclass(frozen=True, slots=True)
class Question:
    """One text to be written. `key` tells it from every other one of a journal: two keys may ask in the same words.

    `json_schema` is asked of endpoints that know what that is (see `GenerateRequest`).
    """

    key: str
    messages: tuple[Message, ...]
    sampling: Sampling
    json_schema: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back. `finish` "error" means that there is no text and `why` says why; a later start asks again.

    `n_tokens` were written. `cost_usd` was spent since the answer before this one: exact in sum, not for each; 0 for
    an answer that was in the journal.
    """

    text: str
    finish: Finish
    why: str
    model: str
    n_tokens: int
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """An engine as a config file describes it.

    `model` is `api:URL`, `hf:FOLDER` or `vllm:FOLDER`; a server needs `served_model`, the name by which it knows the
    model. Sampling that is not set here is that of the task. `max_cost_usd` needs `prices`, a YAML file with dollars
    for a million tokens; both limits count what earlier starts with the same journal have used.
    """

    model: str
    served_model: str | None = None
    api_key_env: str | None = None
    tokenizer: str | None = None
    revision: str = ""
    concurrency: int = 32
    timeout_s: float = 600.0
    max_length: int | None = None
    max_tokens_total: int | None = None
    max_cost_usd: float | None = None
    prices: str | None = None
    dtype: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise UsageError("; ".join(problems))

    @property
    def engine(self) -> str:
        return self.model.partition(":")[0]

    @property
    def target(self) -> str:
        """The URL or the folder."""
        return self.model.partition(":")[2]

    def sampling(self, usual: Sampling, seed: int) -> Sampling:
        """`usual` with what is set here, and a seed of its own."""
        return Sampling(
            max_tokens=usual.max_tokens if self.max_tokens is None else self.max_tokens,
            stop=usual.stop,
            temperature=usual.temperature if self.temperature is None else self.temperature,
            top_p=usual.top_p if self.top_p is None else self.top_p,
            seed=seed,
        )

    def _problems(self) -> Iterator[str]:
        found = SPEC.fullmatch(self.model)
        if found is None or found[1] not in ENGINES:
            near = did_you_mean(found[1], ENGINES) if found else ""
            yield f"model is {self.model!r}{near}; expected api:URL, hf:FOLDER or vllm:FOLDER"
        elif found[1] == "api" and self.served_model is None:
            yield f"model {self.model!r} needs served_model, the model's name at that server"
        elif found[1] != "api" and (extra := [name for name in FOR_SERVERS if getattr(self, name)]):
            yield f"{', '.join(extra)} is for api: models, model is {self.model!r}"
        if self.max_cost_usd is not None and self.prices is None:
            yield "max_cost_usd needs prices, a YAML file like `NAME: {read: 2.5, written: 10, dated: 2026-08-01}`"
        for name, least in (("concurrency", 1), ("max_tokens", 1), ("max_tokens_total", 1), ("temperature", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                yield f"{name} is {value}; expected {least} or more"


class Engine(LateModel):
    """A model that is opened at the first question. `identity` is everything an answer depends on besides the question.

    `name` is what rows call the model.
    """

    def __init__(self, name: str, identity: Mapping[str, Any], open_model: Callable[[], Model]) -> None:
        super().__init__(open_model)
        self.name, self.identity = name, identity
        self._merges_system = False

    @property
    def digest(self) -> str:
        """sha256 of the identity."""
        return _sha256(dict(self.identity))

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """The conversation in the model's own chat template; a template that refuses system turns gets them merged."""
        turns = tuple(messages)
        if not self._merges_system:
            try:
                return self._rendered(turns)
            except CheckpointError:
                if turns[0].role != "system" or len(turns) < 2:
                    raise
                self._merges_system = True
        return self._rendered(_merged(turns))

    def _rendered(self, turns: tuple[Message, ...]) -> Prompt:
        text = self.model().render([{"role": turn.role, "content": turn.content} for turn in turns])
        return Prompt(str(text), True, turns)


def open_engine(options: EngineOptions, where: Path = Path()) -> Engine:
    """The engine of these options; relative folders count from `where`. Nothing is loaded and no server is asked yet.

    Raises CheckpointError for a folder that is no whole checkpoint, UsageError or EngineError for a URL or a key that
    cannot be.
    """
    return _served(options, where) if options.engine == "api" else _local(options, where)


def seed_of(*parts: object) -> int:
    """A seed that depends on all parts and nothing else, below 2**63: the same in every process, on every machine."""
    return int(_sha256([str(part) for part in parts])[:16], 16) >> 1


def ask(
    engine: Engine,
    questions: Sequence[Question],
    journal: Path,
    observer: Observer | None = None,
    stage: str = "asked",
) -> Iterator[tuple[Question, Answered]]:
    """Every question with its answer: those in the folder `journal` first, the others as they come in.

    Each question yields once. What the engine raises about all questions (EngineError; Incomplete where a limit would
    be crossed or the server is gone) is raised here; what was answered until then is in the journal. Raises UsageError
    when two questions are the same.
    """
    from evalsuite.journal import Journal

    keys = [_key(engine, question) for question in questions]
    if len({*keys}) < len(keys):
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        double = next(q.key for i, q in enumerate(questions) if first[keys[i]] < i)
        raise UsageError(f"the question {double!r} is asked twice")
    watching = observer or Silent()
    with Journal(journal, {"asks": engine.name, "engine": dict(engine.identity)}, say=watching.say) as store:
        stored = {i: found.answer for i, key in enumerate(keys) if (found := store.get(key)) and not found.failed}
        watching.planned(stage, len(keys), len(stored))
        for i, answer in stored.items():
            assert isinstance(answer, Response)
            yield questions[i], _answered(engine, answer)
        left = [i for i in range(len(keys)) if i not in stored]
        if left:
            yield from _ask(engine, questions, keys, left, store, watching, stage)


def _key(engine: Engine, question: Question) -> str:
    asked = [dict(engine.identity), _plain(question.messages), repr(question.sampling), question.key]
    return _sha256([*asked, question.json_schema] if question.json_schema else asked)


def tokens_used(journal: Path, engine: Engine) -> tuple[int, int]:
    """(prompt tokens, new tokens) that a server counted, over all starts with this journal; zero for a local folder."""
    path = _spent_file(journal, engine)
    if not path.is_file():
        return 0, 0
    # A line that a crash has cut counts for nothing.
    lines = re.findall(r"^(\d+) (\d+)\n", path.read_text(encoding="ascii"), re.MULTILINE)
    return sum(int(prompt) for prompt, _ in lines), sum(int(new) for _, new in lines)


def _ask(
    engine: Engine,
    questions: Sequence[Question],
    keys: Sequence[str],
    left: Sequence[int],
    store: Journal,
    observer: Observer,
    stage: str,
) -> Iterator[tuple[Question, Answered]]:
    spent = _Spent(store.folder, engine)
    # The full set goes in: an engine forms its batches from it, so a resumed run repeats the arithmetic of a whole one.
    requests = [GenerateRequest(engine.prompt(q.messages), q.sampling, json_schema=q.json_schema) for q in questions]
    try:
        for i, response in engine.model().generate(requests, left):
            store.append(keys[i], questions[i].key, 0, response)
            observer.answered(stage, response)
            yield questions[i], _answered(engine, response, spent.book())
    finally:
        spent.book()  # requests that failed, or that nobody waits for any more, were paid for as well


class _Spent:
    """What a server has used, over all starts with one journal: a line of (prompt tokens, new tokens) each time."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._path = _spent_file(folder, engine)
        self._budget = getattr(engine.model(), "budget", None)
        if self._budget is None:
            return
        if not (self._budget.n_prompt or self._budget.n_new):  # else this process has read the file before
            self._budget.n_prompt, self._budget.n_new = tokens_used(folder, engine)
        self._last = (self._budget.n_prompt, self._budget.n_new)
        self._cost = self._budget.cost_usd

    def book(self) -> float:
        """Writes down what was used since the last time; its dollars come back."""
        if self._budget is None:
            return 0.0
        now = (self._budget.n_prompt, self._budget.n_new)
        if now != self._last:
            with self._path.open("a", encoding="ascii") as file:
                file.write(f"{now[0] - self._last[0]} {now[1] - self._last[1]}\n")
        before, self._cost, self._last = self._cost, self._budget.cost_usd, now
        return float(self._cost - before)


def _spent_file(journal: Path, engine: Engine) -> Path:
    # Not .jsonl: that would be a segment of the journal.
    return journal / f"spent-{engine.digest[:12]}.txt"


def _answered(engine: Engine, response: Response, cost_usd: float = 0.0) -> Answered:
    return Answered(response.text, response.finish, response.why, engine.name, response.n_tokens, cost_usd)


def _served(options: EngineOptions, where: Path) -> Engine:
    from evalsuite.models.api.access import key_for

    key_for(options.target, options.api_key_env).check(required=bool(options.api_key_env))
    host = urlsplit(options.target).hostname
    identity = {
        "engine": "api",
        # A port on this machine says nothing about the model.
        "host": "this machine" if host in LOOPBACK else host,
        "served_model": options.served_model,
        "revision": options.revision,
        "tokenizer": bool(options.tokenizer),
    }

    def open_model() -> Model:
        from evalsuite.models import EngineSpec, open_model

        given: dict[str, Any] = {
            "base_url": options.target,
            "served_model": options.served_model,
            "api_key_env": options.api_key_env,
            "tokenizer": where / options.tokenizer if options.tokenizer else None,
            "concurrency": options.concurrency,
            "timeout_s": options.timeout_s,
            "max_length": options.max_length,
            "max_tokens_total": options.max_tokens_total,
            "max_cost_usd": options.max_cost_usd,
            "prices": where / options.prices if options.prices else None,
            "revision": options.revision,
        }
        return open_model(EngineSpec("api", options=given), None)

    return Engine(str(options.served_model), identity, open_model)


def _local(options: EngineOptions, where: Path) -> Engine:
    from evalsuite.checkpoint import open_checkpoint
    from evalsuite.models import EngineSpec, open_model

    checkpoint = open_checkpoint(where / Path(options.target).expanduser())
    if not checkpoint.has_chat_template:
        raise CheckpointError(f"{checkpoint.path}: no chat template, so it cannot be asked in a conversation")
    more = {} if options.max_length is None else {"max_length": options.max_length}
    spec = EngineSpec(options.engine, "asked for", options.dtype or checkpoint.dtype, options=more)
    identity = {"weights": checkpoint.digest, **spec.fingerprint()}
    return Engine(checkpoint.name, identity, lambda: open_model(spec, checkpoint.path))


def _merged(turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation with its system turn at the head of the turn after it."""
    if len(turns) < 2 or turns[0].role != "system":
        return turns
    system, first, *rest = turns
    return (Message(first.role, f"{system.content}\n\n{first.content}"), *rest)


def _plain(messages: Sequence[Message]) -> list[list[str]]:
    return [[message.role, message.content] for message in messages]


def _sha256(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
