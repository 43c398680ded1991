"""A folder becomes a Checkpoint: content digest, and checks that it is whole and safe before an engine starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evalsuite.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, or {} when there is no such file. Raises CheckpointError naming file and place."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # not JSON, or not UTF-8
        raise CheckpointError(
            f"{path}: not valid JSON ({error}); copy the file or save the checkpoint again"
        ) from error
    if not isinstance(content, dict):
        found = type(content).__name__
        raise CheckpointError(
            f"{path}: expected a JSON object, found {found}; copy the file or save the checkpoint again"
        )
    return content
