"""BIG-Bench Hard: the answer at the end of a chain of thought, for 27 tasks (Suzgun et al. 2022, arXiv 2210.09261).

Prompt and extraction are those of allenai/olmes @5a51f50: `ladder` is `bbh:cot-v1::tulu`, `strict` the older
`bbh:cot::tulu`. The YAML names `docs_<task>` and `shots_<task>`, which exist for every task.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

from evalsuite import exemplars
from evalsuite.types import Score
from evalsuite.verify.bbh import QUIRKS, ladder, same_answer, strict
from evalsuite.verify.lmeval import as_process_results

PHRASE = "So the answer is "


def verify(
    response: str,
    doc: Mapping[str, Any],
    extraction: Literal["ladder", "strict"] = "ladder",
    quirks: frozenset[str] = QUIRKS,
) -> Score:
    task = doc["subtask"]
    is_strict = extraction == "strict"
    answer, step = (strict(response, quirks), 0) if is_strict else ladder(response, task, quirks)
    return Score(
        float(same_answer(answer, doc["target"], task, keep_punctuation=is_strict)),
        extracted=answer or None,
        why=f"found by step {step}" if step else "" if answer else "no answer in the response",
        format_ok=PHRASE in response,
    )


process_results = as_process_results(verify)


def gold_response(doc: Mapping[str, Any]) -> str:
    return f"{PHRASE}{doc['target']}."


def doc_to_text(doc: Mapping[str, Any]) -> str:
    return f"{doc.get('lead', '')}Q: {doc['input']}\nA: Let's think step by step."


def _docs(rows: Any, task: str) -> Any:
    return rows.add_column("subtask", [task] * len(rows))


def _shots(task: str) -> list[dict[str, str]]:
    """The three exemplars; the description of the task stands at the beginning of the first turn."""
    description, shots = exemplars.bbh(task)
    return [{**shot, "subtask": task, "lead": "" if n else description} for n, shot in enumerate(shots)]


def __getattr__(name: str) -> Callable[..., Any]:
    kind, _, task = name.partition("_")
    if task not in exemplars.BBH_TASKS or kind not in ("docs", "shots"):
        raise AttributeError(name)
    return functools.partial(_docs, task=task) if kind == "docs" else functools.partial(_shots, task)
