"""A judge: a protocol with a model behind it, opened from `[PROTOCOL=]ENGINE`, known by what its verdicts depend on."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, cast, get_args
from urllib.parse import urlsplit

from evalsuite import provenance
from evalsuite.errors import BenchmarkError, CheckpointError, EngineError, UsageError, did_you_mean
from evalsuite.journal import Answer
from evalsuite.models import EngineSpec, open_model
from evalsuite.models.api.access import LOOPBACK
from evalsuite.models.late import LateModel
from evalsuite.protocol import (
    Positions,
    Protocol,
    is_file_name,
    known_protocols,
    load_protocol,
    official_templates,
    protocol_name,
)
from evalsuite.types import Failed, GenerateRequest, LoglikRequest, Message, Model, Prompt, Response, Sampling
from evalsuite.verify.judge import (
    PARSERS,
    Ask,
    NoVerdict,
    Verdict,
    failure_of,
    read_text,
    read_top,
    read_totals,
)
from evalsuite.verify.judge_prompt import BOS, Filled, Template, fill, sha256

ENGINES = ("api", "vllm", "hf")
SPEC = re.compile(r"(?:([\w./-]+)=)?(\w+):(.+)")

Request = GenerateRequest | LoglikRequest
Render = Callable[..., str]


@dataclass(frozen=True, slots=True)
class Shown:
    """One question as the judge gets it."""

    request: Request
    n_broken: int
    suspicious: bool


class Judge(LateModel):
    """Asks in the words of a protocol and reads the answers. The model is opened at the first question.

    `who` identifies the model: everything in it is part of the judge's identity. `render` is the judge's own chat
    template. A `local` engine reads the options of a one-token answer from exact log-likelihoods; a server gives its
    likeliest tokens, or, with `discrete`, only its text. `encoder` makes the tokens of a local tokenizer known.
    """

    def __init__(
        self,
        protocol: Protocol,
        templates: Mapping[str, Template],
        who: Mapping[str, Any],
        open_engine: Callable[[], Model],
        render: Render,
        *,
        local: bool,
        discrete: bool = False,
        positions: Positions | None = None,
        parser: str | None = None,
        encoder: Callable[[], Any] | None = None,
        calibration: Callable[[str], Mapping[str, Any] | None] = lambda digest: None,
    ) -> None:
        super().__init__(open_engine)
        self.protocol, self.templates, self.who = protocol, dict(templates), dict(who)
        self.positions: Positions = positions or protocol.positions
        self.parser = parser or protocol.parser
        self.local, self.discrete = local, discrete
        self._render, self._encoder, self._calibration = render, encoder, calibration
        self._merges_system = False

    @property
    def name(self) -> str:
        """What tables call the model."""
        return str(self.who.get("model") or self.who.get("served_model") or self.who.get("engine"))

    @property
    def reads(self) -> str:
        """How a verdict is had: text, discrete (one of two tokens as text), top_logprobs or exact_logprob."""
        if self.protocol.answer.kind == "text":
            return "text"
        return "discrete" if self.discrete else "exact_logprob" if self.local else "top_logprobs"

    @property
    def samples(self) -> bool:
        """Whether the same question may get another answer, so that an unreadable one is worth a second try."""
        return self.reads == "text" and self.protocol.answer.temperature > 0

    @cached_property
    def sampling(self) -> Sampling:
        answer = self.protocol.answer
        temperature = 0.0 if self.reads == "discrete" else answer.temperature
        return Sampling(answer.max_tokens, temperature=temperature, seed=self.protocol.seed)

    @cached_property
    def asked(self) -> str:
        """sha256 of what an answer depends on besides the texts; how it is read is no part of it."""
        wordings = {name: [t.sha256, t.kind] for name, t in sorted(self.templates.items())}
        # Weights are known by their content; what their folder is called changes nothing.
        who = {name: value for name, value in self.who.items() if name != "model" or "weights" not in self.who}
        return sha256(
            json.dumps([self.protocol.digest, wordings, who, self.reads, repr(self.sampling)], sort_keys=True)
        )

    @cached_property
    def digest(self) -> str:
        """sha256 of the judge's identity: scores of judges with different digests are different columns."""
        return sha256(json.dumps([self.asked, self.parser, self.positions]))

    def identity(self) -> dict[str, Any]:
        """What is known of the judge before it was asked anything; for scorecards and journal headers."""
        return {
            "digest": self.digest,
            "protocol": self.protocol.name,
            "family": self.protocol.family,
            "model": self.name,
            "who": dict(self.who),
            "versions": dict(self._versions),
            "templates": {n: {"sha256": t.sha256, "source": t.source} for n, t in sorted(self.templates.items())},
            "parser": self.parser,
            "reads": self.reads,
            "sampling": {"temperature": self.sampling.temperature, "max_tokens": self.sampling.max_tokens},
            "seed": self.protocol.seed,
            "positions": self.positions,
            "pairwise": self.protocol.pairwise_template() is not None,
            "calibration": self._calibration(self.digest),
        }

    def orders(self, ask: Ask) -> tuple[bool, ...]:
        """In which orders an ask is shown: swapped or not."""
        if not self.template(ask).pairwise or self.positions == "fixed":
            return (False,)
        return (False, True) if self.positions == "both" else (ask.swapped,)

    def template(self, ask: Ask) -> Template:
        """The template of an ask; BenchmarkError when there is none or its fields are others."""
        template = self.templates.get(ask.template)
        if template is None:
            near = did_you_mean(ask.template, self.templates)
            raise BenchmarkError(f"the judge {self.protocol.name!r} has no template {ask.template!r}{near}")
        lacking, extra = sorted(set(template.fields) - set(ask.fields)), sorted(set(ask.fields) - set(template.fields))
        if lacking or extra:
            raise BenchmarkError(
                f"the judge {self.protocol.name!r}, template {ask.template!r}: missing fields {lacking}, "
                f"unknown fields {extra}"
            )
        return template

    def shown(self, ask: Ask, swapped: bool, repetition: int = 0) -> Shown:
        """The request for an ask in one order."""
        template, texts = self.template(ask), dict(ask.fields)
        if swapped:
            texts["output_1"], texts["output_2"] = texts["output_2"], texts["output_1"]
        filled = fill(template, texts, seed=self.protocol.seed, specials=self.specials)
        prompt = self._prompt(template, filled)
        return Shown(self._request(prompt, repetition), filled.n_broken, filled.suspicious)

    def read(self, answer: Answer) -> Verdict | NoVerdict:
        """The verdict in an answer, for the order that was shown."""
        if isinstance(answer, Failed):
            return failure_of(answer.why)
        if not isinstance(answer, Response):
            return read_totals([option.total for option in answer])
        if answer.finish == "error":
            return NoVerdict("unparsed", answer.why) if answer.why == NO_LOGPROBS else failure_of(answer.why)
        if self.reads == "top_logprobs":
            return read_top(answer.top, self.protocol.answer.options)
        cut = answer.finish == "length" and self.sampling.max_tokens > 1  # one token is always "cut"
        return read_text(answer.text, PARSERS[self.parser], cut=cut)

    @cached_property
    def encoder(self) -> Any:
        """The judge's tokenizer where there is a local one, else None."""
        return self._encoder() if self._encoder else None

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """Special tokens that a judged text must not be able to spell."""
        return tuple(self.encoder.special_texts) if self.encoder else ()

    @cached_property
    def _versions(self) -> Mapping[str, str]:
        return provenance.versions(str(self.who.get("engine", "")))

    def _prompt(self, template: Template, filled: Filled) -> Prompt:
        if template.kind == "raw":
            text = filled.turns[0][1]
            if not self.local and self.encoder is None:  # the server puts its own BOS in front
                text = text.removeprefix(next((b for b in BOS if text.startswith(b)), ""))
            return Prompt(text)
        turns = filled.turns
        if not self._merges_system:
            try:
                return self._rendered(turns)
            except CheckpointError:
                if turns[0][0] != "system":
                    raise
                self._merges_system = True  # this template refuses system messages
        return self._rendered(_merged(turns))

    def _rendered(self, turns: Sequence[tuple[str, str]]) -> Prompt:
        text = self._render([{"role": role, "content": content} for role, content in turns])
        return Prompt(str(text), True, tuple(Message(role, content) for role, content in turns))

    def _request(self, prompt: Prompt, repetition: int) -> Request:
        if self.reads == "exact_logprob":
            return LoglikRequest(prompt, self.protocol.answer.options)
        s = self.sampling
        sampling = Sampling(s.max_tokens, temperature=s.temperature, seed=s.seed + repetition)
        n_top = self.protocol.answer.top_logprobs if self.reads == "top_logprobs" else 0
        return GenerateRequest(prompt, sampling, top_logprobs=n_top)


NO_LOGPROBS = "the endpoint returns no log-probabilities"


def _merged(turns: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The conversation with its system message at the head of the first turn after it."""
    if len(turns) < 2 or turns[0][0] != "system":
        return tuple(turns)
    (_, system), (role, first), *rest = turns
    return ((role, f"{system}\n\n{first}"), *rest)


# -- opening --


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """`[PROTOCOL=]ENGINE:TARGET`; `protocol` is empty when the benchmark's own is meant."""

    protocol: str
    engine: str
    target: str


def parse_spec(text: str, near: Sequence[Path] = ()) -> JudgeSpec:
    """Raises UsageError for anything but `[PROTOCOL=]api:URL`, `vllm:PATH` or `hf:PATH`.

    `near` are folders of benchmarks, which may have protocols of their own.
    """
    found = SPEC.fullmatch(text)
    usage = "use [PROTOCOL=]api:URL, [PROTOCOL=]vllm:PATH or [PROTOCOL=]hf:PATH"
    if found is None:
        raise UsageError(f"--judge {text!r}: {usage}" + ("; a folder needs its engine" if "/" in text else ""))
    protocol, engine, target = found[1] or "", found[2], found[3]
    if engine not in ENGINES:
        raise UsageError(f"--judge {text!r}: no judge engine {engine!r}{did_you_mean(engine, ENGINES)}; {usage}")
    known = known_protocols(near)
    if protocol and not is_file_name(protocol) and protocol not in known:
        raise UsageError(
            f"--judge {text!r}: no judge protocol {protocol!r}{did_you_mean(protocol, known)}; "
            f"there are {', '.join(known)}"
        )
    return JudgeSpec(protocol, engine, target)


def pick_judge(specs: Sequence[str], needed: str, near: Sequence[Path] = ()) -> str | None:
    """Which of several judges is for the protocol `needed`: its own, else one of its family, else one for all."""
    family = load_protocol(needed, near).family
    parsed = [(parse_spec(spec, near), spec) for spec in specs]
    named = [spec for one, spec in parsed if protocol_name(one.protocol) == protocol_name(needed)]
    related = [spec for one, spec in parsed if one.protocol and load_protocol(one.protocol, near).family == family]
    bare = [spec for one, spec in parsed if not one.protocol]
    return next(iter([*named, *related, *bare]), None)


def open_judge(
    spec: str,
    needed: str,
    *,
    served_model: str | None = None,
    api_key_env: str | None = None,
    tokenizer: Path | None = None,
    templates: Sequence[Path] = (),
    positions: Positions | None = None,
    parser: str | None = None,
    discrete: bool = False,
    results: Path | None = None,
    options: Mapping[str, Any] | None = None,
    near: Sequence[Path] = (),
) -> Judge:
    """The judge that `spec` names, for benchmarks whose protocol is `needed`; it can answer as far as a probe shows.

    A server is asked a few short questions, a checkpoint is checked and digested; no weights are loaded yet. `results`
    is where calibrations are kept; `options` go to the engine; `near` are folders of benchmarks that may have protocols
    of their own. Raises an EvalsuiteError for everything that is wrong.
    """
    asked = parse_spec(spec, near)
    protocol = load_protocol(asked.protocol or needed, near)
    wanted = load_protocol(needed, near)
    if protocol.family != wanted.family:
        raise UsageError(
            f"--judge {spec!r}: the protocol {protocol.name!r} is of the family {protocol.family!r}, "
            f"the benchmark needs {wanted.name!r} of {wanted.family!r}"
        )
    for name, value, known in (("parser", parser, tuple(PARSERS)), ("positions", positions, get_args(Positions))):
        if value is not None and value not in known:
            raise UsageError(f"judge {name} {value!r}{did_you_mean(value, known)}; use {', '.join(known)}")
    wordings = dict(protocol.templates) | official_templates(protocol, templates)
    more: dict[str, Any] = {"positions": positions, "parser": parser, "discrete": discrete}
    more["calibration"] = lambda digest: stored_calibration(results, digest)
    if asked.engine == "api":
        if served_model is None:
            raise UsageError(f"--judge {spec!r} needs --judge-model NAME, the judge's name at that endpoint")
        extra = {"served_model": served_model, "api_key_env": api_key_env, "tokenizer": tokenizer} | dict(options or {})
        return _served(protocol, wordings, asked.target, extra, more)
    if discrete:
        raise UsageError("a discrete judge is for endpoints without log-probabilities; a local engine has them")
    return _local(protocol, wordings, asked, dict(options or {}), more)


def stored_calibration(results: Path | None, digest: str) -> Mapping[str, Any] | None:
    """What `evalsuite check --judge` found out about this judge; None when it was not calibrated."""
    path = calibration_file(results, digest) if results is not None else None
    if path is None or not path.is_file():
        return None
    return cast("Mapping[str, Any]", json.loads(path.read_text(encoding="utf-8"))["calibration"])


def calibration_file(results: Path, digest: str) -> Path:
    return results / "judges" / f"{digest}.json"


def _served(
    protocol: Protocol, templates: Mapping[str, Template], url: str, options: Mapping[str, Any], more: Mapping[str, Any]
) -> Judge:
    from evalsuite.models.api.model import APIModel

    model = APIModel(url, **options)
    try:
        who = _who_is_served(model)
        judge = Judge(
            protocol,
            templates,
            who,
            lambda: cast("Model", model),
            model.render,
            local=False,
            encoder=(lambda: model.encoder) if model.tokenizer else None,
            **more,
        )
        for template in templates.values():
            request = judge.shown(Ask(template.name, dict.fromkeys(template.fields, "a")), False).request
            if isinstance(request, GenerateRequest) and (missing := model.speaker.missing(request)):
                raise EngineError(
                    f"{model.client.base_url} cannot be the judge {protocol.name!r}: the template {template.name!r} "
                    f"needs {missing}; it has: {model.features.names()}"
                )
        judge.model()  # open already, by the probe; known to the judge it is closed with it
    except BaseException:
        model.close()
        raise
    return judge


def _who_is_served(model: Any) -> dict[str, Any]:
    """What stands for the weights of a server. A port on this machine says nothing about the model."""
    known = model.identity()
    host = urlsplit(model.client.base_url).hostname
    model.features  # noqa: B018 — the probe: raises EngineError when the server answers nothing
    return {
        "engine": "api",
        "host": "this machine" if host in LOOPBACK else host,
        "served_model": known["served_model"],
        "root": PurePath(known["root"]).name,  # where a server keeps its models says nothing about them
        "revision": known["revision"],
        **{name: value for name, value in model.fingerprint().items() if name != "engine"},
    }


def _local(
    protocol: Protocol,
    templates: Mapping[str, Template],
    asked: JudgeSpec,
    options: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Judge:
    from evalsuite.checkpoint import open_checkpoint
    from evalsuite.models.chat import TEMPLATE_DATE, ChatTemplate
    from evalsuite.models.encoding import Encoder

    if asked.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise EngineError("the judge is to run on vllm, which is not installed (pip install 'evalsuite[vllm]')")
    checkpoint = open_checkpoint(Path(asked.target))
    path = checkpoint.path
    chat = any(template.kind == "chat" for template in templates.values())
    template = ChatTemplate.from_checkpoint(path, now=TEMPLATE_DATE) if chat else None
    spec = EngineSpec(
        asked.engine, "judge", checkpoint.dtype, template_digest=template.digest if template else "", options=options
    )
    who = {"engine": asked.engine, "model": checkpoint.name, "weights": checkpoint.digest}
    return Judge(
        protocol,
        templates,
        who | spec.fingerprint(),
        lambda: open_model(spec, path),
        template.render if template else _no_template,
        local=True,
        encoder=lambda: Encoder.from_checkpoint(path),
        **more,
    )


def _no_template(*_: Any) -> str:
    raise CheckpointError("the judge has no chat template")
