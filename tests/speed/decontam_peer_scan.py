"""One way of decontaminating that people use today, run over the workload in this process.

`python -m tests.speed.decontam_peer_scan NAME EVALS TRAIN ROWS OUT` writes what it flagged and the CPU-seconds that its
index and its scan took. Only the standard library is imported at the top: some run in another environment.
"""

from __future__ import annotations

import json
import os
import re
import string
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Hits = dict[int, list[str]]  # row -> flagged instances; a tool that does not say which leaves the list empty
Scan = Callable[[Iterator[Row]], Hits]

SEPARATORS = re.compile(r'[ ,.?!:;()"\-\n\\]+')


def main(name: str, evals: str, train: str, rows: int, out: str) -> None:
    texts = {
        row["id"]: row["question"] for file in sorted(Path(evals).iterdir()) for row in map(json.loads, file.open())
    }
    start = _cpu_s()
    scan = PEERS[name](texts, Path(out).parent)
    middle = _cpu_s()
    with Path(train).open(encoding="utf-8") as lines:
        hits = scan(json.loads(line) for line in islice(lines, rows))
    told = {"index_cpu_s": middle - start, "scan_cpu_s": _cpu_s() - middle, "hits": hits}
    Path(out).write_text(json.dumps(told))


def _cpu_s() -> float:
    """CPU-seconds of this process and the children it waited for."""
    return sum(os.times()[:4])


def coverage(turns: str, texts: dict[str, str], _: Path) -> Scan:
    """The common simplification of Tülu 3's rule: a dictionary of 8-tuples, more than half of the tokens covered."""
    n_tokens: dict[str, int] = {}
    owners: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, text in texts.items():
        tokens = _tokens(text)
        n_tokens[name] = len(tokens)
        for start, gram in enumerate(_grams(tokens, 8)):
            owners[gram].append((name, start))
    index = dict(owners)

    def flagged(text: str) -> Iterator[str]:
        covered: dict[str, set[int]] = defaultdict(set)
        for gram in {g for g in _grams(_tokens(text), 8) if g in index}:
            for name, start in index[gram]:
                covered[name].update(range(start, start + 8))
        return (name for name, found in covered.items() if 2 * len(found) > n_tokens[name])

    return partial(_per_message, turns, flagged)


def any_eight(texts: dict[str, str], _: Path) -> Scan:
    """What open-r1 does: a row goes when its prompt shares any eight words in a row with any eval."""
    index = {gram for text in texts.values() for gram in _grams(text.lower().split(), 8)}

    def flagged(text: str) -> list[str]:
        return [] if index.isdisjoint(_grams(text.lower().strip().split(), 8)) else [""]

    return partial(_per_message, "user", flagged)


def _per_message(turns: str, flagged: Callable[[str], Sequence[str] | Iterator[str]], rows: Iterator[Row]) -> Hits:
    hits: Hits = {}
    for number, row in enumerate(rows):
        for message in row["messages"]:
            if turns == "all" or message["role"] == turns:
                found = [name for name in flagged(message["content"]) if name not in hits.get(number, ())]
                if found:
                    hits.setdefault(number, []).extend(found)
    return hits


def _tokens(text: str) -> list[str]:
    return [token for token in SEPARATORS.split(text.lower()) if token]


def _grams(tokens: Sequence[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(tokens[i:] for i in range(n)), strict=False)


def janitor_python(texts: dict[str, str], _: Path) -> Scan:
    """lm-eval's Janitor without its extension, as installed: a row that does not come back whole is flagged."""
    from lm_eval.decontamination.janitor import Janitor

    janitor = Janitor(minimum_slice_length=0)  # else short clean rows come back empty too
    for text in texts.values():
        janitor.register_contaminant_python(text)
    return partial(_cleaned, janitor.clean_python)


def janitor_cpp(texts: dict[str, str], _: Path) -> Scan:
    """lm-eval's Janitor with its C++ n-grams. Its `clean_cpp` takes every n-gram for a dirty one; here it looks first.

    The extension cuts long words within a character, which Python then refuses: both sides go in as ASCII.
    """
    import janitor_util
    from lm_eval.decontamination.janitor import Janitor

    janitor = Janitor(minimum_slice_length=0)
    dirty = janitor.dirt_ngrams
    for text in texts.values():
        janitor.register_contaminant_cpp(_ascii(text))

    def clean(text: str) -> list[str]:
        found = janitor_util.clean_ngram_with_indices(_ascii(text), string.punctuation, janitor.ngram_n)
        return list(janitor._split_chunks(text, [part for part in found if part[0] in dirty]))

    return partial(_cleaned, clean)


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _cleaned(clean: Callable[[str], Sequence[str]], rows: Iterator[Row]) -> Hits:
    texts = map(_joined, rows)
    return {number: [] for number, text in enumerate(texts) if list(clean(text)) != [text]}


def _joined(row: Row) -> str:
    return "\n".join(message["content"] for message in row["messages"])


def datatrove(tokenizer: str, texts: dict[str, str], folder: Path) -> Scan:
    """datatrove's 12-gram filter; its index is written here, since its own indexer wants lighteval's tasks."""
    import numpy as np
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontFilter
    from datatrove.utils.text import simplify_text

    index = folder / f"datatrove_{tokenizer}"
    index.mkdir(exist_ok=True)
    step = NGramsDecontFilter(str(index), language="eng" if tokenizer == "spacy" else _white_space())
    suites: dict[str, set[int]] = defaultdict(set)
    for name, text in texts.items():
        words = step.tokenizer.word_tokenize(simplify_text(text, step.config.norm_config))
        suites[name.split("-")[0]].update(map(step.hash_func, map(" ".join, _grams(words, step.config.n_grams))))
    for suite, hashes in suites.items():
        np.array(sorted(hashes), dtype=step.config.hash_config.np_descr).tofile(index / f"{suite}.index.hashes")
    step.load_index_hashes()

    def scan(rows: Iterator[Row]) -> Hits:
        seen = set()
        n = 0

        def documents() -> Iterator[Any]:
            nonlocal n
            for n, row in enumerate(rows, 1):
                yield Document(text=_joined(row), id=str(n - 1))

        for document in step.run(documents()):
            seen.add(int(document.id))
        return {number: [] for number in range(n) if number not in seen}

    return scan


def _white_space() -> Any:
    from datatrove.utils.word_tokenizers import WordTokenizer

    class WhiteSpace(WordTokenizer):  # type: ignore[misc, unused-ignore]
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    return WhiteSpace()


PEERS: dict[str, Callable[[dict[str, str], Path], Scan]] = {
    "tuples-user": partial(coverage, "user"),
    "tuples-all": partial(coverage, "all"),
    "any-8": any_eight,
    "janitor-python": janitor_python,
    "janitor-cpp": janitor_cpp,
    "datatrove-spacy": partial(datatrove, "spacy"),
    "datatrove-white-space": partial(datatrove, "white_space"),
}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
