"""Finds what is shipped by name: recipes, mixes beside them, and the accelerate configs of their launches.

Other distributions add folders by the entry-point group `evalsuite.recipes`, each naming a package with YAML files.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from evalsuite.errors import UsageError, did_you_mean

GROUP = "evalsuite.recipes"
BUILT_IN = "train_plugins.recipes"
NOT_RECIPES = ("models",)  # files of the folder that no stage is written in


def known_recipes() -> dict[str, Path]:
    """Shipped recipe files by name. Raises UsageError when two distributions offer one name."""
    found: dict[str, Path] = {}
    for folder in _folders():
        for path in sorted(folder.glob("*.yaml")):
            name = path.stem
            if name in NOT_RECIPES:
                continue
            if name in found:
                raise UsageError(f"two recipes are named {name!r}: {found[name]} and {path}; give one by its path")
            found[name] = path
    return dict(sorted(found.items()))


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe. Raises UsageError with the near miss."""
    known = known_recipes()
    if name not in known:
        raise UsageError(f"no recipe named {name!r}{did_you_mean(name, known)} (see: evalsuite list --recipes)")
    return known[name]


def find_launch(config: str) -> Path:
    """The accelerate config of a launch: a path, or a shipped name such as `fsdp2`. Raises UsageError for neither."""
    path = Path(config).expanduser()
    if path.is_file():
        return path
    known = known_launches()
    if config not in known:
        raise UsageError(
            f"launch.config {config!r} is no file and no shipped accelerate config{did_you_mean(config, known)}; "
            f"there are {', '.join(known)}"
        )
    return known[config]


def known_launches() -> dict[str, Path]:
    """Shipped accelerate configs by name."""
    return {path.stem: path for folder in _folders() for path in sorted((folder / "accelerate").glob("*.yaml"))}


def find_shipped(text: str) -> Path | None:
    """A file that is shipped beside the recipes (`mixes/tulu3_sft.yaml`); None when there is none of that name."""
    path = Path(text)
    if path.is_absolute() or ".." in path.parts:
        return None
    return next((folder / path for folder in _folders() if (folder / path).is_file()), None)


def _folders() -> Iterator[Path]:
    packages = [BUILT_IN, *(point.value for point in entry_points(group=GROUP))]
    for package in dict.fromkeys(packages):
        try:
            spec = find_spec(package)
        except ImportError:
            continue
        for place in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield Path(place)
