"""What both forms of the instruction-following reward share: the text that is judged, and reading a label."""

from __future__ import annotations

import ast
import json
from typing import Any

BLANK = "the response is blank"


def prepared(response: str) -> str:
    """The answer of a response: what follows its last `</think>`, without role and answer marks, stripped.

    The steps are those of allenai/open-instruct @e6c3044aa (`remove_thinking_section`).
    """
    answer = response.replace("<|assistant|>", "").strip().rpartition("</think>")[2]
    return answer.replace("<answer>", "").replace("</answer>", "").strip()


def parsed(label: Any) -> Any:
    """The label itself, or what its text says as JSON or as a Python literal; ValueError where it says neither."""
    if not isinstance(label, str):
        return label
    try:
        return json.loads(label)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except ValueError:
        return _literal(label)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        raise ValueError("neither JSON nor a literal") from None
