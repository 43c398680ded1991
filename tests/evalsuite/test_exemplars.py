"""The exemplars that lm-eval 0.4.13 holds, pinned by digest: a changed package must not change a prompt unnoticed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from typing import Any

import pytest

from evalsuite import exemplars
from evalsuite.errors import BenchmarkError


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=True).encode()).hexdigest()[:16]


@pytest.mark.skipif(importlib.metadata.version("lm-eval") != "0.4.13", reason="digests are those of lm-eval 0.4.13")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gsm8k", "04bfb5d2c73e6966"),
        ("bbh", "0cdbf673525d9484"),
        ("minerva", "80b620f47d42f1af"),
        ("minerva repaired", "e855aac512c286dd"),
        ("truthfulqa", "1894e33f64674e13"),
    ],
)
def test_the_exemplars_are_the_ones_that_were_compared_with_upstream(name: str, expected: str) -> None:
    made = {
        "gsm8k": exemplars.gsm8k,
        "bbh": lambda: [exemplars.bbh(task) for task in exemplars.BBH_TASKS],
        "minerva": exemplars.minerva,
        "minerva repaired": lambda: exemplars.minerva(typos=False),
        "truthfulqa": exemplars.truthfulqa,
    }
    assert digest(made[name]()) == expected


def test_every_gsm8k_exemplar_ends_in_the_phrase_of_the_regime() -> None:
    shots = exemplars.gsm8k()
    assert len(shots) == 8
    assert all(" So the answer is " in shot["target"] and "The answer is" not in shot["target"] for shot in shots)


def test_every_bbh_task_has_a_description_and_three_stripped_examples() -> None:
    assert len(set(exemplars.BBH_TASKS)) == 27
    for task in exemplars.BBH_TASKS:
        description, shots = exemplars.bbh(task)
        assert description.endswith("\n\n")
        assert len(shots) == 3
        assert all(s["target"] == s["target"].strip() and "So the answer is " in s["target"] for s in shots)
        assert not any(s["target"].startswith("Let's think step by step") for s in shots)


def test_the_typos_of_the_regime_are_three_and_nothing_else() -> None:
    printed, repaired = exemplars.minerva(), exemplars.minerva(typos=False)
    changed = [
        (n, field, len(printed[n][field]) - len(repaired[n][field]))
        for n in range(4)
        for field in ("problem", "solution")
        if printed[n][field] != repaired[n][field]
    ]
    # A brace more in the first problem, a backslash less in the third solution and the fourth problem.
    assert changed == [(0, "problem", 1), (2, "solution", -1), (3, "problem", -1)]
    assert printed[0]["problem"].endswith("$.}")


def test_the_truthfulqa_pairs_are_what_lm_evals_own_template_renders() -> None:
    from jinja2 import Environment

    path = exemplars._package_file("truthfulqa/truthfulqa_mc1.yaml")
    _, config = exemplars._read_yaml(path.relative_to(path.parents[1]).as_posix())
    rendered = Environment(keep_trailing_newline=True, autoescape=False).from_string(config["doc_to_text"])
    assert rendered.render(question="Why?") == f"{exemplars.truthfulqa()}\n\nQ: Why?\nA:"


def test_reading_exemplars_imports_nothing_of_lm_eval() -> None:
    code = (
        "import sys; from evalsuite import exemplars as e\n"
        "e.gsm8k(); e.minerva(); e.truthfulqa(); e.bbh('snarks')\n"
        "print([n for n in sys.modules if n.split('.')[0] in ('lm_eval', 'datasets', 'torch')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_an_absent_exemplar_is_named_with_the_package_to_install() -> None:
    with pytest.raises(BenchmarkError, match=r"bbh/cot_fewshot/nothing\.yaml cannot be found; pip install lm-eval"):
        exemplars.bbh("nothing")
