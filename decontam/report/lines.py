"""Writes matches.jsonl and near.jsonl from the tables of the shards, a batch of columns at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from decontam.report.facts import CAPPED, EXACT, SHORT, EvalFacts, ShardTables
from decontam.types import WHERE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

BATCH = 1 << 14  # rows: a batch of lines stays far below the 2 GiB of one Arrow string column
FLAGS = ((EXACT, "exact"), (CAPPED, "capped"), (SHORT, "short"))
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
            names += [head + json_text(i) for i in each.ids]
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
            out.write(_bytes(_match_lines(batch, shard, known, rule)))
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
    lines: list[str] = _match_lines(shard.matches.take(places).combine_chunks(), shard, known, rule).to_pylist()
    return lines


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


def _match_lines(batch: Any, shard: ShardTables, known: Known, rule: str) -> Any:
    import numpy as np
    import pyarrow as pa

    instances = batch["inst"].to_numpy().astype(np.int64)
    flags = pa.array([json_text([name for bit, name in FLAGS if value & bit]) for value in range(8)])
    return _joined(
        *_head(batch, shard, known, instances),
        ',"score":',
        _floats(batch["score"].to_numpy()),
        ',"covered":[',
        _of_sizes(batch["covered"], instances, known, known.sizes),
        '],"capped_score":',
        _floats(batch["capped_score"].to_numpy()),
        ',"capped":[',
        _of_sizes(batch["capped"], instances, known, known.uncommon),
        '],"flags":',
        flags.take(pa.array(batch["flags"].to_numpy() & 7)),
        f',"rule":{json_text(rule)},"common_share":',
        _floats(batch["common_share"].to_numpy()),
        ',"runs":[',
        _runs(batch["runs"], instances, known),
        "]}\n",
    )


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


def _of_sizes(column: Any, instances: Integers, known: Known, sizes: Integers) -> Any:
    """`[c,n],[c,n]` with one pair a field."""
    import numpy as np
    import pyarrow as pa

    values, lengths = _flat(column)
    if (lengths != known.n_fields[instances]).any():
        raise ValueError("a match table counts more or fewer fields than its instance has")
    starts = np.cumsum(lengths) - lengths
    place = np.repeat(known.first_field[instances] - starts, lengths) + np.arange(len(values))
    return _listed(_joined("[", _text(values), ",", _text(pa.array(sizes[place])), "]"), lengths)


def _runs(column: Any, instances: Integers, known: Known) -> Any:
    """`{"train":[a,b],"field":name,"eval":[a,b],"k":n}` for each run of each match."""
    import numpy as np
    import pyarrow as pa

    values, lengths = _flat(column)
    lengths = lengths // 6
    train_from, train_to, field, eval_from, eval_to, k = values.to_numpy().reshape(-1, 6).T
    place = np.repeat(known.first_field[instances], lengths) + field
    each = _joined(
        '{"train":[',
        _text(pa.array(train_from)),
        ",",
        _text(pa.array(train_to)),
        '],"field":',
        known.field_names.take(pa.array(place)),
        ',"eval":[',
        _text(pa.array(eval_from)),
        ",",
        _text(pa.array(eval_to)),
        '],"k":',
        _text(pa.array(k)),
        "}",
    )
    return _listed(each, lengths)


def _flat(column: Any) -> tuple[Any, Integers]:
    """(all values of a column of lists, the length of each list)."""
    import numpy as np
    import pyarrow.compute as pc

    column = _whole(column)
    return column.flatten(), pc.list_value_length(column).to_numpy().astype(np.int64)


def _listed(texts: Any, lengths: Integers) -> Any:
    """Texts joined by commas, `lengths` of them at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), texts), ",")


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
