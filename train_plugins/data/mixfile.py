"""Mix files: which sources a training file is made of, how many rows of each, under which rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from evalsuite.errors import UsageError, did_you_mean
from evalsuite.trainers.files import digest_of_json
from evalsuite.trainers.options import parse
from train_plugins.data.filters import Filters
from train_plugins.data.licences import LicenceRule, licence_problems

SCHEMA = 1
SKILLS = ("knowledge", "reasoning", "math", "coding", "instruction-following", "chat", "safety", "multilingual",
          "tool-use")  # fmt: skip
MADE_BY = re.compile(r"human|mixed|synthetic(?::.+)?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SHIPPED = Path(__file__).parents[1] / "recipes" / "mixes"
Dedup = Literal["prompt", "row", "none"]


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of one origin. Exactly one of `path` (a file, several, a pattern) and `hub` (a folder `<owner>/<name>` of a
    data root) says where they lie, exactly one of `count` and `fraction` how many are taken.

    `where` keeps the rows with these values; `format` names what `evalsuite data convert` reads (none: canonical rows).
    `upsample` repeats rows in whole passes where there are fewer than `count`. `max_bad` is the fraction of rows that
    may be unusable, which are left out. `note` goes into the data card.
    """

    origin: str
    licence: str
    made_by: str
    skills: tuple[str, ...]
    name: str = ""
    path: str | tuple[str, ...] = ()
    hub: str = ""
    config: str | None = None
    split: str = "train"
    revision: str = ""
    format: str = ""
    count: int | Literal["all"] | None = None
    fraction: float | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    upsample: bool = False
    max_bad: float = 0.0
    filters: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,) if isinstance(self.path, str) else self.path


@dataclass(frozen=True, slots=True)
class Decontam:
    """What the rows are cleaned of before any are counted. `waive` is the reason why nothing is looked for.

    `how` and `by` are those of `evalsuite decontam clean`. `over_limit` says what is done about a source that holds
    more of an unseen eval than the limit allows: the rule of the Tülu 3 paper is not to use it at all.
    """

    against: tuple[str, ...] = ()
    on_hit: Literal["clean", "refuse"] = "clean"
    how: Literal["drop-row", "drop-turn", "mask-span"] = "drop-row"
    by: Literal["exact", "capped"] = "exact"
    scan: Literal["prompts", "all"] = "prompts"
    near: bool = False
    over_limit: Literal["refuse", "clean"] = "refuse"
    waive: str = ""


@dataclass(frozen=True, slots=True)
class Near:
    """Prompts that are alike: from `ratio` of 100 on, each compared with at most `most` others that share a piece."""

    ratio: float = 95.0
    most: int = 200


@dataclass(frozen=True, slots=True)
class Mix:
    """A mix file. `short` says when fewer rows than were asked for are accepted: never, where decontamination took
    them, or always. `allow` lets rows in that are refused otherwise (`evalsuite data convert --allow-tools`,
    `--allow-template-text`). `base` is the folder that relative paths count from first.
    """

    schema: int
    name: str
    decontam: Decontam
    sources: tuple[Source, ...]
    about: str = ""
    seed: int = 0
    dedup: Dedup = "prompt"
    near: Near | None = None
    licence: LicenceRule = field(default_factory=LicenceRule)
    filters: Filters = field(default_factory=Filters)
    short: Literal["refuse", "decontam", "any"] = "refuse"
    allow: tuple[Literal["tools", "template_text"], ...] = ()
    base: str = ""

    def filters_of(self, source: Source) -> Filters:
        """The source's own filters over those of the whole mix."""
        return replace(self.filters, **{key: _frozen(value) for key, value in source.filters.items()})

    @property
    def rows(self) -> int | None:
        """Rows of the finished file, where every source has a number."""
        counts = [source.count for source in self.sources]
        return sum(c for c in counts if isinstance(c, int)) if all(isinstance(c, int) for c in counts) else None


def find_mix(text: str) -> Path:
    """The mix file at a path, or the shipped one of that name."""
    path = Path(text).expanduser()
    if path.is_file():
        return path
    shipped = {each.stem: each for each in sorted(SHIPPED.glob("*.yaml"))}
    if text in shipped:
        return shipped[text]
    raise UsageError(f"no mix file {text!r}{did_you_mean(text, shipped)} (shipped: {', '.join(shipped)})")


def load_mix(path: Path) -> Mix:
    """The mix in a YAML file. Raises UsageError with every problem, one a line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no YAML ({' '.join(str(error).split())})") from error
    if isinstance(content, dict) and content.get("decontam") is None:
        content = {**content, "decontam": {}}  # its absence is told as what it must say
    mix = parse(Mix, content, str(path))
    named = tuple(replace(source, name=source.name or _name_of(source)) for source in mix.sources)
    mix = replace(mix, sources=named, base=str(path.parent))
    if problems := [*_problems(mix), *licence_problems(mix.licence, {s.name: s.licence for s in named})]:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return mix


def variant(mix: Mix, *, without: Sequence[str] = (), only: Sequence[str] = (), seed: int | None = None) -> Mix:
    """The mix without some sources, with only those of some skills, or with another seed; its name says so."""
    names = [source.name for source in mix.sources]
    present = sorted({skill for source in mix.sources for skill in source.skills})
    unknown = [f"no source named {n!r}{did_you_mean(n, names)}" for n in without if n not in names]
    unknown += [f"no source has the skill {s!r}{did_you_mean(s, present)}" for s in only if s not in present]
    if unknown:
        raise UsageError("; ".join(f"{mix.name}: {each}" for each in unknown))
    kept = tuple(s for s in mix.sources if s.name not in without and (not only or set(only) & set(s.skills)))
    if not kept:
        raise UsageError(f"{mix.name}: no source is left")
    parts = [*(f"without-{name}" for name in without), *(f"only-{skill}" for skill in only)]
    parts += [f"seed-{seed}"] if seed not in (None, mix.seed) else []
    return replace(mix, name="-".join([mix.name, *parts]), sources=kept, seed=mix.seed if seed is None else seed)


def suites_of(mix: Mix) -> tuple[str, ...]:
    """The suites that are looked for: names as they are, files (beside the mix file or from here) with their path."""
    spots = {text: (Path(mix.base) / text, Path(text)) for text in mix.decontam.against}
    found = {text: next((spot for spot in some if spot.is_file()), None) for text, some in spots.items()}
    return tuple(str(path.absolute()) if path else text for text, path in found.items())


def content_of(mix: Mix) -> dict[str, Any]:
    """What the result depends on, as plain data; where the mix file lies is no part of it."""
    import dataclasses

    content = dataclasses.asdict(mix)
    del content["base"]
    return content


def digest_of(mix: Mix) -> str:
    """sha256 hex over the content of the mix."""
    return digest_of_json(content_of(mix))


def _name_of(source: Source) -> str:
    first = source.hub or next(iter(source.paths), "")
    return re.sub(r"\.(jsonl|json|csv|parquet|gz|zst)\b", "", Path(first).name)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _problems(mix: Mix) -> Iterator[str]:
    if mix.schema != SCHEMA:
        yield f"schema {mix.schema}, this version reads {SCHEMA}"
    if not NAME.fullmatch(mix.name):
        yield f"{mix.name!r} is no name for a file: letters, digits, '.', '_', '-'"
    if bool(mix.decontam.against) == bool(mix.decontam.waive.strip()):
        yield "decontam: name suites (against: [tulu3-dev, …]) or say why not (waive: reason), one of the two"
    if mix.near is not None and not (50 <= mix.near.ratio <= 100 and mix.near.most >= 1):
        yield "near: ratio must be from 50 to 100, most at least 1"
    if not mix.sources:
        yield "sources: expected at least one"
    names = [source.name for source in mix.sources]
    yield from (f"two sources are named {name!r}; give each a name:" for name in sorted({n for n in names
                if names.count(n) > 1}))  # fmt: skip
    for source in mix.sources:
        yield from (f"{source.name}: {problem}" for problem in _source_problems(source))


def _source_problems(source: Source) -> Iterator[str]:
    if not NAME.fullmatch(source.name):
        yield f"{source.name!r} is no name: letters, digits, '.', '_', '-'"
    if bool(source.paths) == bool(source.hub):
        yield "expected path or hub, one of the two"
    if (source.count is None) == (source.fraction is None):
        yield "expected count (a number or all) or fraction, one of the two"
    if isinstance(source.count, int) and source.count < 1:
        yield f"count is {source.count}; at least 1"
    if source.fraction is not None and not 0 < source.fraction <= 1:
        yield f"fraction is {source.fraction}; above 0, at most 1"
    if not 0 <= source.max_bad < 1:
        yield f"max_bad is {source.max_bad}; a fraction from 0, below 1"
    if source.upsample and not isinstance(source.count, int):
        yield "upsample needs a count"
    if not source.skills:
        yield f"skills: at least one of {', '.join(SKILLS)}"
    yield from (f"no skill {s!r}{did_you_mean(s, SKILLS)} (there are {', '.join(SKILLS)})" for s in source.skills
                if s not in SKILLS)  # fmt: skip
    if not MADE_BY.fullmatch(source.made_by):
        yield f"made_by is {source.made_by!r}; expected human, mixed or synthetic:MODEL"
    if not source.origin.strip():
        yield "origin is empty; say where the rows come from"
    try:
        parse(Filters, source.filters, "filters")
    except UsageError as error:
        yield from str(error).splitlines()
