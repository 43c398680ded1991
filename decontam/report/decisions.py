"""review.jsonl: what people said of matches, one decision a line; of two on the same match the later counts."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from decontam.errors import DecontamError
from decontam.report.lines import json_text
from decontam.report.match import Key, Match

Decision = Literal["accept", "reject"]  # accept: the match is real, and cleaning may act on it
FILE = "review.jsonl"
_KEY = ("dataset", "file", "row", "turn", "eval", "instance")


def read_decisions(out: Path) -> dict[Key, Decision]:
    """The decisions in a scan's folder, none when nobody decided yet; raises DecontamError naming a broken line."""
    path = out / FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DecontamError(f"{path}: cannot be read ({error.strerror})") from error
    found: dict[Key, Decision] = {}
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline was cut short by a crash
        try:
            raw = json.loads(line)
            found[_key(raw)] = _decision(raw["decision"])
        except (ValueError, KeyError, TypeError) as error:
            raise DecontamError(
                f"{path}:{number} is no decision ({type(error).__name__}: {error}); mend or delete the line"
            ) from error
    return found


def append_decision(out: Path, match: Match, decision: Decision) -> None:
    """Adds a line and puts it on the disk; a line that a crash cut short is taken away first."""
    raw = dict(zip(_KEY, match.key, strict=True)) | {"id": match.id, "decision": decision}
    path = out / FILE
    try:
        with path.open("a+b") as file:
            _drop_torn_line(file)
            file.write(json_text(raw).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DecontamError(f"{path}: the decision cannot be kept ({error.strerror})") from error


def _drop_torn_line(file: Any) -> None:
    file.seek(0)
    content = file.read()
    if content and not content.endswith(b"\n"):
        file.truncate(content.rfind(b"\n") + 1)
    file.seek(0, os.SEEK_END)


def _key(raw: Mapping[str, Any]) -> Key:
    dataset, file, row, turn, eval_, instance = (raw[name] for name in _KEY)
    return (str(dataset), str(file), int(row), int(turn), str(eval_), str(instance))


def _decision(word: object) -> Decision:
    if word == "accept":
        return "accept"
    if word == "reject":
        return "reject"
    raise ValueError(f"{word!r} is neither accept nor reject")
