"""What all tests share: no network, no cache outside the test's own folder, few threads, tiny real checkpoints."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

# Both libraries read their environment when they are imported, so this stands before any test module is loaded.
_HOME = tempfile.mkdtemp(prefix="evalsuite-tests-")
os.environ["HF_HOME"] = _HOME
os.environ["EVALSUITE_CACHE"] = f"{_HOME}/evalsuite"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("EVALSUITE_DATA_ROOT", None)

REPOSITORY = Path(__file__).resolve().parents[1]
WARM = ("evalsuite.score", "evalsuite.harness", "lm_eval.tasks", "evalsuite.models.hf.model")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real benchmark and training data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("EVALSUITE_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "hub").is_dir():
        pytest.skip(f"real data is absent: no folder {folder / 'hub'} (set EVALSUITE_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def hub_data(shared_data: Path) -> Path:
    """Stand-ins for hub datasets, `<root>/<owner>/<name>`: what --data-root takes."""
    return shared_data / "hub"


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 0.3 M parameter Llama with a byte-level tokenizer and a chat template, window 2048."""
    from tests.tiny import make_checkpoint

    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "ckpt")


@pytest.fixture(scope="session")
def forks() -> Any:
    """`forks.Process(target=…, args=…)`: a fork of a process that has imported what a run needs.

    For tests that start many runs only to kill them. All forks share one hash seed: what must not depend on it is
    compared with a run in an interpreter of its own.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*WARM, "transformers.models.llama.modeling_llama"])
    return context
