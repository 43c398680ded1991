"""About how many tokens training data has, from some of its rows: for a plan, without torch or transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SAMPLED = 400
"""Rows of a file that are looked at; a file with fewer is counted whole."""


def tokens_of(files: Sequence[str], rows: int, model: str, max_length: int) -> int | None:
    """Tokens of one epoch: the mean of some rows times all rows, each conversation cut at `max_length`; both answers
    of a pair count. None where the model's tokenizer, or any row, cannot be read."""
    tokenizer = Path(model) / "tokenizer.json"
    if not tokenizer.is_file():
        return None
    texts = [conversation for file in files for row in _some(Path(file)) for conversation in _conversations(row)]
    n = sum(1 for file in files for row in _some(Path(file)) if _conversations(row))
    if not n:
        return None
    from tokenizers import Tokenizer

    encode = Tokenizer.from_file(str(tokenizer)).encode
    total = sum(min(len(encode(text, add_special_tokens=False)), max_length) for text in texts)
    return round(total / n * rows)


def _some(path: Path) -> Iterator[Mapping[str, Any]]:
    """Rows from places spread evenly over a JSONL file; nothing of any other."""
    if path.suffix != ".jsonl":
        return
    size = path.stat().st_size
    with path.open("rb") as file:
        lines = [line for line, _ in zip(file, range(SAMPLED + 1), strict=False)]
        if len(lines) > SAMPLED:
            lines = []
            for i in range(SAMPLED):
                file.seek(size * i // SAMPLED)
                if i:
                    file.readline()  # the rest of a line whose start was not seen
                lines.append(file.readline())
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _conversations(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The row's conversations as text, nearly as the Tülu template writes them."""
    found = [row[key] for key in ("messages", "chosen", "rejected") if isinstance(row.get(key), list)]
    return tuple(
        "\n".join(f"<|{turn.get('role')}|>\n{turn.get('content')}" for turn in turns if isinstance(turn, dict))
        for turns in found
    )
