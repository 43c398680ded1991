"""The kernel decides as the reference does: on hostile text, raw and decoded, whatever the blocks."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decontam import reference
from decontam.index import Index, build, open_index
from decontam.job.work import Options
from decontam.kernel.cover import CAPPED, EXACT, SHORT
from decontam.rules import RULES, Rule
from decontam.scan import scan_shard
from decontam.select import parse_selectors
from decontam.types import EvalSet, Shard

# Separators, escapes, letters whose lower case is odd, what JSON must escape, what it need not.
ALPHABET = [*' \n,.?!:;()"-\\', *"\t\r\f\b'$%/*{}[]", *"abAB1", *"ÉİßΣςKﬁ中🙂́", "\0", "\ud800", " ", "x" * 9]
WORDS = ["the", "The", "a", "cat", "it's", "don't", "state-of-the-art", "É", "İstanbul", "ΣΑΣ", "2.0", "$2", "中文",
         "🙂", "a\tb", "_" * 8,
         "internationalisation", "\u212aelvin", "ﬁne", "ß", "e\u0301", "\\n", "\"q\"", "…", "/", "\x00"]  # fmt: skip
SETTINGS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

letters = st.lists(st.sampled_from(ALPHABET), max_size=60).map("".join)
sentences = st.lists(st.sampled_from(WORDS), max_size=40).flatmap(
    lambda words: st.lists(
        st.sampled_from([" ", " ", " ", ", ", "\n", ". ", "-", "\t", ""]), min_size=len(words), max_size=len(words)
    ).map(lambda gaps: "".join(w + g for w, g in zip(words, gaps, strict=True)))
)
texts = st.one_of(sentences, letters)


@st.composite
def worlds(draw: Any) -> tuple[list[tuple[str | None, ...]], list[str]]:
    """Instances of one to three fields, and messages many of which are cut, shuffled or repeated copies of them."""
    n_fields = draw(st.sampled_from([1, 1, 1, 2, 3]))
    field = st.one_of(sentences, letters, st.just(""), *([st.none()] if n_fields > 1 else []))
    instances = [tuple(draw(field) for _ in range(n_fields)) for _ in range(draw(st.integers(1, 5)))]
    if draw(st.booleans()) and instances[0][0]:  # common phrases
        instances += [(f"{instances[0][0][: draw(st.integers(1, 80))]} {i}", *instances[0][1:]) for i in range(3)]
    random_ = random.Random(draw(st.integers(0, 2**32)))
    known = [text for one in instances for text in one if text]
    messages = [draw(texts) for _ in range(2)] + [""]
    for _ in range(5 if known else 0):
        messages.append(changed(random_.choice(known), random_, draw(texts)))
    messages += ["\n".join(text or "" for text in one) for one in instances]
    return instances, messages


def changed(text: str, random_: random.Random, other: str) -> str:
    """A copy of a text as contamination comes: cut, in other case, between other words, in pieces, twice."""
    a, b = sorted(random_.choices(range(len(text) + 1), k=2))
    ways = [text, text.upper(), text[a:], text[:b], text[a:b], f"{other} {text}\n{other}", text[b:] + " " + text[:b],
            f"{text} {text[a:]}",
            text[:a] + other + text[a:], text.replace(" ", "  ")]  # fmt: skip
    return random_.choice(ways)


Instances = Sequence[tuple[str | None, ...]]


def expected(rule: Rule, instances: Instances, cap: int, short: bool, drop: bool, message: str) -> dict[int, Any]:
    """What the reference finds: by instance flags, covered, capped, scores, runs."""
    read = reference.instances_of(rule, instances, drop_empty_fields=drop)
    shorts = reference.short_instances(instances) if short else [None] * len(read)
    own = [one is not None and any(field.windows for field in one if field) for one in read]
    shorts = [None if has_windows else brief for brief, has_windows in zip(shorts, own, strict=True)]
    long = [None if brief is not None else one for one, brief in zip(read, shorts, strict=True)]
    frequency = reference.document_frequency(long)
    weights = reference.idf_weights(frequency, sum(one is not None for one in read)) if rule.score == "idf" else None
    common = reference.common_phrases(frequency, cap)
    found = {}
    for i, (one, brief) in enumerate(zip(long, shorts, strict=True)):
        if one is not None and (hit := reference.find(rule, one, message, common=common, weights=weights)):
            flags = EXACT | (CAPPED if hit.survives else 0)
            found[i] = (flags, hit.exact.covered, hit.capped.covered, hit.exact.score, hit.common_share, hit.runs)
        if brief is not None and (hit := reference.find(RULES["exact"], brief, message)):
            found[i] = (SHORT, hit.exact.covered, None, hit.exact.score, None, hit.runs)
    return found


def index_of(folder: Path, rule: Rule, instances: Instances, cap: int, short: bool, drop: bool) -> Index:
    fields = tuple(f"f{i}" for i in range(len(instances[0])))
    evals = EvalSet("e", "development", fields, tuple(map(str, range(len(instances)))), tuple(instances), "digest")
    return open_index(build([evals], rule, cap=cap, short=short, drop_empty_fields=drop, cache=folder))


def scanned(
    index: Index, shards: Sequence[Shard], selectors: Sequence[str] = ("text",)
) -> dict[tuple[int, int], dict[int, Any]]:
    """What the scan of a file finds, by row and turn; rows numbered through the shards."""
    found: dict[tuple[int, int], dict[int, Any]] = {}
    before = 0
    for shard in shards:
        table, _, counts = scan_shard(index, parse_selectors(list(selectors)), shard, Options())
        assert not counts.n_broken, counts.broken
        for match in table.to_pylist():
            runs = [tuple(match["runs"][i : i + 6]) for i in range(0, len(match["runs"]), 6)]
            found.setdefault((before + match["row"], match["turn"]), {})[match["inst"]] = match | {"runs": runs}
        before += counts.n_rows
    return found


def agree(rule: Rule, wanted: dict[int, Any], got: dict[int, Any]) -> None:
    assert got.keys() == wanted.keys()
    for i, (flags, covered, capped, score, share, runs) in wanted.items():
        match = got[i]
        assert match["flags"] == flags
        assert tuple(match["covered"]) == covered
        assert match["runs"] == [tuple(run) for run in runs]
        if capped is not None:
            assert tuple(match["capped"]) == capped
            assert match["common_share"] == pytest.approx(float(share), abs=1e-12)
        if rule.score != "idf":
            assert match["score"] == pytest.approx(float(score), abs=1e-12)


def as_json(text: Any, random_: random.Random) -> bytes:
    """One of the ways in which JSON may spell a row, on one line."""
    row = {
        "id": 7,
        "text": text,
        "messages": [{"role": "user", "content": text}, {"content": "x y", "role": "assistant"}],
    }
    items = list(row.items())
    random_.shuffle(items)
    line = json.dumps(dict(items), ensure_ascii=random_.random() < 0.5 or "\ud800" in text)
    if random_.random() < 0.5:
        line = line.replace("/", "\\/")
    if random_.random() < 0.5:
        line = f"  {line[0]} \t{line[1:]} "
    if random_.random() < 0.3:  # the last of two equal keys counts
        line = line.rstrip()[:-1] + ', "text": ' + json.dumps(text) + "}"
    return line.encode()


def shards_of(path: Path, cuts: Sequence[float]) -> Iterator[Shard]:
    size = path.stat().st_size
    edges = [0, *sorted(int(c * size) for c in cuts), size]
    for number, (a, b) in enumerate(pairwise(edges)):
        if a < b:
            yield Shard(number, "d", path.name, str(path), "jsonl", a, b)


@pytest.mark.parametrize("name", RULES)
@SETTINGS
@given(world=worlds(), cap=st.sampled_from([0, 1, 2, 50]), cuts=st.lists(st.floats(0, 1), max_size=2),
       seed=st.integers(0, 2**32), drop=st.booleans(), chat=st.booleans(), short=st.booleans())  # fmt: skip
def test_raw_lines_are_judged_as_the_reference_judges_messages(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    world: Any,
    cap: int,
    cuts: list[float],
    seed: int,
    drop: bool,
    chat: bool,
    short: bool,
) -> None:
    rule, (instances, messages) = RULES[name], world
    short = short and rule.analyzer == "pattern"  # refused for others
    folder = tmp_path_factory.mktemp("kernel")
    index = index_of(folder / "cache", rule, instances, cap, short, drop)
    random_ = random.Random(seed)
    path = folder / "train.jsonl"
    path.write_bytes(random_.choice([b"\n", b"\r\n", b"\n \n"]).join(as_json(m, random_) for m in messages))
    selectors = ["messages[role=user].content"] if chat else ["text"]
    got = scanned(index, list(shards_of(path, cuts)), selectors)
    for row, message in enumerate(messages):
        agree(rule, expected(rule, instances, cap, short, drop, message), got.get((row, 0), {}))


@pytest.mark.parametrize("seed", range(6))
def test_no_flagged_message_passes_the_gate_unseen(tmp_path: Path, seed: int) -> None:
    """Messages of random windows of an instance, around one half of it: the sufficient set by brute force."""
    random_ = random.Random(seed)
    words = [f"w{i}" for i in range(30)] + ["-", "do", "n't", "(", ")"]
    instances = [(" ".join(random_.choices(words, k=random_.randrange(8, 60))),) for _ in range(12)]
    instances += [(f"{instances[0][0]} {i} {instances[1][0]}",) for i in range(4)]
    rule = RULES["tulu3"]
    index = index_of(tmp_path / "cache", rule, instances, 2, False, False)
    read = reference.instances_of(rule, instances)
    messages = []
    for _ in range(120):
        (field,) = read[random_.randrange(len(read))] or (None,)
        assert field is not None
        windows = random_.sample(field.windows, k=random_.randrange(1, len(field.windows) + 1)) if field.windows else []
        messages.append("\n\n".join(" ".join(w.phrase) for w in windows if w.phrase))
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(json.dumps({"text": m}) for m in messages))
    got = scanned(index, list(shards_of(path, [])))
    wanted = [expected(rule, instances, 2, False, False, m) for m in messages]
    assert sum(map(bool, wanted)) > 12, "too few flagged messages to show anything"
    for row, each in enumerate(wanted):
        agree(rule, each, got.get((row, 0), {}))


def test_a_tie_of_several_fields_is_decided_by_fractions(tmp_path: Path) -> None:
    one = "alpha beta gamma delta epsilon zeta eta theta"  # eight tokens: one window
    rule = RULES["tulu3"]
    index = index_of(tmp_path / "cache", rule, [(one, "other words that are not in it at all here")], 50, False, False)
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"text": one}))  # the mean of 1 and 0 is 1/2, and more than that is asked
    assert scanned(index, list(shards_of(path, []))) == {}
    assert expected(rule, [(one, "other words that are not in it at all here")], 50, False, False, one) == {}
    assert Fraction(1, 2) == rule.threshold


def test_an_id_that_no_file_can_hold_is_spelled_out(tmp_path: Path) -> None:
    text = "one two three four five six seven eight nine ten"
    index = index_of(tmp_path / "cache", RULES["tulu3"], [(text,)], 50, False, False)
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"id": "\ud800", "text": text}))
    table, _, _ = scan_shard(index, parse_selectors(["text"]), next(shards_of(path, [])), Options())
    assert table["id"].to_pylist() == ["\\ud800"]
