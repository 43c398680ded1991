"""Chat templates: a conversation becomes the exact text a model is given. Sandboxed Jinja, without transformers."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from evalsuite.checkpoint.files import read_json
from evalsuite.errors import CheckpointError, did_you_mean
from evalsuite.models.tokens import special_tokens
from evalsuite.types import Message

# What Llama 3's own template prints when it is told no date. A prompt with today's date would be another question
# tomorrow, and a resumed run would start over.
TEMPLATE_DATE = datetime(2024, 7, 26)


class Rendered(str):
    """The rendered text; `messages` and `prefill` ride along for chat endpoints.

    It is the text itself in every respect (equality, hash, JSON), so that it passes through lm-eval unchanged. It
    survives copying and pickling; slicing and concatenation give a plain str.
    """

    messages: tuple[Message, ...]
    prefill: str

    def __new__(cls, text: str, messages: Sequence[Message] = (), prefill: str = "") -> Rendered:
        rendered = super().__new__(cls, text)
        rendered.messages = tuple(messages)
        rendered.prefill = prefill
        return rendered


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """One chat template, compiled. `source` says where its text came from, for messages to the user.

    `dated` is true when the template asks for today's date: its prompts then differ from day to day, unless
    `from_checkpoint` was given a fixed `now`.
    """

    text: str
    source: str
    drop_system: bool
    dated: bool
    _render: Callable[..., str] = field(repr=False, compare=False)

    @classmethod
    def from_checkpoint(
        cls, folder: Path, override: str | None = None, *, drop_system: bool = False, now: datetime | None = None
    ) -> ChatTemplate:
        """The template of a checkpoint folder, or `override`: a Jinja file, or `name:NAME` for one of several.

        Sources in order: override, chat_template.jinja (others: additional_chat_templates/NAME.jinja),
        tokenizer_config.json. Of several named templates "default" is taken. `drop_system` leaves system messages
        out, for templates that refuse them. Raises CheckpointError when there is no such template or it does not parse.
        """
        text, source = find_template(Path(folder), override)
        variables = special_tokens(Path(folder))
        return cls(text, source, drop_system, "strftime_now" in text, _compile(text, source, variables, now))

    @property
    def digest(self) -> str:
        """sha256 of the template text, hex."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> Rendered:
        """The text of a conversation; with the generation prompt unless told otherwise.

        Without it, a trailing assistant message is a prefill: it is taken off, the rest is rendered *with* the
        generation prompt, and the prefill is appended as it is, since templates may trim what they print
        (spec: lm-eval calls with `add_generation_prompt = not gen_prefix`). Raises CheckpointError naming the
        template's line when the template fails on the conversation.
        """
        kept = [dict(m) for m in messages if not (self.drop_system and m["role"] == "system")]
        prefill = ""
        if not add_generation_prompt and kept and kept[-1]["role"] == "assistant":
            prefill = kept.pop()["content"]
            add_generation_prompt = True
        try:
            text = self._render(messages=kept, add_generation_prompt=add_generation_prompt)
        except Exception as error:  # a template is a program: whatever it raises is a fault of the checkpoint
            raise CheckpointError(self._explain(error, kept)) from error
        turns = tuple(Message(m["role"], m["content"]) for m in kept)
        return Rendered(text + prefill, turns, prefill)

    def _explain(self, error: Exception, messages: Sequence[Mapping[str, str]]) -> str:
        said = " ".join(str(error).split()) or type(error).__name__
        roles = [m["role"] for m in messages]
        shown = ", ".join(roles) if len(roles) <= 6 else f"{', '.join(roles[:3])}, … {roles[-1]} ({len(roles)} turns)"
        advice = "give another template with --chat-template FILE"
        if "system" in roles:
            advice = f"leave system messages out with --drop-system, or {advice}"
        return f"{self.source}{_line(error)}: the chat template fails on a conversation of {shown}: {said!r}; {advice}"


def find_template(folder: Path, override: str | None = None) -> tuple[str, str]:
    """Text and source of the template that `ChatTemplate.from_checkpoint` takes. Raises CheckpointError."""
    if override is not None and not override.startswith("name:"):
        return _read_template(Path(override), folder), override
    known = named_templates(folder)
    name = "default" if override is None else override.removeprefix("name:")
    if name in known:
        return known[name]
    if not known:
        raise CheckpointError(
            f"{folder}: no chat template (expected chat_template.jinja, or 'chat_template' in tokenizer_config.json); "
            "give one with --chat-template FILE, or leave out the benchmarks that need chat"
        )
    near = did_you_mean(name, known)
    raise CheckpointError(
        f"{folder}: no chat template named {name!r}{near} (has: {', '.join(sorted(known))}); "
        "choose with --chat-template name:NAME"
    )


def named_templates(folder: Path) -> dict[str, tuple[str, str]]:
    """Every template of a checkpoint: name -> (text, source). Empty when there is none. Raises CheckpointError."""
    found: dict[str, tuple[str, str]] = {}
    main = folder / "chat_template.jinja"
    if main.is_file():
        found["default"] = (_read_template(main, folder), str(main))
    for path in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        found[path.stem] = (_read_template(path, folder), str(path))
    if found:  # files win over tokenizer_config.json, all or nothing, as in transformers 5
        return found
    config_file = folder / "tokenizer_config.json"
    entry = read_json(config_file).get("chat_template")
    if isinstance(entry, str):
        return {"default": (entry, f"{config_file} (chat_template)")}
    if isinstance(entry, list):
        return {
            str(one.get("name")): (str(one.get("template")), f"{config_file} (chat_template {one.get('name')!r})")
            for one in entry
            if isinstance(one, dict)
        }
    return {}


def _read_template(path: Path, folder: Path) -> str:
    try:
        # Newlines are kept as they stand: text mode would turn \r\n into \n and change the prompt.
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        known = ", ".join(f"name:{n}" for n in sorted(named_templates(folder))) if path.parent != folder else ""
        raise CheckpointError(
            f"{str(path)!r}: cannot read this chat template ({error.strerror}); "
            f"--chat-template takes a Jinja file or name:NAME{f' (here: {known})' if known else ''}"
        ) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: the chat template is not UTF-8 text ({error.reason}); save it again") from error


def _compile(text: str, source: str, variables: Mapping[str, str], now: datetime | None) -> Callable[..., str]:
    """A function of (messages, add_generation_prompt); the template sees what transformers passes, and no more."""
    import jinja2

    try:
        template = _environment(now).from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise CheckpointError(
            f"{source} line {error.lineno}: the chat template does not parse ({error.message}); "
            "repair it or give another with --chat-template FILE"
        ) from error
    return functools.partial(template.render, tools=None, documents=None, **variables)


def _environment(now: datetime | None) -> Any:
    import jinja2
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class GenerationBlock(Extension):
        """`{% generation %}…{% endgeneration %}` marks text for training masks; here it prints its body."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body, lineno=line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def strftime_now(pattern: str) -> str:
        return (now or datetime.now()).strftime(pattern)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON; Jinja's own filter would escape <, > and & for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _line(error: Exception) -> str:
    """` line N` of the template, from the innermost template frame of the traceback; empty when there is none."""
    line: int | None = getattr(error, "lineno", None)
    step: TracebackType | None = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "<template>":
            line = step.tb_lineno
        step = step.tb_next
    return f" line {line}" if line is not None else ""
