"""Judge protocols: `judges/<name>.yaml` says what a judge is asked, how it answers and how the answer is read.

The folder is ours or that of a benchmark, which may bring a protocol of its own under a name that is not taken.
A file is validated as a whole: every problem in it is reported at once. The texts that a protocol ships are our own
wording; an official text comes from the user's installed package or file and is known by its sha256.
"""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, Literal, get_args

from evalsuite.benchmark import read_yaml
from evalsuite.errors import BenchmarkError, UsageError, did_you_mean
from evalsuite.verify.judge import PARSERS, Ask, NoVerdict, Verdict, read_text, turned
from evalsuite.verify.judge_prompt import Kind, Template, Trust, chatml_turns, placeholders, sha256

Positions = Literal["seeded", "both", "fixed"]
AnswerKind = Literal["text", "next_token"]
OfficialKind = Literal["raw", "chatml"]


@dataclass(frozen=True, slots=True)
class Answer:
    """How a judge answers: a text, or the next token, of which only the `options` (first, second text) matter."""

    kind: AnswerKind
    max_tokens: int
    temperature: float = 0.0
    options: tuple[str, ...] = ()
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where an official text is read from: a file of an installed package, or a string constant in it."""

    package: str
    file: str
    constant: str = ""


@dataclass(frozen=True)
class Protocol:
    """One protocol. `templates` are in our own wording, or only named with their fields where `official_only`."""

    name: str
    family: str
    templates: Mapping[str, Template]
    answer: Answer
    parser: str
    positions: Positions
    seed: int = 0
    official_sha256: Mapping[str, str] = field(default_factory=dict)
    official_kind: OfficialKind = "raw"
    official_source: Source | None = None
    official_only: bool = False

    @cached_property
    def digest(self) -> str:
        """sha256 over everything that changes what is asked or how it is answered; parsing can be done anew."""
        wordings = {name: [t.sha256, t.kind, dict(t.fields)] for name, t in self.templates.items()}
        return sha256(json.dumps([self.name, wordings, [getattr(self.answer, f.name) for f in fields(Answer)]]))

    def pairwise_template(self) -> Template | None:
        """The template that compares two answers to an instruction and needs nothing else."""
        wanted = {"instruction", "output_1", "output_2"}
        return next((t for t in self.templates.values() if set(t.fields) == wanted), None)


def judges_folder() -> Path:
    return Path(__file__).parent / "judges"


def known_protocols(near: Sequence[Path] = ()) -> dict[str, Path]:
    """Name to file of the protocols that are shipped, and of those in `judges/` of the benchmark folders `near`.

    Raises BenchmarkError when a name means two protocols: scorecards know them by their names.
    """
    found: dict[str, Path] = {}
    for folder in (judges_folder(), *(folder / "judges" for folder in near)):
        for path in sorted(folder.glob("*.yaml")):
            found[path.stem] = _same(path, found.get(path.stem, path))
    return found


def load_protocol(name: str, near: Sequence[Path] = ()) -> Protocol:
    """A protocol by name, shipped or of the benchmark folders `near`, or the one in a YAML file, which may be there.

    Raises BenchmarkError that lists every problem.
    """
    if is_file_name(name):
        beside = [path for folder in near if (path := folder / name).is_file()]
        return read_protocol(reduce(_same, beside) if beside else Path(name))
    known = known_protocols(near)
    if name not in known:
        raise BenchmarkError(
            f"no judge protocol named {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
        )
    return read_protocol(known[name])


def is_file_name(name: str) -> bool:
    """Whether a protocol is given by its file and not by its name."""
    return name.endswith((".yaml", ".yml"))


def protocol_name(given: str) -> str:
    """The name of a protocol that is given by name or by its file: a file has the name of its protocol."""
    return Path(given).stem if is_file_name(given) else given


def _same(path: Path, known: Path) -> Path:
    if path != known and path.read_bytes() != known.read_bytes():
        raise BenchmarkError(f"two judge protocols are called {path.stem!r}: {known} and {path}; rename one of them")
    return known


def read_protocol(path: Path) -> Protocol:
    """The protocol in a file. Raises BenchmarkError that lists every problem in it."""
    raw = read_yaml(path)
    problems = [f"{path}: {problem}" for problem in _problems(path, raw)]
    if problems:
        raise BenchmarkError("\n".join(problems))
    source = raw.get("official_source")
    answer = {**raw["answer"], "options": tuple(map(str, raw["answer"].get("options", ())))}
    return Protocol(
        raw["name"],
        raw["family"],
        {name: _template(name, one) for name, one in raw["templates"].items()},
        Answer(**answer),
        raw["parser"],
        raw["positions"],
        raw.get("seed", 0),
        dict(raw.get("official_sha256", {})),
        raw.get("official_kind", "raw"),
        Source(**source) if source else None,
        raw.get("official_only", False),
    )


def verdicts_of(protocol: Protocol, asks: Sequence[Ask], texts: Sequence[str]) -> tuple[Verdict | NoVerdict, ...]:
    """What a judge that says these texts has said of the asks, as a benchmark is given it."""
    found = (read_text(text, PARSERS[protocol.parser]) for text in texts)
    return tuple(
        turned(said) if ask.swapped and isinstance(said, Verdict) else said
        for ask, said in zip(asks, found, strict=True)
    )


# -- official texts --


def official_templates(protocol: Protocol, files: Sequence[Path] = ()) -> dict[str, Template]:
    """The official templates in the user's files, or in an installed package; empty when there are none.

    Raises UsageError when a file is no official text of this protocol, when only some of the templates are there, or
    when the protocol has no wording of its own and nothing was found.
    """
    texts = [(str(file), _read(file)) for file in files] if files else list(_installed(protocol))
    found: dict[str, Template] = {}
    for where, text in texts:
        known = _recognised(protocol, text)
        if known is None:
            raise UsageError(_not_official([protocol], where, text))
        name, exact = known
        found[name] = _official(protocol, name, exact, where)
    missing = sorted(set(protocol.templates) - set(found))
    if found and missing:
        raise UsageError(f"{protocol.name}: no official template for {', '.join(missing)}; give all of them or none")
    if protocol.official_only and not found:
        raise UsageError(_nothing_found(protocol))
    return found


def hand_out(files: Sequence[Path], protocols: Sequence[Protocol]) -> list[tuple[Path, ...]]:
    """For each protocol the files that are official texts of it. Raises UsageError for a file that is one of none."""
    texts = {file: _read(file) for file in files}
    for file, text in texts.items():
        if not any(_recognised(protocol, text) for protocol in protocols):
            raise UsageError(_not_official(protocols, str(file), text))
    return [tuple(f for f, text in texts.items() if _recognised(protocol, text)) for protocol in protocols]


def _recognised(protocol: Protocol, text: str) -> tuple[str, str] | None:
    """(name of the template, its exact text) when this is an official text of the protocol."""
    known = {digest: name for name, digest in protocol.official_sha256.items()}
    # An editor may have ended the file with a newline that the constant does not have.
    forms = (text, text.removesuffix("\n"), text + "\n")
    return next(((known[digest], form) for form in forms if (digest := sha256(form)) in known), None)


def _official(protocol: Protocol, name: str, text: str, where: str) -> Template:
    own = protocol.templates[name]
    lacking = sorted(set(own.fields) - set(placeholders(text, official=True)))
    turns = chatml_turns(text) if protocol.official_kind == "chatml" else (("", text),)
    if lacking or not turns:
        what = f"lacks {', '.join(lacking)}" if lacking else "is not in ChatML"
        raise UsageError(f"{where}: the official text {what}; the protocol {protocol.name!r} does not fit it")
    kind: Kind = "raw" if protocol.official_kind == "raw" else "chat"
    return Template(name, kind, turns, own.fields, official=sha256(text))


def _installed(protocol: Protocol) -> Iterator[tuple[str, str]]:
    """(where, text) of the official text in the installed package, which is never imported: importing may load vLLM."""
    source = protocol.official_source
    if source is None:
        return
    spec = importlib.util.find_spec(source.package) if source.package.isidentifier() else None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / source.file
        if path.is_file():
            text = _read(path)
            found = _constant(text, source.constant) if source.constant else text
            if found is not None:
                yield str(path), found
                return


def _constant(program: str, name: str) -> str | None:
    """The value of a string constant in Python source."""
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            value = node.value
            return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None
    return None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the judge's template cannot be read ({error})") from error


def _not_official(protocols: Sequence[Protocol], where: str, text: str) -> str:
    asked = " or ".join(repr(protocol.name) for protocol in protocols)
    known = [pair for protocol in protocols for pair in protocol.official_sha256.items()]
    if not known:
        return f"{where}: the protocol {asked} knows no official template; leave --judge-template out"
    expected = ", ".join(f"{name} {digest}" for name, digest in known)
    return (
        f"{where}: sha256 {sha256(text)} is no official template of {asked} (expected {expected}); "
        "for another wording write a protocol file and name it: --judge FILE.yaml=ENGINE"
    )


def _nothing_found(protocol: Protocol) -> str:
    source = protocol.official_source
    package = f"install the package {source.package!r} or " if source else ""
    return (
        f"the judge {protocol.name!r} needs its official input format, which is not ours to ship; "
        f"{package}give the text with --judge-template FILE{_stand_ins(protocol)}"
    )


def _stand_ins(protocol: Protocol) -> str:
    """The protocols in our own words that may judge in its place, as what to type."""
    family = (load_protocol(name) for name in known_protocols())
    names = [p.name for p in family if p.family == protocol.family and not p.official_only]
    return f"; any chat model can judge under a name of its own: --judge {names[0]}=ENGINE" if names else ""


# -- validation --

TOP = {f.name for f in fields(Protocol)}
REQUIRED = ("name", "family", "templates", "answer", "parser", "positions")
TEMPLATE = ("kind", "system", "user", "text", "fields")


def _problems(path: Path, raw: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown("", raw, TOP)
    yield from (f"{key} is missing" for key in REQUIRED if key not in raw)
    if raw.get("name", path.stem) != path.stem:
        yield f"name is {raw['name']!r}; use the name of the file, {path.stem!r}"
    if not isinstance(raw.get("family", ""), str):
        yield f"family is {raw['family']!r}; use a word"
    yield from _choice("positions", raw, get_args(Positions))
    yield from _choice("parser", raw, tuple(PARSERS))
    yield from _choice("official_kind", raw, get_args(OfficialKind))
    yield from _typed("seed", raw, int, "a whole number")
    yield from _typed("official_only", raw, bool, "true or false")
    templates = raw.get("templates", {})
    if not isinstance(templates, Mapping) or not templates:
        if "templates" in raw:
            yield f"templates is {templates!r}; expected names with kind, text and fields"
        templates = {}
    for name, one in templates.items():
        yield from (f"templates.{name}: {p}" for p in _template_problems(one, raw.get("official_only") is True))
    yield from _answer_problems(raw.get("answer", {}), "answer" in raw)
    yield from _official_problems(raw, templates)


def _template_problems(one: Any, official_only: bool) -> Iterator[str]:
    if not isinstance(one, Mapping):
        yield f"is {one!r}; expected kind, text and fields"
        return
    yield from _unknown("", one, TEMPLATE)
    yield from _choice("kind", one, get_args(Kind))
    for key in ("system", "user", "text"):
        yield from _typed(key, one, str, "a text")
    declared = one.get("fields")
    if one.get("kind") is None or not isinstance(declared, Mapping) or not declared:
        yield "kind and fields are needed; fields maps each name to trusted or untrusted"
        return
    yield from (p for name in declared for p in _choice(name, declared, get_args(Trust), "fields."))
    wording = [str(one[key]) for key in (("text",) if one["kind"] == "raw" else ("system", "user")) if key in one]
    wrong = {"raw": ("system", "user"), "chat": ("text",)}.get(str(one["kind"]), ())
    yield from (f"{key} is of the other kind of template; this one is {one['kind']}" for key in wrong if key in one)
    if official_only:
        if wording:
            yield "official_only is true, so there can be no text here"
        return
    if ("text" if one["kind"] == "raw" else "user") not in one:
        yield f"{'text' if one['kind'] == 'raw' else 'user'} is missing"
        return
    present = set(placeholders("\n".join(wording)))
    lacking, extra = sorted(set(declared) - present), sorted(present - set(declared))
    if lacking or extra:
        yield f"fields without a place in the text: {lacking}; places without a field: {extra}"


def _answer_problems(answer: Any, given: bool) -> Iterator[str]:
    if not given:
        return
    if not isinstance(answer, Mapping):
        yield f"answer is {answer!r}; expected kind, max_tokens, …"
        return
    yield from _unknown("answer.", answer, {f.name for f in fields(Answer)})
    yield from (f"answer.{key} is missing" for key in ("kind", "max_tokens") if key not in answer)
    yield from _choice("kind", answer, get_args(AnswerKind), "answer.")
    yield from _typed("temperature", answer, (int, float), "a number", "answer.")
    for key, least in (("max_tokens", 1), ("top_logprobs", 0)):
        yield from _typed(key, answer, int, "a whole number", "answer.")
        if isinstance(answer.get(key), int) and answer[key] < least:
            yield f"answer.{key} is {answer[key]}; use {least} or more"
    options = answer.get("options", [])
    if not isinstance(options, list) or not all(isinstance(o, str) and o for o in options):
        yield f"answer.options is {options!r}; use a list of texts, in quotes where YAML means something else"
    elif answer.get("kind") == "next_token" and len(options) != 2:
        yield f"answer.options has {len(options)} entries; a next_token answer needs two, for the first and second text"
    if answer.get("kind") == "next_token" and not answer.get("top_logprobs"):
        yield "answer.top_logprobs is missing; a next_token answer of a server is read from them"


def _official_problems(raw: Mapping[str, Any], templates: Mapping[str, Any]) -> Iterator[str]:
    hashes = raw.get("official_sha256", {})
    if not isinstance(hashes, Mapping):
        yield f"official_sha256 is {hashes!r}; expected template names with hex digests"
        hashes = {}
    for name, digest in hashes.items():
        if name not in templates:
            yield f"official_sha256.{name}: no such template{did_you_mean(str(name), map(str, templates))}"
        if not (isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
            yield f"official_sha256.{name} is {digest!r}; expected 64 hex digits"
    if raw.get("official_only") is True and set(hashes) != set(templates):
        yield "official_only is true, so official_sha256 needs a digest for every template"
    source = raw.get("official_source")
    if source is None:
        return
    if not isinstance(source, Mapping) or not {"package", "file"} <= set(source):
        yield f"official_source is {source!r}; expected package, file and perhaps constant"
        return
    yield from _unknown("official_source.", source, {f.name for f in fields(Source)})
    yield from (p for key in source for p in _typed(key, source, str, "a text", "official_source."))


def _unknown(prefix: str, raw: Mapping[str, Any], known: Sequence[str] | set[str]) -> Iterator[str]:
    yield from (f"{prefix}{key}: unknown key{did_you_mean(str(key), known)}" for key in raw if key not in known)


def _choice(key: str, raw: Mapping[str, Any], allowed: Sequence[str], prefix: str = "") -> Iterator[str]:
    if key in raw and raw[key] not in allowed:
        near = did_you_mean(str(raw[key]), allowed)
        yield f"{prefix}{key} is {raw[key]!r}{near}; use {', '.join(allowed[:-1])} or {allowed[-1]}"


def _typed(key: str, raw: Mapping[str, Any], kind: Any, what: str, prefix: str = "") -> Iterator[str]:
    wrong_bool = kind is not bool and isinstance(raw.get(key), bool)
    if key in raw and (not isinstance(raw[key], kind) or wrong_bool):
        yield f"{prefix}{key} is {raw[key]!r}; use {what}"


def _template(name: str, raw: Mapping[str, Any]) -> Template:
    kind: Kind = raw["kind"]
    if kind == "raw":
        turns: tuple[tuple[str, str], ...] = (("", raw.get("text", "")),)
    else:
        turns = tuple((role, raw[role].strip()) for role in ("system", "user") if raw.get(role))
    return Template(name, kind, turns, dict(raw["fields"]))
