"""The synthetic workload of decontamination: made-up language, boilerplate, ten evals, and rows with known plants.

`python -m tests.speed.decontam_workload FOLDER --rows 20000` writes it. A smaller number of rows is a prefix of a
larger one: rows come in parts, each with random numbers of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

Variant = Literal["plain", "escaped", "parquet"]

VERSION = 1  # another number makes folders of earlier versions anew
SUITES = 10
TEMPLATES = 40
PART = 2_000  # rows that share a random generator
KINDS = ("exact", "recase", "part75", "typo12", "part30", "para5", "tplonly", "assistant")
FLAGGED_KINDS = KINDS[:4]  # what the exact rule has to find in user turns
TRUE_KINDS = KINDS[:6]  # a row with one of these holds eval text; any other row is a false alarm
PLANTED = 0.02  # share of rows
SEPARATORS = (" ", ", ", ". ", "? ", ": ", "\n")
SEPARATOR_SHARES = (0.84, 0.08, 0.05, 0.01, 0.01, 0.01)
CAPITAL_AFTER = np.array([False, False, True, True, False, True])
# Letters of the made-up language in Cyrillic, for text that ASCII-only JSON has to escape.
CYRILLIC = str.maketrans("tnshrdlcmwfgypbvkaeiou", "тншхрдлцмжфгйпбвкаэиоу")


@dataclass(frozen=True, slots=True)
class Workload:
    """The files of a workload and the parameters they were made with."""

    folder: Path
    rows: int
    evals: int
    seed: int
    variant: Variant

    @property
    def train(self) -> Path:
        return self.folder / ("train.parquet" if self.variant == "parquet" else "train.jsonl")

    @property
    def suites(self) -> tuple[Path, ...]:
        return tuple(self.folder / "evals" / f"suite_{i}.jsonl" for i in range(SUITES))

    @property
    def truth(self) -> Path:
        return self.folder / "truth.jsonl"


def make(
    folder: Path | str, rows: int = 200_000, evals: int = 20_000, seed: int = 7, variant: Variant = "plain"
) -> Workload:
    """Writes evals/suite_0.jsonl … suite_9.jsonl (id, question), train.jsonl and truth.jsonl (row, kind, eval).

    The variant `escaped` is Cyrillic text in ASCII-only JSON; `parquet` has train.parquet beside train.jsonl. A folder
    that holds the same workload already is left as it is.
    """
    made = Workload(Path(folder), rows, evals, seed, variant)
    told = {**asdict(made), "folder": "", "version": VERSION}
    mark = made.folder / "workload.json"
    if mark.is_file() and json.loads(mark.read_text()) == told:
        return made
    mark.unlink(missing_ok=True)
    (made.folder / "evals").mkdir(parents=True, exist_ok=True)
    language = _language(seed, variant == "escaped")
    templates = [t.removesuffix(".") for t in language.texts(np.random.default_rng([seed, 1]), _template_lengths(seed))]
    questions = _questions(np.random.default_rng([seed, 2]), language, templates, evals)
    encode = json.JSONEncoder(ensure_ascii=variant == "escaped").encode
    for i, file in enumerate(made.suites):
        lines = (encode({"id": eval_id(n), "question": questions[n]}) for n in range(i, evals, SUITES))
        _write(file, lines)
    with made.truth.open("w", encoding="utf-8") as truth:
        _write(
            made.folder / "train.jsonl", islice(_rows(seed, language, templates, questions, encode, truth, rows), rows)
        )
    if variant == "parquet":
        _to_parquet(made.folder / "train.jsonl", made.train)
    mark.write_text(json.dumps(told))
    return made


def eval_id(number: int) -> str:
    """The id of the eval instance of that number, which stands in suite number % 10."""
    return f"{number % SUITES}-{number:06d}"


@dataclass(frozen=True, slots=True)
class Language:
    """Sixty thousand words by rank, how often each occurs, and each word with each separator behind it."""

    words: tuple[str, ...]
    cumulative: np.ndarray[Any, Any]
    pieces: np.ndarray[Any, Any]  # (capital, separator, word) flattened: the word as written there

    def texts(self, rng: np.random.Generator, lengths: Sequence[int] | np.ndarray[Any, Any]) -> list[str]:
        """One text a length, in words; ends with a full stop."""
        ends = np.cumsum(lengths)
        n = int(ends[-1])
        words = self.draw(rng, n)
        separators = np.searchsorted(np.cumsum(SEPARATOR_SHARES)[:-1], rng.random(n), side="right")
        capital = np.concatenate([[False], CAPITAL_AFTER[separators[:-1]]])
        capital[ends[:-1]] = False
        shown = self.pieces[(capital * len(SEPARATORS) + separators) * len(self.words) + words].tolist()
        starts = [0, *ends.tolist()]
        # The last piece of a text has a separator behind it, which the full stop replaces.
        return ["".join(shown[a:b])[: -len(SEPARATORS[separators[b - 1]])] + "." for a, b in pairwise(starts)]

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
        """The ranks of n words."""
        return np.searchsorted(self.cumulative, rng.random(n), side="right")


def _language(seed: int, cyrillic: bool) -> Language:
    known = [word.translate(CYRILLIC) if cyrillic else word for word in _words(seed)]
    weights = (np.arange(len(known)) + 2.7) ** -1.05
    cumulative = np.cumsum(weights / weights.sum())
    cumulative[-1] = 1.0
    shown = [w + s for case in (str, _capital) for s in SEPARATORS for w in map(case, known)]
    return Language(tuple(known), cumulative, np.array(shown, dtype=object))


@lru_cache(maxsize=4)
def _words(seed: int) -> tuple[str, ...]:
    """Sixty thousand distinct words, the most frequent first."""
    rng = np.random.default_rng([seed, 0])
    words: dict[str, None] = {}
    while len(words) < 60_000:
        words.setdefault(_word(rng, len(words)))
    return tuple(words)


def _word(rng: np.random.Generator, rank: int) -> str:
    base = 1 + min(2, int(np.log2(rank + 2) / 5))
    syllables = max(1, base + int(rng.integers(-1, 2)))
    word = "".join(_syllable(rng) for _ in range(syllables))
    if rng.random() < 0.01:
        return word + "'s"
    if rng.random() < 0.005:
        return word + "é"
    return str(rng.integers(0, 10_000)) if rng.random() < 0.02 else word


def _syllable(rng: np.random.Generator) -> str:
    first, vowel, last = rng.integers(0, (17, 5, 17))
    consonants = "tnshrdlcmwfgypbvk"
    return consonants[first] + "aeiou"[vowel] + (consonants[last] if rng.random() < 0.35 else "")


def _capital(word: str) -> str:
    return word[0].upper() + word[1:]


def _template_lengths(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng([seed, 3]).integers(9, 16, TEMPLATES)


def _lengths(rng: np.random.Generator, mean: float, sigma: float, low: int, high: int, n: int) -> np.ndarray[Any, Any]:
    return np.clip(np.rint(rng.lognormal(mean, sigma, n)), low, high).astype(int)


def _questions(rng: np.random.Generator, language: Language, templates: Sequence[str], n: int) -> list[str]:
    texts = language.texts(rng, _lengths(rng, 3.7, 0.7, 10, 400, n))
    return _with_templates(rng, texts, templates, 0.3)


def _with_templates(
    rng: np.random.Generator, texts: Sequence[str], templates: Sequence[str], share: float
) -> list[str]:
    """Each text, that share of them behind a random template and a colon."""
    starts = rng.random(len(texts)) < share
    which = rng.integers(0, len(templates), len(texts))
    return [f"{templates[t]}: {text}" if s else text for text, s, t in zip(texts, starts, which, strict=True)]


def _rows(
    seed: int,
    language: Language,
    templates: Sequence[str],
    questions: Sequence[str],
    encode: Any,
    truth: Any,
    rows: int,
) -> Iterator[str]:
    """The lines of the training file, whole parts of them; the plants among the first `rows` go to `truth`."""
    for first in range(0, rows, PART):
        rng = np.random.default_rng([seed, 4, first // PART])
        prompts = _with_templates(rng, language.texts(rng, _lengths(rng, 3.6, 0.7, 5, 400, PART)), templates, 0.1)
        answers = language.texts(rng, _lengths(rng, 4.65, 0.6, 10, 1_000, PART))
        for i in np.flatnonzero(rng.random(PART) < PLANTED).tolist():
            kind = KINDS[rng.integers(len(KINDS))]
            instance = int(rng.integers(len(questions)))
            if kind == "assistant":
                answers[i] += "\n" + questions[instance]
            else:
                prompts[i] = _inserted(rng, prompts[i], _plant(rng, kind, questions[instance], language, templates))
            if first + i < rows:
                eval_ = None if kind == "tplonly" else eval_id(instance)
                truth.write(json.dumps({"row": first + i, "kind": kind, "eval": eval_}) + "\n")
        for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
            yield encode({"id": f"row-{first + i:07d}", "messages": messages, "source": "made-up"})


def _inserted(rng: np.random.Generator, text: str, plant: str) -> str:
    """The text with the plant on lines of its own, after the first space behind a random offset or else at the end."""
    space = text.find(" ", int(rng.integers(len(text))))
    return f"{text}\n{plant}" if space < 0 else f"{text[: space + 1]}\n{plant}\n{text[space + 1 :]}"


def _plant(rng: np.random.Generator, kind: str, question: str, language: Language, templates: Sequence[str]) -> str:
    words = question.split()
    match kind:
        case "exact":
            return question
        case "recase":
            return "  ".join(map(partial(_recased, rng), words))
        case "part75":
            return " ".join(words[: max(9, int(0.75 * len(words)))])
        case "typo12":
            return " ".join(_mistyped(rng, w) if i % 12 == 11 else w for i, w in enumerate(words))
        case "part30":
            n = max(9, int(0.3 * len(words)))
            start = int(rng.integers(max(1, len(words) - n + 1)))
            return " ".join(words[start : start + n])
        case "para5":
            return " ".join(_reworded(rng, w, language) if i % 5 == 4 else w for i, w in enumerate(words))
        case _:
            return templates[int(rng.integers(len(templates)))]


def _recased(rng: np.random.Generator, word: str) -> str:
    if rng.random() < 0.5:
        return word.strip(".,?:").upper()
    return word.lower() + (";" if rng.random() < 0.1 else "")


def _mistyped(rng: np.random.Generator, word: str) -> str:
    """The word with two neighbouring letters swapped, or one letter gone."""
    n = len(word.rstrip(".,?:"))
    unlike = [i for i in range(n - 1) if word[i] != word[i + 1]]
    if unlike and rng.random() < 0.5:
        i = unlike[rng.integers(len(unlike))]
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    i = int(rng.integers(n))
    return word[:i] + word[i + 1 :]


def _reworded(rng: np.random.Generator, word: str, language: Language) -> str:
    chance = rng.random()
    other = language.words[int(language.draw(rng, 1)[0])]
    if chance < 0.5:
        return other
    return "" if chance < 0.75 else f"{word} {other}"


def _write(file: Path, lines: Iterator[str]) -> None:
    with file.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(line + "\n" for line in lines)


def _to_parquet(source: Path, target: Path) -> None:
    """The JSONL rows as Parquet with snappy, as hubs store them, 10,000 rows a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema([("id", pa.string()), ("messages", pa.list_(message)), ("source", pa.string())])
    with source.open(encoding="utf-8") as lines, pq.ParquetWriter(target, schema) as out:
        while rows := [json.loads(line) for line in islice(lines, 10_000)]:
            out.write_table(pa.Table.from_pylist(rows, schema=schema))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--evals", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--variant", choices=("plain", "escaped", "parquet"), default="plain")
    options = parser.parse_args()
    print(make(options.folder, options.rows, options.evals, options.seed, options.variant).train)


if __name__ == "__main__":
    main()
