"""Lines that nobody parsed give the messages that a parser finds: turn, where, id, characters, on hostile JSON."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decontam.index import build, open_index
from decontam.job.work import Options
from decontam.kernel.unescape import unescape
from decontam.matcher import joined
from decontam.rules import RULES
from decontam.scan import scan_shard
from decontam.select import Selection, parse_selectors
from decontam.types import EvalSet, Shard

EVAL = "Which of the nine small rivers in the north runs dry before the second week of July, and why?"
OTHER = "Nothing that any eval asks"
SPELLINGS = (
    EVAL,
    EVAL.upper(),
    f"“{EVAL}”\n\tyes/no\b\f\r",
    f"x\\ {EVAL} \ud83d\ude00 \ud800",
    OTHER,
    "",
    f"a b {EVAL}",
)
SELECTORS = (
    (("messages[role=user].content",), False),
    (("messages[role=user].content",), True),
    (("messages[*].content",), False),
    (("messages[from=human].content",), False),
    (("messages[role=user].content", "messages[role=system].content"), False),
    (("messages[0].content",), False),
    (("text",), False),
    (("text",), True),
    (("text+more",), False),
)


def value(random_: random.Random, depth: int = 0) -> str:
    """JSON of anything."""
    text = json.dumps(random_.choice(SPELLINGS), ensure_ascii=True)
    plain = random_.choice([text, text, "null", "true", "-0", "12", "-7.5e3", "[]", "{}", '"user"'])
    if depth == 3 or random_.random() < 0.7:
        return plain
    if random_.random() < 0.5:
        return f"[{', '.join(value(random_, depth + 1) for _ in range(random_.randrange(3)))}]"
    return turn(random_, depth + 1)


def turn(random_: random.Random, depth: int = 1) -> str:
    """JSON of an object like a turn of a chat: keys that matter, in any order, at times twice or spelled oddly."""
    speakers = ['"user"', '"assistant"', '"human"', '"gpt"', '"system"', '"us\\u0065r"', "null", "3"]
    content = json.dumps(random_.choice(SPELLINGS), ensure_ascii=True)
    pairs = [f'"content": {content}' if random_.random() < 0.95 else f'"content": {value(random_, depth)}']
    pairs += [f'"role": {random_.choice(speakers[: random_.choice([2, 8])])}'] * (random_.random() < 0.9)
    pairs += [f'"from": {random_.choice(speakers)}'] * (random_.random() < 0.3)
    pairs += [f'"role": {random_.choice(speakers)}'] * (random_.random() < 0.05)
    pairs += [f'"{random_.choice(["meta", "id", "messages"])}": {value(random_, depth)}'] * (random_.random() < 0.2)
    random_.shuffle(pairs)
    return "{" + random_.choice([", ", ",", " ,\t"]).join(pairs) + "}"


def row(random_: random.Random) -> str:
    turns = [turn(random_) if random_.random() < 0.95 else value(random_) for _ in range(random_.randrange(4))]
    pairs = [f'"messages": [{", ".join(turns)}]', f'"text": {json.dumps(random_.choice(SPELLINGS))}']
    ids = ['"a-1"', '"\\u0061"', '"ä"', "17", "-0", "-3", "1.0", "1e3", "null", "true", '["x"]', '"\\ud800"']
    pairs += [f'"id": {random_.choice(ids)}'] * random_.choice([0, 1, 1, 1, 2])
    pairs += [f'"more": {random_.choice([chr(34) * 2, "null", json.dumps(EVAL)])}'] * (random_.random() < 0.5)
    others = ["completion", "role", "messages", "conversations", "source", "text"]
    pairs += [f'"{random_.choice(others)}": {value(random_)}'] * (random_.random() < 0.3)
    random_.shuffle(pairs)
    return " " * random_.randrange(2) + "{" + ", ".join(pairs) + "}"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Any:
    evals = EvalSet("e", "development", ("question",), ("0",), ((EVAL,),), "digest")
    return open_index(build([evals], RULES["tulu3"], cache=tmp_path_factory.mktemp("unparsed")))


def scanned(index: Any, selection: Selection, path: Path) -> tuple[list[dict[str, Any]], Any]:
    shard = Shard(0, "d", path.name, str(path), "jsonl", 0, path.stat().st_size)
    table, _, counts = scan_shard(index, selection, shard, Options())
    return table.to_pylist(), counts


@pytest.mark.parametrize("selectors", SELECTORS, ids=str)
def test_unparsed_lines_give_what_parsed_ones_do(tmp_path: Path, index: Any, selectors: Any) -> None:
    texts, scan_all = selectors
    path = tmp_path / "train.jsonl"
    random_ = random.Random(str(selectors))
    path.write_text("\n".join(row(random_) for _ in range(1_500)), encoding="utf-8")
    chosen = parse_selectors([*texts, *(["--scan all"] if scan_all else [])])
    got, counts = scanned(index, chosen, path)
    wanted, all_counts = scanned(index, Selection(chosen.selectors, scan_all, parse_all=True), path)
    assert got == wanted
    assert len(wanted) > 40
    assert counts.n_broken == all_counts.n_broken
    assert all_counts.n_parsed == 1_500
    assert counts.n_parsed < 1_490


def test_a_plain_line_that_holds_an_eval_is_not_parsed(tmp_path: Path, index: Any) -> None:
    turns = [{"role": "system", "content": OTHER}, {"role": "user", "content": f"Ää \n{EVAL}"}]
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps({"id": "a", "messages": turns}) + "\n" + json.dumps({"messages": turns, "id": 4}))
    got, counts = scanned(index, parse_selectors(["messages[role=user].content"]), path)
    assert counts.n_parsed == 0
    assert [(m["row"], m["id"], m["turn"], m["where"], m["runs"][:2]) for m in got] == [
        (0, "a", 1, 0, [4, 4 + len(EVAL) - 1]),
        (1, "4", 1, 0, [4, 4 + len(EVAL) - 1]),
    ]


@pytest.mark.parametrize("text", SPELLINGS)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_unescaping_gives_the_bytes_that_python_reads(text: str, ascii_only: bool) -> None:
    raw = json.dumps(text, ensure_ascii=ascii_only or "\ud800" in text).replace("/", "\\/")
    buf, starts, stops = joined([raw])
    out = np.zeros(len(raw) * 4, np.uint8)
    begin, end = np.zeros(1, np.int64), np.zeros(1, np.int64)
    unescape(buf, np.array([[starts[0] + 1, stops[0] - 1, 0, 0, 0]]), out, begin, end)
    assert bytes(out[begin[0] : end[0]]) == json.loads(raw).encode("utf-8", "surrogatepass")
