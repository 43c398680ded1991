"""HREF: is the response better than the baseline's, by the task's own method (Lyu et al. 2024, arXiv 2412.15524)?

A judge with the human's answer before it, a judge without, or BERTScore against that answer: methods.yaml says which.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import Any

import yaml

from evalsuite.errors import BenchmarkError, did_you_mean
from evalsuite.types import Doc, Score
from evalsuite.verify import bertscore, pairwise
from evalsuite.verify.href import TASKS, Cell, Tally, cell, label_of, macro, pooled, refuse, tallies
from evalsuite.verify.judge import Ask, NoVerdict, Unjudged, Verdict
from evalsuite.verify.summary import JudgedRow, Summary, SummaryContext

ORDER_SEED = 42  # the argument default of upstream's evaluation script
TEMPLATES = {"judge_with_reference": "with_reference", "judge_without_reference": "without_reference"}
BERTSCORE = "bertscore"
Parts = dict[str, tuple[float, float | None, int]]


def asks(response: str, doc: Doc) -> tuple[Ask, ...]:
    """One question to the judge; none for a task that BERTScore decides, or a response equal to the baseline's."""
    template = TEMPLATES.get(METHODS[doc["category"]])
    if template is None or response == doc["output"]:
        return ()
    fields = {"instruction": str(doc["instruction"]), "output_1": str(doc["output"]), "output_2": response}
    if template == "with_reference":
        fields["reference"] = str(doc["reference"])
    return (Ask(template, fields, pairwise.is_swapped(fields["instruction"], ORDER_SEED)),)


def verify_judged(response: str, doc: Doc, verdicts: Sequence[Verdict | NoVerdict]) -> Score:
    """1 when the response is preferred, 0.5 for a tie, 0 when the baseline is. Raises Unjudged without a verdict."""
    if verdicts:
        return pairwise.score(pairwise.preference(verdicts))
    [found] = verify_unasked([(response, doc)])
    if isinstance(found, NoVerdict):
        raise Unjudged(found)
    return found


def verify_unasked(pairs: Sequence[tuple[str, Doc]]) -> list[Score | NoVerdict]:
    """The same for responses that no judge was asked about, all at once: the model behind BERTScore is loaded once."""
    compared = [n for n, (response, doc) in enumerate(pairs) if response != doc["output"]]
    triples = [
        bertscore.Triple(pairs[n][0], str(pairs[n][1]["output"]), str(pairs[n][1]["reference"])) for n in compared
    ]
    found: list[float | NoVerdict] = [pairwise.TIE] * len(pairs)
    for n, preference in zip(compared, bertscore.preferences(triples), strict=True):
        found[n] = preference
    return [f if isinstance(f, NoVerdict) else pairwise.score(f) for f in found]


def summary(rows: Sequence[JudgedRow], context: SummaryContext) -> Summary:
    """The average over all prompts of all tasks, with the interval and the macro mean among the parts.

    Absent when a task has no judged row (BERTScore is not installed): an average over fewer tasks is another number.
    """
    tasks = tallies((str(row.doc["category"]), row.score.value if row.score else None) for row in rows)
    every = pooled(tasks)
    average = cell(every, context.seed)
    label = label_of(task for task, tally in tasks.items() if tally.n)
    if average is None:
        return Summary(None, None, {}, (label, "absent: nothing was judged"))
    values = [row.score.value for row in rows if row.score]
    stderr = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    parts = _parts(tasks, average)
    absent = tuple(f"{task}: absent: {_reason(rows, task)}" for task, tally in tasks.items() if not tally.n)
    if absent:
        parts["average_of_judged"] = (average.value, stderr, average.n)
        return Summary(None, None, parts, (label, *absent))
    return Summary(average.value, stderr, parts, (f"{label}: average {average.spread}",))


def process_results(doc: Doc, results: Sequence[Any]) -> dict[str, float]:
    """What stock lm-eval can say without a judge: how long the response is, in characters."""
    return {"avg_length": float(len(results[0]))}


def process_docs(docs: Iterable[Doc]) -> Iterable[Doc]:
    """The rows as they are; raises DataError that lists those that cannot be judged."""
    refuse(
        [p for n, doc in enumerate(docs) for p in _problems(n, doc)], "expected HREF's fields and one of its 11 tasks"
    )
    return docs


def prompt(doc: Doc) -> str:
    """The instruction alone, verbatim."""
    return str(doc["instruction"])


def target(doc: Doc) -> str:
    """Nothing: there is no one right answer."""
    return ""


def _problems(number: int, doc: Doc) -> Iterator[str]:
    category = doc["category"]
    if category not in METHODS:
        yield f"row {number}: category is {category!r:.60}{did_you_mean(str(category), METHODS)}"
        return
    needed = ["instruction", "output"] + ["reference"] * (METHODS[category] != "judge_without_reference")
    yield from (f"row {number}: {name} is empty" for name in needed if not str(doc[name] or "").strip())


def _parts(tasks: Mapping[str, Tally], average: Cell) -> Parts:
    every, unweighted = pooled(tasks), macro(tasks)
    parts: Parts = {"average_low": (average.low, None, average.n), "average_high": (average.high, None, average.n)}
    if unweighted is not None:
        parts["macro"] = (unweighted, None, average.n)
    if every.n_failed and every.win_rate_official is not None:
        parts["win_rate_official"] = (every.win_rate_official, None, every.n + every.n_failed)
    return parts


def _reason(rows: Sequence[JudgedRow], task: str) -> str:
    failures = (row.failure for row in rows if row.failure is not None and row.doc["category"] == task)
    return next((f.why or f.kind for f in failures), "not judged")


def _read_methods(path: Path) -> Mapping[str, str]:
    """Task to method; raises BenchmarkError when a task is missing or unknown, or its method is."""
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = (*TEMPLATES, BERTSCORE)
    problems = [f"no method for {task!r}" for task in TASKS if task not in raw]
    problems += [f"{task!r} is no task{did_you_mean(str(task), TASKS)}" for task in raw if task not in TASKS]
    problems += [f"{task}: method is {m!r}{did_you_mean(str(m), known)}" for task, m in raw.items() if m not in known]
    if problems:
        raise BenchmarkError("\n".join(f"{path}: {p}" for p in problems))
    return {str(task): str(method) for task, method in raw.items()}


METHODS = _read_methods(Path(__file__).with_name("methods.yaml"))
