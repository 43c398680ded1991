"""Writes matches.jsonl and near.jsonl from the tables of the shards, a batch of columns at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from decontam.report.facts import CAPPED, EXACT, SHORT, EvalFacts, ShardTables
from decontam.types import WHERE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

ROOM = 1 << 22  # bytes of lines put together at a time
BATCH = 1 << 14  # rows: a batch of lines stays far below the 2 GiB of one Arrow string column
FLAGS = ((EXACT, "exact"), (CAPPED, "capped"), (SHORT, "short"))
_PLAIN = re.compile(r"[ !#-\[\]-~]*")  # what JSON writes as it is
_UNSAFE_IN_JSON = r'[\x00-\x1f"\\]'


@dataclass(frozen=True, slots=True)
class Known:
    """What lines say of the instances: `names` by instance; sizes and field names by (instance, field), flattened."""

    names: Any  # pyarrow string array
    first_field: Integers
    n_fields: Integers
    sizes: Integers
    uncommon: Integers
    field_names: Any  # pyarrow string array, JSON literals

    @classmethod
    def of(cls, evals: Sequence[EvalFacts]) -> Known:
        import numpy as np
        import pyarrow as pa

        names: list[str] = []
        fields: list[str] = []
        for facts in evals:
            each = facts.eval
            head = f'"eval":{json_text(each.name)},"kind":{json_text(each.kind)},"instance":'
            plain = _PLAIN.fullmatch("".join(each.ids)) is not None
            names += [f'{head}"{i}"' for i in each.ids] if plain else [head + json_text(i) for i in each.ids]
            fields += [json_text(name) for name in each.fields] * len(each.ids)
        n_fields = np.repeat([len(f.eval.fields) for f in evals], [len(f.eval.ids) for f in evals]).astype(np.int64)
        sizes = [n for f in evals for instance in f.sizes for n in instance]
        uncommon = [n for f in evals for instance in f.uncommon for n in instance]
        if not len(sizes) == len(uncommon) == len(fields):
            raise ValueError(f"{len(sizes)} sizes and {len(uncommon)} uncommon sizes of {len(fields)} fields")
        first = np.concatenate([[0], np.cumsum(n_fields)[:-1]]) if len(n_fields) else n_fields
        numbers = (np.array(sizes, np.int64), np.array(uncommon, np.int64))
        return cls(pa.array(names, pa.string()), first, n_fields, *numbers, pa.array(fields, pa.string()))


def write_matches(out: BinaryIO, shards: Sequence[ShardTables], evals: Sequence[EvalFacts], rule: str) -> int:
    """Writes one line a match, in order of shard, row, turn and instance; returns how many."""
    known = Known.of(evals)
    n = 0
    for shard in shards:
        for batch in _batches(shard.matches):
            n += batch.num_rows
            for lines in _match_lines(batch, shard, known, rule):
                out.write(lines)
    return n


def write_near(out: BinaryIO, shards: Sequence[ShardTables], evals: Sequence[EvalFacts]) -> int:
    """The same for near-duplicates; their one run counts characters of the fields joined by a newline."""
    known = Known.of(evals)
    n = 0
    for shard in shards:
        for batch in _batches(shard.near) if shard.near is not None else ():
            n += batch.num_rows
            out.write(_bytes(_near_lines(batch, shard, known)))
    return n


def chosen_lines(shard: ShardTables, places: Sequence[int], known: Known, rule: str) -> list[str]:
    """The lines of a few matches, by their place in the shard's table, in the order asked."""
    found = b"".join(_match_lines(shard.matches.take(places).combine_chunks(), shard, known, rule))
    return [line + "\n" for line in found.decode().split("\n")[:-1]]


def chosen_near_lines(shard: ShardTables, places: Sequence[int], known: Known) -> list[str]:
    """The same for near-duplicates."""
    lines: list[str] = _near_lines(shard.near.take(places).combine_chunks(), shard, known).to_pylist()
    return lines


def _batches(table: Any) -> Iterator[Any]:
    """Slices of the table, in order of row, turn and instance."""
    import numpy as np

    keys = [table[name].to_numpy() for name in ("inst", "turn", "row")]
    order = np.lexsort(keys)
    if len(order) and (np.diff(order) != 1).any():
        table = table.take(order)
    for start in range(0, table.num_rows, BATCH):
        yield table.slice(start, BATCH).combine_chunks()


def _match_lines(batch: Any, shard: ShardTables, known: Known, rule: str) -> Iterator[bytes]:
    """The lines of a batch, by the kernel: a scan of boilerplate has hundreds of thousands."""
    import numpy as np
    import pyarrow as pa

    from decontam.kernel.lines import match_lines

    def column(name: str) -> Any:
        return np.ascontiguousarray(_whole(batch[name]).to_numpy(zero_copy_only=False))

    def literal(text: str) -> Any:
        return np.frombuffer(text.encode(), np.uint8)

    scores, place = np.unique([column(n) for n in ("score", "capped_score", "common_share")], return_inverse=True)
    score, capped_score, share = np.ascontiguousarray(place.reshape(3, -1))
    covered, per_field = _flat(batch["covered"])
    capped, same = _flat(batch["capped"])
    instances = column("inst").astype(np.int64)
    if (per_field != known.n_fields[instances]).any() or (per_field != same).any():
        raise ValueError("a match table counts more or fewer fields than its instance has")
    runs, per_run = _flat(batch["runs"])
    texts = [
        literal(f'{{"dataset":{json_text(shard.dataset)},"file":{json_text(shard.file)},'),
        literal(f',"rule":{json_text(rule)}'),
        column("row") + shard.first_row,
        *_packed(_ids(batch["id"])),
        column("turn"),
        column("where"),
        *_packed(pa.array([json_text(word) for word in WHERE])),
        instances,
        *_packed(known.names),
        known.first_field,
        known.sizes,
        known.uncommon,
        *_packed(known.field_names),
        *_packed(pa.array([repr(each) for each in scores.tolist()], pa.string())),
        score,
        capped_score,
        share,
        column("flags") & 7,
        *_packed(pa.array([json_text([name for bit, name in FLAGS if value & bit]) for value in range(8)])),
        covered.to_numpy(),
        capped.to_numpy(),
        np.concatenate([[0], np.cumsum(per_field)]),
        np.ascontiguousarray(runs.to_numpy().reshape(-1, 6)),
        np.concatenate([[0], np.cumsum(per_run // 6)]),
    ]
    out = np.empty(ROOM, np.uint8)
    first = 0
    while first < batch.num_rows:
        size, following = match_lines(first, *texts, out)
        if following == first:
            out = np.empty(2 * out.size, np.uint8)
        yield out[:size].tobytes()
        first = following


def _packed(texts: Any) -> tuple[Any, Any]:
    """The bytes of a string array and where each text starts and stops in them."""
    import numpy as np

    texts = _whole(texts)
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8), places


def _near_lines(batch: Any, shard: ShardTables, known: Known) -> Any:
    import numpy as np

    instances = batch["inst"].to_numpy().astype(np.int64)
    spans = [_text(batch[name]) for name in ("train_from", "train_to", "eval_from", "eval_to")]
    return _joined(
        *_head(batch, shard, known, instances),
        ',"score":',
        _floats(batch["score"].to_numpy()),
        ',"flags":["near"],"runs":[{"train":[',
        spans[0],
        ",",
        spans[1],
        '],"eval":[',
        spans[2],
        ",",
        spans[3],
        "]}]}\n",
    )


def _head(batch: Any, shard: ShardTables, known: Known, instances: Integers) -> tuple[Any, ...]:
    """The columns that every line begins with, up to the instance."""
    import pyarrow as pa

    where = pa.array([f'"{word}"' for word in WHERE])
    return (
        f'{{"dataset":{json_text(shard.dataset)},"file":{json_text(shard.file)},"row":',
        _text(pa.array(batch["row"].to_numpy() + shard.first_row)),
        ',"id":',
        _ids(batch["id"]),
        ',"turn":',
        _text(batch["turn"]),
        ',"where":',
        where.take(_whole(batch["where"])),
        ",",
        known.names.take(pa.array(instances)),
    )


def _ids(column: Any) -> Any:
    """Row ids as JSON; few data sets have ids that need escaping, so those alone pay for it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _whole(column)
    if pc.any(pc.match_substring_regex(column, _UNSAFE_IN_JSON)).as_py():
        return pa.array([json_text(each) for each in column.to_pylist()], pa.string())
    return pc.fill_null(_joined('"', column, '"'), "null")


def _flat(column: Any) -> tuple[Any, Integers]:
    """(all values of a column of lists, the length of each list)."""
    import numpy as np
    import pyarrow.compute as pc

    column = _whole(column)
    return column.flatten(), pc.list_value_length(column).to_numpy().astype(np.int64)


def _floats(values: NDArray[np.float64]) -> Any:
    """The shortest text of each number that reads back as the same; scores repeat, so each is written once."""
    import numpy as np
    import pyarrow as pa

    distinct, place = np.unique(values, return_inverse=True)
    return pa.array([repr(each) for each in distinct.tolist()], pa.string()).take(pa.array(place))


def _text(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.cast(_whole(column), pa.string())


def _joined(*parts: Any) -> Any:
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(*parts, "")


def _whole(column: Any) -> Any:
    """A column as one array."""
    import pyarrow as pa

    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _bytes(lines: Any) -> memoryview:
    """The characters of all texts of an array, which Arrow keeps one after the other."""
    import numpy as np

    _, offsets, data = lines.buffers()
    bounds = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return memoryview(data)[bounds[0] : bounds[-1]]


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON of any value; with escapes only where it holds a lone surrogate, which no file of UTF-8 can."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=separators, indent=indent)
    return text
