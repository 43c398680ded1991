"""Composes prompts.jsonl from base prompts, wordings and a seed: python benchmarks/ifeval_ood/compose.py --seed 3

Another seed with `--out DIR` writes a private set of the same difficulty to DIR/ifeval_ood, for `--benchmarks DIR`.
The digest of the prompts stands in the YAML, so scorecards of different sets are never compared.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

FOLDER = Path(__file__).parent
SHIPPED_SEED = 3
PER_ID = 8
N_BEFORE = 2  # of the eight: the constraint stands before the base prompt, on a line of its own

ANY = frozenset({"short", "medium", "long"})
SHORT = frozenset({"short"})
ROOMY = frozenset({"medium", "long"})

_NAMES = (
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin Harper"
    " Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria Elijah"
    " Layla Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella"
    " Jonathan"
)
_NOUNS = (
    "apple basket bridge button candle carpet castle cloud compass copper drawer engine feather fountain garden hammer"
    " harvest island jacket kettle ladder lantern marble meadow mirror needle orchard pebble pillow pocket ribbon"
    " saddle shadow silver thunder tunnel velvet violin whistle window"
)
NAMES, NOUNS = _NAMES.split(), _NOUNS.split()
OPTIONS = {"yesno": "yes/no/maybe", "know": "I know or I don't know", "mcq": "a), b), c), d)"}
SEPARATORS = ("...", "SEPARATOR", "!?!?", "-")

Params = dict[str, Any]


def _kinds(names: str) -> frozenset[str]:
    return frozenset(names.split())


OPEN = _kinds("explain describe list howto story letter opinion compare advice plan travel people")


@dataclass(frozen=True, slots=True)
class Base:
    """One base prompt. `numeric`: its topic invites numbers. `passage`: what a rewrite prompt asks to rewrite."""

    base_id: str
    kinds: frozenset[str]
    size: str
    numeric: bool
    prompt: str
    passage: str = ""

    @property
    def text(self) -> str:
        return f"{self.prompt}\n---\n{self.passage}\n---" if self.passage else self.prompt


@dataclass(frozen=True, slots=True)
class Draw:
    """What the parameters of one prompt are drawn from. `share` (0 up to 1) spreads the prompts of an id evenly over a
    range, so that every seed gives a set of the same difficulty."""

    rng: Random
    base: Base
    share: float

    def between(self, low: int, high: int) -> int:
        return low + int(self.share * (high - low + 1))


def no_params(draw: Draw) -> Params:
    return {}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which base prompts a constraint can be joined to, and how its parameters are drawn for one of them."""

    kinds: frozenset[str] = OPEN
    sizes: frozenset[str] = ANY
    draw: Callable[[Draw], Params] = no_params
    numeric: bool = True

    def takes(self, base: Base) -> bool:
        return bool(base.kinds & self.kinds) and base.size in self.sizes and (self.numeric or not base.numeric)


def rows(seed: int) -> Iterator[Params]:
    """The rows of a prompt set. Each id has its own generator, so adding an id leaves the rows of the others alone."""
    for id, wordings in templates().items():
        rng = Random(f"{seed}:{id}")
        composed = _joined(id, wordings, rng) if id in RECIPES else _whole(wordings)
        for index, (base_id, template, kwargs, prompt) in enumerate(composed):
            yield {
                "key": f"{id}#{index}",
                "prompt": prompt,
                "instruction_id_list": [id],
                "kwargs": [kwargs],
                "base_id": base_id,
                "template_id": f"{id}/{template}",
                "seed": seed,
                "cluster": id,
            }


Composed = tuple[str, int, Params, str]
"""(base id, number of the wording, parameters, prompt)"""


def _joined(id: str, wordings: list[str], rng: Random) -> Iterator[Composed]:
    recipe = RECIPES[id]
    bases = rng.sample([b for b in base_prompts() if recipe.takes(b)], PER_ID)
    before = rng.sample([True] * N_BEFORE + [False] * (PER_ID - N_BEFORE), PER_ID)
    places = rng.sample(range(PER_ID), PER_ID)
    for base, leads, place in zip(bases, before, places, strict=True):
        kwargs = recipe.draw(Draw(rng, base, (place + rng.random()) / PER_ID))
        template = rng.randrange(len(wordings))
        asked = wordings[template].format(**kwargs, **_derived(kwargs))
        # After the closing dashes of a passage only a new line reads well.
        gap = "\n" if base.passage else " "
        yield base.base_id, template, kwargs, f"{asked}\n{base.text}" if leads else f"{base.text}{gap}{asked}"


def _whole(wordings: list[str]) -> Iterator[Composed]:
    for number, prompt in enumerate(wordings):
        yield "", number, {}, prompt


def _derived(kwargs: Mapping[str, Any]) -> dict[str, str]:
    found = {"names": ", ".join(NAMES)}
    if "N" in kwargs:
        found["Nth"] = ordinal(kwargs["N"])
    if "small_n" in kwargs:
        found["more_words"] = f"{kwargs['small_n']} more word{'s' if kwargs['small_n'] > 1 else ''}"
    return found


def ordinal(n: int) -> str:
    """`1st`, `2nd`, `3rd`, `11th`, `21st`."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


# -- parameters, drawn so that an ordinary answer usually fails and a careful one can pass --


def between(name: str, low: int, high: int) -> Callable[[Draw], Params]:
    return lambda draw: {name: draw.between(low, high)}


def word_range(draw: Draw) -> Params:
    low = draw.between(60, 150 if draw.base.size == "short" else 300)
    return {"min_words": low, "max_words": low + max(10, round(low / 10))}


def edits(draw: Draw) -> Params:
    passage = draw.base.passage
    return {"reference_text": passage, "N": draw.between(10, min(40, len(passage) // 4))}


def overlap(draw: Draw) -> Params:
    return {"reference_text": draw.base.passage, "percentage": draw.between(30, 70)}


def keyword(draw: Draw) -> Params:
    free = [noun for noun in NOUNS if noun not in draw.base.prompt.lower()]
    return {"word": draw.rng.choice(free), "N": draw.between(2, 4 if draw.base.size == "short" else 10)}


def options(draw: Draw) -> Params:
    return {"options": next(OPTIONS[kind] for kind in OPTIONS if kind in draw.base.kinds)}


def separator(draw: Draw) -> Params:
    return {"sep": SEPARATORS[draw.between(0, len(SEPARATORS) - 1)]}


RECIPES: Mapping[str, Recipe] = {
    "count:word_count_range": Recipe(draw=word_range),
    "count:unique_word_count": Recipe(sizes=frozenset({"long"}), draw=between("N", 180, 300)),
    "count:conjunctions": Recipe(draw=between("small_n", 5, 6)),
    "count:person_names": Recipe(_kinds("story people"), ROOMY, between("N", 3, 12)),
    "count:countries": Recipe(_kinds("travel"), draw=between("percentage", 3, 12)),
    "count:levenshtein": Recipe(_kinds("rewrite"), draw=edits),
    "count:numbers": Recipe(draw=between("N", 3, 9), numeric=False),
    "count:punctuation": Recipe(),
    "count:pronouns": Recipe(_kinds("story letter advice"), ROOMY, between("N", 20, 45)),
    "count:words_japanese": Recipe(sizes=SHORT, draw=between("N", 3, 12)),
    "ratio:stop_words": Recipe(draw=between("percentage", 20, 33)),
    "ratio:sentence_type": Recipe(),
    "ratio:sentence_balance": Recipe(),
    "ratio:overlap": Recipe(_kinds("rewrite"), draw=overlap),
    "ratio:sentence_words": Recipe(_kinds("describe opinion"), SHORT),
    "words:alphabet": Recipe(_kinds("describe story"), SHORT),
    "words:vowel": Recipe(_kinds("describe opinion"), SHORT),
    "words:consonants": Recipe(_kinds("describe"), SHORT),
    "words:palindrome": Recipe(_kinds("story list")),
    "words:prime_lengths": Recipe(_kinds("describe"), SHORT),
    "words:start_verb": Recipe(),
    "words:repeats": Recipe(sizes=SHORT, draw=between("small_n", 2, 4)),
    "words:odd_even_syllables": Recipe(_kinds("describe"), SHORT),
    "words:last_first": Recipe(_kinds("story explain")),
    "words:paragraph_last_first": Recipe(_kinds("explain story")),
    "words:no_consecutive": Recipe(sizes=SHORT),
    "sentence:alliteration_increment": Recipe(_kinds("story describe")),
    "sentence:increment": Recipe(_kinds("describe story"), SHORT, between("small_n", 1, 4)),
    "sentence:keyword": Recipe(draw=keyword),
    "format:parentheses": Recipe(_kinds("explain opinion")),
    "format:quotes": Recipe(_kinds("story letter")),
    "format:options": Recipe(_kinds("yesno know mcq"), draw=options),
    "format:camel_case": Recipe(_kinds("code")),
    "format:newline": Recipe(sizes=SHORT),
    "format:emoji": Recipe(),
    "format:line_indent": Recipe(_kinds("list plan describe")),
    "format:quote_unquote": Recipe(_kinds("quote")),
    "format:list": Recipe(_kinds("list"), draw=separator),
    "format:thesis": Recipe(_kinds("explain compare")),
    "format:sub-bullets": Recipe(_kinds("list plan compare")),
    "format:no_bullets_bullets": Recipe(_kinds("explain list")),
}


# -- files --


@cache
def base_prompts() -> tuple[Base, ...]:
    lines = (FOLDER / "base_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    raw = [json.loads(line) for line in lines]
    return tuple(Base(**{**row, "kinds": frozenset(row["kinds"])}) for row in raw)


@cache
def templates() -> dict[str, list[str]]:
    """Wordings by id, in the order of the file."""
    import yaml

    found: dict[str, list[str]] = yaml.safe_load((FOLDER / "templates.yaml").read_text(encoding="utf-8"))
    return found


def file_text(seed: int) -> str:
    """prompts.jsonl of a seed."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows(seed))


def write(seed: int, folder: Path) -> str:
    """Writes prompts.jsonl, and its sha256 into the YAML; returns the digest. Another folder is filled first."""
    if folder != FOLDER:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("ifeval_ood.yaml", "verify.py", "cases.jsonl", "README.md"):
            shutil.copyfile(FOLDER / name, folder / name)
    text = file_text(seed)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "prompts.jsonl").write_text(text, encoding="utf-8")
    path = folder / "ifeval_ood.yaml"
    marked = re.sub(r"(?m)^  sha256: .*$", f'  sha256: "{digest}"', path.read_text(encoding="utf-8"))
    path.write_text(marked, encoding="utf-8")
    return digest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SHIPPED_SEED)
    parser.add_argument("--out", type=Path, help="write a private set to OUT/ifeval_ood instead of the shipped files")
    given = parser.parse_args()
    if given.out is None and given.seed != SHIPPED_SEED:
        parser.error(f"the shipped set has seed {SHIPPED_SEED}; name a place for another one with --out")
    folder = given.out / "ifeval_ood" if given.out else FOLDER
    print(f"{folder / 'prompts.jsonl'}: seed {given.seed}, sha256 {write(given.seed, folder)}")


if __name__ == "__main__":
    main()
