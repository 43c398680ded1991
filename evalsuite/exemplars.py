"""The exemplars of few-shot prompts, read from the installed lm-eval at run time: none is copied into this project.

Nothing of lm-eval is imported or executed: YAML files are read as data, `!function` stays a string, Python is read as a
syntax tree (importing lm_eval.tasks.minerva_math would need math-verify). The texts were compared with those of
allenai/olmes @5a51f50 for lm-eval 0.4.13; tests pin the digests of what comes out of here.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evalsuite.errors import BenchmarkError

BBH_TASKS = (
    "boolean_expressions",
    "causal_judgement",
    "date_understanding",
    "disambiguation_qa",
    "dyck_languages",
    "formal_fallacies",
    "geometric_shapes",
    "hyperbaton",
    "logical_deduction_five_objects",
    "logical_deduction_seven_objects",
    "logical_deduction_three_objects",
    "movie_recommendation",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "penguins_in_a_table",
    "reasoning_about_colored_objects",
    "ruin_names",
    "salient_translation_error_detection",
    "snarks",
    "sports_understanding",
    "temporal_sequences",
    "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects",
    "tracking_shuffled_objects_three_objects",
    "web_of_lies",
    "word_sorting",
)


def gsm8k() -> list[dict[str, str]]:
    """The eight worked examples of Wei et al. 2022 as `{question, target}`, ending in "So the answer is N."."""
    path, config = _read_yaml("gsm8k/gsm8k-cot.yaml")
    samples = _samples(path, config, ("question", "target"))
    return [{"question": s["question"], "target": _so_the_answer(path, s["target"])} for s in samples]


def _so_the_answer(path: Path, target: str) -> str:
    reasoning, mark, number = target.strip().rpartition("The answer is ")
    if not mark:
        raise _changed(path, "an exemplar has no 'The answer is'")
    return f"{reasoning}So the answer is {number}"


def bbh(task: str) -> tuple[str, list[dict[str, str]]]:
    """The description of a BIG-Bench Hard task (ending in a blank line) and its three examples as `{input, target}`."""
    path, config = _read_yaml(f"bbh/cot_fewshot/{task}.yaml")
    description = config.get("description")
    if not isinstance(description, str):
        raise _changed(path, "it has no description")
    samples = _samples(path, config, ("input", "target"))
    return description, [{"input": s["input"], "target": s["target"].strip()} for s in samples]


def minerva(typos: bool = True) -> list[dict[str, str]]:
    """The four worked examples of Lewkowycz et al. 2022 as `{problem, solution}`.

    With `typos` they are the published regime's, which differ in three places (quirk `minerva-exemplar-typos`): a
    stray brace after the first problem, and one backslash instead of two at a line break of the third solution and of
    the fourth problem.
    """
    path = _package_file("minerva_math/utils.py")
    shots = [{"problem": row["problem"], "solution": row["solution"]} for row in _returned_literal(path)]
    if len(shots) != 4:
        raise _changed(path, f"it has {len(shots)} exemplars instead of 4")
    if typos:
        shots[0]["problem"] = _swap(path, shots[0]["problem"], "$.", "$.}")
        shots[2]["solution"] = _swap(path, shots[2]["solution"], "\\\\\n", "\\\n")
        shots[3]["problem"] = _swap(path, shots[3]["problem"], "\\\\\n", "\\\n")
    return shots


def _swap(path: Path, text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise _changed(path, f"an exemplar has {old!r} {text.count(old)} times instead of once")
    return text.replace(old, new)


def _returned_literal(path: Path) -> list[dict[str, str]]:
    """What `list_fewshot_samples` in a file returns, from its syntax tree."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "list_fewshot_samples":
            for statement in node.body:
                if isinstance(statement, ast.Return) and statement.value is not None:
                    rows: list[dict[str, str]] = ast.literal_eval(statement.value)
                    return rows
    raise _changed(path, "it has no list_fewshot_samples that returns a literal")


@functools.cache
def truthfulqa() -> str:
    """The six question-answer pairs of Lin et al. 2021, joined by blank lines, without a blank line at the end."""
    from jinja2 import Environment, nodes

    path, config = _read_yaml("truthfulqa/truthfulqa_mc1.yaml")
    # The template begins with an assignment of the constant text; the parse tree gives it without rendering anything.
    for assignment in Environment(autoescape=True).parse(str(config.get("doc_to_text"))).find_all(nodes.Assign):
        if isinstance(assignment.target, nodes.Name) and assignment.target.name == "prompt_qa":
            text = assignment.node.value if isinstance(assignment.node, nodes.Const) else None
            if isinstance(text, str) and text.count("Q: ") == 6:
                return text
    raise _changed(path, "its doc_to_text does not assign six pairs to prompt_qa")


def _samples(path: Path, config: Mapping[str, Any], fields: Iterable[str]) -> list[dict[str, str]]:
    samples = (config.get("fewshot_config") or {}).get("samples")
    if not isinstance(samples, list) or not samples:
        raise _changed(path, "it has no fewshot_config.samples")
    if any(not isinstance(sample.get(field), str) for sample in samples for field in fields):
        raise _changed(path, f"a sample lacks one of the fields {', '.join(fields)}")
    return samples


def _read_yaml(name: str) -> tuple[Path, dict[str, Any]]:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Reads `!function utils.f` as the string "utils.f"."""

    Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))
    path = _package_file(name)
    with path.open("rb") as file:
        return path, yaml.load(file, Loader=Loader)


def _package_file(name: str) -> Path:
    spec = importlib.util.find_spec("lm_eval")  # finds the package without importing it
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder, "tasks", name)
        if path.is_file():
            return path
    raise BenchmarkError(f"the exemplars in lm_eval/tasks/{name} cannot be found; pip install lm-eval==0.4.13")


def _changed(path: Path, what: str) -> BenchmarkError:
    return BenchmarkError(
        f"{path}: {what}; the exemplars were checked with lm-eval 0.4.13 (pip install lm-eval==0.4.13)"
    )
