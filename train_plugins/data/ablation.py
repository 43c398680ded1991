"""Ablations of a mix: a mix and a recipe for each part left out or taken alone, and what trains and scores them all."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from evalsuite.errors import TrainerFailed, UsageError, did_you_mean
from train_plugins.data.mixfile import Mix, content_of, find_mix, load_mix, variant

FULL = "full"
DONE = (0, 1, 3)  # exit codes of a loop that trained: promoted, blocked, undecided
PATHS = ("model", "start", "data", "suite", "policy", "chat_template", "config")  # keys of a recipe that may name files
RunFn = Callable[[Sequence[str]], int]
"""Runs `evalsuite` with these arguments; its exit code."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """What was written: the variants by name, the stage whose data differs, and where recipes and results lie."""

    folder: Path
    variants: tuple[str, ...]
    stage: str

    def recipe(self, name: str) -> Path:
        return self.folder / "recipes" / f"{name}.yaml"

    def results(self, name: str) -> Path:
        return self.folder / "results" / name


def variants(mix: Mix) -> dict[str, Mix]:
    """The whole mix, without each source, without each skill, with only each skill; the same sources once only."""
    skills = sorted({skill for source in mix.sources for skill in source.skills})
    asked: list[tuple[str, Callable[[], Mix]]] = [(FULL, lambda: mix)]
    asked += [(f"without-{s.name}", lambda s=s: variant(mix, without=[s.name])) for s in mix.sources]  # type: ignore[misc]
    for skill in skills:
        names = [source.name for source in mix.sources if skill in source.skills]
        asked += [(f"without-{skill}", lambda names=names: variant(mix, without=names))]  # type: ignore[misc]
        asked += [(f"only-{skill}", lambda skill=skill: variant(mix, only=[skill]))]  # type: ignore[misc]
    found: dict[str, Mix] = {}
    seen: set[tuple[str, ...]] = set()
    for name, make in asked:
        try:
            made = make()
        except UsageError:  # no source is left
            continue
        sources = tuple(source.name for source in made.sources)
        if sources not in seen and name not in found:
            seen.add(sources)
            found[name] = replace(made, name=f"{mix.name}-{name}")
    return found


def write_ablation(mix: str, recipe: Path, folder: Path, stage: str | None = None) -> Ablation:
    """Writes a mix and a recipe for each variant below `folder`. Raises UsageError for what either file has wrong.

    The recipes differ in the data of one stage: `stage`, else the one that names the mix, else the only one with data.
    """
    from evalsuite.recipe import load_recipe

    path = find_mix(mix)
    content = dict(load_recipe(recipe).content)
    chosen = _stage(content, path, recipe, stage)
    made = variants(load_mix(path))
    (folder / "recipes").mkdir(parents=True, exist_ok=True)
    (folder / "mixes").mkdir(exist_ok=True)
    moved = _moved(content, recipe.parent, folder / "recipes")
    for name, each in made.items():
        _write(folder / "mixes" / f"{each.name}.yaml", _mix_content(each, folder / "mixes"))
        stages = [{**s, "data": f"../mixes/{each.name}.yaml"} if s["name"] == chosen else s for s in moved["stages"]]
        _write(folder / "recipes" / f"{name}.yaml", {**moved, "name": f"{moved['name']}-{name}", "stages": stages})
    return Ablation(folder, tuple(made), chosen)


def commands(ablation: Ablation, options: Sequence[str] = ()) -> Iterator[tuple[str, list[str]]]:
    """(variant, arguments of the loop that trains it)."""
    for name in ablation.variants:
        results = str(ablation.results(name))
        yield name, ["loop", str(ablation.recipe(name)), "--results", results, *options]


def run_evalsuite(arguments: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-P", "-m", "evalsuite", *arguments], check=False).returncode


def run_ablation(ablation: Ablation, options: Sequence[str] = (), run: RunFn = run_evalsuite) -> None:
    """Trains every variant, scores the last checkpoint of each, and prints one table; goes on where it was killed.

    `options` go to `loop` and `score` alike (--model, --suite, --data-root, …). Raises TrainerFailed at the first
    command that fails.
    """
    for name, arguments in commands(ablation, options):
        _must(run, arguments, DONE)
        checkpoint = last_checkpoint(ablation, name)
        results = str(ablation.results(name))
        _must(run, ["score", str(checkpoint), "--results", results, "--name", name, *options], (0,))
    _must(run, ["leaderboard", str(ablation.folder / "results")], (0,))


def last_checkpoint(ablation: Ablation, name: str) -> Path:
    """The last checkpoint that the loop of a variant saw in its last stage."""
    from evalsuite.loop.log import LoopLog
    from evalsuite.recipe import load_recipe

    recipe = load_recipe(ablation.recipe(name))
    log = LoopLog(ablation.results(name) / "loops" / recipe.name)
    seen = list(log.stage(recipe.stages[-1].name).seen.values())
    if not seen:
        raise TrainerFailed(f"{name}: no checkpoint came of {recipe.name}; see {ablation.results(name)}")
    return Path(seen[-1]["path"])


def _must(run: RunFn, arguments: Sequence[str], accepted: Sequence[int]) -> None:
    if (code := run(arguments)) not in accepted:
        raise TrainerFailed(f"exit code {code} of: {shlex.join(['evalsuite', *arguments])}")


def _stage(content: Mapping[str, Any], mix: Path, recipe: Path, wanted: str | None) -> str:
    """The name of the stage whose data is replaced."""
    stages = {str(stage["name"]): stage for stage in content["stages"]}
    if wanted is not None:
        if wanted not in stages:
            raise UsageError(f"{recipe}: no stage named {wanted!r}{did_you_mean(wanted, stages)}")
        return wanted
    with_data = [name for name, stage in stages.items() if stage.get("data")]
    naming = [name for name in with_data if _names(stages[name]["data"], mix)]
    found = naming or with_data or list(stages)
    if len(found) != 1:
        raise UsageError(f"{recipe}: which stage is trained on the mix? --stage {' or --stage '.join(found)}")
    return found[0]


def _names(data: Any, mix: Path) -> bool:
    return any(Path(each).name == mix.name for each in ([data] if isinstance(data, str) else data))


def _moved(value: Any, old: Path, new: Path, key: str = "") -> Any:
    """The recipe with what its keys name beside it named as seen from the new folder."""
    if isinstance(value, Mapping):
        inputs = key == "inputs"
        return {k: _moved(v, old, new, "start" if inputs else str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_moved(each, old, new, key) for each in value]
    if isinstance(value, str) and key in PATHS and value != "model" and (old / value).exists():
        return os.path.relpath(old / value, new)
    return value


def _mix_content(mix: Mix, folder: Path) -> dict[str, Any]:
    """The mix as a file in `folder` has it: paths as seen from there, defaults left out."""
    content = _plain(content_of(mix))
    suites = [text if (Path(mix.base) / text).is_file() else "" for text in mix.decontam.against]
    content["decontam"]["against"] = [
        _seen_from(Path(mix.base), file, folder) if file else text
        for file, text in zip(suites, mix.decontam.against, strict=True)
    ]
    for source in content["sources"]:
        paths = [source["path"]] if isinstance(source["path"], str) else source["path"]
        source["path"] = [_seen_from(Path(mix.base), text, folder) for text in paths]
        for name in [name for name, value in source.items() if value in (None, "", [], {}, False)]:
            del source[name]
    content["filters"] = {name: value for name, value in content["filters"].items() if value not in (None, [])}
    return {name: value for name, value in content.items() if value not in (None, {}, [])}


def _seen_from(base: Path, text: str, folder: Path) -> str:
    path = Path(text).expanduser()
    if path.is_absolute():
        return str(path)
    here = base / path if (base / path).exists() or not path.exists() else path
    return os.path.relpath(here, folder)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")
