"""transformers starts without scikit-learn where nothing needs it, and knows of it as before."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("transformers")

SAID = """
import sys
from evalsuite.models.lean import import_generation
import_generation()
import_generation()
from transformers import AutoModelForCausalLM, utils
from transformers.generation import candidate_generator
print(sorted({"sklearn", "scipy", "pandas"} & sys.modules.keys()))
print(utils.is_sklearn_available(), candidate_generator.is_sklearn_available())
import sklearn.metrics
"""


def test_generation_is_imported_without_sklearn_and_sklearn_can_be_had_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", SAID], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True False"]
