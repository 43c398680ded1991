"""Who may import whom, and what starting the command line may cost."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalsuite.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "transformers", "vllm", "datasets", "lm_eval", "numpy", "pandas", "scipy", "tokenizers", "sympy"}
HEAVY |= {"numba", "pyarrow", "spacy"}
OURS = {"evalsuite", "benchmarks", "decontam", "train_plugins", "tests"}
MAY_IMPORT = {
    "decontam": set(),
    "evalsuite": set(),
    "benchmarks": {"evalsuite"},
    "train_plugins": {"evalsuite", "decontam"},
}


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "evalsuite":
            yield from (f"evalsuite.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_arrow_points_outward(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for name in imports(path)
        if name.split(".")[0] in OURS - allowed
    ]
    # The command line reaches decontamination lazily; nothing else of evalsuite does.
    assert [w for w in wrong if not w.startswith("evalsuite/cli/decontam.py imports decontam")] == []


def test_verifiers_use_types_and_verify_only() -> None:
    allowed = ("evalsuite.types", "evalsuite.verify", "evalsuite.exemplars", "evalsuite.errors")
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / "benchmarks").rglob("*.py"))
        for name in imports(path)
        if name.startswith("evalsuite") and not name.startswith(allowed)
    ]
    assert wrong == []


def test_only_the_harness_knows_lm_eval() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "evalsuite").rglob("*.py"))
        for name in imports(path)
        if name.split(".")[0] == "lm_eval"
    ]
    assert set(wrong) <= {"evalsuite/harness.py"}


@pytest.mark.parametrize("verb", ["", *VERBS, "decontam scan"])
def test_help_is_light_and_answers_in_a_fifth_of_a_cpu_second(verb: str) -> None:
    program = (
        "import sys; sys.argv = ['evalsuite', *sys.argv[1:]]\n"
        "from evalsuite.__main__ import main\n"
        "code = main()\n"
        f"loaded = {HEAVY!r} & {{name.split('.')[0] for name in sys.modules}}\n"
        "assert not loaded, loaded\n"
        "sys.exit(code)"
    )
    arguments = [*verb.split(), "--help"]
    spent = []
    # CPU time, not wall time, and the best of ten: a busy machine must not make this fail.
    while len(spent) < 10 and min(spent, default=1.0) >= 0.2:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        assert "Usage: evalsuite" in done.stdout
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.2


def test_list_and_leaderboard_load_no_heavy_package(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom evalsuite.__main__ import main\n"
        "main(['list'])\nmain(['leaderboard', sys.argv[1]])\n"
        f"print('loaded', sorted(({HEAVY!r} - {{'numpy'}}) & {{name.split('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "loaded []"
